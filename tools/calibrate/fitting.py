"""Small deterministic fitting tools: non-negative least squares, maximum of planes, isotonic curves."""

from itertools import combinations

import numpy as np


def nnls(a, y):
    """Exact non-negative least squares for a handful of columns, by trying every support."""
    best, best_cost = np.zeros(a.shape[1]), float(np.sum(y * y))
    for size in range(1, a.shape[1] + 1):
        for cols in combinations(range(a.shape[1]), size):
            cols = list(cols)
            scale = np.linalg.norm(a[:, cols], axis=0)
            if np.any(scale == 0):
                continue
            x = np.linalg.lstsq(a[:, cols] / scale, y, rcond=None)[0] / scale
            if np.any(x < 0):
                continue
            cost = float(np.sum((a[:, cols] @ x - y) ** 2))
            if cost < best_cost * (1 - 1e-12):
                best, best_cost = np.zeros(a.shape[1]), cost
                best[cols] = x
    return best


def max_planes(features, target, pieces, rounds=60):
    """Fits target ~ max over pieces of features @ x, x >= 0, in least relative error.

    Alternates between assigning points to their largest piece and refitting each piece;
    starts from several orderings of the points and keeps the best result met.
    """
    f, t = np.asarray(features, float), np.asarray(target, float)
    w = 1.0 / t
    ranks = [f[:, -1], t, f[:, 1], t / (1.0 + f[:, -1]), f[:, -1] / (1.0 + f[:, 1])]
    best, best_cost = None, np.inf
    for rank in ranks:
        order = np.argsort(rank, kind="stable")
        for first in (0.15, 0.3, 0.5, 0.7, 0.85):
            cuts = [0.0, first] + [first + (1 - first) * (i + 1) / (pieces - 1) for i in range(pieces - 1)]
            if pieces == 1:
                cuts = [0.0, 1.0]
            owner = np.zeros(len(t), int)
            for p in range(pieces):
                owner[order[int(cuts[p] * len(t)):int(cuts[p + 1] * len(t))]] = p
            seen = set()
            for _ in range(rounds):
                xs = []
                for p in range(pieces):
                    pick = owner == p
                    if pick.sum() >= f.shape[1]:
                        xs.append(nnls(f[pick] * w[pick, None], np.ones(pick.sum())))
                if not xs:
                    break
                values = f @ np.array(xs).T
                cost = float(np.mean((values.max(axis=1) * w - 1) ** 2))
                if cost < best_cost * (1 - 1e-9):
                    best, best_cost = np.array(xs), cost
                owner = values.argmax(axis=1)
                key = owner.tobytes()
                if key in seen:
                    break
                seen.add(key)
    return polish(f, t, best)


def polish(f, t, x, sweeps=80):
    """Coordinate search on the true objective, from the alternating solution."""
    def cost(v):
        return float(np.mean(((f @ v.T).max(axis=1) / t - 1) ** 2))

    x, here, step = x.copy(), cost(x), 0.2
    scale = [float(np.median(t)) / max(float(np.median(f[:, j])), 1e-9) for j in range(f.shape[1])]
    for _ in range(sweeps):
        moved = False
        for p in range(x.shape[0]):
            for j in range(x.shape[1]):
                base = x[p, j] if x[p, j] > 0 else 0.01 * scale[j]
                for delta in (step * base, -step * base):
                    trial = x.copy()
                    trial[p, j] = max(0.0, x[p, j] + delta)
                    c = cost(trial)
                    if c < here * (1 - 1e-7):
                        x, here, moved = trial, c, True
                        break
        if not moved:
            step *= 0.5
            if step < 1e-4:
                break
    return x


def isotonic(values):
    """Non-decreasing curve closest to the values in relative terms (pool adjacent violators)."""
    blocks = []
    for v in values:
        blocks.append([float(v), 1.0 / float(v) ** 2, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, wa, na), (b, wb, nb) = blocks[-2], blocks[-1]
            blocks[-2:] = [[(a * wa + b * wb) / (wa + wb), wa + wb, na + nb]]
    return np.concatenate([np.full(n, v) for v, _, n in blocks])


def pattern_search(cost, x, step=0.3, floor=1e-4):
    """Minimises cost over non-negative x by relative coordinate steps."""
    x, here = list(x), cost(x)
    while step > floor:
        moved = False
        for j in range(len(x)):
            for factor in (1 + step, 1 / (1 + step)):
                trial = list(x)
                trial[j] *= factor
                c = cost(trial)
                if c < here * (1 - 1e-9):
                    x, here, moved = trial, c, True
                    break
        if not moved:
            step *= 0.5
    return x


def error(predicted, measured):
    """(points, median %, worst %) of the absolute relative errors."""
    if len(measured) == 0:
        return 0, None, None
    e = np.abs(np.asarray(predicted, float) / np.asarray(measured, float) - 1) * 100
    return len(e), round(float(np.median(e)), 1), round(float(e.max()), 1)


def sig(x, digits=5):
    """Rounds to significant digits, so the written bytes do not hang on the last bit of a solver."""
    if isinstance(x, (list, tuple, np.ndarray)):
        return [sig(v, digits) for v in x]
    x = float(f"{float(x):.{digits}g}")
    return int(x) if x == int(x) and abs(x) < 1e15 else x
