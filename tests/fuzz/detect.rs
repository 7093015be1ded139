//! Any first bytes, cut anywhere: no panic, a verdict stays, and a detector decides within its limits.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use proxy_detect::{Detector, MAX_PEEK, Step, TLS_HOLD_LIMIT, Verdict, client};

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (first, pause_ms, bytes) = input;
    let cut = usize::from(first) % (bytes.len() + 1);
    let (early, late) = (client(&bytes[..cut]), client(bytes));
    assert!(early == Verdict::NeedMore || early == late, "{early:?} became {late:?} after {cut} bytes");
    assert!(late != Verdict::NeedMore || bytes.len() < MAX_PEEK);

    let mut detector = Detector::new();
    let mut now = Duration::ZERO;
    if let Step::Decided(..) = detector.on_client(&bytes[..cut], now) {
        assert!(early != Verdict::NeedMore);
        return;
    }
    now += Duration::from_millis(pause_ms.into());
    match detector.on_client(bytes, now) {
        Step::Decided(..) => {}
        Step::Wait(_) | Step::ConnectUpstream if bytes.is_empty() => {}
        Step::Wait(left) => {
            assert!(!left.is_zero() && left <= TLS_HOLD_LIMIT);
            let end = detector.on_client_silent(now + TLS_HOLD_LIMIT);
            assert!(matches!(end, Step::Decided(..)), "{end:?}");
        }
        Step::ConnectUpstream => panic!("held bytes ask for a decision, not for the upstream"),
    }
});
