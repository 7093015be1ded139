//! Shards against their sums: merging, the budget, the text, and a scrape beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::edge::OTHER;
use super::*;

fn telemetry() -> Telemetry {
    Telemetry::new(Gauges::default)
}

fn labels(service: &str, backend: &str) -> EdgeLabels {
    EdgeLabels {
        direction: Direction::Outbound,
        service: service.into(),
        workload: "shop/cart-1".into(),
        identity: "spiffe://cluster.local/ns/shop/sa/cart".into(),
        backend: backend.into(),
        tls: "1.3",
    }
}

/// The sum of all series of this name whose labels contain `with`.
fn total(telemetry: &Telemetry, name: &str, with: &str) -> f64 {
    let text = telemetry.encode(Format::OpenMetrics);
    let matching = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        (found == name && labels.contains(with)).then(|| value.parse::<f64>().expect("values are numbers"))
    });
    matching.sum()
}

#[test]
fn shards_are_summed() {
    let telemetry = telemetry();
    let labels = labels("cart.shop:8080", "10.1.2.3:8080");
    for worker in [telemetry.worker(), telemetry.worker(), telemetry.worker()] {
        let edge = worker.edge(&labels);
        edge.connection_opened();
        edge.request_started();
        edge.request_started();
        edge.request_finished(204, Duration::from_millis(4));
        edge.sent(10);
        edge.received(100);
        edge.failed(Reason::ConnectionRefused);
        worker.reason(Direction::Outbound, Some("cart.shop:8080"), Reason::ConnectionRefused);
        worker.detected(Direction::Outbound, "http/1", "client_bytes");
        worker.handshake(Direction::Outbound, "full", "X25519MLKEM768");
    }
    let expected = [
        ("weft_requests_total", "class=\"2xx\"", 3.0),
        ("weft_requests_total", "class=\"5xx\"", 0.0),
        ("weft_requests_in_flight", "", 3.0),
        ("weft_request_duration_seconds_count", "", 3.0),
        ("weft_request_duration_seconds_sum", "", 0.012),
        ("weft_connections_total", "", 3.0),
        ("weft_connections_open", "tls=\"1.3\"", 3.0),
        ("weft_bytes_total", "flow=\"sent\"", 30.0),
        ("weft_bytes_total", "flow=\"received\"", 300.0),
        ("weft_reasons_total", "reason=\"connection_refused\"", 6.0),
        ("weft_detections_total", "how=\"client_bytes\"", 3.0),
        ("weft_handshakes_total", "key_exchange=\"X25519MLKEM768\"", 3.0),
    ];
    for (name, with, sum) in expected {
        assert_eq!(total(&telemetry, name, with), sum, "{name} {with}");
    }
}

#[test]
fn a_worker_gets_the_same_edge_again_and_another_worker_its_own() {
    let telemetry = telemetry();
    let (one, two) = (telemetry.worker(), telemetry.worker());
    let edge = one.edge(&labels("a:1", "10.0.0.1:1"));
    assert!(Arc::ptr_eq(&edge, &one.edge(&labels("a:1", "10.0.0.1:1"))));
    assert!(!Arc::ptr_eq(&edge, &two.edge(&labels("a:1", "10.0.0.1:1"))));
    assert!(!Arc::ptr_eq(&edge, &one.edge(&labels("a:1", "10.0.0.2:1"))));
}

#[test]
fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_pass() {
    let table = [
        (Duration::ZERO, "0.0001"),
        (Duration::from_micros(100), "0.0001"),
        (Duration::from_nanos(100_001), "0.0002"),
        (Duration::from_millis(5), "0.005"),
        (Duration::from_secs(60), "60.0"),
        (Duration::from_secs(61), "+Inf"),
    ];
    for (elapsed, bound) in table {
        let telemetry = telemetry();
        let worker = telemetry.worker();
        let edge = worker.edge(&labels("a:1", "10.0.0.1:1"));
        edge.request_started();
        edge.request_finished(200, elapsed);
        let text = telemetry.encode(Format::OpenMetrics);
        let first =
            text.lines().find(|line| line.contains("_bucket{") && line.ends_with(" 1")).expect("one bucket");
        assert!(first.contains(&format!("le=\"{bound}\"")), "{elapsed:?}: {first}");
    }
}

#[test]
fn statuses_have_the_class_of_their_first_digit() {
    let table =
        [(0, "none"), (101, "1xx"), (200, "2xx"), (304, "3xx"), (429, "4xx"), (503, "5xx"), (999, "5xx")];
    for (status, class) in table {
        let telemetry = telemetry();
        let edge = telemetry.worker().edge(&labels("a:1", "10.0.0.1:1"));
        edge.request_started();
        edge.request_finished(status, Duration::ZERO);
        assert_eq!(total(&telemetry, "weft_requests_total", &format!("class=\"{class}\"")), 1.0, "{status}");
        assert_eq!(total(&telemetry, "weft_requests_total", ""), 1.0, "{status}");
    }
}

#[test]
fn beyond_the_budget_edges_are_told_as_other_with_exact_totals() {
    let telemetry = telemetry();
    let worker = telemetry.worker();
    let mut held = Vec::new();
    for service in 0..100 {
        for pod in 0..10 {
            let service: Arc<str> = format!("s{service}.shop:80").into();
            let edge = worker.edge(&labels(&service, &format!("10.0.{}.{pod}:80", service.len())));
            edge.connection_opened();
            edge.request_started();
            edge.request_finished(if pod == 0 { 500 } else { 200 }, Duration::from_millis(1));
            edge.sent(7);
            edge.failed(Reason::ConnectionTerminated);
            held.push(edge);
        }
    }
    assert_eq!(total(&telemetry, "weft_requests_total", ""), 1000.0);
    assert_eq!(total(&telemetry, "weft_requests_total", "class=\"5xx\""), 100.0);
    assert_eq!(total(&telemetry, "weft_request_duration_seconds_count", ""), 1000.0);
    assert_eq!(total(&telemetry, "weft_connections_open", ""), 1000.0);
    assert_eq!(total(&telemetry, "weft_bytes_total", "sent"), 7000.0);
    assert_eq!(total(&telemetry, "weft_reasons_total", ""), 1000.0);
    let other = total(&telemetry, "weft_requests_total", "backend=\"other\",tls=\"1.3\"");
    assert!(other > 0.0 && other < 1000.0, "{other}");
    assert!(total(&telemetry, "weft_series_folded_total", "") >= other);
    let series = total(&telemetry, "weft_series", "");
    assert!(series <= policy::limits::SERIES as f64, "{series}");
    assert!(series > policy::limits::SERIES as f64 / 2.0, "most of the budget is used: {series}");
}

#[test]
fn what_nobody_holds_makes_room_and_what_is_held_stays() {
    let telemetry = telemetry();
    let (one, two) = (telemetry.worker(), telemetry.worker());
    let kept_labels = labels("a.shop:80", "10.0.0.1:80");
    let kept = two.edge(&kept_labels);
    kept.sent(1);
    one.edge(&kept_labels).sent(2);
    for pod in 0..policy::limits::SERIES {
        let edge = one.edge(&labels("a.shop:80", &format!("10.1.{}.{}:80", pod / 256, pod % 256)));
        edge.request_started();
        edge.request_finished(200, Duration::ZERO);
    }
    assert_eq!(total(&telemetry, "weft_series_folded_total", ""), 0.0);
    assert_eq!(total(&telemetry, "weft_bytes_total", &format!("\"{}\"", kept_labels.backend)), 3.0);
    let all = policy::limits::SERIES as f64;
    assert_eq!(total(&telemetry, "weft_request_duration_seconds_count", ""), all, "a service's count stays");
    assert!(total(&telemetry, "weft_requests_total", "") < all);
}

#[test]
fn an_edge_that_folds_keeps_its_direction_tls_and_its_services_durations() {
    let telemetry = telemetry();
    let worker = telemetry.worker();
    let mut held = Vec::new();
    while total(&telemetry, "weft_series_folded_total", "") == 0.0 {
        assert!(held.len() < policy::limits::SERIES, "held edges use up the budget");
        held.push(worker.edge(&labels("a.shop:80", &format!("10.0.0.{}:80", held.len()))));
    }
    let folded = held.last().expect("one at least");
    folded.request_started();
    folded.request_finished(200, Duration::ZERO);
    assert_eq!(total(&telemetry, "weft_request_duration_seconds_count", "service=\"a.shop:80\""), 1.0);
    let told = "direction=\"outbound\",service=\"other\",workload=\"other\",identity=\"other\",backend=\"other\",tls=\"1.3\"";
    assert_eq!(total(&telemetry, "weft_requests_total", told), 1.0);
}

#[test]
fn endpoint_ages_are_bounded_and_the_greatest_of_the_rest_is_told() {
    let telemetry = Telemetry::new(|| Gauges {
        endpoint_ages: (0..1000).map(|n| (format!("s{n:04}").into(), Duration::from_secs(n))).collect(),
        ..Gauges::default()
    });
    let text = telemetry.encode(Format::OpenMetrics);
    assert_eq!(text.lines().filter(|line| line.starts_with("weft_endpoint_age_seconds{")).count(), 128);
    assert!(text.contains(&format!("weft_endpoint_age_seconds{{service=\"{OTHER}\"}} 999.0\n")), "{text}");
}

#[test]
fn a_certificate_that_has_ended_is_negative() {
    for (expires, sign) in [
        (SystemTime::now() + Duration::from_secs(100), 1.0),
        (SystemTime::now() - Duration::from_secs(100), -1.0),
    ] {
        let telemetry =
            Telemetry::new(move || Gauges { certificate_expires: Some(expires), ..Gauges::default() });
        let seconds = total(&telemetry, "weft_certificate_expiry_seconds", "") * sign;
        assert!((80.0..120.0).contains(&seconds), "{seconds}");
    }
    assert!(!telemetry().encode(Format::Classic).contains("weft_certificate_expiry"));
}

#[test]
fn the_process_is_told() {
    let telemetry = telemetry();
    for (name, at_least) in [
        ("process_resident_memory_bytes", 100_000.0),
        ("process_virtual_memory_bytes", 100_000.0),
        ("process_open_fds", 3.0),
        ("process_max_fds", 3.0),
        ("process_start_time_seconds", 1.7e9),
        ("process_cpu_seconds_total", 0.0),
    ] {
        assert!(total(&telemetry, name, "") >= at_least, "{name}");
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after the epoch").as_secs_f64();
    assert!(total(&telemetry, "process_start_time_seconds", "") <= now + 2.0);
    assert!(telemetry.encode(Format::Classic).contains("# TYPE process_cpu_seconds_total counter\n"));
}

/// The whole text of a small proxy in both formats; `UPDATE=1` rewrites the files.
#[test]
fn the_text_is_as_recorded() {
    let telemetry = Telemetry::new(|| Gauges {
        control_connected: true,
        certificate_expires: None,
        endpoint_ages: vec![("cart.shop:8080".into(), Duration::from_millis(1500))],
        ..Gauges::default()
    });
    let worker = telemetry.worker();
    let edge = worker.edge(&labels("cart.shop:8080", "10.1.2.3:8080"));
    edge.connection_opened();
    edge.request_started();
    edge.request_finished(200, Duration::from_micros(1500));
    edge.request_started();
    edge.sent(40);
    edge.received(500);
    let odd = EdgeLabels {
        direction: Direction::Inbound,
        service: "".into(),
        workload: "".into(),
        identity: "a \"quoted\\\n\" name".into(),
        backend: "8080".into(),
        tls: "none",
    };
    worker.edge(&odd).connection_opened();
    worker.edge(&odd).connection_closed();
    worker.detected(Direction::Inbound, "redis", "server_first");
    worker.handshake(Direction::Outbound, "resumed", "X25519");
    worker.reason(Direction::Outbound, None, Reason::DestinationUnavailable);
    let snapshot = telemetry.snapshot(process::Usage::default());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/telemetry/testdata");
    for (format, name) in
        [(Format::OpenMetrics, "small.openmetrics.txt"), (Format::Classic, "small.classic.txt")]
    {
        let path = format!("{folder}/{name}");
        let text = text::encode(&snapshot, format).replace(env!("CARGO_PKG_VERSION"), "VERSION");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).expect("the recorded text can be written");
        }
        let recorded = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, recorded, "{path} differs; UPDATE=1 rewrites it");
    }
}

#[test]
fn a_scrape_beside_a_writer_sees_totals_that_only_grow_and_in_the_end_all() {
    const REQUESTS: u64 = 200_000;
    let telemetry = telemetry();
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let (worker, done) = (telemetry.worker(), Arc::clone(&done));
            thread::spawn(move || {
                let edge = worker.edge(&labels("a:1", "10.0.0.1:1"));
                for n in 0..REQUESTS {
                    edge.request_started();
                    edge.sent(3);
                    edge.request_finished(200, Duration::from_nanos(n));
                    if n % 64 == 0 {
                        worker.detected(Direction::Outbound, "http/1", "client_bytes");
                    }
                }
                done.store(true, Ordering::Release);
            })
        })
        .collect();
    let (mut before, mut scrapes) = (0.0, 0);
    while scrapes == 0 || !done.load(Ordering::Acquire) {
        let now = total(&telemetry, "weft_requests_total", "class=\"2xx\"");
        assert!(now >= before, "{now} after {before}");
        before = now;
        scrapes += 1;
    }
    for writer in writers {
        writer.join().expect("the writer has ended well");
    }
    let all = (2 * REQUESTS) as f64;
    assert_eq!(total(&telemetry, "weft_requests_total", ""), all);
    assert_eq!(total(&telemetry, "weft_requests_in_flight", ""), 0.0);
    assert_eq!(total(&telemetry, "weft_bytes_total", "sent"), 3.0 * all);
    assert_eq!(total(&telemetry, "weft_request_duration_seconds_count", ""), all);
    assert_eq!(total(&telemetry, "weft_detections_total", ""), 2.0 * (REQUESTS as f64 / 64.0).ceil());
}

#[test]
#[cfg(debug_assertions)]
fn a_second_writer_is_a_bug_that_shows() {
    let telemetry = telemetry();
    let edge = telemetry.worker().edge(&labels("a:1", "10.0.0.1:1"));
    edge.sent(1);
    assert!(thread::spawn(move || edge.sent(1)).join().is_err());
}

#[test]
fn handles_are_small_and_may_travel() {
    fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Telemetry>();
    send_and_sync::<Worker>();
    send_and_sync::<Arc<Edge>>();
    assert!(size_of::<Edge>() <= 128, "{}", size_of::<Edge>());
    assert!(size_of::<super::edge::Scope>() <= 720, "{}", size_of::<super::edge::Scope>());
}
