//! The waiting jobs as a policy sees them: the groups of the queue, with cached prefixes looked up
//! again only for the jobs that a pass comes to.

use crate::config::Config;
use crate::ids::GroupId;
use crate::kv::{BlockHash, Kv};
use crate::queue::{Groups, Head};
use crate::request::{Prompt, RequestId};
use crate::sched::{Candidate, Job, Pool, Waiting};
use crate::sequence::{Sequence, State};
use crate::units::{Blocks, Tokens};

/// What a policy may know of a sequence.
pub(super) fn job(s: &Sequence) -> Job {
    let r = &s.request;
    Job {
        id: s.id,
        user_data: r.user_data,
        arrival: r.arrival,
        prompt: r.prompt.len(),
        generated: Tokens(s.generated),
        max_tokens: r.max_tokens,
        cached: s.cached,
        swapped: if matches!(s.state, State::Swapped(_)) { Tokens(s.computed) } else { Tokens::ZERO },
        cached_free: s.cached_free,
        evictions: s.evictions,
        priority: r.priority,
        client: r.client,
        slo: r.slo,
        deadline: r.deadline,
        mark: 0,
    }
}

/// The hashes of the full blocks of a prompt that a cache may know, from the first on. At least one
/// token is left to compute, since only computing yields a token.
pub(super) fn prompt_hashes(prompt: &Prompt, block_size: Tokens) -> impl Iterator<Item = BlockHash> + '_ {
    let size = block_size.0;
    let blocks = prompt.len().0.saturating_sub(1) / size;
    let mut chain = BlockHash::ROOT;
    (0..blocks).map_while(move |block| match prompt {
        Prompt::Length(_) => None,
        Prompt::Tokens(ids) => {
            let start = (block * size) as usize;
            chain = chain.chain(&ids[start..start + size as usize], &[]);
            Some(chain)
        }
        Prompt::Content { .. } => content_hash(prompt, block, block_size),
    })
}

/// The hash of one block of a prompt that is known by content ids.
pub(super) fn content_hash(prompt: &Prompt, block: u32, block_size: Tokens) -> Option<BlockHash> {
    let Prompt::Content { granularity, ids, .. } = prompt else { return None };
    let per_id = granularity.0 / block_size.0;
    ids.get((block / per_id) as usize).map(|id| BlockHash::of_content(*id, block % per_id))
}

/// Looks up a sequence's prefix if the cache has changed since; true if the answer is another.
pub(super) fn look_up(s: &mut Sequence, kv: &Kv, config: &Config) -> bool {
    if !config.prefix_cache || s.looked_up == kv.epoch() || s.state != State::Waiting {
        return false;
    }
    let (run, free) = kv.lookup(prompt_hashes(&s.request.prompt, config.block_size));
    let cached = Tokens(run.0 * config.block_size.0);
    s.looked_up = kv.epoch();
    s.cached_free = free;
    std::mem::replace(&mut s.cached, cached) != cached
}

/// See the module.
pub(super) struct QueueView<'a> {
    pub groups: &'a mut Groups,
    pub live: &'a mut [Option<Sequence>],
    /// Which jobs this decision has taken, by their place in the table.
    pub taken: &'a mut Vec<RequestId>,
    pub kv: &'a Kv,
    pub config: &'a Config,
    pub len: usize,
}

impl QueueView<'_> {
    fn candidate(&mut self, head: &Head) -> Candidate {
        let s = self.live[head.id.index()].as_mut().expect("whoever waits is alive");
        look_up(s, self.kv, self.config);
        Candidate { job: job(s), group: head.group, key: head.key, headroom: head.headroom }
    }
}

impl Waiting for QueueView<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn set_group(&mut self, group: GroupId, offset: i64, open: bool, headroom: Blocks) {
        self.groups.set(group, offset, open, headroom);
    }

    fn group_len(&self, group: GroupId) -> usize {
        self.groups.len(group)
    }

    #[inline]
    fn peek(&mut self) -> Option<Candidate> {
        loop {
            let head = self.groups.head()?;
            if !self.taken.contains(&head.id) {
                return Some(self.candidate(&head));
            }
            self.groups.advance(head.group);
        }
    }

    fn peek_group(&mut self, group: GroupId) -> Option<Candidate> {
        loop {
            let head = self.groups.head_of(group)?;
            if !self.taken.contains(&head.id) {
                return Some(self.candidate(&head));
            }
            self.groups.advance(group);
        }
    }

    fn take(&mut self, candidate: &Candidate) {
        self.taken.push(candidate.job.id);
        self.groups.advance(candidate.group);
    }

    fn close(&mut self, group: GroupId) {
        self.groups.close(group);
    }

    fn each(&self, visit: &mut dyn FnMut(&Job)) {
        self.live.iter().flatten().filter(|s| s.waits()).for_each(|s| visit(&job(s)));
    }
}

/// Exact answers about blocks.
pub(super) struct PoolView<'a>(pub &'a Kv);

impl Pool for PoolView<'_> {
    fn returns(&self, slot: crate::ids::Slot) -> Blocks {
        self.0.sole(slot)
    }
}
