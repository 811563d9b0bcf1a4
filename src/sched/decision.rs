//! A decision is a value: who runs and how many tokens, who is admitted, parked or evicted, and how
//! long to pause, each with a reason. Comparable, printable, serialisable, checked against the view.

use super::view::View;
use crate::ids::{Slot, SlotSet};
use crate::request::RequestId;
use crate::units::{Blocks, Nanos};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Peekable;
use std::slice;

/// Why an entry of a decision is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Its turn in the policy's order.
    Order,
    /// It decodes its next token.
    Decode,
    /// It computes the next chunk of its prompt.
    Prefill,
    /// It is protected from being parked or evicted.
    Protected,
    /// It came through a lane that overtakes the order.
    Lane,
    /// KV was short.
    Memory,
    /// KV was short, and nothing but a protected row could go.
    Override,
    /// The batch is full of rows before it.
    Slots,
    /// The step's tokens are used up by rows before it.
    TokenBudget,
    /// This step is for prefills alone.
    PrefillOnly,
    /// This step is for decodes alone.
    DecodeOnly,
    /// The power cap allows no more.
    PowerCap,
}

/// How an evicted sequence keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restore {
    /// Its blocks go to host memory.
    Swap,
    /// Its blocks are dropped and computed again.
    Recompute,
}

/// A resident that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its row.
    pub slot: Slot,
    /// How many tokens.
    pub tokens: u32,
    /// Why.
    pub reason: Reason,
}

/// A resident whose table grows before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grow {
    /// Its row.
    pub slot: Slot,
    /// By how many blocks.
    pub blocks: Blocks,
}

/// A waiting job that becomes resident: fresh, dropped, or swapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// The job.
    pub id: RequestId,
    /// How many tokens in this step; zero while its blocks come back beside the kernels.
    pub tokens: u32,
    /// Blocks of its table after admission, a cached prefix included.
    pub blocks: Blocks,
    /// Of these, the blocks that are taken out of the free ones.
    pub taken: Blocks,
    /// Why.
    pub reason: Reason,
}

/// A resident that gives up its KV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evict {
    /// Its row.
    pub slot: Slot,
    /// How it keeps its state.
    pub restore: Restore,
    /// Blocks that become free; a lower bound where blocks are shared.
    pub freed: Blocks,
    /// Why.
    pub reason: Reason,
}

/// A resident that keeps its KV and gets no tokens, though it could run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Park {
    /// Its row.
    pub slot: Slot,
    /// Why.
    pub reason: Reason,
}

/// A gap before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// How long.
    pub span: Nanos,
    /// Why.
    pub reason: Reason,
}

/// What one step does. Applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// A gap before the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Who gives up its KV.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evict: Vec<Evict>,
    /// Whose table grows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grow: Vec<Grow>,
    /// Who runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<Run>,
    /// Who becomes resident.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub admit: Vec<Admit>,
    /// Who is left out though it could run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub park: Vec<Park>,
}

impl Decision {
    /// A decision with room for the largest step, so that none allocates.
    pub fn with_capacity(resident_max: usize) -> Self {
        Self {
            pause: None,
            evict: Vec::with_capacity(resident_max),
            grow: Vec::with_capacity(resident_max),
            run: Vec::with_capacity(resident_max),
            admit: Vec::with_capacity(resident_max),
            park: Vec::with_capacity(resident_max),
        }
    }

    /// Makes it empty, keeping its memory.
    pub fn clear(&mut self) {
        self.pause = None;
        self.evict.clear();
        self.grow.clear();
        self.run.clear();
        self.admit.clear();
        self.park.clear();
    }

    /// Whether it does nothing at all.
    pub fn is_empty(&self) -> bool {
        self.evict.is_empty() && self.run.is_empty() && self.admit.is_empty() && self.pause.is_none()
    }

    /// Tokens of the step.
    pub fn tokens(&self) -> u32 {
        let run: u32 = self.run.iter().map(|r| r.tokens).sum();
        run + self.admit.iter().map(|a| a.tokens).sum::<u32>()
    }

    /// Rows of the step.
    pub fn rows(&self) -> usize {
        self.run.len() + self.admit.iter().filter(|a| a.tokens > 0).count()
    }

    /// Checks what a policy promises.
    ///
    /// # Errors
    /// The first rule that does not hold, in words.
    pub fn check(&self, view: &View<'_>, left: &mut Left) -> Result<(), Unsound> {
        left.steady.copy_from(view.steady);
        for evict in &self.evict {
            let slot = evict.slot;
            ensure(view.row(slot).ready(), || format!("row {} is evicted but not ready", slot.0))?;
            ensure(left.take(slot, view.step), || format!("row {} is evicted twice", slot.0))?;
        }
        let tokens = self.check_runs(view, left).map_err(|run| {
            let row = view.row(run.slot);
            Unsound(format!("row {} cannot run {} tokens: {row:?}", run.slot.0, run.tokens))
        })?;
        self.check_sums(view, tokens)
    }

    /// The tokens of all that run, or the first that cannot. A loop of its own, out of line.
    #[inline(never)]
    fn check_runs(&self, view: &View<'_>, left: &mut Left) -> Result<u32, Run> {
        let (mut tokens, mut grown) = (0, self.grow.iter().peekable());
        for runs in self.run.chunks(u64::BITS as usize) {
            let mut others = 0_u64;
            for run in runs.iter().rev() {
                // No branch: which rows are not steady, nothing foretells.
                let decodes = left.steady.take(run.slot) & (run.tokens == 1);
                others = others << 1 | u64::from(!decodes);
                tokens += run.tokens;
            }
            while others != 0 {
                let run = &runs[others.trailing_zeros() as usize];
                if !self.can_run(view, run, left, &mut grown) {
                    return Err(*run);
                }
                others &= others - 1;
            }
        }
        Ok(tokens)
    }

    /// Whether a row can run that is not steady, or no longer left. A steady row that is not left runs a second
    /// time, or was evicted, or is told to run more than its token.
    #[inline(never)]
    fn can_run(&self, view: &View<'_>, run: &Run, left: &mut Left, grown: &mut Grown<'_>) -> bool {
        let row = view.row(run.slot);
        let fits = row.ready() && (1..=row.missing()).contains(&run.tokens);
        fits && !view.steady(run.slot) && self.has_room(view, run, grown) && left.take(run.slot, view.step)
    }

    /// Whether a row's table, as it grows in this decision, holds what it runs. Tables mostly grow in the order in
    /// which their rows run, so the next one to grow is looked at first.
    fn has_room(&self, view: &View<'_>, run: &Run, grown: &mut Grown<'_>) -> bool {
        let lacks = view.row(run.slot).growth(run.tokens, view.config.block_shift());
        let suffices = |grow: &Grow| grow.slot == run.slot && grow.blocks.0 >= lacks;
        lacks == 0 || grown.next_if(|grow| suffices(grow)).is_some() || self.grow.iter().any(suffices)
    }

    fn check_sums(&self, view: &View<'_>, run_tokens: u32) -> Result<(), Unsound> {
        let config = view.config;
        let tokens = run_tokens + self.admit.iter().map(|a| a.tokens).sum::<u32>();
        ensure(tokens <= config.max_num_batched_tokens.0, || format!("{tokens} tokens exceed the step's"))?;
        let rows = self.rows();
        ensure(rows <= config.max_num_seqs as usize, || format!("{rows} rows exceed max_num_seqs"))?;
        let residents = view.order.len() - self.evict.len() + self.admit.len();
        ensure(residents <= config.max_resident as usize, || format!("{residents} exceed max_resident"))?;
        let taken: Blocks =
            self.grow.iter().map(|g| g.blocks).chain(self.admit.iter().map(|a| a.taken)).sum();
        let freed: Blocks = self.evict.iter().map(|e| e.freed).sum();
        ensure(taken <= view.free + freed, || format!("{taken} taken, {} free, {freed} freed", view.free))
    }
}

/// The tables that grow, from the first on that no row has run with yet.
type Grown<'d> = Peekable<slice::Iter<'d, Grow>>;

/// Scratch of a check: the rows that no entry of the decision names yet.
#[derive(Debug)]
pub struct Left {
    /// Of the steady rows: those that are left.
    steady: SlotSet,
    /// Of all others: the last step that named them, by slot.
    named: Vec<u64>,
}

impl Left {
    /// For so many slots, before the first step.
    pub fn new(slots: usize) -> Self {
        Self { steady: SlotSet::new(slots), named: vec![0; slots] }
    }

    /// Takes a row; whether it was left.
    fn take(&mut self, slot: Slot, step: u64) -> bool {
        self.steady.set(slot, false);
        std::mem::replace(&mut self.named[slot.index()], step) != step
    }
}

/// A rule that a decision breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsound(pub String);

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Result<(), Unsound> {
    if holds { Ok(()) } else { Err(Unsound(rule())) }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(p) = self.pause {
            write!(f, " pause {} ({:?})", p.span, p.reason)?;
        }
        for e in &self.evict {
            write!(f, " evict {} by {:?} ({:?})", e.slot.0, e.restore, e.reason)?;
        }
        for a in &self.admit {
            write!(f, " admit {} for {} tokens, {} ({:?})", a.id, a.tokens, a.blocks, a.reason)?;
        }
        let decodes = self.run.iter().filter(|r| r.reason == Reason::Decode).count();
        if decodes > 0 {
            write!(f, " decode {decodes} rows")?;
        }
        for r in self.run.iter().filter(|r| r.reason != Reason::Decode) {
            write!(f, " run {} for {} tokens ({:?})", r.slot.0, r.tokens, r.reason)?;
        }
        for p in &self.park {
            write!(f, " park {} ({:?})", p.slot.0, p.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_left_once_a_step_steady_or_not() {
        let mut left = Left::new(2);
        left.steady.set(Slot(0), true);
        assert!(left.take(Slot(0), 1) && !left.take(Slot(0), 1), "it was steady");
        assert!(!left.steady.contains(Slot(0)), "whoever is taken is steady no more");
        assert!(left.take(Slot(1), 1) && !left.take(Slot(1), 1), "it was not");
        assert!(left.take(Slot(0), 2) && left.take(Slot(1), 2), "another step is another matter");
    }
}
