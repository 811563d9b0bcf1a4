//! Built-in mixes of prompt and output lengths.
//!
//! Reasoning and short requests follow the paper's figures for s1k and for its mixes with function
//! calls (decode mean 9173, median 8790, P95 16044, P99 17445; prompts median 100 to 108, P99 352 to
//! 392). `chat` follows the Azure conversation trace of 2023. Prompt and output are independent.

use super::error::TraceError;
use crate::prng::Prng;
use crate::units::Tokens;
use std::fmt;

/// A mix of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// 5 % reasoning, 95 % short.
    Mix05,
    /// 20 % reasoning, 80 % short.
    Mix1,
    /// 70 % reasoning, 30 % short.
    Mix2,
    /// Reasoning only.
    S1k,
    /// Conversation.
    Chat,
}

impl Mix {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mix05, Self::Mix1, Self::Mix2, Self::S1k, Self::Chat];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mix05 => "mix-05",
            Self::Mix1 => "mix-1",
            Self::Mix2 => "mix-2",
            Self::S1k => "s1k",
            Self::Chat => "chat",
        }
    }

    /// All names, for people.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The mix of this name.
    ///
    /// # Errors
    /// The known names.
    pub fn parse(name: &str) -> Result<Self, TraceError> {
        let unknown = || TraceError::Request(format!("no mix {name:?}: known are {}", Self::names()));
        Self::ALL.into_iter().find(|mix| mix.name() == name).ok_or_else(unknown)
    }

    /// The lengths of one request: prompt and output.
    pub fn draw(self, prng: &mut Prng) -> (Tokens, Tokens) {
        let reasoning_percent = match self {
            Self::Mix05 => 5,
            Self::Mix1 => 20,
            Self::Mix2 => 70,
            Self::S1k => 100,
            Self::Chat => return (quantile(&CHAT_PROMPT, prng.unit()), quantile(&CHAT_OUTPUT, prng.unit())),
        };
        let reasoning = prng.chance(reasoning_percent, 100);
        let output = if reasoning { reasoning_output(prng) } else { short_output(prng) };
        (prompt(prng), output)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Lognormal with median 105 and P99 350, cut to 8..=2048.
fn prompt(prng: &mut Prng) -> Tokens {
    const SIGMA: f64 = 0.517_5; // ln(350 / 105) / 2.3263, the normal P99
    rounded((105.0 * (SIGMA * prng.normal()).exp()).clamp(8.0, 2048.0))
}

/// Normal with mean 9.1k and deviation 4.3k, drawn again outside of 0.9k..=17.6k; 0.7 % are uniform
/// from there to 25k.
fn reasoning_output(prng: &mut Prng) -> Tokens {
    if prng.chance(7, 1000) {
        return Tokens(prng.between(17_600, 25_000) as u32);
    }
    loop {
        // 95 % of draws fall inside, so this ends.
        let tokens = 9100.0 + 4300.0 * prng.normal();
        if (900.0..=17_600.0).contains(&tokens) {
            return rounded(tokens);
        }
    }
}

/// Log-uniform in 10..=250.
fn short_output(prng: &mut Prng) -> Tokens {
    rounded(10.0 * (prng.unit() * 25f64.ln()).exp())
}

fn rounded(tokens: f64) -> Tokens {
    Tokens(tokens.round() as u32)
}

/// Prompt lengths of the Azure conversation trace: mean 1155, p50 1020, p95 4083, p99 4142 as
/// published; the shape between those (many prompts just under 400, 1100 and 4100 tokens) is that of
/// its first 34 minutes, bent between p80 and p92 to meet the mean.
const CHAT_PROMPT: [(f64, f64); 20] = [
    (0.0, 2.0),
    (0.01, 42.0),
    (0.02, 120.0),
    (0.05, 191.0),
    (0.10, 368.0),
    (0.20, 390.0),
    (0.35, 415.0),
    (0.40, 738.0),
    (0.45, 990.0),
    (0.50, 1020.0),
    (0.60, 1070.0),
    (0.70, 1135.0),
    (0.80, 1350.0),
    (0.85, 1700.0),
    (0.905, 2400.0),
    (0.92, 4074.0),
    (0.95, 4083.0),
    (0.99, 4142.0),
    (0.999, 5244.0),
    (1.0, 14_050.0),
];

/// Output lengths of the same trace: mean 211, p50 129, p95 451, p99 601 as published.
const CHAT_OUTPUT: [(f64, f64); 18] = [
    (0.0, 1.0),
    (0.01, 16.0),
    (0.05, 38.0),
    (0.10, 50.0),
    (0.20, 71.0),
    (0.30, 87.0),
    (0.40, 102.0),
    (0.50, 129.0),
    (0.60, 195.0),
    (0.65, 245.0),
    (0.70, 381.0),
    (0.80, 399.0),
    (0.90, 424.0),
    (0.95, 451.0),
    (0.975, 527.0),
    (0.99, 601.0),
    (0.999, 939.0),
    (1.0, 1000.0),
];

/// The value at a share of the table, linear between its points; never below 1.
fn quantile(table: &[(f64, f64)], share: f64) -> Tokens {
    let above = table.partition_point(|&(at, _)| at < share).clamp(1, table.len() - 1);
    let ((x0, y0), (x1, y1)) = (table[above - 1], table[above]);
    rounded((y0 + (y1 - y0) * (share - x0) / (x1 - x0)).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::stats::Lengths;

    fn drawn(mix: Mix) -> (Lengths, Lengths) {
        let mut prng = Prng::new(1);
        let (prompts, outputs): (Vec<_>, Vec<_>) = (0..200_000).map(|_| mix.draw(&mut prng)).unzip();
        (Lengths::of(prompts), Lengths::of(outputs))
    }

    #[track_caller]
    fn near(what: &str, got: f64, wanted: f64, tolerance: f64) {
        assert!((got / wanted - 1.0).abs() <= tolerance, "{what}: {got}, wanted {wanted} within {tolerance}");
    }

    #[test]
    fn reasoning_is_near_the_published_s1k() {
        let (prompt, output) = drawn(Mix::S1k);
        near("output mean", output.mean, 9173.0, 0.02);
        near("output p50", output.p50.0.into(), 8790.0, 0.06); // the source is slightly skewed
        near("output p95", output.p95.0.into(), 16_044.0, 0.03);
        near("output p99", output.p99.0.into(), 17_445.0, 0.03);
        assert!(output.max.0 > 24_900 && output.max.0 <= 25_000 && output.min.0 >= 900, "{output:?}");
        near("prompt mean", prompt.mean, 116.0, 0.05);
        near("prompt p50", prompt.p50.0.into(), 105.0, 0.01);
        near("prompt p95", prompt.p95.0.into(), 248.0, 0.02);
        near("prompt p99", prompt.p99.0.into(), 350.0, 0.02);
        assert!(prompt.min.0 >= 8);
    }

    #[test]
    fn mixes_have_their_shares() {
        let short = |mix: Mix| {
            let mut prng = Prng::new(5);
            (0..100_000).filter(|_| mix.draw(&mut prng).1 <= Tokens(250)).count() as f64 / 1e5
        };
        near("mix-05 short", short(Mix::Mix05), 0.95, 0.005);
        near("mix-1 short", short(Mix::Mix1), 0.8, 0.01);
        near("mix-2 short", short(Mix::Mix2), 0.3, 0.02);
        let (_, output) = drawn(Mix::Mix2);
        near("mix-2 mean", output.mean, 6515.0, 0.02);
        near("mix-2 p50", output.p50.0.into(), 6360.0, 0.08);
        near("mix-2 p95", output.p95.0.into(), 15_640.0, 0.05);
        assert!(output.min.0 >= 10);
    }

    #[test]
    fn chat_is_near_the_azure_conversations() {
        let (prompt, output) = drawn(Mix::Chat);
        near("prompt mean", prompt.mean, 1155.0, 0.02);
        near("prompt p50", prompt.p50.0.into(), 1020.0, 0.01);
        near("prompt p95", prompt.p95.0.into(), 4083.0, 0.01);
        near("prompt p99", prompt.p99.0.into(), 4142.0, 0.01);
        near("output mean", output.mean, 211.0, 0.02);
        near("output p50", output.p50.0.into(), 129.0, 0.02);
        near("output p95", output.p95.0.into(), 451.0, 0.01);
        near("output p99", output.p99.0.into(), 601.0, 0.01);
    }

    #[test]
    fn tables_rise() {
        for table in [&CHAT_PROMPT[..], &CHAT_OUTPUT] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
        }
        assert_eq!(quantile(&CHAT_OUTPUT, 1e-9), Tokens(1));
        assert_eq!(quantile(&CHAT_OUTPUT, 0.5), Tokens(129));
        assert_eq!(quantile(&CHAT_OUTPUT, 1.0), Tokens(1000));
    }

    #[test]
    fn names_round_trip() {
        for mix in Mix::ALL {
            assert_eq!(Mix::parse(mix.name()).unwrap(), mix);
        }
        let error = Mix::parse("mix-3").unwrap_err().to_string();
        assert_eq!(error, "no mix \"mix-3\": known are mix-05, mix-1, mix-2, s1k, chat");
    }
}
