//! Values of flags that several commands have.

use crate::trace::{Arrivals, ROWS_MAX, TraceError};

pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && f64::is_finite(value) => Ok(value),
        _ => Err("must be a number above zero".into()),
    }
}

pub(super) fn requests(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(requests) if (1..=ROWS_MAX).contains(&requests) => Ok(requests),
        _ => Err(format!("must be a whole number from 1 to {ROWS_MAX}")),
    }
}

/// A process at one request per second; the rate is set later.
pub(super) fn process(name: &str) -> Result<Arrivals, TraceError> {
    Arrivals::parse(name, 1.0)
}
