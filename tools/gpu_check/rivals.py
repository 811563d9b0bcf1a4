"""Times what others offer for the work of flyball's kernels, on the shapes and by the protocol of benches/kernels.

One JSON object a line: family, shape, impl, us (median), spread, bytes, flops; or family, shape, impl, error. Inputs are
random, the L2 is cold (calls rotate over at least three times its size), calls are captured in a CUDA graph and timed
by events around its replays, the median of 30 or more. Rivals get what favours them: plans made outside the graph,
contiguous KV where they know no pages.

    python3 rivals.py --out FILE [--seconds N] [--quick] [--families decode,prefill,...] [--flex]
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import time

import torch

HEADS_Q, HEADS_KV, DIM = 32, 8, 128
BF16, E4M3 = torch.bfloat16, torch.float8_e4m3fn
SCALE = 1.0 / math.sqrt(DIM)
# Three times the L2 of the largest chip that this is for.
COLD_BYTES = 180_000_000
# A graph of one short call would time its own launch.
GRAPH_US = 600.0


class Bench:
    def __init__(self, out, seconds, quick):
        self.out, self.quick = out, quick
        self.end = time.monotonic() + seconds
        self.failed = 0
        self.late = 0

    def emit(self, **row):
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()

    def run(self, family, shape, impl, bytes_, flops, make, sets=None, guess_us=5.0, graph=True):
        """Times `make(set)()` for `sets` sets of inputs in turn."""
        if time.monotonic() > self.end:
            self.late += 1
            return
        try:
            sets = sets or max(1, math.ceil(COLD_BYTES / max(bytes_, 1)))
            calls = [make(index) for index in range(sets)]
            count = max(sets, min(64, math.ceil(GRAPH_US / guess_us)))
            us, spread = timed([calls[index % sets] for index in range(count)], self.quick, graph)
            self.emit(family=family, shape=shape, impl=impl, us=us, spread=spread, bytes=bytes_, flops=flops)
        except Exception as error:  # Whatever a rival raises is its own row, not the end of the run.
            self.failed += 1
            text = f"{type(error).__name__}: {error}"
            self.emit(family=family, shape=shape, impl=impl, error=text[:300])
            torch.cuda.synchronize()


def captured(calls):
    """A function that replays them as one graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls[: min(len(calls), 3)]:
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def timed(calls, quick, graph=True):
    """Median microseconds per call, and (p90 - p10) / median."""
    run = captured(calls) if graph else lambda: [call() for call in calls]
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    times = []
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(30 if quick else 50):
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000.0 / len(calls))
    times.sort()
    median = statistics.median(times)
    return median, (times[len(times) * 9 // 10] - times[len(times) // 10]) / median


def once(prepare):
    """Prepares at the first set, so that what fails there is the row's own failure."""
    made = []

    def make(index):
        if not made:
            made.append(prepare())
        return made[0](index)

    return make


def decode_shapes(quick):
    if quick:
        return [(1, 1), (1, 4), (1, 16), (8, 4), (8, 16), (32, 4), (64, 8)]
    return [*itertools.product([1, 8], [1, 4, 16, 32]), (32, 4), (128, 2), (64, 8)]


class Pages:
    """A pool of random pages [K|V, heads, 16 tokens, dim], cut anew for each shape."""

    page = 16

    def __init__(self, bytes_):
        self.words = torch.randn(bytes_ // 2, dtype=BF16, device="cuda")
        self.codes = {BF16: self.words, E4M3: self.words.to(E4M3)}

    def table(self, batch, length):
        """[batch, pages of a row], shuffled; one for all sets, as all layers of a step share one."""
        generator = torch.Generator().manual_seed(1)
        rows = batch * (length // self.page)
        return torch.randperm(rows, generator=generator, dtype=torch.int32).view(batch, -1).cuda()

    def cut(self, kv, batch, length, set_index):
        """A set's pages."""
        rows = batch * (length // self.page)
        size = 2 * HEADS_KV * self.page * DIM
        flat = self.codes[kv]
        sets = flat.numel() // (rows * size)
        if sets == 0:
            raise MemoryError("the pool is smaller than one set")
        begin = set_index % sets * rows * size
        return flat[begin : begin + rows * size].view(rows, 2, HEADS_KV, self.page, DIM)


def decode(bench, flashinfer, pool):
    # XQA's holds semaphores that must begin as zeros; nobody else may write there.
    semaphores, workspace = (torch.zeros(256 << 20, dtype=torch.uint8, device="cuda") for _ in range(2))
    for batch, thousands in decode_shapes(bench.quick):
        length = thousands * 1024
        table = pool.table(batch, length)
        lengths = torch.full((batch,), length, dtype=torch.int32, device="cuda")
        for kv, name in [(BF16, "bf16"), (E4M3, "fp8")]:
            shape = f"{batch}x{thousands}k {name} p16"
            kv_bytes = batch * length * 2 * HEADS_KV * DIM * (2 if kv == BF16 else 1)
            bytes_ = kv_bytes + 2 * batch * HEADS_Q * DIM * 2
            guess = max(6.0, kv_bytes / 4e6)

            def query():
                return torch.randn(batch, HEADS_Q, DIM, dtype=BF16, device="cuda")

            def multi_query(index):
                pages = pool.cut(kv, batch, length, index)
                q, out = query(), torch.empty(batch, HEADS_Q, DIM, dtype=BF16, device="cuda")
                return lambda: flashinfer.decode.xqa_batch_decode_with_kv_cache(
                    q, (pages[:, 0], pages[:, 1]), semaphores, table, lengths, length,
                    bmm1_scale=SCALE, bmm2_scale=1.0, out=out, kv_layout="HND",
                )  # fmt: skip

            def planned(use_tensor_cores):
                wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
                    workspace, "HND", use_tensor_cores=use_tensor_cores, backend="fa2" if use_tensor_cores else "auto"
                )
                per_row = length // pool.page
                indptr = torch.arange(0, (batch + 1) * per_row, per_row, dtype=torch.int32)
                last = torch.full((batch,), pool.page, dtype=torch.int32)
                wrapper.plan(
                    indptr, table.view(-1), last, HEADS_Q, HEADS_KV, DIM, pool.page, q_data_type=BF16, kv_data_type=kv
                )

                def make(index):
                    pages = pool.cut(kv, batch, length, index)
                    q, out = query(), torch.empty(batch, HEADS_Q, DIM, dtype=BF16, device="cuda")
                    return lambda: wrapper.run(q, pages, out=out)

                return make

            def contiguous(backend):
                def make(index):
                    pages = pool.cut(kv, batch, length, index)
                    keys = pages.reshape(2, batch, HEADS_KV, length, DIM)
                    q = query().unsqueeze(2)
                    return sdpa(backend, q, keys[0], keys[1], False)

                return make

            if flashinfer:
                bench.run("decode", shape, "flashinfer xqa", bytes_, 0, multi_query, guess_us=guess)
                bench.run(
                    "decode", shape, "flashinfer fa2 mma", bytes_, 0, once(lambda: planned(True)), guess_us=guess
                )
                if not bench.quick:
                    bench.run(
                        "decode", shape, "flashinfer fa2", bytes_, 0, once(lambda: planned(False)), guess_us=guess
                    )
            if kv == BF16 and not bench.quick:
                for backend in ["FLASH_ATTENTION", "CUDNN_ATTENTION"]:
                    impl = f"sdpa {backend.split('_')[0].lower()} (no pages)"
                    bench.run("decode", shape, impl, bytes_, 0, contiguous(backend), guess_us=guess)


def sdpa(backend, q, k, v, causal):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as attention

    def call():
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return attention(q, k, v, is_causal=causal, enable_gqa=True)

    return call


def visible(tokens, prefix):
    """Pairs of query and key that a causal mask leaves."""
    return tokens * prefix + tokens * (tokens + 1) // 2


def prefill_shapes(quick):
    if quick:
        return [(2048, 0), (8192, 0), (512, 16384), (2048, 16384)]
    return [(1024 << at, 0) for at in range(5)] + list(itertools.product([512, 2048], [16384, 32768]))


def prefill_shape(tokens, prefix):
    return f"{tokens // 1024}k" if not prefix else f"{tokens} on {prefix // 1024}k"


def prefill(bench, flashinfer, pool):
    for tokens, prefix in prefill_shapes(bench.quick):
        shape, length = prefill_shape(tokens, prefix), tokens + prefix
        flops = 4 * DIM * HEADS_Q * visible(tokens, prefix)
        bytes_ = (2 * tokens * HEADS_Q + 2 * length * HEADS_KV) * DIM * 2
        guess = flops / 5e8

        def paged():
            wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
                torch.zeros(128 << 20, dtype=torch.uint8, device="cuda"), "HND", backend="fa3"
            )
            ends = torch.tensor([0, tokens], dtype=torch.int32)
            count = torch.tensor([0, length // pool.page], dtype=torch.int32)
            last = torch.tensor([pool.page], dtype=torch.int32)
            table = pool.table(1, length).view(-1)
            wrapper.plan(ends, count, table, last, HEADS_Q, HEADS_KV, DIM, pool.page, causal=True, q_data_type=BF16)

            def make(index):
                pages = pool.cut(BF16, 1, length, index)
                q = torch.randn(tokens, HEADS_Q, DIM, dtype=BF16, device="cuda")
                out = torch.empty_like(q)
                return lambda: wrapper.run(q, pages, out=out)

            return make

        def contiguous(backend):
            def make(index):
                pages = pool.cut(BF16, 1, length, index)
                keys = pages.reshape(2, 1, HEADS_KV, length, DIM)
                q = torch.randn(1, HEADS_Q, tokens, DIM, dtype=BF16, device="cuda")
                return sdpa(backend, q, keys[0], keys[1], True)

            return make

        if flashinfer:
            bench.run("prefill", shape, "flashinfer fa3", bytes_, flops, once(paged), guess_us=guess)
        if prefix == 0:
            for backend in ["CUDNN_ATTENTION", "FLASH_ATTENTION"]:
                impl = f"sdpa {backend.split('_')[0].lower()} (no pages)"
                bench.run("prefill", shape, impl, bytes_, flops, contiguous(backend), guess_us=guess)


def mixed(bench, flashinfer, pool):
    """A step of decodes and one prefill chunk: XQA and FA3 one after the other, and all of it by FA3."""
    if not flashinfer:
        return
    semaphores, workspace = (torch.zeros(256 << 20, dtype=torch.uint8, device="cuda") for _ in range(2))
    for batch, length, tokens, prefix in [(128, 2048, 2048, 0), (32, 4096, 512, 16384)]:
        keys = tokens + prefix
        chunk = f"{tokens // 1024}k" if not prefix else f"{tokens}@{prefix // 1024}k"
        shape = f"{batch}x{length // 1024}k + {chunk}"
        bytes_ = (2 * HEADS_KV * (batch * length + keys) + 2 * HEADS_Q * (batch + tokens)) * DIM * 2
        guess = bytes_ / 4e6 + 4 * DIM * HEADS_Q * visible(tokens, prefix) / 5e8
        rows, page = batch * (length // pool.page), pool.page
        table = pool.table(batch, length)
        tail = rows + pool.table(1, keys).view(-1)
        lengths = torch.full((batch,), length, dtype=torch.int32, device="cuda")

        def planned(queries, counts, indices):
            wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "HND", backend="fa3")
            last = torch.full((len(counts),), page, dtype=torch.int32)

            def sums(values):
                return torch.tensor([0, *itertools.accumulate(values)], dtype=torch.int32)

            ends, starts = sums(queries), sums(counts)
            wrapper.plan(ends, starts, indices, last, HEADS_Q, HEADS_KV, DIM, page, causal=True, q_data_type=BF16)
            return wrapper

        def cut(index):
            return pool.cut(BF16, 1, batch * length + keys, index)

        def whole():
            queries, counts = [1] * batch + [tokens], [length // page] * batch + [keys // page]
            wrapper = planned(queries, counts, torch.cat([table.view(-1), tail]))

            def make(index):
                pages = cut(index)
                q = torch.randn(batch + tokens, HEADS_Q, DIM, dtype=BF16, device="cuda")
                out = torch.empty_like(q)
                return lambda: wrapper.run(q, pages, out=out)

            return make

        def serial():
            wrapper = planned([tokens], [keys // page], tail)

            def make(index):
                pages = cut(index)
                q = torch.randn(batch + tokens, HEADS_Q, DIM, dtype=BF16, device="cuda")
                out = torch.empty_like(q)

                def call():
                    flashinfer.decode.xqa_batch_decode_with_kv_cache(
                        q[:batch], (pages[:, 0], pages[:, 1]), semaphores, table, lengths, length,
                        bmm1_scale=SCALE, bmm2_scale=1.0, out=out[:batch], kv_layout="HND",
                    )  # fmt: skip
                    wrapper.run(q[batch:], pages, out=out[batch:])

                return call

            return make

        bench.run("mixed", shape, "flashinfer xqa, fa3", bytes_, 0, once(serial), guess_us=guess)
        bench.run("mixed", shape, "flashinfer fa3", bytes_, 0, once(whole), guess_us=guess)


def sample(bench, flashinfer, _pool):
    vocab = 131072
    logits = torch.randn(512, vocab, device="cuda") * 3.0
    for batch in [1, 64, 128] if bench.quick else [1, 64, 128, 512]:
        bytes_ = batch * vocab * 4
        rows = [logits[at : at + batch] for at in range(0, 513 - batch, batch)]
        top_k = torch.full((batch,), 50, dtype=torch.int32, device="cuda")
        top_p = torch.full((batch,), 0.9, device="cuda")
        guess = max(20.0, bytes_ / 1e6)

        def run(rule, impl, call, guess_us=guess):
            sets = min(len(rows), max(1, math.ceil(COLD_BYTES / bytes_)))
            bench.run(
                "sample", f"{batch} {rule}", impl, bytes_, 0,
                lambda index: lambda: call(rows[index]), sets=sets, guess_us=guess_us,
            )  # fmt: skip

        def sorted_rule(x, use_k, use_p):
            values, order = torch.sort(x, dim=-1, descending=True)
            if use_k:
                values[:, 50:] = -torch.inf
            probabilities = torch.softmax(values, dim=-1)
            if use_p:
                ahead = probabilities.cumsum(dim=-1) - probabilities
                probabilities = torch.where(ahead < 0.9, probabilities, 0.0)
            draw = (probabilities / torch.empty_like(probabilities).exponential_()).argmax(dim=-1, keepdim=True)
            return order.gather(-1, draw)

        if flashinfer:
            kit = flashinfer.sampling
            fixed = {"seed": 1, "offset": 0}
            run("both", "flashinfer logits", lambda x: kit.top_k_top_p_sampling_from_logits(x, top_k, top_p, **fixed))
            joint = {"filter_apply_order": "joint", **fixed}
            run(
                "both", "flashinfer joint",
                lambda x: kit.top_k_top_p_sampling_from_logits(x, top_k, top_p, **joint),
            )  # fmt: skip
            run("top-k", "flashinfer", lambda x: kit.top_k_sampling_from_probs(torch.softmax(x, -1), top_k, **fixed))
            run("top-p", "flashinfer", lambda x: kit.top_p_sampling_from_probs(torch.softmax(x, -1), top_p, **fixed))
        run("greedy", "torch argmax", lambda x: x.argmax(dim=-1), guess_us=max(10.0, bytes_ / 2e6))
        if not bench.quick:
            for rule, use_k, use_p in [("top-k", True, False), ("top-p", False, True), ("both", True, True)]:
                run(rule, "torch sort", lambda x, k=use_k, p=use_p: sorted_rule(x, k, p), guess_us=2000.0)


def small(bench, flashinfer, pool):
    """Norm, activation, append: 4,096 tokens."""
    tokens, hidden, inner = 4096, 4096, 14336
    weight = torch.randn(hidden, dtype=BF16, device="cuda")

    def norm_inputs():
        return (torch.randn(tokens, hidden, dtype=BF16, device="cuda") for _ in range(2))

    def fused_norm(_):
        x, rest = norm_inputs()
        return lambda: flashinfer.norm.fused_add_rmsnorm(x, rest, weight)

    def torch_norm(_):
        x, rest = norm_inputs()
        return lambda: torch.nn.functional.rms_norm(rest.add_(x), (hidden,), weight, 1e-6)

    norm_bytes = 4 * tokens * hidden * 2
    if flashinfer:
        bench.run("norm", "4k x 4096", "flashinfer", norm_bytes, 0, fused_norm, guess_us=30.0)
    bench.run("norm", "4k x 4096", "torch", norm_bytes, 0, torch_norm, guess_us=60.0)

    def fused_silu(_):
        x = torch.randn(tokens, 2 * inner, dtype=BF16, device="cuda")
        out = torch.empty(tokens, inner, dtype=BF16, device="cuda")
        return lambda: flashinfer.activation.silu_and_mul(x, out)

    def torch_silu(_):
        x = torch.randn(tokens, 2 * inner, dtype=BF16, device="cuda")
        return lambda: torch.nn.functional.silu(x[:, :inner]) * x[:, inner:]

    silu_bytes = 3 * tokens * inner * 2
    if flashinfer:
        bench.run("silu", "4k x 14336", "flashinfer", silu_bytes, 0, fused_silu, guess_us=80.0)
    bench.run("silu", "4k x 14336", "torch", silu_bytes, 0, torch_silu, guess_us=200.0)

    if flashinfer:
        table = pool.table(1, tokens).view(-1)
        for kv, name in [(BF16, "bf16")]:

            def append(index):
                pages = pool.cut(kv, 1, tokens, index)
                k, v = (torch.randn(tokens, HEADS_KV, DIM, dtype=kv, device="cuda") for _ in range(2))
                of = torch.zeros(tokens, dtype=torch.int32, device="cuda")
                positions = torch.arange(tokens, dtype=torch.int32, device="cuda")
                ends = torch.tensor([0, tokens // pool.page], dtype=torch.int32, device="cuda")
                last = torch.tensor([pool.page], dtype=torch.int32, device="cuda")
                return lambda: flashinfer.append_paged_kv_cache(
                    k, v, of, positions, pages, table, ends, last, kv_layout="HND"
                )

            # It moves K and V alone: no norm, no rotation, no Q.
            bytes_ = 4 * tokens * HEADS_KV * DIM * 2
            bench.run("append", f"4k {name}", "flashinfer (K and V alone)", bytes_, 0, append, guess_us=15.0)


def ceilings(bench, _flashinfer, _pool):
    source, target = (torch.empty(4 << 30, dtype=torch.uint8, device="cuda") for _ in range(2))
    source.random_()
    # In a graph the driver copies differently: this is the ceiling of both ways.
    for impl, graph in [("torch, in a graph", True), ("torch", False)]:
        bench.run(
            "copy", "4 GiB", impl, 2 * source.numel(), 0,
            lambda _: lambda: target.copy_(source), guess_us=1000.0, graph=graph,
        )  # fmt: skip
    # A read alone: what decode can hope for.
    words = source.view(torch.int32)
    bench.run("read", "4 GiB", "torch amax", source.numel(), 0, lambda _: lambda: words.amax(), guess_us=1000.0)
    del source, target, words
    a, b = (torch.randn(8192, 8192, dtype=BF16, device="cuda") for _ in range(2))
    out = torch.empty_like(a)
    bytes_, flops = 3 * 8192 * 8192 * 2, 2 * 8192**3
    bench.run("matmul", "8192^3", "torch", bytes_, flops, lambda _: lambda: torch.mm(a, b, out=out), guess_us=1400.0)


def flex(bench, pool):
    """FlexAttention over its own pages: compiled by Triton, which takes a while for each shape."""
    from torch.nn.attention.experimental._paged_attention import PagedAttention
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    page = 128
    compiled = torch.compile(flex_attention, dynamic=False)
    for batch, thousands in [(8, 4), (32, 4)]:
        length = thousands * 1024
        bytes_ = batch * length * 2 * HEADS_KV * DIM * 2 + 2 * batch * HEADS_Q * DIM * 2
        pages = batch * length // page

        def make(index):
            paged = PagedAttention(pages, page, batch, device="cuda")
            for row in range(batch):
                paged.reserve(torch.tensor(row, device="cuda"), torch.tensor(length, device="cuda"))
            k, v = (torch.randn(1, HEADS_KV, pages * page, DIM, dtype=BF16, device="cuda") for _ in range(2))
            mask = create_block_mask(
                lambda b, h, q, kv: kv < length, batch, 1, 1, length, device="cuda", BLOCK_SIZE=page
            )
            physical = paged.convert_logical_block_mask(mask)
            q = torch.randn(batch, HEADS_Q, 1, DIM, dtype=BF16, device="cuda")
            return lambda: compiled(q, k, v, block_mask=physical, enable_gqa=True)

        sets = max(1, math.ceil(COLD_BYTES / bytes_))
        bench.run("decode", f"{batch}x{thousands}k bf16 p16", "flex paged (page 128)", bytes_, 0, make, sets=sets)


FAMILIES = {
    "ceilings": ceilings,
    "decode": decode,
    "prefill": prefill,
    "mixed": mixed,
    "sample": sample,
    "small": small,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--flex", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("rivals: PyTorch sees no GPU")
    try:
        import flashinfer
        import flashinfer.decode
    except Exception as error:  # An import can fail in many ways; the others are timed all the same.
        print(f"rivals: no FlashInfer: {type(error).__name__}: {error}", file=sys.stderr)
        flashinfer = None
    torch.manual_seed(1)
    with open(options.out, "a") as out:
        bench = Bench(out, options.seconds, options.quick)
        pool = Pages((9 if not options.quick else 5) << 29)
        for name in options.families.split(","):
            from_ = time.monotonic()
            FAMILIES[name](bench, flashinfer, pool)
            torch.cuda.empty_cache()
            print(f"rivals: {name}: {time.monotonic() - from_:.1f} s", file=sys.stderr)
        if options.flex:
            flex(bench, pool)
    if bench.failed or bench.late or flashinfer is None:
        sys.exit(f"rivals: {bench.failed} failed, {bench.late} not run for lack of time")


if __name__ == "__main__":
    main()
