//! SiLU-mul.

use crate::ORDERS;
use crate::device::params::Activation;
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::lists::batches;
use crate::numbers::{POISON, Stored, rounded};
use flyball::prng::Prng;

#[derive(Clone, Debug)]
pub struct Case {
    pub compute: Stored,
    pub rows: usize,
    pub width: usize,
    pub scale: f64,
}

impl Case {
    pub fn input(&self) -> Vec<u16> {
        self.compute.normals(&mut Prng::new(5), 2 * self.rows * self.width, self.scale)
    }

    pub fn run(&self, input: &[u16], variant: Variant, order: Order) -> Result<Vec<u16>, Faults> {
        let mut output = vec![POISON; self.rows * self.width];
        let mut memory = Memory::new();
        let params = Activation {
            input: memory.read(input),
            output: memory.write(&mut output),
            rows: self.rows as u32,
            width: self.width as u32,
        };
        let name = format!("silu_mul_{}", self.compute.name());
        Kernel::find(variant, &name).launch(2, &params, &memory, order)?;
        Ok(output)
    }

    pub fn check(&self, input: &[u16], output: &[u16]) -> Result<(), String> {
        let input = self.compute.wide(input);
        let mut want = Vec::new();
        for row in input.chunks(2 * self.width) {
            let (gate, up) = row.split_at(self.width);
            want.extend(gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up));
        }
        // Where the exponential overflows a float, the result is zero, not tiny.
        rounded("output", self.compute, &self.compute.wide(output), &want, 1e-30)
    }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for compute in [Stored::Bf16, Stored::F16] {
        for (rows, width) in [(0, 8), (1, 8), (3, 8), (5, 40), (3, 2736), (2, 4096)] {
            cases.push(Case { compute, rows, width, scale: 2.0 });
        }
        for scale in [0.0, 1e-4, 40.0] {
            cases.push(Case { compute, rows: 2, width: 256, scale });
        }
    }
    cases.push(Case { compute: Stored::Bf16, rows: 2, width: 256, scale: 1e3 });
    cases
}

#[test]
fn activations_are_their_reference_rounded_once() {
    for case in cases() {
        let input = case.input();
        let first = case.run(&input, Variant::Real, Order::Forward).unwrap();
        case.check(&input, &first).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        for order in ORDERS {
            assert_eq!(case.run(&input, Variant::Real, order).unwrap(), first, "{case:?}, {order:?}");
        }
    }
}

#[test]
fn a_row_of_nans_stays_alone() {
    let case = Case { compute: Stored::Bf16, rows: 3, width: 264, scale: 1.0 };
    let mut input = case.input();
    let whole = case.run(&input, Variant::Real, Order::Forward).unwrap();
    input[2 * case.width..4 * case.width].fill(POISON);
    let hurt = case.run(&input, Variant::Real, Order::Forward).unwrap();
    for (row, (hurt, whole)) in hurt.chunks(case.width).zip(whole.chunks(case.width)).enumerate() {
        if row == 1 {
            assert!(case.compute.wide(hurt).iter().all(|x| x.is_nan()));
        } else {
            assert_eq!(hurt, whole, "row {row}");
        }
    }
}

#[test]
fn every_row_of_a_batch_of_any_size_is_gated() {
    for rows in batches(&[1, 2, 3, 5, 33, 257, 1025]) {
        let case = Case { compute: Stored::Bf16, rows, width: 24, scale: 2.0 };
        let input = case.input();
        let output = case.run(&input, Variant::Real, Order::Shuffled(rows as u64)).unwrap();
        case.check(&input, &output).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
    }
}
