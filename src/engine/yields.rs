//! The tokens that came out of a step: its rows and what they yielded, side by side as they lie.

use crate::batch::Row;
use crate::sched::{TokenEvent, Yielded};
use std::iter::Zip;
use std::slice::Iter;

/// The tokens that came out of a step, in the order of its rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Yields<'e> {
    rows: &'e [Row],
    tokens: &'e [u32],
    len: usize,
}

impl<'e> Yields<'e> {
    /// Of these rows, `len` of which yielded a token.
    pub(super) fn new(rows: &'e [Row], tokens: &'e [u32], len: usize) -> Self {
        Self { rows, tokens, len }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One after the other.
    pub fn iter(&self) -> YieldsIter<'e> {
        YieldsIter { rows: self.rows.iter().zip(self.tokens) }
    }
}

impl<'e> IntoIterator for Yields<'e> {
    type Item = TokenEvent;
    type IntoIter = YieldsIter<'e>;

    fn into_iter(self) -> YieldsIter<'e> {
        self.iter()
    }
}

impl Yielded for Yields<'_> {
    fn each(&self, visit: &mut dyn FnMut(&TokenEvent)) {
        self.iter().for_each(|token| visit(&token));
    }
}

/// See [`Yields::iter`].
#[derive(Clone, Debug)]
pub struct YieldsIter<'e> {
    rows: Zip<Iter<'e, Row>, Iter<'e, u32>>,
}

impl Iterator for YieldsIter<'_> {
    type Item = TokenEvent;

    #[inline]
    fn next(&mut self) -> Option<TokenEvent> {
        self.rows.find(yields).map(event)
    }

    /// Loops without asking in between how far it has come.
    #[inline]
    fn fold<B, F: FnMut(B, TokenEvent) -> B>(self, init: B, fold: F) -> B {
        self.rows.filter(yields).map(event).fold(init, fold)
    }
}

fn yields((row, _): &(&Row, &u32)) -> bool {
    !row.barren
}

fn event((row, &token): (&Row, &u32)) -> TokenEvent {
    let (slot, index) = (row.slot, row.generated + 1);
    TokenEvent { id: row.id, user_data: row.user_data, slot, index, token }
}
