//! A machine in virtual time, one order, and what latencies come of it.
//!
//! It goes by the same steps as the real one (a token for whoever decodes, prompts in chunks behind
//! them up to the budget, a pool of KV, the cost model's time), with what does not tell orders apart
//! left out: nobody is evicted, a job holds its mean size, and steps that are alike are taken at once.

use super::super::lane::Lane;
use super::outlook::{Outlook, Waiting};
use super::tail::Tail;
use crate::cost::{BatchShape, CostModel};
use crate::units::Nanos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Jobs that wait for a machine; those beyond are left out.
const QUEUE_MAX: usize = 2_048;
/// Jobs of a queue that are looked at, of the residents, too. [`Job::rank`] has 7 bits for one.
pub(super) const PROBES: usize = 1 << 7;
/// Runs of alike steps per arrival, so that no arrival costs more than its share.
const RUNS_MAX: usize = 16;
/// Share of the pool that is left free for the lane.
const HEADROOM: f64 = 0.03;

/// The real machine, as far as its shadows know it.
#[derive(Debug)]
pub(in super::super) struct Model {
    /// What steps cost.
    pub cost: CostModel,
    /// How much longer they take than that.
    pub stretch: f64,
    /// Tokens per step.
    pub budget: u32,
    /// Tokens of KV.
    pub pool: u64,
    /// Sequences per step.
    pub seqs: usize,
    /// Tokens that the lane gives.
    pub quantum: u32,
    /// Share of the machine that the lane takes.
    pub share: f64,
    /// The largest newcomer that the lane takes, in mean jobs.
    pub limit: f64,
}

/// Machine time that the real one spends, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Rates {
    /// Per prefill token.
    pub prefill: f64,
    /// Per decoded token, at saturation.
    pub decode: f64,
    /// Per step that decodes.
    pub step: f64,
}

impl Rates {
    pub(super) fn work(&self, prefill: u64, decode: u64) -> f64 {
        self.prefill * prefill as f64 + self.decode * decode as f64
    }
}

/// A job that arrives.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Arrival {
    pub at: Nanos,
    /// Tokens.
    pub prompt: u32,
    /// Tokens of the prompt that need no prefill.
    pub cached: u32,
    /// Tokens, drawn.
    pub output: u32,
    /// Machine time until the end of the first quantum, in ns.
    pub newcomer_ns: f64,
    /// Machine time of a mean job, and that beside which a newcomer may be small, in ns.
    pub mean_ns: f64,
    pub large_ns: f64,
}

/// A job in a machine. The order of the fields is that of service: the lane, then by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Job {
    in_turn: bool,
    key: i64,
    number: u64,
    arrival: Nanos,
    prompt: u32,
    output: u32,
    /// Prompt tokens yet to prefill.
    pub missing: u32,
    pub generated: u32,
    /// Tokens with which it leaves, for good or for its turn.
    until: u32,
}

impl Job {
    /// Its place in the order of service as one number, which sorts faster than a job; then `place`, below
    /// [`PROBES`].
    pub(super) fn rank(&self, place: usize) -> u128 {
        let key = u128::from(self.key as u64 ^ 1 << 63);
        // A number has 56 bits.
        u128::from(self.in_turn) << 127 | key << 63 | u128::from(self.number) << 7 | place as u128
    }

    /// Tokens of KV that it holds in the mean.
    fn held(&self) -> u64 {
        u64::from(self.prompt) + u64::from(self.until / 2)
    }

    /// Tokens yet to decode; the first one comes with the prompt.
    pub(super) fn left(&self) -> u32 {
        self.output - self.generated.max(1)
    }

    fn context(&self) -> u64 {
        u64::from(self.prompt) + u64::from(self.generated)
    }

    pub(super) fn age(&self, now: f64) -> f64 {
        (now - self.arrival.0 as f64).max(0.0)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    queue: BinaryHeap<Reverse<Job>>,
    /// Tokens that those in the queue have yet to prefill and to decode.
    backlog: (u64, u64),
    /// Whose prompt is being prefilled.
    head: Option<Job>,
    /// Who decodes, with the step at which he leaves.
    residents: BinaryHeap<Reverse<(u64, Job)>>,
    /// Whose prompt ends in this step.
    begun: Vec<Job>,
    /// `None` for an order without one.
    lane: Option<Lane>,
    /// Tokens of KV that are held, and those that the residents' decodes read.
    held: u64,
    context: u64,
    /// In ns.
    now: f64,
    steps: u64,
    /// When somebody arrived last, in ns.
    arrived: u64,
    pub ttft: Tail,
    pub ttlt: Tail,
}

impl Machine {
    pub(super) fn new(model: &Model, with_lane: bool) -> Self {
        Self {
            queue: BinaryHeap::with_capacity(QUEUE_MAX + model.seqs),
            backlog: (0, 0),
            head: None,
            residents: BinaryHeap::with_capacity(model.seqs),
            begun: Vec::with_capacity(model.seqs),
            lane: with_lane.then(|| Lane::new(model.share)),
            held: 0,
            context: 0,
            now: 0.0,
            steps: 0,
            arrived: 0,
            ttft: Tail::new(),
            ttlt: Tail::new(),
        }
    }

    /// A job arrives, with its key in this order.
    pub(super) fn arrive(&mut self, number: u64, key: i64, arrival: &Arrival, model: &Model) {
        self.serve(arrival.at.0 as f64, model);
        if self.queue.len() >= QUEUE_MAX {
            return;
        }
        let express = self.takes(arrival, model.limit);
        let most = if express { model.quantum } else { u32::MAX };
        self.enqueue(Job {
            in_turn: !express,
            key,
            number,
            arrival: arrival.at,
            prompt: arrival.prompt,
            output: arrival.output,
            missing: (arrival.prompt - arrival.cached).max(1),
            generated: 0,
            until: arrival.output.min(most),
        });
    }

    fn enqueue(&mut self, job: Job) {
        self.backlog.0 += u64::from(job.missing);
        self.backlog.1 += u64::from(job.left());
        self.queue.push(Reverse(job));
    }

    fn takes(&mut self, arrival: &Arrival, limit: f64) -> bool {
        let gap = Nanos(arrival.at.0.saturating_sub(self.arrived));
        self.arrived = arrival.at.0;
        let Some(lane) = &mut self.lane else { return false };
        if self.queue.is_empty() {
            lane.refill(arrival.mean_ns);
        } else {
            lane.pass(gap, arrival.mean_ns);
        }
        lane.take(arrival.newcomer_ns, limit * arrival.large_ns)
    }

    /// Takes the steps that begin before `until`.
    fn serve(&mut self, until: f64, model: &Model) {
        for _ in 0..RUNS_MAX {
            if self.now >= until {
                return;
            }
            if !self.run(until, model) {
                self.now = until;
            }
        }
    }

    /// Takes one step, and those after it that are alike; false if there is nothing to do.
    fn run(&mut self, until: f64, model: &Model) -> bool {
        let decodes = self.residents.len() as u32;
        let mut shape = BatchShape { rows: decodes, tokens: decodes, decodes, ..BatchShape::default() };
        shape.decode_context = self.context;
        let room = model.budget.saturating_sub(decodes).max(1);
        self.fill(&mut shape, room, model);
        if shape.tokens == 0 && self.begun.is_empty() {
            return false;
        }
        let span = model.stretch * model.cost.compute_time(&shape).0.max(1) as f64;
        let begin = ((until - self.now) / span).ceil() as u64;
        let steps = 1 + self.alike(begin.saturating_sub(1), room);
        self.now += span * steps as f64;
        self.steps += steps;
        self.context += steps * u64::from(decodes);
        self.begin();
        self.end();
        true
    }

    /// Gives a step its chunks.
    fn fill(&mut self, shape: &mut BatchShape, mut room: u32, model: &Model) {
        while room > 0 {
            let Some(mut job) = self.head.take().or_else(|| self.admit(model)) else { return };
            let chunk = job.missing.min(room);
            if chunk > 0 {
                shape.add_chunk(chunk, job.prompt.saturating_sub(job.missing));
            }
            room -= chunk;
            job.missing -= chunk;
            if job.missing > 0 {
                self.head = Some(job);
            } else {
                self.begun.push(job);
            }
        }
    }

    /// The next in order, if there is room for him. An empty machine takes anybody.
    fn admit(&mut self, model: &Model) -> Option<Job> {
        let Reverse(next) = self.queue.peek()?;
        let rows = self.residents.len() + self.begun.len();
        let free = if next.in_turn { 1.0 - HEADROOM } else { 1.0 };
        let fits = self.held + next.held() <= (free * model.pool as f64) as u64 && rows < model.seqs;
        if !fits && rows > 0 {
            return None;
        }
        self.held += next.held();
        let Reverse(job) = self.queue.pop()?;
        self.backlog.0 -= u64::from(job.missing);
        self.backlog.1 -= u64::from(job.left());
        Some(job)
    }

    /// How often a step can be repeated, `most` at most, before somebody comes or goes. A long prompt's
    /// chunks get dearer, so no more than half of it goes at once.
    fn alike(&mut self, most: u64, room: u32) -> u64 {
        if !self.begun.is_empty() {
            return 0;
        }
        let leaves = self.residents.peek().map_or(u64::MAX, |Reverse((step, _))| step - self.steps);
        let steps = most.min(leaves.saturating_sub(1));
        let Some(head) = &mut self.head else { return steps };
        let steps = steps.min(u64::from((head.missing - 1) / room).div_ceil(2));
        head.missing -= steps as u32 * room;
        steps
    }

    /// First tokens.
    fn begin(&mut self) {
        while let Some(mut job) = self.begun.pop() {
            if job.generated == 0 {
                self.ttft.add(job.age(self.now), 1.0);
                job.generated = 1;
            }
            self.context += job.context();
            let leaves = self.steps + u64::from(job.until - job.generated);
            self.residents.push(Reverse((leaves, job)));
        }
    }

    /// Last tokens, or those of a quantum, after which a job waits for its turn.
    fn end(&mut self) {
        while self.residents.peek().is_some_and(|Reverse((step, _))| *step <= self.steps) {
            let Some(Reverse((_, mut job))) = self.residents.pop() else { return };
            self.held -= job.held();
            job.generated = job.until;
            self.context -= job.context();
            if job.until == job.output {
                self.ttlt.add(job.age(self.now), 1.0);
            } else {
                job.until = job.output;
                job.in_turn = true;
                self.enqueue(job);
            }
        }
    }

    pub(super) fn fade(&mut self) {
        self.ttft.fade();
        self.ttlt.fade();
    }

    /// Takes down what latencies were, and who is here: the residents, whose end is known, and of a long queue
    /// every n-th. O([`PROBES`]).
    pub(super) fn look(&self, rates: &Rates, now: f64, outlook: &mut Outlook) {
        outlook.ttft.copy(&self.ttft);
        outlook.ttlt.copy(&self.ttlt);
        let (residents, others) = probes(&self.residents);
        for Reverse((leaves, job)) in residents {
            let left = leaves - self.steps + u64::from(job.output - job.until);
            outlook.ttlt.add(job.age(now + rates.step * left as f64), others);
        }
        let (waiting, others) = probes(&self.queue);
        outlook.line.clear();
        outlook.line.extend(waiting.map(|Reverse(job)| *job));
        outlook.waiting = Waiting {
            now,
            rates: *rates,
            head: self.head,
            work: rates.work(self.backlog.0, self.backlog.1),
            others,
        };
    }
}

/// At most [`PROBES`] of a heap, evenly out of all its levels, and how many each stands for.
fn probes<T>(heap: &BinaryHeap<T>) -> (impl Iterator<Item = &T>, f32) {
    let stride = heap.len().div_ceil(PROBES).max(1);
    let count = heap.len().div_ceil(stride).max(1);
    (heap.iter().step_by(stride), heap.len() as f32 / count as f32)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cost::Profile;

    /// A machine of `seqs` sequences whose every step takes 10 ms, with 1,024 tokens a step and 10,000 of
    /// KV. Its lane is shut.
    pub(in super::super) fn model(seqs: usize) -> Model {
        let profile = Profile::load("h200-llama-3-8b").expect("it is built in");
        Model {
            cost: CostModel::new(&profile).with_constant_step(Nanos(10_000_000)),
            stretch: 1.0,
            budget: 1_024,
            pool: 10_000,
            seqs,
            quantum: 100,
            share: 0.25,
            limit: 0.0,
        }
    }

    pub(in super::super) fn arrival(at_ms: u64, prompt: u32, output: u32) -> Arrival {
        let at = Nanos(at_ms * 1_000_000);
        Arrival { at, prompt, cached: 0, output, newcomer_ns: 1e7, mean_ns: 1e8, large_ns: 1e8 }
    }

    /// The machine after these have come in the order of arrival, a thousand seconds later.
    fn after(model: &Model, arrivals: &[Arrival]) -> Machine {
        let mut machine = Machine::new(model, true);
        for (number, arrival) in (0..).zip(arrivals) {
            machine.arrive(number, arrival.at.0 as i64, arrival, model);
        }
        (0..1_000).for_each(|_| machine.serve(1e12, model));
        machine
    }

    #[test]
    fn a_lone_job_takes_its_chunks_and_its_tokens() {
        let machine = after(&model(8), &[arrival(0, 2_500, 10)]);
        assert_eq!((machine.ttft.sum, machine.ttlt.sum), (30e6, 120e6));
    }

    #[test]
    fn who_does_not_fit_waits_until_somebody_has_left() {
        let (first, second) = (arrival(0, 900, 100), arrival(0, 9_500, 1));
        let machine = after(&model(8), &[first, second]);
        let (alone, other) = (1_000e6, 1_000e6 + 100e6);
        assert_eq!(machine.ttlt.sum, alone + other, "ten chunks after the hundred tokens");
    }

    #[test]
    fn an_express_job_gives_way_after_its_quantum() {
        let mut model = model(1);
        model.limit = 1.0;
        let machine = after(&model, &[arrival(0, 1, 150), arrival(5, 1, 20)]);
        let (parked, short) = (1_700.0, 1_200.0 - 5.0);
        assert_eq!((machine.ttlt.sum / 1e6).round(), parked + short);
    }

    /// What a machine that takes one at a time foresees of `jobs`, and what comes true when nobody comes.
    fn foreseen(jobs: u64) -> (Outlook, Machine) {
        let model = model(1);
        let mut machine = Machine::new(&model, true);
        for i in 0..jobs {
            let job = arrival(i * 100, 1, 1 + 17 * (i as u32 % 5));
            machine.arrive(i, (i * 83 % jobs) as i64, &job, &model);
        }
        while !machine.residents.is_empty() {
            machine.serve(machine.now + 1.0, &model);
        }
        let mut outlook = Outlook::new();
        machine.look(&Rates { prefill: 1e7, decode: 1e7, step: 1e7 }, machine.now, &mut outlook);
        outlook.foresee();
        assert!(machine.ttlt.total < 0.5 * jobs as f32, "most are yet to be served");
        (0..1_000).for_each(|_| machine.serve(1e12, &model));
        (outlook, machine)
    }

    #[test]
    fn what_is_foreseen_comes_true_if_nobody_comes() {
        let (outlook, machine) = foreseen(150);
        let sums = |tail: &Tail| (tail.total, (tail.sum / 1e6).round());
        assert_eq!(sums(&outlook.ttft), sums(&machine.ttft));
        assert_eq!(sums(&outlook.ttlt), sums(&machine.ttlt));
    }

    #[test]
    fn a_part_of_a_long_queue_stands_for_all_of_it() {
        let (outlook, machine) = foreseen(1_500);
        assert!((outlook.ttlt.total / machine.ttlt.total - 1.0).abs() < 1e-4);
        assert!((outlook.ttlt.mean() / machine.ttlt.mean() - 1.0).abs() < 0.02);
        let late = outlook.ttlt.quantile(0.01) / machine.ttlt.quantile(0.01);
        assert!((late - 1.0).abs() < 0.01, "{late}");
    }

    #[test]
    fn nothing_is_held_when_all_have_left() {
        let model = model(8);
        let arrivals: Vec<_> =
            (0..500).map(|i| arrival(i * 37, 1 + 71 * (i as u32 % 97), 1 + i as u32 % 53)).collect();
        let machine = after(&model, &arrivals);
        assert_eq!(machine.ttlt.total, 500.0);
        assert_eq!((machine.held, machine.context, machine.residents.len()), (0, 0, 0));
    }

    #[test]
    fn steps_at_once_are_as_good_as_one_by_one() {
        let model = model(8);
        let (mut whole, mut single) = (Machine::new(&model, true), Machine::new(&model, true));
        for i in 0..500u64 {
            let job = arrival(i * 370, 1 + 71 * (i as u32 % 97), 1 + i as u32 % 53);
            whole.arrive(i, job.at.0 as i64, &job, &model);
            (1..=37).for_each(|ms| single.serve(job.at.0 as f64 - 370e6 + f64::from(ms) * 1e7, &model));
            single.arrive(i, job.at.0 as i64, &job, &model);
        }
        assert!(whole.ttlt.total > 400.0);
        assert_eq!((whole.ttft.sum, whole.ttlt.sum), (single.ttft.sum, single.ttlt.sum));
    }
}
