//! What a step costs: time and energy of a batch shape. One model serves the policy, the governor
//! and the simulator; each can be given a wrong one on purpose.
//!
//! A shape is a handful of sums over the rows of a batch, so that a step's cost is O(1) once they
//! are known. Floats stay inside; integer nanoseconds and microjoules come out.
//!
//! T = overhead + row · rows + dense(tokens) + decode attention + prefill attention
//!
//! where `dense` (all GEMMs, norms, activations and collectives) is a table over the tokens of the
//! step, and each attention is the largest of a few planes: base + a · n + b · work.

mod profile;

pub use profile::{Hardware, Limits, ModelShape, Profile};

use crate::units::{Bytes, Microjoules, Nanos, Tokens, float};
use profile::Plane;

/// What a cost depends on: sums over the rows of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences.
    pub rows: u32,
    /// New tokens, decodes and chunks together.
    pub tokens: u32,
    /// Sequences that decode one token.
    pub decodes: u32,
    /// Sum of the decodes' context lengths, in tokens.
    pub decode_context: u64,
    /// New tokens in prefill chunks.
    pub chunk_tokens: u32,
    /// Query-key pairs of the chunks: the sum of c·p + c·(c+1)/2, for c new tokens after a prefix of p.
    pub pairs: u64,
    /// Traffic from the device to the host.
    pub swap_out: Bytes,
    /// Traffic from the host to the device.
    pub swap_in: Bytes,
}

impl BatchShape {
    /// Adds one decode with `context` tokens in its cache, the new one included.
    #[inline]
    pub fn add_decode(&mut self, context: u32) {
        self.rows += 1;
        self.tokens += 1;
        self.decodes += 1;
        self.decode_context += u64::from(context);
    }

    /// Adds one prefill chunk of `tokens` after `prefix` tokens that are in the cache.
    #[inline]
    pub fn add_chunk(&mut self, tokens: u32, prefix: u32) {
        let (c, p) = (u64::from(tokens), u64::from(prefix));
        self.rows += 1;
        self.tokens += tokens;
        self.chunk_tokens += tokens;
        self.pairs += c * p + c * (c + 1) / 2;
    }
}

/// Time and energy of a batch shape, after one profile.
#[derive(Clone, Debug)]
pub struct CostModel {
    /// Dense time by tokens, in ns: one entry per token up to the end of the profile's table.
    dense: Vec<f64>,
    /// ns per token behind the table.
    dense_slope: f64,
    overhead: f64,
    row: f64,
    decode: Vec<Plane>,
    prefill: Vec<Plane>,
    swap_base: f64,
    swap_per_byte: f64,
    kv_bytes_per_token: u64,
    energy: EnergyModel,
    /// Set for a model whose every step takes the same time.
    constant: Option<Nanos>,
}

/// Coefficients of a step's energy, in microjoules; over all boards of the profile.
#[derive(Clone, Copy, Debug)]
struct EnergyModel {
    idle_per_ns: f64,
    busy_per_ns: f64,
    board_per_ns: f64,
    token: f64,
    context: f64,
    pair: f64,
    swap_per_byte: f64,
}

impl CostModel {
    /// The model that `profile` describes.
    pub fn new(profile: &Profile) -> Self {
        let ns = |us: f64| us * 1e3;
        let planes = |planes: &[Plane]| planes.iter().map(|p| p.scaled(1e3)).collect();
        let (time, energy) = (&profile.time, &profile.energy);
        let (dense, dense_slope) = time.dense.tabulate();
        Self {
            dense: dense.into_iter().map(ns).collect(),
            dense_slope: ns(dense_slope),
            overhead: ns(time.step_overhead_us),
            row: ns(time.row_us),
            decode: planes(&time.decode_attention.planes()),
            prefill: planes(&time.prefill_attention.planes()),
            swap_base: ns(profile.swap.base_us),
            swap_per_byte: 1.0 / profile.swap.gb_s,
            kv_bytes_per_token: profile.model.kv_bytes_per_token,
            energy: EnergyModel {
                idle_per_ns: energy.idle_w * 1e-3,
                busy_per_ns: energy.busy_w * 1e-3,
                board_per_ns: profile.hardware.board_w * f64::from(profile.hardware.count) * 1e-3,
                token: energy.token_j * 1e6,
                context: energy.ctx_j * 1e6,
                pair: energy.pair_j * 1e6,
                swap_per_byte: energy.swap_j_per_gb * 1e-3,
            },
            constant: None,
        }
    }

    /// The same model with every time and energy multiplied: a wrong model, on purpose.
    pub fn scaled(mut self, time: f64, energy: f64) -> Self {
        let scale = |planes: &mut Vec<Plane>| planes.iter_mut().for_each(|p| *p = p.scaled(time));
        self.dense.iter_mut().for_each(|ns| *ns *= time);
        scale(&mut self.decode);
        scale(&mut self.prefill);
        self.dense_slope *= time;
        self.overhead *= time;
        self.row *= time;
        self.swap_base *= time;
        self.swap_per_byte *= time;
        let e = &mut self.energy;
        let work = [&mut e.token, &mut e.context, &mut e.pair, &mut e.swap_per_byte];
        work.into_iter().chain([&mut e.idle_per_ns, &mut e.busy_per_ns]).for_each(|c| *c *= energy);
        self
    }

    /// A model whose every step takes `step`, whatever is in it; swaps are free. For comparisons of
    /// schedulers alone.
    pub fn with_constant_step(mut self, step: Nanos) -> Self {
        self.constant = Some(step);
        self
    }

    /// Time of the kernels of one step, without swaps; zero for an empty batch.
    #[inline]
    pub fn compute_time(&self, shape: &BatchShape) -> Nanos {
        if shape.tokens == 0 {
            return Nanos::ZERO;
        }
        if let Some(step) = self.constant {
            return step;
        }
        let mut ns = self.overhead + self.row * f64::from(shape.rows) + self.dense(shape.tokens);
        if shape.decodes > 0 {
            ns += Plane::max(&self.decode, f64::from(shape.decodes), float(shape.decode_context));
        }
        if shape.chunk_tokens > 0 {
            ns += Plane::max(&self.prefill, f64::from(shape.chunk_tokens), float(shape.pairs));
        }
        Nanos(ns as u64)
    }

    /// Time of moving `bytes` between device and host, one way.
    #[inline]
    pub fn swap_time(&self, bytes: Bytes) -> Nanos {
        if bytes == Bytes::ZERO || self.constant.is_some() {
            return Nanos::ZERO;
        }
        Nanos((self.swap_base + self.swap_per_byte * bytes.0 as f64) as u64)
    }

    /// Time that the machine loses by computing `tokens` of one sequence again, beside other work.
    pub fn recompute_time(&self, tokens: Tokens) -> Nanos {
        let mut shape = BatchShape::default();
        shape.add_chunk(tokens.0, 0);
        let attention = Plane::max(&self.prefill, f64::from(tokens.0), float(shape.pairs));
        Nanos((self.prefill_token_ns() * f64::from(tokens.0) + attention) as u64)
    }

    /// Marginal dense time of one more prefill token in a full step, in ns (the alpha of the
    /// scheduling literature).
    pub fn prefill_token_ns(&self) -> f64 {
        self.dense_slope
    }

    /// Bytes of KV of `tokens`.
    pub fn kv_bytes(&self, tokens: Tokens) -> Bytes {
        Bytes(self.kv_bytes_per_token * u64::from(tokens.0))
    }

    /// Energy of a step of `shape` that took `time`; never above the boards' limit.
    #[inline]
    pub fn step_energy(&self, shape: &BatchShape, time: Nanos) -> Microjoules {
        let e = &self.energy;
        let ns = float(time.0);
        let work = e.token * f64::from(shape.tokens)
            + e.context * float(shape.decode_context)
            + e.pair * float(shape.pairs)
            + e.swap_per_byte * float(shape.swap_out.0 + shape.swap_in.0);
        Microjoules((e.busy_per_ns * ns + work).min(e.board_per_ns * ns) as u64)
    }

    /// Energy of an idle gap.
    pub fn idle_energy(&self, gap: Nanos) -> Microjoules {
        Microjoules((self.energy.idle_per_ns * gap.0 as f64) as u64)
    }

    #[inline]
    fn dense(&self, tokens: u32) -> f64 {
        let last = self.dense.len() - 1;
        match self.dense.get(tokens as usize) {
            Some(ns) => *ns,
            None => self.dense[last] + self.dense_slope * (tokens as usize - last) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Milliwatts;

    fn model() -> CostModel {
        CostModel::new(&Profile::load("h200-llama-3-8b").unwrap())
    }

    fn decodes(n: u32, context: u32) -> BatchShape {
        let mut shape = BatchShape::default();
        (0..n).for_each(|_| shape.add_decode(context));
        shape
    }

    #[test]
    fn more_work_never_takes_less_time_or_energy() {
        let m = model();
        let mut last = (Nanos::ZERO, Microjoules::ZERO);
        for n in [1, 2, 8, 64, 256, 512] {
            let shape = decodes(n, 1000);
            let time = m.compute_time(&shape);
            let now = (time, m.step_energy(&shape, time));
            assert!(now.0 >= last.0 && now.1 >= last.1, "{n} decodes");
            last = now;
        }
        assert!(m.compute_time(&decodes(64, 8000)) > m.compute_time(&decodes(64, 1000)));
    }

    #[test]
    fn table_joins_its_extrapolation() {
        let m = model();
        let end = m.dense.len() as u32 - 1;
        assert!(m.dense(end + 1) >= m.dense(end));
        assert!(m.dense(end + 1000) > m.dense(end + 1));
    }

    #[test]
    fn energy_stays_under_the_board_limit() {
        let m = model();
        let shape = decodes(256, 4000);
        let time = m.compute_time(&shape);
        assert!(m.step_energy(&shape, time) <= Milliwatts(700_000).over(time));
        assert!(m.idle_energy(time) < m.step_energy(&shape, time));
    }

    #[test]
    fn swap_beats_recompute_on_every_shipped_profile() {
        for name in Profile::NAMES {
            let m = CostModel::new(&Profile::load(name).unwrap());
            let tokens = Tokens(4096);
            let swap = m.swap_time(m.kv_bytes(tokens));
            assert!(swap.0 * 2 < m.recompute_time(tokens).0, "{name}");
        }
    }

    #[test]
    fn a_wrong_model_is_wrong_about_every_part() {
        let (right, wrong) = (model(), model().scaled(2.0, 0.5));
        let mut chunk = BatchShape::default();
        chunk.add_chunk(512, 1024);
        let swap = BatchShape { swap_out: Bytes(1 << 30), ..BatchShape::default() };
        assert!(wrong.swap_time(swap.swap_out).0.abs_diff(2 * right.swap_time(swap.swap_out).0) < 3);
        let second = Nanos::from_millis(1000);
        assert_eq!(2 * wrong.idle_energy(second).0, right.idle_energy(second).0);
        for shape in [decodes(64, 1000), chunk, swap] {
            assert!(wrong.compute_time(&shape).0.abs_diff(2 * right.compute_time(&shape).0) < 3, "{shape:?}");
            let energy = |model: &CostModel| model.step_energy(&shape, second).0;
            assert!((2 * energy(&wrong)).abs_diff(energy(&right)) < 3, "{shape:?}");
        }
    }

    #[test]
    fn constant_step_ignores_the_shape() {
        let m = model().with_constant_step(Nanos(7));
        assert_eq!(m.compute_time(&decodes(1, 1)), Nanos(7));
        assert_eq!(m.compute_time(&decodes(200, 9000)), Nanos(7));
        assert_eq!(m.compute_time(&BatchShape::default()), Nanos::ZERO);
        assert_eq!(m.swap_time(Bytes(1 << 30)), Nanos::ZERO);
    }
}
