"""Readers for the calibration tables. All times come out in microseconds."""

import csv
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

DATA = Path(".")


def use(path):
    global DATA
    DATA = Path(path)


def rows(name):
    path = DATA / name
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with open(path, newline="") as f:
        return list(csv.DictReader(line for line in f if line.strip()))


AIC = {
    "a100": ("aiconfigurator/a100_sxm/gemm/vllm/0.14.0/gemm_perf.parquet",
             "aiconfigurator/a100_sxm/attention/vllm/0.14.0/{}_attention_perf.parquet"),
    "h100": ("aiconfigurator/h100_sxm/csv/gemm_bf16.csv", "aiconfigurator/h100_sxm/csv/{}_attention_bf16_hd128.csv"),
    "h200": ("aiconfigurator/h200_sxm/csv/gemm_bf16.csv", "aiconfigurator/h200_sxm/csv/{}_attention_bf16_hd128.csv"),
}


class Gemm:
    """Latency of one m x n x k bfloat16 product, from the table, bilinear in n and k.

    Beyond the largest n (or k) of the table the line through half the largest and the largest is continued.
    """

    def __init__(self, gpu):
        self.t = {}
        for r in rows(AIC[gpu][0]):
            key = int(r["m"]), int(r["n"]), int(r["k"])
            value = float(r["latency"]) * 1e3
            self.t[key] = min(value, self.t.get(key, value))
        self.m = sorted({key[0] for key in self.t})
        self.n = sorted({key[1] for key in self.t})
        self.missing = set()

    def bracket(self, x):
        if x in self.n:
            return x, x, 0.0
        if x > self.n[-1]:
            hi = self.n[-1]
            lo = max(v for v in self.n if v <= hi // 2)
        else:
            lo, hi = max(v for v in self.n if v < x), min(v for v in self.n if v > x)
        return lo, hi, (x - lo) / (hi - lo)

    def us(self, m, n, k):
        n0, n1, fn = self.bracket(n)
        k0, k1, fk = self.bracket(k)
        if fn or fk:
            self.missing.add((n, k))
        low = self.t[m, n0, k0] * (1 - fk) + self.t[m, n0, k1] * fk
        high = self.t[m, n1, k0] * (1 - fk) + self.t[m, n1, k1] * fk
        return low * (1 - fn) + high * fn


@lru_cache(maxsize=None)
def gemm(gpu):
    return Gemm(gpu)


def attention(gpu, kind, heads, kv_heads):
    """[(batch, tokens, us)]: tokens = context including the new one (generation) or prompt length (context)."""
    out = {}
    for r in rows(AIC[gpu][1].format(kind)):
        if int(r["num_heads"]) == heads and int(r["num_key_value_heads"]) == kv_heads:
            tokens = int(r["step"]) + 1 if kind == "generation" else int(r["isl"])
            key = int(r["batch_size"]), tokens
            value = float(r["latency"]) * 1e3
            out[key] = min(value, out.get(key, value))
    return [(b, c, v) for (b, c), v in sorted(out.items())]


def chunked_prefill(name):
    """[(chunk, prefix, us)] of batch-1 prefill rows of a Vidur-style attention table."""
    out = {}
    for r in rows(name):
        if r["is_prefill"] == "True" and r["time_stats.attn_prefill.median"] and int(r["batch_size"]) == 1:
            out[int(r["prefill_chunk_size"]), int(r["kv_cache_size"])] = float(r["time_stats.attn_prefill.median"]) * 1e3
    return [(c, p, v) for (c, p), v in sorted(out.items()) if v > 0]


def vidur_ops(gpu, model, tp):
    """{op: (tokens, us)} medians of one layer."""
    data = [r for r in rows(f"vidur/compute/{gpu}/meta-llama/{model}/mlp.csv")
            if int(r["num_tensor_parallel_workers"]) == tp]
    data.sort(key=lambda r: int(r["num_tokens"]))
    tokens = [int(r["num_tokens"]) for r in data]
    ops = ("input_layernorm", "post_attention_layernorm", "attn_rope", "mlp_act", "add", "emb")
    return {op: (tokens, [float(r[f"time_stats.{op}.median"]) * 1e3 for r in data]) for op in ops}


def line(curve, m):
    """Piecewise linear look-up; past the last point the slope of the last half goes on."""
    xs, ys = curve
    if m <= xs[-1]:
        return float(np.interp(m, xs, ys))
    half = float(np.interp(xs[-1] / 2, xs, ys))
    return ys[-1] + (m - xs[-1]) * (ys[-1] - half) / (xs[-1] / 2)


def all_reduce(gpu, gpus):
    """us as a function of bf16 elements: the faster of the custom kernel (graph) and NCCL."""
    custom = sorted((int(r["message_size"]), float(r["latency"]) * 1e3)
                    for r in rows(f"aiconfigurator/{gpu}_sxm/csv/custom_allreduce.csv")
                    if int(r["num_gpus"]) == gpus and r["backend"] == "vllm_graph")
    nccl = sorted((int(r["message_size"]), float(r["latency"]) * 1e3)
                  for r in rows(f"aiconfigurator/{gpu}_sxm/csv/nccl.csv")
                  if int(r["num_gpus"]) == gpus and r["op_name"] == "all_reduce" and r["nccl_dtype"] == "half")
    curves = [tuple(zip(*c)) for c in (custom, nccl)]
    return lambda elements: min(line(c, elements) for c in curves)


def ml_energy(model, task, gpu="H100"):
    """Steady-state runs: dicts with batch, mean output, mean generated-so-far, W, ITL and mean iteration (ms)."""
    name = f"ml-energy/models/{model.replace('/', '__')}__{task}.json"
    with open(DATA / name) as f:
        doc = json.load(f)
    dist = doc.get("output_length_distribution") or {}
    out = []
    for c in doc["configurations"]:
        if c["gpu_model"] != gpu:
            continue
        h = c.get("output_length_distribution") or dist
        mid = [(a + b) / 2 for a, b in zip(h["bins"], h["bins"][1:])]
        first = sum(m * n for m, n in zip(mid, h["counts"]))
        second = sum(m * m * n for m, n in zip(mid, h["counts"]))
        out.append({
            "b": c["avg_batch_size"], "max": c["max_num_seqs"], "gpus": c["num_gpus"], "out": c["avg_output_len"],
            "age": second / first / 2, "w": c["avg_power_watts"], "itl_ms": c["median_itl_ms"],
            "iter_ms": c["avg_batch_size"] / c["output_throughput_tokens_per_sec"] * 1e3,
        })
    return sorted(out, key=lambda r: (r["gpus"], r["max"]))


def bench(hardware, gpus, model, framework):
    """llm-inference-bench: [(length, batch, seconds)], input and output both of that length."""
    out = {}
    for r in rows("llm-inference-bench/All_results.csv"):
        if (r["Hardware"], r["Num of Hardware"], r["Model"], r["Framework"]) == (hardware, str(gpus), model, framework):
            out[int(r["Input Output Length"]), int(r["Batch Size"])] = float(r["Latency"])
    return [(n, b, s) for (n, b), s in sorted(out.items())]


def bench_power(hardware, model, framework):
    """[(batch, W)] at 1024 in and 1024 out."""
    return sorted((int(r["Batch Size"]), float(r["avg_power"]) / 1e3)
                  for r in rows("llm-inference-bench/Fig_16_a_b/power_results.csv")
                  if (r["Hardware"], r["Model"], r["Framework"]) == (hardware, model, framework))


def bench_ttft(hardware, model):
    """[(framework, input, batch, seconds)]."""
    return sorted((r["Framework"], int(r["Input Length"]), int(r["Batch Size"]), float(r["TTFT Latency"]))
                  for r in rows("llm-inference-bench/Fig_22/all_results_TTFT_ITL.csv")
                  if r["Hardware"] == hardware and r["Model"] == model)
