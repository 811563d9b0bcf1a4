//! `flyball trace`: looks at traces, converts, makes and scales them.

use super::output::write_json;
use super::print;
use super::values::{positive, process, requests};
use crate::report::grouped;
use crate::trace::stats::{Lengths, Summary};
use crate::trace::{Arrivals, Format, Mix, ReadOptions, Trace, TraceError, Window, synth};
use crate::units::Nanos;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Look at request traces, convert, make and scale them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  flyball trace inspect AzureLLMInferenceTrace_conv.csv
  flyball trace convert conversation_trace.jsonl mooncake.jsonl.gz
  flyball trace synth --mix mix-2 --requests 10000 --rate 0.24 mix-2.jsonl
  flyball trace scale mix-2.jsonl faster.jsonl --rate-scale 1.5")]
pub struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Subcommand, Debug)]
enum TraceCommand {
    /// Print what a trace is like: rate, burstiness, lengths, prefix reuse.
    #[command(after_help = "Examples:
  flyball trace inspect AzureLLMInferenceTrace_code.csv
  flyball trace inspect BurstGPT_1.csv.gz --skip-bad --json burst.json
  flyball trace inspect servegen/language/m-large --start 86400 --duration 600

Known formats: Azure 2023 and 2024 (CSV), Mooncake (JSON lines), BurstGPT (CSV; failed requests are
left out), ServeGen (a folder, from whose clients requests are drawn), prompt and output lengths
(CSV), and flyball's own JSON lines; plain or gzip. Quantiles are nearest rank. The dispersion is the
variance of the number of arrivals per window over its mean: 1 for Poisson. Arrivals are shown as the
file has them, on its grid if it has one.")]
    Inspect {
        /// The trace: a file, or a ServeGen folder.
        file: PathBuf,
        #[command(flatten)]
        read: ReadArgs,
        /// Read only the first N requests.
        #[arg(long, value_name = "N", value_parser = requests)]
        requests: Option<usize>,
        /// Write the figures as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Write a trace in flyball's own format: JSON lines, gzip if OUT ends in .gz.
    #[command(after_help = "Examples:
  flyball trace convert conversation_trace.jsonl mooncake.jsonl.gz --seed 3
  flyball trace convert sharegpt.csv sharegpt.jsonl --arrivals gamma:3 --rate 2
  flyball trace convert servegen/language/m-large hour.jsonl.gz --client-scale 0.01")]
    Convert {
        /// The trace to read.
        input: PathBuf,
        /// The file to write.
        #[arg(value_name = "OUT")]
        output: PathBuf,
        #[command(flatten)]
        read: ReadArgs,
        /// Leave Mooncake's arrivals on their 3-second grid instead of spreading them inside it.
        #[arg(long)]
        keep_ticks: bool,
    },
    /// Make up a trace from a built-in mix of lengths and an arrival process.
    #[command(after_help = "Examples:
  flyball trace synth --mix mix-2 --requests 10000 --rate 0.24 mix-2.jsonl
  flyball trace synth --mix chat --requests 5000 --rate 8 --arrivals gamma:3 --seed 7 chat.jsonl.gz
  flyball trace synth --mix mix-1 --requests 2000 --rate 0.8 --arrivals onoff bursts.jsonl

Mixes: mix-1 is 20 % reasoning and 80 % short outputs, mix-05 5 % and 95 %, mix-2 70 % and 30 %, s1k
reasoning only, chat like Azure's conversations. One seed gives the same bytes on every machine. The rate holds in
expectation; `trace inspect` shows what came out.")]
    Synth {
        /// The file to write; gzip if it ends in .gz.
        #[arg(value_name = "OUT")]
        output: PathBuf,
        #[arg(long, help = format!("Lengths: {}", Mix::names()), default_value = "mix-1", value_parser = Mix::parse)]
        mix: Mix,
        /// How many requests.
        #[arg(long, value_name = "N", default_value = "2000", value_parser = requests)]
        requests: usize,
        /// Requests per second.
        #[arg(long, value_name = "R", default_value = "1", value_parser = positive)]
        rate: f64,
        #[arg(
            long,
            help = format!("Arrivals: {}", Arrivals::NAMES),
            value_name = "PROCESS",
            default_value = "poisson",
            value_parser = process
        )]
        arrivals: Arrivals,
        /// Seed of everything that is drawn.
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
    },
    /// Change the rate or the number of requests of a trace, and keep its bursts.
    #[command(after_help = "Examples:
  flyball trace scale conv.jsonl faster.jsonl --rate-scale 1.5
  flyball trace scale AzureLLMInferenceTrace_conv.csv long.jsonl.gz --requests 50000

The rate is scaled by dividing the clock. With more requests than the trace has, it starts again, one
mean gap after its end, with fresh prompt content.")]
    Scale {
        /// The trace to read.
        input: PathBuf,
        /// The file to write.
        #[arg(value_name = "OUT")]
        output: PathBuf,
        /// Arrive X times as fast.
        #[arg(long, value_name = "X", default_value = "1", value_parser = positive)]
        rate_scale: f64,
        /// How many requests: the first ones, or the trace again and again.
        #[arg(long, value_name = "N", value_parser = requests)]
        requests: Option<usize>,
        #[command(flatten)]
        read: ReadArgs,
        /// Leave Mooncake's arrivals on their 3-second grid instead of spreading them inside it.
        #[arg(long)]
        keep_ticks: bool,
    },
}

/// How a trace is read.
#[derive(Args, Debug)]
struct ReadArgs {
    /// The format, if its content does not tell: azure, mooncake, burstgpt, servegen, lengths or flyball.
    #[arg(long, value_parser = Format::from_str)]
    format: Option<Format>,
    /// Count and list rows that cannot be used instead of refusing the file.
    #[arg(long)]
    skip_bad: bool,
    /// Put rows in the order of arrival instead of refusing a file in disorder.
    #[arg(long)]
    sort: bool,
    /// Seed of everything that is drawn.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    #[arg(
        long,
        help = format!("For lengths without times: {}", Arrivals::NAMES),
        value_name = "PROCESS",
        value_parser = process
    )]
    arrivals: Option<Arrivals>,
    /// For lengths without times: requests per second.
    #[arg(long, value_name = "R", default_value = "1", value_parser = positive)]
    rate: f64,
    /// For a ServeGen folder: where to start, in seconds.
    #[arg(long, value_name = "SECS", default_value = "0", value_parser = seconds)]
    start: Nanos,
    /// For a ServeGen folder: for how long, in seconds.
    #[arg(long, value_name = "SECS", default_value = "3600", value_parser = seconds)]
    duration: Nanos,
    /// For a ServeGen folder: factor on the rate of each client.
    #[arg(long, value_name = "X", default_value = "1", value_parser = positive)]
    client_scale: f64,
}

impl ReadArgs {
    fn options(&self) -> ReadOptions {
        ReadOptions {
            format: self.format,
            skip_bad: self.skip_bad,
            sort: self.sort,
            seed: self.seed,
            arrivals: self.arrivals.map(|arrivals| arrivals.with_rate(self.rate)),
            window: Window { start: self.start, duration: self.duration, client_scale: self.client_scale },
            ..ReadOptions::default()
        }
    }
}

/// Runs `flyball trace`.
///
/// # Errors
/// What could not be read or written, with file, line and reason.
pub fn run(args: TraceArgs) -> Result<(), TraceError> {
    match args.command {
        TraceCommand::Inspect { file, read, requests, json } => {
            let mut options = ReadOptions { requests, keep_ticks: true, ..read.options() };
            // Lengths can be looked at without times.
            options.arrivals.get_or_insert(Arrivals::AllAtOnce);
            let trace = open(&file, &options)?;
            let summary = trace.summary();
            if let Some(json) = json {
                write_json(&json, &summary)?;
            }
            print(format_args!("{}", described(&trace, &summary)));
            Ok(())
        }
        TraceCommand::Convert { input, output, read, keep_ticks } => {
            let trace = open(&input, &ReadOptions { keep_ticks, ..read.options() })?;
            write(&trace, &output)
        }
        TraceCommand::Synth { output, mix, requests, rate, arrivals, seed } => {
            write(&synth(mix, requests, arrivals.with_rate(rate), seed)?, &output)
        }
        TraceCommand::Scale { input, output, rate_scale, requests, read, keep_ticks } => {
            // Reading stops where no more is wanted; a shorter trace goes round.
            let mut trace = open(&input, &ReadOptions { keep_ticks, requests, ..read.options() })?;
            if let Some(requests) = requests.filter(|requests| *requests > trace.rows.len()) {
                trace = trace.rotated(0, requests);
            }
            if rate_scale != 1.0 {
                trace.scale_rate(rate_scale);
            }
            write(&trace, &output)
        }
    }
}

fn seconds(text: &str) -> Result<Nanos, String> {
    match text.parse() {
        Ok(secs) if (0.0..=1e9).contains(&secs) => Ok(Nanos::from_secs_f64(secs)),
        _ => Err("must be a number of seconds from 0 to 1e9".into()),
    }
}

/// Reads with a progress bar, if it takes a while.
fn open(path: &Path, options: &ReadOptions) -> Result<Trace, TraceError> {
    const BYTES_PER_SEC: u64 = 100 << 20; // measured; a bar for less would only flicker
    let bytes = bytes(path);
    if bytes < BYTES_PER_SEC {
        return Trace::open(path, options);
    }
    let style = ProgressStyle::with_template("{msg} {bar:40} {bytes} of {total_bytes}, {eta} left");
    let bar = ProgressBar::new(bytes).with_style(style.expect("the template is a valid constant"));
    let bar = bar.with_message(format!("reading {}", path.display()));
    let trace = Trace::open_with_progress(path, options, &mut |more| bar.inc(more));
    bar.finish_and_clear();
    trace
}

/// The size of a file or of the files of a folder; 0 where it cannot be told, since it only feeds a bar.
fn bytes(path: &Path) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |data| data.len());
    match fs::read_dir(path) {
        Ok(folder) => folder.flatten().map(|entry| size(&entry.path())).sum(),
        Err(_) => size(path),
    }
}

fn write(trace: &Trace, path: &Path) -> Result<(), TraceError> {
    trace.write(path)?;
    let (requests, span) = (grouped(trace.rows.len() as u64), trace.span().as_secs_f64());
    let mut text = format!("{}: {requests} requests in {span:.1} s", path.display());
    if trace.rate().is_finite() {
        let _ = write!(text, ", {:.4} req/s", trace.rate());
    }
    print(format_args!("{text}, digest {:016x}\n{}", trace.digest, skipped(trace)));
    Ok(())
}

/// What `inspect` prints.
fn described(trace: &Trace, summary: &Summary) -> String {
    let mut text = format!("{}, digest {}\n\n", summary.name, summary.digest);
    let mut line = |name: &str, value: String| text += &format!("{name:<12}  {value}\n");
    line("requests", grouped(summary.requests));
    if summary.clients > 1 {
        line("clients", grouped(summary.clients));
    }
    line("span", format!("{:.1} s", summary.span_s));
    line("mean rate", measured(summary.rate, 3, " req/s"));
    line("gap CV", measured(summary.gap_cv, 2, ""));
    let windows = [(summary.dispersion_1s, 1), (summary.dispersion_10s, 10), (summary.dispersion_60s, 60)];
    let windows = windows.map(|(value, secs)| format!("{} in {secs} s", measured(value, 2, "")));
    line("dispersion", windows.join(", "));
    if let Some(grid) = summary.grid_s {
        line(
            "",
            format!("(arrivals fall on a grid of {grid} s: the gap CV and shorter windows show the grid)"),
        );
    }
    if let Some(reuse) = summary.reuse {
        let (ids, distinct) = (grouped(reuse.ids), grouped(reuse.distinct));
        let share = 100.0 * reuse.share();
        let granularity = trace.granularity.0;
        line(
            "prefix reuse",
            format!("{share:.1} % of {ids} blocks of {granularity} tokens, {distinct} distinct"),
        );
    }
    text += "\ntokens            p50       p90       p95       p99       max       mean\n";
    for (name, lengths) in [("input", &summary.prompt), ("output", &summary.output)] {
        text += &length_row(name, lengths);
    }
    if trace.span() > Nanos::ZERO {
        text += &format!("\n{}", sparkline(trace));
    }
    text + &skipped(trace)
}

fn length_row(name: &str, lengths: &Lengths) -> String {
    let quantiles = [lengths.p50, lengths.p90, lengths.p95, lengths.p99, lengths.max];
    let cells: String = quantiles.iter().map(|tokens| format!("{:>10}", grouped(tokens.0.into()))).collect();
    format!("{name:<11}{cells}{:>11.1}\n", lengths.mean)
}

/// The rate over time, in ten shades.
fn sparkline(trace: &Trace) -> String {
    const BINS: usize = 60;
    const SHADES: &[u8; 10] = b" .:-=+*#%@";
    let counts = trace.arrivals_in(BINS);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    // Only an empty bin is blank.
    let shade = |count: &u64| char::from(SHADES[(count * 9).div_ceil(most) as usize]);
    let bars: String = counts.iter().map(shade).collect();
    let bin_secs = trace.span().as_secs_f64() / BINS as f64;
    let peak = most as f64 / bin_secs;
    format!("rate over time, {bin_secs:.3} s a column, at most {peak:.3} req/s\n|{bars}|\n")
}

/// The rows that were left out, if there are any.
fn skipped(trace: &Trace) -> String {
    const SHOWN: usize = 5;
    if trace.skipped.count == 0 {
        return String::new();
    }
    let mut text = format!("\nrows that are not requests: {}\n", grouped(trace.skipped.count));
    for row in trace.skipped.first.iter().take(SHOWN) {
        text += &format!("  row {}: {}\n", row.line, row.reason);
    }
    if trace.skipped.count > SHOWN as u64 {
        text += "  ...\n";
    }
    text
}

fn measured(value: Option<f64>, digits: usize, unit: &str) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        trace: TraceArgs,
    }

    fn flyball_trace(args: &[&str]) -> Result<(), TraceError> {
        run(Cli::try_parse_from(["trace"].iter().chain(args)).unwrap().trace)
    }

    fn usage_error(args: &[&str]) -> String {
        Cli::try_parse_from(["trace"].iter().chain(args)).err().unwrap().to_string()
    }

    #[test]
    fn synth_convert_and_scale_write_traces() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (made, same, zipped, fast) =
            (path("a.jsonl"), path("b.jsonl"), path("c.jsonl.gz"), path("d.jsonl"));
        let synth = [
            "synth",
            "--mix",
            "mix-2",
            "--requests",
            "50",
            "--rate",
            "2",
            "--seed",
            "3",
            "--arrivals",
            "onoff",
        ];
        flyball_trace(&[&synth[..], &[&made]].concat()).unwrap();
        flyball_trace(&[&synth[..], &[&same]].concat()).unwrap();
        assert_eq!(fs::read(&made).unwrap(), fs::read(&same).unwrap());
        flyball_trace(&["convert", &made, &zipped]).unwrap();
        flyball_trace(&["scale", &zipped, &fast, "--rate-scale", "2", "--requests", "80"]).unwrap();
        let open = |name: &str| Trace::open(Path::new(name), &ReadOptions::default()).unwrap();
        assert_eq!(open(&made).rows, open(&zipped).rows);
        let mut wanted = open(&made).rotated(0, 80);
        wanted.scale_rate(2.0);
        assert_eq!(open(&fast).rows, wanted.rows);
        flyball_trace(&["scale", &made, &fast, "--requests", "20"]).unwrap();
        assert_eq!(open(&fast).rows, open(&made).rows[..20]);
    }

    #[test]
    fn inspect_shows_the_figures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let json = folder.path().join("t.json");
        let line = |ms: u64, ids: &str| {
            format!(
                "{{\"timestamp\": {ms}, \"input_length\": 1300, \"output_length\": 5, \"hash_ids\": {ids}}}\n"
            )
        };
        let mut text = line(0, "[1,2,3]") + &line(0, "[1,2,9]") + &line(3000, "[4,5,6]");
        text += &(line(120_000, "[7,5,8]") + "nonsense");
        fs::write(&path, text).unwrap();
        let (file, figures) = (path.display().to_string(), json.display().to_string());
        flyball_trace(&["inspect", &file, "--skip-bad", "--json", &figures]).unwrap();
        let figures: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        assert_eq!(figures["schema"], "flyball.trace-summary/1");
        assert_eq!((&figures["requests"], &figures["skipped"]), (&4.into(), &1.into()));
        assert_eq!((&figures["prompt"]["p50"], &figures["reuse"]["reused"]), (&1300.into(), &2.into()));
        let options = ReadOptions { keep_ticks: true, skip_bad: true, ..ReadOptions::default() };
        let trace = Trace::open(&path, &options).unwrap();
        let wanted = "\
t.jsonl, digest DIGEST

requests      4
span          120.0 s
mean rate     0.025 req/s
gap CV        1.36
dispersion    1.64 in 1 s, 2.75 in 10 s, 1.50 in 60 s
              (arrivals fall on a grid of 3 s: the gap CV and shorter windows show the grid)
prefix reuse  16.7 % of 12 blocks of 512 tokens, 9 distinct

tokens            p50       p90       p95       p99       max       mean
input           1,300     1,300     1,300     1,300     1,300     1300.0
output              5         5         5         5         5        5.0

rate over time, 2.000 s a column, at most 1.000 req/s
|@+                                                         +|

rows that are not requests: 1
  row 5: expected ident (column 2); the last line has no end: perhaps the file was cut
";
        let wanted = wanted.replace("DIGEST", &format!("{:016x}", trace.digest));
        assert_eq!(described(&trace, &trace.summary()), wanted);
    }

    #[test]
    fn lengths_can_be_looked_at_without_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lengths.csv");
        fs::write(&path, "num_prefill_tokens,num_decode_tokens\n74,918\n").unwrap();
        let path = path.display().to_string();
        flyball_trace(&["inspect", &path]).unwrap();
        let out = folder.path().join("out.jsonl").display().to_string();
        let error = flyball_trace(&["convert", &path, &out]).unwrap_err().to_string();
        assert!(error.ends_with("--arrivals and --rate draw them"), "{error}");
        flyball_trace(&["convert", &path, &out, "--arrivals", "gamma:3", "--rate", "2"]).unwrap();
    }

    #[test]
    fn wrong_usage_is_told_before_anything_is_read() {
        assert!(
            usage_error(&["synth", "x", "--mix", "mix-3"])
                .contains("known are mix-05, mix-1, mix-2, s1k, chat")
        );
        assert!(usage_error(&["synth", "x", "--arrivals", "gamma:x"]).contains("such as gamma:3"));
        assert!(usage_error(&["synth", "x", "--rate", "0"]).contains("must be a number above zero"));
        assert!(usage_error(&["synth", "x", "--requests", "0"]).contains("must be a whole number from 1"));
        assert!(usage_error(&["inspect", "x", "--format", "azur"]).contains("known are azure, mooncake"));
        assert!(usage_error(&["scale", "x", "y", "--rate-scale=-1"]).contains("above zero"));
        assert!(usage_error(&["inspect", "x", "--start=-1"]).contains("number of seconds"));
        for command in ["inspect", "convert", "synth", "scale"] {
            assert!(usage_error(&[command, "--help"]).contains("Examples:\n  flyball trace"), "{command}");
        }
    }
}
