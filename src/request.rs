//! What a client asks for, and how it ends.

use crate::error::SubmitError;
use crate::units::{Nanos, Tokens};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Names one submitted request for the life of an engine.
///
/// Ordered by submission: the high 40 bits count submissions, the low 24 bits are the place of the
/// request in the engine's table, so that a look-up is one indexed load. Every tie is broken by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

impl RequestId {
    /// The most requests that may be alive (waiting or resident) at once.
    pub const ALIVE_MAX: usize = 1 << 24;

    /// Packs a submission number and a place in the table.
    pub const fn new(number: u64, index: u32) -> Self {
        assert!((index as usize) < Self::ALIVE_MAX);
        Self(number << 24 | index as u64)
    }

    /// How many requests were submitted before this one.
    pub const fn number(self) -> u64 {
        self.0 >> 24
    }

    /// The place in the engine's table of live requests; reused after the request has ended.
    pub const fn index(self) -> usize {
        (self.0 & 0xFF_FFFF) as usize
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.number())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The input of a request, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    /// Only its length; its content can be shared with nobody.
    Length(Tokens),
    /// Its token ids; blocks are shared by their content.
    Tokens(Arc<[u32]>),
    /// Ids of its content: equal ids at equal places mean equal content up to there.
    Content {
        /// Length of the prompt.
        length: Tokens,
        /// Tokens that one id stands for; the last id may stand for fewer. Mooncake: 512.
        granularity: Tokens,
        /// `ceil(length / granularity)` ids, each of which names its whole prefix.
        ids: Arc<[u64]>,
    },
}

impl Prompt {
    /// How many tokens it has.
    pub fn len(&self) -> Tokens {
        match self {
            Prompt::Length(n) => *n,
            Prompt::Tokens(ids) => Tokens(ids.len() as u32),
            Prompt::Content { length, .. } => *length,
        }
    }

    /// The tokens at `range` of this prompt and the output behind it, each part by itself, if all are known.
    pub fn span<'s>(&'s self, output: &'s [u32], range: Range<usize>) -> Option<(&'s [u32], &'s [u32])> {
        let Prompt::Tokens(prompt) = self else { return None };
        let edge = prompt.len();
        let output = output.get(range.start.max(edge) - edge..range.end.max(edge) - edge)?;
        Some((&prompt[range.start.min(edge)..range.end.min(edge)], output))
    }

    /// Whether it has no token at all; such a request is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == Tokens::ZERO
    }
}

/// How a token is drawn from the logits: penalties first, then temperature, min-p, top-k, and top-p over what those
/// left. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingParams {
    /// Divides the logits; 0 is greedy.
    #[serde(deserialize_with = "number_or_nan")]
    pub temperature: f32,
    /// Keep the smallest set of tokens with this much probability; 1 keeps all.
    #[serde(deserialize_with = "number_or_nan")]
    pub top_p: f32,
    /// Keep this many most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens with at least this share of the most likely one's probability; 0 keeps all.
    #[serde(deserialize_with = "number_or_nan")]
    pub min_p: f32,
    /// Divides the positive logits, and multiplies the negative ones, of tokens that the prompt or the output has; 1
    /// changes nothing (Keskar et al., "CTRL", 2019).
    #[serde(deserialize_with = "number_or_nan")]
    pub repetition_penalty: f32,
    /// Taken off a token's logit for each time that the output has it; 0 changes nothing.
    #[serde(deserialize_with = "number_or_nan")]
    pub frequency_penalty: f32,
    /// Taken off a token's logit if the output has it; 0 changes nothing.
    #[serde(deserialize_with = "number_or_nan")]
    pub presence_penalty: f32,
    /// Key of the request's own random stream, with the position.
    pub seed: u64,
}

/// JSON has no number for NaN and the infinities, and gets `null`: read as NaN, which is refused as they were.
fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f32::NAN))
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Whether a draw depends on the tokens before it, which an executor must then know.
    pub fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    /// Whether every number is within its bounds.
    ///
    /// # Errors
    /// [`SubmitError::BadSampling`] with the first that is not.
    pub fn check(&self) -> Result<(), SubmitError> {
        let within = |field, value: f32, low: f32, high: f32| {
            let fine = (low..=high).contains(&value);
            fine.then_some(()).ok_or(SubmitError::BadSampling { field, value, low, high })
        };
        within("temperature", self.temperature, 0.0, 100.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("repetition_penalty", self.repetition_penalty, 0.01, 100.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)
    }
}

/// The tokens that end a request: at most [`StopTokens::MAX`], held inline so that a step follows no
/// pointer to check them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopTokens {
    ids: [u32; StopTokens::MAX],
}

impl StopTokens {
    /// The most stop tokens of one request.
    pub const MAX: usize = 4;
    /// Nothing stops the request but its length. No vocabulary reaches the filler id.
    pub const NONE: Self = Self { ids: [u32::MAX; Self::MAX] };

    /// The given ids; `None` if there are more than [`StopTokens::MAX`].
    pub fn new(ids: &[u32]) -> Option<Self> {
        let mut stop = Self::NONE;
        stop.ids.get_mut(..ids.len())?.copy_from_slice(ids);
        Some(stop)
    }

    /// Whether `token` ends the request.
    pub fn contains(&self, token: u32) -> bool {
        token != u32::MAX && self.ids.contains(&token)
    }

    /// The sieve that lets them through.
    pub fn sieve(&self) -> StopSieve {
        let ids = self.ids.iter().filter(|id| **id != u32::MAX);
        StopSieve(ids.fold(0, |bits, id| bits | 1 << (id % u64::BITS)))
    }
}

/// A glance at a token, before its id is compared: one bit for all ids that are equal in their last six bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSieve(u64);

impl StopSieve {
    /// Whether `token` may end the request: true for all that do, and for one in 64 that does not.
    #[inline]
    pub fn holds(self, token: u32) -> bool {
        self.0 >> (token % u64::BITS) & 1 == 1
    }
}

impl Default for StopTokens {
    fn default() -> Self {
        Self::NONE
    }
}

/// Latency targets of a request; a missing one is not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slo {
    /// Target for the time to first token.
    pub ttft: Option<Nanos>,
    /// Target for the gap between two tokens.
    pub tbt: Option<Nanos>,
}

/// A request as a client submits it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// When it arrived at the node; a queue before the engine is part of its latency.
    pub arrival: Nanos,
    /// Its input.
    pub prompt: Prompt,
    /// The most tokens it may generate, at least 1.
    pub max_tokens: Tokens,
    /// Priority class: 0 is the highest. Policies that know no classes ignore it.
    pub priority: u8,
    /// Whose request it is, for fairness between clients.
    pub client: u32,
    /// Latency targets.
    pub slo: Slo,
    /// When to give up: an unfinished request ends with [`FinishReason::Deadline`].
    pub deadline: Option<Nanos>,
    /// How its tokens are drawn.
    pub sampling: SamplingParams,
    /// The tokens that end it.
    pub stop: StopTokens,
    /// Passed through to the executor and to every event, never read.
    pub user_data: u64,
}

impl Request {
    /// A request with no wishes but its prompt and its limit.
    pub fn new(arrival: Nanos, prompt: Prompt, max_tokens: Tokens) -> Self {
        Self {
            arrival,
            prompt,
            max_tokens,
            priority: 0,
            client: 0,
            slo: Slo::default(),
            deadline: None,
            sampling: SamplingParams::default(),
            stop: StopTokens::NONE,
            user_data: 0,
        }
    }
}

/// True output lengths, which only a simulation knows: for clairvoyant bounds alone.
pub trait Oracle: Send + Sync {
    /// How many tokens the request with this `user_data` will generate in all.
    fn output(&self, user_data: u64) -> Tokens;
    /// How many requests it knows; their `user_data` counts from zero.
    fn requests(&self) -> u64;
}

/// Why a request ended. Nothing submitted ends without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token came.
    Stop,
    /// `max_tokens`, or the model's own limit, was reached.
    Length,
    /// The client cancelled it.
    Cancelled,
    /// Its deadline passed.
    Deadline,
    /// It was refused after it had been accepted (the engine was shut down).
    Rejected,
    /// Its row failed in the executor.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sieve_misses_no_stop_token(ids in proptest::collection::vec(0_u32..200_000, 0..=4), other: u32) {
            let stop = StopTokens::new(&ids).unwrap();
            for id in &ids {
                prop_assert!(stop.contains(*id) && stop.sieve().holds(*id));
            }
            prop_assert!(!stop.contains(other) || stop.sieve().holds(other));
        }
    }

    #[test]
    fn a_token_that_nobody_knows_stops_nothing() {
        let stop = StopTokens::new(&[5]).unwrap();
        assert!(!stop.contains(u32::MAX) && !StopTokens::NONE.contains(u32::MAX));
        assert!((0..64).all(|token| !StopTokens::NONE.sieve().holds(token)));
    }

    #[test]
    fn ids_order_by_submission_and_carry_their_place() {
        let first = RequestId::new(1, 9);
        let second = RequestId::new(2, 3);
        assert!(first < second);
        assert_eq!((second.number(), second.index()), (2, 3));
        assert_eq!(second.to_string(), "#2");
    }

    #[test]
    fn spans_run_from_the_prompt_into_the_output() {
        let prompt = Prompt::Tokens([1, 2, 3].into());
        assert_eq!(prompt.span(&[9], 1..2), Some((&[2][..], &[][..])));
        assert_eq!(prompt.span(&[9], 2..4), Some((&[3][..], &[9][..])));
        assert_eq!(prompt.span(&[9], 2..5), None);
        assert_eq!(Prompt::Length(Tokens(3)).span(&[9], 0..1), None);
    }

    #[test]
    fn each_bad_sampling_parameter_is_named() {
        let name = |change: fn(&mut SamplingParams)| {
            let mut sampling = SamplingParams::default();
            change(&mut sampling);
            match sampling.check().unwrap_err() {
                SubmitError::BadSampling { field, .. } => field,
                other => panic!("{other}"),
            }
        };
        SamplingParams::default().check().unwrap();
        assert_eq!(name(|s| s.temperature = f32::NAN), "temperature");
        assert_eq!(name(|s| s.top_p = 1.5), "top_p");
        assert_eq!(name(|s| s.min_p = -0.1), "min_p");
        assert_eq!(name(|s| s.repetition_penalty = 0.0), "repetition_penalty");
        assert_eq!(name(|s| s.frequency_penalty = f32::INFINITY), "frequency_penalty");
        assert_eq!(name(|s| s.presence_penalty = -3.0), "presence_penalty");
    }

    #[test]
    fn records_without_newer_parameters_are_read_as_before() {
        let old =
            r#"{"temperature":0.5,"top_p":1.0,"top_k":0,"min_p":0.0,"repetition_penalty":1.0,"seed":3}"#;
        let read: SamplingParams = serde_json::from_str(old).unwrap();
        assert_eq!(read, SamplingParams { temperature: 0.5, seed: 3, ..SamplingParams::default() });
        assert!(!read.penalizes());
        assert!(SamplingParams { presence_penalty: 0.1, ..read }.penalizes());
    }

    #[test]
    fn stop_tokens_match_only_what_was_given() {
        let stop = StopTokens::new(&[2, 7]).unwrap();
        assert!(stop.contains(7) && stop.contains(2));
        assert!(!stop.contains(3) && !stop.contains(u32::MAX));
        assert!(StopTokens::new(&[0; 5]).is_none());
    }
}
