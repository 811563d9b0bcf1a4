//! Errors are values, one variant per thing that a caller can do something about.

use crate::units::{Blocks, Tokens};
use thiserror::Error;

/// A limit in a [`crate::config::Config`] that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A value outside its bounds, some of which are other fields.
    #[error("{field} is {value}, but must be in {low}..={high}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        low: u64,
        /// The most it may be.
        high: u64,
    },
    /// A value that must be a power of two.
    #[error("{field} is {value}, but must be a power of two")]
    NotPowerOfTwo {
        /// The field.
        field: &'static str,
        /// What it is.
        value: u64,
    },
}

/// Why a request was not accepted. The engine is unchanged.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SubmitError {
    /// The waiting queue is at `config.waiting_max`; try again after a step.
    #[error("the waiting queue is full ({limit} requests); try again after a step")]
    QueueFull {
        /// `config.waiting_max`.
        limit: u32,
    },
    /// Content of live requests is at `config.content_tokens_max`; try again when some have ended.
    #[error("{needed} more content tokens exceed the limit; {free} are free now")]
    ContentFull {
        /// What the request may come to hold.
        needed: u64,
        /// What is left.
        free: u64,
    },
    /// The request exceeds the pool or the model; trying again cannot help.
    #[error("{prompt} of prompt and {max_tokens} of output can never fit: {limit} at most")]
    NeverFits {
        /// Its prompt.
        prompt: Tokens,
        /// Its limit of new tokens.
        max_tokens: Tokens,
        /// The most tokens of one sequence here.
        limit: Tokens,
    },
    /// The prompt is empty, or `max_tokens` is zero.
    #[error("a request needs at least one prompt token and one output token")]
    Empty,
    /// The content ids do not cover the prompt: `ceil(length / granularity)` are needed, with a
    /// granularity that is a multiple of the block size.
    #[error("{ids} content ids of {granularity} each do not describe a prompt of {prompt}")]
    BadContent {
        /// How many ids came.
        ids: usize,
        /// What each stands for.
        granularity: Tokens,
        /// The prompt's length.
        prompt: Tokens,
    },
    /// A sampling parameter outside its bounds.
    #[error("{field} is {value}, but must be in {low}..={high}")]
    BadSampling {
        /// The parameter.
        field: &'static str,
        /// What it is.
        value: f32,
        /// The least it may be.
        low: f32,
        /// The most it may be.
        high: f32,
    },
    /// The engine has failed and accepts nothing more.
    #[error("the engine has failed: {0}")]
    Poisoned(String),
}

/// Too few blocks are free; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{needed} needed, {free} free")]
pub struct KvFull {
    /// What was asked for.
    pub needed: Blocks,
    /// What is there.
    pub free: Blocks,
}

/// What an executor cannot do. The engine stops; its requests end as failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExecError {
    /// The device is gone or in an error that only a new context cures.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The plan exceeds what the executor said that it can do.
    #[error("the plan exceeds the executor's limits: {0}")]
    Unsupported(String),
    /// A record ran out, or does not belong to this run.
    #[error("the record does not fit this run: {0}")]
    Record(String),
}

/// Why a step could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StepError {
    /// The executor failed. The engine is poisoned.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The policy broke its contract: a defect, with the rule that it broke. The engine is poisoned.
    #[error("policy {policy} made an unsound decision at step {step}: {rule}")]
    Unsound {
        /// The policy.
        policy: String,
        /// The step.
        step: u64,
        /// What does not hold.
        rule: String,
    },
    /// An earlier step failed.
    #[error("the engine has failed: {0}")]
    Poisoned(String),
}

/// Why a profile could not be read.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// No embedded profile has this name, and no file either.
    #[error("no profile {name:?}: known are {known}, or the path of a profile's JSON file")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The embedded ones.
        known: String,
    },
    /// The file cannot be read.
    #[error("profile {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The JSON does not fit the schema.
    #[error("profile {name}: {source}")]
    Json {
        /// The profile.
        name: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A number that cannot be.
    #[error("profile {name}: {what}")]
    Bad {
        /// The profile.
        name: String,
        /// Which number.
        what: String,
    },
}
