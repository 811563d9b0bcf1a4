//! Profiles: measured costs of one model on one machine, as data files with their sources.
//!
//! The shipped ones are fitted by `tools/calibrate` and embedded; any other is a file of the same
//! schema. `profiles/README.md` lists their sources, fit errors and checks.

use crate::error::ProfileError;
use crate::units::Tokens;
use serde::{Deserialize, Serialize};

/// Everything known of one model on one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// `flyball.profile/1`.
    pub schema: String,
    /// Its name, as `--profile` takes it.
    pub name: String,
    /// The model.
    pub model: ModelShape,
    /// The boards.
    pub hardware: Hardware,
    /// Memory and batch limits that fit them.
    pub limits: Limits,
    /// Step time.
    pub(super) time: Time,
    /// Copies between device and host.
    pub(super) swap: Swap,
    /// Step energy.
    pub(super) energy: Energy,
    /// Constants without a measured source, with the reasoning.
    pub assumed: Vec<String>,
    /// Where the numbers come from.
    pub sources: Vec<serde_json::Value>,
    /// Errors of the fit against its own data, by part.
    pub fit: Vec<serde_json::Value>,
    /// Errors against end-to-end measurements that the fit has not seen.
    pub check: Vec<serde_json::Value>,
}

/// The model's shape, as far as costs depend on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelShape {
    /// Its name.
    pub name: String,
    /// Transformer layers.
    pub layers: u32,
    /// Width.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Size of the vocabulary.
    pub vocab: u32,
    /// Parameters.
    pub params: f64,
    /// Bytes of KV per token, over all boards.
    pub kv_bytes_per_token: u64,
}

/// The boards that one engine spans.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hardware {
    /// Which board.
    pub gpu: String,
    /// How many.
    pub count: u32,
    /// Memory bandwidth of one, GB/s.
    pub hbm_gb_s: f64,
    /// Power limit of one, W.
    pub board_w: f64,
    /// Bandwidth to the host of one, GB/s.
    pub host_link_gb_s: f64,
}

/// Limits that fit the model on the boards.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Tokens of KV on the device.
    pub kv_tokens: Tokens,
    /// Tokens of KV in host memory.
    pub host_kv_tokens: Tokens,
    /// The most sequences in one step.
    pub max_num_seqs: u32,
    /// The most tokens of one sequence.
    pub max_model_len: Tokens,
}

/// Step time, in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Time {
    pub step_overhead_us: f64,
    pub row_us: f64,
    pub dense: Table,
    pub decode_attention: DecodePieces,
    pub prefill_attention: PrefillPieces,
}

/// A piecewise linear function of the tokens in a step; its last slope goes on for ever.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Table {
    pub tokens: Vec<u32>,
    pub us: Vec<f64>,
}

impl Table {
    /// One value for each token count up to the last knot, and the slope behind it.
    pub fn tabulate(&self) -> (Vec<f64>, f64) {
        let knots: Vec<(u32, f64)> = self.tokens.iter().copied().zip(self.us.iter().copied()).collect();
        let slope = |a: (u32, f64), b: (u32, f64)| (b.1 - a.1) / f64::from(b.0 - a.0);
        let mut values = vec![knots[0].1; knots[0].0 as usize + 1];
        for pair in knots.windows(2) {
            let per_token = slope(pair[0], pair[1]);
            values.extend((1..=pair[1].0 - pair[0].0).map(|i| pair[0].1 + per_token * f64::from(i)));
        }
        (values, slope(knots[knots.len() - 2], knots[knots.len() - 1]))
    }
}

/// One linear lower bound of an attention time: base + a · n + b · work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    base: f64,
    count: f64,
    work: f64,
}

impl Plane {
    pub fn scaled(self, factor: f64) -> Self {
        Self { base: self.base * factor, count: self.count * factor, work: self.work * factor }
    }

    /// The largest of the planes at a point; zero without planes.
    #[inline]
    pub fn max(planes: &[Plane], count: f64, work: f64) -> f64 {
        let at = |p: &Plane| p.base + p.count * count + p.work * work;
        // None is NaN, which `f64::max` would ask of each.
        planes.iter().map(at).fold(0.0, |most, ns| if ns > most { ns } else { most })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DecodePieces {
    pieces: Vec<DecodePiece>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DecodePiece {
    base_us: f64,
    seq_us: f64,
    ctx_us: f64,
}

impl DecodePieces {
    pub fn planes(&self) -> Vec<Plane> {
        self.pieces.iter().map(|p| Plane { base: p.base_us, count: p.seq_us, work: p.ctx_us }).collect()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PrefillPieces {
    pieces: Vec<PrefillPiece>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PrefillPiece {
    base_us: f64,
    chunk_us: f64,
    pair_us: f64,
}

impl PrefillPieces {
    pub fn planes(&self) -> Vec<Plane> {
        self.pieces.iter().map(|p| Plane { base: p.base_us, count: p.chunk_us, work: p.pair_us }).collect()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Swap {
    pub gb_s: f64,
    pub base_us: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Energy {
    pub idle_w: f64,
    pub busy_w: f64,
    pub token_j: f64,
    pub ctx_j: f64,
    pub pair_j: f64,
    pub swap_j_per_gb: f64,
}

/// The largest coefficient: a second for each token, or a megawatt. With what is far above, clocks would run out.
const COEFFICIENT_MAX: f64 = 1e6;

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        impl Profile {
            /// The profiles that the library carries.
            pub const NAMES: &[&str] = &[$($name),*];

            fn embedded(name: &str) -> Option<&'static str> {
                match name {
                    $($name => Some(include_str!(concat!("../../profiles/", $name, ".json"))),)*
                    _ => None,
                }
            }
        }
    };
}

embedded!(
    "a100-llama-3-8b",
    "h100-llama-3-8b",
    "h200-llama-3-8b",
    "a100-codellama-34b",
    "h100x4-llama-3.1-70b",
);

impl Profile {
    /// The embedded profile of this name, or the file at this path.
    ///
    /// # Errors
    /// If there is neither, or it does not describe a machine.
    pub fn load(name: &str) -> Result<Self, ProfileError> {
        if let Some(json) = Self::embedded(name) {
            return Self::parse(name, json);
        }
        if !name.ends_with(".json") {
            return Err(ProfileError::Unknown { name: name.into(), known: Self::NAMES.join(", ") });
        }
        let json =
            std::fs::read_to_string(name).map_err(|source| ProfileError::Io { path: name.into(), source })?;
        Self::parse(name, &json)
    }

    /// The same machine with another bandwidth to the host, in GB/s.
    ///
    /// # Panics
    /// If `gb_s` is not positive and finite.
    pub fn with_swap_gb_s(mut self, gb_s: f64) -> Self {
        assert!(gb_s > 0.0 && gb_s.is_finite(), "a link of {gb_s} GB/s");
        self.swap.gb_s = gb_s;
        self
    }

    /// Reads a profile from its JSON; `name` is for errors.
    ///
    /// # Errors
    /// If the JSON does not fit the schema, or a number cannot be.
    pub fn parse(name: &str, json: &str) -> Result<Self, ProfileError> {
        let profile: Self =
            serde_json::from_str(json).map_err(|source| ProfileError::Json { name: name.into(), source })?;
        match profile.defect() {
            None => Ok(profile),
            Some(what) => Err(ProfileError::Bad { name: name.into(), what }),
        }
    }

    fn defect(&self) -> Option<String> {
        if self.schema != "flyball.profile/1" {
            return Some(format!("schema is {:?}, not \"flyball.profile/1\"", self.schema));
        }
        let dense = &self.time.dense;
        let rising = |v: &[f64]| v.windows(2).all(|w| w[0] <= w[1]);
        if dense.tokens.len() != dense.us.len() || dense.tokens.len() < 2 {
            return Some("time.dense needs two or more points, tokens and us in pairs".into());
        }
        if !dense.tokens.windows(2).all(|w| w[0] < w[1]) || !rising(&dense.us) {
            return Some("time.dense must rise".into());
        }
        if dense.tokens[dense.tokens.len() - 1] > 1 << 20 {
            return Some("time.dense has a point behind 2^20 tokens".into());
        }
        let planes = [self.time.decode_attention.planes(), self.time.prefill_attention.planes()].concat();
        let plane_values = planes.iter().flat_map(|p| [p.base, p.count, p.work]);
        let t = &self.time;
        let e = &self.energy;
        let others = [t.step_overhead_us, t.row_us, self.swap.base_us, e.idle_w, e.busy_w, e.token_j];
        let more = [e.ctx_j, e.pair_j, e.swap_j_per_gb];
        let bounds = 0.0..=COEFFICIENT_MAX;
        if let Some(bad) = plane_values.chain(others).chain(more).find(|v| !bounds.contains(v)) {
            return Some(format!("a coefficient is {bad}; all must be from 0 to {COEFFICIENT_MAX}"));
        }
        let positive = [
            self.swap.gb_s,
            self.hardware.board_w,
            f64::from(self.hardware.count),
            self.model.kv_bytes_per_token as f64,
            dense.us[0],
        ];
        positive.iter().any(|v| *v <= 0.0).then(|| "a rate, limit or size is not positive".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_profile_is_sound_and_named_as_its_file() {
        for name in Profile::NAMES {
            let profile = Profile::load(name).unwrap();
            assert_eq!(profile.name, *name);
            assert!(!profile.sources.is_empty() && !profile.fit.is_empty(), "{name} names no source or fit");
        }
    }

    #[test]
    fn unknown_and_broken_profiles_say_what_is_wrong() {
        let unknown = Profile::load("tpu").unwrap_err().to_string();
        assert!(unknown.contains("h200-llama-3-8b"), "{unknown}");
        assert!(Profile::load("/nowhere/x.json").unwrap_err().to_string().contains("/nowhere/x.json"));
        assert!(Profile::parse("x", "{}").unwrap_err().to_string().contains("missing field"));
        let broken = Profile::embedded("h200-llama-3-8b").unwrap().replace("flyball.profile/1", "other");
        assert!(Profile::parse("x", &broken).unwrap_err().to_string().contains("schema"));
        let shipped = Profile::embedded("h200-llama-3-8b").unwrap();
        for (from, to, why) in [
            ("\"count\": 1", "\"count\": 0", "not positive"),
            ("\"row_us\": 39.17", "\"row_us\": -1", "a coefficient is -1; all must be from 0 to 1000000"),
            ("\"idle_w\": 100", "\"idle_w\": 1e18", "a coefficient is 1000000000000000000"),
        ] {
            let broken = Profile::parse("x", &shipped.replace(from, to)).unwrap_err().to_string();
            assert!(broken.contains(why), "{to}: {broken}");
        }
    }

    #[test]
    fn table_interpolates_and_extrapolates() {
        let table = Table { tokens: vec![1, 3, 5], us: vec![10.0, 20.0, 40.0] };
        let (values, slope) = table.tabulate();
        assert_eq!(values, [10.0, 10.0, 15.0, 20.0, 30.0, 40.0]);
        assert_eq!(slope, 10.0);
    }
}
