//! Makes up a trace: lengths from a mix, times from an arrival process.

use super::arrivals::Arrivals;
use super::error::TraceError;
use super::mixes::Mix;
use super::{GRANULARITY, ROWS_MAX, Skipped, Trace, TraceRow, purpose};
use crate::prng::Prng;

/// A made-up trace. One seed gives the same trace everywhere; lengths do not depend on `arrivals`,
/// nor on how many requests follow.
///
/// # Errors
/// No requests, too many, or an arrival process that cannot be.
pub fn synth(mix: Mix, requests: usize, arrivals: Arrivals, seed: u64) -> Result<Trace, TraceError> {
    if !(1..=ROWS_MAX).contains(&requests) {
        return Err(TraceError::Request(format!("{requests} requests; a trace has 1 to {ROWS_MAX}")));
    }
    let seed = Prng::new(seed);
    let times = arrivals.draw(requests, &mut seed.split(purpose::ARRIVALS))?;
    let mut lengths = seed.split(purpose::LENGTHS);
    let rows = times.into_iter().map(|arrival| {
        let (prompt, output) = mix.draw(&mut lengths);
        TraceRow { arrival, prompt, output, client: 0, priority: 0, content: None }
    });
    Ok(Trace::new(mix.name().into(), rows.collect(), GRANULARITY, Skipped::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POISSON: Arrivals = Arrivals::Poisson { rate: 1.0 };

    #[test]
    fn one_seed_is_one_trace() {
        let trace = |seed| synth(Mix::Mix2, 500, POISSON, seed).unwrap();
        assert_eq!(trace(3), trace(3));
        assert_ne!(trace(3).digest, trace(4).digest);
        // Pinned: a change here changes every published figure.
        assert_eq!(format!("{:016x}", trace(3).digest), "f102e66f7c14f8f7");
    }

    #[test]
    fn lengths_do_not_depend_on_arrivals_or_on_what_follows() {
        let lengths = |requests, arrivals| {
            let trace = synth(Mix::Chat, requests, arrivals, 1).unwrap();
            trace.rows[..100].iter().map(|row| (row.prompt, row.output)).collect::<Vec<_>>()
        };
        assert_eq!(lengths(100, POISSON), lengths(900, Arrivals::on_off(9.0)));
    }

    #[test]
    fn impossible_wishes_are_refused() {
        assert!(synth(Mix::Mix1, 0, POISSON, 1).is_err());
        assert!(synth(Mix::Mix1, usize::MAX, POISSON, 1).is_err());
        assert!(synth(Mix::Mix1, 1, Arrivals::Poisson { rate: -1.0 }, 1).is_err());
    }
}
