//! Prompt and output lengths without times, as Sarathi-Serve and Vidur publish them: CSV.

use super::columns::Columns;
use super::{Parsed, Rows, field, row};
use crate::units::Nanos;

pub const COLUMNS: [&str; 2] = ["num_prefill_tokens", "num_decode_tokens"];

pub struct Lengths {
    columns: Columns<2>,
}

impl Lengths {
    pub fn new(header: &str) -> Result<Self, String> {
        Ok(Self { columns: Columns::find(header, COLUMNS)? })
    }
}

impl Rows for Lengths {
    fn timed(&self) -> bool {
        false
    }

    fn parse(&mut self, line: &str) -> Result<Parsed, String> {
        let [prompt, output] = self.columns.fields(line)?;
        let prompt = field::tokens("num_prefill_tokens", &prompt)?;
        let output = field::tokens("num_decode_tokens", &output)?;
        Ok(Parsed::Row(row(Nanos::ZERO, prompt, output)))
    }
}
