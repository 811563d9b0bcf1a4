//! flyball: an embedded controller for LLM inference.

pub mod batch;
pub mod budget;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod config;
pub mod cost;
pub mod engine;
pub mod error;
pub mod exec;
pub mod ids;
pub mod kv;
pub mod metrics;
pub mod prng;
pub mod queue;
pub mod record;
#[cfg(feature = "cli")]
pub mod report;
pub mod request;
pub mod sched;
pub mod sequence;
pub mod sim;
#[cfg(feature = "cli")]
pub mod trace;
pub mod units;
