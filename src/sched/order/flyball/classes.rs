//! How long outputs are in each class of prompt lengths, and how far that tells one prompt from another.
//! All that the policy knows of output lengths, it has from requests that have finished.

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
/// Finished requests below which nothing is concluded from them.
const ENOUGH: u32 = 100;
/// Outputs of a class that are kept to draw from.
const SAMPLES: usize = 256;
/// A class counts for nothing unless its mean is two standard errors from that of all: the square of it.
const DOUBT: f64 = 4.0;

/// See the module. Updates are O(1); memory is taken at the start.
#[derive(Debug)]
pub(super) struct Classes {
    /// (class, bin) of the last finished requests; a ring.
    recent: Vec<(u8, u8)>,
    next: usize,
    /// Of each bin, by class and of all.
    counts: Box<[[u16; CLASSES + 1]; BINS]>,
    /// The middles of the bins, in tokens.
    middles: Box<[f64; BINS]>,
    totals: [u32; CLASSES + 1],
    /// Outputs of each class and of all, to draw from.
    samples: [Samples; CLASSES + 1],
    /// How far each class is told from all, 0 to 1: what is left of its difference when chance is taken off.
    weights: [f64; CLASSES],
    /// Draws that each class is owed.
    owed: [f64; CLASSES],
    /// Variance between the classes' means, as far as they are told apart, in tokens².
    between: f64,
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

impl Classes {
    pub(super) fn new() -> Self {
        Self {
            recent: Vec::with_capacity(WINDOW),
            next: 0,
            counts: Box::new([[0; CLASSES + 1]; BINS]),
            middles: Box::new(std::array::from_fn(middle)),
            totals: [0; CLASSES + 1],
            samples: Default::default(),
            weights: [0.0; CLASSES],
            owed: [0.0; CLASSES],
            between: 0.0,
        }
    }

    /// A request of `prompt` tokens has finished with `output` tokens.
    pub(super) fn finished(&mut self, prompt: u32, output: u32) {
        let class = class(prompt);
        self.samples[class].push(output);
        self.samples[ALL].push(output);
        self.count((class as u8, bin(output)));
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
            let (count, total) = (&mut self.counts[usize::from(bin)][row], &mut self.totals[row]);
            (*count, *total) = if more { (*count + 1, *total + 1) } else { (*count - 1, *total - 1) };
        }
    }

    /// Whether enough requests have finished to conclude anything.
    pub(super) fn is_known(&self) -> bool {
        self.totals[ALL] >= ENOUGH
    }

    /// An output length for a prompt: of its class as often as the class is told from all, else of all;
    /// `None` before any request has finished.
    pub(super) fn draw(&mut self, prompt: u32) -> Option<u32> {
        let class = class(prompt);
        self.owed[class] += self.weights[class];
        if self.owed[class] < 1.0 {
            return self.samples[ALL].draw();
        }
        self.owed[class] -= 1.0;
        self.samples[class].draw()
    }

    /// Tells the classes apart anew: the difference d of a class's mean from that of all counts for
    /// max(0, 1 − 4 e² / d²) of itself, where e is its standard error. Positive-part shrinkage after James
    /// and Stein (1961), with twice the doubt.
    pub(super) fn weigh(&mut self) {
        let sums = self.sums(|tokens| tokens);
        let squares: f64 =
            self.filled().map(|(tokens, counts)| f64::from(counts[ALL]) * (tokens * tokens)).sum();
        let total = f64::from(self.totals[ALL].max(1));
        let mean = sums[ALL] / total;
        // All in one bin: the difference may round below zero.
        let variance = (squares / total - mean * mean).max(0.0);
        self.between = 0.0;
        for (class, weight) in self.weights.iter_mut().enumerate() {
            let count = f64::from(self.totals[class]);
            let difference = if count > 0.0 { sums[class] / count - mean } else { 0.0 };
            let squared = difference * difference;
            let chance = DOUBT * variance / count.max(1.0);
            *weight = if squared > chance { 1.0 - chance / squared } else { 0.0 };
            self.between += count / total * weight.powi(2) * squared;
        }
    }

    /// Variance of the outputs that the classes explain, in tokens².
    pub(super) fn between(&self) -> f64 {
        self.between
    }

    /// E[e^(rate·output)] of each class, as far as it is told from all.
    pub(super) fn moments(&self, rate: f64) -> [f64; CLASSES] {
        let sums = self.sums(|tokens| (rate * tokens).exp());
        let mean = |row: usize| sums[row] / f64::from(self.totals[row].max(1));
        let all = mean(ALL);
        std::array::from_fn(|class| all + self.weights[class] * (mean(class) - all))
    }

    /// The sum of `value` over the outputs of each class and of all.
    fn sums(&self, value: impl Fn(f64) -> f64) -> [f64; CLASSES + 1] {
        let mut sums = [0.0; CLASSES + 1];
        for (tokens, counts) in self.filled() {
            let value = value(tokens);
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += f64::from(*count) * value;
            }
        }
        sums
    }

    /// The bins that hold anything: their middles and their counts.
    fn filled(&self) -> impl Iterator<Item = (f64, &[u16; CLASSES + 1])> {
        self.middles.iter().copied().zip(self.counts.iter()).filter(|(_, counts)| counts[ALL] > 0)
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

    /// Outputs of 100 and 1,000 tokens, one after the other; in the second class as `second` says.
    fn seen(second: impl Fn(u32) -> u32) -> Classes {
        let mut classes = Classes::new();
        for i in 0..500 {
            classes.finished(0, if i % 2 == 0 { 100 } else { 1_000 });
            classes.finished(64, second(i));
        }
        classes.weigh();
        classes
    }

    #[test]
    fn what_chance_explains_tells_no_class_from_another() {
        // 270 of 500 instead of 250: less than two standard errors.
        let mut classes = seen(|i| if i % 50 < 27 { 100 } else { 1_000 });
        assert_eq!((classes.weights, classes.between()), ([0.0; CLASSES], 0.0));
        let moments = classes.moments(1e-3);
        assert!(moments.iter().all(|moment| *moment == moments[0]), "one for all: {moments:?}");
        let long = (0..100).filter(|_| classes.draw(64) == Some(1_000)).count();
        assert!((40..=60).contains(&long), "drawn from all: {long}");
    }

    #[test]
    fn classes_that_differ_keep_nearly_all_of_their_difference() {
        let mut classes = seen(|_| 100);
        assert!(classes.weights[..2].iter().all(|weight| *weight > 0.9), "{:?}", classes.weights);
        // Means of 550 and 100 tokens: 225 from their middle.
        assert!((classes.between().sqrt() / 225.0 - 1.0).abs() < 0.15, "{}", classes.between());
        let long = (0..100).filter(|_| classes.draw(64) == Some(1_000)).count();
        assert!(long < 10, "drawn from the class: {long}");
    }

    #[test]
    fn the_window_forgets_and_moments_follow() {
        let mut classes = Classes::new();
        (0..WINDOW).for_each(|_| classes.count((0, bin(1_000))));
        let before = classes.moments(1e-3)[0];
        assert!((before / 1f64.exp()).ln().abs() < 0.05, "{before}");
        (0..WINDOW).for_each(|_| classes.count((1, bin(100))));
        assert_eq!(classes.totals, [0, 2_000, 0, 0, 0, 0, 0, 0, 2_000]);
        let after = classes.moments(1e-3);
        assert!((after[0] / 0.1f64.exp()).ln().abs() < 0.01, "the class is empty: all count");
    }
}
