//! A frame with two axes, and what is drawn into it. Colours come from the page's style sheet: series
//! `n` has the classes `s{n}`, so that light and dark are one drawing.

use super::format::escape;
use std::fmt::Write as _;

/// Width of every chart, in its own units; the page scales it.
pub const WIDTH: f64 = 560.0;
/// Colours in the style sheet; later series repeat them with a dashed line.
pub const COLOURS: usize = 6;

const LEFT: f64 = 56.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// How a value becomes a place on an axis.
#[derive(Clone, Debug)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Values that have a line, with their labels.
    ticks: Vec<(f64, String)>,
    title: String,
}

impl Axis {
    /// From zero to at least `high`, in round steps; `label` writes a tick.
    pub fn linear(high: f64, title: &str, label: impl Fn(f64) -> String) -> Self {
        let high = if high.is_finite() && high > 0.0 { high } else { 1.0 };
        let power = 10f64.powf((high / 5.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| high / s <= 5.0001);
        let step = step.unwrap_or(10.0 * power);
        let count = (high / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=count as usize).map(|i| i as f64 * step).map(|v| (v, label(v))).collect();
        Self { low: 0.0, high: count * step, log: false, ticks, title: title.into() }
    }

    /// Like [`Axis::linear`], but it ends at `high` itself: for time.
    pub fn until(high: f64, title: &str, label: impl Fn(f64) -> String) -> Self {
        let mut axis = Self::linear(high, title, label);
        axis.high = if high > 0.0 { high } else { axis.high };
        axis.ticks.retain(|(v, _)| *v <= axis.high * 1.0001);
        axis
    }

    /// Logarithmic from `low` to `high`, both widened to the next 1, 2 or 5; over a wide range only powers
    /// of ten have a line.
    pub fn log(low: f64, high: f64, title: &str, label: impl Fn(f64) -> String) -> Self {
        let low = if low.is_finite() && low > 0.0 { low } else { 1e-3 };
        let high = if high.is_finite() && high > low { high } else { low * 10.0 };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let steps = (first..=last).flat_map(|e| [1.0, 2.0, 5.0].map(|m| (m, m * 10f64.powi(e))));
        let steps: Vec<(f64, f64)> = steps.collect();
        let from = steps.iter().rev().find(|(_, v)| *v <= low * 1.0001).map_or(low, |s| s.1);
        let to = steps.iter().find(|(_, v)| *v >= high * 0.9999).map_or(high, |s| s.1);
        let within = |v: f64| (from * 0.9999..=to * 1.0001).contains(&v);
        let mut ticks: Vec<(f64, f64)> = steps.into_iter().filter(|(_, v)| within(*v)).collect();
        if ticks.len() > 8 {
            ticks.retain(|(m, _)| *m == 1.0);
        }
        let ticks = ticks.into_iter().map(|(_, v)| (v, label(v))).collect();
        Self { low: from, high: to, log: true, ticks, title: title.into() }
    }

    /// From `low` to `high`, with these lines and labels.
    pub fn ticked(low: f64, high: f64, title: &str, ticks: Vec<(f64, String)>) -> Self {
        Self { low, high: if high > low { high } else { low + 1.0 }, log: false, ticks, title: title.into() }
    }

    /// Without ticks, from 0 to `count`: for groups of bars.
    pub fn groups(count: usize) -> Self {
        Self { low: 0.0, high: count.max(1) as f64, log: false, ticks: Vec::new(), title: String::new() }
    }

    /// Where `v` stands between the ends, 0 to 1; clipped.
    fn share(&self, v: f64) -> f64 {
        let at = |v: f64| if self.log { v.max(self.low).log10() } else { v };
        ((at(v) - at(self.low)) / (at(self.high) - at(self.low))).clamp(0.0, 1.0)
    }
}

/// A chart in the making.
pub struct Chart {
    body: String,
    height: f64,
    x: Axis,
    y: Axis,
}

impl Chart {
    /// A frame with its grid, ticks and titles.
    pub fn new(height: f64, x: Axis, y: Axis) -> Self {
        let mut chart = Self { body: String::new(), height, x, y };
        chart.frame();
        chart
    }

    fn frame(&mut self) {
        let (left, right, bottom) = (LEFT, WIDTH - RIGHT, self.height - BOTTOM);
        for (v, label) in self.y.ticks.clone() {
            let y = self.py(v);
            self.raw(&format!(r#"<path class="grid" d="M{left} {y:.1}H{right}"/>"#));
            self.text(left - 8.0, y + 4.0, "end", "tick", &label);
        }
        for (v, label) in self.x.ticks.clone() {
            let x = self.px(v);
            self.raw(&format!(r#"<path class="axis" d="M{x:.1} {bottom}v4"/>"#));
            let anchor = if x > right - 14.0 { "end" } else { "middle" };
            self.text(if x > right - 14.0 { right + 6.0 } else { x }, bottom + 18.0, anchor, "tick", &label);
        }
        self.raw(&format!(r#"<path class="axis" d="M{left} {bottom}H{right}"/>"#));
        let title = self.x.title.clone();
        self.text((left + right) / 2.0, self.height - 6.0, "middle", "name", &title);
    }
}

impl Chart {
    /// The horizontal place of a value.
    pub fn px(&self, v: f64) -> f64 {
        LEFT + self.x.share(v) * (WIDTH - LEFT - RIGHT)
    }

    /// The vertical place of a value.
    pub fn py(&self, v: f64) -> f64 {
        let bottom = self.height - BOTTOM;
        bottom - self.y.share(v) * (bottom - TOP)
    }

    /// Where the plot begins on the left.
    pub fn left(&self) -> f64 {
        LEFT
    }

    /// Where the plot begins above.
    pub fn top(&self) -> f64 {
        TOP
    }

    /// Where the plot ends on the right.
    pub fn right(&self) -> f64 {
        WIDTH - RIGHT
    }

    /// Where the plot ends below.
    pub fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }

    /// Markup as it is.
    pub fn raw(&mut self, markup: &str) {
        self.body.push_str(markup);
        self.body.push('\n');
    }

    /// Text at a place in the chart's own units.
    pub fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escape(text);
        self.raw(&format!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    /// A line that holds each value until the next, through `points` in values.
    pub fn steps(&mut self, series: usize, points: impl Iterator<Item = (f64, f64)>) {
        let (mut d, mut last, mut end) = (String::new(), String::new(), String::new());
        for (x, y) in points {
            let (x, y) = (format!("{:.1}", self.px(x)), format!("{:.1}", self.py(y)));
            if d.is_empty() {
                d = format!("M{x} {y}");
            } else if y != last {
                d += &format!("H{x}V{y}");
            }
            (last, end) = (y, x);
        }
        if !d.is_empty() {
            self.raw(&format!(r#"<path class="line {}" d="{d}H{end}"/>"#, class(series)));
        }
    }

    /// A line through `points` in values.
    pub fn line(&mut self, series: usize, points: impl Iterator<Item = (f64, f64)>) {
        let mut d = String::new();
        for (i, (x, y)) in points.enumerate() {
            let command = if i == 0 { 'M' } else { 'L' };
            write!(d, "{command}{:.1} {:.1}", self.px(x), self.py(y)).expect("a string takes all");
        }
        self.raw(&format!(r#"<path class="line {}" d="{d}"/>"#, class(series)));
    }

    /// A dot at a value, with what a pointer that rests on it says.
    pub fn dot(&mut self, series: usize, x: f64, y: f64, says: &str) {
        let (x, y, class, says) = (self.px(x), self.py(y), class(series), escape(says));
        self.raw(&format!(
            r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="3.6"><title>{says}</title></circle>"#
        ));
    }

    /// The finished drawing; `says` is its text for those who do not see it.
    pub fn finish(self, says: &str) -> String {
        let (says, height, body) = (escape(says), self.height, self.body);
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{says}\">\n{body}</svg>\n")
    }
}

/// The classes of a series: its colour, and a dash once the colours repeat.
pub fn class(series: usize) -> String {
    let dash = if (series / COLOURS).is_multiple_of(2) { "" } else { " dash" };
    format!("s{}{dash}", series % COLOURS)
}
