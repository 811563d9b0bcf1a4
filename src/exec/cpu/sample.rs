//! One token from a row of logits: the twin of `csrc/sample`, and the same token by token.
//!
//! Penalties, temperature, min-p, top-k, then top-p over what those left, then a draw. Masses are integers, so that
//! their sums have no order; what ties with a threshold stays in; equal scores go to the lowest token. The draw is
//! Gumbel-max, its Philox numbers keyed by the request's seed, the position and the token alone. NaN counts as minus
//! infinity.

use crate::request::SamplingParams;
use std::f32::consts::LOG2_E;

/// The mass of the largest logit: 2^18 tokens as likely still add up within 64 bits.
const UNIT_MASS: f32 = (1_u64 << 40) as f32;

/// The tokens of a sequence, as penalties see them.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// By token, each once.
    tokens: Vec<Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    token: u32,
    /// How often the output has it; 0 if only the prompt does.
    output: u32,
}

impl Said {
    /// Begins with what a sequence has: its prompt, and its output so far. O(n log n): a prompt may be long, and a GPU
    /// waits.
    pub fn begin(&mut self, prompt: &[u32], output: &[u32]) {
        self.tokens.clear();
        self.tokens.extend(prompt.iter().map(|token| Count { token: *token, output: 0 }));
        self.tokens.extend(output.iter().map(|token| Count { token: *token, output: 1 }));
        self.tokens.sort_unstable_by_key(|count| count.token);
        self.tokens.dedup_by(|next, first| {
            let same = next.token == first.token;
            first.output += if same { next.output } else { 0 };
            same
        });
    }

    /// Notes one more token of the output.
    pub fn output(&mut self, token: u32) {
        match self.tokens.binary_search_by_key(&token, |count| count.token) {
            Ok(at) => self.tokens[at].output += 1,
            Err(at) => self.tokens.insert(at, Count { token, output: 1 }),
        }
    }

    /// Every token once, and how often the output has it; 0 if only the prompt does.
    pub fn counts(&self) -> impl ExactSizeIterator<Item = (u32, u32)> {
        self.tokens.iter().map(|count| (count.token, count.output))
    }

    /// Takes the penalties off a row of logits.
    pub fn penalize(&self, logits: &mut [f32], params: &SamplingParams) {
        for Count { token, output } in &self.tokens {
            let Some(logit) = logits.get_mut(*token as usize) else { continue };
            let repetition = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            *logit -= params.frequency_penalty * *output as f32;
            if *output > 0 {
                *logit -= params.presence_penalty;
            }
        }
    }
}

/// Draws the token at `position` of the output from a row of penalised logits; none if no logit or an infinite one
/// leads.
pub fn sample_tokens(logits: &[f32], params: &SamplingParams, position: u32) -> Option<u32> {
    let (key, first) = best(logits, 1, |_, logit| logit)?;
    let max = order_value(key);
    if max == f32::INFINITY {
        return None;
    }
    if params.temperature <= 0.0 {
        return Some(first);
    }
    // Finite, so that the largest logit stays at zero however cold it is.
    let scale = (LOG2_E / params.temperature).min(f32::from_bits(254 << 23));
    let row = Row { logits, max, scale };
    let threshold = row.threshold(params);
    let noise = |token: u32| {
        let random = philox([position, token / 4, 0, 0], params.seed);
        -(-uniform(random[token as usize % 4]).log2()).log2()
    };
    // Noise in log2 units, as the logits are: their distances are what counts.
    best(logits, threshold, |token, logit| (logit - max) * row.scale + noise(token)).map(|(_, token)| token)
}

/// The largest score among the tokens whose key is at least `threshold`, as a key, and the first token that has it.
fn best(logits: &[f32], threshold: u32, score: impl Fn(u32, f32) -> f32) -> Option<(u32, u32)> {
    let mut leads = None;
    for (token, logit) in (0_u32..).zip(logits) {
        if order_key(*logit) < threshold {
            continue;
        }
        let key = order_key(score(token, *logit));
        if leads.is_none_or(|(most, _)| key > most) {
            leads = Some((key, token));
        }
    }
    leads.filter(|(key, _)| *key > 0)
}

/// A row under a temperature.
struct Row<'a> {
    logits: &'a [f32],
    max: f32,
    /// From logits to log2 units.
    scale: f32,
}

impl Row<'_> {
    /// The least key that may be drawn: 0 never is.
    fn threshold(&self, params: &SamplingParams) -> u32 {
        // A share of 0 is minus infinity, whose key is 0.
        let least = order_key(self.max + params.min_p.log2() / self.scale);
        let mut threshold = least.max(1);
        if params.top_k > 0 && (params.top_k as usize) < self.logits.len() {
            threshold = self.descend(threshold, |_| 1, |_| params.top_k.into());
        }
        if params.top_p < 1.0 {
            let target = |total| (total as f64 * f64::from(params.top_p)) as u64;
            threshold = self.descend(threshold, |logit| self.mass(logit), target);
        }
        threshold
    }

    /// The weight of a logit that may be drawn, in units of [`UNIT_MASS`]; never nothing, so that a sum that is reached
    /// is reached by a token.
    fn mass(&self, logit: f32) -> u64 {
        (((logit - self.max) * self.scale).exp2() * UNIT_MASS) as u64 + 1
    }

    /// The largest key such that the tokens at or above it weigh at least `target(total)`, of those at or above
    /// `threshold`: by radix descent, eight bits of the key at a time.
    fn descend(&self, threshold: u32, weight: impl Fn(f32) -> u64, target: impl Fn(u64) -> u64) -> u32 {
        let (mut prefix, mut left) = (0_u32, None);
        for shift in [24, 16, 8, 0] {
            let mut sums = [0_u64; 256];
            for logit in self.logits {
                let key = order_key(*logit);
                // By 32 in the first pass, where all keys go.
                if key >= threshold && u64::from(key) >> (shift + 8) == u64::from(prefix) {
                    sums[(key >> shift & 255) as usize] += weight(*logit);
                }
            }
            let total = sums.iter().sum();
            let wanted = left.get_or_insert_with(|| target(total).clamp(1, total));
            let mut digit = 255;
            while sums[digit] < *wanted {
                *wanted -= sums[digit];
                digit -= 1;
            }
            prefix = prefix << 8 | digit as u32;
        }
        prefix
    }
}

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 128 random bits from a
/// counter and a key.
fn philox(mut counter: [u32; 4], key: u64) -> [u32; 4] {
    let (mut low, mut high) = (key as u32, (key >> 32) as u32);
    for _ in 0..10 {
        let first = u64::from(counter[0]) * 0xD251_1F53;
        let second = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ low,
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ high,
            first as u32,
        ];
        low = low.wrapping_add(0x9E37_79B9);
        high = high.wrapping_add(0xBB67_AE85);
    }
    counter
}

/// Uniform in (0, 1): the middles of 2^23 equal parts, so that neither end occurs.
fn uniform(word: u32) -> f32 {
    ((word >> 9) as f32 + 0.5) * (1.0 / (1 << 23) as f32)
}

/// Rises with the value; 0 for what can never be drawn, NaN and minus infinity. The two zeros are one: a sum with
/// zero is never minus zero.
fn order_key(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    match () {
        () if value.is_nan() || value == f32::NEG_INFINITY => 0,
        () if bits >> 31 == 1 => !bits,
        () => bits | 0x8000_0000,
    }
}

fn order_value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWN: SamplingParams = SamplingParams {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        seed: 99,
    };

    /// The known answers of the paper's own implementation (Random123, `kat_vectors`).
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], !0), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    /// The tokens that 2,000 positions draw.
    fn drawn(logits: &[f32], params: &SamplingParams) -> Vec<u32> {
        let mut counts = vec![0; logits.len()];
        (0..2000).for_each(|at| counts[sample_tokens(logits, params, at).unwrap() as usize] += 1);
        counts
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let logits = [2.0, 0.0, 3.0, -1.0, 1.0, 3.0];
        let kept = |change: fn(&mut SamplingParams)| {
            let mut params = DRAWN;
            change(&mut params);
            let counts = drawn(&logits, &params);
            (0..6).filter(|token| counts[*token] > 0).collect::<Vec<_>>()
        };
        assert_eq!(kept(|_| ()), [0, 1, 2, 3, 4, 5]);
        assert_eq!(kept(|p| p.top_k = 1), [2, 5], "ties stay in");
        assert_eq!(kept(|p| p.top_k = 3), [0, 2, 5]);
        assert_eq!(kept(|p| p.top_p = 0.7), [2, 5]);
        assert_eq!(kept(|p| p.top_p = 0.9), [0, 2, 5]);
        assert_eq!(kept(|p| p.min_p = 0.2), [0, 2, 5]);
        assert_eq!(kept(|p| p.min_p = 1.0), [2, 5]);
        assert_eq!(kept(|p| (p.top_k, p.top_p) = (4, 0.99)), [0, 2, 4, 5]);
        assert_eq!(kept(|p| p.temperature = 1e-6), [2, 5]);
        assert_eq!(kept(|p| p.temperature = 0.0), [2], "the first of equals");
    }

    /// Chi-square with 4 degrees of freedom: 18.5 is exceeded once in 1,000.
    #[test]
    fn draws_follow_the_distribution() {
        let (logits, params) = ([0.0, 1.0, 0.5, -0.5, 1.5], SamplingParams { temperature: 1.3, ..DRAWN });
        let weights = logits.map(|l| f64::from(l / 1.3).exp());
        let total: f64 = weights.iter().sum();
        let chi: f64 = drawn(&logits, &params)
            .iter()
            .zip(weights)
            .map(|(seen, weight)| {
                let expected = 2000.0 * weight / total;
                (f64::from(*seen) - expected).powi(2) / expected
            })
            .sum();
        assert!(chi < 18.5, "{chi}");
    }

    #[test]
    fn penalties_count_the_prompt_once_and_the_output_by_times() {
        let params = SamplingParams {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            ..DRAWN
        };
        let mut said = Said::default();
        said.begin(&[3, 1, 3], &[1, 0]);
        [1, 1000].iter().for_each(|token| said.output(*token));
        let mut logits = [4.0, -4.0, 4.0, 4.0];
        said.penalize(&mut logits, &params);
        assert_eq!(logits, [2.0 - 0.75, -8.0 - 1.25, 4.0, 2.0]);
        said.begin(&[], &[]);
        let mut logits = [4.0, -4.0, 4.0, 4.0];
        said.penalize(&mut logits, &params);
        assert_eq!(logits, [4.0, -4.0, 4.0, 4.0]);
    }

    /// Token by token, which took minutes here.
    #[test]
    fn a_long_history_has_every_token_once() {
        let count = 1 << 20;
        let scattered = |at: u32| at.wrapping_mul(0x9E37_79B1) % count;
        let tokens: Vec<u32> = (0..count).map(scattered).collect();
        let mut said = Said::default();
        said.begin(&tokens, &tokens[..1000]);
        assert!(said.counts().map(|(token, _)| token).eq(0..count));
        assert!(tokens[..1000].iter().all(|token| said.tokens[*token as usize].output == 1));
        assert_eq!(said.counts().map(|(_, output)| output).sum::<u32>(), 1000);
    }

    #[test]
    fn rows_without_a_largest_logit_yield_nothing() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for params in [DRAWN, SamplingParams { temperature: 0.0, ..DRAWN }] {
            assert_eq!(sample_tokens(&[-inf, nan, -inf], &params, 0), None);
            assert_eq!(sample_tokens(&[0.0, inf], &params, 0), None);
            assert_eq!(sample_tokens(&[nan, -inf, 5.0], &params, 0), Some(2));
        }
    }
}
