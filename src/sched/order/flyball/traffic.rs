//! What the traffic is like: running means of recent requests, and how their outputs are distributed in
//! each class of prompt lengths. All that the policy knows of output lengths, it has from requests that
//! have finished.

use crate::cost::BatchShape;
use crate::sched::Job;
use crate::sched::order::boost::TailSlope;
use crate::units::Nanos;

/// Classes of prompt lengths: the number of bits of ⌊prompt / 64⌋, the last one open.
pub(super) const CLASSES: usize = 8;
/// Row of the counts that sums all classes.
const ALL: usize = CLASSES;
/// Bins of output lengths per doubling.
const PER_OCTAVE: f64 = 8.0;
/// Bins: 20 doublings, a million tokens.
const BINS: usize = 160;
/// Finished requests that the counts hold.
const WINDOW: usize = 2_000;
/// Finished requests below which a class is not told from the others, and no request from another.
const ENOUGH: u32 = 100;
/// Outputs of a class that are kept to draw from.
const SAMPLES: usize = 256;
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
    /// Mean output of finished requests, in tokens.
    output: f64,
    /// Mean prompt of finished requests, in tokens.
    prompt: f64,
    /// Mean of min(output, first quantum), in tokens.
    quantum: f64,
    finished: u64,
    /// Time of a step that decodes, in ns.
    pub step_ns: f64,
    /// (class, bin) of the last finished requests; a ring.
    recent: Vec<(u8, u8)>,
    next: usize,
    counts: Box<[[u16; BINS]; CLASSES + 1]>,
    totals: [u32; CLASSES + 1],
    latencies: TailSlope,
    /// Outputs of each class and of all, to draw from.
    samples: [Samples; CLASSES + 1],
}

/// The last outputs of a class, dealt out one after the other.
#[derive(Debug)]
struct Samples {
    outputs: [u32; SAMPLES],
    len: usize,
    next: usize,
    drawn: usize,
}

impl Default for Samples {
    fn default() -> Self {
        Self { outputs: [0; SAMPLES], len: 0, next: 0, drawn: 0 }
    }
}

impl Samples {
    fn push(&mut self, output: u32) {
        self.outputs[self.next] = output;
        self.next = (self.next + 1) % SAMPLES;
        self.len = (self.len + 1).min(SAMPLES);
    }

    fn draw(&mut self) -> Option<u32> {
        let at = self.drawn.checked_rem(self.len)?;
        self.drawn = self.drawn.wrapping_add(1);
        Some(self.outputs[at])
    }
}

impl Traffic {
    /// Statistics before any request has finished: those of a chat of middling length.
    pub(super) fn new() -> Self {
        Self {
            prefill_ns: 0.0,
            decode_ns: 0.0,
            output: 512.0,
            prompt: 512.0,
            quantum: 256.0,
            finished: 0,
            step_ns: 0.0,
            samples: Default::default(),
            recent: Vec::with_capacity(WINDOW),
            next: 0,
            counts: Box::new([[0; BINS]; CLASSES + 1]),
            totals: [0; CLASSES + 1],
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
        let output = f64::from(job.generated.0);
        let (mean, first) = (weight(MEAN_WEIGHT), weight(QUANTUM_WEIGHT));
        self.output += mean * (output - self.output);
        self.prompt += mean * (f64::from(job.prompt.0) - self.prompt);
        self.quantum += first * (output.min(f64::from(quantum)) - self.quantum);
        self.latencies.push(latency.as_secs_f64());
        let class = class(job.prompt.0);
        self.samples[class].push(job.generated.0);
        self.samples[ALL].push(job.generated.0);
        self.count((class as u8, bin(job.generated.0)));
    }

    /// An output length of the class, or of all if none of it has finished; `None` before any has.
    pub(super) fn draw(&mut self, class: usize) -> Option<u32> {
        self.samples[class].draw().or_else(|| self.samples[ALL].draw())
    }

    fn count(&mut self, entry: (u8, u8)) {
        if self.recent.len() < WINDOW {
            self.recent.push(entry);
        } else {
            let oldest = std::mem::replace(&mut self.recent[self.next], entry);
            self.next = (self.next + 1) % WINDOW;
            self.add(oldest, false);
        }
        self.add(entry, true);
    }

    fn add(&mut self, (class, bin): (u8, u8), more: bool) {
        for row in [usize::from(class), ALL] {
            let (count, total) = (&mut self.counts[row][usize::from(bin)], &mut self.totals[row]);
            (*count, *total) = if more { (*count + 1, *total + 1) } else { (*count - 1, *total - 1) };
        }
    }

    /// How many requests have finished.
    pub(super) fn count_finished(&self) -> u64 {
        self.finished
    }

    /// Whether enough requests have finished to tell one class from another.
    pub(super) fn is_known(&self) -> bool {
        self.totals[ALL] >= ENOUGH
    }

    /// Machine time of a mean job, in ns.
    pub(super) fn mean_job_ns(&self) -> f64 {
        self.output * self.decode_ns + self.prompt * self.prefill_ns
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

    /// γ of Eq. 9 of arXiv 2606.18431, per second.
    pub(super) fn tail_gamma(&mut self) -> f64 {
        self.latencies.gamma()
    }

    /// E[e^(γ·u·output)] of each class, with γ per ns; that of all where a class has too few.
    pub(super) fn moments(&self, gamma_per_ns: f64) -> [f64; CLASSES] {
        let rate = gamma_per_ns * self.decode_ns;
        let mut sums = [0.0; CLASSES + 1];
        for bin in (0..BINS).filter(|bin| self.counts[ALL][*bin] > 0) {
            let value = (rate * middle(bin)).exp();
            for (sum, counts) in sums.iter_mut().zip(self.counts.iter()) {
                *sum += f64::from(counts[bin]) * value;
            }
        }
        std::array::from_fn(|class| {
            let row = if self.totals[class] < ENOUGH { ALL } else { class };
            sums[row] / f64::from(self.totals[row].max(1))
        })
    }
}

/// The class of a prompt length.
pub(super) fn class(prompt: u32) -> usize {
    ((prompt / 64).checked_ilog2().map_or(0, |log| log + 1) as usize).min(CLASSES - 1)
}

fn bin(output: u32) -> u8 {
    ((f64::from(output.max(1)).log2() * PER_OCTAVE) as usize).min(BINS - 1) as u8
}

/// The geometric middle of a bin, in tokens.
fn middle(bin: usize) -> f64 {
    ((bin as f64 + 0.5) / PER_OCTAVE).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_double_and_the_last_is_open() {
        let classes: Vec<_> = [0, 63, 64, 127, 128, 4095, 4096, 1 << 20].map(class).into();
        assert_eq!(classes, [0, 0, 1, 1, 2, 6, 7, 7]);
    }

    #[test]
    fn a_bin_knows_its_length_to_five_per_cent() {
        for output in [1, 10, 255, 256, 9_000, 25_000] {
            let middle = middle(usize::from(bin(output)));
            assert!((middle / f64::from(output)).ln().abs() < 0.05, "{output}: {middle}");
        }
    }

    #[test]
    fn the_window_forgets_and_moments_follow() {
        let mut traffic = Traffic::new();
        traffic.decode_ns = 1.0;
        (0..WINDOW).for_each(|_| traffic.count((0, bin(1_000))));
        let before = traffic.moments(1e-3)[0];
        assert!((before / 1f64.exp()).ln().abs() < 0.05, "{before}");
        (0..WINDOW).for_each(|_| traffic.count((1, bin(100))));
        assert_eq!(traffic.totals, [0, 2_000, 0, 0, 0, 0, 0, 0, 2_000]);
        let after = traffic.moments(1e-3);
        assert!((after[0] / 0.1f64.exp()).ln().abs() < 0.01, "the class is empty: all count");
    }
}
