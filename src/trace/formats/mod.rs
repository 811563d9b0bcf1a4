//! The formats of traces: each turns one line into one row, or says why not.

mod azure;
mod burstgpt;
mod columns;
mod field;
pub(super) mod flyball;
mod lengths;
mod mooncake;
pub mod servegen;

use super::TraceRow;
use crate::units::{Nanos, Tokens};
use std::fmt;
use std::str::FromStr;

/// A format of traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Azure LLM inference traces of 2023 and 2024: CSV with wall-clock times.
    Azure,
    /// Mooncake: JSON lines with ids of prompt content.
    Mooncake,
    /// BurstGPT: CSV with seconds; rows without a response are failures and never in the trace.
    BurstGpt,
    /// ServeGen: a folder of clients, from whose rates and length tables requests are drawn.
    ServeGen,
    /// Prompt and output lengths without times: CSV; needs an arrival process.
    Lengths,
    /// Our own: JSON lines after a header with the schema.
    Flyball,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Azure, Self::Mooncake, Self::BurstGpt, Self::ServeGen, Self::Lengths, Self::Flyball];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Azure => "azure",
            Self::Mooncake => "mooncake",
            Self::BurstGpt => "burstgpt",
            Self::ServeGen => "servegen",
            Self::Lengths => "lengths",
            Self::Flyball => "flyball",
        }
    }

    /// The format of the file that starts with this line, if it is a known one.
    pub fn guess(first_line: &str) -> Option<Self> {
        if first_line.starts_with('{') {
            let has = |key: &str| first_line.contains(key);
            return if has("\"flyball.trace/") {
                Some(Self::Flyball)
            } else if has("\"timestamp\"") && has("\"input_length\"") {
                Some(Self::Mooncake)
            } else {
                None
            };
        }
        let tables = [
            (Self::Azure, &azure::COLUMNS[..]),
            (Self::BurstGpt, &burstgpt::COLUMNS),
            (Self::Lengths, &lengths::COLUMNS),
        ];
        let fits = |names: &[&str]| names.iter().all(|name| columns::place(first_line, name).is_some());
        tables.into_iter().find(|(_, names)| fits(names)).map(|(format, _)| format)
    }

    /// A reader of the lines of a file, whether its first line is a header and thus used up, and
    /// whether its rows have arrival times.
    ///
    /// # Errors
    /// The reason why this first line cannot start such a file.
    pub(super) fn rows(self, first_line: &str) -> Result<Box<dyn Rows>, String> {
        Ok(match self {
            Self::Azure => Box::new(azure::Azure::new(first_line)?),
            Self::Mooncake => Box::new(mooncake::Mooncake),
            Self::BurstGpt => Box::new(burstgpt::BurstGpt::new(first_line)?),
            Self::Lengths => Box::new(lengths::Lengths::new(first_line)?),
            Self::Flyball => Box::new(flyball::Flyball::new(first_line)?),
            Self::ServeGen => return Err("a ServeGen trace is a folder of chunk-*-trace.csv".into()),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or(format!("no trace format {name:?}: known are {known}"))
    }
}

/// Reads the lines of one file, top to bottom.
pub(super) trait Rows {
    /// Whether the first line was a header.
    fn header(&self) -> bool {
        true
    }
    /// Whether rows have a time of arrival.
    fn timed(&self) -> bool {
        true
    }
    /// Tokens that one content id stands for.
    fn granularity(&self) -> Tokens {
        super::GRANULARITY
    }
    /// The grid that arrival times were rounded down to, if it is coarse.
    fn tick(&self) -> Option<Nanos> {
        None
    }
    /// How many rows the file says that it has.
    fn announced(&self) -> Option<u64> {
        None
    }
    /// The row of a line. `arrival` counts from any zero, the same for all lines.
    ///
    /// # Errors
    /// Why the line is not a row.
    fn parse(&mut self, line: &str) -> Result<Parsed, String>;
}

/// What a sound line says.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    /// A request.
    Row(TraceRow),
    /// Something that is no request, by the definition of the format.
    NoRequest(&'static str),
}

/// A row with the three things that every format has.
fn row(arrival: Nanos, prompt: Tokens, output: Tokens) -> TraceRow {
    TraceRow { arrival, prompt, output, client: 0, priority: 0, content: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_line() {
        let guess = Format::guess;
        assert_eq!(guess("TIMESTAMP,ContextTokens,GeneratedTokens"), Some(Format::Azure));
        assert_eq!(guess(r#"{"timestamp": 0, "input_length": 9}"#), Some(Format::Mooncake));
        let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type";
        assert_eq!(guess(burst), Some(Format::BurstGpt));
        let burst = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Log Type";
        assert_eq!(guess(burst), Some(Format::BurstGpt));
        assert_eq!(guess("num_prefill_tokens,num_decode_tokens,pd_ratio"), Some(Format::Lengths));
        assert_eq!(guess(r#"{"schema":"flyball.trace/1"}"#), Some(Format::Flyball));
        assert_eq!(guess("a,b,c"), None);
        assert_eq!(guess(r#"{"a":1}"#), None);
    }

    #[test]
    fn names_round_trip() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
        }
        let error = Format::from_str("azur").unwrap_err();
        assert!(error.contains("\"azur\"") && error.contains("azure, mooncake, burstgpt"), "{error}");
    }
}
