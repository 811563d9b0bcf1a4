//! Numbers and text for people: three significant digits, a fitting unit, nothing unescaped.

/// `v` to three significant digits; whole numbers with separators from 1000 on.
pub fn number(v: f64) -> String {
    if v.is_nan() {
        return "–".into();
    }
    if v.is_infinite() {
        return if v > 0.0 { "∞" } else { "−∞" }.into();
    }
    let v = round3(v);
    if v == 0.0 {
        return "0".into();
    }
    if v.abs() >= 1000.0 {
        return format!("{}{}", if v < 0.0 { "−" } else { "" }, grouped(v.abs() as u64));
    }
    let decimals = (2 - v.abs().log10().floor() as i32).clamp(0, 12) as usize;
    format!("{v:.decimals$}")
}

/// The nearest number with three significant digits; those of 1000 and more keep all whole digits.
fn round3(v: f64) -> f64 {
    if v.abs() >= 999.5 { v.round() } else { format!("{v:.2e}").parse().unwrap_or(v) }
}

/// A count with a comma between thousands.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Seconds in µs, ms, s, min or h, to three significant digits.
pub fn seconds(v: f64) -> String {
    if !v.is_finite() || v == 0.0 {
        return number(v);
    }
    // Rounded first, so that 999.6 ms is 1.00 s.
    let r: f64 = format!("{v:.2e}").parse().unwrap_or(v);
    let (scale, unit) = match r {
        r if r < 1e-3 => (1e6, "µs"),
        r if r < 1.0 => (1e3, "ms"),
        r if r < 120.0 => (1.0, "s"),
        r if r < 7200.0 => (1.0 / 60.0, "min"),
        _ => (1.0 / 3600.0, "h"),
    };
    format!("{} {unit}", number(r * scale))
}

/// A tick label: as short as it can be, exact to four digits.
pub fn tick(v: f64) -> String {
    if v.abs() >= 10_000.0 {
        return grouped(v.round() as u64);
    }
    // As many as four digits behind the zeros need.
    let decimals = if v == 0.0 { 4 } else { (3 - v.abs().log10().floor() as i32).clamp(4, 16) as usize };
    let text = format!("{v:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Joules in J, kJ, MJ, to three significant digits.
pub fn joules(v: f64) -> String {
    let (scale, unit) = joule_unit(v);
    format!("{} {unit}", number(v / scale))
}

/// The unit that suits energies up to `v`, and how many joules it is.
pub fn joule_unit(v: f64) -> (f64, &'static str) {
    match v {
        v if v >= 2e6 => (1e6, "MJ"),
        v if v >= 2e3 => (1e3, "kJ"),
        _ => (1.0, "J"),
    }
}

/// The unit that suits a span of `v` seconds, and how many seconds it is.
pub fn time_unit(v: f64) -> (f64, &'static str) {
    match v {
        v if v >= 7200.0 => (3600.0, "h"),
        v if v >= 300.0 => (60.0, "min"),
        v if v >= 2.0 => (1.0, "s"),
        _ => (1e-3, "ms"),
    }
}

/// `text` for HTML, in content and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // A name in a trace must not make the page look as if it asked the network.
            '/' if out.ends_with(":/") => out.push_str("&#47;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let cases = [(0.0, "0"), (0.012_345, "0.0123"), (9.996, "10.0"), (99.96, "100"), (999.7, "1,000")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(f64::INFINITY), "∞");
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn seconds_choose_their_unit() {
        let cases = [(2.5e-5, "25.0 µs"), (0.9996, "1.00 s"), (0.0421, "42.1 ms"), (90.0, "90.0 s")];
        for (value, text) in cases {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(seconds(600.0), "10.0 min");
        assert_eq!(seconds(36_000.0), "10.0 h");
    }

    #[test]
    fn ticks_are_short_and_never_all_zero() {
        let cases = [(0.0, "0"), (0.25, "0.25"), (1.0, "1"), (1500.0, "1500"), (20_000.0, "20,000")];
        let small = [(0.00002, "0.00002"), (0.000025, "0.000025"), (3.0 * 1e-5, "0.00003")];
        for (value, text) in cases.into_iter().chain(small) {
            assert_eq!(tick(value), text);
        }
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href=\"x://y\">&'"), "&lt;a href=&quot;x:/&#47;y&quot;&gt;&amp;&#39;");
    }
}
