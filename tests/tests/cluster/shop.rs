//! The shopping portal of `examples/manifests`, as its manifests stand: everyone is meshed, each edge is mTLS by identity, nothing fails.

use std::{collections::BTreeSet, fs, time::Duration};
use tests::{
    cluster::{
        Cluster,
        namespace::{Namespace, READY, is_meshed, name},
    },
    holds,
};

/// Requests of the visitor after which all paths of the shop have been walked often.
const ENOUGH: u64 = 3_000;
const REQUESTS: &str = "weft_requests_total";
/// Who calls whom.
const EDGES: &[(&str, &str)] = &[
    ("cart", "auth"),
    ("cart", "product"),
    ("customer", "auth"),
    ("customer", "cart"),
    ("customer", "order"),
    ("customer", "product"),
    ("order", "auth"),
    ("order", "cart"),
    ("order", "product"),
    ("product", "review"),
    ("visitor", "customer"),
];

pub fn everything_is_meshed(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "shop");
    for file in fs::read_dir(cluster.root().join("examples/manifests")).expect("the shop's manifests") {
        namespace.apply(&fs::read_to_string(file.expect("a file").path()).expect("a manifest"));
    }
    cluster.rolled_out("shop", READY);
    // Who starts before those that he calls is told so. From the visitor's first purchase on, nobody is.
    namespace.eventually(READY, || holds(visitor(&namespace)?.requests > 0, "the visitor has not begun"));
    let pods = namespace.pods("app");
    assert!(pods.len() >= 8, "fewer pods than deployments");
    let refused = || pods.iter().map(|pod| refusals(&namespace, name(pod))).sum::<f64>();
    let before = refused();
    let visited = namespace.eventually(Duration::from_secs(120), || {
        let visited = visitor(&namespace)?;
        holds(visited.requests >= ENOUGH, format!("only {} requests", visited.requests)).map(|()| visited)
    });
    assert_eq!(
        visited.failed, 0,
        "of {} requests; the visitor said:\n{}",
        visited.requests, visited.complaints
    );
    assert_eq!(refused() - before, 0.0, "answers that are not 2xx, by the proxies' count");

    let mut edges = BTreeSet::new();
    for pod in &pods {
        assert!(is_meshed(pod), "{} has no proxy", name(pod));
        let app = pod["metadata"]["labels"]["app"].as_str().expect("selected by it");
        for edge in namespace.metrics(name(pod)).series_of(REQUESTS) {
            if edge.value == 0.0 || edge.labels["direction"] != "outbound" || edge.labels["class"] != "2xx" {
                continue;
            }
            let peer =
                edge.labels["identity"].strip_prefix("spiffe://cluster.local/ns/shop/sa/").map(str::to_owned);
            let peer = peer.unwrap_or_else(|| panic!("{}: not by mTLS with the shop: {edge:?}", name(pod)));
            assert_eq!(edge.labels["tls"], "1.3", "{}: {edge:?}", name(pod));
            edges.insert((app.to_owned(), peer));
        }
    }
    let expected: BTreeSet<_> =
        EDGES.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    assert_eq!(edges, expected);
    println!("shop: {} requests over {} edges, {} failed", visited.requests, edges.len(), visited.failed);
    drop(namespace);
    let gone = cluster.kubectl(&["wait", "--for=delete", "namespace/shop", "--timeout=120s"]);
    gone.unwrap_or_else(|error| panic!("{error}\n{}", cluster.story("shop")));
}

/// Requests of a pod that were answered by something else than 2xx.
fn refusals(namespace: &Namespace<'_>, pod: &str) -> f64 {
    let all = namespace.metrics(pod).series_of(REQUESTS);
    all.iter().filter(|edge| edge.labels["class"] != "2xx").map(|edge| edge.value).sum()
}

/// What the visitor has told since it began, by a line each second.
struct Visited {
    requests: u64,
    failed: u64,
    /// Its lines that tell of failures.
    complaints: String,
}

fn visitor(namespace: &Namespace<'_>) -> Result<Visited, String> {
    let log = namespace.try_kubectl(&["logs", "deployment/visitor", "-c", "visitor"])?;
    let mut visited = Visited { requests: 0, failed: 0, complaints: String::new() };
    for line in log.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let before = |word: &str| {
            let at = words.iter().position(|one| *one == word)?.checked_sub(1)?;
            words[at].parse::<u64>().ok()
        };
        let (Some(requests), Some(failed)) = (before("requests"), before("failed")) else { continue };
        visited.requests += requests;
        visited.failed += failed;
        if failed > 0 {
            visited.complaints += line;
            visited.complaints.push('\n');
        }
    }
    Ok(visited)
}
