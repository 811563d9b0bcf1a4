//! Numbers and times as traces write them. Exact: no time passes through a float unless it was
//! written with an exponent.

use crate::trace::{SPAN_MAX, TOKENS_MAX};
use crate::units::{Nanos, Tokens};

const NANOS_PER_SEC: u64 = 1_000_000_000;
const SECS_MAX: u64 = SPAN_MAX.0 / NANOS_PER_SEC;

/// A count of tokens; zero is a count.
pub fn tokens(name: &str, text: &str) -> Result<Tokens, String> {
    if text.is_empty() {
        return Err(format!("{name} is empty"));
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{name} is {}, not a whole number", shown(text)));
    }
    match text.parse() {
        Ok(count) => token_count(name, count),
        // Only digits: what does not parse is too large.
        Err(_) => Err(format!("{name} is {}, more than {TOKENS_MAX} tokens", shown(text))),
    }
}

/// A count of tokens that was already a number.
pub fn token_count(name: &str, count: i64) -> Result<Tokens, String> {
    if count < 0 {
        return Err(format!("{name} is {count}, less than zero"));
    }
    match u32::try_from(count) {
        Ok(count) if count <= TOKENS_MAX => Ok(Tokens(count)),
        _ => Err(format!("{name} is {count}, more than {TOKENS_MAX} tokens")),
    }
}

/// Seconds, with or without a fraction.
pub fn seconds(name: &str, text: &str) -> Result<Nanos, String> {
    if text.is_empty() {
        return Err(format!("{name} is empty"));
    }
    if text.starts_with('-') {
        return Err(format!("{name} is {}, before zero", shown(text)));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        // Perhaps written with an exponent.
        let secs: f64 =
            text.parse().map_err(|_| format!("{name} is {}, not a number of seconds", shown(text)))?;
        return time(name, secs, 1e9);
    }
    match whole.parse::<u64>() {
        Ok(secs) if secs <= SECS_MAX => Ok(Nanos(secs * NANOS_PER_SEC + fraction_nanos(fraction))),
        _ => Err(format!("{name} is {}, more than 100 years", shown(text))),
    }
}

/// A time that was already a number, in units of `unit_nanos`.
pub fn time(name: &str, value: f64, unit_nanos: f64) -> Result<Nanos, String> {
    let nanos = value * unit_nanos;
    if nanos.is_nan() || nanos < 0.0 {
        return Err(format!("{name} is {value}, before zero"));
    }
    if nanos > SPAN_MAX.0 as f64 {
        return Err(format!("{name} is {value}, more than 100 years"));
    }
    Ok(Nanos(nanos.round() as u64))
}

/// A date and a time of day since 1970: `2023-11-16 18:17:03.9799600`, with or without a fraction
/// and an offset such as `+00:00` or `Z`.
pub fn wall_clock(name: &str, text: &str) -> Result<Nanos, String> {
    wall_clock_parts(text)
        .ok_or_else(|| format!("{name} is {}, not a time like 2023-11-16 18:17:03.9799600", shown(text)))
}

fn wall_clock_parts(text: &str) -> Option<Nanos> {
    let number = |from: usize, to: usize, low: u64, high: u64| -> Option<u64> {
        let digits = text.get(from..to).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse().ok().filter(|value| (low..=high).contains(value))
    };
    let (year, month) = (number(0, 4, 1970, 2069)?, number(5, 7, 1, 12)?);
    let day = number(8, 10, 1, days_of(year, month))?;
    let (hour, minute, second) = (number(11, 13, 0, 23)?, number(14, 16, 0, 59)?, number(17, 19, 0, 60)?);
    for (at, marks) in [(4, "-"), (7, "-"), (10, " T"), (13, ":"), (16, ":")] {
        text.as_bytes().get(at).filter(|byte| marks.as_bytes().contains(byte))?;
    }
    let rest = text.get(19..)?;
    let zone = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(zone);
    let fraction = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => digits,
        None if fraction.is_empty() => "",
        _ => return None,
    };
    let secs = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let utc = (secs as i64).checked_sub(offset_secs(zone)?).filter(|secs| *secs >= 0)?;
    Some(Nanos(utc as u64 * NANOS_PER_SEC + fraction_nanos(fraction)))
}

/// The offset of a zone from UTC: nothing, `Z`, `+hh:mm`, `+hhmm` or `+hh`.
fn offset_secs(zone: &str) -> Option<i64> {
    let sign = match zone.bytes().next() {
        None => return Some(0),
        Some(b'Z') => return (zone.len() == 1).then_some(0),
        Some(b'-') => -1,
        Some(_) => 1,
    };
    let digits = zone[1..].replace(':', "");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let minutes: i64 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
    Some(sign * (digits[..2].parse::<i64>().ok()? * 3600 + minutes * 60))
}

/// How many days a month has.
fn days_of(year: u64, month: u64) -> u64 {
    let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
    next - days(year, month, 1)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant, "chrono-compatible low-level
/// date algorithms", 2013).
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The digits after a decimal point in nanoseconds; what is below one is cut off.
fn fraction_nanos(digits: &str) -> u64 {
    let mut nanos = 0;
    let mut place = NANOS_PER_SEC / 10;
    for digit in digits.bytes().take(9) {
        nanos += u64::from(digit - b'0') * place;
        place /= 10;
    }
    nanos
}

/// A field as messages show it: quoted, and not too long.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_say_what_is_wrong() {
        assert_eq!(tokens("n", "4808"), Ok(Tokens(4808)));
        assert_eq!(tokens("n", "0"), Ok(Tokens(0)));
        let bad = |text| tokens("n", text).unwrap_err();
        assert_eq!(bad(""), "n is empty");
        assert_eq!(bad("-5"), "n is -5, less than zero");
        assert_eq!(bad("12x"), "n is \"12x\", not a whole number");
        assert_eq!(bad("1.5"), "n is \"1.5\", not a whole number");
        assert_eq!(bad("16777217"), "n is 16777217, more than 16777216 tokens");
        assert!(tokens("n", &"9".repeat(90)).unwrap_err().ends_with("9\"..., more than 16777216 tokens"));
        assert!(bad("99999999999999999999").ends_with("more than 16777216 tokens"));
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(seconds("t", "5"), Ok(Nanos(5_000_000_000)));
        assert_eq!(seconds("t", "0.1"), Ok(Nanos(100_000_000)));
        assert_eq!(seconds("t", "9007199.254740993"), Ok(Nanos(9_007_199_254_740_993)));
        assert_eq!(seconds("t", "1e3"), Ok(Nanos(1_000_000_000_000)));
        assert_eq!(seconds("t", "45.0"), Ok(Nanos(45_000_000_000)));
        for bad in ["", "-1", "x", "nan", "inf", "1e99", "99999999999999999999", "1.2.3", "1:02"] {
            assert!(seconds("t", bad).unwrap_err().starts_with("t is "), "{bad}");
        }
    }

    #[test]
    fn wall_clocks_of_both_azure_years_are_read() {
        let at = |text| wall_clock("t", text).unwrap().0;
        assert_eq!(at("1970-01-01 00:00:00"), 0);
        assert_eq!(at("2023-11-16 18:17:03.9799600"), 1_700_158_623_979_960_000);
        assert_eq!(at("2024-05-10 00:00:00.009930+00:00"), 1_715_299_200_009_930_000);
        assert_eq!(at("2024-05-10T02:00:00+02:00"), at("2024-05-10 00:00:00Z"));
        assert_eq!(at("2023-12-31 12:00:00") + 86_400_000_000_000, at("2024-01-01 12:00:00"));
        assert_eq!(at("2024-02-29 12:00:00") + 86_400_000_000_000, at("2024-03-01 12:00:00"));
        let bad = [
            "",
            "5",
            "2023-13-16 18:17:03",
            "2023-02-29 18:17:03",
            "2023-06-31 18:17:03",
            "2023-12-32 18:17:03",
            "2023-11-16 18:17",
            "2023-11-16 18:17:03.",
            "2023-11-16 18:17:03 pm",
            "2023-11-16 24:17:03",
            "2023-11-16 18:17:03+1",
            "1066-11-16 18:17:03",
            "2023-11-16 18:17:03.1é",
        ];
        for bad in bad {
            assert!(wall_clock("t", bad).unwrap_err().contains("not a time like"), "{bad}");
        }
    }
}
