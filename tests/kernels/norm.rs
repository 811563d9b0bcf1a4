//! RMSNorm with residual.

use crate::ORDERS;
use crate::device::params::Norm;
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::lists::batches;
use crate::numbers::{POISON, Stored, rounded};
use flyball::prng::Prng;

#[derive(Clone, Debug)]
pub struct Case {
    pub compute: Stored,
    /// The most that the kernel takes, in 1024s.
    pub room: usize,
    pub rows: usize,
    pub hidden: usize,
    pub scale: f64,
    pub residual: bool,
    pub ctas: u32,
}

pub struct Inputs {
    pub input: Vec<u16>,
    pub residual: Vec<u16>,
    pub weight: Vec<u16>,
}

#[derive(Debug, PartialEq)]
pub struct Outputs {
    pub output: Vec<u16>,
    pub residual: Vec<u16>,
}

impl Case {
    pub const EPSILON: f32 = 1e-5;

    fn kernel(&self) -> String {
        format!("rms_norm_{}_{}k", self.compute.name(), self.room)
    }

    pub fn inputs(&self) -> Inputs {
        let mut prng = Prng::new(self.hidden as u64);
        let mut draw = |count, scale| self.compute.normals(&mut prng, count, scale);
        let cells = self.rows * self.hidden;
        Inputs {
            input: draw(cells, self.scale),
            residual: draw(cells, self.scale),
            weight: draw(self.hidden, 1.0),
        }
    }

    pub fn run(&self, inputs: &Inputs, variant: Variant, order: Order) -> Result<Outputs, Faults> {
        let mut outputs =
            Outputs { output: vec![POISON; self.rows * self.hidden], residual: inputs.residual.clone() };
        let mut memory = Memory::new();
        let params = Norm {
            input: memory.read(&inputs.input),
            residual: if self.residual { memory.write(&mut outputs.residual) } else { 0 },
            weight: memory.read(&inputs.weight),
            output: memory.write(&mut outputs.output),
            rows: self.rows as u32,
            hidden: self.hidden as u32,
            epsilon: Self::EPSILON,
            reserved: 0,
        };
        Kernel::find(variant, &self.kernel()).launch(self.ctas, &params, &memory, order)?;
        Ok(outputs)
    }

    pub fn check(&self, inputs: &Inputs, outputs: &Outputs) -> Result<(), String> {
        let compute = self.compute;
        let mut sum = compute.wide(&inputs.input);
        if self.residual {
            for (sum, residual) in sum.iter_mut().zip(compute.wide(&inputs.residual)) {
                *sum += residual;
            }
            rounded("residual", compute, &compute.wide(&outputs.residual), &sum, self.scale * 1e-6)?;
        }
        let weight = compute.wide(&inputs.weight);
        let mut want = Vec::new();
        for row in sum.chunks(self.hidden) {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / self.hidden as f64;
            let inverse = 1.0 / (mean + f64::from(Self::EPSILON)).sqrt();
            want.extend(row.iter().zip(&weight).map(|(x, w)| x * inverse * w));
        }
        rounded("output", compute, &compute.wide(&outputs.output), &want, 1e-9)
    }
}

pub fn cases() -> Vec<Case> {
    let base =
        Case { compute: Stored::Bf16, room: 4, rows: 3, hidden: 4096, scale: 1.0, residual: true, ctas: 2 };
    let mut cases = vec![base.clone(), Case { rows: 0, ..base.clone() }];
    for compute in [Stored::Bf16, Stored::F16] {
        for (room, hidden) in [
            (4, 8),
            (4, 64),
            (4, 2040),
            (4, 2048),
            (4, 2056),
            (4, 3584),
            (4, 4096),
            (8, 5120),
            (8, 8192),
            (16, 12288),
            (16, 16384),
        ] {
            cases.push(Case { compute, room, hidden, ..base.clone() });
        }
        for scale in [0.0, 1e-6, 1e4] {
            cases.push(Case { compute, scale, hidden: 256, residual: scale != 1e4, ..base.clone() });
        }
    }
    // Its squares are within a float, as those of 1e-6 are far below epsilon.
    cases.push(Case { scale: 1e16, hidden: 256, ..base });
    cases
}

#[test]
fn norms_are_their_reference_rounded_once() {
    for case in cases() {
        let inputs = case.inputs();
        let first = case.run(&inputs, Variant::Real, Order::Forward).unwrap();
        case.check(&inputs, &first).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        for order in ORDERS {
            assert_eq!(case.run(&inputs, Variant::Real, order).unwrap(), first, "{case:?}, {order:?}");
        }
    }
}

#[test]
fn a_row_of_nans_stays_alone() {
    let case = &cases()[0];
    let mut inputs = case.inputs();
    let whole = case.run(&inputs, Variant::Real, Order::Forward).unwrap();
    inputs.input[case.hidden..2 * case.hidden].fill(POISON);
    let mut hurt = case.run(&inputs, Variant::Real, Order::Forward).unwrap();
    let row = case.hidden..2 * case.hidden;
    assert!(case.compute.wide(&hurt.output[row.clone()]).iter().all(|x| x.is_nan()));
    hurt.output[row.clone()].copy_from_slice(&whole.output[row.clone()]);
    hurt.residual[row.clone()].copy_from_slice(&whole.residual[row]);
    assert_eq!(hurt, whole);
}

#[test]
fn every_row_of_a_batch_of_any_size_is_normed() {
    for rows in batches(&[1, 2, 3, 5, 33, 257, 1025]) {
        let case = Case { rows, hidden: 64, ..cases().remove(0) };
        let inputs = case.inputs();
        let outputs = case.run(&inputs, Variant::Real, Order::Shuffled(rows as u64)).unwrap();
        case.check(&inputs, &outputs).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
    }
}
