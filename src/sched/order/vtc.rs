//! Virtual token counters: fairness between clients (Sheng et al., "Fairness in Serving Large Language
//! Models", OSDI 2024).
//!
//! A counter per client grows by w_p = 1 per prompt token when a request is admitted, and by w_q = 2 per
//! output token. The first waiting request of the client with the smallest counter is admitted next, until
//! one does not fit. A client that had nothing waiting and comes back is lifted to the smallest counter of
//! those who wait, or to that of whoever was the last to leave the queue, so that nobody saves up. Nobody is
//! preempted for it.
//!
//! Where the source is silent: memory evicts the last to arrive; an evicted request goes before its
//! client's others and pays for its prompt once. Clients are groups of the queue, `groups` of them: with
//! more clients, those that agree modulo that number share a counter.

use super::{Params, PolicyError, fcfs};
use crate::ids::{GroupId, Places};
use crate::request::RequestId;
use crate::sched::{Candidate, Event, Job, Policy, Rank, View};

const PROMPT_WEIGHT: i64 = 1;
const OUTPUT_WEIGHT: i64 = 2;
/// Residents come before all waiting jobs.
const RESIDENT: i64 = i64::MIN / 2;

/// See the module. Parameters: `groups` (64), counters, at most the configuration's `groups_max`;
/// `headroom` (0.01).
pub struct Vtc {
    name: String,
    headroom: u32,
    clients: Vec<Client>,
    /// Whose last waiting request left the queue last.
    last_left: usize,
    /// Requests that wait.
    waiting: u32,
    /// By [`RequestId::index`].
    requests: Vec<Standing>,
}

/// The account of a client.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    counter: i64,
    /// Requests that wait.
    waiting: u32,
    /// The sum of the prompts so far: where its next request stands. Two neighbours are as far apart as the
    /// counter grows between their admissions, so the order holds inside a step too.
    placed: i64,
    /// The offset that its group has now.
    offset: i64,
}

/// Where a request stands in its client's queue.
#[derive(Clone, Copy, Debug)]
struct Standing {
    id: RequestId,
    client: usize,
    rank: i64,
    waits: bool,
}

impl Vtc {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let groups = params.number("groups", 64.0, 1.0, f64::from(u16::MAX - 1))? as usize;
        Ok(Self {
            name: params.spec(),
            headroom,
            clients: vec![Client::default(); groups],
            last_left: 0,
            waiting: 0,
            requests: Vec::new(),
        })
    }

    fn client(&self, client: u32) -> usize {
        client as usize % self.clients.len()
    }

    /// Lifts a client that comes back.
    fn lift(&mut self, at: usize) {
        let least = match self.waiting {
            0 => Some(self.clients[self.last_left].counter),
            _ => self.clients.iter().filter(|c| c.waiting > 0).map(|c| c.counter).min(),
        };
        let counter = self.clients[at].counter;
        self.clients[at].counter = counter.max(least.unwrap_or(counter));
    }

    /// Where a job stands: behind its client's others if it is new, where it stood if it was evicted.
    fn standing(&mut self, job: &Job, at: usize) -> i64 {
        let index = job.id.index();
        let new = Standing { id: job.id, client: at, rank: self.clients[at].placed, waits: true };
        self.requests.resize(self.requests.len().max(index + 1), new);
        if self.requests[index].id != job.id {
            self.requests[index] = new;
        }
        if job.evictions == 0 {
            self.clients[at].placed += PROMPT_WEIGHT * i64::from(job.prompt.0);
        }
        self.requests[index].waits = true;
        self.requests[index].rank
    }

    /// A request waits no more.
    fn leave(&mut self, id: RequestId) {
        let request = &mut self.requests[id.index()];
        if std::mem::take(&mut request.waits) {
            self.waiting -= 1;
            self.clients[request.client].waiting -= 1;
            if self.clients[request.client].waiting == 0 {
                self.last_left = request.client;
            }
        }
    }

    /// Pays for an output token.
    fn pay(&mut self, id: RequestId) {
        let request = self.requests[id.index()];
        if request.id == id {
            self.clients[request.client].counter += OUTPUT_WEIGHT;
        }
    }
}

impl Policy for Vtc {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        let at = self.client(job.client);
        if job.evictions == 0 && self.clients[at].waiting == 0 {
            self.lift(at);
        }
        self.waiting += 1;
        self.clients[at].waiting += 1;
        places.push(GroupId(at as u16), self.standing(job, at));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank::fixed(RESIDENT + job.arrival.0 as i64)
    }

    /// Each group's head stands at its client's counter. O(groups).
    fn groups(&mut self, view: &mut View<'_>) {
        let headroom = view.share_of_pool(self.headroom);
        for (at, client) in self.clients.iter_mut().enumerate().filter(|(_, c)| c.waiting > 0) {
            let group = GroupId(at as u16);
            let head = view.waiting.peek_group(group).expect("whoever waits stands in its client's group");
            client.offset = client.counter - (head.key - client.offset);
            view.waiting.set_group(group, client.offset, true, headroom);
        }
    }

    fn groups_used(&self) -> u16 {
        self.clients.len() as u16
    }

    /// The client with the smallest counter waits for no other's small requests.
    fn holds_up(&mut self, _candidate: &Candidate) -> bool {
        true
    }

    fn preempts(&self) -> bool {
        false
    }

    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Admitted(job) => {
                self.leave(job.id);
                if job.evictions == 0 {
                    let at = self.client(job.client);
                    self.clients[at].counter += PROMPT_WEIGHT * i64::from(job.prompt.0);
                }
            }
            Event::Finished(job, ..) => self.leave(job.id),
            Event::Tokens(tokens) => tokens.each(&mut |token| self.pay(token.id)),
            _ => {}
        }
    }
}
