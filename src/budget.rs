//! What the governor allows the next step: a plain value, the only thing that a policy sees of power.

use crate::units::Milliwatts;
use serde::{Deserialize, Serialize};

/// The power that may be drawn from now on. Without a cap everything is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerBudget {
    /// Mean power that the step and the pause before it may draw, over all boards.
    pub cap: Option<Milliwatts>,
}
