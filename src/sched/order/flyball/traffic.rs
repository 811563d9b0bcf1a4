//! What the traffic is like: running means of recent requests and steps, in tokens and in machine time.

use super::classes::Classes;
use crate::cost::BatchShape;
use crate::sched::Job;
use crate::sched::order::boost::TailSlope;
use crate::units::Nanos;

/// Latencies that the tail slope looks at.
const LATENCIES: usize = 1_000;
/// The slowest that the running means forget, as a weight of the newest.
const MEAN_WEIGHT: f64 = 1.0 / 500.0;
/// The same for the first quantum.
const QUANTUM_WEIGHT: f64 = 1.0 / 200.0;
/// The same for the times of steps and of decoded tokens.
const STEP_WEIGHT: f64 = 1.0 / 128.0;

/// Statistics of recent traffic. Updates are O(1); memory is taken at the start.
#[derive(Debug)]
pub(super) struct Traffic {
    /// Machine time per prefill token beyond the knee, in ns.
    pub prefill_ns: f64,
    /// Machine time per decoded token at saturation, in ns: a step's time over its decodes.
    pub decode_ns: f64,
    /// Outputs by class of prompt.
    pub classes: Classes,
    /// Mean output of finished requests, in tokens.
    output: f64,
    /// Mean prompt of finished requests, in tokens.
    prompt: f64,
    /// Mean of min(output, first quantum), in tokens.
    quantum: f64,
    /// Prompt tokens of finished requests that were not cached.
    missing: Moments,
    /// Machine time of finished requests, in ns.
    work: Moments,
    finished: u64,
    /// Time of a step that decodes, in ns.
    pub step_ns: f64,
    latencies: TailSlope,
}

/// Running means of a value and of its square.
#[derive(Debug, Default)]
struct Moments {
    mean: f64,
    square: f64,
}

impl Moments {
    fn add(&mut self, value: f64, weight: f64) {
        self.mean += weight * (value - self.mean);
        self.square += weight * (value * value - self.square);
    }

    fn variance(&self) -> f64 {
        (self.square - self.mean * self.mean).max(0.0)
    }
}

impl Traffic {
    /// Statistics before any request has finished: those of a chat of middling length.
    pub(super) fn new() -> Self {
        Self {
            prefill_ns: 0.0,
            decode_ns: 0.0,
            classes: Classes::new(),
            output: 512.0,
            prompt: 512.0,
            quantum: 256.0,
            missing: Moments::default(),
            work: Moments::default(),
            finished: 0,
            step_ns: 0.0,
            latencies: TailSlope::new(LATENCIES),
        }
    }

    /// What the cost model says: ns per prefill token, and the time of a step of `decodes`.
    pub(super) fn prime(&mut self, prefill_ns: f64, step: Nanos, decodes: u32) {
        self.prefill_ns = prefill_ns;
        self.step_ns = step.0 as f64;
        self.decode_ns = self.step_ns / f64::from(decodes);
    }

    /// A step of `shape` took `span`, while somebody waited or not.
    pub(super) fn timed(&mut self, shape: &BatchShape, span: Nanos, waiting: bool) {
        let (span, decodes) = (span.0 as f64, f64::from(shape.decodes));
        if shape.decodes > 0 {
            self.step_ns += STEP_WEIGHT * (span - self.step_ns);
        }
        if waiting && shape.decodes > 0 && shape.chunk_tokens == 0 {
            self.decode_ns += STEP_WEIGHT * (span / decodes - self.decode_ns);
        }
    }

    /// A request was served to its end, `latency` after its arrival.
    pub(super) fn finished(&mut self, job: &Job, quantum: u32, latency: Nanos) {
        self.finished += 1;
        let weight = |slowest: f64| slowest.max(1.0 / self.finished as f64);
        let (mean, first) = (weight(MEAN_WEIGHT), weight(QUANTUM_WEIGHT));
        let (output, prompt) = (f64::from(job.generated.0), f64::from(job.prompt.0));
        self.output += mean * (output - self.output);
        self.prompt += mean * (prompt - self.prompt);
        self.quantum += first * (output.min(f64::from(quantum)) - self.quantum);
        self.missing.add(f64::from((job.prompt - job.cached).0), mean);
        self.work.add(output * self.decode_ns + prompt * self.prefill_ns, mean);
        self.latencies.push(latency.as_secs_f64());
        self.classes.finished(job.prompt.0, job.generated.0);
    }

    /// How many requests have finished.
    pub(super) fn count_finished(&self) -> u64 {
        self.finished
    }

    /// Machine time of a mean job, in ns.
    pub(super) fn mean_job_ns(&self) -> f64 {
        self.output * self.decode_ns + self.prompt * self.prefill_ns
    }

    /// Machine time beside which a newcomer may be called small, in ns: a mean job, or, where sizes differ so
    /// much that hardly anybody is like the mean, half of what is left in the mean of the job in service,
    /// E[S²] / 2E[S].
    pub(super) fn large_job_ns(&self) -> f64 {
        let mean = self.mean_job_ns();
        if self.classes.is_known() { mean.max(self.work.square / (4.0 * mean)) } else { mean }
    }

    /// Time from first to last token of a mean job that nothing delays, in ns.
    pub(super) fn mean_span_ns(&self) -> f64 {
        self.output * self.step_ns
    }

    /// Mean output of finished requests, in tokens.
    pub(super) fn mean_output(&self) -> f64 {
        self.output
    }

    /// Mean of prompt and output together of finished requests, in tokens.
    pub(super) fn mean_tokens(&self) -> f64 {
        self.prompt + self.output
    }

    /// Machine time that a newcomer with `missing` tokens to prefill takes until its first quantum is
    /// over, in ns.
    pub(super) fn newcomer_ns(&self, missing: u32) -> f64 {
        f64::from(missing) * self.prefill_ns + self.quantum * self.decode_ns
    }

    /// The share of the variance of machine time that prompts explain, by their own work and by their class;
    /// above 1 where the running means lag behind.
    pub(super) fn explained(&self) -> f64 {
        let prompts = self.prefill_ns.powi(2) * self.missing.variance();
        let outputs = self.decode_ns.powi(2) * self.classes.between();
        (prompts + outputs) / self.work.variance().max(1.0)
    }

    /// γ of Eq. 9 of arXiv 2606.18431, per second; `None` where the tail's percentiles are not even a step apart, which
    /// tells nothing of its slope.
    pub(super) fn tail_gamma(&mut self) -> Option<f64> {
        (self.latencies.spread() * 1e9 >= self.step_ns).then(|| self.latencies.gamma())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::order::gamma::tests::job;

    /// After jobs of these prompts and outputs, on a machine where every token takes a microsecond.
    fn after(jobs: impl Iterator<Item = (u32, u32)>) -> Traffic {
        let mut traffic = Traffic::new();
        traffic.prime(1e3, Nanos(1_000), 1);
        for (prompt, output) in jobs {
            traffic.finished(&job(prompt, output), 256, Nanos(1));
        }
        traffic.classes.weigh();
        traffic
    }

    #[test]
    fn a_few_giants_make_more_of_a_newcomer_small() {
        let alike = after((0..2_000).map(|i| (10, 400 + i % 200)));
        assert_eq!(alike.large_job_ns(), alike.mean_job_ns());
        let giants = after((0..2_000).map(|i| (10, if i % 20 == 0 { 10_000 } else { 100 })));
        assert!(giants.large_job_ns() > 3.0 * giants.mean_job_ns(), "one in twenty is most of the work");
    }

    #[test]
    fn prompts_explain_what_depends_on_them() {
        let alone = after((0..2_000).map(|i| (100 + i % 50, 1_000 + 7 * (i * 37 % 1_000))));
        assert!(alone.explained() < 1e-3, "{}", alone.explained());
        let prompts = after((0..2_000).map(|i| (10 + 20 * (i * 37 % 1_000), 100)));
        assert!((prompts.explained() - 1.0).abs() < 0.01, "{}", prompts.explained());
        let classes = after((0..2_000).map(|i| if i % 2 == 0 { (60, 100) } else { (70, 900) }));
        assert!((classes.explained() - 1.0).abs() < 0.1, "{}", classes.explained());
    }
}
