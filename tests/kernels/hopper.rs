//! Attention of new tokens as sm_90a runs it: plan and tiles, with the asynchronous units emulated.

use crate::ORDERS;
use crate::attention::{Data, Row, SHAPE, Shape};
use crate::device::{Order, Variant};
use crate::numbers::Stored;
use crate::prefill::{self, Case, row};

pub fn base() -> Case {
    let rows = vec![row(5, 5, 1), row(0, 9, 2), row(40, 300, 3), row(1, 17, 4), row(3, 2, 5)];
    Case { rows, padding: 0, ctas: 3, hopper: true, ..prefill::base() }
}

/// Few, but enough for each seeded bug to show.
pub fn faulty_cases() -> Vec<Case> {
    vec![
        base(),
        Case { shape: Shape { heads_kv: 1, ..SHAPE }, rows: vec![row(20, 700, 1)], ctas: 1, ..base() },
    ]
}

/// Every path of the kernels, on few tokens.
fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case { rows: vec![], ..base() },
        Case { rows: vec![], padding: 5, ..base() },
        Case { rows: vec![row(0, 0, 1), row(0, 33, 2)], ..base() },
        Case { padding: 70, ..base() },
        Case { shape: Shape { scales: true, ..SHAPE }, ..base() },
        Case { shape: Shape { head_dim: 64, ..SHAPE }, ..base() },
    ];
    for (heads_kv, group, page_shift) in
        [(1, 1, 4), (3, 2, 5), (1, 3, 6), (2, 5, 4), (1, 7, 5), (1, 8, 6), (1, 12, 4), (1, 16, 5)]
    {
        let rows = vec![row(7, 129, 1), row(20, 20, 2), row(2, 260, 3)];
        cases.push(Case { shape: Shape { heads_kv, group, page_shift, ..SHAPE }, rows, ctas: 2, ..base() });
    }
    for data in [Data::EqualKeys, Data::HugeLogits, Data::Falling, Data::LastKey, Data::Tiny, Data::Denormal]
    {
        let shape = Shape { heads_kv: 1, data, ..SHAPE };
        cases.push(Case { shape, rows: vec![row(33, 333, 1), row(1, 128, 2)], ..base() });
    }
    cases
}

/// The same in each type that the kernels have.
fn typed(case: &Case) -> [Case; 2] {
    [Stored::Bf16, Stored::F16].map(|compute| {
        let shape = Shape { compute, stored: compute, ..case.shape };
        Case { shape, ..case.clone() }
    })
}

#[test]
fn attention_is_within_its_bounds() {
    for (at, case) in cases().into_iter().enumerate() {
        for case in typed(&case) {
            let outputs = case.run(Variant::Real, ORDERS[at % ORDERS.len()]);
            let outputs = outputs.unwrap_or_else(|faults| panic!("{case:?}: {faults}"));
            case.check(&outputs).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        }
    }
}

#[test]
fn every_order_of_threads_and_copies_yields_the_same_bits() {
    for head_dim in [64, 128] {
        for case in typed(&Case { shape: Shape { head_dim, heads_kv: 1, ..SHAPE }, ..base() }) {
            let first = case.run(Variant::Real, Order::Forward).unwrap();
            case.check(&first).unwrap();
            for order in ORDERS {
                let again = case.run(Variant::Real, order);
                let again = again.unwrap_or_else(|faults| panic!("{case:?}, {order:?}: {faults}"));
                assert_eq!(again, first, "{case:?}, {order:?}");
            }
        }
    }
}

/// Of padding alone, where nothing else makes a warp wait for its lanes: one that fell behind by two turns would take the
/// queries' second turn for its own, and wait for ever.
#[test]
fn a_tile_without_keys_is_let_go_by_all_lanes_at_once() {
    let case = Case { rows: vec![], padding: 400, ctas: 1, ..base() };
    for order in ORDERS {
        let outputs = case.run(Variant::Real, order).unwrap_or_else(|faults| panic!("{order:?}: {faults}"));
        case.check(&outputs).unwrap_or_else(|wrong| panic!("{order:?}: {wrong}"));
    }
}

/// A chunk's queries get the bits that they get in a prompt at once, alone or among others.
#[test]
fn chunks_and_neighbours_change_no_bit() {
    let whole_row = row(200, 200, 9);
    let shape = Shape { heads_kv: 1, group: 3, ..SHAPE };
    for whole in typed(&Case { shape, rows: vec![whole_row], ctas: 2, ..base() }) {
        let at_once = whole.run(Variant::Real, Order::Forward).unwrap();
        let elsewhere = Shape { pages_seed: 5, ..whole.shape };
        for (from, to) in [(0, 37), (37, 130), (130, 200)] {
            let case = Case { shape: elsewhere, rows: vec![row(to - from, to, 9)], ..whole.clone() };
            let part = case.run(Variant::Real, Order::Reverse).unwrap();
            assert_eq!(part.bits(0..to - from, &shape), at_once.bits(from..to, &shape), "{from}..{to}");
        }
        let others: Vec<Row> = vec![row(30, 90, 1), whole_row, row(5, 5, 2)];
        let batch = Case { shape: Shape { page_shift: 5, ..whole.shape }, rows: others, ..whole.clone() };
        let among = batch.run(Variant::Real, Order::Shuffled(3)).unwrap();
        assert_eq!(among.bits(30..230, &shape), at_once.bits(0..200, &shape));
    }
}
