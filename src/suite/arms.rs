//! Which policies are compared, and how much of the pool each leaves free at admission.

use super::SuiteError;
use crate::exec::sim::Script;
use crate::sched::order::{PolicyError, parse};
use std::sync::Arc;

/// The product's own policy: it keeps its own headroom in every table.
pub const OWN: &str = "flyball";

/// The arms of the public suite; the first is what others are compared with.
pub const PUBLIC: &[&str] =
    &["fcfs", "vllm", "sglang", "las", "sjf", "srpt", "trail", "mlfq", "uniboost", "flyball"];

/// The arms of a quick run.
pub const QUICK: &[&str] = &["fcfs", "las", "trail", "uniboost", "flyball"];

/// The share of the pool that every rival leaves free where all leave the same.
pub const EQUAL: &str = "0.02";

/// How much of the pool arms leave free at admission. One percent more is worth some 3 % of the mean and
/// half of P99 TPOT near capacity, so that a comparison must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headroom {
    /// Every rival [`EQUAL`], unless its spec names another.
    Equal,
    /// Each its own default.
    AsPublished,
}

impl Headroom {
    /// What tables say of it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Equal => "with equal headroom (rivals keep 2 % of the KV free at admission)",
            Self::AsPublished => "with each policy's own headroom",
        }
    }

    /// The spec of an arm as it is run.
    ///
    /// # Errors
    /// If there is no such policy.
    pub fn spec(self, arm: &str) -> Result<String, PolicyError> {
        check(arm)?;
        let own = arm.split(':').next() == Some(OWN);
        if self == Self::AsPublished || own || arm.contains("headroom=") {
            return Ok(arm.into());
        }
        let with = format!("{arm}:headroom={EQUAL}");
        Ok(if check(&with).is_ok() { with } else { arm.into() })
    }
}

fn check(spec: &str) -> Result<(), PolicyError> {
    let nobody = Arc::new(Script::new(std::iter::empty()));
    parse(spec, Some(nobody)).map(|_| ())
}

/// An arm: its name in tables and the spec that is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// As it was asked for.
    pub name: String,
    /// As it is run.
    pub spec: String,
}

/// The arms of these names.
///
/// # Errors
/// If there is no such policy.
pub fn arms<S: AsRef<str>>(names: &[S], headroom: Headroom) -> Result<Vec<Arm>, SuiteError> {
    let arm = |name: &S| {
        let name = name.as_ref();
        Ok(Arm { name: name.into(), spec: headroom.spec(name)? })
    };
    names.iter().map(arm).collect()
}

/// What arms are called.
pub fn names(arms: &[Arm]) -> Vec<&str> {
    arms.iter().map(|arm| arm.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_added_where_it_is_known_and_not_named() {
        let equal = |arm| Headroom::Equal.spec(arm).unwrap();
        assert_eq!(equal("fcfs"), "fcfs:headroom=0.02");
        assert_eq!(equal("fcfs:headroom=0.05"), "fcfs:headroom=0.05");
        assert_eq!(equal("vllm"), "vllm", "it knows no headroom");
        assert_eq!(Headroom::AsPublished.spec("fcfs").unwrap(), "fcfs");
        assert!(Headroom::Equal.spec("nobody").is_err());
    }
}
