"""The step-time and energy formulas of a profile, exactly as a reader has to evaluate them."""


def dense_us(time, tokens):
    if tokens <= 0:
        return 0.0
    xs, ys = time["dense"]["tokens"], time["dense"]["us"]
    if tokens <= xs[0]:
        return float(ys[0])
    i = 1
    while i < len(xs) - 1 and tokens > xs[i]:
        i += 1
    return ys[i - 1] + (tokens - xs[i - 1]) * (ys[i] - ys[i - 1]) / (xs[i] - xs[i - 1])


def pairs_of(chunks):
    """Query-key pairs of prefill chunks [(new tokens, prefix tokens)]."""
    return sum(c * p + c * (c + 1) / 2 for c, p in chunks)


def decode_attention_us(time, n, context):
    if n <= 0:
        return 0.0
    return max(q["base_us"] + q["seq_us"] * n + q["ctx_us"] * context for q in time["decode_attention"]["pieces"])


def prefill_attention_us(time, chunks):
    if not chunks:
        return 0.0
    new, pairs = sum(c for c, _ in chunks), pairs_of(chunks)
    return max(q["base_us"] + q["chunk_us"] * new + q["pair_us"] * pairs for q in time["prefill_attention"]["pieces"])


def step_us(profile, n, context, chunks=()):
    """n decodes with `context` tokens in all, plus prefill chunks [(new, prefix)]."""
    time = profile["time"]
    tokens = n + sum(c for c, _ in chunks)
    return (time["step_overhead_us"] + time["row_us"] * (n + len(chunks)) + dense_us(time, tokens)
            + decode_attention_us(time, n, context) + prefill_attention_us(time, chunks))


def step_j(profile, us, n, context, chunks=()):
    e, hw = profile["energy"], profile["hardware"]
    t = us * 1e-6
    j = (e["busy_w"] * t + e["token_j"] * (n + sum(c for c, _ in chunks)) + e["ctx_j"] * context
         + e["pair_j"] * pairs_of(chunks))
    return min(j, hw["board_w"] * hw["count"] * t)
