"""One table from the JSON lines of benches/kernels, benches/executor.rs and rivals.py, and what became of each bar.

    python3 table.py [--power SAMPLES.csv] FILE.jsonl...

Rows are ours: microseconds, GB/s or TFLOP/s, per cent of the ceiling measured in the same run (copies for bytes,
matrix products for FLOP), the best rival on the same shape and how many times longer it takes. Bars judge what the
executor runs; the other ways of ours are called variants. What was timed more than once counts with its median. Exits
with 1 if a bar is missed, 2 if one could not be judged.
"""

import argparse
import collections
import csv
import datetime
import json
import statistics
import sys

OURS = "flyball"
# What the executor runs of a family, where that is not called as all of ours are: the first that the card has.
RUN = {"prefill": ("flyball hopper", "flyball mma"), "mixed": ("flyball branches",)}
# Of launch parameters: shown, and judged by no bar.
SWEEP = "sweep"


class Results:
    """Median rows by (family, shape, impl), the errors, and the phases of the power probe."""

    def __init__(self, lines):
        seen = collections.defaultdict(list)
        self.errors, self.phases, self.notes = [], [], []
        for row in lines:
            if row["family"] == "power":
                self.phases.append(row)
            elif row["family"] == "note":
                self.notes.append(row["text"])
            elif "error" in row:
                self.errors.append(row)
            else:
                seen[row["family"], row["shape"], row["impl"]].append(row)
        self.rows = {key: merged(rows) for key, rows in seen.items()}

    def of(self, family, shape):
        return [row for (f, s, _), row in self.rows.items() if (f, s) == (family, shape)]

    def run(self, family, shape):
        """What the executor runs; None where it was not measured."""
        names = ((family, shape, impl) for impl in RUN.get(family, (OURS,)))
        return next((self.rows[name] for name in names if name in self.rows), None)

    def ours(self, family, shape):
        """The same, if it can be true."""
        row = self.run(family, shape)
        return None if row and impossible(self, row) else row

    def variants(self, family, shape):
        """The other ways of ours, the fastest first."""
        run = self.run(family, shape)
        rows = (row for row in self.of(family, shape) if row["impl"].startswith(OURS) and row is not run)
        return sorted(rows, key=lambda row: row["us"])

    def rival(self, family, shape):
        return fastest(row for row in self.of(family, shape) if not row["impl"].startswith(OURS))

    def shapes(self, family):
        return list(dict.fromkeys(s for f, s, impl in self.rows if f == family and impl.startswith(OURS)))

    def copy_ceiling(self):
        """Bytes per microsecond."""
        return max((row["bytes"] / row["us"] for (f, _, _), row in self.rows.items() if f == "copy"), default=None)

    def matmul_ceiling(self):
        """FLOP per microsecond."""
        return max((row["flops"] / row["us"] for (f, _, _), row in self.rows.items() if f == "matmul"), default=None)


def merged(rows):
    out = dict(rows[0])
    out["us"] = statistics.median(row["us"] for row in rows)
    out["spread"] = max(row.get("spread", 0.0) for row in rows)
    return out


def fastest(rows):
    return min(rows, key=lambda row: row["us"], default=None)


def rate(row):
    """What the row is judged by, in words."""
    if row["flops"]:
        return f"{row['flops'] / row['us'] / 1e6:.0f} TFLOP/s"
    return f"{row['bytes'] / row['us'] / 1e3:.0f} GB/s"


def share(results, row):
    """Of the measured ceiling; None where none was measured."""
    ceiling = results.matmul_ceiling() if row["flops"] else results.copy_ceiling()
    if ceiling is None or row["family"] in ("swap", "plan") or " + " in row["shape"]:
        return None
    return (row["flops"] or row["bytes"]) / row["us"] / ceiling


def impossible(results, row):
    """Whether it is so far above the ceiling that it did not do its work."""
    part = share(results, row)
    return part is not None and part > 1.25


def table(results):
    lines = [f"{'family':7} {'shape':18} {'impl':17} {'us':>8} {'±%':>3} {'rate':>12} {'%':>3}  best rival"]
    for family in dict.fromkeys(f for f, _, _ in results.rows if f != SWEEP):
        for shape in results.shapes(family):
            run, rival = results.run(family, shape), results.rival(family, shape)
            if run:
                lines.append(line(results, run, rival))
            for row in results.variants(family, shape):
                lines.append(line(results, {**row, "impl": row["impl"].replace(OURS, "variant", 1)}, rival))
    for family, shape, impl in results.rows:
        if shape not in results.shapes(family):
            lines.append(line(results, results.rows[family, shape, impl], None))
    return lines + sweeps(results)


def sweeps(results):
    """The best launch parameters of each shape in one line."""
    lines = []
    for shape in results.shapes(SWEEP):
        best = sorted(results.of(SWEEP, shape), key=lambda row: row["us"])[:5]
        lines.append(f"{SWEEP}   {shape:17} " + " | ".join(f"{row['impl'].removeprefix(OURS).strip()} {row['us']:.1f}" for row in best))
    return lines


def line(results, row, rival):
    part = share(results, row)
    part = "" if part is None else f"{100 * part:.0f}"
    beside = ""
    if impossible(results, row):
        beside = "IMPOSSIBLE: above the ceiling, did it do its work?"
    elif rival:
        beside = f"{rival['us'] / row['us']:.2f}x {rival['impl']} {rival['us']:.1f}"
    spread = f"{50 * row.get('spread', 0.0):.0f}"
    what = f"{row['family']:7} {row['shape']:18} {row['impl']:17} {row['us']:8.1f}"
    return f"{what} {spread:>3} {rate(row):>12} {part:>3}  {beside}".rstrip()


# A bar: what it asks, and a function of the results that yields (value in words, met), or None if it was not measured.


def at_least_copy(family, shape, least):
    def judge(results):
        row = results.ours(family, shape)
        if row is None or results.copy_ceiling() is None:
            return None
        part = share(results, row)
        return f"{100 * part:.1f} %", part >= least

    return f"{family} {shape}: at least {100 * least:.0f} % of copy bandwidth", judge


def at_most_us(family, shape, most):
    def judge(results):
        row = results.ours(family, shape)
        return row and (f"{row['us']:.1f} us", row["us"] <= most)

    return f"{family} {shape}: at most {most:g} us", judge


def at_least_tflops(family, shape, least):
    def judge(results):
        row = results.ours(family, shape)
        rate = row and row["flops"] / row["us"] / 1e6
        return row and (f"{rate:.0f} TFLOP/s", rate >= least)

    return f"{family} {shape}: at least {least:g} TFLOP/s", judge


def times_faster(family, shape, than, least):
    def judge(results):
        row, other = results.ours(family, shape), results.ours(family, than)
        if row is None or other is None:
            return None
        ratio = other["us"] / row["us"]
        return f"{ratio:.2f}x", ratio >= least

    return f"{family} {shape}: at least {least:g} times as fast as {than}", judge


def within(family, shape, of, part):
    """Its rate is no more than `part` below that of another shape."""

    def judge(results):
        row, other = results.ours(family, shape), results.ours(family, of)
        if row is None or other is None:
            return None
        ratio = (row["flops"] / row["us"]) / (other["flops"] / other["us"])
        return f"{100 * ratio:.0f} %", ratio >= 1.0 - part

    return f"{family} {shape}: at least {100 * (1 - part):.0f} % of the rate at {of}", judge


def never_slower(family):
    def judge(results):
        worst, count = None, 0
        for shape in results.shapes(family):
            rival, ours = results.rival(family, shape), results.ours(family, shape)
            if rival and ours:
                count += 1
                ratio = rival["us"] / ours["us"]
                worst = min(worst or (ratio, shape), (ratio, shape))
        return worst and (f"worst {worst[0]:.2f}x at {worst[1]}, of {count} shapes", worst[0] >= 1.0)

    return f"{family}: at no shape slower than the best rival there", judge


BARS = [
    at_least_copy("decode", "32x4k bf16 p16", 0.9),
    at_least_copy("decode", "128x2k bf16 p16", 0.9),
    at_least_copy("decode", "64x8k bf16 p16", 0.9),
    at_most_us("decode", "1x4k bf16 p16", 12.0),
    times_faster("decode", "8x16k fp8 p16", "8x16k bf16 p16", 1.7),
    never_slower("decode"),
    at_least_tflops("prefill", "8k", 560.0),
    within("prefill", "512 on 16k", "8k", 0.1),
    within("prefill", "2048 on 16k", "8k", 0.1),
    within("prefill", "512 on 32k", "8k", 0.1),
    within("prefill", "2048 on 32k", "8k", 0.1),
    at_most_us("sample", "128 both", 60.0),
    at_least_copy("append", "4k bf16", 0.8),
    at_least_copy("norm", "4k x 4096", 0.8),
    at_least_copy("silu", "4k x 14336", 0.8),
]


def verdicts(results):
    """(text, value or None, met or None) of each bar."""
    out = []
    for text, judge in BARS:
        found = judge(results)
        out.append((text, *found) if found else (text, None, None))
    return out


def power(phases, samples):
    """A line per phase: mean and largest watts and mean SM clock of the samples within it."""
    lines = []
    for phase in phases:
        # The meter's own window is left out at both ends.
        within = [s for s in samples if phase["begin"] + 0.3 <= s["time"] <= phase["end"] - 0.1]
        if not within:
            lines.append(f"power    {phase['shape']:20} no sample")
            continue
        watts = [s["watts"] for s in within]
        clock = statistics.mean(s["clock"] for s in within)
        lines.append(
            f"power    {phase['shape']:20} {statistics.mean(watts):6.1f} W mean, {max(watts):6.1f} W max, "
            f"{clock:5.0f} MHz, {len(within)} samples"
        )
    return lines


def read_samples(path):
    """Rows `2026/11/27 03:00:00.250, watts, MHz` in local time; others (a failed reading) are dropped."""
    out = []
    with open(path, newline="") as file:
        for row in csv.reader(file):
            try:
                time = datetime.datetime.strptime(row[0].strip(), "%Y/%m/%d %H:%M:%S.%f").timestamp()
                out.append({"time": time, "watts": float(row[1]), "clock": float(row[2])})
            except (ValueError, IndexError):
                continue
    return out


def read(paths):
    for path in paths:
        with open(path) as file:
            for text in file:
                if text.strip():
                    yield json.loads(text)


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--power")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args(arguments)
    results = Results(read(options.files))
    print("\n".join(results.notes + table(results)))
    for row in results.errors:
        print(f"FAILED   {row['family']} {row['shape']} {row['impl']}: {row['error'][:140]}")
    if options.power:
        print("\n".join(power(results.phases, read_samples(options.power))))
    status = 0
    for text, value, met in verdicts(results):
        word = {True: "met", False: "SHORT", None: "not measured"}[met]
        print(f"{word:12} {text}" + (f": {value}" if value else ""))
        status = max(status, {True: 0, False: 1, None: 2}[met])
    return status


if __name__ == "__main__":
    sys.exit(main())
