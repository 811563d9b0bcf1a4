//! What an engine does when something goes wrong, or is at its limit.

use super::*;
use crate::clock::VirtualClock;
use crate::cost::Profile;
use crate::error::ExecError;
use crate::exec::sim::{Script, SimExecutor};
use crate::sched::{Admission, Draft, Job, Rank, Reason, order};

/// A device that fails rows, or altogether.
pub(super) struct Faulty {
    pub(super) device: SimExecutor,
    /// Whether a row of a step fails.
    pub(super) fails: Box<dyn FnMut(u64, u32) -> bool + Send>,
    /// The step that loses the device.
    pub(super) lost: Option<u64>,
}

impl Executor for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn submit(&mut self, plan: &BatchPlan) -> Result<InFlight, ExecError> {
        self.device.submit(plan)
    }

    fn wait(&mut self, step: InFlight, outcome: &mut StepOutcome) -> Result<(), ExecError> {
        let number = step.step();
        self.device.wait(step, outcome)?;
        outcome.failed.clear();
        let rows = 0..outcome.tokens.len() as u32;
        outcome.failed.extend(rows.filter(|row| (self.fails)(number, *row)));
        if self.lost == Some(number) { Err(ExecError::DeviceLost("a test".into())) } else { Ok(()) }
    }
}

fn config() -> Config {
    Config {
        kv_blocks: Blocks(64),
        host_blocks: Blocks(256),
        max_num_seqs: 4,
        max_resident: 4,
        max_num_batched_tokens: Tokens(64),
        ..Config::default()
    }
}

/// An engine whose requests never stop by themselves. The first row of one step may fail, and another lose the device.
fn engine(config: Config, policy: Box<dyn Policy>, fails: Option<u64>, lost: Option<u64>) -> Engine {
    let clock = VirtualClock::new();
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let script = Script::new([Tokens(100_000); 64]);
    let device = SimExecutor::new(clock.clone(), cost.clone(), script, 1);
    let fails = Box::new(move |step, row| (Some(step), row) == (fails, 0));
    Engine::new(config, policy, Box::new(Faulty { device, fails, lost }), Box::new(clock), cost).unwrap()
}

fn fcfs(config: Config) -> Engine {
    engine(config, order::parse("fcfs", None).unwrap(), None, None)
}

fn asked(prompt: u32, max_tokens: u32) -> Request {
    Request::new(Nanos::ZERO, Prompt::Length(Tokens(prompt)), Tokens(max_tokens))
}

/// Steps until nothing is left to do; who ended, in order.
fn finish(engine: &mut Engine) -> Vec<Ended> {
    let mut ended = Vec::new();
    while !engine.is_idle() {
        ended.extend_from_slice(engine.step().unwrap().ended);
        engine.check();
    }
    ended
}

#[test]
fn nothing_of_a_row_that_failed_is_shared() {
    let caching = Config { prefix_cache: true, ..config() };
    for depth in [1, 2] {
        let setup = Config { pipeline_depth: depth, ..caching.clone() };
        let mut engine = engine(setup, order::parse("fcfs", None).unwrap(), Some(1), None);
        let prompt = Prompt::Tokens((0..40).collect());
        let request = || Request::new(Nanos::ZERO, prompt.clone(), Tokens(3));
        engine.submit(request()).unwrap();
        let failed = finish(&mut engine)[0];
        assert_eq!((failed.reason, failed.generated), (FinishReason::Failed, Tokens::ZERO));
        engine.submit(request()).unwrap();
        let next = finish(&mut engine)[0];
        assert_eq!((next.reason, next.cached), (FinishReason::Length, Tokens::ZERO), "depth {depth}");
        engine.submit(request()).unwrap();
        assert_eq!(finish(&mut engine)[0].cached, Tokens(32), "what was computed is");
    }
}

/// Keeps how many tokens the last one that ended had.
struct Listener(std::sync::Arc<std::sync::Mutex<Tokens>>);

impl Policy for Listener {
    fn name(&self) -> &str {
        "listener"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(GroupId(0), job.id.number() as i64);
    }

    fn on(&mut self, event: &Event<'_>) {
        if let Event::Finished(job, ..) = event {
            *self.0.lock().unwrap() = job.generated;
        }
    }
}

#[test]
fn a_row_that_fails_keeps_the_tokens_before() {
    for depth in [1, 2] {
        let setup = Config { pipeline_depth: depth, ..config() };
        let heard = std::sync::Arc::default();
        let mut engine = engine(setup, Box::new(Listener(std::sync::Arc::clone(&heard))), Some(3), None);
        engine.submit(asked(10, 100)).unwrap();
        let failed = finish(&mut engine)[0];
        assert_eq!((failed.reason, failed.generated), (FinishReason::Failed, Tokens(2)), "depth {depth}");
        assert_eq!(*heard.lock().unwrap(), Tokens(2), "the policy hears the same");
    }
}

#[test]
fn all_requests_of_a_lost_device_end_as_failed() {
    for depth in [1, 2] {
        let setup = Config { pipeline_depth: depth, ..config() };
        let mut engine = engine(setup, order::parse("fcfs", None).unwrap(), None, Some(3));
        let ids: Vec<_> = (0..9).map(|_| engine.submit(asked(10, 100)).unwrap()).collect();
        let error = (0..9).find_map(|_| engine.step().err()).unwrap();
        assert!(matches!(error, StepError::Exec(ExecError::DeviceLost(_))), "{error}");
        engine.check();
        let report = engine.last_report();
        let mut failed: Vec<_> = report.ended.iter().map(|e| (e.id, e.reason)).collect();
        failed.sort_unstable_by_key(|(id, _)| *id);
        assert!(failed.iter().map(|(id, _)| *id).eq(ids) && report.plan.is_none());
        assert!(failed.iter().all(|(_, reason)| *reason == FinishReason::Failed));
        assert!(report.decision.is_empty());
        assert!(engine.is_idle() && matches!(engine.step(), Err(StepError::Poisoned(_))));
        assert!(engine.last_report().ended.is_empty(), "each end is reported once");
        assert!(matches!(engine.submit(asked(10, 1)), Err(SubmitError::Poisoned(_))));
    }
}

#[test]
fn a_deadline_that_never_comes_hides_no_other() {
    let mut engine = fcfs(config());
    let with = |deadline| Request { deadline: Some(deadline), ..asked(10, 200) };
    engine.submit(with(Nanos::MAX)).unwrap();
    let soon = engine.submit(with(Nanos(1_000_000))).unwrap();
    let ended = finish(&mut engine);
    assert_eq!((ended[0].id, ended[0].reason), (soon, FinishReason::Deadline));
    assert_eq!(ended[1].reason, FinishReason::Length);
}

#[test]
fn a_limit_beyond_the_model_takes_no_more_room_than_the_model_has() {
    let mut engine = fcfs(Config { max_model_len: Tokens(512), content_tokens_max: 600, ..config() });
    let request = || Request::new(Nanos::ZERO, Prompt::Tokens([1, 2, 3].into()), Tokens(u32::MAX));
    engine.submit(request()).unwrap();
    assert!(matches!(engine.submit(request()), Err(SubmitError::ContentFull { needed: 512, free: 88 })));
}

#[test]
fn the_end_of_a_cancelled_request_is_reported_though_nothing_is_left() {
    let mut engine = fcfs(config());
    let id = engine.submit(asked(10, 5)).unwrap();
    assert!(engine.cancel(id) && !engine.is_idle());
    let ended = finish(&mut engine);
    assert_eq!(ended.iter().map(|e| (e.id, e.reason)).collect::<Vec<_>>(), [(id, FinishReason::Cancelled)]);
}

#[test]
fn an_engine_without_the_groups_of_its_policy_is_none() {
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let clock = VirtualClock::new();
    let device = SimExecutor::new(clock.clone(), cost.clone(), Script::new([]), 1);
    let policy = order::parse("vtc:groups=65", None).unwrap();
    let error = Engine::new(config(), policy, Box::new(device), Box::new(clock), cost).err().unwrap();
    assert_eq!(error.to_string(), "groups_max is 64, but must be in 65..=65534");
}

/// Two groups; a request of the first evicts those of the second.
struct TwoClasses;

impl Policy for TwoClasses {
    fn name(&self) -> &str {
        "two-classes"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(GroupId(u16::from(job.priority)), self.rank(job).value);
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank::fixed(i64::from(job.priority) << 40 | job.id.number() as i64)
    }
}

#[test]
fn nobody_is_evicted_for_a_job_that_does_not_fit_all_the_same() {
    let mut engine = engine(config(), Box::new(TwoClasses), None, None);
    // Three of the first class hold most of the pool, and one of the second the last slot.
    for (priority, prompt) in [(0, 200), (0, 200), (0, 200), (1, 20)] {
        engine.submit(Request { priority, ..asked(prompt, 1_000) }).unwrap();
    }
    (0..20).for_each(|_| assert!(engine.step().is_ok()));
    assert_eq!(engine.gauges().resident, 4);
    engine.submit(Request { priority: 0, ..asked(600, 10) }).unwrap();
    (0..20).for_each(|_| assert!(engine.step().is_ok()));
    assert_eq!((engine.counters().swaps, engine.counters().recomputes), (0, 0));
}

/// Its ranks have a new epoch from the fifth step on, and another from the tenth; it lists who was placed.
struct Epochs {
    epoch: u64,
    placed: std::sync::Arc<std::sync::Mutex<Vec<u64>>>,
}

impl Policy for Epochs {
    fn name(&self) -> &str {
        "epochs"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        self.placed.lock().unwrap().push(job.id.number());
        places.push(GroupId(0), job.id.number() as i64);
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn groups(&mut self, view: &mut View<'_>) {
        self.epoch = u64::from(view.step >= 5) + u64::from(view.step >= 10);
    }
}

#[test]
fn a_new_epoch_reaches_all_though_the_queue_grows() {
    let placed = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let policy = Epochs { epoch: 0, placed: placed.clone() };
    let few = Config { rerank_per_step: 4, max_num_seqs: 1, max_resident: 1, ..config() };
    let mut engine = engine(few, Box::new(policy), None, None);
    (0..40).for_each(|_| assert!(engine.submit(asked(10, 400)).is_ok()));
    for step in 0..100 {
        // The first epoch has come half through the table when the second one begins.
        if step == 10 {
            placed.lock().unwrap().clear();
        }
        if step > 10 && step < 30 {
            (0..2).for_each(|_| assert!(engine.submit(asked(10, 400)).is_ok()));
        }
        engine.step().unwrap();
    }
    let placed = placed.lock().unwrap();
    assert!((1..40).all(|number| placed.contains(&number)), "{placed:?}");
}

/// Runs a prefill whole without the blocks that it takes.
struct Homeless;

impl Policy for Homeless {
    fn name(&self) -> &str {
        "homeless"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(GroupId(0), job.id.number() as i64);
    }

    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        if let Some(candidate) = view.waiting.peek() {
            let mut draft = Draft::new(view, decision);
            draft.admit_chunk(view, &candidate, Admission::NextChunk, 16, Reason::Order);
        } else {
            decision.run.push(crate::sched::Run { slot: view.order[0], tokens: 16, reason: Reason::Prefill });
        }
    }
}

#[test]
fn a_row_without_room_for_its_tokens_is_unsound() {
    let mut engine = engine(config(), Box::new(Homeless), None, None);
    engine.submit(asked(40, 10)).unwrap();
    engine.step().unwrap();
    let error = engine.step().unwrap_err().to_string();
    assert!(error.contains("row 0 cannot run 16 tokens"), "{error}");
}

#[test]
fn what_was_never_computed_is_not_computed_again() {
    // Of 600 tokens, 64 are computed when an urgent request takes the memory.
    let recompute = Config { preempt: crate::config::Preempt::Recompute, max_resident: 4, ..config() };
    let mut engine = engine(recompute, Box::new(TwoClasses), None, None);
    engine.submit(Request { priority: 1, ..asked(600, 5) }).unwrap();
    engine.step().unwrap();
    engine.submit(Request { priority: 0, ..asked(600, 5) }).unwrap();
    finish(&mut engine);
    assert_eq!((engine.counters().recomputes, engine.counters().recomputed_tokens), (1, 64));
}
