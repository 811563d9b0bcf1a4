//! Sampling: the token that the reference draws from the same random numbers, and the right distribution.

use crate::ORDERS;
use crate::device::params::Sample;
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::lists::batches;
use flyball::prng::Prng;
use flyball_simt::core::{Random4, philox, uniform};

/// A request's row.
#[derive(Clone, Debug)]
pub struct Row {
    pub logits: Vec<f32>,
    pub temperature: f32,
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
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
    /// Whether each token may be chosen: temperature, min-p, top-k, then top-p over the rest; ties stay in.
    fn allowed(&self) -> Vec<bool> {
        let mut sorted: Vec<f64> =
            self.logits.iter().filter(|x| !x.is_nan()).map(|x| f64::from(*x)).collect();
        sorted.retain(|x| *x > f64::NEG_INFINITY);
        sorted.sort_by(|a, b| b.total_cmp(a));
        let far = f64::from(self.min_p).ln() * f64::from(self.temperature);
        let most = sorted[0];
        sorted.retain(|x| *x >= most + far);
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
        let stride = vocab.next_multiple_of(4) + 4;
        let mut logits = vec![f32::MAX; self.rows.len() * stride];
        for (to, row) in logits.chunks_mut(stride).zip(&self.rows) {
            to[..vocab].copy_from_slice(&row.logits);
        }
        let temperature: Vec<_> = self.rows.iter().map(|row| row.temperature).collect();
        let top_k: Vec<_> = self.rows.iter().map(|row| row.top_k).collect();
        let top_p: Vec<_> = self.rows.iter().map(|row| row.top_p).collect();
        let min_p: Vec<_> = self.rows.iter().map(|row| row.min_p).collect();
        let seeds: Vec<_> = self.rows.iter().map(|row| row.seed).collect();
        let positions: Vec<_> = self.rows.iter().map(|row| row.position).collect();
        let (mut tokens, mut failed) = (vec![u32::MAX; self.rows.len()], vec![u32::MAX; self.rows.len()]);
        let mut memory = Memory::new();
        let params = Sample {
            logits: memory.read(&logits),
            temperature: memory.read(&temperature),
            top_k: memory.read(&top_k),
            top_p: memory.read(&top_p),
            // Absent where nobody asks for it.
            min_p: if min_p.iter().any(|p| *p > 0.0) { memory.read(&min_p) } else { 0 },
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
    Row {
        logits,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: seed << 40 | seed,
        position: 7 + seed as u32,
    }
}

/// Temperature, top-k, top-p and min-p.
type Rules = (f32, u32, f32, f32);

fn ruled(vocab: usize, rules: &[Rules]) -> Vec<Row> {
    let row = |(at, rules): (usize, &Rules)| {
        let (temperature, top_k, top_p, min_p) = *rules;
        Row { temperature, top_k, top_p, min_p, ..drawn(vocab, at as u64 + 1) }
    };
    rules.iter().enumerate().map(row).collect()
}

const RULES: [Rules; 17] = [
    (0.0, 0, 1.0, 0.0),
    (1.0, 0, 1.0, 0.0),
    (0.7, 1, 1.0, 0.0),
    (1.5, 5, 1.0, 0.0),
    (1.0, u32::MAX, 1.0, 0.0),
    (1.0, 0, 0.9, 0.0),
    (1.0, 0, 0.0, 0.0),
    (1.0, 0, 1e-6, 0.0),
    (0.8, 40, 0.95, 0.0),
    (1e-6, 0, 0.5, 0.0),
    (1e-45, 0, 1.0, 0.0),
    (100.0, 3, 0.5, 0.0),
    (1.0, 0, 1.0, 1.0),
    (1.0, 0, 1.0, 0.05),
    (2.0, 30, 0.9, 0.1),
    (1.0, 30, 1.0, 0.2),
    (1.0, 0, 0.8, 1e-3),
];

/// Rules that a list of candidates cannot serve, over a flat row.
const WIDE: [Rules; 10] = [
    (3.0, 0, 0.9, 0.0),
    (9.0, 0, 0.95, 0.0),
    (50.0, 0, 0.5, 0.0),
    (50.0, 0, 0.7, 0.0),
    (50.0, 0, 0.9, 0.0),
    (50.0, 0, 0.99, 0.0),
    (50.0, 0, 1e-4, 0.0),
    (3.0, 5900, 1.0, 0.0),
    (3.0, 5900, 0.7, 0.0),
    (9.0, 5900, 0.99, 0.1),
];

fn odd_rows() -> Vec<Row> {
    let with = |row: Row, logits: Vec<f32>| Row { logits, ..row };
    let [plain, greedy] = [1.0, 0.0].map(|temperature| Row { temperature, ..drawn(8, 3) });
    let top = Row { top_k: 3, top_p: 0.9, ..plain.clone() };
    let near = Row { min_p: 0.5, ..plain.clone() };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let odd: [Vec<f32>; 8] = [
        vec![1.0, 2.0, 2.0, 2.0, 2.0, 0.0, -1.0, 2.0],
        vec![-inf, -inf, -inf, 5.0, -inf, -inf, -inf, -inf],
        vec![nan, 1.0, nan, 0.0, -inf, -0.0, 1e-40, 3e4],
        vec![-inf; 8],
        vec![nan; 8],
        vec![0.0, inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        vec![-1.0, -0.0, 0.0, -0.0, -2.0, -1.0, -3.0, 0.0],
        vec![nan, nan, nan, nan, nan, nan, nan, f32::MIN],
    ];
    let rows = [&plain, &greedy, &top, &near];
    rows.into_iter().flat_map(|row| odd.iter().map(|logits| with(row.clone(), logits.clone()))).collect()
}

/// Rows larger than a list of candidates, with more ties at the k-th place than it holds.
fn tied_rows() -> Vec<Row> {
    let mut logits: Vec<f32> = (0..6151).map(|token| if token % 997 == 0 { 3.0 } else { 1.0 }).collect();
    logits[6150] = f32::NAN;
    let mut rows =
        ruled(6151, &[(1.0, 9, 1.0, 0.0), (1.0, 7, 0.5, 0.0), (1.0, 50, 0.3, 0.0), (1.0, 0, 0.2, 0.0)]);
    rows.iter_mut().for_each(|row| row.logits.clone_from(&logits));
    rows
}

/// Rows whose nucleus ends within a heavy part: thousands of tokens nearly alike, more of them than a list holds, or
/// all alike.
fn edge_rows() -> Vec<Row> {
    let near = |spread: f32, of: usize, rest: f32| {
        let mut logits: Vec<f32> =
            (0..6151).map(|token| (token * 769 % 6151) as f32).map(|x| x / 6151.0 * spread).collect();
        (of..6151).for_each(|token| logits[token] = rest);
        logits
    };
    let mut odd = near(2.0, 6151, 0.0);
    odd.iter_mut().step_by(5).for_each(|logit| *logit = f32::NEG_INFINITY);
    odd.iter_mut().skip(1).step_by(7).for_each(|logit| *logit = f32::NAN);
    let mut one = near(1.5, 6151, 0.0);
    one[4097] = 11.0;
    let of_logits = |logits: &[f32], rules: &[Rules]| {
        let logits = |row| Row { logits: logits.to_vec(), ..row };
        ruled(6151, rules).into_iter().map(logits).collect::<Vec<_>>()
    };
    let top_p = |p: f32| (1.0, 0, p, 0.0);
    [
        of_logits(&near(2e-3, 3000, -5.0), &[0.2, 0.3, 0.4, 0.5, 0.6, 0.7].map(top_p)),
        of_logits(&near(1e-5, 6151, 0.0), &[1e-6, 0.3, 0.5, 0.9].map(top_p)),
        of_logits(&near(0.0, 6151, 0.0), &[1e-6, 0.5, 0.999_999_94].map(top_p)),
        of_logits(
            &near(3.0, 6151, 0.0),
            &[(1.0, 0, 0.9, 0.3), (1.0, 0, 0.5, 0.7), (2.0, 0, 0.999_999_94, 0.0)],
        ),
        of_logits(&odd, &[0.3, 0.9, 0.999].map(top_p)),
        of_logits(&odd, &[(f32::INFINITY, 0, 0.5, 0.0), (3e38, 0, 0.5, 0.0)]),
        of_logits(&one, &[0.5, 0.93, 0.99, 0.999_999].map(top_p)),
    ]
    .concat()
}

pub fn cases() -> Vec<Case> {
    vec![
        Case { name: "empty", rows: vec![] },
        Case { name: "vocab 1", rows: ruled(1, &RULES) },
        Case { name: "vocab 7", rows: ruled(7, &RULES) },
        Case { name: "vocab 513", rows: ruled(513, &RULES) },
        Case { name: "vocab 6151", rows: ruled(6151, &RULES) },
        Case { name: "wide", rows: ruled(6151, &WIDE) },
        Case { name: "tied", rows: tied_rows() },
        Case { name: "edges", rows: edge_rows() },
        Case { name: "odd rows", rows: odd_rows() },
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
fn tokens_of_large_vocabularies_are_those_of_the_reference() {
    const LARGE: [Rules; 10] = [
        (0.0, 0, 1.0, 0.0),
        (0.7, 0, 1.0, 0.0),
        (1.0, 50, 0.9, 0.0),
        (0.6, 0, 0.95, 0.0),
        (1.0, 0, 0.9, 0.0),
        (3.0, 0, 0.95, 0.0),
        (1.0, 1000, 1.0, 0.0),
        (1.0, 3000, 0.5, 0.0),
        (3.0, 20_000, 1.0, 0.0),
        (1.0, 0, 0.9, 0.02),
    ];
    for vocab in [32_000, 128_256, 151_936, 262_144] {
        let case = Case { name: "large", rows: ruled(vocab, &LARGE) };
        let tokens = case.run(Variant::Real, Order::Shuffled(3)).unwrap();
        case.check(&tokens).unwrap_or_else(|wrong| panic!("{vocab}: {wrong}"));
    }
}

#[test]
fn every_row_of_a_batch_of_any_size_gets_its_token() {
    // Each row takes a cta of 1024 threads.
    for count in batches(&[1, 2, 3, 33, 129]).into_iter().filter(|count| *count < 300) {
        let rules: Vec<Rules> = RULES.into_iter().cycle().take(count).collect();
        let case = Case { name: "batch", rows: ruled(7, &rules) };
        let tokens = case.run(Variant::Real, Order::Shuffled(count as u64)).unwrap();
        case.check(&tokens).unwrap_or_else(|wrong| panic!("{count}: {wrong}"));
    }
}

#[test]
fn a_request_draws_the_same_in_every_slot() {
    let rules = [(1.0, 0, 1.0, 0.0), (0.9, 20, 1.0, 0.0), (1.2, 0, 0.9, 0.0), (1.0, 0, 1.0, 0.1)];
    let case = Case { name: "slots", rows: ruled(100, &rules) };
    let together = case.run(Variant::Real, Order::Forward).unwrap();
    for (row, token) in case.rows.iter().zip(&together) {
        let alone = Case { name: "alone", rows: vec![row.clone()] };
        assert_eq!(alone.run(Variant::Real, Order::Reverse).unwrap(), [*token]);
    }
    let reversed = Case { name: "reversed", rows: case.rows.iter().rev().cloned().collect() };
    let mut tokens = reversed.run(Variant::Real, Order::Forward).unwrap();
    tokens.reverse();
    assert_eq!(tokens, together);
}

/// Chi-square of `draws` draws over the tokens that are kept; with 4 degrees of freedom, 18.5 is exceeded once in 1,000.
fn chi_square(row: &Row, kept: &[usize], draws: u32) -> f64 {
    let rows = (0..draws).map(|position| Row { position, ..row.clone() }).collect();
    let tokens = Case { name: "draws", rows }.run(Variant::Real, Order::Forward).unwrap();
    assert!(tokens.iter().all(|(token, _)| kept.contains(&(*token as usize))));
    let weight = |at: usize| f64::from(row.logits[at] / row.temperature).exp();
    let total: f64 = kept.iter().map(|at| weight(*at)).sum();
    kept.iter()
        .map(|at| {
            let expected = f64::from(draws) * weight(*at) / total;
            let seen = tokens.iter().filter(|(token, _)| *token as usize == *at).count() as f64;
            (seen - expected).powi(2) / expected
        })
        .sum()
}

/// Rows of which each rule leaves the same five tokens.
fn five_kept() -> [Row; 4] {
    let logits = vec![0.0, -9.0, 1.0, 0.5, -0.5, -8.0, 1.5];
    let row = Row { logits, temperature: 1.3, seed: 99, ..drawn(7, 1) };
    [
        Row { top_k: 5, ..row.clone() },
        Row { top_p: 0.999, ..row.clone() },
        Row { min_p: 0.01, ..row.clone() },
        Row { top_k: 6, top_p: 0.999, min_p: 1e-9, ..row },
    ]
}

#[test]
fn draws_follow_the_filtered_distribution() {
    for row in five_kept() {
        let chi_square = chi_square(&row, &[0, 2, 3, 4, 6], 800);
        assert!(chi_square < 18.5, "{chi_square} for {row:?}");
    }
}

#[test]
#[ignore = "takes an hour"]
fn a_million_draws_follow_the_filtered_distribution() {
    for row in five_kept() {
        let chi_square = chi_square(&row, &[0, 2, 3, 4, 6], 250_000);
        assert!(chi_square < 18.5, "{chi_square} for {row:?}");
    }
}
