//! Mooncake (Qin et al., FAST 2025): JSON lines, milliseconds from the start on a 3-second grid, and
//! one id per 512 tokens of prompt, each of which names its whole prefix.

use super::{Parsed, Rows, field, row};
use crate::units::Nanos;
use serde::Deserialize;

const NANOS_PER_MS: f64 = 1e6;

pub struct Mooncake;

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: i64,
    output_length: i64,
    hash_ids: Option<Vec<u64>>,
}

impl Rows for Mooncake {
    fn header(&self) -> bool {
        false
    }

    fn tick(&self) -> Option<Nanos> {
        Some(Nanos::from_millis(3000))
    }

    fn parse(&mut self, line: &str) -> Result<Parsed, String> {
        let line: Line = json(line)?;
        let arrival = field::time("timestamp", line.timestamp, NANOS_PER_MS)?;
        let prompt = field::token_count("input_length", line.input_length)?;
        let output = field::token_count("output_length", line.output_length)?;
        let mut row = row(arrival, prompt, output);
        row.content = line.hash_ids.map(Into::into);
        Ok(Parsed::Row(row))
    }
}

/// A line of JSON; errors name the column, not the line, which is always the first.
pub fn json<'l, T: Deserialize<'l>>(line: &'l str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        let what = text.split(" at line 1 column").next().unwrap_or(&text);
        format!("{what} (column {})", error.column())
    })
}
