//! The only place that knows what time is. Everything else takes the time as an argument.

use crate::units::Nanos;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One monotonic clock. Readings never decrease.
pub trait Clock: Send {
    /// The time now, since the clock's own zero.
    fn now(&self) -> Nanos;
}

/// The machine's monotonic clock; zero is the moment of its making.
#[derive(Clone, Debug)]
pub struct MonotonicClock {
    zero: Instant,
}

impl MonotonicClock {
    /// A clock that starts at zero now.
    pub fn new() -> Self {
        Self { zero: Instant::now() }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Nanos {
        Nanos(self.zero.elapsed().as_nanos() as u64)
    }
}

/// Waits for `span` of real time.
pub fn sleep(span: Nanos) {
    std::thread::sleep(Duration::from_nanos(span.0));
}

/// A clock that only moves when it is told to; clones share one time.
///
/// The simulated executor moves it to the end of a step, the simulator's driver to the next arrival.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    now: Arc<AtomicU64>,
}

impl VirtualClock {
    /// A clock that stands at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves forward to `time`; a time in the past changes nothing. All threads may read a clock, one may move it.
    pub fn advance_to(&self, time: Nanos) {
        // Nobody else moves it, so this need not be one atomic act, with a locked instruction in every step.
        if self.now() < time {
            self.now.store(time.0, Ordering::Relaxed);
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Nanos {
        Nanos(self.now.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_clock_never_goes_back_and_clones_share_it() {
        let clock = VirtualClock::new();
        let other = clock.clone();
        clock.advance_to(Nanos(5));
        other.advance_to(Nanos(3));
        assert_eq!(other.now(), Nanos(5));
    }

    #[test]
    fn monotonic_clock_does_not_decrease() {
        let clock = MonotonicClock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}
