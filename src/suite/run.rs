//! Runs jobs on all cores: a job is a cell, a policy and a seed.
//!
//! Jobs of the same pair and seed have the same list of arrivals and the same capacity, which is taken
//! once. What is in the cache is not run again, so that a run which was killed goes on where it was.

use super::SuiteError;
use super::cache::{Cache, Origin};
use super::cells::{Cell, Work};
use super::figures::Figures;
use super::work::{Prepared, arrivals, at_rates, prepare};
use crate::cost::Profile;
use crate::sim::{Setup, SimError, capacity, simulate};
use crate::trace::Trace;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// One run to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What is run.
    pub cell: Cell,
    /// The policy, as [`crate::sched::order::parse`] reads it.
    pub policy: String,
    /// The seed.
    pub seed: u64,
}

impl Job {
    /// What tells it from the others.
    fn id(&self) -> Id {
        (format!("{} n={}", self.cell.name(), self.cell.requests), self.policy.clone(), self.seed)
    }
}

type Id = (String, String, u64);

/// The figures of jobs.
#[derive(Debug, Default)]
pub struct Results {
    figures: BTreeMap<Id, Figures>,
    /// How many were run now.
    pub fresh: usize,
    /// How many were there already.
    pub kept: usize,
    /// How many of those another build had made.
    pub foreign: usize,
    /// How many capacities were measured now.
    pub measured: usize,
}

impl Results {
    /// The figures of a job that was run.
    ///
    /// # Panics
    /// If it was not.
    pub fn of(&self, cell: &Cell, policy: &str, seed: u64) -> &Figures {
        let id = Job { cell: *cell, policy: policy.into(), seed }.id();
        self.figures.get(&id).unwrap_or_else(|| panic!("{id:?} was not run"))
    }

    /// All of them, by cell, policy and seed.
    pub fn all(&self) -> impl Iterator<Item = (&Id, &Figures)> {
        self.figures.iter()
    }

    /// Figures that a test has made up.
    #[cfg(test)]
    pub(super) fn made(all: impl IntoIterator<Item = (Job, Figures)>) -> Self {
        let figures = all.into_iter().map(|(job, figures)| (job.id(), figures)).collect();
        Self { figures, ..Self::default() }
    }

    fn add(&mut self, id: Id, ran: Ran) {
        self.figures.insert(id, ran.figures);
        self.measured += ran.measured;
        match ran.origin {
            Origin::Fresh => self.fresh += 1,
            Origin::Kept { own } => {
                self.kept += 1;
                self.foreign += usize::from(!own);
            }
        }
    }
}

/// Where jobs are run.
#[derive(Debug)]
pub struct Bench {
    /// Results of earlier runs.
    pub cache: Cache,
    /// The folder of recorded traces.
    pub traces: PathBuf,
    /// How many jobs are run at once.
    pub threads: usize,
}

/// Jobs with the same arrivals, which are made when the first of them is run.
struct Group {
    jobs: Vec<Job>,
    next: AtomicUsize,
    ready: Mutex<Option<Arc<Ready>>>,
}

/// Work, and the capacity of the machine on each part of it.
struct Ready {
    prepared: Prepared,
    capacities: Vec<f64>,
}

/// The figures of a job, where they come from, and the capacities that were measured for them.
struct Ran {
    figures: Figures,
    origin: Origin,
    measured: usize,
}

impl Bench {
    /// Runs `jobs`, each once, and calls `done` after each.
    ///
    /// # Errors
    /// The first that could not be run; those that were done are kept.
    pub fn run(&self, jobs: &[Job], done: &(dyn Fn() + Sync)) -> Result<Results, SuiteError> {
        let groups = groups(jobs);
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Ok(Results::default()));
        let drain = |group: &Group| {
            while let Some(job) = group.jobs.get(group.next.fetch_add(1, Ordering::Relaxed)) {
                let ran = self.job(job, group);
                let mut all = results.lock().expect("no thread panics while it adds a result");
                match (ran, &mut *all) {
                    (Ok(ran), Ok(all)) => all.add(job.id(), ran),
                    (Err(error), Ok(_)) => *all = Err(error),
                    (_, Err(_)) => return,
                }
                drop(all);
                done();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    // A group of one's own first: its capacity is taken while others take theirs.
                    while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                        drain(group);
                    }
                    groups.iter().for_each(drain);
                });
            }
        });
        results.into_inner().expect("no thread panicked")
    }

    fn job(&self, job: &Job, group: &Group) -> Result<Ran, SuiteError> {
        let (ready, measured) = self.ready(group)?;
        let rates: Vec<f64> = ready.capacities.iter().map(|c| job.cell.load * c).collect();
        let trace = at_rates(&ready.prepared.parts, &rates);
        let key = key("run", &ready.prepared.profile, &ready.prepared.setup, &trace, &job.policy);
        let (figures, origin) = self.cache.get_or_make(&key, || {
            let setup = Setup { policy: job.policy.clone(), ..ready.prepared.setup.clone() };
            let outcome = simulate(&setup, &arrivals(&trace), &mut ())?;
            let split = job.cell.work == Work::LongAndShort;
            Ok::<_, SimError>(Figures::of(&outcome, trace.rate(), split))
        })?;
        Ok(Ran { figures, origin, measured })
    }

    /// What a group shares, and how many capacities were measured for it by this call.
    fn ready(&self, group: &Group) -> Result<(Arc<Ready>, usize), SuiteError> {
        let mut ready = group.ready.lock().expect("no thread panics while it prepares");
        if let Some(ready) = &*ready {
            return Ok((Arc::clone(ready), 0));
        }
        let first = &group.jobs[0];
        let prepared = prepare(&first.cell, first.seed, &self.traces)?;
        let (capacities, measured) = self.capacities(&prepared)?;
        Ok((Arc::clone(ready.insert(Arc::new(Ready { prepared, capacities }))), measured))
    }

    /// The capacity of each part, from the cache or measured; and how many were measured.
    fn capacities(&self, prepared: &Prepared) -> Result<(Vec<f64>, usize), SuiteError> {
        let (mut capacities, mut measured) = (Vec::new(), 0);
        for part in &prepared.parts {
            let key = key("capacity", &prepared.profile, &prepared.setup, part, "fcfs");
            let measure = || capacity(&prepared.setup, &arrivals(part));
            let (rate, origin) = self.cache.get_or_make(&key, measure)?;
            capacities.push(rate);
            measured += usize::from(origin == Origin::Fresh);
        }
        Ok((capacities, measured))
    }
}

/// Jobs by what they share, each job once; loads of a group one after the other.
fn groups(jobs: &[Job]) -> Vec<Group> {
    let mut groups: BTreeMap<(String, usize, u64), BTreeMap<Id, Job>> = BTreeMap::new();
    for job in jobs {
        let shared = (job.cell.pair(), job.cell.requests, job.seed);
        groups.entry(shared).or_default().insert(job.id(), job.clone());
    }
    let group = |jobs: BTreeMap<Id, Job>| Group {
        jobs: jobs.into_values().collect(),
        next: AtomicUsize::new(0),
        ready: Mutex::default(),
    };
    groups.into_values().map(group).collect()
}

/// Everything that determines a result of a suite, but the code.
pub fn key(what: &str, profile: &Profile, setup: &Setup, trace: &Trace, policy: &str) -> Value {
    json!({
        "what": what,
        "profile": profile,
        "config": setup.config,
        "trace": trace.name,
        "rows": trace.rows.len(),
        "digest": format!("{:016x}", trace.digest),
        "policy": policy,
        "seed": setup.seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preempt;
    use crate::suite::cells::{A100, CL34};
    use crate::trace::Mix;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn cell(load: f64) -> Cell {
        Cell { requests: 60, ..Cell::new(A100, Work::Mix(Mix::Mix05), "poisson", load) }
    }

    fn job(policy: &str, seed: u64, load: f64) -> Job {
        Job { cell: cell(load), policy: policy.into(), seed }
    }

    /// The key of a job, at twice the rate that one request per second is.
    fn key_of(job: &Job) -> String {
        let prepared = prepare(&job.cell, job.seed, Path::new("none")).unwrap();
        let trace = at_rates(&prepared.parts, &[2.0 * job.cell.load]);
        key("run", &prepared.profile, &prepared.setup, &trace, &job.policy).to_string()
    }

    #[test]
    fn each_ingredient_changes_the_key() {
        let base = job("fcfs", 1, 0.9);
        let with = |change: fn(&mut Job)| {
            let mut job = base.clone();
            change(&mut job);
            job
        };
        let all = [
            base.clone(),
            with(|j| j.policy = "fcfs:headroom=0.02".into()),
            with(|j| j.seed = 2),
            with(|j| j.cell.load = 0.99),
            with(|j| j.cell.profile = CL34),
            with(|j| j.cell.requests = 61),
            with(|j| j.cell.work = Work::Mix(Mix::Mix1)),
            with(|j| j.cell.arrivals = "gamma:3"),
            with(|j| j.cell.change.max_num_seqs = Some(64)),
            with(|j| j.cell.change.kv_tokens = Some(100_000)),
            with(|j| j.cell.change.preempt = Some(Preempt::Recompute)),
            with(|j| j.cell.change.swap_gb_s = Some(5.0)),
            with(|j| j.cell.change.chunk = Some(512)),
        ];
        let keys: BTreeSet<String> = all.iter().map(key_of).collect();
        assert_eq!(keys.len(), all.len());
        let names: BTreeSet<Id> = all.iter().map(Job::id).collect();
        assert_eq!(names.len(), all.len());
        assert_eq!(key_of(&base), key_of(&base.clone()));
    }

    #[test]
    fn a_run_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let bench = |build: &str| Bench {
            cache: Cache::open(folder.path(), build.into(), false).unwrap(),
            traces: "none".into(),
            threads: 2,
        };
        let jobs = [job("fcfs", 1, 0.9), job("las", 1, 0.9), job("fcfs", 2, 0.9), job("fcfs", 1, 0.9)];
        let print = |results: &Results| format!("{:?}", results.all().collect::<Vec<_>>());
        let first = bench("a").run(&jobs, &|| ()).unwrap();
        assert_eq!((first.fresh, first.kept), (3, 0));
        let files = || -> Vec<PathBuf> {
            let mut all: Vec<PathBuf> =
                std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path()).collect();
            all.sort();
            all
        };
        assert_eq!(files().len(), 5, "three runs and two capacities");
        let bytes = |path: &PathBuf| std::fs::read(path).unwrap();
        let before: Vec<Vec<u8>> = files().iter().map(bytes).collect();
        let is_run = |path: &&PathBuf| String::from_utf8(bytes(path)).unwrap().contains("\"what\":\"run\"");
        std::fs::remove_file(files().iter().find(is_run).unwrap()).unwrap();
        let again = bench("a").run(&jobs, &|| ()).unwrap();
        assert_eq!((again.fresh, again.kept, again.foreign), (1, 2, 0));
        assert_eq!(print(&again), print(&first));
        assert_eq!(files().iter().map(bytes).collect::<Vec<_>>(), before);
        let other = bench("b").run(&jobs, &|| ()).unwrap();
        assert_eq!((other.fresh, other.kept), (3, 0), "another build's results do not count");
    }

    #[test]
    fn a_capacity_is_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let bench = |folder: &Path, build: &str, reuse| Bench {
            cache: Cache::open(folder, build.into(), reuse).unwrap(),
            traces: "none".into(),
            threads: 2,
        };
        let jobs = [job("fcfs", 1, 0.9), job("fcfs", 1, 1.1), job("las", 1, 0.9), job("fcfs", 2, 0.9)];
        let run = |build, reuse| bench(folder.path(), build, reuse).run(&jobs, &|| ()).unwrap();
        let print = |results: &Results| format!("{:?}", results.all().collect::<Vec<_>>());
        let first = run("a", false);
        assert_eq!((first.fresh, first.measured), (4, 2), "one per seed, for all loads and policies");
        let again = run("a", false);
        assert_eq!((again.fresh, again.measured), (0, 0));
        // A file that was cut short is made again, as it was.
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
        let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
        let cut = files.into_iter().find(|path| text(path).contains("\"what\":\"capacity\"")).unwrap();
        let whole = text(&cut);
        std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
        let mended = run("a", false);
        assert_eq!((mended.fresh, mended.kept, mended.measured), (0, 4, 1));
        assert_eq!(text(&cut), whole);
        // Another build takes them only on request.
        let foreign = run("b", true);
        assert_eq!((foreign.fresh, foreign.foreign, foreign.measured), (0, 4, 0));
        let other = run("b", false);
        assert_eq!((other.fresh, other.measured), (4, 2));
        let elsewhere = tempfile::tempdir().unwrap();
        let alone = bench(elsewhere.path(), "a", false).run(&jobs, &|| ()).unwrap();
        for results in [&again, &mended, &foreign, &other, &alone] {
            assert_eq!(print(results), print(&first));
        }
    }

    #[test]
    fn an_unknown_policy_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), "a".into(), false).unwrap();
        let bench = Bench { cache, traces: "none".into(), threads: 1 };
        let error = bench.run(&[job("nobody", 1, 0.9)], &|| ()).unwrap_err();
        assert!(error.to_string().contains("no policy \"nobody\""), "{error}");
    }
}
