//! Numbers, moments and lengths of time as text.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;

/// Nanoseconds in each unit of a duration, from the largest.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads an integer in its one spelling.
pub(super) fn number<T: FromStr + Display>(text: &str) -> Option<T> {
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

/// Reads `2026-01-31T12:00:00.123456789Z`: RFC 3339, UTC, upper case, from 1970 on.
pub(super) fn time(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.strip_suffix('Z')?.split_at_checked("2026-01-31T12:00:00".len())?;
    let as_written = seconds.bytes().zip(*b"0000-00-00T00:00:00").all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        mark => byte == mark,
    });
    let digits = fraction.strip_prefix('.');
    let places =
        digits.is_none_or(|digits| (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()));
    // A second 60 would be read as 59, and a moment would be told that nobody wrote.
    if !as_written || !places || (digits.is_none() && !fraction.is_empty()) || seconds.ends_with("60") {
        return None;
    }
    u64::try_from(text.parse::<Timestamp>().ok()?.as_nanosecond()).ok()
}

/// Writes what [`time`] reads, with as many places as there are.
pub(super) fn time_text(ns: u64) -> String {
    match Timestamp::from_nanosecond(ns.into()) {
        Ok(time) => time.to_string(),
        Err(error) => unreachable!("nanoseconds in 64 bits end in the year 2554: {error}"),
    }
}

/// Reads `1h30m`, `250ms`: units from the largest to the smallest, each once.
pub(super) fn duration(text: &str) -> Option<u64> {
    let (mut rest, mut units, mut total) = (text, UNITS.iter(), 0u64);
    while !rest.is_empty() {
        let (count, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(count.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = after;
    }
    if text.is_empty() { None } else { Some(total) }
}

/// Writes what [`duration`] reads, exactly.
pub(super) fn duration_text(ns: u64) -> String {
    let mut rest = ns;
    let mut text = String::new();
    for (unit, factor) in UNITS {
        if rest >= factor {
            text += &format!("{}{unit}", rest / factor);
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_from_its_text() {
        for (text, ns) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-31T12:00:00.5Z", 1_769_860_800_500_000_000),
            ("2024-02-29T23:59:59.000000001Z", 1_709_251_199_000_000_001),
            ("2554-07-21T23:34:33.709551615Z", u64::MAX),
        ] {
            assert_eq!(time(text), Some(ns), "{text}");
            assert_eq!(time_text(ns), text);
        }
        assert_eq!(time("1970-01-01T00:00:01.500Z"), Some(1_500_000_000));
    }

    #[test]
    fn a_time_in_another_form_is_refused() {
        for text in [
            "",
            "Z",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00+00:00",
            "2026-01-31t12:00:00z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T12:00Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00,5Z",
            "2026-01-31T12:00:00.1234567890Z",
            "2026-02-30T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-06-30T23:59:60Z",
            "1969-12-31T23:59:59Z",
            "-002026-01-31T12:00:00Z",
            "2026-01-31T12:00:00Z[UTC]",
            "2026-01-31T12:00:00ZZ",
            "2554-07-21T23:34:33.709551616Z",
            "2026-01-31T12:00:0éZ",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_reads_back_from_its_text() {
        for (text, ns) in
            [("0s", 0), ("1ns", 1), ("250ms", 250_000_000), ("1h30m", 5_400_000_000_000), ("2s500ms", 2_500_000_000)]
        {
            assert_eq!(duration(text), Some(ns), "{text}");
            assert_eq!(duration_text(ns), text);
        }
        assert_eq!(duration("90s"), Some(90_000_000_000));
        assert_eq!(duration(&duration_text(u64::MAX)), Some(u64::MAX));
        for text in ["", "1", "s", "1.5s", "-1s", "30m1h", "1s1s", "1 s", "1w", "99999999999d", "1S", "١s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_has_one_spelling() {
        assert_eq!(number("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
        for text in ["", "+1", "01", "-0", " 1", "1.0", "1e3", "18446744073709551616"] {
            assert_eq!(number::<u64>(text), None, "{text}");
            assert_eq!(number::<i64>(text), None, "{text}");
        }
    }
}
