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
    let visited = namespace.eventually(Duration::from_secs(120), || {
        let visited = visitor(&namespace)?;
        holds(visited.0 >= ENOUGH, format!("only {} requests", visited.0)).map(|()| visited)
    });
    assert_eq!(visited.1, 0, "failed requests of {}; the visitor said:\n{}", visited.0, visited.2);

    let mut edges = BTreeSet::new();
    let pods = namespace.pods("app");
    assert!(pods.len() >= 8, "fewer pods than deployments");
    for pod in &pods {
        assert!(is_meshed(pod), "{} has no proxy", name(pod));
        let app = pod["metadata"]["labels"]["app"].as_str().expect("selected by it");
        for edge in namespace.metrics(name(pod)).series_of("weft_requests_total") {
            let label = |key: &str| edge.labels.get(key).cloned().unwrap_or_default();
            if edge.value == 0.0 || label("direction") != "outbound" {
                continue;
            }
            let peer =
                label("identity").strip_prefix("spiffe://cluster.local/ns/shop/sa/").map(str::to_owned);
            let peer = peer.unwrap_or_else(|| panic!("{}: not by mTLS with the shop: {edge:?}", name(pod)));
            assert_eq!(label("tls"), "1.3", "{}: {edge:?}", name(pod));
            edges.insert((app.to_owned(), peer));
        }
    }
    let expected: BTreeSet<_> =
        EDGES.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    assert_eq!(edges, expected);
    println!("shop: {} requests over {} edges, {} failed", visited.0, edges.len(), visited.1);
    drop(namespace);
    let gone = cluster.kubectl(&["wait", "--for=delete", "namespace/shop", "--timeout=120s"]);
    gone.unwrap_or_else(|error| panic!("{error}\n{}", cluster.story("shop")));
}

/// The visitor's requests, failures and words since it began, from the line that it writes each second.
fn visitor(namespace: &Namespace<'_>) -> Result<(u64, u64, String), String> {
    let log = namespace.try_kubectl(&["logs", "deployment/visitor", "-c", "visitor"])?;
    let (mut requests, mut failed) = (0, 0);
    for line in log.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let before = |word: &str| words.iter().position(|one| *one == word)?.checked_sub(1)?.into();
        let number = |at: Option<usize>| at.and_then(|at| words[at].parse::<u64>().ok()).unwrap_or_default();
        requests += number(before("requests"));
        failed += number(before("failed"));
    }
    Ok((
        requests,
        failed,
        log.lines().filter(|line| !line.contains("   0 failed")).collect::<Vec<_>>().join("\n"),
    ))
}
