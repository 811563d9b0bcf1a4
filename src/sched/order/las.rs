//! Least attained service, on bins of 256·2^j tokens: foreground-background scheduling made affordable.
//! Inside a bin the order is by arrival. Service is prompt and output; a prompt counts once its first
//! token is out, so that newcomers do not interrupt each other half-way.

use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::ids::Places;
use crate::sched::{Job, Policy, Rank, View};

/// Arrivals stay below this for 36 years; bins come above.
const BIN_SHIFT: u32 = 56;

/// See the module. Parameters `k` (256): tokens of the first bin; `headroom` (0.01).
pub struct Las {
    name: String,
    headroom: u32,
    k: u32,
}

impl Las {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let k = params.number("k", 256.0, 1.0, 65_536.0)? as u32;
        Ok(Self { name: params.spec(), headroom, k })
    }

    /// The bin of `attained` tokens, and where it ends.
    fn bin(&self, attained: u32) -> (u32, u32) {
        let bin = (attained / self.k).checked_ilog2().map_or(0, |log| log + 1);
        (bin, self.k << bin)
    }

    fn value(&self, job: &Job) -> i64 {
        i64::from(self.bin(attained(job)).0) << BIN_SHIFT | job.arrival.0.min((1 << BIN_SHIFT) - 1) as i64
    }
}

/// Tokens of service that count.
fn attained(job: &Job) -> u32 {
    if job.generated.0 > 0 { job.known().0 } else { 0 }
}

impl Policy for Las {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, self.value(job));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        let end = self.bin(attained(job)).1;
        Rank { value: self.value(job), until: end.saturating_sub(job.prompt.0).max(1), mark: 0 }
    }

    fn groups(&mut self, view: &mut View<'_>) {
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_double_from_k() {
        let las = Las { name: "las".into(), headroom: 0, k: 256 };
        let bins: Vec<_> = [0, 255, 256, 511, 512, 1023, 1024].iter().map(|g| las.bin(*g)).collect();
        assert_eq!(bins, [(0, 256), (0, 256), (1, 512), (1, 512), (2, 1024), (2, 1024), (3, 2048)]);
    }
}
