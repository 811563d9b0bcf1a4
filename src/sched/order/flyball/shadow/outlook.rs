//! What the latencies on a machine come to, those included who are not done: else a machine would look good that
//! lets some wait for ever, and in a surge first come, first served would look as good as before it.

use super::machine::{Job, PROBES, Rates};
use super::tail::Tail;

/// See the module.
#[derive(Debug)]
pub(super) struct Outlook {
    pub ttft: Tail,
    pub ttlt: Tail,
    /// Those of the waiting who are looked at.
    pub line: Vec<Job>,
    pub waiting: Waiting,
    /// Their ranks.
    order: Vec<u128>,
}

/// Who waits for a machine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub now: f64,
    pub rates: Rates,
    /// Whose prompt is being prefilled.
    pub head: Option<Job>,
    /// Machine time of all in the line, in ns.
    pub work: f64,
    /// How many each stands for who is looked at.
    pub others: f32,
}

impl Outlook {
    pub(super) fn new() -> Self {
        Self {
            ttft: Tail::new(),
            ttlt: Tail::new(),
            line: Vec::with_capacity(PROBES),
            waiting: Waiting::default(),
            order: Vec::with_capacity(PROBES),
        }
    }

    /// Foresees the latencies of those who wait, as if nobody came any more, each took his machine time in order,
    /// and the lane served to the end. Who is looked at counts for others, and with their work. O([`PROBES`] · log).
    pub(super) fn foresee(&mut self) {
        let Self { ttft, ttlt, line, waiting, order } = self;
        let Waiting { mut now, rates, head, work: all, others } = *waiting;
        order.clear();
        order.extend(line.iter().enumerate().map(|(place, job)| job.rank(place)));
        order.sort_unstable();
        let mut serve = |job: &Job, others: f32, work: f64| {
            let prefilled = now + rates.prefill * f64::from(job.missing);
            if job.generated == 0 {
                ttft.add(job.age(prefilled), others);
            }
            ttlt.add(job.age(prefilled + rates.step * f64::from(job.left())), others);
            now += work;
        };
        let work = |job: &Job| rates.work(u64::from(job.missing), u64::from(job.left()));
        head.iter().for_each(|job| serve(job, 1.0, work(job)));
        let in_order = || order.iter().map(|rank| &line[(*rank % PROBES as u128) as usize]);
        let whole = all / in_order().map(work).sum::<f64>();
        in_order().for_each(|job| serve(job, others, whole * work(job)));
    }
}
