//! Agreement with real programs: what `weft explain` says of a folder of manifests is what a proxy answers at `/why`, that has learned
//! of the same folder from control. The objects are random, the seed of a difference stands in its message.

use crate::random::Random;
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::SocketAddr, process::Command};
use tests::{
    PATIENCE, eventually, holds,
    manifest::NAMESPACE,
    world::{World, binary},
};

/// Sets of objects, and requests for each.
const WORLDS: u64 = 25;
const QUESTIONS: usize = 12;

#[test]
fn weft_explain_says_what_a_proxy_does() {
    let world = World::new();
    let client = world.meshed("client");
    for seed in 0..WORLDS {
        let mut random = Random::new(seed);
        let documents: Vec<_> = random.objects().iter().map(ToString::to_string).collect();
        // A file of its own: what is malformed in one keeps what it said before.
        world.manifests.write(&format!("random-{seed}.yaml"), &documents.join("\n---\n"));
        if seed > 0 {
            world.manifests.remove(&format!("random-{}.yaml", seed - 1));
        }
        let mut dialled = BTreeSet::new();
        for _ in 0..QUESTIONS {
            let (to, _) = random.ends();
            let query = random.query(to);
            // Of what nobody dials, a proxy learns nothing.
            if dialled.insert(to) {
                drop(client.connect(to));
            }
            let told = told(world.manifests.folder(), to, &query);
            eventually(PATIENCE, || {
                let (status, answer) = client.page("GET", &format!("/why?{query}")).expect("the admin port");
                let decided = (status == 200).then(|| common(serde_json::from_str(&answer).expect("JSON")));
                let difference = format!("seed {seed}, {query}:\n{told:#}\n{status} {answer}");
                holds(decided.as_ref() == Some(&told), difference)
            });
        }
    }
}

/// What `weft explain` says.
fn told(folder: &std::path::Path, to: SocketAddr, query: &str) -> Value {
    let mut arguments = vec!["--from".to_owned(), NAMESPACE.to_owned(), "--to".to_owned(), to.to_string()];
    let mut about = "request";
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        match name {
            "method" | "path" | "header" | "grpc" => arguments.extend([format!("--{name}"), value]),
            "sni" => {
                about = "connection";
                arguments.push(format!("--sni={value}"));
            }
            "bytes" => about = "connection",
            _ => {}
        }
    }
    let output = Command::new(binary("weft"))
        .args(["explain", about, "-o", "json", "-f"])
        .arg(folder)
        .args(&arguments)
        .output()
        .expect("weft runs");
    let said = String::from_utf8_lossy(&output.stdout);
    common(serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}")))
}

/// What both know: the proxy learns of endpoints when it needs them, and of nobody's problems.
fn common(mut verdict: Value) -> Value {
    for field in ["from", "server", "problems"] {
        verdict.as_object_mut().expect("a verdict").remove(field);
    }
    for backend in verdict["backends"].as_array_mut().expect("backends") {
        backend.as_object_mut().expect("a backend").remove("endpoints");
    }
    let outcome = &verdict["outcome"];
    if outcome["action"] == "forward" || outcome["reason"]["word"] == "destination_unavailable" {
        verdict["outcome"] = json!("forward");
    }
    verdict
}
