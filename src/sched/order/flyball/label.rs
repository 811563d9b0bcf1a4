//! The boost: how much earlier a job counts as having arrived, by what its prompt tells of its size.

use super::classes::{CLASSES, class};
use super::traffic::Traffic;
use crate::sched::Job;

/// Bounds of γ, per second.
const GAMMA: (f64, f64) = (1e-5, 1e3);

/// A change of γ below this share leaves the ranks as they are.
const WORTH_IT: f64 = 0.1;

/// γ-Boost with the class and the length of the prompt as the only label: (1/γ) ln(E / (E − 1)) with
/// E = E[e^(γS) | label] = E[e^(γ·u·output) | class] · e^(γ·α·prompt), where u and α are machine time per
/// output and prompt token. Yu and Scully, arXiv 2404.08826, on partial information.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boost {
    /// Per ns; zero for none at all.
    gamma: f64,
    moments: [f64; CLASSES],
}

impl Boost {
    /// Order by arrival.
    pub(super) const NONE: Self = Self { gamma: 0.0, moments: [1.0; CLASSES] };

    /// The boost with `gamma`, per ns, for this traffic; none at all with zero.
    pub(super) fn fit(gamma: f64, traffic: &Traffic) -> Self {
        if gamma == 0.0 {
            return Self::NONE;
        }
        let gamma = bounded(gamma);
        Self { gamma, moments: traffic.classes.moments(gamma * traffic.decode_ns) }
    }

    /// Whether `gamma`, per ns, is far enough from the one in force that ranking everybody anew pays.
    pub(super) fn differs(&self, gamma: f64) -> bool {
        (bounded(gamma) - self.gamma).abs() > WORTH_IT * self.gamma
    }

    /// The boost of a job, in ns. It does not depend on what was generated, so nobody loses his place by
    /// being served.
    pub(super) fn of(&self, job: &Job, prefill_ns: f64) -> i64 {
        if self.gamma == 0.0 {
            return 0;
        }
        let work = prefill_ns * f64::from((job.prompt - job.cached).0);
        let inverse = (-self.gamma * work).exp() / self.moments[class(job.prompt.0)];
        (-(-inverse.min(1.0 - 1e-9)).ln_1p() / self.gamma) as i64
    }
}

/// γ within its bounds; zero, which is no boost, stays zero.
fn bounded(gamma: f64) -> f64 {
    if gamma == 0.0 { 0.0 } else { gamma.clamp(GAMMA.0 * 1e-9, GAMMA.1 * 1e-9) }
}
