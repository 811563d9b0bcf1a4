"""Builds the time part of a profile (dense curve and attention planes) from the tables."""

import numpy as np

import tables as T
from fitting import error, isotonic, max_planes, sig
from model import decode_attention_us, dense_us, prefill_attention_us

KNOTS = (1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536,
         2048, 2560, 3072, 4096, 5120, 6144, 8192)


def shapes(model, tp):
    """(n, k) of the four products of one layer on one rank, and of the LM head."""
    d = model["head_dim"]
    qkv = (model["heads"] + 2 * model["kv_heads"]) * d // tp
    layer = [(qkv, model["hidden"]), (model["hidden"], model["heads"] * d // tp),
             (2 * model["ffn"] // tp, model["hidden"]), (model["hidden"], model["ffn"] // tp)]
    return layer, (model["vocab"] // tp, model["hidden"])


def small_ops(spec, m):
    """Norms, residual adds, rotary and activation of one layer, us, from the Vidur medians of a like layer.

    The adds are fused into the norms in the engine, so only their memory time (above the launch floor) counts.
    Activation and rotary times are scaled to this model's widths, above their launch floor.
    """
    like = spec["like"]
    ops = spec["ops"]
    bandwidth = like.get("bandwidth_ratio", 1.0)

    def above(op, ratio):
        floor = min(ops[op][1])
        return max(0.0, T.line(ops[op], m) - floor) * ratio * bandwidth

    def floor(op):
        return min(ops[op][1])

    norms = sum(floor(op) + above(op, 1.0) for op in ("input_layernorm", "post_attention_layernorm"))
    return (norms + 2 * above("add", 1.0) + floor("attn_rope") + above("attn_rope", like["rope_ratio"])
            + floor("mlp_act") + above("mlp_act", like["act_ratio"]))


def dense(spec):
    """The dense curve, its piecewise-linear knots and the fit row."""
    model, tp, gpu = spec["model"], spec["tp"], spec["gpu"]
    g = T.gemm(gpu)
    layer, head = shapes(model, tp)
    reduce_us = T.all_reduce(gpu, tp) if tp > 1 else None
    ms = [m for m in g.m if m <= 8192]
    raw = []
    for m in ms:
        us = sum(g.us(m, n, k) for n, k in layer) + small_ops(spec, m)
        if reduce_us:
            us += 2 * reduce_us(m * model["hidden"])
        raw.append(us * model["layers"])
    head_base = g.us(1, *head)
    smooth = isotonic(raw) + head_base
    xs = [k for k in KNOTS if k in ms]
    ys = [float(smooth[ms.index(k)]) for k in xs]
    time = {"dense": {"tokens": xs, "us": sig(ys)}}
    n, median, worst = error([dense_us(time, m) for m in ms], np.array(raw) + head_base)
    fit = {"part": "dense", "points": n, "median_pct": median, "worst_pct": worst}
    gemm_only = {m: sum(g.us(m, n, k) for n, k in layer) * model["layers"] for m in ms}
    head_row = float(np.median([(g.us(m, *head) - head_base) / m for m in ms if 64 <= m <= 512]))
    return time["dense"], fit, gemm_only, head_base, max(0.0, head_row)


def planes(points, names, layers, kind, evaluate):
    """Fits 1 to 3 planes; a further plane is kept only when it lowers the mean squared error by a tenth."""
    f = np.array([[1.0, a, b] for a, b, _ in points])
    t = np.array([us * layers for _, _, us in points])
    best, best_cost = None, np.inf
    for count in (1, 2, 3):
        x = max_planes(f, t, count)
        cost = float(np.mean(((f @ x.T).max(axis=1) / t - 1) ** 2))
        if cost < best_cost * 0.9:
            best, best_cost = x, cost
    pieces = [dict(zip(names, sig(p))) for p in sorted(best.tolist(), key=lambda p: p[2])]
    predicted = np.array([max(p[names[0]] + p[names[1]] * a + p[names[2]] * b for p in pieces) for a, b, _ in points])
    n, median, worst = error(predicted, t)
    at = int(np.argmax(np.abs(predicted / t - 1)))
    return pieces, {"part": kind, "points": n, "median_pct": median, "worst_pct": worst, "worst_at": evaluate[at]}


def decode_attention(gpu, heads, kv_heads, layers):
    data = [(b, c, us) for b, c, us in T.attention(gpu, "generation", heads, kv_heads)
            if b <= 512 and 128 <= c <= 65536]
    return planes([(b, b * c, us) for b, c, us in data], ("base_us", "seq_us", "ctx_us"), layers, "decode_attention",
                  [f"batch {b}, context {c}" for b, c, _ in data])


def prefill_attention(gpu, heads, kv_heads, layers):
    data = [(b, c, us) for b, c, us in T.attention(gpu, "context", heads, kv_heads)
            if 16 <= c <= 16384 and b * c <= 16384]
    return planes([(b * c, b * (c * (c + 1) // 2), us) for b, c, us in data], ("base_us", "chunk_us", "pair_us"),
                  layers, "prefill_attention", [f"{b} prompts of {c}" for b, c, _ in data])
