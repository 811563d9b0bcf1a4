//! Sampling: the token that the reference draws from the same random numbers, and the right distribution.

use crate::ORDERS;
use crate::device::params::Sample;
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use flyball::prng::Prng;
use flyball_simt::core::{Random4, philox, uniform};

/// A request's row.
#[derive(Clone, Debug)]
pub struct Row {
    pub logits: Vec<f32>,
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub seed: u64,
    pub position: u32,
}

/// Rows of one vocabulary.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub rows: Vec<Row>,
}

/// A token, and whether the row failed.
pub type Token = (u32, bool);

impl Row {
    /// Whether each token may be chosen: temperature, then top-k, then top-p over the rest; ties stay in.
    fn allowed(&self) -> Vec<bool> {
        let mut sorted: Vec<f64> =
            self.logits.iter().filter(|x| !x.is_nan()).map(|x| f64::from(*x)).collect();
        sorted.retain(|x| *x > f64::NEG_INFINITY);
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mut least = sorted[sorted.len() - 1];
        if self.top_k > 0 {
            least = sorted[(self.top_k as usize).min(sorted.len()) - 1];
        }
        sorted.retain(|x| *x >= least);
        if self.top_p < 1.0 {
            let mass = |x: &f64| ((x - sorted[0]) / f64::from(self.temperature)).exp();
            let target = sorted.iter().map(mass).sum::<f64>() * f64::from(self.top_p);
            let mut sum = 0.0;
            least = *sorted
                .iter()
                .find(|x| {
                    sum += mass(x);
                    // Sums here and there differ in their last bits.
                    sum >= target * (1.0 - 1e-6)
                })
                .unwrap();
        }
        self.logits.iter().map(|x| f64::from(*x) >= least).collect()
    }

    fn gumbel(&self, token: usize) -> f64 {
        let counter = Random4 { word: [self.position, token as u32 / 4, 0, 0] };
        let random = philox(counter, self.seed as u32, (self.seed >> 32) as u32);
        -(-f64::from(uniform(random.word[token % 4])).ln()).ln()
    }

    fn check(&self, (token, failed): Token) -> Result<(), String> {
        let largest = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !largest.is_finite() {
            let right = (token, failed) == (0, true);
            return if right { Ok(()) } else { Err(format!("token {token} of a row without any")) };
        }
        let chosen = token as usize;
        if failed || chosen >= self.logits.len() {
            return Err(format!("token {token}, failed: {failed}"));
        }
        if self.temperature == 0.0 {
            let first = self.logits.iter().position(|x| *x == largest).unwrap();
            return if chosen == first {
                Ok(())
            } else {
                Err(format!("{token} is not the first largest, {first}"))
            };
        }
        let allowed = self.allowed();
        if !allowed[chosen] {
            return Err(format!("token {token} may not be chosen"));
        }
        let score =
            |at: usize| f64::from(self.logits[at] - largest) / f64::from(self.temperature) + self.gumbel(at);
        let best = (0..allowed.len()).filter(|at| allowed[*at]).map(score).fold(f64::NEG_INFINITY, f64::max);
        // Gumbel noise in f32 near u = 1 is a logarithm of a small difference.
        if score(chosen) < best - 1e-3 - 1e-6 * best.abs() {
            return Err(format!("token {token} scores {}, and another {best}", score(chosen)));
        }
        Ok(())
    }
}

impl Case {
    pub fn run(&self, variant: Variant, order: Order) -> Result<Vec<Token>, Faults> {
        let vocab = self.rows.first().map_or(1, |row| row.logits.len());
        // Rows lie apart, as in a buffer with room for a larger vocabulary.
        let stride = vocab + 3;
        let mut logits = vec![f32::MAX; self.rows.len() * stride];
        for (to, row) in logits.chunks_mut(stride).zip(&self.rows) {
            to[..vocab].copy_from_slice(&row.logits);
        }
        let temperature: Vec<_> = self.rows.iter().map(|row| row.temperature).collect();
        let top_k: Vec<_> = self.rows.iter().map(|row| row.top_k).collect();
        let top_p: Vec<_> = self.rows.iter().map(|row| row.top_p).collect();
        let seeds: Vec<_> = self.rows.iter().map(|row| row.seed).collect();
        let positions: Vec<_> = self.rows.iter().map(|row| row.position).collect();
        let (mut tokens, mut failed) = (vec![u32::MAX; self.rows.len()], vec![u32::MAX; self.rows.len()]);
        let mut memory = Memory::new();
        let params = Sample {
            logits: memory.read(&logits),
            temperature: memory.read(&temperature),
            top_k: memory.read(&top_k),
            top_p: memory.read(&top_p),
            seeds: memory.read(&seeds),
            positions: memory.read(&positions),
            tokens: memory.write(&mut tokens),
            failed: memory.write(&mut failed),
            stride: stride as i64,
            rows: self.rows.len() as u32,
            vocab: vocab as u32,
        };
        Kernel::find(variant, "sample_tokens").launch(3, &params, &memory, order)?;
        Ok(tokens.into_iter().zip(failed.into_iter().map(|f| f != 0)).collect())
    }

    pub fn check(&self, tokens: &[Token]) -> Result<(), String> {
        let mut rows = self.rows.iter().zip(tokens).enumerate();
        rows.try_for_each(|(at, (row, token))| {
            row.check(*token).map_err(|wrong| format!("row {at}: {wrong}"))
        })
    }
}

fn drawn(vocab: usize, seed: u64) -> Row {
    let mut prng = Prng::new(seed);
    let logits = (0..vocab).map(|_| (prng.normal() * 3.0) as f32).collect();
    Row { logits, temperature: 1.0, top_k: 0, top_p: 1.0, seed: seed << 40 | seed, position: 7 + seed as u32 }
}

pub fn cases() -> Vec<Case> {
    let rules = |vocab: usize| -> Vec<Row> {
        let mut rows = Vec::new();
        for (temperature, top_k, top_p) in [
            (0.0, 0, 1.0),
            (1.0, 0, 1.0),
            (0.7, 1, 1.0),
            (1.5, 5, 1.0),
            (1.0, u32::MAX, 1.0),
            (1.0, 0, 0.9),
            (1.0, 0, 0.0),
            (1.0, 0, 1e-6),
            (0.8, 40, 0.95),
            (1e-6, 0, 0.5),
            (100.0, 3, 0.5),
        ] {
            rows.push(Row { temperature, top_k, top_p, ..drawn(vocab, rows.len() as u64 + 1) });
        }
        rows
    };
    let with = |row: Row, logits: Vec<f32>| Row { logits, ..row };
    let [plain, greedy] = [1.0, 0.0].map(|temperature| Row { temperature, ..drawn(8, 3) });
    let top = Row { top_k: 3, top_p: 0.9, ..plain.clone() };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let odd: [Vec<f32>; 6] = [
        vec![1.0, 2.0, 2.0, 2.0, 2.0, 0.0, -1.0, 2.0],
        vec![-inf, -inf, -inf, 5.0, -inf, -inf, -inf, -inf],
        vec![nan, 1.0, nan, 0.0, -inf, -0.0, 1e-40, 3e4],
        vec![-inf; 8],
        vec![nan; 8],
        vec![0.0, inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ];
    let mut rows = Vec::new();
    for row in [&plain, &greedy, &top] {
        rows.extend(odd.iter().map(|logits| with(row.clone(), logits.clone())));
    }
    vec![
        Case { name: "empty", rows: vec![] },
        Case { name: "vocab 1", rows: rules(1) },
        Case { name: "vocab 7", rows: rules(7) },
        Case { name: "vocab 513", rows: rules(513) },
        Case { name: "vocab 4099", rows: rules(4099) },
        Case { name: "odd rows", rows },
    ]
}

#[test]
fn tokens_are_those_of_the_reference() {
    for case in cases() {
        let first = case.run(Variant::Real, Order::Forward).unwrap_or_else(|f| panic!("{}: {f}", case.name));
        case.check(&first).unwrap_or_else(|wrong| panic!("{}: {wrong}", case.name));
        for order in ORDERS {
            assert_eq!(case.run(Variant::Real, order).unwrap(), first, "{}, {order:?}", case.name);
        }
    }
}

#[test]
fn a_request_draws_the_same_in_every_slot() {
    let case = Case { name: "slots", rows: (1..6).map(|seed| drawn(100, seed)).collect() };
    let together = case.run(Variant::Real, Order::Forward).unwrap();
    for (row, token) in case.rows.iter().zip(together) {
        let alone = Case { name: "alone", rows: vec![row.clone()] };
        assert_eq!(alone.run(Variant::Real, Order::Reverse).unwrap(), [token]);
    }
}

/// Chi-square over the five tokens that top-k leaves: with 4 degrees of freedom, 18.5 is exceeded once in 1,000.
#[test]
fn draws_follow_the_filtered_distribution() {
    const DRAWS: u32 = 1500;
    let logits = vec![0.0, -9.0, 1.0, 0.5, -0.5, -8.0, 1.5];
    let row = Row { logits, temperature: 1.3, top_k: 5, top_p: 1.0, seed: 99, position: 0 };
    let rows = (0..DRAWS).map(|position| Row { position, ..row.clone() }).collect();
    let tokens = Case { name: "draws", rows }.run(Variant::Real, Order::Forward).unwrap();
    let weight = |at: usize| f64::from(row.logits[at] / row.temperature).exp();
    let kept = [0, 2, 3, 4, 6];
    let total: f64 = kept.iter().map(|at| weight(*at)).sum();
    let mut chi_square = 0.0;
    for at in kept {
        let expected = f64::from(DRAWS) * weight(at) / total;
        let seen = tokens.iter().filter(|(token, _)| *token as usize == at).count() as f64;
        chi_square += (seen - expected).powi(2) / expected;
    }
    assert!(tokens.iter().all(|(token, _)| kept.contains(&(*token as usize))));
    assert!(chi_square < 18.5, "{chi_square}");
}
