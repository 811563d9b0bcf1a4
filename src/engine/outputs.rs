//! The output tokens of residents, by slot, in one array: one is stored per row and step.

use crate::ids::Slot;

/// Tokens between two rows beyond their room: a cache line, so that rows do not fall on the same few sets.
const GAP: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Outputs {
    tokens: Vec<u32>,
    /// From the start of one slot's tokens to that of the next.
    stride: usize,
    slots: usize,
}

impl Outputs {
    /// For so many slots, with room for nothing.
    pub(super) fn new(slots: usize) -> Self {
        Self { tokens: Vec::new(), stride: 0, slots }
    }

    /// Makes room for `tokens` in every slot. Pages that nobody has touched cost nothing.
    pub(super) fn make_room(&mut self, tokens: usize) {
        if tokens + GAP <= self.stride {
            return;
        }
        let stride = tokens.next_power_of_two() + GAP;
        let mut wider = vec![0; self.slots * stride];
        for (old, new) in self.tokens.chunks(self.stride.max(1)).zip(wider.chunks_mut(stride)) {
            new[..old.len()].copy_from_slice(old);
        }
        (self.tokens, self.stride) = (wider, stride);
    }

    /// Stores the token at a place of a slot's output.
    #[inline]
    pub(super) fn put(&mut self, slot: Slot, at: u32, token: u32) {
        self.tokens[slot.index() * self.stride + at as usize] = token;
    }

    /// Stores the first tokens of a slot's output.
    pub(super) fn fill(&mut self, slot: Slot, tokens: &[u32]) {
        let start = slot.index() * self.stride;
        self.tokens[start..start + tokens.len()].copy_from_slice(tokens);
    }

    /// The first `len` tokens of a slot's output.
    pub(super) fn of(&self, slot: Slot, len: u32) -> &[u32] {
        let start = slot.index() * self.stride;
        &self.tokens[start..start + len as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stay_in_place_as_the_room_grows() {
        let mut outputs = Outputs::new(3);
        assert!(outputs.of(Slot(2), 0).is_empty(), "what is not stored takes no memory");
        outputs.make_room(5);
        outputs.fill(Slot(2), &[7, 8]);
        outputs.put(Slot(2), 2, 9);
        outputs.put(Slot(1), 0, 4);
        outputs.make_room(1_000);
        assert_eq!((outputs.of(Slot(1), 1), outputs.of(Slot(2), 3)), (&[4][..], &[7, 8, 9][..]));
    }
}
