//! The CPU executor's twins of the kernels: held to the kernels' own references and bounds, and, where arithmetic is
//! exact, to the kernels' own bits.

use crate::attention::{Cache, Content, Row, Shape};
use crate::device::{Order, Variant};
use crate::numbers::{Stored, one_step, poisoned};
use crate::{activation, append, copy, decode, norm, prefill, sample};
use flyball::exec::cpu::{self, Append, Cached, Paging, Place, Pool};
use flyball::model::{Rope, RopeScaling, RopeStyle, rotation};
use flyball::number::{self, Dtype};
use flyball::prng::Prng;
use flyball::request::SamplingParams;
use flyball_simt::core::{self};

/// Rounds alike, to every type.
fn rounds_alike(value: f32) {
    assert_eq!(number::to_bf16(value), core::to_bf16(value), "{value}");
    assert_eq!(number::to_f16(value), core::to_f16(value), "{value}");
    assert_eq!(number::to_e4m3(value), core::to_e4m3(value), "{value}");
}

/// `flyball::number` is held to the definitions of the formats; so what has its bits is right. To a small float, what
/// is one, lies in the middle of two, or just beside either, in both signs, tries every case of its rounding.
#[test]
fn small_floats_have_the_bits_of_the_kernels() {
    for bits in 0..=u16::MAX {
        assert_eq!(number::from_bf16(bits).to_bits(), core::from_bf16(bits).to_bits(), "{bits:#06x}");
        assert_eq!(number::from_f16(bits).to_bits(), core::from_f16(bits).to_bits(), "{bits:#06x}");
        assert_eq!(number::from_e4m3(bits as u8).to_bits(), core::from_e4m3(bits as u8).to_bits());
        let next = bits.wrapping_add(1);
        for [low, high] in [
            [number::from_bf16(bits), number::from_bf16(next)],
            [number::from_f16(bits), number::from_f16(next)],
            [number::from_e4m3(bits as u8), number::from_e4m3(next as u8)],
        ] {
            let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
            for value in [low, middle] {
                [value.next_down(), value, value.next_up()].into_iter().for_each(rounds_alike);
            }
        }
    }
    let mut prng = Prng::new(1);
    for _ in 0..200_000 {
        rounds_alike(f32::from_bits(prng.bits() as u32));
    }
}

#[test]
fn rotations_have_the_bits_of_the_kernels() {
    let llama = RopeScaling {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 8192.0,
    };
    for (theta, scaling, factor) in [(1e4, None, 1.0), (5e5, Some(llama), llama.factor)] {
        let theirs = core::RopeScaling {
            factor,
            low_frequency_factor: llama.low_frequency_factor,
            high_frequency_factor: llama.high_frequency_factor,
            original_context: llama.original_context,
        };
        for (pair, turns) in (0..).zip(Rope { theta, style: RopeStyle::NeoX, scaling }.turns(128)) {
            assert_eq!(turns, core::rope_turns(pair, 128, theta, theirs), "pair {pair}");
            for position in [0, 1, 4095, 131_071, u32::MAX] {
                let theirs = core::rotation(turns, position);
                assert_eq!(rotation(turns, position), (theirs.cosine, theirs.sine), "{pair} at {position}");
            }
        }
    }
}

fn dtype(stored: Stored) -> Dtype {
    match stored {
        Stored::Bf16 => Dtype::Bf16,
        Stored::F16 => Dtype::F16,
        Stored::E4m3 => Dtype::E4m3,
    }
}

/// Runs the twin of prefill, of which decode is the case of one token, over all rows, and checks what comes out.
fn attend(shape: &Shape, rows: &[Row]) -> Result<(), String> {
    let mut contents = shape.contents(rows);
    let lengths: Vec<usize> = rows.iter().map(|row| row.length).collect();
    let cache = shape.lay_out(&lengths, &mut contents);
    let paging = Paging {
        layers: 1,
        heads_kv: shape.heads_kv,
        page_shift: shape.page_shift,
        head_dim: shape.head_dim,
    };
    let pool = Pool::of(paging, dtype(shape.stored), cache.pool.clone());
    for (at, (row, content)) in rows.iter().zip(&contents).enumerate() {
        attend_row(shape, at, row, content, &pool, &cache)?;
    }
    Ok(())
}

fn attend_row(
    shape: &Shape,
    at: usize,
    row: &Row,
    content: &Content,
    pool: &Pool,
    cache: &Cache,
) -> Result<(), String> {
    let (heads, dim) = (shape.heads_q(), shape.head_dim);
    let scale = |of: usize| shape.scales.then_some(&cache.scales[of][..]);
    let table = &cache.tables[at * cache.table_stride..][..cache.table_stride];
    let cached = Cached { pool, layer: 0, table, k_scale: scale(0), v_scale: scale(1) };
    let q: Vec<f32> = content.q.iter().map(|bits| shape.compute.value(*bits) as f32).collect();
    let (mut output, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; row.new * heads]);
    cpu::prefill(row.new, &q, &cached, row.length, shape.scale(), &mut output, &mut lse);
    let bits: Vec<u16> = output.iter().map(|value| shape.compute.bits(*value)).collect();
    for token in 0..row.new {
        let keys = (row.length + token + 1).saturating_sub(row.new);
        for head in 0..heads {
            let index = token * heads + head;
            let what = format!("row {at} ({} tokens), token {token}, head {head}", row.length);
            let expected = shape.reference(content, token, head, keys);
            shape.check(&what, &bits[index * dim..][..dim], lse[index], &expected)?;
        }
    }
    Ok(())
}

#[test]
fn attention_is_within_the_bounds_of_the_kernels() {
    let decodes = decode::cases().into_iter().map(|case| (case.shape, case.rows));
    let chunks = prefill::cases().into_iter().map(|case| (case.shape, case.rows));
    for (shape, rows) in decodes.chain(chunks) {
        attend(&shape, &rows).unwrap_or_else(|wrong| panic!("{shape:?}: {wrong}"));
    }
}

#[test]
fn sampling_draws_the_tokens_of_the_kernel() {
    for case in sample::cases() {
        let theirs = case.run(Variant::Real, Order::Forward).unwrap();
        for (at, (row, (token, failed))) in case.rows.iter().zip(theirs).enumerate() {
            let params = SamplingParams {
                temperature: row.temperature,
                top_k: row.top_k,
                top_p: row.top_p,
                min_p: row.min_p,
                seed: row.seed,
                ..SamplingParams::default()
            };
            let ours = cpu::sample_tokens(&row.logits, &params, row.position);
            assert_eq!(ours, (!failed).then_some(token), "{}, row {at}", case.name);
        }
    }
}

/// Widened, as the twins take what a kernel takes rounded.
fn narrow(stored: Stored, bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|bits| stored.value(*bits) as f32).collect()
}

fn rounded(stored: Stored, values: &[f32]) -> Vec<u16> {
    values.iter().map(|value| stored.bits(*value)).collect()
}

/// What the twin of append makes of these inputs.
fn appended(case: &append::Case, inputs: &append::Inputs) -> append::Outputs {
    let [q_weight, k_weight] = [&inputs.q_weight, &inputs.k_weight].map(|w| narrow(case.compute, w));
    let twin = Append {
        heads_q: case.heads_q,
        head_dim: case.head_dim,
        q_weight: case.qk_norm.then_some(&q_weight),
        k_weight: case.qk_norm.then_some(&k_weight),
        epsilon: append::Case::EPSILON,
        style: if case.interleaved { RopeStyle::Interleaved } else { RopeStyle::NeoX },
        k_scale: case.scales.then_some(&inputs.k_scale),
        v_scale: case.scales.then_some(&inputs.v_scale),
    };
    let paging =
        Paging { layers: 1, heads_kv: case.heads_kv, page_shift: case.page_shift, head_dim: case.head_dim };
    let unwritten = poisoned(case.pages() * case.page_elements() * case.stored.bytes());
    let mut pool = Pool::of(paging, dtype(case.stored), unwritten);
    let mut rotations = vec![(0.0, 0.0); case.head_dim / 2];
    let mut q = Vec::new();
    for token in 0..case.tokens {
        let heads = (case.heads_q + 2 * case.heads_kv) * case.head_dim;
        let mut qkv = narrow(case.compute, &inputs.qkv[token * case.stride()..][..heads]);
        cpu::rotations(&inputs.turns, inputs.positions[token], &mut rotations);
        let slot = usize::try_from(inputs.slots[token]).ok();
        let place = slot.map(|slot| Place {
            page: slot >> case.page_shift,
            layer: 0,
            offset: slot % (1 << case.page_shift),
        });
        twin.append(&mut qkv, &rotations, place, &mut pool);
        q.extend(rounded(case.compute, &qkv[..case.heads_q * case.head_dim]));
    }
    append::Outputs { q, pages: pool.bytes().to_vec() }
}

/// Without norms, whose sums have another order here, all is exact but the last rounding, which is the same.
#[test]
fn appending_writes_what_the_kernel_writes() {
    for case in append::cases() {
        let inputs = case.inputs();
        let theirs = case.run(&inputs, Variant::Real, Order::Forward).unwrap();
        let ours = appended(&case, &inputs);
        case.check(&inputs, &ours).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        if !case.qk_norm {
            assert_eq!(ours, theirs, "{case:?}");
            continue;
        }
        let [q, their_q] = [&ours.q, &theirs.q].map(|bits| case.compute.wide(bits));
        let elements = case.pages() * case.page_elements();
        let wide = |pages: &[u8]| (0..elements).map(|at| case.stored.get(pages, at)).collect::<Vec<_>>();
        // A rotation's two products may cancel.
        one_step("q", case.compute, &q, &their_q, 4e-6)
            .and_then(|()| one_step("pages", case.stored, &wide(&ours.pages), &wide(&theirs.pages), 4e-6))
            .unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
    }
}

/// A sum with the residual is exact but for its rounding; a mean of squares has another order here.
#[test]
fn norms_are_a_step_from_the_kernels_at_most() {
    for case in norm::cases() {
        let inputs = case.inputs();
        let theirs = case.run(&inputs, Variant::Real, Order::Forward).unwrap();
        let mut sums = narrow(case.compute, &inputs.input);
        let mut residual = inputs.residual.clone();
        if case.residual {
            sums.iter_mut().zip(narrow(case.compute, &inputs.residual)).for_each(|(sum, x)| *sum += x);
            residual = rounded(case.compute, &sums);
        }
        let weight = narrow(case.compute, &inputs.weight);
        sums.chunks_mut(case.hidden).for_each(|row| cpu::rms_norm(row, &weight, norm::Case::EPSILON));
        let ours = norm::Outputs { output: rounded(case.compute, &sums), residual };
        case.check(&inputs, &ours).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        assert_eq!(ours.residual, theirs.residual, "{case:?}");
        let [ours, theirs] = [&ours, &theirs].map(|outputs| case.compute.wide(&outputs.output));
        one_step("output", case.compute, &ours, &theirs, 1e-9)
            .unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
    }
}

/// Their powers of two differ in the last bits of a float.
#[test]
fn activations_are_a_step_from_the_kernels_at_most() {
    for case in activation::cases() {
        let input = case.input();
        let theirs = case.run(&input, Variant::Real, Order::Forward).unwrap();
        let mut ours = vec![f32::NAN; case.rows * case.width];
        for (row, output) in
            narrow(case.compute, &input).chunks(2 * case.width).zip(ours.chunks_mut(case.width))
        {
            cpu::silu_mul(row, output);
        }
        let ours = rounded(case.compute, &ours);
        case.check(&input, &ours).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        let [ours, theirs] = [&ours, &theirs].map(|bits| case.compute.wide(bits));
        one_step("output", case.compute, &ours, &theirs, 1e-30)
            .unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
    }
}

/// Pages of one token, so that they have any size: whatever is in a page, it moves whole.
#[test]
fn copies_move_the_bytes_that_the_kernel_moves() {
    for case in copy::cases() {
        let theirs = case.run(Variant::Real, Order::Forward).unwrap();
        let paging = Paging { layers: 1, heads_kv: 1, page_shift: 0, head_dim: case.page_bytes / 4 };
        let pool = |words: &[u32]| {
            Pool::of(paging, Dtype::Bf16, words.iter().flat_map(|word| word.to_ne_bytes()).collect())
        };
        let source = pool(&case.source());
        let mut target = pool(&vec![u32::MAX; case.source().len()]);
        cpu::copy_pages(&source, &mut target, case.pairs.iter().map(|[from, to]| (*from, *to)));
        assert_eq!(target.bytes(), pool(&theirs).bytes(), "{case:?}");
        // Within one pool no page is both read and written.
        let within = case.pairs.iter().filter(|[_, to]| case.pairs.iter().all(|[from, _]| from != to));
        let mut ours = source.clone();
        cpu::copy_pages_within(&mut ours, within.clone().map(|[from, to]| (*from, *to)));
        let page = |pool: &Pool, page: u32| {
            pool.bytes()[page as usize * case.page_bytes..][..case.page_bytes].to_vec()
        };
        for [_, to] in within {
            assert_eq!(page(&ours, *to), page(&target, *to), "{case:?}, page {to}");
        }
    }
}
