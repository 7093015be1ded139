//! Durations as Istio writes them (`1.5s`, `1h30m`), and as Gateway API does (GEP-2257: `1h30m`, no fractions).

use std::time::Duration;

use crate::tree::Node;

/// What Istio's text means; `None` when it means nothing.
fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok()
}

/// As Gateway API writes it, to the millisecond; `None` over 99,999 hours.
fn write(duration: Duration) -> Option<String> {
    // What is not nothing does not become nothing: `0s` often means forever.
    let total = match duration.as_micros() {
        0 => 0,
        micros => u64::try_from((micros + 500) / 1000).ok()?.max(1),
    };
    let (seconds, ms) = (total / 1000, total % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 99_999 {
        return None;
    }
    let parts = [(hours, "h"), (minutes, "m"), (seconds, "s"), (ms, "ms")];
    let text: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    Some(if text.is_empty() { "0s".to_owned() } else { text })
}

/// A duration of the input as Gateway API writes it; one that cannot be read is reported.
pub(crate) fn carry(node: &Node) -> Option<String> {
    let written = read(node).and_then(write);
    if written.is_none() {
        node.drop("it is not a duration as 1h, 30s or 250ms", "write it as one");
    }
    written
}

/// A duration of the input.
pub(crate) fn read(node: &Node) -> Option<Duration> {
    parse(node.text()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istios_become_gateway_apis() {
        for (text, expected) in [
            ("10s", Some("10s")),
            ("1.5s", Some("1s500ms")),
            ("0.250s", Some("250ms")),
            ("90m", Some("1h30m")),
            ("1h30m", Some("1h30m")),
            ("0s", Some("0s")),
            ("0.000001s", Some("1ms")),
            ("500us", Some("1ms")),
            ("3600s", Some("1h")),
            ("100000h", None),
            ("10", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse(text).and_then(write).as_deref(), expected, "{text}");
        }
    }
}
