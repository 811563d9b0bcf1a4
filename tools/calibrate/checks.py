"""Whole-step predictions of a profile for the measured end-to-end runs."""

import math

import tables as T
from fitting import error
from model import decode_attention_us, dense_us, prefill_attention_us, step_j, step_us

BUDGET = 8192
A100_40GB = 2039 / 1555  # HBM bandwidth of the 80 GB board over that of the 40 GB board


def poisson(mean):
    """[(k, probability)] up to a negligible tail."""
    out, p, k, total = [], math.exp(-mean), 0, 0.0
    while total < 1 - 1e-9 and k < 200:
        out.append((k, p))
        total += p
        k += 1
        p *= mean / k
    return out


def steady(profile, run, prompt):
    """A steady state of `b` requests, new ones arriving as Poisson with b/out per step, one chunk per prompt.

    Returns median step ms, mean step ms, mean W.
    """
    b, rate = run["b"], run["b"] / run["out"]
    context = b * (prompt + run["age"])
    mean_us = mean_j = seen = 0.0
    median = None
    for k, p in poisson(rate):
        us = step_us(profile, b, context, [(prompt, 0)] * k)
        mean_us += p * us
        mean_j += p * step_j(profile, us, b, context, [(prompt, 0)] * k)
        seen += p
        if median is None and seen >= 0.5:
            median = us
    return median / 1e3, mean_us / 1e3, mean_j / (mean_us * 1e-6)


def batch_us(profile, length, batch, slow=1.0, overhead=True):
    """A static batch: all prompts prefilled within the token budget, then length-1 decode steps.

    slow > 1 stretches the memory-bound parts (weights and KV reads) for a board with less bandwidth.
    Returns total us, prefill us, steps, decode rows.
    """
    t = profile["time"]
    oh, row = (t["step_overhead_us"], t["row_us"]) if overhead else (0.0, 0.0)

    def dense(m):
        return max(dense_us(t, m), slow * dense_us(t, min(m, 64))) if slow > 1 else dense_us(t, m)

    prefill, steps, left = 0.0, 0, [length] * batch
    while left:
        room, chunks, rest = BUDGET, [], []
        for n in left:
            c = min(n, room)
            room -= c
            if c:
                chunks.append((c, length - n))
            if n - c:
                rest.append(n - c)
        left, steps = rest, steps + 1
        prefill += oh + row * len(chunks) + dense(sum(c for c, _ in chunks)) + prefill_attention_us(t, chunks)
    one = oh + row * batch + dense(batch) + slow * decode_attention_us(t, batch, batch * 1.5 * length)
    return prefill + (length - 1) * one, prefill, length - 1 + steps, (length - 1) * batch


def entry(against, pairs, note):
    n, median, worst = error([p for p, _ in pairs], [m for _, m in pairs])
    return {"against": against, "points": n, "median_pct": median or 0.0, "worst_pct": worst or 0.0, "note": note}


def silicon(profile, systems, name, tp):
    """bf16 aggregated rows of the end-to-end sample for this model and machine (there may be none)."""
    data = [r for r in T.rows("aiconfigurator/silicon_sample.h100_h200.csv")
            if r["system"] == systems and name in r["model_path"] and r["mode"] == "agg" and r["tp_size"] == str(tp)
            and r["pp_size"] in ("", "1")]
    other = sum(r["precision"] not in ("bf16", "bfloat16") for r in data)
    tpot, ttft = [], []
    for r in data:
        if r["precision"] not in ("bf16", "bfloat16"):
            continue
        b, isl, osl = int(r["batch_size"]), int(r["isl"]), int(r["osl"])
        tpot.append((step_us(profile, b, b * (isl + osl / 2)) / 1e3, float(r["silicon_tpot_ms"])))
        chunks = [(min(BUDGET, isl - p), p) for p in range(0, isl, BUDGET)]
        ttft.append((sum(step_us(profile, 0, 0, [c]) for c in chunks) / 1e3, float(r["silicon_ttft_ms"])))
    note = f"{other} rows of this model and machine are in another precision (fp8) and not comparable" if other else \
        "no rows of this model and machine"
    return [entry(f"silicon_sample.h100_h200.csv {w}, bf16, aggregated", p, note if not p else "")
            for w, p in (("TPOT", tpot), ("TTFT", ttft))]


def bench(profile, hardware, gpus, model, framework, slow, keep, note):
    pairs = [(batch_us(profile, n, b, slow)[0], s * 1e6) for n, b, s in T.bench(hardware, gpus, model, framework)
             if keep(n, b)]
    return entry(f"llm-inference-bench whole-batch latency, {hardware} x{gpus}, {framework}, {model.split('/')[1]}",
                 pairs, note)


def bench_ttft(profile, hardware, model, frameworks):
    pairs = [(batch_us(profile, n, b)[1], s * 1e6) for f, n, b, s in T.bench_ttft(hardware, model) if f in frameworks]
    return entry(f"llm-inference-bench TTFT of 16 prompts of 1024, {hardware}, {' and '.join(frameworks)}", pairs,
                 "time until the whole batch is prefilled, chunked at 8192")


def prefix_increments(profile):
    """Growth of attention time with the prefix, against the old Vidur A100 table (32 query heads, as here)."""
    data = {(c, p): us for c, p, us in T.chunked_prefill("vidur/history/a100/attention.csv")}
    layers = profile["model"]["layers"]
    t = profile["time"]
    pairs = [((prefill_attention_us(t, [(c, p)]) - prefill_attention_us(t, [(c, 0)])) / layers, us - data[c, 0])
             for (c, p), us in data.items() if c >= 512 and p >= 1024 and (c, 0) in data and us > data[c, 0]]
    return entry("vidur/history/a100/attention.csv: extra attention time due to a prefix of 1024 tokens or more", pairs,
                 "chunks of 512 to 3008 tokens; the level of that older kernel is about twice as slow, its growth is compared")


def splitwise(profile):
    out = []
    data = [r for r in T.rows("splitwise-sim/perf_model.csv")
            if r["model"] == "llama2-70b" and r["hardware"] == "h100-80gb" and r["tensor_parallel"] == "4"]
    tok, pre = {}, {}
    for r in data:
        b, n, g = int(float(r["batch_size"])), int(float(r["prompt_size"])), int(float(r["token_size"]))
        tok.setdefault((b, n, g), []).append(float(r["token_time"]))
        pre.setdefault((b, n), []).append(float(r["prompt_time"]))
    pairs = [(step_us(profile, b, b * (n + g / 2)) / 1e3, sum(v) / len(v)) for (b, n, g), v in sorted(tok.items())]
    out.append(entry("splitwise-sim llama2-70b h100-80gb TP4 token time", pairs,
                     "near-identical model (vocabulary 32000), engine of 2023; mean of repeats"))
    pairs = [(batch_us(profile, n, b)[1] / 1e3, sum(v) / len(v)) for (b, n), v in sorted(pre.items())]
    out.append(entry("splitwise-sim llama2-70b h100-80gb TP4 prompt time", pairs,
                     "the same; batch of prompts chunked at 8192"))
    return out


def steady_time(profile, run, prompt):
    """Mean step ms of a steady state, without the energy part."""
    context = run["b"] * (prompt + run["age"])
    return sum(p * step_us(profile, run["b"], context, [(prompt, 0)] * k)
               for k, p in poisson(run["b"] / run["out"])) / 1e3
