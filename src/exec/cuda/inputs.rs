//! What a step uploads: one block of 32-bit words, whose arrays lie where the step's counts say.
//!
//! A graph was captured for one set of counts, so its arrays are where they were; and one copy moves them all.

/// How many there are of what in a step; in a graph, with its padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens: one per decode, then those of the chunks, then padding.
    pub tokens: usize,
    /// Rows of one token that decode attends to.
    pub decodes: usize,
    /// Rows that prefill attends to.
    pub prefills: usize,
    /// Rows that draw a token.
    pub samples: usize,
}

/// Where an array lies, in words.
pub type Words = std::ops::Range<usize>;

/// Where each array lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of this step.
    pub counts: Counts,
    /// `[tokens]`: ids, or with the top bit set the place of one in what the step before drew.
    pub ids: Words,
    /// `[tokens]`.
    pub positions: Words,
    /// `[tokens]` of 64 bits: where K and V go; -1 is nowhere.
    pub slots: Words,
    /// `[decodes + prefills]`: the row of the block tables.
    pub row_slots: Words,
    /// `[decodes + prefills]`: tokens in the cache, new ones included.
    pub lengths: Words,
    /// `[prefills + 1]`: new tokens before each row.
    pub q_from: Words,
    /// `[samples]`: the token whose logits are wanted.
    pub last: Words,
    /// `[samples]` of f32.
    pub temperature: Words,
    /// `[samples]`.
    pub top_k: Words,
    /// `[samples]` of f32.
    pub top_p: Words,
    /// `[samples]` of f32.
    pub min_p: Words,
    /// `[samples]` of 64 bits.
    pub seeds: Words,
    /// `[samples]`: the position of what is drawn in its output.
    pub drawn_at: Words,
    /// `[samples + 1]`: tokens listed for penalties before each row.
    pub said_from: Words,
    /// `[samples]` of f32.
    pub repetition: Words,
    /// `[samples]` of f32.
    pub presence: Words,
    /// `[samples]` of f32.
    pub frequency: Words,
    /// Of all.
    pub words: usize,
}

impl Layout {
    /// The layout of a step.
    pub fn new(counts: Counts) -> Self {
        let mut words = 0;
        // 16 bytes apart, so that kernels may read them in such pieces.
        let mut take = |len: usize| {
            let from = words;
            words += len.next_multiple_of(4);
            from..from + len
        };
        let Counts { tokens, decodes, prefills, samples } = counts;
        let mut layout = Self {
            counts,
            ids: take(tokens),
            positions: take(tokens),
            slots: take(2 * tokens),
            row_slots: take(decodes + prefills),
            lengths: take(decodes + prefills),
            q_from: take(prefills + 1),
            last: take(samples),
            temperature: take(samples),
            top_k: take(samples),
            top_p: take(samples),
            min_p: take(samples),
            seeds: take(2 * samples),
            drawn_at: take(samples),
            said_from: take(samples + 1),
            repetition: take(samples),
            presence: take(samples),
            frequency: take(samples),
            words: 0,
        };
        layout.words = words;
        layout
    }
}

/// Writes a value of 64 bits at place `at` of an array, low word first.
pub fn put_wide(words: &mut [u32], at: usize, value: u64) {
    (words[2 * at], words[2 * at + 1]) = (value as u32, (value >> 32) as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_lie_side_by_side_at_multiples_of_16_bytes() {
        let layout = Layout::new(Counts { tokens: 13, decodes: 5, prefills: 2, samples: 6 });
        let Layout {
            ids, positions, slots, row_slots, lengths, q_from, last, temperature, top_k, top_p, ..
        } = layout.clone();
        let Layout { min_p, seeds, drawn_at, said_from, repetition, presence, frequency, words, .. } = layout;
        let arrays = [
            (ids, 13),
            (positions, 13),
            (slots, 26),
            (row_slots, 7),
            (lengths, 7),
            (q_from, 3),
            (last, 6),
            (temperature, 6),
            (top_k, 6),
            (top_p, 6),
            (min_p, 6),
            (seeds, 12),
            (drawn_at, 6),
            (said_from, 7),
            (repetition, 6),
            (presence, 6),
            (frequency, 6),
        ];
        let mut end = 0;
        for (array, len) in arrays {
            assert_eq!((array.len(), array.start % 4), (len, 0));
            assert!(array.start >= end && array.start < end + 4);
            end = array.end;
        }
        assert_eq!(words, end.next_multiple_of(4));
    }
}
