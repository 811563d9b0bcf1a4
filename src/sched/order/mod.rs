//! The policies, one small file each. `parse` reads the names that the command line takes.

mod andes;
mod boost;
mod distboost;
mod edf;
mod fcfs;
mod flyball;
mod gamma;
mod las;
mod ltr;
mod mlfq;
mod oracle_boost;
mod oracle_srpt;
mod sglang;
mod sjf;
mod srpt;
mod trail;
mod uniboost;
mod vllm;
mod vtc;

#[cfg(test)]
mod tests;

pub use andes::Andes;
pub use distboost::DistBoost;
pub use edf::Edf;
pub use fcfs::Fcfs;
pub use flyball::Flyball;
pub use las::Las;
pub use ltr::Ltr;
pub use mlfq::Mlfq;
pub use oracle_boost::OracleBoost;
pub use oracle_srpt::OracleSrpt;
pub use sglang::Sglang;
pub use sjf::Sjf;
pub use srpt::Srpt;
pub use trail::Trail;
pub use uniboost::UniBoost;
pub use vllm::Vllm;
pub use vtc::Vtc;

use super::{Oracle, Policy};
use crate::ids::{GroupId, Places};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// The only group of the policies that need no more.
pub(crate) const ALL: GroupId = GroupId(0);

/// Places a job in the only group.
pub(crate) fn place_in_one(places: &mut Places, rank: i64) {
    places.push(ALL, rank);
}

/// The names that [`parse`] knows.
pub const NAMES: &[&str] = &[
    "flyball",
    "fcfs",
    "vllm",
    "sglang",
    "sjf",
    "srpt",
    "trail",
    "ltr",
    "mlfq",
    "las",
    "vtc",
    "edf",
    "andes",
    "oracle-boost",
    "oracle-srpt",
    "uniboost",
    "distboost",
];

/// Why a policy's name could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Nobody of this name.
    #[error("no policy {name:?}: known are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Who is there.
        known: String,
    },
    /// The policy has no such parameter, or not such a value.
    #[error("policy {policy}: {what}")]
    Parameter {
        /// The policy.
        policy: String,
        /// What is wrong.
        what: String,
    },
    /// The policy needs true lengths, which only a simulation has.
    #[error("policy {0} needs true output lengths: it runs in simulation only")]
    NeedsOracle(String),
}

/// Makes the policy that `spec` names: `name` or `name:key=value:key=value`.
///
/// # Errors
/// If the name or a parameter is unknown, or the policy needs an oracle and there is none.
pub fn parse(spec: &str, oracle: Option<Arc<dyn Oracle>>) -> Result<Box<dyn Policy>, PolicyError> {
    let mut params = Params::new(spec)?;
    let name = params.policy.clone();
    let oracle = || oracle.clone().ok_or_else(|| PolicyError::NeedsOracle(name.clone()));
    let policy: Box<dyn Policy> = match name.as_str() {
        "flyball" => Box::new(Flyball::new(&mut params)?),
        "fcfs" => Box::new(Fcfs::new(&mut params)?),
        "vllm" => Box::new(Vllm::new(&mut params)?),
        "sglang" => Box::new(Sglang::new(&mut params)?),
        "sjf" => Box::new(Sjf::new(&mut params, oracle()?)?),
        "srpt" => Box::new(Srpt::new(&mut params, oracle()?)?),
        "trail" => Box::new(Trail::new(&mut params, oracle()?)?),
        "ltr" => Box::new(Ltr::new(&mut params, oracle()?)?),
        "mlfq" => Box::new(Mlfq::new(&mut params)?),
        "las" => Box::new(Las::new(&mut params)?),
        "vtc" => Box::new(Vtc::new(&mut params)?),
        "edf" => Box::new(Edf::new(&mut params)?),
        "andes" => Box::new(Andes::new(&mut params)?),
        "oracle-boost" => Box::new(OracleBoost::new(&mut params, oracle()?)?),
        "oracle-srpt" => Box::new(OracleSrpt::new(&mut params, oracle()?)?),
        "uniboost" => Box::new(UniBoost::new(&mut params)?),
        "distboost" => Box::new(DistBoost::new(&mut params)?),
        _ => return Err(PolicyError::Unknown { name: name.clone(), known: NAMES.join(", ") }),
    };
    params.finish().map(|()| policy)
}

/// The parameters of one policy, taken one by one; what is left over is an error.
pub(crate) struct Params {
    policy: String,
    spec: String,
    values: BTreeMap<String, String>,
}

impl Params {
    fn new(spec: &str) -> Result<Self, PolicyError> {
        let mut parts = spec.split(':');
        let policy = parts.next().unwrap_or_default().to_owned();
        let mut values = BTreeMap::new();
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| PolicyError::Parameter {
                policy: policy.clone(),
                what: format!("{part:?} is not key=value"),
            })?;
            values.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self { policy, spec: spec.to_owned(), values })
    }

    /// The whole spec: the policy's name in reports.
    pub(crate) fn spec(&self) -> String {
        self.spec.clone()
    }

    /// A number between bounds, or its default.
    pub(crate) fn number(
        &mut self,
        key: &str,
        default: f64,
        low: f64,
        high: f64,
    ) -> Result<f64, PolicyError> {
        let Some(text) = self.values.remove(key) else { return Ok(default) };
        let number = text.parse::<f64>().ok().filter(|v| (low..=high).contains(v));
        number.ok_or_else(|| PolicyError::Parameter {
            policy: self.policy.clone(),
            what: format!("{key}={text} must be a number in {low}..={high}"),
        })
    }

    /// The place of a word among those that are allowed, the first of which is the default.
    pub(crate) fn choice(&mut self, key: &str, allowed: &[&str]) -> Result<usize, PolicyError> {
        let Some(word) = self.values.remove(key) else { return Ok(0) };
        let place = allowed.iter().position(|known| *known == word);
        place.ok_or_else(|| self.error(format!("{key}={word} must be one of {}", allowed.join(", "))))
    }

    /// An error of this policy's parameters.
    pub(crate) fn error(&self, what: impl Into<String>) -> PolicyError {
        PolicyError::Parameter { policy: self.policy.clone(), what: what.into() }
    }

    fn finish(self) -> Result<(), PolicyError> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(key) => {
                Err(PolicyError::Parameter { policy: self.policy, what: format!("no parameter {key:?}") })
            }
        }
    }
}
