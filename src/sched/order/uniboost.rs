//! UniBoost, after "Beyond Prediction: Tail-Aware Scheduling for LLM Inference" (arXiv 2606.18431), whole.
//!
//! One soft priority for prefills and decodes, waiting or resident: Φ = a − b_γ(w̃), the smallest first.
//! The less a job has been served, the earlier it counts as having arrived; γ → ∞ is first come first
//! served, γ → 0 shortest prompt first and then least attained service. No length is predicted.
//!
//! * **UniBoost-Base** (phase 2): effective work w̃ = max(w, s_pre) of w decoded tokens and a prompt of
//!   s_pre. A running job i goes for another, j, if Φ(j) < Φ(i) − δ.
//! * **MemGuard** (phase 3): w is taken in bins, ŵ = k·2^⌊log2(max(w, k)/k)⌋, and whoever was
//!   dispatched stays until 2ŵ. A job stands for choice only there: 1 + log2(S/k) times in S tokens.
//! * **γ-Ada** (phase 4): γ is the slope of the log tail of recent latencies, Eq. 9: see `gamma.rs`.
//!
//! Where the paper is silent or says two things, this is the reading:
//!
//! * *Units.* γ·w has none, so w needs seconds. `tokens-as-ms` counts a token as a millisecond, with which the
//!   γ of Figs. 5 and 9 fit together; `service-seconds` counts what tokens take on this machine, and in
//!   prefill the prompt alone: the first bin of decoded tokens would be longer than nearly every prompt.
//! * *Signal.* `max` is the main text's max(ŵ, s_pre). `phase` is SIGNAL of the appendix: the prompt in
//!   prefill, then decoded tokens alone, both in bins, so that the boost of a long prompt jumps up at its first
//!   token. `processed` counts prompt and output as served, as A.5 does.
//! * *Arrival* is the arrival in both phases ("arrival or phase-entry time" in the pseudocode).
//! * *δ* is 0.1 seconds (Table 7 has no unit). Waiting jobs stand δ behind their Φ.
//! * *Stay* (MemGuard: "not evictable") means neither evicted nor left out of a batch.
//! * *Admission* takes memory for all that is known of a job, with 1 % left free, as in the baselines.
//!   `admit=chunk` asks for the next chunk alone, as Algorithm 1 has it; where it was tried, mix-2 and the
//!   Azure traces, it came out the same within 1 % in TTLT.
//! * *Victims* (SELECT_VICTIM is not given): past its fence, the largest Φ; among those within δ of it, the
//!   one that is cheapest to restore per block freed. A newcomer evicts only whoever comes after it, and
//!   only if that suffices.
//! * *When nothing else can go*, whoever lacks a block overrides the fence of the largest Φ
//!   ([`Reason::Override`](crate::sched::Reason::Override), counted by the engine).
//! * *Without bins* (`memguard=off`) w is taken every 16 tokens. When memory is short, jobs then change places
//!   at each of these: what MemGuard is there to prevent.
//! * *Prefix cache* (A.5): w̃ = max(w, s_pre − h) with h cached tokens, as looked up when the job was last
//!   placed or admitted.

use super::gamma::Booster;
use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::ids::Places;
use crate::sched::{Admission, Event, Job, Policy, Rank, Resident, View};
use crate::units::Tokens;

/// Without MemGuard, residents are ranked anew each time they have decoded this many tokens more.
const RERANK: u32 = 16;

/// What counts as served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// The larger of decoded tokens and prompt.
    Max,
    /// The prompt in prefill, decoded tokens after.
    Phase,
    /// Prompt and decoded tokens, the prompt at least.
    Processed,
}

/// What MemGuard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemGuard {
    /// Bins and fences.
    On,
    /// Bins without fences.
    Bins,
    /// Neither.
    Off,
}

/// See the module. Parameters: `memguard` (`on`, `bins` for bins without fences, `off`), `k` (256 tokens),
/// `hysteresis` (0.1 seconds), `signal` (`max`, `phase`, `processed`), `prefix` (`on`, `off`), `admit`
/// (`known`, `chunk`), `headroom` (0.01), and those of γ in `gamma.rs`. `memguard=off:ada=off` is
/// UniBoost-Base.
pub struct UniBoost {
    name: String,
    booster: Booster,
    memguard: MemGuard,
    k: u32,
    hysteresis: i64,
    signal: Signal,
    prefix: bool,
    admission: Admission,
    headroom: u32,
}

impl UniBoost {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let memguard = params.choice("memguard", &["on", "bins", "off"])?;
        let signal = params.choice("signal", &["max", "phase", "processed"])?;
        let admission = params.choice("admit", &["known", "chunk"])?;
        let booster = Booster::new(params)?;
        if signal == 2 && !booster.counts_alike() {
            return Err(params.error(
                "signal=processed adds prompt and output, which units=service-seconds counts differently",
            ));
        }
        Ok(Self {
            name: params.spec(),
            booster,
            memguard: [MemGuard::On, MemGuard::Bins, MemGuard::Off][memguard],
            k: params.number("k", 256.0, 1.0, 65_536.0)? as u32,
            hysteresis: (params.number("hysteresis", 0.1, 0.0, 3600.0)? * 1e9) as i64,
            signal: [Signal::Max, Signal::Phase, Signal::Processed][signal],
            prefix: params.choice("prefix", &["on", "off"])? == 0,
            admission: [Admission::Known, Admission::NextChunk][admission],
            headroom: fcfs::headroom(params)?,
        })
    }

    /// ŵ of `tokens`: k·2^⌊log2(max(w, k)/k)⌋; without MemGuard, as they were last ranked.
    fn bin(&self, tokens: u32) -> u32 {
        match self.memguard {
            MemGuard::Off => tokens / RERANK * RERANK,
            _ => self.k << (tokens / self.k).max(1).ilog2(),
        }
    }

    /// Where the next bin begins.
    fn next_bin(&self, tokens: u32) -> u32 {
        match self.memguard {
            MemGuard::Off => self.bin(tokens) + RERANK,
            _ => 2 * self.bin(tokens),
        }
    }

    /// What the bins count of a job or row with these tokens.
    fn served(&self, prompt: u32, generated: u32) -> u32 {
        match self.signal {
            Signal::Processed if generated > 0 => prompt + generated,
            _ => generated,
        }
    }

    /// Φ, in nanoseconds.
    fn phi(&self, job: &Job) -> i64 {
        let cached = if self.prefix { job.cached } else { Tokens::ZERO };
        let prompt = (job.prompt - cached).0;
        let decodes = job.generated > Tokens::ZERO;
        let bin = self.bin(self.served(job.prompt.0, job.generated.0));
        let (prefill, decoded) = match self.signal {
            Signal::Phase if decodes => (0, bin.max(1)),
            Signal::Phase => (self.bin(prompt).max(1), 0),
            _ if decodes || self.booster.counts_alike() => (prompt, bin),
            _ => (prompt, 0),
        };
        self.booster.phi(job, prefill, decoded)
    }

    /// How many tokens a job has generated when its Φ changes next.
    fn until(&self, job: &Job) -> u32 {
        let next = self.next_bin(self.served(job.prompt.0, job.generated.0));
        let enters_decode = job.generated == Tokens::ZERO;
        match self.signal {
            Signal::Max if self.booster.counts_alike() => next,
            _ if enters_decode => 1,
            Signal::Processed => next - job.prompt.0,
            _ => next,
        }
    }

    /// Whether a resident stands at a threshold, where it has not been dispatched again yet.
    fn at_threshold(&self, row: &Resident) -> bool {
        let served = self.served(row.prompt, row.generated());
        row.decodes() && served >= 2 * self.k && served == self.bin(served)
    }
}

impl Policy for UniBoost {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, self.phi(job));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank { value: self.phi(job), until: self.until(job), mark: 0 }
    }

    fn epoch(&self) -> u64 {
        self.booster.epoch()
    }

    fn groups(&mut self, view: &mut View<'_>) {
        view.waiting.set_group(ALL, self.hysteresis, true, view.share_of_pool(self.headroom));
    }

    fn admission(&self) -> Admission {
        self.admission
    }

    fn protects(&self, row: &Resident) -> bool {
        self.memguard == MemGuard::On && !self.at_threshold(row)
    }

    fn victim_slack(&self) -> i64 {
        self.hysteresis.max(1)
    }

    fn on(&mut self, event: &Event<'_>) {
        self.booster.on(event);
    }
}

#[cfg(test)]
mod tests {
    use super::super::gamma::tests::job;
    use super::*;

    fn policy(parameters: &str) -> UniBoost {
        let mut params = Params::new(&format!("uniboost:gamma=0.1{parameters}")).unwrap();
        let policy = UniBoost::new(&mut params).unwrap();
        params.finish().unwrap();
        policy
    }

    fn row(prompt: u32, generated: u32) -> Resident {
        let computed = if generated > 0 { prompt + generated - 1 } else { prompt / 2 };
        Resident { prompt, computed, missing: prompt + generated - computed, ..Resident::default() }
    }

    #[test]
    fn bins_double_from_k_and_phi_changes_only_between_them() {
        let policy = policy("");
        let bins: Vec<_> =
            [0, 255, 256, 511, 512, 1023, 1024, 10_000].iter().map(|t| policy.bin(*t)).collect();
        assert_eq!(bins, [256, 256, 256, 256, 512, 512, 1024, 8192]);
        let mut generated = 0;
        let mut revisions = 0;
        while generated < 10_000 {
            let until = policy.until(&job(100, generated));
            assert_eq!(policy.phi(&job(100, generated)), policy.phi(&job(100, until - 1)));
            assert!(policy.phi(&job(100, generated)) < policy.phi(&job(100, until)), "service lets it rise");
            (generated, revisions) = (until, revisions + 1);
        }
        assert_eq!(revisions, 6, "1 + log2(S/k), section 3.3");
    }

    #[test]
    fn the_prompt_counts_until_the_output_is_longer() {
        let policy = policy("");
        assert!(policy.phi(&job(300, 0)) < policy.phi(&job(3000, 0)), "the shorter prompt first");
        assert_eq!(policy.phi(&job(3000, 0)), policy.phi(&job(3000, 2047)));
        assert!(policy.phi(&job(3000, 0)) < policy.phi(&job(3000, 4096)));
    }

    #[test]
    fn signals_differ_in_what_they_count() {
        let phase = policy(":signal=phase");
        assert!(phase.phi(&job(5000, 0)) > phase.phi(&job(5000, 1)), "the boost jumps at the first token");
        assert_eq!(phase.phi(&job(5000, 1)), phase.phi(&job(10, 1)));
        assert_eq!((phase.until(&job(5000, 0)), phase.until(&job(5000, 1))), (1, 512));
        let processed = policy(":signal=processed");
        assert_eq!(processed.phi(&job(500, 0)), policy("").phi(&job(500, 0)));
        assert_eq!(processed.phi(&job(500, 12)), policy("").phi(&job(10, 512)));
        assert_eq!(processed.until(&job(500, 12)), 524);
    }

    #[test]
    fn cached_tokens_are_no_work() {
        let cached = Job { cached: Tokens(2600), ..job(3000, 0) };
        assert_eq!(policy("").phi(&cached), policy("").phi(&job(400, 0)));
        assert_eq!(policy(":prefix=off").phi(&cached), policy("").phi(&job(3000, 0)));
    }

    #[test]
    fn whoever_was_dispatched_stays_until_its_next_threshold() {
        let policy = policy("");
        let stays = |generated| policy.protects(&row(100, generated));
        assert!([0, 1, 255, 256, 511, 513, 1023, 1025].into_iter().all(stays));
        assert!(![512, 1024, 2048].into_iter().any(stays), "there it stands for choice");
        let again = Resident { computed: 50, missing: 562, ..row(100, 512) };
        assert!(policy.protects(&again), "it was dispatched to be computed again");
    }

    #[test]
    fn without_memguard_phi_follows_service_and_nobody_stays() {
        let base = policy(":memguard=off");
        assert_eq!(base.until(&job(10, 100)), 112);
        assert!(base.phi(&job(10, 100)) < base.phi(&job(10, 112)));
        assert!(!base.protects(&row(100, 5)));
        let bins = policy(":memguard=bins");
        assert_eq!(bins.until(&job(10, 100)), 512);
        assert!(!bins.protects(&row(100, 5)));
    }

    #[test]
    fn service_seconds_count_the_prompt_alone_in_prefill() {
        let policy = policy(":units=service-seconds");
        assert!(policy.phi(&job(100, 0)) < policy.phi(&job(1000, 0)), "shorter than 256 decoded tokens");
        assert_eq!(policy.until(&job(100, 0)), 1);
        assert!(policy.phi(&job(1000, 0)) < policy.phi(&job(1000, 1)));
    }
}
