//! Reads a trace from a file or a folder: which format, which rows, in which order.

use super::arrivals::Arrivals;
use super::error::TraceError;
use super::formats::servegen::{self, Window};
use super::formats::{Format, Parsed, Rows};
use super::lines::{Line, Lines, Progress};
use super::{ROWS_MAX, Skipped, TOKENS_MAX, Trace, TraceRow, purpose};
use crate::prng::Prng;
use crate::units::Tokens;
use std::path::Path;

/// How to read a trace. The default guesses the format and refuses what is not sound.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadOptions {
    /// The format; guessed from the content if not given.
    pub format: Option<Format>,
    /// Count and list unusable rows instead of refusing the file.
    pub skip_bad: bool,
    /// Put rows in the order of arrival, equal ones as they stand, instead of refusing the file.
    pub sort: bool,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Arrival times for a format that has none.
    pub arrivals: Option<Arrivals>,
    /// Read no more than this many requests: the earliest.
    pub requests: Option<usize>,
    /// Leave arrivals on the coarse grid of the source (Mooncake: 3 s) instead of spreading them.
    pub keep_ticks: bool,
    /// Which part of a ServeGen folder is drawn.
    pub window: Window,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            skip_bad: false,
            sort: false,
            seed: 1,
            arrivals: None,
            requests: None,
            keep_ticks: false,
            window: Window::default(),
        }
    }
}

impl Trace {
    /// Reads a trace; a folder is read as ServeGen's.
    ///
    /// # Errors
    /// The file, the line and the reason.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self, TraceError> {
        Self::open_with_progress(path, options, &mut |_| ())
    }

    /// As [`Trace::open`]; `progress` hears how many more bytes were read from the disk.
    ///
    /// # Errors
    /// The file, the line and the reason.
    pub fn open_with_progress(
        path: &Path,
        options: &ReadOptions,
        progress: Progress,
    ) -> Result<Self, TraceError> {
        if options.requests == Some(0) {
            return Err(TraceError::Request("a trace has at least one request".into()));
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let folder = path.is_dir();
        match options.format {
            Some(Format::ServeGen) if !folder => {
                Err(TraceError::unusable(path, "is no folder of chunk-*-trace.csv, as ServeGen's traces are"))
            }
            Some(format) if folder && format != Format::ServeGen => Err(TraceError::unusable(
                path,
                format!("is a folder; a trace in the format {format} is a file"),
            )),
            _ if folder => servegen::draw(path, name, options, progress),
            _ => read(path, name, options, progress),
        }
    }
}

fn read(path: &Path, name: String, options: &ReadOptions, progress: Progress) -> Result<Trace, TraceError> {
    let mut lines = Lines::open(path, progress)?;
    let mut format = start(path, &mut lines, options.format)?;
    let mut rows: Vec<TraceRow> = Vec::new();
    let mut skipped = Skipped::default();
    // The earliest rows may stand anywhere in a file that is to be sorted.
    let limit = if options.sort { None } else { options.requests };
    while limit.is_none_or(|limit| rows.len() < limit) {
        let Some(line) = lines.next()? else {
            whole(path, &*format, rows.len() as u64 + skipped.count, options.skip_bad)?;
            break;
        };
        match parse(&mut *format, line) {
            Ok(Parsed::Row(_)) if rows.len() == ROWS_MAX => {
                let reason = format!("has more than {ROWS_MAX} requests; --requests N reads the first N");
                return Err(TraceError::unusable(path, reason));
            }
            Ok(Parsed::Row(row)) => {
                if !options.sort && rows.last().is_some_and(|last| row.arrival < last.arrival) {
                    return Err(TraceError::Unsorted { path: path.into(), line: line.number });
                }
                rows.push(row);
            }
            Ok(Parsed::NoRequest(reason)) => skipped.add(line.number, || reason.into()),
            Err(reason) if options.skip_bad => skipped.add(line.number, || reason),
            Err(reason) => return Err(TraceError::line(path, line.number, reason)),
        }
    }
    if rows.is_empty() {
        return Err(TraceError::unusable(path, nothing(&*format, &skipped)));
    }
    rows.sort_by_key(|row| row.arrival); // stable, and a no-op unless it was asked for
    rows.truncate(options.requests.unwrap_or(usize::MAX));
    clocked(path, name, rows, skipped, &*format, options)
}

/// Reads the first line: what the file is.
fn start(path: &Path, lines: &mut Lines, wanted: Option<Format>) -> Result<Box<dyn Rows>, TraceError> {
    let Some(line) = lines.next()? else {
        return Err(TraceError::unusable(path, "is empty"));
    };
    let number = line.number;
    let text = line.utf8().map_err(|reason| TraceError::line(path, number, reason))?;
    let Some(format) = wanted.or_else(|| Format::guess(text)) else {
        let known = Format::ALL.map(Format::name).join("|");
        let reason = format!("is not the start of a known trace; --format {known} says which it is");
        return Err(TraceError::line(path, number, reason));
    };
    let rows = format.rows(text).map_err(|reason| {
        let reason = format!("does not start a trace in the format {format}: {reason}");
        TraceError::line(path, number, reason)
    })?;
    if !rows.header() {
        lines.unread();
    }
    Ok(rows)
}

fn parse(format: &mut dyn Rows, line: Line) -> Result<Parsed, String> {
    let parsed = line.utf8().and_then(|text| format.parse(text)).and_then(|parsed| match parsed {
        Parsed::Row(row) => check(&row, format.granularity()).map(|()| Parsed::Row(row)),
        other => Ok(other),
    });
    parsed.map_err(|reason| match line.whole {
        true => reason,
        false => format!("{reason}; the last line has no end: perhaps the file was cut"),
    })
}

/// What holds for a row of any format.
fn check(row: &TraceRow, granularity: Tokens) -> Result<(), String> {
    debug_assert!(row.prompt.0 <= TOKENS_MAX && row.output.0 <= TOKENS_MAX);
    if row.prompt == Tokens::ZERO {
        return Err("the prompt has no tokens".into());
    }
    if row.output == Tokens::ZERO {
        return Err("the output has no tokens".into());
    }
    let ids = row.content.as_ref().map(|ids| ids.len());
    let ids_wanted = row.prompt.0.div_ceil(granularity.0) as usize;
    match ids {
        Some(ids) if ids != ids_wanted => {
            let prompt = row.prompt;
            Err(format!("a prompt of {prompt} needs {ids_wanted} ids of {granularity} each, but has {ids}"))
        }
        _ => Ok(()),
    }
}

/// Whether the file has all rows that its header announces.
fn whole(path: &Path, format: &dyn Rows, rows: u64, skip_bad: bool) -> Result<(), TraceError> {
    match format.announced() {
        Some(announced) if announced != rows && !skip_bad => {
            let reason =
                format!("announces {announced} requests, but has {rows}: the file was cut or edited");
            Err(TraceError::unusable(path, reason))
        }
        _ => Ok(()),
    }
}

/// Why there is no row.
fn nothing(format: &dyn Rows, skipped: &Skipped) -> String {
    match skipped.first.first() {
        Some(first) => {
            format!("none of its {} rows is a request; line {}: {}", skipped.count, first.line, first.reason)
        }
        None if format.header() => "has a header, but no requests".into(),
        None => "has no requests".into(),
    }
}

/// The trace of sorted rows, with the arrival times that its source could not give.
fn clocked(
    path: &Path,
    name: String,
    mut rows: Vec<TraceRow>,
    skipped: Skipped,
    format: &dyn Rows,
    options: &ReadOptions,
) -> Result<Trace, TraceError> {
    let seed = Prng::new(options.seed);
    if !format.timed() {
        let Some(arrivals) = options.arrivals else {
            let reason = "has lengths, but no arrival times; --arrivals and --rate draw them";
            return Err(TraceError::unusable(path, reason));
        };
        let drawn = arrivals.draw(rows.len(), &mut seed.split(purpose::ARRIVALS))?;
        for (row, arrival) in rows.iter_mut().zip(drawn) {
            row.arrival = arrival;
        }
    }
    let mut trace = Trace::new(name, rows, format.granularity(), skipped);
    match format.tick() {
        Some(tick) if !options.keep_ticks => trace.spread_ticks(tick, &mut seed.split(purpose::TICKS)),
        _ => {}
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::stats::Lengths;
    use crate::trace::tests::public;
    use crate::units::Nanos;
    use std::fs;

    const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
    const BURST: &str = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";

    fn open_with(bytes: impl AsRef<[u8]>, options: &ReadOptions) -> Result<Trace, TraceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        fs::write(&path, bytes).unwrap();
        Trace::open(&path, options)
    }

    fn open(bytes: impl AsRef<[u8]>) -> Result<Trace, TraceError> {
        open_with(bytes, &ReadOptions::default())
    }

    /// The message, without the folder of the file `t`.
    fn refusal(bytes: impl AsRef<[u8]>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        fs::write(&path, bytes).unwrap();
        let message = Trace::open(&path, &ReadOptions::default()).unwrap_err().to_string();
        message.replace(&format!("{}/", folder.path().display()), "")
    }

    /// Arrival in ms, prompt, output.
    fn rows(trace: &Trace) -> Vec<(u64, u32, u32)> {
        trace.rows.iter().map(|row| (row.arrival.0 / 1_000_000, row.prompt.0, row.output.0)).collect()
    }

    #[test]
    fn both_azure_years_are_read() {
        let old = "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n";
        assert_eq!(rows(&open(format!("{AZURE}{old}")).unwrap()), [(0, 4808, 10), (52, 3180, 8)]);
        let new = "2024-05-10 00:00:00.009930+00:00,2162,5\r\n2024-05-10 00:00:01+00:00,2399,6";
        let windows = format!("\u{feff}{}{new}", AZURE.replace('\n', "\r\n"));
        assert_eq!(rows(&open(windows).unwrap()), [(0, 2162, 5), (990, 2399, 6)]);
    }

    #[test]
    fn burstgpt_failures_are_counted_never_read() {
        let rows_text = "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n\
                         118.5,GPT-4,417,276,693,API log\n";
        let trace = open(format!("{BURST}{rows_text}")).unwrap();
        assert_eq!(rows(&trace), [(0, 472, 18), (113_500, 417, 276)]);
        assert_eq!((trace.skipped.count, trace.skipped.first[0].line), (1, 3));
        assert!(trace.skipped.first[0].reason.starts_with("failed at the source"));
        let newer = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                     7,a,1.5,GPT-4,9,8,17,\"API, log\"\n";
        assert_eq!(rows(&open(newer).unwrap()), [(0, 9, 8)]);
    }

    #[test]
    fn mooncake_is_spread_inside_its_ticks_unless_told_not_to() {
        let line = |ms: u64| {
            format!(
                "{{\"timestamp\": {ms}, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [0, 7]}}\n"
            )
        };
        let text: String = [0, 0, 3000, 3000, 9000].map(line).concat();
        let keep = ReadOptions { keep_ticks: true, ..ReadOptions::default() };
        let raw = open_with(&text, &keep).unwrap();
        assert_eq!(
            raw.rows.iter().map(|row| row.arrival.0 / 1_000_000).collect::<Vec<_>>(),
            [0, 0, 3000, 3000, 9000]
        );
        assert_eq!(raw.rows[1].content.as_deref(), Some(&[0, 7][..]));
        assert_eq!(raw.granularity, Tokens(512));
        let spread = open(&text).unwrap();
        assert_ne!(spread, raw);
        assert_eq!(open(&text).unwrap(), spread);
        assert_ne!(open_with(&text, &ReadOptions { seed: 2, ..ReadOptions::default() }).unwrap(), spread);
    }

    #[test]
    fn lengths_need_an_arrival_process() {
        let text = "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n74,918,992,0.08\n290,905,1195,0.3\n";
        assert!(refusal(text).ends_with("--arrivals and --rate draw them"));
        let arrivals = Some(Arrivals::Poisson { rate: 2.0 });
        let trace = open_with(text, &ReadOptions { arrivals, ..ReadOptions::default() }).unwrap();
        assert_eq!((trace.rows[1].prompt, trace.rows[1].output), (Tokens(290), Tokens(905)));
        assert!(trace.rows[1].arrival > Nanos::ZERO);
    }

    #[test]
    fn nothing_is_no_trace() {
        assert_eq!(refusal(""), "t: is empty");
        assert_eq!(refusal("\u{feff}\n\r\n"), "t: is empty");
        assert_eq!(refusal(AZURE), "t: has a header, but no requests");
        assert_eq!(refusal(r#"{"schema":"flyball.trace/1"}"#), "t: has a header, but no requests");
        let failed = format!("{BURST}1,m,9,0,9,log\n");
        assert!(
            refusal(failed).starts_with("t: none of its 1 rows is a request; line 2: failed at the source")
        );
        assert!(
            refusal("a,b\n1,2\n")
                .starts_with("t, line 1: is not the start of a known trace; --format azure|")
        );
        let options = ReadOptions { requests: Some(0), ..ReadOptions::default() };
        assert_eq!(open_with(AZURE, &options).unwrap_err().to_string(), "a trace has at least one request");
    }

    #[test]
    fn a_bad_row_is_refused_with_line_and_reason() {
        let azure = |row: &str| refusal(format!("{AZURE}2023-11-16 18:17:03,9,9\n{row}\n"));
        assert_eq!(azure("2023-11-16 18:17:04,-5,9"), "t, line 3: ContextTokens is -5, less than zero");
        assert_eq!(azure("2023-11-16 18:17:04,0,9"), "t, line 3: the prompt has no tokens");
        assert_eq!(azure("2023-11-16 18:17:04,9,0"), "t, line 3: the output has no tokens");
        let huge = "t, line 3: ContextTokens is \"99999999999999999999\", more than 16777216 tokens";
        assert_eq!(azure("2023-11-16 18:17:04,99999999999999999999,9"), huge);
        assert_eq!(
            azure("2023-11-16 18:17:04,9"),
            "t, line 3: has 2 columns, but GeneratedTokens is column 3"
        );
        assert!(azure("yesterday,9,9").starts_with("t, line 3: TIMESTAMP is \"yesterday\", not a time like"));
        let burst = |row: &str| refusal(format!("{BURST}{row}\n"));
        assert_eq!(burst("-1,m,9,9,18,log"), "t, line 2: Timestamp is \"-1\", before zero");
        assert!(burst("1e300,m,9,9,18,log").contains("more than 100 years"));
        let mooncake = |row: &str| refusal(format!("{row}\n"));
        let row = r#"{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1]}"#;
        assert!(mooncake(row).ends_with("a prompt of 600 tokens needs 2 ids of 512 tokens each, but has 1"));
        assert!(mooncake(&row.replace("600", "-600")).ends_with("input_length is -600, less than zero"));
        assert!(mooncake(&row.replace(": 0", ": -3")).ends_with("timestamp is -3, before zero"));
        assert!(mooncake(&row.replace("600", "1e99")).contains("line 1: invalid type: floating point"));
        assert!(
            mooncake(&row.replace("output_length", "out")).contains("missing field `output_length` (column ")
        );
        let not_utf8 = [AZURE.as_bytes(), b"2023-11-16 18:17:04,9,\xff\n"].concat();
        assert_eq!(refusal(not_utf8), "t, line 2: is not UTF-8 (byte 23 of the line)");
    }

    #[test]
    fn a_cut_file_is_noticed() {
        let cut = "t, line 2: has 2 columns, but GeneratedTokens is column 3; \
                   the last line has no end: perhaps the file was cut";
        assert_eq!(refusal(format!("{AZURE}2023-11-16 18:17:03,9")), cut);
        let json = refusal(r#"{"timestamp": 0, "input_length": 600, "outp"#);
        assert!(json.contains("EOF while parsing") && json.ends_with("perhaps the file was cut"), "{json}");
        let ours =
            "{\"schema\":\"flyball.trace/1\",\"requests\":2}\n{\"arrival_ns\":0,\"prompt\":1,\"output\":1}\n";
        assert_eq!(refusal(ours), "t: announces 2 requests, but has 1: the file was cut or edited");
        let options = ReadOptions { requests: Some(1), ..ReadOptions::default() };
        assert_eq!(open_with(ours, &options).unwrap().rows.len(), 1);
    }

    #[test]
    fn schemas_of_the_future_are_refused() {
        let future = refusal("{\"schema\":\"flyball.trace/2\"}\n");
        assert!(
            future.ends_with("the schema is \"flyball.trace/2\"; this version reads \"flyball.trace/1\"")
        );
        assert!(
            refusal("{\"schema\":\"flyball.trace/1\",\"granularity\":0}\n").ends_with("granularity is 0")
        );
    }

    #[test]
    fn bad_rows_can_be_skipped_and_are_listed() {
        let mut text = format!("{AZURE}2023-11-16 18:17:03,9,9\n");
        for i in 0..30 {
            text += &format!("2023-11-16 18:17:04,9,x{i}\n");
        }
        text += "2023-11-16 18:17:05,8,8\n";
        let skip = ReadOptions { skip_bad: true, ..ReadOptions::default() };
        let trace = open_with(&text, &skip).unwrap();
        assert_eq!(rows(&trace), [(0, 9, 9), (2000, 8, 8)]);
        assert_eq!((trace.skipped.count, trace.skipped.first.len()), (30, Skipped::LISTED_MAX));
        assert_eq!(trace.skipped.first[1].line, 4);
        assert_eq!(trace.skipped.first[1].reason, "GeneratedTokens is \"x1\", not a whole number");
        let none = open_with(format!("{AZURE}x,1,1\n"), &skip).unwrap_err().to_string();
        assert!(none.contains("none of its 1 rows is a request; line 2: TIMESTAMP is \"x\""), "{none}");
    }

    #[test]
    fn disorder_is_refused_or_sorted_stably() {
        let text = format!("{BURST}9,m,1,1,2,l\n4,m,2,1,3,l\n9,m,3,1,4,l\n4,m,4,1,5,l\n");
        let message = "t, line 3: arrives before the row above it; `flyball trace convert --sort` puts rows in their order";
        assert_eq!(refusal(&text), message);
        let skip = ReadOptions { skip_bad: true, ..ReadOptions::default() };
        assert!(matches!(open_with(&text, &skip), Err(TraceError::Unsorted { line: 3, .. })));
        let sort = ReadOptions { sort: true, requests: Some(3), ..ReadOptions::default() };
        assert_eq!(rows(&open_with(&text, &sort).unwrap()), [(0, 2, 1), (0, 4, 1), (5000, 1, 1)]);
    }

    #[test]
    fn the_first_requests_are_enough() {
        let text = format!("{BURST}1,m,1,1,2,l\n2,m,2,1,3,l\nbroken\n");
        let two = ReadOptions { requests: Some(2), ..ReadOptions::default() };
        assert_eq!(rows(&open_with(text, &two).unwrap()), [(0, 1, 1), (1000, 2, 1)]);
    }

    #[test]
    fn a_wanted_format_must_fit() {
        let with = |format| ReadOptions { format: Some(format), ..ReadOptions::default() };
        let error = open_with(BURST, &with(Format::Azure)).unwrap_err().to_string();
        assert!(error.ends_with("in the format azure: the header has no column \"TIMESTAMP\""), "{error}");
        let error = open_with(BURST, &with(Format::ServeGen)).unwrap_err().to_string();
        assert!(error.contains("is no folder of chunk-*-trace.csv"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let error = Trace::open(folder.path(), &with(Format::Azure)).unwrap_err().to_string();
        assert!(error.ends_with("is a folder; a trace in the format azure is a file"), "{error}");
    }

    /// p50, p90, p99, max and the mean to one decimal.
    fn table(lengths: Lengths) -> ([u32; 4], String) {
        let of = [lengths.p50, lengths.p90, lengths.p99, lengths.max];
        (of.map(|tokens| tokens.0), format!("{:.1}", lengths.mean))
    }

    /// A row of the table in the README of the public traces.
    struct Published {
        file: &'static str,
        requests: u64,
        span_s: f64,
        rate: f64,
        gap_cv: f64,
        dispersion: [f64; 3],
        prompt: ([u32; 4], &'static str),
        output: ([u32; 4], &'static str),
    }

    const PUBLISHED: [Published; 3] = [
        Published {
            file: "azure-2023/AzureLLMInferenceTrace_code.first.csv",
            requests: 6118,
            span_s: 1976.0,
            rate: 3.096,
            gap_cv: 12.91,
            dispersion: [13.52, 72.7, 170.5],
            prompt: ([1460, 5035, 7436, 7437], "2036.7"),
            output: ([13, 53, 248, 1899], "27.2"),
        },
        Published {
            file: "azure-2023/AzureLLMInferenceTrace_conv.first.csv",
            requests: 11_997,
            span_s: 2053.2,
            rate: 5.843,
            gap_cv: 1.08,
            dispersion: [1.34, 3.56, 15.6],
            prompt: ([1025, 4077, 4124, 14_050], "1254.5"),
            output: ([116, 424, 604, 1000], "204.9"),
        },
        Published {
            file: "mooncake-fast25/conversation_trace.first.jsonl",
            requests: 6758,
            span_s: 2097.0,
            rate: 3.223,
            gap_cv: 2.94,
            dispersion: [7.53, 1.99, 2.55],
            prompt: ([7406, 28_194, 90_760, 124_847], "12592.1"),
            output: ([356, 607, 1137, 2000], "346.9"),
        },
    ];

    #[test]
    fn public_traces_have_their_published_figures() {
        for wanted in PUBLISHED {
            let Some(path) = public(wanted.file) else { return };
            let keep = ReadOptions { keep_ticks: true, ..ReadOptions::default() };
            let got = Trace::open(&path, &keep).unwrap().summary();
            let near = |got: f64, wanted: f64| (got / wanted - 1.0).abs() < 0.004; // as many digits as published
            assert_eq!(got.requests, wanted.requests);
            assert!(near(got.span_s, wanted.span_s) && near(got.rate.unwrap(), wanted.rate), "{got:?}");
            assert!(near(got.gap_cv.unwrap(), wanted.gap_cv), "{got:?}");
            let dispersion = [got.dispersion_1s, got.dispersion_10s, got.dispersion_60s];
            for (got, wanted) in dispersion.into_iter().zip(wanted.dispersion) {
                assert!(near(got.unwrap(), wanted), "{}: {got:?} {wanted}", path.display());
            }
            let grid_s = wanted.file.ends_with("jsonl").then_some(3.0);
            assert_eq!(got.grid_s, grid_s);
            assert_eq!(table(got.prompt), (wanted.prompt.0, wanted.prompt.1.into()));
            assert_eq!(table(got.output), (wanted.output.0, wanted.output.1.into()));
        }
    }

    #[test]
    fn mooncake_reuses_a_third_and_is_poisson_when_spread() {
        let Some(path) = public(PUBLISHED[2].file) else { return };
        let trace = Trace::open(&path, &ReadOptions::default()).unwrap();
        let reuse = trace.reuse().unwrap();
        assert_eq!((reuse.ids, reuse.distinct), (169_404, 110_841));
        assert!((reuse.share() - 0.346).abs() < 5e-4, "{reuse:?}");
        let spread = trace.summary();
        // Requests per tick are nearly Poisson (1.11), so spread ones are: 2.94 and 7.53 on the grid.
        assert!((spread.gap_cv.unwrap() - 1.0).abs() < 0.05, "{spread:?}");
        assert!((spread.dispersion_1s.unwrap() - 1.0).abs() < 0.15, "{spread:?}");
    }

    #[test]
    fn public_lengths_have_their_published_figures() {
        let files = [
            (
                "lengths/sharegpt_8k_filtered_stats_llama2_tokenizer.csv",
                30_731,
                ([1730, 5696, 7434, 8141], "2340.0"),
                ([415, 834, 998, 1024], "438.7"),
            ),
            (
                "lengths/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv",
                28_257,
                ([2730, 3702, 3934, 4054], "2588.1"),
                ([167, 372, 3273, 4056], "291.4"),
            ),
        ];
        for (file, requests, prompt, output) in files {
            let Some(path) = public(file) else { return };
            let options = ReadOptions { arrivals: Some(Arrivals::AllAtOnce), ..ReadOptions::default() };
            let trace = Trace::open(&path, &options).unwrap();
            assert_eq!(trace.rows.len(), requests);
            assert_eq!(table(trace.prompt_lengths()), (prompt.0, prompt.1.into()));
            assert_eq!(table(trace.output_lengths()), (output.0, output.1.into()));
        }
    }

    #[test]
    fn public_clients_draw_what_their_rates_say() {
        // The first hour of all clients: 739,275 and 20,169 requests in expectation.
        for (folder, expected) in
            [("servegen/language/m-large", 739_275.0), ("servegen/multimodal/mm-image", 20_169.0)]
        {
            let Some(path) = public(folder) else { return };
            let trace = Trace::open(&path, &ReadOptions::default()).unwrap();
            let drawn = (trace.rows.len() as u64 + trace.skipped.count) as f64;
            assert!((drawn / expected - 1.0).abs() < 0.05, "{folder}: {drawn}, expected {expected}");
            assert!(trace.span() <= Nanos::from_millis(3_600_000));
            assert_eq!(Trace::open(&path, &ReadOptions::default()).unwrap().digest, trace.digest);
        }
    }
}
