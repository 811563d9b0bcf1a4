//! flyball: an embedded controller for LLM inference, which decides at every iteration whom to admit,
//! whom to run and whom to preempt; the same code drives a device and a simulation.
//!
//! # The picture
//!
//! ```text
//! Request -> queue -> View -> Policy -> Decision -> BatchPlan -> Executor -> StepOutcome
//!                      ^                                         sim|cpu          |
//!                      |                                                          v
//!                      +------------ power budget, a plain value               metrics
//! ```
//!
//! Data flows to the right; the only way back is through *values* that the next view shows. A policy
//! never sees a pool, a stream or a meter; an executor never sees a queue or a deadline. The engine that
//! runs live and the engine that the simulator drives in virtual time are the same code: only the
//! [`Clock`](clock::Clock) and the [`Executor`](exec::Executor) differ.
//!
//! # The eight verbs
//!
//! One [`Engine::step`](engine::Engine::step) is these, in this order:
//!
//! | verb | what happens | where |
//! | --- | --- | --- |
//! | observe | read the clock, end what is past its deadline, rank anew what a new epoch calls for | `engine/mod.rs`, `Engine::observe` |
//! | view | lend plain numbers and a cursor over the waiting jobs | [`sched::View`], lent by `Engine::decide`; the cursor in `engine/waiting.rs` |
//! | decide | fill a decision | [`sched::Policy::decide`]; by default [`sched::walk`] |
//! | check | prove the decision against the view, before anything changes | [`sched::Decision::check`] |
//! | apply | move sequences and blocks as decided | `engine/apply.rs`, `Engine::apply` |
//! | plan | write the step in the kernels' words | `engine/plan.rs`, `Engine::plan`, into a [`batch::BatchPlan`] |
//! | execute | submit the plan | `Engine::execute`, to an [`exec::Executor`] |
//! | settle | wait for the oldest step, deliver its tokens, end what ended, free what it held | `engine/settle.rs` |
//!
//! # The layers
//!
//! A module uses its own layer and those above it in this table, and nothing below; `tidy.rs` is the test
//! that holds this, and the walls: time only in `clock`, randomness only in `prng`, `unsafe` only in the files that it
//! names.
//!
//! | layer | module | one line |
//! | --- | --- | --- |
//! | words | [`units`] | integers with a unit |
//! | | [`ids`] | indices that several layers share |
//! | | [`error`] | errors as values |
//! | | [`clock`] | the only place that knows what time is |
//! | | [`prng`] | the only source of randomness |
//! | | [`number`] | small floats as bits |
//! | | [`request`] | what a client asks for, and how it ends |
//! | | [`config`] | every limit, checked once |
//! | | [`budget`] | what a governor allows the next step |
//! | state | [`cost`] | time and energy of a batch shape; the calibrated profiles |
//! | | [`kv`] | block pool, tables, prefix cache, host tier |
//! | | [`queue`] | the waiting, ranked in groups |
//! | | [`sequence`] | a request inside the engine |
//! | decision | [`sched`] | view, decision, the walk, and one file per policy |
//! | plan | [`batch`] | a decision as flat arrays |
//! | mechanism | [`model`] | a decoder: its description and its weights |
//! | | [`exec`] | runs plans; `exec::sim` is the simulated device, `exec::cpu` a decoder on the CPU |
//! | loop | [`engine`] | the eight verbs, the only place where state changes |
//! | accounts | [`metrics`] | latencies, energy, and the summary of a run |
//! | | `record` | all inputs of a run, from which every decision follows again |
//! | edges | [`sim`] | engines in virtual time, fed by arrivals |
//! | | `report` | the page of a run, and tables |
//! | | `trace` | request traces: read, made, scaled, described |
//! | | `suite` | published comparisons: policies over many workloads, cached |
//! | | `cli` | the command line |
//!
//! # Where to begin
//!
//! Read [`sched::view`] (what a policy may know), [`sched::order`]'s `fcfs.rs` (a policy), [`sched::walk`]
//! (how its answers become a decision), [`engine`] (the loop), [`exec::sim`] (a device in 150 lines) and
//! [`sim`] (who feeds it), or [`exec::cpu`] and [`model`] (a device that computes tokens). Then [`kv`],
//! [`queue`] and [`cost`], each of which stands alone.
//!
//! # What is in, and what is not
//!
//! In: the engine, its policies, KV paging with prefix cache and swap, pipelined steps, cost profiles fitted
//! on published measurements, traces, the simulator and the command line; Llama-like decoders from safetensors, and
//! executors that run them on the CPU and on a CUDA device. Not in this version, each with its seam: NVML and a power
//! governor (they would yield a [`budget::PowerBudget`]), a server, and a C interface (both would wrap
//! [`engine::Engine`]).
//!
//! Feature `cuda`, on by default, adds `exec::cuda`; it needs no toolkit and no GPU to build. Feature `cli`, on by
//! default, adds `trace`, `report`, `suite` and `cli`, and `parallel` spreads the CPU executor over all cores; a library
//! user turns default features off.

pub mod batch;
pub mod budget;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod config;
pub mod cost;
pub mod engine;
pub mod error;
pub mod exec;
pub mod ids;
pub mod kv;
pub mod metrics;
pub mod model;
pub mod number;
pub mod prng;
pub mod queue;
pub mod record;
#[cfg(feature = "cli")]
pub mod report;
pub mod request;
pub mod sched;
pub mod sequence;
pub mod sim;
#[cfg(feature = "cli")]
pub mod suite;
#[cfg(feature = "cli")]
pub mod trace;
pub mod units;

#[cfg(test)]
mod tidy;
