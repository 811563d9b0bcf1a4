//! flyball: an embedded controller for LLM inference.

pub mod clock;
pub mod config;
pub mod error;
pub mod prng;
pub mod queue;
pub mod request;
pub mod units;
