//! The harness of the end-to-end tests: private worlds of network namespaces, in which the real programs run.
//!
//! | file | what it has |
//! |---|---|
//! | `world` | one test's network, manifests and control; at most two worlds stand at once |
//! | `pod` | a namespace on the world's network, with or without a proxy |
//! | `grid` | every way between a meshed or unmeshed client and server, IPv4 and IPv6 |
//! | `namespace` | doing things inside a network namespace |
//! | `program` | a process that dies with its test |
//! | `app` | applications inside the test process |
//! | `http` | an HTTP/1 client that shows every byte |
//! | `h2` | an HTTP/2 client and server that can do whatever a stream can |
//! | `frames` | frames of HTTP/2, byte by byte |
//! | `websocket` | its frames |
//! | `metrics` | reading `/metrics` |
//! | `manifest` | the documents that control reads |
//! | `tools` | programs in Go, built from `tests/tools` |
//! | `certificate` | certificates of servers that are none of the mesh's |
//! | `forgery` | certificates that are to be refused |
//! | `cluster` | a real Kubernetes, and scenarios on it |
//! | `pattern` | bytes that show when one is lost, doubled or moved |
//!
//! No test is here: they stand in `tests/mesh` and `tests/cluster`. They need root, since they make network namespaces.

// Panics are how a test fails.
#![allow(clippy::unwrap_used)]

pub mod app;
pub mod certificate;
pub mod cluster;
pub mod forgery;
pub mod frames;
pub mod grid;
pub mod h2;
pub mod http;
pub mod manifest;
pub mod metrics;
pub mod namespace;
pub mod pattern;
pub mod pod;
pub mod program;
pub mod tools;
pub mod websocket;
pub mod world;

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

/// Longest wait for what must happen; reached only by failing tests.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks again and again until the answer is `Ok`; panics with the last `Err` when it never was.
#[track_caller]
pub fn eventually<T, E: Debug>(within: Duration, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if begun.elapsed() > within => panic!("not within {within:?}: {why:?}"),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// `Ok` when the condition holds: for [`eventually`].
pub fn holds(condition: bool, what: impl Into<String>) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what.into()) }
}
