"""The table's arithmetic and the bars' verdicts: python3 -m unittest discover tools/gpu_check."""

import contextlib
import datetime
import io
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import table


def row(family, shape, impl, us, bytes=0, flops=0, **more):
    return {"family": family, "shape": shape, "impl": impl, "us": us, "bytes": bytes, "flops": flops, **more}


# A card that copies 4 MB and computes 800 MFLOP in a microsecond.
CEILINGS = [
    row("copy", "2 GiB", "flyball memcpy", 1000.0, bytes=4_000_000_000),
    row("copy", "2 GiB", "torch copy", 1100.0, bytes=4_000_000_000),
    row("matmul", "8192^3", "torch", 1000.0, flops=800_000_000_000),
]


def verdict(rows, start):
    found = [v for v in table.verdicts(table.Results(rows)) if v[0].startswith(start)]
    assert len(found) == 1, found
    return found[0][1:]


class Shares(unittest.TestCase):
    def test_bytes_are_measured_against_the_fastest_copy(self):
        results = table.Results([*CEILINGS, row("norm", "4k x 4096", "flyball", 40.0, bytes=128_000_000)])
        self.assertAlmostEqual(table.share(results, results.ours("norm", "4k x 4096")), 0.8)

    def test_flops_are_measured_against_the_fastest_product(self):
        results = table.Results([*CEILINGS, row("prefill", "8k", "flyball hopper", 10.0, bytes=1, flops=4_000_000_000)])
        self.assertAlmostEqual(table.share(results, results.ours("prefill", "8k")), 0.5)

    def test_a_rate_far_above_the_ceiling_is_no_measurement(self):
        rows = [*CEILINGS, row("prefill", "8k", "flyball hopper", 2.8, flops=550_000_000_000)]
        self.assertEqual(verdict(rows, "prefill 8k"), (None, None))
        self.assertTrue(any("IMPOSSIBLE" in line for line in table.table(table.Results(rows))))
        # The copy below it is slower than what memory gives a reader, a little.
        rows = [*CEILINGS, row("decode", "64x8k bf16 p16", "flyball", 100.0, bytes=440_000_000)]
        self.assertEqual(verdict(rows, "decode 64x8k"), ("110.0 %", True))

    def test_without_a_ceiling_there_is_no_share(self):
        results = table.Results([row("norm", "4k x 4096", "flyball", 40.0, bytes=1)])
        self.assertIsNone(table.share(results, results.ours("norm", "4k x 4096")))


class Repeats(unittest.TestCase):
    def test_what_was_timed_twice_counts_with_its_median_and_its_worst_spread(self):
        rows = [row("norm", "a", "flyball", us, bytes=1, spread=s) for us, s in [(1.0, 0.1), (9.0, 0.3), (2.0, 0.2)]]
        ours = table.Results(rows).ours("norm", "a")
        self.assertEqual((ours["us"], ours["spread"]), (2.0, 0.3))


class Table(unittest.TestCase):
    ROWS = [
        *CEILINGS,
        row("decode", "1x4k bf16 p16", "flyball", 10.0, bytes=16_000_000),
        row("decode", "1x4k bf16 p16", "flyball c512", 9.0, bytes=16_000_000),
        row("decode", "1x4k bf16 p16", "slow", 30.0, bytes=16_000_000),
        row("decode", "1x4k bf16 p16", "quick", 15.0, bytes=16_000_000),
        row("decode", "9x9k bf16 p16", "slow", 15.0, bytes=16_000_000),
    ]

    def test_what_the_executor_runs_comes_first_and_variants_are_called_so(self):
        lines = [line for line in table.table(table.Results(self.ROWS)) if "1x4k" in line]
        self.assertEqual(len(lines), 2)
        self.assertRegex(lines[0], r"flyball +10\.0 +0 +1600 GB/s +40  1\.50x quick 15\.0$")
        self.assertRegex(lines[1], r"variant c512 +9\.0 .* 1\.67x quick 15\.0$")

    def test_a_rival_without_one_of_ours_is_shown_too(self):
        lines = table.table(table.Results(self.ROWS))
        self.assertTrue(any("9x9k" in line and "slow" in line for line in lines))

    def test_a_sweep_is_one_line_and_no_measurement_of_a_bar(self):
        rows = [row("sweep", "1x4k bf16 p16", f"flyball c{c}x1", us) for c, us in [(128, 9.0), (256, 7.0), (512, 8.0)]]
        results = table.Results(rows)
        self.assertEqual(table.table(results)[1:], ["sweep   1x4k bf16 p16     c256x1 7.0 | c512x1 8.0 | c128x1 9.0"])
        self.assertEqual(verdict(rows, "decode 1x4k"), (None, None))

    def test_a_rate_is_in_tflops_where_flops_are_counted(self):
        self.assertEqual(table.rate(row("prefill", "8k", "x", 100.0, flops=56_000_000_000)), "560 TFLOP/s")


class Bars(unittest.TestCase):
    def test_a_bar_is_met_at_its_bound_and_missed_below_it(self):
        for us, met in [(100.0, True), (100.1, False)]:
            rows = [*CEILINGS, row("decode", "32x4k bf16 p16", "flyball", us, bytes=360_000_000)]
            self.assertEqual(verdict(rows, "decode 32x4k")[1], met)

    def test_what_the_executor_runs_is_judged_and_no_variant(self):
        rows = [row("decode", "1x4k bf16 p16", "flyball merge", 11.0), row("decode", "1x4k bf16 p16", "rival", 11.5)]
        self.assertEqual(verdict(rows, "decode 1x4k"), (None, None))
        self.assertEqual(verdict(rows, "decode: at no shape"), (None, None))
        rows.append(row("decode", "1x4k bf16 p16", "flyball", 12.5))
        self.assertEqual(verdict(rows, "decode 1x4k"), ("12.5 us", False))
        self.assertEqual(verdict(rows, "decode: at no shape")[1], False)

    def test_of_two_prefills_the_executor_runs_the_one_that_the_card_has(self):
        rows = [row("prefill", "8k", "flyball mma", 1000.0, flops=600_000_000_000)]
        self.assertEqual(verdict(rows, "prefill 8k"), ("600 TFLOP/s", True))
        rows.append(row("prefill", "8k", "flyball hopper", 1000.0, flops=550_000_000_000))
        self.assertEqual(verdict(rows, "prefill 8k"), ("550 TFLOP/s", False))

    def test_fp8_must_be_this_much_faster_than_bf16(self):
        rows = [row("decode", "8x16k bf16 p16", "flyball", 170.0), row("decode", "8x16k fp8 p16", "flyball", 100.0)]
        self.assertEqual(verdict(rows, "decode 8x16k fp8"), ("1.70x", True))
        rows[1]["us"] = 101.0
        self.assertEqual(verdict(rows, "decode 8x16k fp8")[1], False)

    def test_prefill_counts_its_flops(self):
        rows = [row("prefill", "8k", "flyball hopper", 1000.0, flops=559_000_000_000)]
        self.assertEqual(verdict(rows, "prefill 8k"), ("559 TFLOP/s", False))

    def test_a_chunk_on_a_prefix_is_compared_by_rate(self):
        rows = [
            row("prefill", "8k", "flyball hopper", 1000.0, flops=600_000_000_000),
            row("prefill", "512 on 16k", "flyball hopper", 100.0, flops=54_100_000_000),
            row("prefill", "2048 on 16k", "flyball hopper", 100.0, flops=53_900_000_000),
        ]
        self.assertEqual(verdict(rows, "prefill 512 on 16k"), ("90 %", True))
        self.assertEqual(verdict(rows, "prefill 2048 on 16k")[1], False)

    def test_one_shape_that_is_slower_than_a_rival_misses_the_bar(self):
        rows = [row("decode", "a", "flyball", 10.0), row("decode", "a", "rival", 11.0), row("decode", "b", "flyball", 9.0)]
        self.assertEqual(verdict(rows, "decode: at no shape"), ("worst 1.10x at a, of 1 shapes", True))
        rows.append(row("decode", "b", "rival", 8.0))
        self.assertEqual(verdict(rows, "decode: at no shape"), ("worst 0.89x at b, of 2 shapes", False))

    def test_what_was_not_measured_is_neither_met_nor_short(self):
        self.assertTrue(all(v[1:] == (None, None) for v in table.verdicts(table.Results(CEILINGS))))
        # A rival alone is no measurement of ours.
        rows = [*CEILINGS, row("norm", "4k x 4096", "torch", 1.0, bytes=4_000_000)]
        self.assertEqual(verdict(rows, "norm"), (None, None))
        # Nor is ours without the ceiling.
        self.assertEqual(verdict([row("norm", "4k x 4096", "flyball", 1.0, bytes=4)], "norm"), (None, None))


class Power(unittest.TestCase):
    def test_samples_count_within_their_phase_alone(self):
        samples = [{"time": t / 10, "watts": 100.0 if t < 20 else 500.0, "clock": 1000.0} for t in range(40)]
        phases = [{"shape": "idle", "begin": 0.05, "end": 1.95}, {"shape": "decode", "begin": 2.0, "end": 3.9}]
        idle, decode = table.power(phases, samples)
        self.assertIn("100.0 W mean,  100.0 W max,  1000 MHz, 15 samples", idle)
        self.assertIn("500.0 W mean", decode)
        self.assertIn("no sample", table.power([{"shape": "x", "begin": 9.0, "end": 10.0}], samples)[0])

    def test_a_failed_reading_is_dropped(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "power.csv")
            with open(path, "w") as file:
                at = "2026/11/27 03:00:0"
                file.write(f"{at}0.250, 99.5, 345\n{at}1.000, [N/A], 345\n\n{at}2.000, 100\n")
            time = datetime.datetime(2026, 11, 27, 3, 0, 0, 250_000).timestamp()
            self.assertEqual(table.read_samples(path), [{"time": time, "watts": 99.5, "clock": 345.0}])


class Main(unittest.TestCase):
    def run_on(self, rows):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "rows.jsonl")
            with open(path, "w") as file:
                file.writelines(json.dumps(r) + "\n" for r in rows)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                status = table.main([path])
        return status, out.getvalue()

    def test_errors_are_printed_and_an_unmeasured_bar_shows_in_the_status(self):
        failed = {"family": "decode", "shape": "a", "impl": "x", "error": "no kernel"}
        status, out = self.run_on([*CEILINGS, failed, {"family": "note", "text": "NVIDIA H200"}])
        self.assertEqual(status, 2)
        self.assertIn("FAILED   decode a x: no kernel", out)
        self.assertTrue(out.startswith("NVIDIA H200\n"))
        self.assertEqual(out.count("not measured"), len(table.BARS))

    def test_a_missed_bar_shows_in_the_status(self):
        bars, table.BARS = table.BARS, [table.at_most_us("sample", "a", 5.0)]
        try:
            self.assertEqual(self.run_on([row("sample", "a", "flyball", 4.0)])[0], 0)
            status, out = self.run_on([row("sample", "a", "flyball", 6.0)])
            self.assertEqual(status, 1)
            self.assertIn("SHORT        sample a: at most 5 us: 6.0 us", out)
        finally:
            table.BARS = bars


if __name__ == "__main__":
    unittest.main()
