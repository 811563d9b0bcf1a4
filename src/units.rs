//! Numbers that cross a function have a unit type; inside a function a plain integer is fine.
//!
//! All units are integers, so that anything compared or ordered is exact and a seed determines a
//! whole run on every machine.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty), $suffix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);
            /// The largest value that the unit holds.
            pub const MAX: Self = Self(<$inner>::MAX);

            /// The difference, or zero where it would be negative.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// The sum, or [`Self::MAX`] where it would overflow.
            pub const fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                self.0 -= other.0;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, Add::add)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $suffix), self.0)
            }
        }
    };
}

unit!(
    /// A time or a span of time on one monotonic clock, in nanoseconds since its zero.
    Nanos(u64), " ns"
);
unit!(
    /// A count of tokens.
    Tokens(u32), " tokens"
);
unit!(
    /// A count of KV blocks, each of `config.block_size` tokens.
    Blocks(u32), " blocks"
);
unit!(
    /// An amount of memory or traffic.
    Bytes(u64), " B"
);
unit!(
    /// Electrical power, the unit that NVML reports.
    Milliwatts(u32), " mW"
);
unit!(
    /// Electrical energy. A step on one board draws some joules, an idle gap far less than a millijoule.
    Microjoules(u64), " uJ"
);

/// A count as a float. Through a signed number, which one instruction converts: nothing that is counted here comes to
/// 2^63.
#[inline]
pub(crate) const fn float(count: u64) -> f64 {
    count as i64 as f64
}

impl Nanos {
    /// From seconds, rounded to the nearest nanosecond; negative and NaN become zero.
    pub fn from_secs_f64(secs: f64) -> Self {
        Self((secs * 1e9).round() as u64)
    }

    /// From milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// As a signed number, for ranks and differences; the largest one stands for all beyond it.
    pub const fn signed(self) -> i64 {
        if self.0 > i64::MAX as u64 { i64::MAX } else { self.0 as i64 }
    }

    /// In seconds, for people and for reports; never for anything compared.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 * 1e-9
    }
}

impl Tokens {
    /// The blocks that hold this many tokens when each holds `block_size`.
    pub const fn blocks(self, block_size: Tokens) -> Blocks {
        Blocks(self.0.div_ceil(block_size.0))
    }
}

impl Milliwatts {
    /// In watts, for reports.
    pub fn as_watts_f64(self) -> f64 {
        f64::from(self.0) * 1e-3
    }

    /// Energy drawn at this constant power for `span`, rounded down.
    pub fn over(self, span: Nanos) -> Microjoules {
        Microjoules((u128::from(self.0) * u128::from(span.0) / 1_000_000) as u64)
    }
}

impl Microjoules {
    /// In joules, for reports.
    pub fn as_joules_f64(self) -> f64 {
        float(self.0) * 1e-6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_up_to_whole_blocks() {
        let size = Tokens(16);
        assert_eq!(Tokens(0).blocks(size), Blocks(0));
        assert_eq!(Tokens(1).blocks(size), Blocks(1));
        assert_eq!(Tokens(16).blocks(size), Blocks(1));
        assert_eq!(Tokens(17).blocks(size), Blocks(2));
    }

    #[test]
    fn power_over_time_is_energy() {
        let energy = Milliwatts(700_000).over(Nanos::from_millis(10));
        assert_eq!(energy, Microjoules(7_000_000));
        assert!((energy.as_joules_f64() - 7.0).abs() < 1e-12);
    }

    #[test]
    fn seconds_round_trip_through_nanos() {
        assert_eq!(Nanos::from_secs_f64(1.5), Nanos(1_500_000_000));
        assert_eq!(Nanos::from_secs_f64(-1.0), Nanos::ZERO);
        assert_eq!(Nanos::from_secs_f64(f64::NAN), Nanos::ZERO);
    }
}
