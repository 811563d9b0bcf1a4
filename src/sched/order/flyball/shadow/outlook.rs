//! What the latencies on a machine come to, those included who are not done: else a machine would look good that
//! lets some wait for ever, and in a surge first come, first served would look as good as before it.

use super::machine::{Job, PROBES};
use super::tail::Tail;

/// See the module.
#[derive(Debug)]
pub(super) struct Outlook {
    /// Those of the waiting who are looked at, in order of service.
    pub line: Vec<Job>,
    pub ttft: Tail,
    pub ttlt: Tail,
}

impl Outlook {
    pub(super) fn new() -> Self {
        Self { line: Vec::with_capacity(PROBES), ttft: Tail::new(), ttlt: Tail::new() }
    }
}
