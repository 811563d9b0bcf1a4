//! flyball: an embedded controller for LLM inference.

pub mod clock;
pub mod config;
pub mod error;
pub mod prng;
pub mod request;
#[cfg(feature = "cli")]
pub mod trace;
pub mod units;
