//! What a proxy has to know of gRPC over HTTP/2: which requests are calls, their deadlines, and how an outcome is told.

use crate::failed::Failed;
use http::{HeaderMap, HeaderName, HeaderValue};
use policy::Reason;
use std::time::Duration;

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Time that may pass before the next hop is told of it: less is within what clocks and wake-ups differ by.
const UNTOLD: Duration = Duration::from_millis(1);

/// gRPC's content types, of which gRPC-Web's are none: there status and trailers are in the body.
pub(crate) fn is_grpc(content_type: Option<&[u8]>) -> bool {
    content_type
        .and_then(|text| text.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The value of `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Writes what is left of a call's time, where nothing, or more, is told.
pub(crate) fn count_down(headers: &mut HeaderMap, left: Duration) {
    let told = headers.get(TIMEOUT).map(|value| timeout(value.as_bytes()));
    // What cannot be read is for the server to refuse.
    let is_less = |told: Option<Duration>| told.is_some_and(|told| told > left + UNTOLD);
    if told.is_none_or(is_less) {
        let value = HeaderValue::try_from(format(left)).expect("digits and a letter are a value");
        headers.insert(TIMEOUT, value);
    }
}

/// In the finest unit that eight digits hold.
fn format(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let units = [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm')];
    match units.into_iter().find(|(count, _)| *count <= MOST) {
        Some((count, unit)) => format!("{count}{unit}"),
        None if u128::from(left.as_secs()) <= MOST => format!("{}S", left.as_secs()),
        None => format!("{}H", left.as_secs() / 3600),
    }
}

/// A call whose deadline has passed.
pub fn overdue() -> Failed {
    let failed = Failed::new(Reason::HttpResponseTimeout, "the caller's grpc-timeout has run out");
    Failed { by_client: true, ..failed }
}

/// The fields that tell a failure of ours: a gRPC caller looks at nothing else.
pub fn outcome(failed: &Failed) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(4);
    fields.insert(STATUS, HeaderValue::from(failed.grpc_status()));
    let message = format!("weft: {}: {} {}", failed.reason, failed.reason.says(), failed.detail);
    // The message is percent-encoded (gRPC over HTTP/2, "Status-Message").
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            byte => encoded.push(char::from(byte)),
        }
    }
    fields.insert(MESSAGE, HeaderValue::try_from(encoded).expect("printable ASCII is a value"));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_left_is_told_as_exactly_as_eight_digits_can(seconds in 0..359_999_996_400u64, nanos in 0..1_000_000_000u32, shift in 0..39u32) {
            let left = Duration::new(seconds >> shift, nanos);
            let text = format(left);
            let told = timeout(text.as_bytes()).expect("what is written is read");
            prop_assert!(text.len() <= 9, "{}", text);
            // Never more than there is, and less by one unit at most: a millionth, but for days that are told in hours.
            let unit = if left.as_secs() > 99_999_999 { Duration::from_secs(3_600) } else { left / 90_000 };
            prop_assert!(told <= left && left - told <= unit, "{:?} is {}", left, text);
        }

        #[test]
        fn a_timeout_is_only_ever_counted_down(value in "[0-9]{0,9}[HMSmunx]?", millis in 0..10_000_000u64) {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::try_from(value.as_str()).expect("a value"));
            let left = Duration::from_millis(millis);
            count_down(&mut headers, left);
            let after = &headers[TIMEOUT];
            match timeout(value.as_bytes()) {
                Some(told) if told > left + UNTOLD => prop_assert!(timeout(after.as_bytes()).is_some_and(|then| then <= left)),
                _ => prop_assert_eq!(after, value.as_str()),
            }
        }
    }

    #[test]
    fn content_types() {
        for (text, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(Some(text.as_bytes())), grpc, "{text}");
        }
        assert!(!is_grpc(None));
    }

    #[test]
    fn timeouts() {
        for (text, millis) in [
            ("1S", Some(1_000)),
            ("250m", Some(250)),
            ("99999999u", Some(99_999)),
            ("2H", Some(7_200_000)),
            ("1M", Some(60_000)),
            ("123456789m", None),
            ("m", None),
            ("-1S", None),
            ("5", None),
            ("5x", None),
        ] {
            assert_eq!(timeout(text.as_bytes()).map(|found| found.as_millis()), millis, "{text}");
        }
    }

    #[test]
    fn what_is_left_is_told_when_it_has_become_less() {
        for (told, left, then) in [
            ("1S", Duration::from_micros(999_500), "1S"),
            ("1S", Duration::from_millis(900), "900000u"),
            ("1S", Duration::ZERO, "0n"),
            ("2H", Duration::from_secs(7000), "7000000m"),
            ("99999999H", Duration::from_secs(3_600 * 50_000_000), "50000000H"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_static(told));
            count_down(&mut headers, left);
            assert_eq!(headers[TIMEOUT], then);
            assert!(timeout(then.as_bytes()).is_some());
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        let failed = Failed::new(Reason::ConnectionRefused, "100 % ä");
        let fields = outcome(&failed);
        assert_eq!(fields[STATUS], "14");
        assert!(fields[MESSAGE].to_str().is_ok_and(|text| text.ends_with("100 %25 %C3%A4")));
    }
}
