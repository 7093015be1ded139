//! What holds for all bytes: nothing panics, a verdict never changes, and every connection is decided in time.

use std::time::Duration;

use proptest::prelude::*;
use proxy_detect::{Detector, How, MAX_PEEK, Protocol, Step, TLS_HOLD_LIMIT, Verdict, client};

/// Bytes that reach deeper than random ones: beginnings of real protocols, mutilated.
fn flight() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        &b""[..],
        b"GET /a HTTP/1.1\r\n",
        b"\r\n\r\nPURGE /a HTTP/1.",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03",
        b"\x16\x03\x01\x00\x01\x01\x16\x03\x03\x00\x04\x00\x00\x10\x03",
        b"SSH-2.0-x y\r\n",
    ]);
    let rest = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(prop::sample::select(&b"\r\n \x00\x01\x03\x16GPa/"[..]), 0..200),
    ];
    (start, rest, any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(start, rest, at, byte, mutilate)| {
            let mut bytes = [start, &rest].concat();
            if mutilate && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn a_verdict_stays(bytes in flight()) {
        let mut last = Verdict::NeedMore;
        for cut in 0..=bytes.len() {
            let verdict = client(&bytes[..cut]);
            prop_assert!(last == Verdict::NeedMore || last == verdict, "{last:?} became {verdict:?} at {cut}");
            last = verdict;
        }
    }

    #[test]
    fn a_full_buffer_decides(start in flight(), fill in any::<u8>()) {
        let mut bytes = start;
        bytes.resize(MAX_PEEK, fill);
        prop_assert_ne!(client(&bytes), Verdict::NeedMore);
    }

    /// However the bytes are cut and timed, the end comes in time, and it is what the bytes say or HoldLimit.
    #[test]
    fn held_bytes_are_let_go(bytes in flight(), pieces in prop::collection::vec((1usize..40, 0u64..400), 1..30)) {
        let mut detector = Detector::new();
        let (mut have, mut now, mut first) = (0, Duration::ZERO, None);
        for (length, pause_ms) in pieces {
            now += Duration::from_millis(pause_ms);
            have = (have + length).min(bytes.len());
            match detector.on_client(&bytes[..have], now) {
                Step::Decided(protocol, How::ClientBytes) => {
                    prop_assert_eq!(protocol, protocol_of(client(&bytes[..have])));
                    return Ok(());
                }
                Step::Decided(protocol, how) => {
                    prop_assert_eq!(how, How::HoldLimit);
                    prop_assert!(!matches!(protocol, Protocol::Tls(_)));
                    return Ok(());
                }
                Step::Wait(left) if have > 0 => {
                    let since = *first.get_or_insert(now);
                    prop_assert!(now + left <= since + TLS_HOLD_LIMIT);
                    prop_assert!(!left.is_zero());
                }
                Step::Wait(_) | Step::ConnectUpstream => prop_assert_eq!(have, 0),
            }
        }
    }
}

fn protocol_of(verdict: Verdict) -> Protocol {
    match verdict {
        Verdict::Tls(hello) => Protocol::Tls(hello),
        Verdict::Http1 => Protocol::Http1,
        Verdict::Http2 => Protocol::Http2,
        Verdict::Opaque => Protocol::Opaque,
        Verdict::NeedMore => panic!("no bytes say this"),
    }
}
