//! gRPC: the standard interoperability cases by grpc-go's own programs, through every kind of way, and gRPC-Web.

use crate::HTTP2_IS_SEEN;
use std::process::{Child, Stdio};
use tests::{
    PATIENCE, eventually,
    grid::{Grid, Route},
    holds,
    manifest::Port,
    program::Program,
    tools::tool,
};

const PORT: u16 = 10_000;

/// The cases of grpc's `interop-test-descriptions.md` that need no credentials.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// How long a case may take, in seconds, for timeout(1); they take some tens of milliseconds.
const CASE_SECONDS: &str = "20";
/// Clients that run at once.
const CLIENTS: usize = 4;

fn servers(grid: &Grid) -> [Program; 2] {
    grid.servers().map(|pod| {
        let port = PORT.to_string();
        let program = pod.start(&tool("grpc-interop-server"), ["--port", &port, "--use_tls=false"]);
        pod.wait_for_port(PORT);
        program
    })
}

/// A running client of one case.
fn client(route: Route<'_>, case: &str) -> Child {
    let mut command = route.client.namespace.command("timeout");
    command.args([CASE_SECONDS, &tool("grpc-interop-client"), "--use_tls=false"]);
    command.args(["--server_host", &route.address.ip().to_string()]);
    command.args(["--server_port", &route.address.port().to_string()]);
    command.args(["--test_case", case]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Every case over this way; what failed.
fn failures(route: Route<'_>) -> Vec<String> {
    let mut failures = Vec::new();
    for cases in CASES.chunks(CLIENTS) {
        let running: Vec<_> = cases.iter().map(|case| (case, client(route, case))).collect();
        for (case, child) in running {
            let output = child.wait_with_output().unwrap();
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                failures.push(format!("{}: {case}: {}: {said}", route.name, output.status));
            }
        }
    }
    failures
}

#[test]
fn grpc_interoperates() {
    for port in [Port::auto(PORT), Port::declared(PORT, "kubernetes.io/h2c")] {
        let declared = port.app_protocol;
        let grid = Grid::new(port);
        let _servers = servers(&grid);
        let direct: Vec<_> = grid.direct().into_iter().flat_map(failures).collect();
        assert!(direct.is_empty(), "without any proxy: {direct:#?}");
        let failed: Vec<_> = grid.routes().flat_map(failures).collect();
        assert!(failed.is_empty(), "declared as {declared:?}: {failed:#?}");
        if HTTP2_IS_SEEN {
            calls_were_counted(&grid);
        }
    }
}

/// Both proxies have seen calls, and how each ended.
fn calls_were_counted(grid: &Grid) {
    for (pod, direction) in [(&grid.meshed_client, "outbound"), (&grid.meshed_server, "inbound")] {
        eventually(PATIENCE, || {
            let metrics = pod.metrics();
            let count = |status: &str| {
                metrics.sum("weft_requests_total", &[("direction", direction), ("grpc_status", status)])
            };
            // OK; UNKNOWN of the status cases; UNIMPLEMENTED of their two.
            let counts = ["0", "2", "12"].map(count);
            holds(counts.iter().all(|count| *count >= 4.0), format!("{direction}: {counts:?}\n{}", metrics.0))
        });
    }
}
