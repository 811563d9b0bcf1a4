//! Our own format: JSON lines. The first is a [`Header`], each other one a [`Line`], in the order of
//! arrival. Fields may be added to either; readers pass over what they do not know.
//!
//! ```json
//! {"schema":"flyball.trace/1","name":"chat","requests":2,"granularity":512}
//! {"arrival_ns":0,"prompt":1024,"output":129}
//! {"arrival_ns":81000000,"prompt":600,"output":7,"client":3,"priority":1,"content":[0,17]}
//! ```

use super::mooncake::json;
use super::{Parsed, Rows, field, row};
use crate::trace::{GRANULARITY, Trace, TraceRow};
use crate::units::{Nanos, Tokens};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

pub const SCHEMA: &str = "flyball.trace/1";

#[derive(Serialize, Deserialize)]
pub struct Header<'a> {
    schema: Cow<'a, str>,
    #[serde(default)]
    name: Cow<'a, str>,
    /// Rows that follow: a shorter file was cut.
    requests: Option<u64>,
    #[serde(default = "granularity")]
    granularity: i64,
}

#[derive(Serialize, Deserialize)]
pub struct Line<'a> {
    arrival_ns: u64,
    prompt: i64,
    output: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    client: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    priority: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, [u64]>>,
}

fn granularity() -> i64 {
    GRANULARITY.0.into()
}

fn is_zero<T: PartialEq + Default>(number: &T) -> bool {
    *number == T::default()
}

impl<'a> Header<'a> {
    pub fn of(trace: &'a Trace) -> Self {
        Self {
            schema: SCHEMA.into(),
            name: trace.name.as_str().into(),
            requests: Some(trace.rows.len() as u64),
            granularity: trace.granularity.0.into(),
        }
    }
}

impl<'a> Line<'a> {
    pub fn of(row: &'a TraceRow) -> Self {
        Self {
            arrival_ns: row.arrival.0,
            prompt: row.prompt.0.into(),
            output: row.output.0.into(),
            client: row.client,
            priority: row.priority,
            content: row.content.as_deref().map(Cow::Borrowed),
        }
    }
}

pub struct Flyball {
    granularity: Tokens,
    requests: Option<u64>,
}

impl Flyball {
    pub fn new(header: &str) -> Result<Self, String> {
        let header: Header = json(header)?;
        if header.schema != SCHEMA {
            return Err(format!("the schema is {:?}; this version reads {SCHEMA:?}", header.schema));
        }
        let granularity = field::token_count("granularity", header.granularity)?;
        if granularity == Tokens::ZERO {
            return Err("granularity is 0".into());
        }
        Ok(Self { granularity, requests: header.requests })
    }
}

impl Rows for Flyball {
    fn granularity(&self) -> Tokens {
        self.granularity
    }

    fn announced(&self) -> Option<u64> {
        self.requests
    }

    fn parse(&mut self, line: &str) -> Result<Parsed, String> {
        let line: Line = json(line)?;
        field::time("arrival_ns", line.arrival_ns as f64, 1.0)?; // bounds it; the integer is exact
        let arrival = Nanos(line.arrival_ns);
        let prompt = field::token_count("prompt", line.prompt)?;
        let output = field::token_count("output", line.output)?;
        let content = line.content.map(|ids| ids.into());
        let (client, priority) = (line.client, line.priority);
        Ok(Parsed::Row(TraceRow { client, priority, content, ..row(arrival, prompt, output) }))
    }
}
