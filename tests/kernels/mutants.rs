//! Each seeded bug is caught, and for its own reason: by the emulator, or by the check of what came out.

use crate::device::{Order, Variant, only_emulated};
use crate::{ORDERS, activation, append, copy, decode, gather, hopper, norm, penalize, prefill, sample};

/// Asserts that in every order some case of the family fails, and says why in these words.
fn caught<Case>(why: &str, cases: &[Case], failure: impl Fn(&Case, Order) -> Option<String>) {
    if only_emulated(why) {
        return;
    }
    for order in ORDERS {
        let caught = cases.iter().filter_map(|case| failure(case, order)).any(|text| text.contains(why));
        assert!(caught, "{order:?}: none of {} cases says {why:?}", cases.len());
    }
}

#[test]
fn every_seeded_bug_of_decode_is_caught() {
    let cases = decode::cases();
    for (mutant, why) in [
        (Variant::PageOffByOne, "outside of every buffer"),
        (Variant::MaskEdge, "tokens), head"),
        (Variant::CopyNotAwaited, "copy was not waited for"),
        (Variant::WarpUnsynced, "read of shared memory"),
        (Variant::MergeUnsynced, "shared memory that"),
        (Variant::StaleMax, "tokens), head"),
    ] {
        caught(why, &cases, |case, order| match case.run(mutant, order) {
            Err(faults) => Some(faults.text),
            Ok(outputs) => case.check(&outputs).err(),
        });
    }
}

#[test]
fn every_seeded_bug_of_prefill_on_hopper_is_caught() {
    let cases = hopper::faulty_cases();
    for (mutant, why) in [
        (Variant::QueryUnfenced, "without a proxy fence"),
        (Variant::KeyFreedEarly, "has yet to bring"),
        (Variant::TailUncleared, "holds NaN"),
        (Variant::CausalEdge, "keys, head"),
        (Variant::TurnForgotten, "waits for threads that never come"),
    ] {
        caught(why, &cases, |case, order| match case.run(mutant, order) {
            Err(faults) => Some(faults.text),
            Ok(outputs) => case.check(&outputs).err(),
        });
    }
}

#[test]
fn every_seeded_bug_of_prefill_is_caught() {
    let cases = prefill::cases();
    for (mutant, why) in [
        (Variant::PageOffByOne, "outside of every buffer"),
        (Variant::MaskEdge, "keys, head"),
        (Variant::CopyNotAwaited, "copy was not waited for"),
        (Variant::StageUnsynced, "shared memory that"),
        (Variant::TailUnzeroed, "holds NaN"),
    ] {
        caught(why, &cases, |case, order| match case.run(mutant, order) {
            Err(faults) => Some(faults.text),
            Ok(outputs) => case.check(&outputs).err(),
        });
    }
}

#[test]
fn every_seeded_bug_of_norm_is_caught() {
    caught("shared memory that", &norm::cases(), |case, order| {
        let inputs = case.inputs();
        match case.run(&inputs, Variant::SumUnsynced, order) {
            Err(faults) => Some(faults.text),
            Ok(outputs) => case.check(&inputs, &outputs).err(),
        }
    });
}

#[test]
fn every_seeded_bug_of_append_is_caught() {
    let cases = append::faulty_cases();
    for (mutant, why) in [
        (Variant::WrongPair, "q of token"),
        (Variant::Unsaturated, "of the pool[0] is NaN, not 448"),
        (Variant::PaddingWritten, "of the pool"),
        (Variant::HeadSkipped, "q of token"),
        (Variant::CopyNotAwaited, "copy was not waited for"),
    ] {
        caught(why, &cases, |case, order| {
            let inputs = case.inputs();
            match case.run(&inputs, mutant, order) {
                Err(faults) => Some(faults.text),
                Ok(outputs) => case.check(&inputs, &outputs).err(),
            }
        });
    }
}

#[test]
fn every_seeded_bug_of_copy_is_caught() {
    caught("not 0x", &copy::cases(), |case, order| match case.run(Variant::TailUncopied, order) {
        Err(faults) => Some(faults.text),
        Ok(target) => case.check(&target).err(),
    });
}

#[test]
fn every_seeded_bug_of_sample_is_caught() {
    let cases = sample::cases();
    for (mutant, why) in [
        (Variant::HistogramUnsynced, "shared memory that"),
        (Variant::KeyedByRow, "scores"),
        (Variant::ListUnsynced, "shared memory that"),
        (Variant::ShortList, "scores"),
        (Variant::QueueUnsynced, "read of shared memory"),
        (Variant::EdgeUnchecked, "may not be chosen"),
    ] {
        caught(why, &cases, |case, order| match case.run(mutant, order) {
            Err(faults) => Some(faults.text),
            Ok(tokens) => case.check(&tokens).err(),
        });
    }
}

#[test]
fn the_seeded_bug_of_activation_is_caught() {
    caught("outside of every buffer", &activation::cases(), |case, order| {
        let input = case.input();
        match case.run(&input, Variant::GateFromNext, order) {
            Err(faults) => Some(faults.text),
            Ok(output) => case.check(&input, &output).err(),
        }
    });
}

#[test]
fn the_seeded_bug_of_gather_is_caught() {
    caught("outside of every buffer", &gather::cases(), |case, order| {
        match case.run(Variant::IdUnchecked, order) {
            Err(faults) => Some(faults.text),
            Ok(gathered) => case.check(&gathered).err(),
        }
    });
}

#[test]
fn the_seeded_bug_of_penalize_is_caught() {
    caught("logit", &penalize::cases(), |case, order| match case.run(Variant::PromptCounted, order) {
        Err(faults) => Some(faults.text),
        Ok(logits) => case.check(&logits).err(),
    });
}
