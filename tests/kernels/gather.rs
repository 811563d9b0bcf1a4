//! Rows by index.

use crate::ORDERS;
use crate::device::params::{FROM_STEP, Gather};
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::lists::batches;

#[derive(Clone, Debug)]
pub struct Case {
    pub row_bytes: usize,
    pub ids: Vec<u32>,
    pub sampled: Vec<u32>,
    pub ctas: u32,
}

/// The rows, and whether one of the ids was none.
pub type Gathered = (Vec<u32>, bool);

impl Case {
    const ROWS: usize = 6;

    fn source(&self) -> Vec<u32> {
        (0..Self::ROWS * self.row_bytes / 4).map(|word| word as u32 + 1).collect()
    }

    pub fn run(&self, variant: Variant, order: Order) -> Result<Gathered, Faults> {
        let source = self.source();
        let mut target = vec![u32::MAX; self.ids.len() * self.row_bytes / 4];
        let mut failed = [0_u32];
        let mut memory = Memory::new();
        let params = Gather {
            source: memory.read(&source),
            target: memory.write(&mut target),
            ids: memory.read(&self.ids),
            sampled: memory.read(&self.sampled),
            failed: memory.write(&mut failed),
            row_bytes: self.row_bytes as u32,
            count: self.ids.len() as u32,
            rows: Self::ROWS as u32,
            reserved: 0,
        };
        Kernel::find(variant, "gather_rows").launch(self.ctas, &params, &memory, order)?;
        Ok((target, failed[0] != 0))
    }

    pub fn check(&self, (target, failed): &Gathered) -> Result<(), String> {
        let (source, words) = (self.source(), self.row_bytes / 4);
        let mut none = false;
        for (at, (id, got)) in self.ids.iter().zip(target.chunks(words)).enumerate() {
            let id =
                if id & FROM_STEP == 0 { *id } else { self.sampled[(id & !FROM_STEP) as usize] } as usize;
            none |= id >= Self::ROWS;
            let zeros = vec![0; words];
            let want = source.chunks(words).nth(id).unwrap_or(&zeros);
            if got != want {
                return Err(format!("row {at} is not row {id} of the source"));
            }
        }
        if none == *failed { Ok(()) } else { Err(format!("failed is {failed}, and should be {none}")) }
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for row_bytes in [16, 48, 4096, 4112, 8192, 10_240] {
        for ids in [vec![], vec![3], vec![0, 5, 5, 2], vec![1, FROM_STEP | 2, 4, FROM_STEP]] {
            cases.push(Case { row_bytes, ids, sampled: vec![4, 1, 0], ctas: 3 });
        }
        for ids in [vec![0, 6, 1], vec![u32::MAX >> 1, 0], vec![FROM_STEP, FROM_STEP | 1]] {
            cases.push(Case { row_bytes, ids, sampled: vec![5, 6], ctas: 2 });
        }
    }
    cases
}

#[test]
fn rows_are_those_that_were_named() {
    for case in cases() {
        for order in ORDERS {
            let gathered = case.run(Variant::Real, order).unwrap();
            case.check(&gathered).unwrap_or_else(|wrong| panic!("{case:?}, {order:?}: {wrong}"));
        }
    }
}

#[test]
fn any_number_of_rows_is_gathered() {
    for count in batches(&[1, 2, 3, 33, 257, 1025]) {
        let id = |at: u32| if at.is_multiple_of(3) { FROM_STEP | (at % 4) } else { at % 6 };
        let ids = (0..count as u32).map(id).collect();
        let case = Case { row_bytes: 48, ids, sampled: vec![4, 1, 0, 5], ctas: 3 };
        let gathered = case.run(Variant::Real, Order::Shuffled(count as u64)).unwrap();
        case.check(&gathered).unwrap_or_else(|wrong| panic!("{count}: {wrong}"));
    }
}
