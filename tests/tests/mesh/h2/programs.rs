//! HTTP/2 as programs of others speak it: h2spec, h2load, curl, nghttpd, a server of Go.

use super::{KNOWN, PORT, port};
use bytes::Bytes;
use std::{collections::HashSet, fs, net::SocketAddr, path::Path, process::Command, thread};
use tests::{
    PATIENCE, eventually,
    grid::{Grid, Route},
    h2::{Client, run},
    holds,
    namespace::done,
    pattern,
    pod::Pod,
    program::Program,
    tools::tool,
};

const H2SPEC_CASES: usize = 145;

/// How each of h2spec's cases ended: what failed, and how many there were.
fn h2spec(Route { name, client, address }: Route<'_>, folder: &Path) -> (HashSet<String>, usize) {
    let report = folder.join(format!("h2spec {name}.xml"));
    let (host, port) = match address {
        SocketAddr::V4(address) => (address.ip().to_string(), address.port()),
        SocketAddr::V6(address) => (format!("[{}]", address.ip()), address.port()),
    };
    let mut command = client.namespace.command(tool("h2spec"));
    command.args(["-h", &host, "-p", &port.to_string(), "-j"]).arg(&report);
    let output = command.output().unwrap();
    let report = fs::read_to_string(&report)
        .unwrap_or_else(|error| panic!("{name}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let quoted = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!(" {name}=\"")).expect("an attribute");
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let mut failed = HashSet::new();
    let cases: Vec<_> = report.split("<testcase").skip(1).collect();
    for case in &cases {
        if case.contains("<error") || case.contains("<failure") {
            // What came instead is not the name of a case.
            failed.insert(format!("{}: {}", quoted(case, "package"), quoted(case, "classname")));
            eprintln!("h2spec, {name}: {}", case.split("</testcase").next().unwrap_or_default());
        }
    }
    (failed, cases.len())
}

/// What fails over some way though it passes without a proxy.
fn h2spec_differences(grid: &Grid) -> Vec<String> {
    let of_v4 = |route: &Route<'_>| route.address.is_ipv4();
    let folder = grid.world.folder();
    let [direct, _] = grid.direct();
    let routes: Vec<_> = grid.routes().filter(of_v4).collect();
    thread::scope(|scope| {
        let direct = scope.spawn(move || h2spec(direct, folder));
        let ways: Vec<_> = routes
            .into_iter()
            .map(|route| (route.name, scope.spawn(move || h2spec(route, folder))))
            .collect();
        let (direct, cases) = direct.join().unwrap();
        assert_eq!(cases, H2SPEC_CASES);
        ways.into_iter()
            .flat_map(|(name, way)| {
                let (failed, cases) = way.join().unwrap();
                assert_eq!(cases, H2SPEC_CASES, "{name}");
                failed.difference(&direct).map(|case| format!("{name}: {case}")).collect::<Vec<_>>()
            })
            .collect()
    })
}

#[test]
fn h2spec_fails_nothing_that_passes_without_a_proxy() {
    for known in KNOWN {
        let grid = Grid::new(port(known));
        let _nghttpd = grid.servers().map(|pod| nghttpd(&grid, pod));
        let differences = h2spec_differences(&grid);
        assert!(differences.is_empty(), "nghttpd, declared {known:?}: {differences:#?}");
    }
    let grid = Grid::new(port(None));
    let _go = grid.servers().map(|pod| go_app(pod, &[]));
    let differences = h2spec_differences(&grid);
    assert!(differences.is_empty(), "Go: {differences:#?}");
}

/// nghttpd with a page.
fn nghttpd(grid: &Grid, pod: &Pod) -> Program {
    let folder = grid.world.folder().join(format!("nghttpd-{}", pod.manifest.name));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("index.html"), "hello\n").unwrap();
    let arguments = ["--no-tls", "-d", &folder.display().to_string(), &PORT.to_string()].map(str::to_owned);
    let program = pod.start("nghttpd", arguments);
    pod.wait_for_port(PORT);
    program
}

/// `tests/tools/h2app`.
fn go_app(pod: &Pod, flags: &[&str]) -> Program {
    let port = PORT.to_string();
    let program = pod.start(&tool("h2app"), [&["-port", &port], flags].concat());
    pod.wait_for_port(PORT);
    program
}

#[test]
fn h2load_with_100_streams_a_connection() {
    const REQUESTS: u32 = 4000;
    let grid = Grid::new(port(None));
    let _nghttpd = grid.servers().map(|pod| nghttpd(&grid, pod));
    for Route { name, client, address } in grid.routes() {
        let url = format!("http://{address}/");
        // By itself it writes IPv6 addresses without their brackets.
        let authority = ["-H", ":authority: web.test"];
        let report = client.done(
            "h2load",
            [&["-n", &REQUESTS.to_string(), "-c", "4", "-m", "100", &url], &authority[..]].concat(),
        );
        let expected = format!(
            "requests: {REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, \
             0 timeout\nstatus codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx\n"
        );
        assert!(report.contains(&expected), "{name}: {report}");
    }
    // Two ways lead out of the client to each server, and four ways into the meshed one.
    for (pod, direction) in [(&grid.meshed_client, "outbound"), (&grid.meshed_server, "inbound")] {
        eventually(PATIENCE, || {
            let metrics = pod.metrics();
            let count = metrics.sum("weft_requests_total", &[("direction", direction), ("class", "2xx")]);
            holds(count == f64::from(4 * REQUESTS), format!("{direction}: {count}\n{}", metrics.0))
        });
    }
}

#[test]
fn curl_with_a_server_of_go() {
    const BYTES: usize = 20_000_000;
    let grid = Grid::new(port(None));
    let _go = grid.servers().map(|pod| go_app(pod, &[]));
    let upload = grid.world.folder().join("upload");
    let mut bytes = Vec::new();
    pattern::write(&mut bytes, BYTES as u64).unwrap();
    fs::write(&upload, &bytes).unwrap();
    let bytes = Bytes::from(bytes);
    let sum = done(Command::new("sha256sum").arg(&upload));
    let sum = format!("{BYTES} {}\n", sum.split(' ').next().unwrap());
    let file = format!("@{}", upload.display());
    let size = format!("/zeros?{BYTES}");
    // Each path, further flags, and what curl has to print: the body, then version, status and length.
    let cases: [(&str, &[&str], String); 8] = [
        ("/?a=b", &[], format!("GET web.test /?a=b HTTP/2.0\n2 200 {}", 28)),
        ("/sum", &["--data-binary", &file], format!("{sum}2 200 {}", sum.len())),
        (&size, &["-o", "/dev/null"], format!("2 200 {BYTES}")),
        ("/hints", &[], "hinted\n2 200 7".into()),
        ("/trailers", &[], "summed\n2 200 7".into()),
        ("/status?204", &[], "2 204 0".into()),
        ("/status?304", &[], "2 304 0".into()),
        ("/", &["-I", "-o", "/dev/null"], "2 200 0".into()),
    ];
    for Route { name, client, address } in grid.routes() {
        for (path, flags, expected) in &cases {
            let url = format!("http://{address}{path}");
            let heads = grid.world.folder().join("heads");
            let mut command = client.namespace.command("curl");
            command.args(["-sS", "--max-time", "20", "--http2-prior-knowledge", "-H", "Host: web.test"]);
            command.args(["-w", "%{http_version} %{http_code} %{size_download}", "-D"]).arg(&heads);
            let printed = done(command.args(*flags).arg(&url));
            assert_eq!(&printed, expected, "{name}: {path}");
            let heads = fs::read_to_string(&heads).unwrap();
            let links = heads.matches("HTTP/2 103").count() + heads.matches("link: ").count();
            assert_eq!(links, if *path == "/hints" { 4 } else { 0 }, "{name}: {path}: {heads}");
        }
        // curl shows no trailers.
        let printed = client.done("nghttp", ["-nv", &format!("http://{address}/trailers")]);
        assert!(printed.contains("x-sum: 42"), "{name}: {printed}");
        // It also takes a reset without an error for one.
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            let answer = client.post("/early", bytes.clone()).await.unwrap();
            assert_eq!((answer.status(), answer.text()), (413, "too large\n"), "{name}");
        });
    }
}
