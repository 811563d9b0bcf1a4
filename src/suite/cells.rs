//! Cells: which machine, which work, how it arrives, at which load.
//!
//! The 44 are 11 pairs of machine and workload at four loads each: a capacity is of a pair, so a load
//! means the same in all four. Mixes and bursts are those of [`crate::trace`]; a recorded trace keeps its
//! own bursts and starts elsewhere for each seed.
//!
//! They follow the study in which the policies were chosen: reasoning outputs normal, 9.1k ± 4.3k in 0.9k to
//! 17.6k with 0.7 % up to 25k, short ones log-uniform in 10 to 250, prompts lognormal with median 105; bursts
//! of 60 requests on average at 10 to 30 times the mean rate. What it leaves open is chosen here: prompts
//! have P99 350 and are cut to 8..=2048, a burst's size is geometric and its rate uniform, silences are
//! exponential. Its Azure traces were whole; where only their first parts are at hand they wrap sooner.

use crate::config::Preempt;
use crate::trace::Mix;
use std::fmt;
use std::path::{Path, PathBuf};

/// Requests of a full run.
pub const REQUESTS: usize = 10_000;
/// Loads of the 44 cells, relative to the saturated rate of `fcfs` with swap.
pub const LOADS: [f64; 4] = [0.7, 0.9, 0.99, 1.1];
/// The machine of most cells.
pub const A100: &str = "a100-llama-3-8b";
/// The machine on which few requests fit.
pub const CL34: &str = "a100-codellama-34b";
/// The larger machine.
pub const H200: &str = "h200-llama-3-8b";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Lengths of a built-in mix.
    Mix(Mix),
    /// One mix in the first half of the requests, another in the second, each at the cell's load.
    Shift(Mix, Mix),
    /// 90 % short and 10 % long requests, as in the paper's A.3.
    LongAndShort,
    /// A file or folder of public data.
    Public(Public),
}

/// Public data, by the files it comes in below the folder of traces: the whole one or its first part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Public {
    /// Its name in tables.
    pub name: &'static str,
    /// Where it may be, the best first.
    pub files: &'static [&'static str],
    /// Whether it has no times of its own and needs an arrival process.
    pub untimed: bool,
}

/// Azure conversations, 2023 (Splitwise).
pub const AZURE_CONV: Public = Public {
    name: "azure-conv",
    files: &[
        "azure-2023/AzureLLMInferenceTrace_conv.csv",
        "AzureLLMInferenceTrace_conv.csv",
        "azure-2023/AzureLLMInferenceTrace_conv.first.csv",
    ],
    untimed: false,
};
/// Azure code completions, 2023 (Splitwise).
pub const AZURE_CODE: Public = Public {
    name: "azure-code",
    files: &[
        "azure-2023/AzureLLMInferenceTrace_code.csv",
        "AzureLLMInferenceTrace_code.csv",
        "azure-2023/AzureLLMInferenceTrace_code.first.csv",
    ],
    untimed: false,
};
/// ShareGPT lengths (Sarathi-Serve).
pub const SHAREGPT: Public = Public {
    name: "sharegpt",
    files: &["lengths/sharegpt_8k_filtered_stats_llama2_tokenizer.csv"],
    untimed: true,
};
/// Lengths of arXiv summarisation (Vidur).
pub const ARXIV: Public = Public {
    name: "arxiv",
    files: &["lengths/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv"],
    untimed: true,
};
/// Mooncake conversations, with the content of prompts.
pub const MOONCAKE: Public = Public {
    name: "mooncake",
    files: &[
        "mooncake-fast25/conversation_trace.jsonl",
        "conversation_trace.jsonl",
        "mooncake-fast25/conversation_trace.first.jsonl",
    ],
    untimed: false,
};
/// Clients of a large language model, ServeGen.
pub const SERVEGEN: Public =
    Public { name: "servegen-m-large", files: &["servegen/language/m-large"], untimed: false };

impl Public {
    /// Its file below `folder`, if one is there.
    pub fn find(&self, folder: &Path) -> Option<PathBuf> {
        self.files.iter().map(|file| folder.join(file)).find(|path| path.exists())
    }
}

/// What a cell changes of its machine. Nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    /// The most sequences in one step.
    pub max_num_seqs: Option<u32>,
    /// Tokens of KV on the device.
    pub kv_tokens: Option<u32>,
    /// How an evicted sequence keeps its state; [`Preempt::Auto`] otherwise.
    pub preempt: Option<Preempt>,
    /// Bandwidth to the host, GB/s.
    pub swap_gb_s: Option<f64>,
    /// The most tokens in one step; 1024 otherwise.
    pub chunk: Option<u32>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut put = |name: &str, value: Option<String>| match value {
            Some(value) => write!(f, " {name}={value}"),
            None => Ok(()),
        };
        put("seqs", self.max_num_seqs.map(|v| v.to_string()))?;
        put("kv", self.kv_tokens.map(|v| v.to_string()))?;
        put("preempt", self.preempt.map(|v| format!("{v:?}").to_lowercase()))?;
        put("swap-gb-s", self.swap_gb_s.map(|v| v.to_string()))?;
        put("chunk", self.chunk.map(|v| v.to_string()))
    }
}

/// A machine and its work at one load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The machine's profile.
    pub profile: &'static str,
    /// What is asked for.
    pub work: Work,
    /// How it arrives, as [`crate::trace::Arrivals::parse`] reads it; a trace with times has its own.
    pub arrivals: &'static str,
    /// Rate relative to capacity.
    pub load: f64,
    /// How many requests.
    pub requests: usize,
    /// What differs from the profile.
    pub change: Change,
}

impl Cell {
    /// Ten thousand requests of a workload at a load.
    pub const fn new(profile: &'static str, work: Work, arrivals: &'static str, load: f64) -> Self {
        let change =
            Change { max_num_seqs: None, kv_tokens: None, preempt: None, swap_gb_s: None, chunk: None };
        Self { profile, work, arrivals, load, requests: REQUESTS, change }
    }

    /// The machine, the work and what is changed: the same at all loads.
    pub fn pair(&self) -> String {
        let arrivals = if self.timed() { String::new() } else { format!(" {}", self.arrivals) };
        format!("{} {}{arrivals}{}", self.profile, self.work, self.change)
    }

    /// Its name in tables.
    pub fn name(&self) -> String {
        format!("{} {}", self.pair(), self.load)
    }

    /// Whether the work has times of its own.
    fn timed(&self) -> bool {
        matches!(self.work, Work::Public(public) if !public.untimed)
    }

    /// Whether it is one of the 44.
    pub fn is_of_the_lab(&self) -> bool {
        let pair = (self.profile, self.work, self.arrivals);
        LAB.contains(&pair) && LOADS.contains(&self.load)
    }

    /// The files of which one is needed, if none is in `folder`.
    pub fn missing(&self, folder: &Path) -> Option<&'static [&'static str]> {
        match self.work {
            Work::Public(public) if public.find(folder).is_none() => Some(public.files),
            _ => None,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mix(mix) => write!(f, "{mix}"),
            Self::Shift(a, b) => write!(f, "{a}>{b}"),
            Self::LongAndShort => f.write_str("long-and-short"),
            Self::Public(public) => f.write_str(public.name),
        }
    }
}

/// A workload on a machine.
type Pair = (&'static str, Work, &'static str);

const MIX_2: Work = Work::Mix(Mix::Mix2);
const MIX_1: Work = Work::Mix(Mix::Mix1);

/// The eleven pairs of the 44 cells.
const LAB: [Pair; 11] = [
    (A100, MIX_2, "poisson"),
    (A100, MIX_1, "poisson"),
    (A100, MIX_2, "gamma:3"),
    (A100, MIX_2, "onoff"),
    (A100, Work::Mix(Mix::S1k), "poisson"),
    (A100, Work::Mix(Mix::Mix05), "poisson"),
    (A100, Work::Public(AZURE_CONV), ""),
    (A100, Work::Public(AZURE_CODE), ""),
    (CL34, MIX_2, "poisson"),
    (H200, MIX_2, "poisson"),
    (H200, MIX_1, "gamma:3"),
];

/// Pairs that no policy was tuned on; at two loads.
const BEYOND: [Pair; 12] = [
    (A100, Work::Public(SHAREGPT), "poisson"),
    (A100, Work::Public(SHAREGPT), "gamma:3"),
    (A100, Work::Public(ARXIV), "poisson"),
    (A100, Work::Public(ARXIV), "gamma:3"),
    (H200, Work::Public(SHAREGPT), "poisson"),
    (H200, Work::Public(SHAREGPT), "gamma:3"),
    (H200, Work::Public(ARXIV), "poisson"),
    (H200, Work::Public(ARXIV), "gamma:3"),
    (A100, Work::Public(MOONCAKE), ""),
    (H200, Work::Public(MOONCAKE), ""),
    (A100, Work::Public(SERVEGEN), ""),
    (H200, Work::Public(SERVEGEN), ""),
];

/// The cells of a quick run.
const QUICK: [(Pair, f64); 4] = [
    ((A100, MIX_2, "poisson"), 0.99),
    ((A100, MIX_1, "poisson"), 1.1),
    ((A100, MIX_2, "onoff"), 0.9),
    ((A100, Work::Public(AZURE_CONV), ""), 0.9),
];

fn at(loads: &'static [f64]) -> impl Fn(&Pair) -> Vec<Cell> {
    move |(profile, work, arrivals)| {
        loads.iter().map(|load| Cell::new(profile, *work, arrivals, *load)).collect()
    }
}

/// The 44 cells.
pub fn lab() -> Vec<Cell> {
    LAB.iter().flat_map(at(&LOADS)).collect()
}

/// The cells beyond them: homogeneous traffic, prefix caches and drawn clients.
pub fn beyond() -> Vec<Cell> {
    BEYOND.iter().flat_map(at(&LOADS[1..3])).collect()
}

/// A few that differ most.
pub fn quick() -> Vec<Cell> {
    let cell = |((profile, work, arrivals), load): &(Pair, f64)| Cell::new(profile, *work, arrivals, *load);
    QUICK.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_cells_are_44_and_all_differ() {
        assert_eq!(lab().len(), 44);
        let all: Vec<Cell> = lab().into_iter().chain(beyond()).collect();
        let names: BTreeSet<String> = all.iter().map(Cell::name).collect();
        assert_eq!((names.len(), beyond().len()), (all.len(), 24));
        let pairs: BTreeSet<String> = lab().iter().map(Cell::pair).collect();
        assert_eq!(pairs.len(), 11);
        assert!(quick().iter().all(|cell| names.contains(&cell.name())));
    }

    #[test]
    fn a_name_says_what_is_changed() {
        let mut cell = Cell::new(A100, Work::Shift(Mix::Mix1, Mix::Mix2), "poisson", 0.99);
        assert_eq!(cell.name(), "a100-llama-3-8b mix-1>mix-2 poisson 0.99");
        cell.change = Change { preempt: Some(Preempt::Recompute), chunk: Some(128), ..cell.change };
        assert_eq!(cell.name(), "a100-llama-3-8b mix-1>mix-2 poisson preempt=recompute chunk=128 0.99");
        assert_eq!(Cell::new(A100, Work::Public(AZURE_CODE), "", 0.7).pair(), "a100-llama-3-8b azure-code");
    }

    #[test]
    fn an_absent_file_is_named() {
        let cell = Cell::new(A100, Work::Public(ARXIV), "poisson", 0.9);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(cell.missing(folder.path()), Some(ARXIV.files));
        std::fs::create_dir(folder.path().join("lengths")).unwrap();
        std::fs::write(folder.path().join(ARXIV.files[0]), "x").unwrap();
        assert_eq!(cell.missing(folder.path()), None);
    }
}
