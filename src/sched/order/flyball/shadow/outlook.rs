//! What the latencies on a machine come to, those included who are not done: else a machine would look good
//! that lets some wait for ever, and in a surge the one that has served the latest.

use super::machine::{Job, Model, QUEUE_MAX};
use super::tail::Tail;

/// See the module.
#[derive(Debug)]
pub(super) struct Outlook {
    /// Who waits, in order of service.
    pub line: Vec<Job>,
    pub ttft: Tail,
    pub ttlt: Tail,
}

impl Outlook {
    /// Room for everybody on a machine.
    pub(super) fn new(model: &Model) -> Self {
        let line = Vec::with_capacity(QUEUE_MAX + model.seqs);
        Self { line, ttft: Tail::new(), ttlt: Tail::new() }
    }
}
