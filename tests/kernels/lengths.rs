//! Attention over batches as a server meets them: every length at which something is cut, many rows, long contexts.

use crate::attention::{Row, SHAPE, Shape, TYPES, rows};
use crate::device::{Order, Variant};
use crate::lists::{batches, edges, listed, long};
use crate::numbers::Stored;
use crate::{decode, hopper, prefill};

/// One head of keys: what is long is the rows.
const NARROW: Shape = Shape { head_dim: 64, heads_kv: 1, group: 2, ..SHAPE };

/// Runs it in an order that `at` picks, and checks what comes out.
fn decodes(at: usize, case: &decode::Case) {
    let outputs = case.run(Variant::Real, Order::Shuffled(at as u64));
    let outputs = outputs.unwrap_or_else(|faults| panic!("{}: {faults}", brief(case)));
    case.check(&outputs).unwrap_or_else(|wrong| panic!("{}: {wrong}", brief(case)));
}

/// Without the rows, of which there may be thousands.
fn brief(case: &decode::Case) -> String {
    format!("{} rows, {:?}", case.rows.len(), decode::Case { rows: vec![], ..case.clone() })
}

fn prefills(at: usize, case: &prefill::Case) {
    let what = format!("{} rows, {:?}", case.rows.len(), prefill::Case { rows: vec![], ..case.clone() });
    let outputs = case.run(Variant::Real, Order::Shuffled(at as u64));
    let outputs = outputs.unwrap_or_else(|faults| panic!("{what}: {faults}"));
    case.check(&outputs).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
}

/// The ways to split the rows: chunks merged apart, chunks merged in place, few long chunks, and equal shares.
fn ways(shape: Shape, lengths: &[usize], chunk: u32) -> [decode::Case; 4] {
    let apart = decode::Case { shape, rows: rows(lengths), chunk, ..decode::base() };
    [
        decode::Case { in_place: true, ..apart.clone() },
        decode::Case { row_chunks_max: 3, ..apart.clone() },
        decode::Case { lists_max: 7, in_place: true, ctas: 7, ..apart.clone() },
        apart,
    ]
}

#[test]
fn decode_is_within_its_bounds_at_every_edge() {
    // Tiles of a warp, pages, blocks of shares, chunks, and powers of two beyond.
    let lengths = edges(&listed(&[16, 32, 64, 128, 192, 256, 512, 1024], &[2048, 4096, 8192]));
    for (at, page_shift) in [4, 5, 6].into_iter().enumerate() {
        for (stored, chunk) in listed(
            &[(Stored::Bf16, 64), (Stored::E4m3, 128)],
            &[(Stored::Bf16, 128), (Stored::Bf16, 512), (Stored::E4m3, 64), (Stored::E4m3, 512)],
        ) {
            for case in ways(Shape { stored, page_shift, ..NARROW }, &lengths, chunk) {
                decodes(at, &case);
            }
        }
    }
}

#[test]
fn decode_is_within_its_bounds_in_every_batch() {
    let usual = [1, 2, 3, 5, 8, 31, 32, 33, 132, 133, 255, 256, 257, 600, 993, 1024, 1025];
    let short = [0, 1, 2, 1, 0, 17, 1, 64, 1, 65, 0, 130];
    for (at, count) in batches(&usual).into_iter().enumerate() {
        let lengths: Vec<usize> = (0..count).map(|row| short[row * 7 % short.len()]).collect();
        let shape = Shape { group: 1, ..NARROW };
        let ways = ways(shape, &lengths, 64);
        for case in if long() { &ways[..] } else { &ways[at % 4..][..1] } {
            decodes(at, case);
        }
    }
}

#[test]
fn decode_is_within_its_bounds_over_long_contexts() {
    let usual = [(Stored::Bf16, 32_769), (Stored::E4m3, 131_072)];
    for (at, (stored, length)) in usual.into_iter().enumerate() {
        let case = &ways(Shape { stored, ..NARROW }, &[1, length, 0, 1], 512)[2 * at];
        decodes(at, case);
    }
    if !long() {
        return;
    }
    let lists = [&[32_767, 1, 32_768][..], &[1, 65_537, 1, 65_535, 0], &[1, 131_071, 1, 131_073]];
    for (at, (compute, stored)) in TYPES.into_iter().enumerate() {
        for (more, lengths) in lists.into_iter().enumerate() {
            let shape = Shape { compute, stored, ..NARROW };
            decodes(at, &ways(shape, lengths, 256)[(at + more) % 4]);
        }
    }
    let wide = Shape { head_dim: 128, heads_kv: 2, group: 4, page_shift: 6, ..SHAPE };
    ways(wide, &[131_072, 3, 32_768], 512).iter().for_each(|case| decodes(1, case));
}

/// Rows of (new, cached before) tokens.
fn chunks(list: &[(usize, usize)]) -> Vec<Row> {
    let row = |(at, (new, prefix)): (usize, &(usize, usize))| Row {
        length: new + prefix,
        new: *new,
        seed: 100 + at as u64,
    };
    list.iter().enumerate().map(row).collect()
}

/// Every number of new tokens after every prefix.
fn pairs(new: &[usize], prefixes: &[usize]) -> Vec<(usize, usize)> {
    new.iter().flat_map(|new| prefixes.iter().map(|prefix| (*new, *prefix))).collect()
}

/// New tokens, and prefixes, at which tiles of queries, of keys and pages end.
fn chunk_edges() -> Vec<(usize, usize)> {
    let new = edges(&listed(&[16, 64, 128], &[32, 256]));
    let prefixes = listed(&[0, 1, 15, 16, 63, 64, 129], &[17, 31, 32, 33, 65, 127, 128, 255, 256, 257]);
    pairs(&new, &prefixes)
}

/// The usual batches of prefill, whose tiles cost the same for a token as for many.
const FEW: [usize; 6] = [1, 2, 3, 33, 257, 1025];

/// New tokens of many rows, few each.
fn many(count: usize) -> Vec<(usize, usize)> {
    (0..count).map(|row| (row * 5 % 4, row * 7 % 19)).collect()
}

/// Chunks of long contexts, and long prompts.
fn far() -> Vec<Vec<(usize, usize)>> {
    let usual = vec![vec![(1, 0), (5, 32_763), (1, 1)]];
    let more = vec![
        vec![(17, 32_768), (1, 0), (2, 65_535)],
        vec![(1, 131_071), (3, 131_070), (2, 0)],
        vec![(2049, 0), (0, 7), (1, 4096)],
        vec![(1000, 3000), (4096, 0)],
    ];
    if long() { [usual, more].concat() } else { usual }
}

#[test]
fn prefill_is_within_its_bounds_at_every_edge() {
    let base = prefill::Case { shape: NARROW, rows: chunks(&chunk_edges()), ..prefill::base() };
    for (at, (stored, page_shift, tile)) in listed(
        &[(Stored::Bf16, 4, 128), (Stored::E4m3, 6, 64)],
        &[(Stored::Bf16, 5, 64), (Stored::Bf16, 6, 128), (Stored::E4m3, 4, 128), (Stored::E4m3, 5, 128)],
    )
    .into_iter()
    .enumerate()
    {
        let shape = Shape { stored, page_shift, group: [2, 1, 3, 7][at % 4], ..NARROW };
        prefills(at, &prefill::Case { shape, tile, ..base.clone() });
    }
}

#[test]
fn prefill_is_within_its_bounds_in_every_batch() {
    for (at, count) in batches(&FEW).into_iter().enumerate() {
        let shape = Shape { group: 1, ..NARROW };
        prefills(at, &prefill::Case { shape, rows: chunks(&many(count)), ..prefill::base() });
    }
}

#[test]
fn prefill_is_within_its_bounds_over_long_contexts() {
    for list in far() {
        for (at, stored) in [Stored::Bf16, Stored::E4m3].into_iter().enumerate() {
            let shape = Shape { stored, ..NARROW };
            prefills(at, &prefill::Case { shape, rows: chunks(&list), ..prefill::base() });
        }
    }
}

#[test]
fn prefill_on_hopper_is_within_its_bounds_at_every_edge() {
    for (at, (head_dim, page_shift)) in listed(&[(64, 4)], &[(64, 5), (128, 6)]).into_iter().enumerate() {
        let shape = Shape { head_dim, page_shift, ..NARROW };
        prefills(at, &prefill::Case { shape, rows: chunks(&chunk_edges()), ..hopper::base() });
    }
}

#[test]
fn prefill_on_hopper_is_within_its_bounds_in_every_batch() {
    for (at, count) in batches(&FEW).into_iter().enumerate() {
        let shape = Shape { group: 1, ..NARROW };
        prefills(at, &prefill::Case { shape, rows: chunks(&many(count)), ..hopper::base() });
    }
}

#[test]
fn prefill_on_hopper_is_within_its_bounds_over_long_contexts() {
    for list in far() {
        prefills(1, &prefill::Case { shape: NARROW, rows: chunks(&list), ..hopper::base() });
    }
}
