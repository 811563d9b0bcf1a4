//! The CPU executor's twins of the kernels: held to the kernels' own references and bounds, and, where arithmetic is
//! exact, to the kernels' own bits.

use crate::attention::{Cache, Content, Row, Shape};
use crate::device::{Order, Variant};
use crate::numbers::Stored;
use crate::{decode, prefill, sample};
use flyball::exec::cpu::{self, Cached, Paging, Pool};
use flyball::model::{Rope, RopeScaling, RopeStyle, rotation};
use flyball::number::{self, Dtype};
use flyball::prng::Prng;
use flyball::request::SamplingParams;
use flyball_simt::core::{self};

#[test]
fn small_floats_have_the_bits_of_the_kernels() {
    for bits in 0..=u16::MAX {
        assert_eq!(number::from_bf16(bits).to_bits(), core::from_bf16(bits).to_bits(), "{bits:#06x}");
        assert_eq!(number::from_f16(bits).to_bits(), core::from_f16(bits).to_bits(), "{bits:#06x}");
        assert_eq!(number::from_e4m3(bits as u8).to_bits(), core::from_e4m3(bits as u8).to_bits());
    }
    let mut prng = Prng::new(1);
    for _ in 0..200_000 {
        let value = f32::from_bits(prng.bits() as u32);
        assert_eq!(number::to_bf16(value), core::to_bf16(value), "{value}");
        assert_eq!(number::to_f16(value), core::to_f16(value), "{value}");
        assert_eq!(number::to_e4m3(value), core::to_e4m3(value), "{value}");
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
