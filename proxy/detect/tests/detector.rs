//! Whole connections against the detector: a script of events at their times, and the steps that it must give.

use std::time::Duration;

use proxy_detect::{Detector, How, Protocol, Step};

/// An event, with milliseconds since accept.
enum Event {
    /// All that the client has sent so far.
    Client(u64, &'static [u8]),
    Silent(u64),
    Server,
    Eof,
}
use Event::{Client, Eof, Server, Silent};

fn wait(ms: u64) -> Step {
    Step::Wait(Duration::from_millis(ms))
}

fn decided(protocol: Protocol, how: How) -> Step {
    Step::Decided(protocol, how)
}

fn check(name: &str, mut detector: Detector, script: &[(Event, Step)]) {
    for (index, (event, want)) in script.iter().enumerate() {
        let step = match event {
            Client(ms, bytes) => detector.on_client(bytes, Duration::from_millis(*ms)),
            Silent(ms) => detector.on_client_silent(Duration::from_millis(*ms)),
            Server => detector.on_server_first(),
            Eof => detector.on_client_eof(),
        };
        assert_eq!(step, *want, "{name}: event {index}");
    }
}

#[test]
fn the_client_speaks_first() {
    let line = b"GET / HTTP/1.1\r\n\r\n";
    check(
        "at once",
        Detector::new(),
        &[(Silent(0), wait(50)), (Client(1, line), decided(Protocol::Http1, How::ClientBytes))],
    );
    check(
        "in pieces",
        Detector::new(),
        &[
            (Silent(0), wait(50)),
            (Client(20, b"G"), wait(300)),
            (Client(120, b"GET /"), wait(200)),
            (Client(319, line), decided(Protocol::Http1, How::ClientBytes)),
        ],
    );
    check(
        "no bytes are silence",
        Detector::new(),
        &[(Client(10, b""), wait(40)), (Client(60, b""), Step::ConnectUpstream)],
    );
}

#[test]
fn a_byte_at_a_time_is_still_http() {
    check(
        "a byte each 200 ms",
        Detector::new(),
        &[
            (Client(0, b"P"), wait(300)),
            (Client(200, b"PU"), wait(100)),
            (Silent(300), decided(Protocol::Http1, How::HoldLimit)),
        ],
    );
    check(
        "a single byte",
        Detector::new(),
        &[(Client(0, b"P"), wait(300)), (Silent(300), decided(Protocol::Http1, How::HoldLimit))],
    );
    check(
        "a beginning that no registered method has",
        Detector::new(),
        &[(Client(0, b"PR"), wait(300)), (Silent(300), decided(Protocol::Opaque, How::HoldLimit))],
    );
    check(
        "a method and half a target",
        Detector::new(),
        &[(Client(0, b"GET /car"), wait(300)), (Silent(300), decided(Protocol::Http1, How::HoldLimit))],
    );
    check(
        "a slow preface",
        Detector::new(),
        &[(Client(0, b"PRI "), wait(300)), (Silent(300), decided(Protocol::Http2, How::HoldLimit))],
    );
}

#[test]
fn the_server_speaks_first() {
    check(
        "a greeting",
        Detector::new(),
        &[
            (Silent(0), wait(50)),
            (Silent(50), Step::ConnectUpstream),
            (Server, decided(Protocol::Opaque, How::ServerFirst)),
        ],
    );
    check(
        "a greeting, remembered",
        Detector::remembering_server_first(),
        &[(Silent(0), Step::ConnectUpstream), (Server, decided(Protocol::Opaque, How::Remembered))],
    );
    check(
        "a greeting while the client's bytes are undecided",
        Detector::new(),
        &[
            (Silent(50), Step::ConnectUpstream),
            (Client(60, b"HE"), wait(300)),
            (Server, decided(Protocol::Opaque, How::ServerFirst)),
        ],
    );
    check(
        "a stale memory",
        Detector::remembering_server_first(),
        &[
            (Silent(0), Step::ConnectUpstream),
            (Client(2, b"GET / HTTP/1.1\r\n"), decided(Protocol::Http1, How::ClientBytes)),
        ],
    );
}

#[test]
fn undecided_bytes_are_not_held_twice() {
    let remembering = Detector::remembering_opaque;
    check(
        "they were opaque before",
        remembering(),
        &[(Client(0, b"x"), decided(Protocol::Opaque, How::Remembered))],
    );
    check(
        "a client that says what it speaks",
        remembering(),
        &[(Client(0, b"GET / HTTP/1.1\r\n"), decided(Protocol::Http1, How::ClientBytes))],
    );
    check("a slow client of a well-known method", remembering(), &[(Client(0, b"GE"), wait(300))]);
    check("a silent client", remembering(), &[(Silent(0), wait(50)), (Silent(50), Step::ConnectUpstream)]);
}

#[test]
fn silence_is_no_verdict() {
    check(
        "a pooled connection that is used a minute later",
        Detector::new(),
        &[
            (Silent(50), Step::ConnectUpstream),
            (Silent(60_000), Step::ConnectUpstream),
            (Client(60_001, b"GET"), wait(300)),
            (Client(60_002, b"GET / HTTP/1.1"), decided(Protocol::Http1, How::ClientBytes)),
        ],
    );
}

#[test]
fn nothing_is_held_for_long() {
    check(
        "an unknown word without an end",
        Detector::new(),
        &[
            (Client(10, b"HELLO"), wait(300)),
            (Silent(309), wait(1)),
            (Silent(310), decided(Protocol::Opaque, How::HoldLimit)),
        ],
    );
    check(
        "new bytes do not begin the time anew",
        Detector::new(),
        &[
            (Client(0, b"H"), wait(300)),
            (Client(250, b"HE"), wait(50)),
            (Client(301, b"HEL"), decided(Protocol::Opaque, How::HoldLimit)),
        ],
    );
    check(
        "a single byte that TLS begins with",
        Detector::new(),
        &[(Client(0, b"\x16"), wait(300)), (Silent(300), decided(Protocol::Opaque, How::HoldLimit))],
    );
}

#[test]
fn a_hello_may_lose_a_segment() {
    check(
        "the second segment comes after a second",
        Detector::new(),
        &[
            (Client(0, b"\x16\x03\x01\x02\x00\x01"), wait(3_300)),
            (Silent(1_000), wait(2_300)),
            (Silent(3_300), decided(Protocol::Opaque, How::HoldLimit)),
        ],
    );
}

#[test]
fn a_client_may_only_listen() {
    check("closed at once", Detector::new(), &[(Eof, decided(Protocol::Opaque, How::ClientClosed))]);
    check(
        "closed inside a word",
        Detector::new(),
        &[(Client(0, b"GE"), wait(300)), (Eof, decided(Protocol::Opaque, How::ClientClosed))],
    );
}

#[test]
fn each_way_has_its_word() {
    let mut words: Vec<_> = How::ALL.iter().map(|how| how.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), How::ALL.len());
}
