//! A request inside the engine, from its submission to its end.
//!
//! ```text
//!   waiting --admit--> resident --finish--> (gone)
//!      ^                  |
//!      +---- evict -------+   swapped: its KV is in host memory; dropped: it is computed again
//! ```
//!
//! What a step touches of a resident lives in the view's rows; this is the rest. A sequence that waits
//! may still have a token in flight, at depth 2; so every token is credited here.

use crate::ids::{Places, Slot};
use crate::kv::HostSpan;
use crate::request::{Request, RequestId};
use crate::units::{Blocks, Tokens};

/// Where a sequence is.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Its place in the table is free.
    #[default]
    Vacant,
    /// It waits and has no KV: new, or dropped.
    Waiting,
    /// It waits and its KV is in host memory.
    Swapped(HostSpan),
    /// It has a slot. The blocks of a span that is still being read come free when the step settles.
    Resident(Slot),
}

/// One live request.
#[derive(Debug)]
pub struct Sequence {
    /// What was asked for.
    pub request: Request,
    /// Its id.
    pub id: RequestId,
    /// Where it is.
    pub state: State,
    /// Where it stands in the queue while it waits.
    pub places: Places,
    /// Output tokens, those in flight included; while it is resident, its slot counts these and the next.
    pub generated: u32,
    /// Output tokens that have come out of settled steps.
    pub delivered: u32,
    /// Tokens whose KV was computed before it was swapped out.
    pub computed: u32,
    /// Tokens whose KV was computed before it was dropped.
    pub dropped: u32,
    /// Leading tokens found in the prefix cache, and how many of their blocks nobody holds; as of
    /// `looked_up`.
    pub cached: Tokens,
    /// See `cached`.
    pub cached_free: Blocks,
    /// The cache's epoch of the last look-up.
    pub looked_up: u64,
    /// Which of the policy's rank epochs its places belong to.
    pub rank_epoch: u64,
    /// How often it was evicted.
    pub evictions: u32,
    /// Its last token, once it has one.
    pub last_token: u32,
    /// Its generated tokens, if its content is known; while it is resident, its slot has these and the next.
    /// The buffer is recycled.
    pub output: Vec<u32>,
}

impl Sequence {
    /// A new sequence in state waiting.
    pub fn new(id: RequestId, request: Request, output: Vec<u32>) -> Self {
        Self {
            request,
            id,
            state: State::Waiting,
            places: Places::default(),
            generated: 0,
            delivered: 0,
            computed: 0,
            dropped: 0,
            cached: Tokens::ZERO,
            cached_free: Blocks::ZERO,
            looked_up: u64::MAX,
            rank_epoch: 0,
            evictions: 0,
            last_token: 0,
            output,
        }
    }

    /// Whether it stands in the queue.
    pub fn waits(&self) -> bool {
        matches!(self.state, State::Waiting | State::Swapped(_))
    }

    /// Its slot, if it is resident.
    pub fn slot(&self) -> Option<Slot> {
        if let State::Resident(slot) = self.state { Some(slot) } else { None }
    }

    /// Takes a slot.
    ///
    /// # Panics
    /// If it does not wait: a defect of the engine.
    pub fn admit(&mut self, slot: Slot) -> Option<HostSpan> {
        assert!(self.waits(), "only a waiting sequence is admitted: {} is {:?}", self.id, self.state);
        match std::mem::replace(&mut self.state, State::Resident(slot)) {
            State::Swapped(span) => Some(span),
            _ => None,
        }
    }

    /// Gives up its slot, with its state in host memory or dropped.
    ///
    /// # Panics
    /// If it is not resident: a defect of the engine.
    pub fn evict(&mut self, span: Option<HostSpan>, computed: u32) {
        assert!(self.slot().is_some(), "only a resident is evicted: {} is {:?}", self.id, self.state);
        self.evictions += 1;
        (self.computed, self.dropped) = if span.is_some() { (computed, 0) } else { (0, computed) };
        self.state = span.map_or(State::Waiting, State::Swapped);
    }

    /// Notes an output token that came while it had no slot.
    pub fn credit(&mut self, token: u32, index: u32) {
        self.last_token = token;
        self.delivered = index;
        if matches!(self.request.prompt, crate::request::Prompt::Tokens(_)) {
            self.output.push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::units::Nanos;

    fn sequence() -> Sequence {
        let request = Request::new(Nanos(5), Prompt::Tokens([1, 2, 3].into()), Tokens(4));
        Sequence::new(RequestId::new(0, 0), request, Vec::new())
    }

    #[test]
    #[should_panic(expected = "only a waiting sequence is admitted")]
    fn resident_is_not_admitted_twice() {
        let mut s = sequence();
        assert_eq!(s.admit(Slot(0)), None);
        s.admit(Slot(1));
    }

    #[test]
    #[should_panic(expected = "only a resident is evicted")]
    fn waiting_sequence_is_not_evicted() {
        sequence().evict(None, 0);
    }
}
