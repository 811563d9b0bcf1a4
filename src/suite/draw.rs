//! The drawings of suites, in the frames of [`crate::report`].

use super::arms::OWN;
use super::document::Figure;
use crate::report::format::{escape, tick};
use crate::report::seconds;
use crate::report::svg::{Axis, COLOURS, Chart, class};

const TALL: f64 = 320.0;

/// The series of arms: the product's own has a colour to itself, the others go round.
pub fn series<S: AsRef<str>>(names: &[S]) -> Vec<usize> {
    const OTHERS: [usize; COLOURS - 1] = [0, 2, 3, 5, 4];
    let mut others = 0;
    let of = |name: &S| {
        if name.as_ref().split(':').next() == Some(OWN) {
            return 1;
        }
        others += 1;
        OTHERS[(others - 1) % OTHERS.len()] + COLOURS * ((others - 1) / OTHERS.len())
    };
    names.iter().map(of).collect()
}

/// Which colour is whose, as a list.
pub fn legend<S: AsRef<str>>(names: &[S]) -> String {
    let item = |(name, series): (&S, usize)| {
        let swatch = format!(
            "<svg class=\"swatch\" viewBox=\"0 0 22 8\"><path class=\"line {}\" d=\"M0 4H22\"/></svg>",
            class(series)
        );
        format!("<li>{swatch}{}</li>\n", escape(name.as_ref()))
    };
    let items: String = names.iter().zip(series(names)).map(item).collect();
    format!("<ul class=\"legend\">\n{items}</ul>\n")
}

/// A line, as places of values.
type Line = Vec<(f64, f64)>;

/// Shares stretched towards the tail: every nine more takes as much room.
fn tail(share: f64) -> f64 {
    -(1.0 - share.min(0.9995)).log10()
}

fn tail_axis() -> Axis {
    let ticks = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999];
    let label = |share: f64| (tail(share), format!("P{}", tick(share * 100.0)));
    Axis::ticked(0.0, tail(0.999), "percentile, stretched towards the tail", ticks.map(label).to_vec())
}

/// Change against a base in percent, at each percentile. What is above the frame runs along its edge.
pub fn slowdown<S: AsRef<str>>(title: &str, names: &[S], lines: &[Line]) -> Figure {
    let ticks = [-100.0, -50.0, 0.0, 50.0, 100.0, 150.0];
    let label = |v: f64| (v, format!("{v:+}").replace('-', "−").replace("+0", "0"));
    let y = Axis::ticked(-100.0, 150.0, "", ticks.map(label).to_vec());
    let mut chart = Chart::new(TALL, tail_axis(), y);
    let zero = chart.py(0.0);
    let (left, right) = (chart.left(), chart.right());
    chart.raw(&format!(r#"<path class="axis" d="M{left} {zero:.1}H{right}"/>"#));
    for (line, series) in lines.iter().zip(series(names)) {
        let shown = line.iter().filter(|(share, _)| *share <= 0.999);
        chart.line(series, shown.map(|(share, v)| (tail(*share), *v)));
    }
    let note = "Above zero is slower; more than 150 % runs along the upper edge.".into();
    Figure { title: title.into(), note, svg: chart.finish(title) }
}

/// Latency over achieved rate, on a logarithmic axis.
pub fn knee<S: AsRef<str>>(title: &str, names: &[S], lines: &[Line]) -> Figure {
    let all = || lines.iter().flatten().filter(|p| p.0.is_finite() && p.1.is_finite());
    let (low, high) = bounds(all().map(|p| p.0));
    let room = (high - low) * 0.04;
    let ticks = (0..=4).map(|i| low + (high - low) * f64::from(i) / 4.0);
    let ticks = ticks.map(|v| (v, format!("{v:.4}"))).collect();
    let x = Axis::ticked(low - room, high + room, "achieved requests/s", ticks);
    let (low, high) = bounds(all().map(|p| p.1));
    let mut chart = Chart::new(TALL, x, Axis::log(low, high, "", seconds_tick));
    for ((line, series), name) in lines.iter().zip(series(names)).zip(names) {
        let shown = line.iter().copied().filter(|p| p.1.is_finite());
        chart.line(series, shown.clone());
        for (x, y) in shown {
            chart.dot(series, x, y, &format!("{} {x:.4}/s, {}", name.as_ref(), seconds(y)));
        }
    }
    Figure { title: title.into(), note: String::new(), svg: chart.finish(title) }
}

/// The share within a limit, as the limit tightens from 1 to 5 times; below 80 % lines end.
pub fn attainment<S: AsRef<str>>(title: &str, names: &[S], lines: &[Line]) -> Figure {
    let x =
        Axis::ticked(1.0, 5.0, "limit: base / x", (1..=5).map(|v| (f64::from(v), v.to_string())).collect());
    let ticks = [80.0, 85.0, 90.0, 95.0, 99.0, 100.0].map(|v| (v, format!("{v} %"))).to_vec();
    let mut chart = Chart::new(TALL, x, Axis::ticked(80.0, 100.0, "", ticks));
    for (line, series) in lines.iter().zip(series(names)) {
        let shown = line.iter().take_while(|(_, share)| *share >= 80.0);
        chart.line(series, shown.copied());
    }
    Figure { title: title.into(), note: String::new(), svg: chart.finish(title) }
}

/// Arms as points: both axes are ratios to a base, and nearer to the lower left is better.
pub fn pareto<S: AsRef<str>>(title: &str, axes: [&str; 2], names: &[S], points: &[(f64, f64)]) -> Figure {
    let x = ratio_axis(points.iter().map(|p| p.0), axes[0]);
    let y = ratio_axis(points.iter().map(|p| p.1), "");
    let mut chart = Chart::new(TALL, x, y);
    let mut places: Vec<Place> = Vec::new();
    for (((x, y), series), name) in points.iter().zip(series(names)).zip(names) {
        if x.is_finite() && y.is_finite() {
            chart.dot(series, *x, *y, &format!("{}: {x:.2}, {y:.2}", name.as_ref()));
            Place::add(&mut places, (chart.px(*x), chart.py(*y)), series, name.as_ref());
        }
    }
    places.iter().for_each(|place| place.label(&mut chart));
    let title = format!("{title}: {} up", axes[1]);
    Figure { note: String::new(), svg: chart.finish(&title), title }
}

/// Points so near to each other that they have one label.
struct Place {
    at: (f64, f64),
    series: usize,
    names: Vec<String>,
}

impl Place {
    fn add(places: &mut Vec<Self>, at: (f64, f64), series: usize, name: &str) {
        let near = |p: &&mut Self| (p.at.0 - at.0).abs() < 40.0 && (p.at.1 - at.1).abs() < 15.0;
        match places.iter_mut().find(near) {
            Some(place) => place.names.push(name.to_owned()),
            None => places.push(Self { at, series, names: vec![name.to_owned()] }),
        }
    }

    /// Beside the point, on the side that has room, three names a line.
    fn label(&self, chart: &mut Chart) {
        let right = self.at.0 > (chart.left() + chart.right()) / 2.0;
        let (x, anchor) = if right { (self.at.0 - 9.0, "end") } else { (self.at.0 + 9.0, "start") };
        let class =
            if self.names.len() == 1 { format!("key t{}", self.series % COLOURS) } else { "key".to_owned() };
        for (line, names) in self.names.chunks(3).enumerate() {
            let y = self.at.1 + 4.0 + 15.0 * line as f64;
            chart.text(x, y, anchor, &class, &names.join(", "));
        }
    }
}

/// As narrow as the ratios are, one included; logarithmic if they are wide apart.
fn ratio_axis(values: impl Iterator<Item = f64>, title: &str) -> Axis {
    let (low, high) = bounds(values.filter(|v| v.is_finite()).chain([0.97, 1.03]));
    if high > 3.0 * low {
        return Axis::log(low, high, title, tick);
    }
    let room = (high - low) * 0.08;
    let step = [0.02, 0.05, 0.1, 0.2, 0.5].into_iter().find(|step| (high - low) / step <= 5.0).unwrap_or(1.0);
    let (first, last) = (((low - room) / step).ceil() as i32, ((high + room) / step).floor() as i32);
    let ticks = (first..=last).map(|i| f64::from(i) * step).map(|v| (v, tick(v))).collect();
    Axis::ticked(low - room, high + room, title, ticks)
}

/// One line per arm over named places.
pub fn profile<S: AsRef<str>>(title: &str, places: &[String], names: &[S], lines: &[Line]) -> Figure {
    let label = |(i, place): (usize, &String)| (i as f64, place.clone());
    let x = Axis::ticked(
        0.0,
        (places.len().max(2) - 1) as f64,
        "",
        places.iter().enumerate().map(label).collect(),
    );
    let (low, high) = bounds(lines.iter().flatten().map(|p| p.1).filter(|v| v.is_finite()).chain([0.9, 1.1]));
    let mut chart = Chart::new(TALL, x, Axis::log(low.max(1e-3), high.min(1e3), "", tick));
    for ((line, series), name) in lines.iter().zip(series(names)).zip(names) {
        let shown = line.iter().copied().filter(|p| p.1.is_finite());
        chart.line(series, shown.clone());
        for (x, y) in shown {
            chart.dot(series, x, y, &format!("{} {}: {y:.2}", name.as_ref(), places[x as usize]));
        }
    }
    Figure { title: title.into(), note: String::new(), svg: chart.finish(title) }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 1.0) }
}

fn seconds_tick(v: f64) -> String {
    seconds(v).replace(".00 ", " ").replace(".0 ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_arm_has_its_colour_to_itself() {
        assert_eq!(series(&["fcfs", "flyball", "las"]), [0, 1, 2]);
        let names: Vec<String> = (0..12).map(|i| format!("p{i}")).collect();
        let all = series(&names);
        assert!(all.iter().all(|s| s % COLOURS != 1));
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 12);
    }

    #[test]
    fn the_tail_takes_room() {
        assert_eq!(tail(0.0), 0.0);
        assert!((tail(0.9) - 1.0).abs() < 1e-9 && (tail(0.99) - 2.0).abs() < 1e-9);
        assert!(tail(1.0).is_finite());
    }
}
