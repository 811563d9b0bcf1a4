//! ServeGen (Xiang et al., 2025): no requests, but clients, from which requests are drawn.
//!
//! A folder holds, per client, `chunk-<id>-trace.csv` (windows of 600 s: start, requests per second, CV
//! of the gaps, fitted distribution `Gamma` or `Weibull`, shape, scale; no header) and often
//! `chunk-<id>-dataset.json` (windows of 6 h: tables of length probabilities).
//!
//! How requests are drawn:
//! 1. In each window a client's arrivals are a stationary renewal process: gaps have the fitted
//!    distribution's shape and the mean that the window's rate says (the fitted scale is not used: it
//!    does not keep the rate), and the first one is what is left of a gap that began before. So each
//!    window has `rate * seconds` requests in expectation, however bursty it is.
//! 2. Prompt and output are drawn independently, since only their own distributions are published.
//!    Multimodal prompts are text plus `image_count` draws of tokens per image, and so on.
//! 3. A client without a table in a window borrows, for each request, the table of one that has it,
//!    chosen by requests.
//! 4. Draws of zero tokens are counted as skipped.

use crate::prng::Prng;
use crate::trace::error::TraceError;
use crate::trace::lines::{self, Lines, Progress};
use crate::trace::read::ReadOptions;
use crate::trace::{GRANULARITY, ROWS_MAX, Skipped, TOKENS_MAX, Trace, TraceRow, purpose};
use crate::units::{Nanos, Tokens};
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

const WINDOW_SECS: f64 = 600.0;
/// The largest table file; the public ones have 2.5 MB.
const TABLES_BYTES_MAX: u64 = 256 << 20;
/// The most images or other parts of one prompt; the public tables have 49.
const PARTS_MAX: u32 = 4096;
/// What helps against too many requests.
const FEWER: &str = "`flyball trace convert` with --duration or --client-scale draws fewer";

/// Which part of a ServeGen folder is drawn. The default is the first hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Where it starts, since the start of the tables.
    pub start: Nanos,
    /// How long it is.
    pub duration: Nanos,
    /// Factor on the rate of each client: 0.01 draws a hundredth of the requests.
    pub client_scale: f64,
}

impl Default for Window {
    fn default() -> Self {
        Self { start: Nanos::ZERO, duration: Nanos::from_millis(3_600_000), client_scale: 1.0 }
    }
}

/// Draws the requests of a window from the clients of a folder.
pub fn draw(
    path: &Path,
    name: String,
    options: &ReadOptions,
    progress: Progress,
) -> Result<Trace, TraceError> {
    let span = Span::of(options.window)?;
    let mut clients = Vec::new();
    for (id, rates) in chunks(path)? {
        clients.push(Client::read(id, &rates, span, progress)?);
    }
    let expected: f64 = clients.iter().map(|client| client.requests).sum();
    if expected > ROWS_MAX as f64 * 0.9 {
        let reason = format!("about {expected:.0} requests would be drawn; {FEWER}");
        return Err(TraceError::unusable(path, reason));
    }
    let root = Prng::new(options.seed).split(purpose::CLIENTS);
    let pool = Pool::new(&clients);
    let mut drawn =
        Drawn { rows: Vec::with_capacity(expected as usize), skipped: Skipped::default(), count: 0 };
    for client in &clients {
        client.draw(path, &pool, &root.split(client.id.into()), &mut drawn)?;
    }
    if drawn.rows.is_empty() {
        let reason =
            format!("no client sends anything from {} s on for {} s", span.start, span.end - span.start);
        return Err(TraceError::unusable(path, reason));
    }
    drawn.rows.sort_by_key(|row| row.arrival); // stable: ties stand by client
    drawn.rows.truncate(options.requests.unwrap_or(usize::MAX));
    Ok(Trace::new(name, drawn.rows, GRANULARITY, drawn.skipped))
}

/// Seconds of the tables' clock that are drawn.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: f64,
    end: f64,
    client_scale: f64,
}

impl Span {
    fn of(window: Window) -> Result<Self, TraceError> {
        let scale = window.client_scale;
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(TraceError::Request(format!(
                "the scale of clients is {scale}, but must be above zero"
            )));
        }
        if window.duration == Nanos::ZERO {
            return Err(TraceError::Request("a window of no duration has no requests".into()));
        }
        let end = window.start.saturating_add(window.duration);
        Ok(Self { start: window.start.as_secs_f64(), end: end.as_secs_f64(), client_scale: scale })
    }
}

/// The clients of a folder: id and rate file, by id.
fn chunks(folder: &Path) -> Result<BTreeMap<u32, PathBuf>, TraceError> {
    let mut chunks = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|source| TraceError::io(folder, source))? {
        let file = entry.map_err(|source| TraceError::io(folder, source))?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let id = name.strip_prefix("chunk-").and_then(|rest| rest.strip_suffix("-trace.csv"));
        if let Some(id) = id.and_then(|id| id.parse().ok()) {
            chunks.insert(id, file);
        }
    }
    match chunks.is_empty() {
        true => Err(TraceError::unusable(folder, "is a folder without chunk-*-trace.csv")),
        false => Ok(chunks),
    }
}

struct Client {
    id: u32,
    /// Windows with requests inside the span, in order.
    windows: Vec<RateWindow>,
    /// Tables of lengths, by the second from which they hold.
    tables: Vec<(f64, Option<Lengths>)>,
    /// Requests in the span, in expectation.
    requests: f64,
}

#[derive(Clone, Copy, Debug)]
struct RateWindow {
    start: f64,
    end: f64,
    rate: f64,
    gaps: Gaps,
}

impl Client {
    fn read(id: u32, rates: &Path, span: Span, progress: Progress) -> Result<Self, TraceError> {
        let windows = rate_windows(rates, span, progress)?;
        let tables = rates.with_file_name(format!("chunk-{id}-dataset.json"));
        let wanted = !windows.is_empty() && tables.exists();
        let tables = if wanted { length_tables(&tables, span, progress)? } else { Vec::new() };
        let requests = windows.iter().map(|window| window.rate * (window.end - window.start)).sum();
        Ok(Self { id, windows, tables, requests })
    }

    fn lengths_at(&self, second: f64) -> Option<&Lengths> {
        let after = self.tables.partition_point(|(start, _)| *start <= second);
        self.tables.get(after.checked_sub(1)?)?.1.as_ref()
    }

    fn draw(&self, path: &Path, pool: &Pool, seed: &Prng, drawn: &mut Drawn) -> Result<(), TraceError> {
        let (mut times, mut lengths) = (seed.split(purpose::ARRIVALS), seed.split(purpose::LENGTHS));
        for window in &self.windows {
            let own = self.lengths_at(window.start);
            let borrowed = if own.is_none() { pool.at(window.start) } else { None };
            if own.is_none() && borrowed.is_none() {
                let reason = format!("no client has a table of lengths at {} s", window.start);
                return Err(TraceError::unusable(path, reason));
            }
            let mut at = window.start + window.gaps.residual(&mut times) / window.rate;
            while at < window.end {
                let table = own.or_else(|| borrowed.map(|pool| pool.pick(&mut lengths)));
                let table = table.expect("one of the two was found above");
                drawn
                    .add(self.id, at, table.draw(&mut lengths))
                    .map_err(|reason| TraceError::unusable(path, reason))?;
                at += window.gaps.next(&mut times) / window.rate;
            }
        }
        Ok(())
    }
}

struct Drawn {
    rows: Vec<TraceRow>,
    skipped: Skipped,
    count: u64,
}

impl Drawn {
    fn add(&mut self, client: u32, at: f64, (prompt, output): (u32, u32)) -> Result<(), String> {
        self.count += 1;
        if prompt == 0 || output == 0 {
            let what = if prompt == 0 { "prompt" } else { "output" };
            self.skipped.add(self.count, || format!("client {client} drew no tokens of {what}"));
            return Ok(());
        }
        if self.rows.len() == ROWS_MAX {
            return Err(format!("more than {ROWS_MAX} requests were drawn; {FEWER}"));
        }
        let (arrival, prompt, output) = (Nanos::from_secs_f64(at), Tokens(prompt), Tokens(output));
        self.rows.push(TraceRow { arrival, prompt, output, client, priority: 0, content: None });
        Ok(())
    }
}

/// The tables that clients without one borrow from: per window of the tables, cumulative requests.
struct Pool<'a>(Vec<(f64, Shared<'a>)>);

struct Shared<'a>(Vec<(f64, &'a Lengths)>);

impl<'a> Pool<'a> {
    fn new(clients: &'a [Client]) -> Self {
        let mut starts: Vec<f64> =
            clients.iter().flat_map(|client| client.tables.iter().map(|(start, _)| *start)).collect();
        starts.sort_unstable_by(f64::total_cmp);
        starts.dedup();
        let shared = |(i, &start): (usize, &f64)| {
            let end = starts.get(i + 1).copied().unwrap_or(f64::INFINITY);
            let mut sum = 0.0;
            let mut tables = Vec::new();
            for client in clients {
                let within = client.windows.iter().filter(|w| (start..end).contains(&w.start));
                let requests: f64 = within.map(|window| window.rate * (window.end - window.start)).sum();
                if let Some(lengths) = client.lengths_at(start).filter(|_| requests > 0.0) {
                    sum += requests;
                    tables.push((sum, lengths));
                }
            }
            (start, Shared(tables))
        };
        Self(starts.iter().enumerate().map(shared).collect())
    }

    fn at(&self, second: f64) -> Option<&Shared<'a>> {
        let after = self.0.partition_point(|(start, _)| *start <= second);
        self.0.get(after.checked_sub(1)?).map(|(_, shared)| shared).filter(|shared| !shared.0.is_empty())
    }
}

impl<'a> Shared<'a> {
    fn pick(&self, prng: &mut Prng) -> &'a Lengths {
        cumulative(&self.0, prng)
    }
}

/// Draws from values with cumulative weights; there is at least one.
fn cumulative<T: Copy>(values: &[(f64, T)], prng: &mut Prng) -> T {
    let last = values.len() - 1;
    let share = prng.unit() * values[last].0;
    values[values.partition_point(|(sum, _)| *sum < share).min(last)].1
}

/// Gaps of mean 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gaps {
    Gamma { shape: f64 },
    Weibull { shape: f64, mean: f64 },
}

impl Gaps {
    fn weibull(shape: f64) -> Self {
        Self::Weibull { shape, mean: gamma_function(1.0 + 1.0 / shape) }
    }

    fn next(self, prng: &mut Prng) -> f64 {
        match self {
            Self::Gamma { shape } => prng.gamma(shape),
            Self::Weibull { shape, mean } => prng.weibull(shape) / mean,
        }
    }

    /// From any moment to the next arrival: a uniform part of the gap that the moment falls into, which
    /// is a long gap more often than a short one. Weighted by length, a gamma variable of shape k is
    /// one of shape k + 1; a Weibull one is the 1/k-th power of a gamma variable of shape 1 + 1/k.
    fn residual(self, prng: &mut Prng) -> f64 {
        let gap = match self {
            Self::Gamma { shape } => prng.gamma(shape + 1.0) * (shape + 1.0) / shape,
            Self::Weibull { shape, mean } => {
                let power = 1.0 + 1.0 / shape;
                (prng.gamma(power) * power).powf(1.0 / shape) / mean
            }
        };
        gap * prng.unit()
    }
}

/// Euler's gamma function for `x` from 1 to 150, to 12 digits: Stirling's series above 15, and
/// Γ(x) = Γ(x + 1) / x to get there.
fn gamma_function(mut x: f64) -> f64 {
    let mut product = 1.0;
    while x < 15.0 {
        product *= x;
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    ((x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series).exp() / product
}

/// The windows of a client with requests inside the span, cut to it.
fn rate_windows(path: &Path, span: Span, progress: Progress) -> Result<Vec<RateWindow>, TraceError> {
    let mut lines = Lines::open(path, progress)?;
    let mut windows: Vec<RateWindow> = Vec::new();
    let mut last = f64::NEG_INFINITY;
    while let Some(line) = lines.next()? {
        let number = line.number;
        let bad = |reason: String| TraceError::line(path, number, reason);
        let window = line.utf8().and_then(rate_window).map_err(bad)?;
        if window.start <= last {
            return Err(bad("its window does not start after the one above it".into()));
        }
        last = window.start;
        let (start, end) = (window.start.max(span.start), window.end.min(span.end));
        if start < end && window.rate > 0.0 {
            windows.push(RateWindow { start, end, rate: window.rate * span.client_scale, ..window });
        }
    }
    Ok(windows)
}

/// A line of a rate file: start, rate, CV, distribution, shape, scale.
fn rate_window(line: &str) -> Result<RateWindow, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [start, rate, cv, distribution, shape, _scale] = fields[..] else {
        return Err(format!("has {} columns, not the 6 of a ServeGen client", fields.len()));
    };
    let number = |name: &str, text: &str| match text.parse() {
        Ok(value) if (0.0..=1e9).contains(&value) => Ok(value),
        _ => Err(format!("{name} is {text:?}, not a number from 0 to 1e9")),
    };
    let (start, rate) = (number("the window's start", start)?, number("the rate", rate)?);
    let positive = |name: &str, text: &str| match number(name, text)? {
        // Below this, gaps are all zero but for one in a million.
        value if value < 1e-3 => Err(format!("{name} is {text}, below 0.001")),
        value => Ok(value),
    };
    let gaps = match distribution {
        _ if rate == 0.0 => Gaps::Gamma { shape: 1.0 }, // idle: never drawn from
        "Gamma" => Gaps::Gamma { shape: positive("the shape", shape)? },
        "Weibull" => match positive("the shape", shape)? {
            shape if shape < 0.01 => return Err(format!("the shape of a Weibull is {shape}, below 0.01")),
            shape => Gaps::weibull(shape),
        },
        "" => Gaps::Gamma { shape: positive("the CV", cv)?.powi(-2) },
        other => return Err(format!("the distribution is {other:?}, not Gamma or Weibull")),
    };
    Ok(RateWindow { start, end: start + WINDOW_SECS, rate, gaps })
}

/// Lengths of one client in one window.
struct Lengths {
    /// The prompt is their sum.
    parts: Vec<Part>,
    output: Table,
}

/// `count` draws of `tokens`; one if no count is given.
struct Part {
    count: Option<Table>,
    tokens: Table,
}

/// Values with cumulative probability, not empty.
struct Table(Vec<(f64, u32)>);

impl Lengths {
    fn draw(&self, prng: &mut Prng) -> (u32, u32) {
        let mut prompt = 0u32;
        for part in &self.parts {
            let count = part.count.as_ref().map_or(1, |count| cumulative(&count.0, prng));
            for _ in 0..count {
                prompt = prompt.saturating_add(cumulative(&part.tokens.0, prng));
            }
        }
        (prompt.min(TOKENS_MAX), cumulative(&self.output.0, prng))
    }

    /// From the fields of one window; `None` where the client was idle.
    fn of(fields: &BTreeMap<String, String>) -> Result<Option<Self>, String> {
        let table = |name: &str| match fields.get(name) {
            Some(text) => Table::parse(text).map_err(|reason| format!("{name}: {reason}")),
            None => Ok(None),
        };
        let Some(output) = table("output_tokens")? else {
            return Ok(None);
        };
        let mut parts = Vec::new();
        for name in ["input_tokens", "text_tokens"] {
            parts.extend(table(name)?.map(|tokens| Part { count: None, tokens }));
        }
        for name in ["image", "audio", "video"] {
            let (count, tokens) = (table(&format!("{name}_count"))?, table(&format!("{name}_tokens"))?);
            if let (Some(count), Some(tokens)) = (count, tokens) {
                if count.max() > PARTS_MAX {
                    return Err(format!("{name}_count has {}, more than {PARTS_MAX}", count.max()));
                }
                parts.push(Part { count: Some(count), tokens });
            }
        }
        let idle = output.max() == 0 || parts.iter().all(|part| part.tokens.max() == 0);
        Ok((!idle).then_some(Self { parts, output }))
    }
}

impl Table {
    /// `{value: probability, ...}`; `None` if there is none.
    fn parse(text: &str) -> Result<Option<Self>, String> {
        let inside = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let inside = inside.ok_or("is not a table in braces")?;
        let mut sum = 0.0;
        let mut values = Vec::new();
        for entry in inside.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let bad =
                || format!("{:?} is not a token count and a probability", entry.get(..40).unwrap_or(entry));
            let (value, probability) = entry.split_once(':').ok_or_else(bad)?;
            let value: u32 = value.trim().parse().map_err(|_| bad())?;
            let probability: f64 = probability.trim().parse().map_err(|_| bad())?;
            if value > TOKENS_MAX || !(0.0..=1e9).contains(&probability) {
                return Err(bad());
            }
            sum += probability;
            values.push((sum, value));
        }
        Ok((sum > 0.0).then_some(Self(values)))
    }

    fn max(&self) -> u32 {
        self.0.iter().map(|(_, value)| *value).max().unwrap_or(0)
    }
}

/// The tables of a client that hold inside the span, by the second from which they hold.
fn length_tables(
    path: &Path,
    span: Span,
    progress: Progress,
) -> Result<Vec<(f64, Option<Lengths>)>, TraceError> {
    let (input, gzip) = lines::open(path, progress)?;
    let mut json = serde_json::Deserializer::from_reader(input.take(TABLES_BYTES_MAX));
    let read = Windows { span }.deserialize(&mut json).and_then(|tables| json.end().map(|()| tables));
    read.map_err(|error| match error.io_error_kind() {
        Some(_) => lines::read_error(path, gzip, error.into()),
        None => TraceError::unusable(path, format!("is no table of lengths: {error}")),
    })
}

/// Reads `{"0": {"input_tokens": "{...}", ...}, "21600": ...}`, passing over what starts after the span.
struct Windows {
    span: Span,
}

impl<'de> DeserializeSeed<'de> for Windows {
    type Value = Vec<(f64, Option<Lengths>)>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Windows {
    type Value = Vec<(f64, Option<Lengths>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("windows of length tables")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        // The last window at or before the start of the span, and those inside.
        let mut windows: Vec<(f64, BTreeMap<String, String>)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let start: f64 = key.parse().map_err(|_| Error::custom(format!("{key:?} is no window")))?;
            let later = start.is_nan() || start >= self.span.end;
            if later || windows.iter().any(|w| start < w.0 && w.0 <= self.span.start) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if start <= self.span.start {
                windows.retain(|window| window.0 > self.span.start);
            }
            windows.push((start, map.next_value()?));
        }
        windows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let parse = |(start, fields): &(f64, _)| {
            let lengths = Lengths::of(fields).map_err(|reason| format!("window {start}: {reason}"));
            lengths.map(|lengths| (*start, lengths))
        };
        windows.iter().map(parse).collect::<Result<_, _>>().map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const RATES: &str = "0,2,1,Gamma,1,0.5\n600,0,0,,0,0\n1200,4,3,Weibull,0.4,0.1\n";
    const TABLES: &str = r#"{"0": {"input_tokens": "{7: 0.5, 9: 0.5}", "output_tokens": "{3: 1.0}"}}"#;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn open(files: &[(&str, &str)], options: &ReadOptions) -> Result<Trace, TraceError> {
        Trace::open(folder(files).path(), options)
    }

    fn window(start_s: u64, secs: u64) -> ReadOptions {
        let (start, duration) = (Nanos::from_millis(start_s * 1000), Nanos::from_millis(secs * 1000));
        ReadOptions { window: Window { start, duration, client_scale: 1.0 }, ..ReadOptions::default() }
    }

    #[test]
    fn gamma_function_is_known() {
        for (x, wanted) in [(1.0, 1.0), (1.5, 0.886_226_925_452_758), (5.0, 24.0), (11.0, 3_628_800.0)] {
            assert!((gamma_function(x) / wanted - 1.0).abs() < 1e-10, "{x}: {}", gamma_function(x));
        }
    }

    #[test]
    fn gaps_have_mean_one_and_count_what_the_rate_says() {
        let shapes =
            [Gaps::Gamma { shape: 0.1 }, Gaps::Gamma { shape: 4.0 }, Gaps::weibull(0.4), Gaps::weibull(2.0)];
        for gaps in shapes {
            let mut prng = Prng::new(1);
            let mean = (0..400_000).map(|_| gaps.next(&mut prng)).sum::<f64>() / 4e5;
            assert!((mean - 1.0).abs() < 0.03, "{gaps:?}: {mean}");
            // Windows of five mean gaps: an ordinary start would be off by (CV^2 - 1) / 2, up to 4.5.
            let mut count = 0;
            for _ in 0..40_000 {
                let mut at = gaps.residual(&mut prng);
                while at < 5.0 {
                    count += 1;
                    at += gaps.next(&mut prng);
                }
            }
            let mean = f64::from(count) / 4e4;
            assert!((mean / 5.0 - 1.0).abs() < 0.04, "{gaps:?}: {mean} per window");
        }
    }

    #[test]
    fn clients_send_at_their_rates_with_their_lengths() {
        let other = r#"{"0": {"input_tokens": "{100: 1}", "output_tokens": "{50: 1}"}}"#;
        let files = [
            ("chunk-3-trace.csv", RATES),
            ("chunk-3-dataset.json", TABLES),
            ("chunk-10-trace.csv", "0,1,1,Gamma,1,1\n600,1,1,Gamma,1,1\n1200,1,1,,0,0\n"),
            ("chunk-10-dataset.json", other),
            ("chunk-11-trace.csv", "0,6,1,Gamma,1,1\n"),
            ("notes.txt", "not a client"),
        ];
        let trace = open(&files, &window(0, 1800)).unwrap();
        let of = |client: u32| trace.rows.iter().filter(move |row| row.client == client);
        let near = |got: usize, wanted: f64, tolerance: f64| {
            assert!((got as f64 - wanted).abs() < tolerance, "{got}, wanted {wanted}");
        };
        near(of(3).count(), 3600.0, 900.0); // the second half is bursty: CV 3
        near(of(10).count(), 1800.0, 170.0);
        near(of(11).count(), 3600.0, 240.0);
        assert!(of(3).all(|row| [7, 9].contains(&row.prompt.0) && row.output.0 == 3));
        // A client without a table borrows by requests: 3600 of 5400 from client 3.
        let borrowed = of(11).filter(|row| row.output.0 == 3).count() as f64 / of(11).count() as f64;
        assert!((borrowed - 2.0 / 3.0).abs() < 0.05, "{borrowed}");
        assert_eq!(open(&files, &window(0, 1800)).unwrap().digest, trace.digest);
    }

    #[test]
    fn a_later_window_is_cut_out() {
        let late = r#"{"0": {}, "1300": {"input_tokens": "{8: 1}", "output_tokens": "{4: 1}"}, "600": {
            "input_tokens": "{7: 1}", "output_tokens": "{3: 1}"}, "9999": {"input_tokens": "broken"}}"#;
        let rates = "0,9,1,Gamma,1,1\n600,9,1,Gamma,1,1\n1200,9,1,Gamma,1,1\n1800,9,1,Gamma,1,1\n";
        let files = [("chunk-0-trace.csv", rates), ("chunk-0-dataset.json", late)];
        let trace = open(&files, &window(700, 1200)).unwrap();
        assert!(trace.span() <= Nanos::from_millis(1_200_000));
        assert!((trace.rows.len() as f64 - 10_800.0).abs() < 500.0, "{}", trace.rows.len());
        // A window of rates takes the table that holds at its start.
        let early = trace.rows.iter().filter(|row| row.output.0 == 3).count() as f64;
        assert!((early / 9.0 - 1100.0).abs() < 50.0, "{early}");
        let half = Window { client_scale: 0.5, ..window(700, 1200).window };
        let half = open(&files, &ReadOptions { window: half, ..ReadOptions::default() }).unwrap();
        assert!((half.rows.len() as f64 - 5400.0).abs() < 350.0, "{}", half.rows.len());
    }

    #[test]
    fn parts_of_a_prompt_add_up() {
        let tables = r#"{"0": {"text_tokens": "{10: 1.0}", "image_tokens": "{100: 1.0}", "image_count": "{2: 1}",
            "audio_tokens": "{0: 1.0}", "audio_count": "{0: 1.0}", "output_tokens": "{0: 0.5, 5: 0.5}"}}"#;
        let files = [("chunk-0-trace.csv", "0,5,1,Gamma,1,1\n"), ("chunk-0-dataset.json", tables)];
        let trace = open(&files, &window(0, 600)).unwrap();
        assert!(trace.rows.iter().all(|row| row.prompt.0 == 210 && row.output.0 == 5));
        // About half of 3000 have no output.
        assert!((trace.skipped.count as f64 - 1500.0).abs() < 200.0);
        assert_eq!(trace.skipped.first[0].reason, "client 0 drew no tokens of output");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rates = |text: &str| {
            let files = [("chunk-0-trace.csv", text), ("chunk-0-dataset.json", TABLES)];
            open(&files, &window(0, 600)).unwrap_err().to_string()
        };
        assert!(rates("0,1,1").ends_with("line 1: has 3 columns, not the 6 of a ServeGen client"));
        assert!(rates("0,-1,1,Gamma,1,1").ends_with("the rate is \"-1\", not a number from 0 to 1e9"));
        assert!(rates("0,1,1,Gamma,0,1").ends_with("the shape is 0, below 0.001"));
        assert!(rates("0,1,1,Zeta,1,1").ends_with("the distribution is \"Zeta\", not Gamma or Weibull"));
        assert!(rates("0,1,1,Gamma,1,1\n0,1,1,Gamma,1,1").ends_with("does not start after the one above it"));
        assert!(rates("900,1,1,Gamma,1,1").ends_with("no client sends anything from 0 s on for 600 s"));
        assert!(rates("0,1e9,1,Gamma,1,1").contains("requests would be drawn"));
        let tables = |text: &str| {
            let files = [("chunk-0-trace.csv", RATES), ("chunk-0-dataset.json", text)];
            open(&files, &window(0, 600)).unwrap_err().to_string()
        };
        assert!(tables("{").contains("chunk-0-dataset.json: is no table of lengths: EOF"));
        assert!(tables(r#"{"x": {}}"#).contains("\"x\" is no window"));
        assert!(tables(r#"{"0": {}}"#).ends_with("no client has a table of lengths at 0 s"));
        let bad = r#"{"0": {"output_tokens": "{a: 1}"}}"#;
        assert!(tables(bad).contains("window 0: output_tokens: \"a: 1\" is not a token count"));
        let many = TABLES
            .replace("\"input", "\"image_count\": \"{9999: 1}\", \"image_tokens\": \"{1: 1}\", \"input");
        assert!(tables(&many).contains("image_count has 9999, more than 4096"));
        let error = open(&[("a.csv", "")], &window(0, 600)).unwrap_err().to_string();
        assert!(error.ends_with("is a folder without chunk-*-trace.csv"), "{error}");
        assert!(open(&[], &window(0, 0)).unwrap_err().to_string().contains("no duration"));
    }
}
