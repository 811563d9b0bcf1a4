//! The waiting jobs as a policy sees them: the groups of the queue, with cached prefixes looked up
//! again only for the jobs that a pass comes to.

use super::NOBODY;
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

/// The hash of a full block of a prompt behind `chain`, if a cache may know it. At least one token is left to
/// compute, since only computing yields a token.
fn prompt_hash(prompt: &Prompt, block: u32, chain: BlockHash, block_size: Tokens) -> Option<BlockHash> {
    let (start, end) = (block * block_size.0, (block + 1) * block_size.0);
    if end >= prompt.len().0 {
        return None;
    }
    match prompt {
        Prompt::Length(_) => None,
        Prompt::Tokens(ids) => Some(chain.chain(&ids[start as usize..end as usize], &[])),
        Prompt::Content { .. } => content_hash(prompt, block, block_size),
    }
}

/// The hash of one block of a prompt that is known by content ids.
pub(super) fn content_hash(prompt: &Prompt, block: u32, block_size: Tokens) -> Option<BlockHash> {
    let Prompt::Content { granularity, ids, .. } = prompt else { return None };
    let per_id = granularity.0 / block_size.0;
    ids.get((block / per_id) as usize).map(|id| BlockHash::of_content(*id, block % per_id))
}

/// The hashes of the prompts that were looked at last, as far as they were asked for: whoever stands first is looked
/// up in every step until he is admitted, and then once more, behind others who are admitted in the same step.
pub(super) struct Hashes {
    prompts: [(RequestId, Vec<BlockHash>); Self::PROMPTS],
    newest: usize,
}

impl Hashes {
    const PROMPTS: usize = 4;

    /// Of nobody, with room for prompts of so many blocks.
    pub(super) fn new(blocks_max: Blocks) -> Self {
        let nobody = |_| (NOBODY, Vec::with_capacity(blocks_max.0 as usize));
        Self { prompts: std::array::from_fn(nobody), newest: 0 }
    }

    /// Those of a sequence, from the first on; see [`prompt_hash`].
    pub(super) fn of<'a>(
        &'a mut self,
        s: &'a Sequence,
        block_size: Tokens,
    ) -> impl Iterator<Item = BlockHash> {
        let known = self.known(s.id);
        (0..).map_while(move |block| {
            if block as usize == known.len() {
                let chain = known.last().copied().unwrap_or(BlockHash::ROOT);
                known.push(prompt_hash(&s.request.prompt, block, chain, block_size)?);
            }
            Some(known[block as usize])
        })
    }

    /// What is known of a sequence; for one that was not looked at, the prompt that came first is forgotten.
    fn known(&mut self, id: RequestId) -> &mut Vec<BlockHash> {
        let place = self.prompts.iter().position(|(of, _)| *of == id).unwrap_or_else(|| {
            self.newest = (self.newest + 1) % Self::PROMPTS;
            let (of, known) = &mut self.prompts[self.newest];
            *of = id;
            known.clear();
            self.newest
        });
        &mut self.prompts[place].1
    }
}

/// Looks up a sequence's prefix if the cache has changed since.
pub(super) fn look_up(s: &mut Sequence, kv: &Kv, config: &Config, hashes: &mut Hashes) {
    if !config.prefix_cache || s.looked_up == kv.epoch() || s.state != State::Waiting {
        return;
    }
    let (run, free) = kv.lookup(hashes.of(s, config.block_size));
    s.cached = Tokens(run.0 * config.block_size.0);
    s.looked_up = kv.epoch();
    s.cached_free = free;
}

/// See the module.
pub(super) struct QueueView<'a> {
    pub groups: &'a mut Groups,
    pub live: &'a mut [Option<Sequence>],
    /// Which jobs this decision has taken, by their place in the table.
    pub taken: &'a mut Vec<RequestId>,
    pub kv: &'a Kv,
    pub hashes: &'a mut Hashes,
    pub config: &'a Config,
    pub len: usize,
}

impl QueueView<'_> {
    fn candidate(&mut self, head: &Head) -> Candidate {
        let s = self.live[head.id.index()].as_mut().expect("whoever waits is alive");
        look_up(s, self.kv, self.config, self.hashes);
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
