//! Some rows of a plan, by their places: one bit each, so that a loop over hundreds of rows notes them without
//! a branch.

/// Rows that one word holds.
pub(super) const WORD: usize = u64::BITS as usize;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct RowSet {
    words: Vec<u64>,
}

impl RowSet {
    /// The empty set of no rows, with room for `rows_max`.
    pub(super) fn new(rows_max: usize) -> Self {
        Self { words: Vec::with_capacity(rows_max.div_ceil(WORD)) }
    }

    /// Makes it the empty set of so many rows. Its words end with them, so that no search goes on behind.
    pub(super) fn reset(&mut self, rows: usize) {
        self.words.clear();
        self.words.resize(rows.div_ceil(WORD), 0);
    }

    /// Puts a row in.
    pub(super) fn insert(&mut self, place: usize) {
        self.words[place / WORD] |= 1 << (place % WORD);
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, place: usize) {
        self.words[place / WORD] &= !(1 << (place % WORD));
    }

    /// The words, for loops that write them whole: row `place` is bit `place % WORD` of word `place / WORD`.
    pub(super) fn words(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The first row from `from` on.
    #[inline]
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        let mut index = from / WORD;
        let mut word = self.words.get(index)? & (u64::MAX << (from % WORD));
        while word == 0 {
            index += 1;
            word = *self.words.get(index)?;
        }
        Some(index * WORD + word.trailing_zeros() as usize)
    }

    /// The last row before `end`.
    #[inline]
    pub(super) fn last(&self, end: usize) -> Option<usize> {
        let mut index = end.checked_sub(1)? / WORD;
        let mut word = self.words[index] & (u64::MAX >> (WORD - 1 - (end - 1) % WORD));
        while word == 0 {
            index = index.checked_sub(1)?;
            word = self.words[index];
        }
        Some(index * WORD + (WORD - 1 - word.leading_zeros() as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_found_from_both_ends(places in proptest::collection::btree_set(0_usize..300, 0..40)) {
            let mut set = RowSet::new(300);
            set.reset(300);
            places.iter().for_each(|place| set.insert(*place));
            for at in 0..=300 {
                prop_assert_eq!(set.next(at), places.range(at..).next().copied());
                prop_assert_eq!(set.last(at), places.range(..at).next_back().copied());
            }
            if let Some(first) = set.next(0) {
                set.remove(first);
                prop_assert_eq!(set.next(0), places.iter().nth(1).copied());
            }
            set.reset(200);
            prop_assert_eq!((set.next(0), set.last(200)), (None, None));
        }
    }
}
