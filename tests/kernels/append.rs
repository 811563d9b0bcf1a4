//! QK-norm, RoPE and the write into pages.

use crate::ORDERS;
use crate::device::params::{Append, Pool};
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::lists::batches;
use crate::numbers::{POISON, Stored, poisoned, rounded};
use flyball::prng::Prng;
use flyball_simt::core::{RopeScaling, rope_turns};

#[derive(Clone, Debug)]
pub struct Case {
    pub compute: Stored,
    pub stored: Stored,
    pub head_dim: usize,
    pub heads_q: usize,
    pub heads_kv: usize,
    pub page_shift: u32,
    pub tokens: usize,
    pub interleaved: bool,
    pub qk_norm: bool,
    pub scales: bool,
    /// Of the projections.
    pub scale: f64,
}

pub struct Inputs {
    pub qkv: Vec<u16>,
    pub q_weight: Vec<u16>,
    pub k_weight: Vec<u16>,
    pub turns: Vec<u64>,
    pub positions: Vec<u32>,
    pub slots: Vec<i64>,
    pub k_scale: Vec<f32>,
    pub v_scale: Vec<f32>,
}

#[derive(Debug, PartialEq)]
pub struct Outputs {
    pub q: Vec<u16>,
    pub pages: Vec<u8>,
}

impl Case {
    const THETA: f64 = 1e4;
    pub const EPSILON: f32 = 1e-6;

    pub fn pages(&self) -> usize {
        self.tokens.div_ceil(self.page_size()).max(3)
    }

    fn page_size(&self) -> usize {
        1 << self.page_shift
    }

    pub fn page_elements(&self) -> usize {
        2 * self.heads_kv * self.page_size() * self.head_dim
    }

    /// Elements of a token; some lie between tokens, as where other projections do.
    pub fn stride(&self) -> usize {
        (self.heads_q + 2 * self.heads_kv) * self.head_dim + 64
    }

    fn kernel(&self) -> String {
        let Self { compute, stored, head_dim, .. } = self;
        match stored {
            Stored::E4m3 => format!("append_{}_e4m3_d{head_dim}", compute.name()),
            _ => format!("append_{}_d{head_dim}", compute.name()),
        }
    }

    pub fn inputs(&self) -> Inputs {
        let mut prng = Prng::new(11);
        let plain = RopeScaling {
            factor: 1.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192.0,
        };
        let far = [0, 1, 15, 16, 4095, 131_071];
        // Every slot at most once; the second token and the fourth are padding.
        let mut slots: Vec<i64> = (0..(self.pages() * self.page_size()) as i64).collect();
        for at in (1..slots.len()).rev() {
            slots.swap(at, prng.below(at as u64 + 1) as usize);
        }
        slots.truncate(self.tokens);
        slots.iter_mut().skip(1).step_by(2).take(2).for_each(|slot| *slot = -1);
        let mut scales = || (0..self.heads_kv).map(|_| (0.5 + prng.unit()) as f32).collect();
        let (k_scale, v_scale) = (scales(), scales());
        Inputs {
            qkv: self.compute.normals(&mut prng, self.tokens * self.stride(), self.scale),
            q_weight: self.compute.normals(&mut prng, self.head_dim, 1.0),
            k_weight: self.compute.normals(&mut prng, self.head_dim, 1.0),
            turns: (0..self.head_dim / 2)
                .map(|pair| rope_turns(pair as u32, self.head_dim as u32, Self::THETA, plain))
                .collect(),
            positions: (0..self.tokens).map(|token| far[token % far.len()]).collect(),
            slots,
            k_scale,
            v_scale,
        }
    }

    pub fn run(&self, inputs: &Inputs, variant: Variant, order: Order) -> Result<Outputs, Faults> {
        let mut outputs = Outputs {
            q: vec![POISON; self.tokens * self.heads_q * self.head_dim],
            pages: poisoned(self.pages() * self.page_elements() * self.stored.bytes()),
        };
        let mut memory = Memory::new();
        let params = Append {
            pool: Pool {
                pages: memory.write(&mut outputs.pages),
                page_stride: self.page_elements() as i64,
                page_shift: self.page_shift,
                heads_kv: self.heads_kv as u32,
                k_scale: if self.scales { memory.read(&inputs.k_scale) } else { 0 },
                v_scale: if self.scales { memory.read(&inputs.v_scale) } else { 0 },
            },
            qkv: memory.read(&inputs.qkv),
            q: memory.write(&mut outputs.q),
            q_weight: if self.qk_norm { memory.read(&inputs.q_weight) } else { 0 },
            k_weight: if self.qk_norm { memory.read(&inputs.k_weight) } else { 0 },
            turns: memory.read(&inputs.turns),
            positions: memory.read(&inputs.positions),
            slots: memory.read(&inputs.slots),
            qkv_stride: self.stride() as i64,
            tokens: self.tokens as u32,
            heads_q: self.heads_q as u32,
            epsilon: Self::EPSILON,
            interleaved: self.interleaved.into(),
        };
        Kernel::find(variant, &self.kernel()).launch(3, &params, &memory, order)?;
        Ok(outputs)
    }

    /// A head of Q or K, normed and rotated.
    fn turned(&self, head: &[f64], weight: &[f64], position: u32) -> Vec<f64> {
        let mut x = head.to_vec();
        if self.qk_norm {
            let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
            let inverse = 1.0 / (mean + f64::from(Self::EPSILON)).sqrt();
            x.iter_mut().zip(weight).for_each(|(x, w)| *x *= inverse * w);
        }
        let half = self.head_dim / 2;
        for pair in 0..half {
            let angle = f64::from(position) * Self::THETA.powf(-(pair as f64) / half as f64);
            let (a, b) = if self.interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
            (x[a], x[b]) = (x[a] * angle.cos() - x[b] * angle.sin(), x[b] * angle.cos() + x[a] * angle.sin());
        }
        x
    }

    pub fn check(&self, inputs: &Inputs, outputs: &Outputs) -> Result<(), String> {
        let [qkv, q_weight, k_weight] =
            [&inputs.qkv, &inputs.q_weight, &inputs.k_weight].map(|x| self.compute.wide(x));
        let (heads_q, heads_kv, dim) = (self.heads_q, self.heads_kv, self.head_dim);
        // Of a rotation in f32: its two products may cancel.
        let slack = 1e-6 * if self.qk_norm { 4.0 } else { 4.0 * self.scale };
        let mut want_pool: Vec<Option<f64>> = vec![None; self.pages() * self.page_elements()];
        for token in 0..self.tokens {
            let head = |head: usize| &qkv[token * self.stride() + head * dim..][..dim];
            let position = inputs.positions[token];
            for h in 0..heads_q {
                let got = self.compute.wide(&outputs.q[(token * heads_q + h) * dim..][..dim]);
                let want = self.turned(head(h), &q_weight, position);
                rounded(&format!("q of token {token}, head {h}"), self.compute, &got, &want, slack)?;
            }
            let Ok(slot) = usize::try_from(inputs.slots[token]) else { continue };
            for h in 0..heads_kv {
                let k = self.turned(head(heads_q + h), &k_weight, position);
                for (part, x, scales) in [
                    (h, &k[..], &inputs.k_scale),
                    (heads_kv + h, head(heads_q + heads_kv + h), &inputs.v_scale),
                ] {
                    let scale = if self.scales { f64::from(scales[h]) } else { 1.0 };
                    let at = slot / self.page_size() * self.page_elements()
                        + (part * self.page_size() + slot % self.page_size()) * dim;
                    for (i, x) in x.iter().enumerate() {
                        want_pool[at + i] = Some(x / scale);
                    }
                }
            }
        }
        for (at, want) in want_pool.into_iter().enumerate() {
            let got = self.stored.get(&outputs.pages, at);
            match want {
                None if got.is_nan() => {}
                None => return Err(format!("element {at} of the pool became {got}")),
                Some(want) => {
                    let want = if self.stored == Stored::E4m3 { want.clamp(-448.0, 448.0) } else { want };
                    rounded(&format!("element {at} of the pool"), self.stored, &[got], &[want], 2.0 * slack)?;
                }
            }
        }
        Ok(())
    }
}

pub fn cases() -> Vec<Case> {
    let base = Case {
        compute: Stored::Bf16,
        stored: Stored::Bf16,
        head_dim: 128,
        heads_q: 4,
        heads_kv: 2,
        page_shift: 4,
        tokens: 13,
        interleaved: false,
        qk_norm: true,
        scales: false,
        scale: 1.0,
    };
    let mut cases = vec![Case { tokens: 0, ..base.clone() }];
    for (compute, stored) in [
        (Stored::Bf16, Stored::Bf16),
        (Stored::Bf16, Stored::E4m3),
        (Stored::F16, Stored::F16),
        (Stored::F16, Stored::E4m3),
    ] {
        let base = Case { compute, stored, ..base.clone() };
        for head_dim in [64, 80, 96, 128, 256] {
            for interleaved in [false, true] {
                let qk_norm = (head_dim % 128 == 64) != interleaved;
                let scales = stored == Stored::E4m3 && !interleaved;
                cases.push(Case { head_dim, interleaved, qk_norm, scales, ..base.clone() });
            }
        }
        // Several items of a token, the last of them with few heads; in the end more of them than there are warps.
        for (heads_q, heads_kv, head_dim) in [
            (1, 1, 64),
            (7, 1, 64),
            (16, 1, 96),
            (3, 3, 256),
            (14, 2, 128),
            (15, 1, 128),
            (40, 8, 64),
            (93, 2, 256),
        ] {
            let tokens = 5;
            cases.push(Case { heads_q, heads_kv, head_dim, tokens, page_shift: 5, ..base.clone() });
        }
        // Values that fp8 must saturate, and some that vanish in it.
        for scale in [1e-30, 1e-3, 300.0] {
            cases.push(Case { scale, qk_norm: false, ..base.clone() });
        }
    }
    cases
}

/// Those of the kernels that are compiled with seeded bugs too.
pub fn faulty_cases() -> Vec<Case> {
    let compiled = |case: &Case| Kernel::all(Variant::WrongPair).any(|kernel| kernel.name() == case.kernel());
    cases().into_iter().filter(compiled).collect()
}

#[test]
fn queries_and_pages_are_their_reference_rounded_once() {
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
fn every_token_of_a_batch_of_any_size_is_appended() {
    for tokens in batches(&[1, 2, 3, 4, 5, 33, 257, 1025]) {
        let case = Case { tokens, heads_q: 3, heads_kv: 1, head_dim: 64, ..cases().remove(0) };
        let inputs = case.inputs();
        let outputs = case.run(&inputs, Variant::Real, Order::Shuffled(tokens as u64)).unwrap();
        case.check(&inputs, &outputs).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
    }
}
