//! A decoder's step as launches: embedding, layers, logits, draws. Every address and grid follows from the
//! layout's counts, so that a captured graph can be replayed with other lengths.

use super::inputs::{Layout, Words};
use super::names::Names;
use super::params::{self, Params, PrefillTensor};
use super::products::{Planned, Products, logit_stride};
use super::weights::{DeviceWeights, LayerWeights};
use super::work::{DecodeCut, Flags, Limits, TILE, Work};
use super::{Buffer, CudaError, Event, Kernel, PageTensor, Stream, TensorMap};
use crate::model::{ModelConfig, RopeStyle};
use crate::number::Dtype;

/// Where the branches of a step part and meet.
#[derive(Debug)]
pub struct Branches {
    /// What everything else runs on.
    pub main: Stream,
    /// Decode's attention, while `main` has prefill's.
    pub side: Stream,
    /// Queries are there.
    pub parted: Event,
    /// Decode's attention is done.
    pub joined: Event,
}

/// A decoder on a device.
#[derive(Debug)]
pub struct Forward {
    model: ModelConfig,
    limits: Limits,
    block_size: u32,
    sms: u32,
    names: Names,
    weights: DeviceWeights,
    planned: Planned,
    /// KV of all layers, block after block.
    pool: Buffer<u8>,
    layer_bytes: u64,
    page_stride: i64,
    /// Of each layer's pages, if `prefill_tensor` is there.
    maps: Vec<TensorMap>,
    work: Work,
}

/// What a decoder is made of.
pub struct Made {
    pub names: Names,
    pub model: ModelConfig,
    pub kv: Dtype,
    pub limits: Limits,
    pub block_size: u32,
    pub sms: u32,
    pub weights: DeviceWeights,
    pub planned: Planned,
    pub pool: Buffer<u8>,
    pub work: Work,
}

impl Forward {
    /// Puts it together.
    ///
    /// # Errors
    /// If the driver does not take the shape of the pool.
    pub fn new(made: Made) -> Result<Self, CudaError> {
        let Made { names, model, kv, limits, block_size, sms, weights, planned, pool, work } = made;
        let layer_bytes = (model.layer_elements(block_size) * kv.bytes()) as u64;
        let page_stride = model.block_elements(block_size) as u64;
        let pages =
            PageTensor::new(model.head_dim, block_size, model.heads_kv, page_stride, limits.blocks as u32);
        let layers = if names.prefill_tensor.is_some() { u64::from(model.layers) } else { 0 };
        let map = |layer| pages.encode(pool.address() + layer * layer_bytes);
        Ok(Self {
            maps: (0..layers).map(map).collect::<Result<_, _>>()?,
            names,
            layer_bytes,
            page_stride: page_stride as i64,
            model,
            limits,
            block_size,
            sms,
            weights,
            planned,
            pool,
            work,
        })
    }

    /// Its row counts.
    pub fn planned(&self) -> &Planned {
        &self.planned
    }

    /// Its buffers.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The KV pool.
    pub fn pool(&self) -> &Buffer<u8> {
        &self.pool
    }

    /// Applies `changes` entries of the block tables, which lie behind the arrays of `layout`.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn change_tables(&self, main: &Stream, layout: &Layout, changes: usize) -> Result<(), CudaError> {
        let params = params::Scatter {
            target: self.work.slot_tables.address(),
            pairs: self.input(&(layout.words..layout.words)),
            count: changes as u32,
            reserved: 0,
        };
        main.launch(&self.names.scatter, (changes as u32).div_ceil(256), &params)
    }

    /// Starts the step whose arrays were uploaded as `layout` says.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn run(&self, branches: &Branches, layout: &Layout) -> Result<(), CudaError> {
        let pass = Pass { forward: self, branches, layout };
        let (_, products) = self.planned.layers(layout.counts.tokens);
        pass.gather(&layout.ids, &self.weights.embedding, self.model.vocab, &self.work.hidden)?;
        pass.plans()?;
        for (at, layer) in self.weights.layers.iter().enumerate() {
            pass.attention(at, layer, products)?;
            pass.mlp(layer, products)?;
        }
        if layout.counts.samples > 0 {
            pass.logits()?;
            pass.draw()?;
        }
        Ok(())
    }

    /// The address of an array that was uploaded.
    fn input(&self, words: &Words) -> u64 {
        self.work.inputs.address() + 4 * words.start as u64
    }

    /// The address of one of the flags.
    fn flag(&self, flag: usize) -> u64 {
        self.work.results.address() + 4 * (2 * self.limits.counts.samples + flag) as u64
    }
}

/// A branch of a step's attention. Where there are two, none begins early: it would take the other's place on the device
/// while it waits.
#[derive(Clone, Copy)]
struct Branch<'a> {
    stream: &'a Stream,
    early: bool,
}

impl Branch<'_> {
    fn launch<P: Params>(self, kernel: &Kernel, ctas: u32, params: &P) -> Result<(), CudaError> {
        if self.early {
            self.stream.launch_early(kernel, ctas, params)
        } else {
            self.stream.launch(kernel, ctas, params)
        }
    }
}

/// One step.
struct Pass<'a> {
    forward: &'a Forward,
    branches: &'a Branches,
    layout: &'a Layout,
}

impl Pass<'_> {
    /// Launches a kernel whose ctas share `items` pieces of work, as many of them as run at once. Each of ours awaits
    /// what it reads itself, so all may begin early.
    fn launch<P: Params>(&self, kernel: &Kernel, items: u32, params: &P) -> Result<(), CudaError> {
        self.branches.main.launch_early(kernel, self.at_once(kernel, items), params)
    }

    fn at_once(&self, kernel: &Kernel, items: u32) -> u32 {
        items.clamp(1, self.forward.sms * kernel.ctas_per_sm().max(1))
    }

    /// The same with a cta for each of `rows`, however many run at once.
    fn launch_rows<P: Params>(&self, kernel: &Kernel, rows: u32, params: &P) -> Result<(), CudaError> {
        self.branches.main.launch_early(kernel, rows, params)
    }

    fn counts(&self) -> [u32; 4] {
        let counts = self.layout.counts;
        [counts.tokens, counts.decodes, counts.prefills, counts.samples].map(|n| n as u32)
    }

    /// `target[i] = source[ids[i]]` for rows of the hidden width.
    fn gather(
        &self,
        ids: &Words,
        source: &Buffer<u8>,
        rows: u32,
        target: &Buffer<u8>,
    ) -> Result<(), CudaError> {
        self.gather_rows(ids, source.address(), rows, 2 * self.forward.model.hidden, target.address())
    }

    fn gather_rows(
        &self,
        ids: &Words,
        source: u64,
        rows: u32,
        row_bytes: u32,
        target: u64,
    ) -> Result<(), CudaError> {
        let forward = self.forward;
        let params = params::Gather {
            source,
            target,
            ids: forward.input(ids),
            sampled: forward.work.results.address(),
            failed: forward.flag(Flags::GATHER),
            row_bytes,
            count: ids.len() as u32,
            rows,
            reserved: 0,
        };
        self.launch(&forward.names.gather, params.count * row_bytes.div_ceil(4096), &params)
    }

    /// This step's block tables, and how attention's work is cut: the same for all layers.
    fn plans(&self) -> Result<(), CudaError> {
        let forward = self.forward;
        let stride = forward.limits.table_stride;
        self.gather_rows(
            &self.layout.row_slots,
            forward.work.slot_tables.address(),
            forward.limits.slots as u32,
            4 * stride as u32,
            forward.work.tables.address(),
        )?;
        let [_, decodes, prefills, _] = self.counts();
        if decodes > 0 {
            self.launch(&forward.names.decode_plan, 1, &self.decode(0))?;
        }
        if prefills > 0 {
            self.launch(&forward.names.prefill_plan, 1, &self.prefill(0))?;
        }
        Ok(())
    }

    fn pool(&self, layer: usize) -> params::Pool {
        let forward = self.forward;
        params::Pool {
            pages: forward.pool.address() + layer as u64 * forward.layer_bytes,
            page_stride: forward.page_stride,
            page_shift: forward.block_size.trailing_zeros(),
            heads_kv: forward.model.heads_kv,
            k_scale: 0,
            v_scale: 0,
        }
    }

    fn decode(&self, layer: usize) -> params::Decode {
        let (forward, work) = (self.forward, &self.forward.work);
        let [_, decodes, _, _] = self.counts();
        let cut = DecodeCut::of(decodes);
        params::Decode {
            pool: self.pool(layer),
            q: work.q.address(),
            output: work.attended.address(),
            lse: 0,
            lengths: forward.input(&self.layout.lengths),
            tables: work.tables.address(),
            chunk_from: work.chunk_from.address(),
            chunks: work.chunks.address(),
            lists: work.lists.address(),
            partial: work.partial.address(),
            partial_of: work.partial_of.address(),
            arrived: if cut.merged_apart { 0 } else { work.arrived.address() },
            overflow: forward.flag(Flags::DECODE),
            q_stride: forward.model.q_width() as i64,
            table_stride: forward.limits.table_stride as i64,
            rows: decodes,
            heads_q: forward.model.heads_q,
            scale: forward.model.attention_scale(),
            chunk: cut.share,
            chunks_max: forward.limits.chunks() as u32,
            row_chunks_max: 0,
            lists_max: forward.limits.shares as u32,
            reserved: 0,
        }
    }

    /// Prefill's rows and tokens stand behind decode's.
    fn prefill(&self, layer: usize) -> params::Prefill {
        let (forward, work) = (self.forward, &self.forward.work);
        let [tokens, decodes, prefills, _] = self.counts();
        let behind = u64::from(decodes);
        let width = 2 * forward.model.q_width() as u64;
        params::Prefill {
            pool: self.pool(layer),
            q: work.q.address() + behind * width,
            output: work.attended.address() + behind * width,
            lse: 0,
            q_from: forward.input(&self.layout.q_from),
            lengths: forward.input(&self.layout.lengths) + 4 * behind,
            tables: work.tables.address() + 4 * behind * forward.limits.table_stride as u64,
            tile_from: work.tile_from.address(),
            tiles: work.tiles.address(),
            tile_count: work.tile_count.address(),
            overflow: forward.flag(Flags::PREFILL),
            q_stride: forward.model.q_width() as i64,
            table_stride: forward.limits.table_stride as i64,
            rows: prefills,
            tokens: tokens - decodes,
            heads_q: forward.model.heads_q,
            tile: TILE,
            tiles_max: forward.limits.tiles as u32,
            scale: forward.model.attention_scale(),
        }
    }

    /// `output = norm(input + residual) * weight`; the residual becomes the sum.
    fn norm(
        &self,
        input: &Buffer<u8>,
        residual: Option<&Buffer<u8>>,
        weight: &Buffer<u8>,
        output: &Buffer<u8>,
        rows: u32,
    ) -> Result<(), CudaError> {
        let params = params::Norm {
            input: input.address(),
            residual: residual.map_or(0, Buffer::address),
            weight: weight.address(),
            output: output.address(),
            rows,
            hidden: self.forward.model.hidden,
            epsilon: self.forward.model.norm_epsilon,
            reserved: 0,
        };
        self.launch_rows(&self.forward.names.norm, rows, &params)
    }

    /// `projected = attention(norm(hidden))`, to be added by the next norm.
    fn attention(&self, at: usize, layer: &LayerWeights, products: &Products) -> Result<(), CudaError> {
        let (work, main, [tokens, ..]) = (&self.forward.work, &self.branches.main, self.counts());
        match at {
            // Nothing is to be added yet.
            0 => self.norm(&work.hidden, None, &layer.attention_norm, &work.normed, tokens)?,
            _ => {
                self.norm(&work.projected, Some(&work.hidden), &layer.attention_norm, &work.normed, tokens)?
            }
        }
        products.qkv.run(main, &work.normed, &layer.qkv, &work.qkv, &work.workspace)?;
        self.append(at, layer)?;
        self.attend(at)?;
        products.output.run(main, &work.attended, &layer.output, &work.projected, &work.workspace)
    }

    fn append(&self, at: usize, layer: &LayerWeights) -> Result<(), CudaError> {
        let (forward, model, work) = (self.forward, &self.forward.model, &self.forward.work);
        let [tokens, ..] = self.counts();
        let params = params::Append {
            pool: self.pool(at),
            qkv: work.qkv.address(),
            q: work.q.address(),
            q_weight: layer.q_norm.as_ref().map_or(0, Buffer::address),
            k_weight: layer.k_norm.as_ref().map_or(0, Buffer::address),
            turns: forward.weights.turns.address(),
            positions: forward.input(&self.layout.positions),
            slots: forward.input(&self.layout.slots),
            qkv_stride: model.qkv_width() as i64,
            tokens,
            heads_q: model.heads_q,
            epsilon: model.norm_epsilon,
            interleaved: (model.rope.style == RopeStyle::Interleaved).into(),
        };
        // An item is eight heads of a token or more, a cta takes four.
        let items = tokens * (model.heads_q + 2 * model.heads_kv).div_ceil(8);
        self.launch(&forward.names.append, items.div_ceil(4), &params)
    }

    /// Prefill on the main branch, decode beside it where there are both.
    fn attend(&self, at: usize) -> Result<(), CudaError> {
        let Branches { main, side, parted, joined } = self.branches;
        let [_, decodes, prefills, _] = self.counts();
        let both = decodes > 0 && prefills > 0;
        if both {
            main.record(parted)?;
            side.wait(parted)?;
        }
        if decodes > 0 {
            self.launch_decode(at, Branch { stream: if both { side } else { main }, early: !both })?;
        }
        if prefills > 0 {
            self.launch_prefill(at, Branch { stream: main, early: !both })?;
        }
        if both {
            side.record(joined)?;
            main.wait(joined)?;
        }
        Ok(())
    }

    fn launch_decode(&self, at: usize, branch: Branch<'_>) -> Result<(), CudaError> {
        let (names, params) = (&self.forward.names, self.decode(at));
        // How long rows will be is not known here, so all shares are there.
        let items = self.forward.limits.shares as u32 * params.pool.heads_kv;
        branch.launch(&names.decode, self.at_once(&names.decode, items), &params)?;
        if params.arrived == 0 {
            branch.stream.launch_early(&names.decode_merge, params.rows * params.heads_q, &params)?;
        }
        Ok(())
    }

    fn launch_prefill(&self, at: usize, branch: Branch<'_>) -> Result<(), CudaError> {
        let (forward, prefill) = (self.forward, self.prefill(at));
        let tiles = (prefill.tokens * forward.model.group()).div_ceil(TILE) + prefill.rows + 1;
        let items = tiles * prefill.pool.heads_kv;
        match (&forward.names.prefill_tensor, forward.maps.get(at)) {
            (Some(kernel), Some(&map)) => {
                let page_count = forward.limits.blocks as u32;
                let params = PrefillTensor { map, prefill, page_count, reserved: [0; 7] };
                branch.launch(kernel, self.at_once(kernel, items), &params)
            }
            _ => {
                let kernel = &forward.names.prefill;
                branch.launch(kernel, self.at_once(kernel, items), &prefill)
            }
        }
    }

    /// `projected = mlp(norm(hidden + projected))`.
    fn mlp(&self, layer: &LayerWeights, products: &Products) -> Result<(), CudaError> {
        let (work, main, [tokens, ..]) = (&self.forward.work, &self.branches.main, self.counts());
        self.norm(&work.projected, Some(&work.hidden), &layer.mlp_norm, &work.normed, tokens)?;
        products.gate_up.run(main, &work.normed, &layer.gate_up, &work.gate_up, &work.workspace)?;
        let width = self.forward.model.intermediate;
        let params = params::Activation {
            input: work.gate_up.address(),
            output: work.gated.address(),
            rows: tokens,
            width,
        };
        self.launch(&self.forward.names.silu_mul, tokens * width.div_ceil(2048), &params)?;
        products.down.run(main, &work.gated, &layer.down, &work.projected, &work.workspace)
    }

    /// The logits of the rows that draw.
    fn logits(&self) -> Result<(), CudaError> {
        let (forward, work) = (self.forward, &self.forward.work);
        let [tokens, _, _, samples] = self.counts();
        self.gather(&self.layout.last, &work.hidden, tokens, &work.picked)?;
        self.gather(&self.layout.last, &work.projected, tokens, &work.picked_more)?;
        // In place: a row is in registers before it is written.
        self.norm(
            &work.picked_more,
            Some(&work.picked),
            &forward.weights.final_norm,
            &work.picked_more,
            samples,
        )?;
        let (_, product) = forward.planned.logits(samples as usize);
        let logits = work.logits.as_bytes();
        product.run(
            &self.branches.main,
            &work.picked_more,
            &forward.weights.lm_head,
            &logits,
            &work.workspace,
        )
    }

    /// A token for each of them.
    fn draw(&self) -> Result<(), CudaError> {
        let (forward, work, layout) = (self.forward, &self.forward.work, self.layout);
        let [.., samples] = self.counts();
        let (stride, vocab) = (logit_stride(&forward.model) as i64, forward.model.vocab);
        let penalize = params::Penalize {
            logits: work.logits.address(),
            from: forward.input(&layout.said_from),
            tokens: work.said.address(),
            counts: work.said.address() + 4 * forward.limits.said as u64,
            repetition: forward.input(&layout.repetition),
            presence: forward.input(&layout.presence),
            frequency: forward.input(&layout.frequency),
            stride,
            rows: samples,
            vocab,
        };
        self.launch_rows(&forward.names.penalize, samples, &penalize)?;
        let sample = params::Sample {
            logits: work.logits.address(),
            temperature: forward.input(&layout.temperature),
            top_k: forward.input(&layout.top_k),
            top_p: forward.input(&layout.top_p),
            min_p: forward.input(&layout.min_p),
            seeds: forward.input(&layout.seeds),
            positions: forward.input(&layout.drawn_at),
            tokens: work.results.address(),
            failed: work.results.address() + 4 * forward.limits.counts.samples as u64,
            stride,
            rows: samples,
            vocab,
        };
        self.launch_rows(&forward.names.sample, samples, &sample)
    }
}
