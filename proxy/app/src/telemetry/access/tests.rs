//! The log's rules, and the log against files that are full, renamed, or read by nobody.

use super::*;
use crate::telemetry::{Direction, Format, Gauges, Telemetry};
use serde_json::Value;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

fn connection() -> Entry<'static> {
    Entry {
        direction: Direction::Outbound,
        traffic: Traffic::Connection,
        ended: SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
        elapsed: Duration::from_micros(23_045),
        first_byte: None,
        client: None,
        destination: None,
        next_hop: None,
        service: "",
        workload: "",
        client_identity: "",
        server_identity: "",
        tls: "none",
        out_of_budget: false,
        attempts: 0,
        from_client: 0,
        to_client: 0,
        failure: None,
    }
}

fn request(target: &[u8]) -> Entry<'_> {
    let traffic = Traffic::Request(Request {
        version: "1.1",
        method: "GET",
        target,
        authority: b"cart",
        status: 503,
        grpc_status: None,
    });
    Entry { traffic, failure: Some((Reason::DestinationUnavailable, "")), ..connection() }
}

/// Each line as JSON.
fn parsed(lines: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(lines).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{line}: {why}")))
        .collect()
}

/// Looks until it is so: the writer's thread works beside the test.
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_mode_wants_what_it_says() {
    let fine = Verdict { status: 200, ..Verdict::default() };
    let table = [
        (fine, false),
        (Verdict { status: 404, ..fine }, false),
        (Verdict { status: 499, ..fine }, false),
        (Verdict { status: 500, ..fine }, true),
        (Verdict { status: 999, ..fine }, true),
        (Verdict { grpc_status: Some(0), ..fine }, false),
        (Verdict { grpc_status: Some(5), ..fine }, false),
        (Verdict { grpc_status: Some(14), ..fine }, true),
        (Verdict { reason: Some(Reason::HttpRequestError), status: 400, ..fine }, true),
        (Verdict { reason: Some(Reason::ConnectionTerminated), status: 0, ..fine }, true),
        (Verdict::default(), false),
    ];
    for (verdict, error) in table {
        for (mode, wanted) in [(Mode::Off, false), (Mode::Errors, error), (Mode::All, true)] {
            assert_eq!(AccessLog::new(mode).worker().wants(verdict), wanted, "{mode:?} {verdict:?}");
        }
    }
    for (word, mode) in [("off", Mode::Off), ("errors", Mode::Errors), ("all", Mode::All)] {
        assert_eq!(word.parse(), Ok(mode));
    }
    assert!("some".parse::<Mode>().is_err());
}

/// Lines with everything, with next to nothing, and with what no line may be broken by; `UPDATE=1` rewrites the file.
#[test]
fn the_lines_are_as_recorded() {
    let everything = Entry {
        traffic: Traffic::Request(Request {
            version: "2",
            method: "POST",
            target: b"/cart.Cart/Add?token=secret",
            authority: b"cart.shop:8080",
            status: 200,
            grpc_status: Some(14),
        }),
        first_byte: Some(Duration::from_millis(20)),
        client: Some("10.1.0.9:41000".parse().unwrap()),
        destination: Some("10.96.0.1:8080".parse().unwrap()),
        next_hop: Some("[fd00::7]:8080".parse().unwrap()),
        service: "cart.shop:8080",
        workload: "shop/cart-1",
        client_identity: "spiffe://cluster.local/ns/shop/sa/web",
        server_identity: "spiffe://cluster.local/ns/shop/sa/cart",
        tls: "1.3",
        attempts: 2,
        from_client: 40,
        to_client: 5_000_000_000,
        failure: Some((Reason::ConnectionTerminated, "the application closed the connection")),
        ..connection()
    };
    let bytes = Entry {
        direction: Direction::Inbound,
        destination: Some("10.1.0.9:5432".parse().unwrap()),
        ..connection()
    };
    let entries = [everything, bytes, request(b"/\"\\\n\x7f\xff\xe2\x82\xac")];
    let log = AccessLog::new(Mode::All);
    let worker = log.worker();
    entries.iter().for_each(|entry| worker.write(entry));
    let lines = log.take();
    assert_eq!(parsed(&lines).len(), entries.len());
    assert_eq!(parsed(&lines)[2]["url.path"], "/\"\\\n\u{7f}\u{fffd}€");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/telemetry/testdata/access.jsonl");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &lines).expect("the recorded lines can be written");
    }
    let recorded = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(String::from_utf8(lines).unwrap(), recorded, "{path} differs; UPDATE=1 rewrites it");
}

#[test]
fn a_long_value_is_cut_and_the_line_stays_json() {
    let log = AccessLog::new(Mode::All);
    // The cut falls into the middle of a character.
    log.worker().write(&request(&"/€".repeat(limits::ACCESS_LOG_VALUE_BYTES).into_bytes()));
    let path = parsed(&log.take())[0]["url.path"].as_str().expect("a path").to_owned();
    assert!(path.len() <= limits::ACCESS_LOG_VALUE_BYTES + 10 && path.ends_with('…'), "{}", path.len());
}

#[test]
fn over_the_bound_lines_are_dropped_and_counted_until_there_is_room() {
    let log = AccessLog::new(Mode::All);
    let worker = log.worker();
    let mut added = 0;
    while log.lines().unwrap().dropped == 0 {
        worker.write(&connection());
        added += 1;
        assert!(added < limits::ACCESS_LOG_BYTES, "nothing is ever dropped");
    }
    let held = log.take();
    assert!(held.len() <= limits::ACCESS_LOG_BYTES && held.len() > limits::ACCESS_LOG_BYTES - 1000);
    assert_eq!(parsed(&held).len(), added - 1);
    worker.write(&connection());
    assert_eq!(parsed(&log.take()).len(), 1);
    assert_eq!(log.lines().unwrap().dropped, 1);
}

#[test]
fn a_worker_waits_for_no_one() {
    let log = AccessLog::new(Mode::All);
    let worker = log.worker();
    let (first, second) = (&worker.shard.buffers[0], &worker.shard.buffers[1]);
    for held in [first, second] {
        let held = held.lock().unwrap();
        worker.write(&connection());
        drop(held);
        assert_eq!(parsed(&log.take()).len(), 1);
    }
    assert_eq!(log.lines().unwrap().dropped, 0);
    let both = (first.lock().unwrap(), second.lock().unwrap());
    worker.write(&connection());
    drop(both);
    assert_eq!((log.take().len(), log.lines().unwrap().dropped), (0, 1));
}

#[test]
fn no_line_is_lost_or_torn_between_workers_and_the_writer() {
    const LINES: usize = 20_000;
    let log = AccessLog::new(Mode::All);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let writing = Writing::start(log.clone(), Target::File(path.clone())).unwrap();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let worker = log.worker();
            thread::spawn(move || (0..LINES).for_each(|_| worker.write(&connection())))
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    writing.end(Duration::from_secs(20));
    let lines = log.lines().unwrap();
    assert_eq!(lines.written + lines.dropped, 2 * LINES as u64);
    assert_eq!(parsed(&std::fs::read(path).unwrap()).len() as u64, lines.written);
    assert!(lines.written > 0);
    let text = Telemetry::logging(Gauges::default, log).encode(Format::Classic);
    assert!(
        text.contains(&format!("weft_access_log_lines_total{{outcome=\"written\"}} {}\n", lines.written))
    );
}

#[test]
fn without_a_log_no_series_tell_of_it() {
    assert!(!Telemetry::new(Gauges::default).encode(Format::Classic).contains("access_log"));
}

#[test]
fn a_renamed_or_deleted_file_is_made_anew() {
    let log = AccessLog::new(Mode::All);
    let worker = log.worker();
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    let writing = Writing::start(log.clone(), Target::File(path.clone())).unwrap();
    let held = |path: &Path| std::fs::read(path).map(|lines| parsed(&lines).len()).unwrap_or_default();
    worker.write(&connection());
    eventually("the first line", || held(&path) == 1);
    std::fs::rename(&path, &old).unwrap();
    worker.write(&connection());
    eventually("a line after the renaming", || held(&path) == 1);
    std::fs::remove_file(&path).unwrap();
    worker.write(&connection());
    worker.write(&connection());
    writing.end(Duration::from_secs(20));
    assert_eq!((held(&old), held(&path)), (1, 2));
    assert_eq!(log.lines(), Some(Lines { written: 4, ..Lines::default() }));
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_until_there_is_room() {
    let log = AccessLog::new(Mode::All);
    let worker = log.worker();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    symlink("/dev/full", &path).unwrap();
    let writing = Writing::start(log.clone(), Target::File(path.clone())).unwrap();
    worker.write(&connection());
    eventually("a failed line", || log.lines().unwrap().failed == 1);
    std::fs::remove_file(&path).unwrap();
    worker.write(&connection());
    eventually("a written line", || log.lines().unwrap().written == 1);
    writing.end(Duration::from_secs(20));
    assert_eq!(parsed(&std::fs::read(path).unwrap()).len(), 1);
    assert_eq!(log.lines(), Some(Lines { written: 1, failed: 1, dropped: 0 }));
}

#[test]
fn a_reader_that_is_stuck_costs_lines_and_neither_a_worker_nor_the_end() {
    let log = AccessLog::new(Mode::All);
    let worker = log.worker();
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let writing = Writing::start(log.clone(), Target::File(path.into())).unwrap();
    while log.lines().unwrap().dropped == 0 {
        worker.write(&connection());
    }
    writing.end(Duration::from_millis(1));
    let mut first = [0];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"{");
}

#[test]
fn a_file_that_cannot_be_made_is_an_error_at_the_start() {
    let target = Target::File("/nonexistent/folder/log".into());
    assert!(Writing::start(AccessLog::new(Mode::All), target).is_err());
}
