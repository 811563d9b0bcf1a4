//! BurstGPT (Wang et al., "BurstGPT: A Real-world Workload Dataset to Optimize LLM Serving Systems",
//! KDD 2025): CSV, seconds from the start. Newer files have more columns; they are found by name.
//!
//! A row with no response tokens is a request that failed at the source: it is counted as skipped,
//! with or without `skip_bad`.

use super::columns::Columns;
use super::{Parsed, Rows, field, row};
use crate::units::Tokens;

pub const COLUMNS: [&str; 3] = ["Timestamp", "Request tokens", "Response tokens"];

pub struct BurstGpt {
    columns: Columns<3>,
}

impl BurstGpt {
    pub fn new(header: &str) -> Result<Self, String> {
        Ok(Self { columns: Columns::find(header, COLUMNS)? })
    }
}

impl Rows for BurstGpt {
    fn parse(&mut self, line: &str) -> Result<Parsed, String> {
        let [time, prompt, output] = self.columns.fields(line)?;
        let arrival = field::seconds("Timestamp", &time)?;
        let prompt = field::tokens("Request tokens", &prompt)?;
        let output = field::tokens("Response tokens", &output)?;
        if output == Tokens::ZERO {
            return Ok(Parsed::NoRequest("failed at the source: it has no response tokens"));
        }
        Ok(Parsed::Row(row(arrival, prompt, output)))
    }
}
