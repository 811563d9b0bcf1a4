//! Penalties: of the listed tokens alone.

use crate::ORDERS;
use crate::device::params::Penalize;
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::lists::batches;
use flyball::prng::Prng;

#[derive(Clone, Debug)]
pub struct Row {
    /// Tokens, and how often the output holds them.
    pub seen: Vec<(u32, u32)>,
    pub repetition: f32,
    pub presence: f32,
    pub frequency: f32,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub vocab: usize,
    pub rows: Vec<Row>,
}

impl Case {
    fn stride(&self) -> usize {
        self.vocab.next_multiple_of(4) + 4
    }

    fn logits(&self) -> Vec<f32> {
        let mut prng = Prng::new(9);
        (0..self.rows.len() * self.stride()).map(|_| (prng.normal() * 5.0) as f32).collect()
    }

    pub fn run(&self, variant: Variant, order: Order) -> Result<Vec<f32>, Faults> {
        let mut logits = self.logits();
        let seen: Vec<_> = self.rows.iter().flat_map(|row| row.seen.clone()).collect();
        let mut from = vec![0];
        for row in &self.rows {
            from.push(from[from.len() - 1] + row.seen.len() as u32);
        }
        let (tokens, counts): (Vec<u32>, Vec<u32>) = seen.into_iter().unzip();
        let each = |of: fn(&Row) -> f32| self.rows.iter().map(of).collect::<Vec<_>>();
        let (repetition, presence, frequency) =
            (each(|row| row.repetition), each(|row| row.presence), each(|row| row.frequency));
        let mut memory = Memory::new();
        let params = Penalize {
            logits: memory.write(&mut logits),
            from: memory.read(&from),
            tokens: memory.read(&tokens),
            counts: memory.read(&counts),
            repetition: memory.read(&repetition),
            presence: memory.read(&presence),
            frequency: memory.read(&frequency),
            stride: self.stride() as i64,
            rows: self.rows.len() as u32,
            vocab: self.vocab as u32,
        };
        Kernel::find(variant, "penalize").launch(2, &params, &memory, order)?;
        Ok(logits)
    }

    pub fn check(&self, logits: &[f32]) -> Result<(), String> {
        let mut want: Vec<f64> = self.logits().into_iter().map(f64::from).collect();
        for (row, logits) in self.rows.iter().zip(want.chunks_mut(self.stride())) {
            for (token, count) in row.seen.iter().filter(|(token, _)| (*token as usize) < self.vocab) {
                let logit = &mut logits[*token as usize];
                *logit *= f64::from(row.repetition).powf(if *logit > 0.0 { -1.0 } else { 1.0 });
                *logit -= f64::from(row.frequency) * f64::from(*count);
                *logit -= if *count > 0 { f64::from(row.presence) } else { 0.0 };
            }
        }
        match want.iter().zip(logits).position(|(want, got)| (want - f64::from(*got)).abs() > 1e-5) {
            None => Ok(()),
            Some(at) => Err(format!("logit {at} is {}, not {}", logits[at], want[at])),
        }
    }
}

pub fn cases() -> Vec<Case> {
    let row = |seen: Vec<(u32, u32)>, repetition, presence, frequency| Row {
        seen,
        repetition,
        presence,
        frequency,
    };
    let all: Vec<_> = (0..700).map(|token| (token * 7 % 701, token % 3)).collect();
    vec![
        Case { vocab: 5, rows: vec![] },
        Case { vocab: 1, rows: vec![row(vec![(0, 2)], 1.3, 0.1, 0.2)] },
        Case {
            vocab: 701,
            rows: vec![
                row(vec![], 2.0, 1.0, 1.0),
                row(all.clone(), 1.2, 0.5, 0.25),
                row(vec![(700, 0), (3, 1)], 1.0, 2.0, -0.5),
                row(all, 1.0, 0.0, 0.0),
                // What is no token of this vocabulary is left alone.
                row(vec![(701, 1), (u32::MAX, 1), (2, 9)], 0.5, -1.0, 0.1),
            ],
        },
    ]
}

#[test]
fn seen_tokens_and_no_others_are_penalized() {
    for case in cases() {
        for order in ORDERS {
            let logits = case.run(Variant::Real, order).unwrap();
            case.check(&logits).unwrap_or_else(|wrong| panic!("{case:?}, {order:?}: {wrong}"));
        }
    }
}

#[test]
fn every_row_of_a_batch_of_any_size_is_penalized() {
    for count in batches(&[1, 2, 3, 33, 257, 1025]) {
        let row = |at: usize| Row {
            seen: (0..at as u32 % 5).map(|token| (token * 2, token % 3)).collect(),
            repetition: 1.0 + (at % 7) as f32 * 0.25,
            presence: 0.5,
            frequency: 0.125,
        };
        let case = Case { vocab: 11, rows: (0..count).map(row).collect() };
        let logits = case.run(Variant::Real, Order::Shuffled(count as u64)).unwrap();
        case.check(&logits).unwrap_or_else(|wrong| panic!("{count}: {wrong}"));
    }
}
