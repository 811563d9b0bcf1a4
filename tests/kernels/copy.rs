//! Copies of pages.

use crate::ORDERS;
use crate::device::params::{Copy, Scatter};
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::lists::batches;

#[derive(Clone, Debug)]
pub struct Case {
    pub page_bytes: usize,
    pub pairs: Vec<[u32; 2]>,
    pub ctas: u32,
}

impl Case {
    fn pages(&self) -> usize {
        (2 * self.pairs.len()).max(8)
    }

    pub fn source(&self) -> Vec<u32> {
        (0..self.pages() * self.page_bytes / 4).map(|word| word as u32).collect()
    }

    pub fn run(&self, variant: Variant, order: Order) -> Result<Vec<u32>, Faults> {
        let (source, pairs) = (self.source(), self.pairs.concat());
        let mut target = vec![u32::MAX; source.len()];
        let mut memory = Memory::new();
        let params = Copy {
            source: memory.read(&source),
            target: memory.write(&mut target),
            pairs: memory.read(&pairs),
            page_bytes: self.page_bytes as u64,
            count: self.pairs.len() as u32,
            reserved: 0,
        };
        Kernel::find(variant, "copy_pages").launch(self.ctas, &params, &memory, order)?;
        Ok(target)
    }

    pub fn check(&self, target: &[u32]) -> Result<(), String> {
        let (source, words) = (self.source(), self.page_bytes / 4);
        let mut want = vec![u32::MAX; source.len()];
        for [from, to] in self.pairs.iter().map(|pair| pair.map(|page| page as usize * words)) {
            want[to..to + words].copy_from_slice(&source[from..from + words]);
        }
        match want.iter().zip(target).position(|(want, got)| want != got) {
            None => Ok(()),
            Some(at) => Err(format!("word {at} is {:#x}, not {:#x}", target[at], want[at])),
        }
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for page_bytes in [16, 48, 4096, 4112, 20_496] {
        for ctas in [1, 3] {
            cases.push(Case { page_bytes, pairs: vec![[5, 0], [7, 7], [5, 1], [0, 6]], ctas });
        }
    }
    cases.push(Case { page_bytes: 64, pairs: vec![], ctas: 1 });
    cases
}

#[test]
fn pages_arrive_whole_and_nothing_else_changes() {
    for case in cases() {
        for order in ORDERS {
            let target = case.run(Variant::Real, order).unwrap();
            case.check(&target).unwrap_or_else(|wrong| panic!("{case:?}, {order:?}: {wrong}"));
        }
    }
}

#[test]
fn words_arrive_where_they_are_sent_and_nothing_else_changes() {
    for count in [0, 1, 255, 256, 257, 2000] {
        let mut target: Vec<u32> = (0..5000).collect();
        let mut want = target.clone();
        // Every second word from the end.
        let pairs: Vec<u32> = (0..count).flat_map(|at| [4999 - 2 * at, 1_000_000 + at]).collect();
        pairs.chunks(2).for_each(|pair| want[pair[0] as usize] = pair[1]);
        let mut memory = Memory::new();
        let params =
            Scatter { target: memory.write(&mut target), pairs: memory.read(&pairs), count, reserved: 0 };
        let kernel = Kernel::find(Variant::Real, "scatter_words");
        kernel.launch(2, &params, &memory, Order::Shuffled(1)).unwrap();
        assert_eq!(target, want, "{count}");
    }
}

#[test]
fn any_number_of_pages_arrives() {
    for count in batches(&[1, 2, 3, 33, 257, 1025]) {
        let pairs = (0..count as u32).rev().map(|page| [2 * page, 2 * page + 1]).collect();
        let case = Case { page_bytes: 48, pairs, ctas: 3 };
        let target = case.run(Variant::Real, Order::Shuffled(count as u64)).unwrap();
        case.check(&target).unwrap_or_else(|wrong| panic!("{count}: {wrong}"));
    }
}
