//! Records: all inputs of a run, from which every decision of it follows again.
//!
//! A record is JSON lines. The first is the [`Header`]: version, limits, policy, seed, profile. Then comes
//! one [`Step`] for each step of each engine, in the order in which they were done: the time that the
//! engine read, what was submitted, cancelled and allowed since its last step, and what came out of the
//! step that settled. The last line counts the steps, so that a cut is seen wherever it falls. The view
//! is in no record: it is rebuilt from the inputs, and digests only prove that it was the same.
//!
//! [`Recorder`] writes records, [`replay`] drives engines by them, and [`inspect`] prints them.

mod exec;
mod inspect;
mod replay;
mod write;

#[cfg(test)]
mod tests;

pub use inspect::inspect;
pub use replay::{ReplayReport, replay, replay_each};
pub use write::Recorder;

use crate::budget::PowerBudget;
use crate::config::Config;
use crate::cost::{CostModel, Profile};
use crate::engine::Yields;
use crate::error::{ConfigError, ProfileError, StepError};
use crate::exec::StepOutcome;
use crate::prng::mix;
use crate::request::{FinishReason, Request, RequestId};
use crate::sched::Decision;
use crate::sched::order::PolicyError;
use crate::units::{Nanos, Tokens};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use thiserror::Error;

/// The schema that is written, and the only one that is read.
pub const SCHEMA: &str = "flyball.record/1";

/// The version of this library, which a header names.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What holds for a whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version that wrote it; another one may decide differently.
    pub version: String,
    /// The policy, as [`crate::sched::order::parse`] reads it.
    pub policy: String,
    /// Seed of everything drawn.
    pub seed: u64,
    /// How many engines.
    pub gpus: u32,
    /// Limits of each engine.
    pub config: Config,
    /// The time of every step, if the cost model was told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant_step: Option<Nanos>,
    /// The factor by which the policy's beliefs about time were wrong, on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub believed_time: Option<f64>,
    /// True output lengths by `user_data`, if the policy is clairvoyant: they are an input of its
    /// decisions. For every other policy they must not be here, as nothing may depend on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle: Option<Vec<Tokens>>,
    /// What steps cost: the whole profile, since a file of its name may change.
    pub profile: Profile,
}

impl Header {
    /// The cost model that the policy believes.
    ///
    /// # Errors
    /// If the profile does not describe a machine.
    pub fn believed(&self) -> Result<CostModel, ProfileError> {
        let json = serde_json::to_string(&self.profile).expect("a profile is plain data");
        let mut cost = CostModel::new(&Profile::parse(&self.profile.name, &json)?);
        if let Some(step) = self.constant_step {
            cost = cost.with_constant_step(step);
        }
        Ok(match self.believed_time {
            Some(factor) => cost.scaled(factor, 1.0),
            None => cost,
        })
    }
}

/// Something that came to an engine between two steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A request that was accepted.
    Submit(Request),
    /// A request that was refused: it changed nothing.
    Refuse(Request),
    /// A request was cancelled.
    Cancel {
        /// Which.
        id: RequestId,
        /// When.
        at: Nanos,
    },
    /// The governor allows something else from the next step on.
    Power(PowerBudget),
}

/// What came out of the step that settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled<'a> {
    /// Which step.
    pub step: u64,
    /// What the executor gave: an input.
    pub outcome: Cow<'a, StepOutcome>,
    /// Digest of the outcome and of the tokens that were credited: a proof.
    pub digest: Digest,
}

/// A request that ended: a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Which.
    pub id: RequestId,
    /// Why.
    pub reason: FinishReason,
    /// Output tokens that it got.
    pub generated: Tokens,
}

/// One step of one engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step<'a> {
    /// Which engine.
    pub engine: u32,
    /// Which of its steps, from 1.
    pub step: u64,
    /// The time that it read.
    pub now: Nanos,
    /// What came since its last step, in order.
    #[serde(default, skip_serializing_if = "<[Input]>::is_empty")]
    pub inputs: Cow<'a, [Input]>,
    /// What settled, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled<'a>>,
    /// Who ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<End>,
    /// Digest of the decision: a proof.
    pub digest: Digest,
    /// The decision itself, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Cow<'a, Decision>>,
}

/// A line after the header.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // One at a time, on the stack; a box would cost an allocation per line.
enum Line<'a> {
    /// A step.
    Step(Step<'a>),
    /// What came to an engine after its last step.
    Rest { engine: u32, inputs: Cow<'a, [Input]> },
    /// The last line.
    End { steps: u64 },
}

/// 64 bits that two different values do not share but by an accident of one in 2^64. Not a defence
/// against forgery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    const EMPTY: Self = Self(0);

    #[inline]
    fn add(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word);
    }

    /// Of a decision. O(entries), some ns each; depends on the order in which [`crate::sched::Reason`]
    /// and [`crate::sched::Restore`] list their variants.
    pub fn of_decision(decision: &Decision) -> Self {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let Decision { pause, evict, grow, run, admit, park } = decision;
        let mut digest = Self::EMPTY;
        for len in [usize::from(pause.is_some()), evict.len(), grow.len(), run.len(), admit.len(), park.len()]
        {
            digest.add(len as u64);
        }
        if let Some(p) = pause {
            digest.add(p.span.0);
            digest.add(p.reason as u64);
        }
        for e in evict {
            digest.add(pair(e.slot.0, e.freed.0));
            digest.add(pair(e.restore as u32, e.reason as u32));
        }
        for g in grow {
            digest.add(pair(g.slot.0, g.blocks.0));
        }
        for r in run {
            digest.add(pair(r.slot.0, r.tokens));
            digest.add(r.reason as u64);
        }
        for a in admit {
            digest.add(a.id.0);
            digest.add(pair(a.tokens, a.reason as u32));
            digest.add(pair(a.blocks.0, a.taken.0));
        }
        for p in park {
            digest.add(pair(p.slot.0, p.reason as u32));
        }
        digest
    }

    /// Of what came out of a step and of what was made of it.
    pub fn of_outcome(outcome: &StepOutcome, credited: Yields<'_>) -> Self {
        let mut digest = Self::EMPTY;
        let sizes = [outcome.tokens.len() as u64, outcome.failed.len() as u64, credited.len() as u64];
        let head = [outcome.started.0, outcome.finished.0, outcome.energy.0];
        head.into_iter().chain(sizes).for_each(|word| digest.add(word));
        outcome.tokens.iter().chain(&outcome.failed).for_each(|word| digest.add(u64::from(*word)));
        for event in credited {
            digest.add(event.id.0);
            digest.add(u64::from(event.index) << 32 | u64::from(event.token));
        }
        digest
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Why a record could not be replayed.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The line cannot be read.
    #[error("line {line}: {source}")]
    Io {
        /// Which, from 1.
        line: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The line is not what stands in a record there.
    #[error("line {line}, column {column}: {what}")]
    Syntax {
        /// Which, from 1.
        line: u64,
        /// Where in it.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// The file begins as no record does that this version reads.
    #[error("not a record: the first line has no schema {SCHEMA:?}, but {found}")]
    Foreign {
        /// What is there.
        found: String,
    },
    /// The record has no last line.
    #[error("cut off after line {line}: the line that counts the steps is missing")]
    Cut {
        /// The last line that is there.
        line: u64,
    },
    /// The limits in the header do not fit together.
    #[error("line 1: {0}")]
    Config(#[from] ConfigError),
    /// The policy in the header is unknown.
    #[error("line 1: {0}")]
    Policy(#[from] PolicyError),
    /// The profile in the header does not describe a machine.
    #[error("line 1: {0}")]
    Profile(#[from] ProfileError),
    /// A line does not follow from those before it.
    #[error("line {line}: {what}")]
    Misfit {
        /// Which, from 1.
        line: u64,
        /// What does not fit.
        what: String,
    },
    /// A step failed.
    #[error("line {line}: engine {engine}, step {step}: {source}")]
    Step {
        /// Which, from 1.
        line: u64,
        /// Which engine.
        engine: u32,
        /// Which of its steps.
        step: u64,
        /// Why.
        source: StepError,
    },
    /// The replay does something else than was recorded: the first difference.
    #[error(
        "line {line}: engine {engine}, step {step}: another {what}\n  recorded: {recorded}\n  replayed: {replayed}"
    )]
    Differs {
        /// Which, from 1.
        line: u64,
        /// Which engine.
        engine: u32,
        /// Which of its steps.
        step: u64,
        /// What differs.
        what: &'static str,
        /// What was recorded.
        recorded: String,
        /// What came out now.
        replayed: String,
    },
    /// The same, of a record that another version has written: it may decide otherwise, and this one not be wrong.
    #[error("written by version {version}, and this is {VERSION}; {source}")]
    Version {
        /// Which version.
        version: String,
        /// What is not as it was.
        source: Box<RecordError>,
    },
    /// What was asked for could not be written.
    #[error("cannot write: {0}")]
    Write(std::io::Error),
}
