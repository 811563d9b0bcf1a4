//! Azure LLM inference traces (Patel et al., "Splitwise", ISCA 2024; Stojkovic et al., "DynamoLLM",
//! HPCA 2025): CSV, wall-clock times without a zone in 2023 and with one in 2024.

use super::columns::Columns;
use super::{Parsed, Rows, field, row};

pub const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

pub struct Azure {
    columns: Columns<3>,
}

impl Azure {
    pub fn new(header: &str) -> Result<Self, String> {
        Ok(Self { columns: Columns::find(header, COLUMNS)? })
    }
}

impl Rows for Azure {
    fn parse(&mut self, line: &str) -> Result<Parsed, String> {
        let [time, prompt, output] = self.columns.fields(line)?;
        let arrival = field::wall_clock("TIMESTAMP", &time)?;
        let prompt = field::tokens("ContextTokens", &prompt)?;
        let output = field::tokens("GeneratedTokens", &output)?;
        Ok(Parsed::Row(row(arrival, prompt, output)))
    }
}
