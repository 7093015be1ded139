//! The official suite, judged by each of its tests: its report leaves out those that no profile has, and a test that was
//! skipped is none that passed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    path::Path,
};
use tests::cluster::Cluster;

/// Each test of the suite that is about a mesh.
const TESTS: &[&str] = &[
    "MeshBasic",
    "MeshConsumerRoute",
    "MeshFrontend",
    "MeshFrontendHostname",
    "MeshGRPCRouteWeight",
    "MeshHTTPRoute303Redirect",
    "MeshHTTPRoute307Redirect",
    "MeshHTTPRoute308Redirect",
    "MeshHTTPRouteBackendRequestHeaderModifier",
    "MeshHTTPRouteMatching",
    "MeshHTTPRouteNamedRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectHostAndStatus",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRequestHeaderModifier",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "MeshHTTPRouteSimpleSameNamespace",
    "MeshHTTPRouteWeight",
    "MeshPorts",
    "MeshTrafficSplit",
];

/// The suite's parallel tests wait more than they compute: without a number, there would be as many as there are CPUs.
const PARALLEL: &str = "16";
const LIMIT: &str = "30m";
/// Of a test that failed, so many of its last lines are shown.
const LAST_LINES: usize = 12;

/// Runs it, keeps what it printed and its report in `target/conformance`, and prints how each test ended.
pub fn every_mesh_test_passes(cluster: &Cluster) {
    let folder = cluster.target().join("conformance");
    let (output, report) = (folder.join("output.txt"), folder.join("report.yaml"));
    let _ = fs::remove_file(&report);
    let status = suite(cluster, &folder, &output, &report);
    let text = fs::read_to_string(&output).expect("what the suite printed");
    let results = results(&text);
    print!("{}", table(&results));
    println!("printed: {}\nreport:  {}", output.display(), report.display());

    let mut wrong = String::new();
    for name in TESTS {
        match results.get(name) {
            Some(&"PASS") => {}
            Some(result) => {
                writeln!(wrong, "{name}: {result}\n{}", last_lines(&text, name)).expect("a String")
            }
            None => writeln!(wrong, "{name} did not run").expect("a String"),
        }
    }
    for name in results.keys().filter(|name| !TESTS.contains(name)) {
        writeln!(wrong, "{name} is new in the suite: add it to TESTS").expect("a String");
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(status, "each mesh test passed, but the suite failed: {}", output.display());
    assert!(report.exists(), "the suite wrote no report");
}

fn suite(cluster: &Cluster, folder: &Path, output: &Path, report: &Path) -> bool {
    let version = env!("CARGO_PKG_VERSION");
    let file = File::create(output).expect("a file for what the suite prints");
    let mut command = cluster.command(folder.join("suite"));
    command
        .args(["-test.v", "-test.run=^TestConformance$", "-test.parallel", PARALLEL, "-test.timeout", LIMIT])
        .args(["-organization=weft", "-project=weft", "-url=https://weft.mesh", "-contact=@weft-mesh"])
        .arg(format!("-version={version}"))
        .arg(format!("-report-output={}", report.display()))
        .stderr(file.try_clone().expect("a descriptor"))
        .stdout(file);
    command.status().expect("the suite runs").success()
}

/// How each mesh test ended: PASS, FAIL or SKIP. Its own subtests stand deeper.
fn results(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("    --- "));
    let ended = lines.filter_map(|line| {
        let (result, rest) = line.split_once(": TestConformance/")?;
        Some((rest.split_whitespace().next()?, result))
    });
    ended.filter(|(name, _)| name.starts_with("Mesh")).collect()
}

fn table(results: &BTreeMap<&str, &str>) -> String {
    let mut table = String::new();
    for (name, result) in results {
        writeln!(table, "  {result:<4}  {name}").expect("a String");
    }
    let passed = results.values().filter(|result| **result == "PASS").count();
    table + &format!("{passed} of {} mesh tests passed\n", TESTS.len())
}

/// The end of what a test printed: the suite runs one after the other.
fn last_lines(text: &str, name: &str) -> String {
    let begins = format!("=== RUN   TestConformance/{name}\n");
    let Some(at) = text.find(&begins) else { return String::new() };
    let rest = &text[at + begins.len()..];
    let next = rest.match_indices("=== RUN   TestConformance/").find(|(at, begin)| {
        let line = rest[at + begin.len()..].lines().next().unwrap_or_default();
        !line.contains('/')
    });
    let lines: Vec<_> = rest[..next.map_or(rest.len(), |(at, _)| at)].lines().collect();
    let shown = &lines[lines.len().saturating_sub(LAST_LINES)..];
    shown.iter().map(|line| format!("    {line}\n")).collect()
}
