//! The decoder against a plain one in `f64`, which has no cache, no pages and no batches.

use super::*;
use crate::clock::VirtualClock;
use crate::ids::Slot;
use crate::kv::{BlockId, HostBlockId, SwapBlock, TableDelta};
use crate::model::{ModelConfig, RopeStyle, Tensor, tiny, widener};
use crate::number::{from_bf16, to_bf16};
use crate::prng::Prng;
use crate::request::RequestId;
use crate::units::{Blocks, Tokens};

fn norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(x, w)| x / (mean + epsilon).sqrt() * w).collect()
}

/// A plain decoder: logits of the last token, everything computed anew. Keys and values are rounded as in the cache.
struct Plain<'a>(&'a Model);

impl Plain<'_> {
    fn wide(&self, bits: &[u16]) -> Vec<f64> {
        bits.iter().map(|b| widener(self.0.config().dtype)(*b).into()).collect()
    }

    fn times(&self, weight: &Tensor, x: &[f64]) -> Vec<f64> {
        let row = |at| self.wide(weight.row(at)).iter().zip(x).map(|(w, x)| w * x).sum();
        (0..weight.rows()).map(row).collect()
    }

    fn turned(&self, head: &[f64], weight: &Option<Tensor>, position: usize) -> Vec<f64> {
        let config = self.0.config();
        let mut x = match weight {
            Some(weight) => norm(head, &self.wide(weight.bits()), config.norm_epsilon.into()),
            None => head.to_vec(),
        };
        let half = x.len() / 2;
        for pair in 0..half {
            let angle = position as f64 * config.rope.theta.powf(-(pair as f64) / half as f64);
            let (a, b) = match config.rope.style {
                RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
                RopeStyle::NeoX => (pair, pair + half),
            };
            (x[a], x[b]) = (x[a] * angle.cos() - x[b] * angle.sin(), x[b] * angle.cos() + x[a] * angle.sin());
        }
        x
    }

    fn logits(&self, tokens: &[u32]) -> Vec<f64> {
        let (config, weights) = (self.0.config(), self.0.weights());
        let (dim, group) = (config.head_dim as usize, config.group() as usize);
        let epsilon = f64::from(config.norm_epsilon);
        let mut hidden: Vec<_> =
            tokens.iter().map(|id| self.wide(weights.embedding.row(*id as usize))).collect();
        for layer in &weights.layers {
            let norm_weight = self.wide(layer.attention_norm.bits());
            let qkv: Vec<_> =
                hidden.iter().map(|x| self.times(&layer.qkv, &norm(x, &norm_weight, epsilon))).collect();
            let head = |token: usize, head: usize| &qkv[token][head * dim..][..dim];
            let heads_q = config.heads_q as usize;
            let rounded = |x: Vec<f64>| -> Vec<f64> {
                x.iter().map(|x| from_bf16(to_bf16(*x as f32)).into()).collect()
            };
            for (at, hidden) in hidden.iter_mut().enumerate() {
                let mut attended = Vec::new();
                for h in 0..heads_q {
                    let q = self.turned(head(at, h), &layer.q_norm, at);
                    let key = |t: usize| rounded(self.turned(head(t, heads_q + h / group), &layer.k_norm, t));
                    let logit =
                        |t| q.iter().zip(key(t)).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt();
                    let logits: Vec<f64> = (0..=at).map(logit).collect();
                    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
                    let mut out = vec![0.0; dim];
                    for (t, logit) in logits.iter().enumerate() {
                        let value = head(t, heads_q + config.heads_kv as usize + h / group).to_vec();
                        let weight = (logit - max).exp() / sum;
                        out.iter_mut().zip(rounded(value)).for_each(|(o, v)| *o += weight * v);
                    }
                    attended.extend(out);
                }
                let more = self.times(&layer.output, &attended);
                hidden.iter_mut().zip(more).for_each(|(x, more)| *x += more);
            }
            let norm_weight = self.wide(layer.mlp_norm.bits());
            for x in &mut hidden {
                let gate_up = self.times(&layer.gate_up, &norm(x, &norm_weight, epsilon));
                let (gate, up) = gate_up.split_at(gate_up.len() / 2);
                let gated: Vec<_> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                x.iter_mut().zip(self.times(&layer.down, &gated)).for_each(|(x, more)| *x += more);
            }
        }
        let last = norm(hidden.last().unwrap(), &self.wide(weights.final_norm.bits()), epsilon);
        self.times(weights.lm_head(), &last)
    }
}

#[test]
fn logits_are_those_of_a_plain_decoder() {
    let interleaved = crate::model::Rope { style: RopeStyle::Interleaved, ..tiny().rope };
    let models = [
        tiny(),
        ModelConfig { rope: interleaved, qk_norm: false, tied: true, dtype: Dtype::F16, ..tiny() },
        ModelConfig { heads_q: 3, heads_kv: 3, head_dim: 80, layers: 2, ..tiny() },
    ];
    for config in models {
        let model = Arc::new(Model::random(config, 11).unwrap());
        let mut p = Prng::new(3);
        let ids: Vec<u32> = (0..21).map(|_| p.below(256) as u32).collect();
        let paging = Paging {
            layers: model.config().layers as usize,
            heads_kv: model.config().heads_kv as usize,
            page_shift: 2,
            head_dim: model.config().head_dim as usize,
        };
        let (mut pool, mut tables) = (Pool::new(paging, Dtype::Bf16, 8), Tables::new(2, 6));
        // Slot 1, on pages that are in no order.
        [5, 0, 7, 2, 3, 6].iter().enumerate().for_each(|(at, page)| tables.set(1, at, *page));
        let mut decoder = Decoder::new(model.clone(), 16);
        let mut done = 0;
        for chunk in [13, 1, 6, 1] {
            let tokens: Vec<_> =
                (done..done + chunk).map(|at| Token { id: ids[at], position: at as u32, slot: 1 }).collect();
            decoder.forward(&tokens, &tables, &mut pool);
            done += chunk;
            let want = Plain(&model).logits(&ids[..done]);
            let got = decoder.logits(&[chunk - 1]).next().unwrap();
            let worst = got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
            // A key or value that lies between two bf16 may round either way.
            assert!(worst < 0.03, "after {done} tokens: off by {worst}");
            let spread = want.iter().map(|w| w * w).sum::<f64>() / want.len() as f64;
            assert!((1.0..25.0).contains(&spread), "logits are neither flat nor certain: {spread}");
        }
    }
}

fn executor(config: &Config) -> CpuExecutor {
    let model = Arc::new(Model::random(tiny(), 11).unwrap());
    CpuExecutor::new(model, config, Dtype::Bf16, Box::new(VirtualClock::new())).unwrap()
}

fn small() -> Config {
    Config {
        block_size: Tokens(16),
        kv_blocks: Blocks(8),
        host_blocks: Blocks(4),
        max_num_seqs: 4,
        max_resident: 4,
        max_num_batched_tokens: Tokens(32),
        max_model_len: Tokens(64),
        ..Config::default()
    }
}

/// A plan of one chunk for each of these slots, whose first page has the slot's number.
fn plan(step: u64, rows: &[(u32, Input, u32)], ids: &[u32]) -> BatchPlan {
    let mut plan = BatchPlan { step, token_ids: ids.to_vec(), ..BatchPlan::default() };
    for (slot, input, tokens) in rows {
        let id = RequestId::new(u64::from(*slot), *slot);
        plan.tables.push(TableDelta { slot: Slot(*slot), index: 0, block: BlockId(*slot) });
        let row = Row { id, slot: Slot(*slot), tokens: *tokens, samples: true, ..Row::default() };
        plan.rows.push(row.with_input(*input));
    }
    plan
}

fn run(executor: &mut CpuExecutor, plan: &BatchPlan) -> StepOutcome {
    let mut outcome = StepOutcome::default();
    let step = executor.submit(plan).unwrap();
    executor.wait(step, &mut outcome).unwrap();
    outcome
}

#[test]
fn a_row_whose_tokens_are_not_known_fails_alone() {
    let mut executor = executor(&small());
    let ids = [9, 8, 7, 300];
    let alone = run(&mut executor, &plan(1, &[(2, Input::Ids(0), 3)], &ids));
    assert!(alone.failed.is_empty());
    let rows = [
        (0, Input::Unknown, 5),
        (1, Input::FromStep(1), 1),
        (2, Input::Ids(0), 3),
        // Its last token is not in the vocabulary.
        (3, Input::Ids(1), 3),
    ];
    let outcome = run(&mut executor, &plan(2, &rows, &ids));
    assert_eq!(outcome.failed, [0, 1, 3]);
    assert_eq!(outcome.tokens, [0, 0, alone.tokens[0], 0]);
    // A row that follows one that failed fails too; one that follows another does not.
    let outcome =
        run(&mut executor, &plan(3, &[(0, Input::FromStep(3), 1), (1, Input::FromStep(2), 1)], &[]));
    assert_eq!(outcome.failed, [0]);
    let by_id = run(&mut executor, &plan(4, &[(1, Input::Id(alone.tokens[0]), 1)], &[]));
    assert_eq!(outcome.tokens[1], by_id.tokens[0]);
}

/// The first of all rows had no token before it to draw from, and any other drew from its neighbour's.
#[test]
fn a_row_without_tokens_fails_alone() {
    let mut executor = executor(&small());
    let ids = [9, 8, 7];
    let alone = run(&mut executor, &plan(1, &[(2, Input::Ids(0), 3)], &ids));
    let rows = [(0, Input::Ids(0), 0), (2, Input::Ids(0), 3), (1, Input::Ids(3), 0)];
    let outcome = run(&mut executor, &plan(2, &rows, &ids));
    assert_eq!(outcome.failed, [0, 2]);
    assert_eq!(outcome.tokens, [0, alone.tokens[0], 0]);
}

#[test]
fn pages_come_back_from_the_host_as_they_went() {
    let mut executor = executor(&small());
    let ids = [9, 8, 7];
    let first = run(&mut executor, &plan(1, &[(2, Input::Ids(0), 3)], &ids)).tokens[0];
    let next = |executor: &mut CpuExecutor, step, page, copies: Copies| {
        let mut plan = plan(step, &[(2, Input::Id(first), 1)], &[]);
        plan.rows[0].position = 3;
        plan.tables[0].block = BlockId(page);
        plan.before = copies;
        run(executor, &plan).tokens[0]
    };
    let want = next(&mut executor, 2, 2, Copies::default());
    let swap = |device, host| SwapBlock { device: BlockId(device), host: HostBlockId(host) };
    // Out and, in the same step, back to another page.
    let copies = Copies { swap_out: vec![swap(2, 3)], swap_in: vec![swap(7, 3)], ..Copies::default() };
    assert_eq!(next(&mut executor, 3, 7, copies), want);
}

#[test]
fn what_exceeds_the_limits_is_refused() {
    let mut executor = executor(&small());
    let error = executor.submit(&plan(1, &[(0, Input::Unknown, 33)], &[])).unwrap_err();
    assert!(error.to_string().contains("33 tokens in a step, 32 at most"), "{error}");
    let model = Arc::new(Model::random(tiny(), 1).unwrap());
    let config = Config { max_model_len: Tokens(5000), ..small() };
    let error = CpuExecutor::new(model, &config, Dtype::Bf16, Box::new(VirtualClock::new()));
    let error = error.err().unwrap().to_string();
    assert_eq!(error, "max_model_len is 5000, but must be at most the 4096 positions of the model");
}
