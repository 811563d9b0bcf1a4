//! Which of several engines gets a request.

use crate::engine::Gauges;
use crate::prng::{Prng, mix};
use crate::request::{Prompt, Request};
use std::fmt;
use std::str::FromStr;

/// How requests are spread over engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Router {
    /// Any, with equal chance.
    Random,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest waiting and resident requests.
    #[default]
    LeastWork,
    /// The one that the prompt's first content names, so that equal prefixes meet.
    PrefixAffinity,
}

const NAMES: [(&str, Router); 4] = [
    ("random", Router::Random),
    ("round-robin", Router::RoundRobin),
    ("least-work", Router::LeastWork),
    ("prefix-affinity", Router::PrefixAffinity),
];

impl FromStr for Router {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || NAMES.map(|n| n.0).join(", ");
        let found = NAMES.iter().find(|(n, _)| *n == name);
        found.map(|(_, router)| *router).ok_or_else(|| format!("no router {name:?}: known are {}", known()))
    }
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, router)| router == self).expect("every router has a name").0;
        f.write_str(name)
    }
}

pub(super) struct State {
    router: Router,
    engines: usize,
    next: usize,
    prng: Prng,
}

impl State {
    pub fn new(router: Router, engines: usize, seed: u64) -> Self {
        Self { router, engines, next: 0, prng: Prng::new(seed).split(0x5EED) }
    }

    pub fn route(&mut self, request: &Request, loads: impl Iterator<Item = Gauges>) -> usize {
        if self.engines == 1 {
            return 0;
        }
        match self.router {
            Router::Random => self.prng.below(self.engines as u64) as usize,
            Router::RoundRobin => {
                self.next = (self.next + 1) % self.engines;
                self.next
            }
            Router::LeastWork => {
                let least = loads.enumerate().min_by_key(|(i, g)| (g.waiting + g.resident, *i));
                least.expect("there is an engine").0
            }
            Router::PrefixAffinity => (prefix(request) % self.engines as u64) as usize,
        }
    }
}

/// Names the beginning of a prompt. The first content id is often a system prompt that all share, so the
/// second counts too.
fn prefix(request: &Request) -> u64 {
    match &request.prompt {
        Prompt::Length(_) => mix(request.user_data),
        Prompt::Tokens(ids) => ids.iter().take(64).fold(0, |h, t| mix(h ^ u64::from(*t))),
        Prompt::Content { ids, .. } => ids.iter().take(2).fold(0, |h, id| mix(h ^ *id)),
    }
}
