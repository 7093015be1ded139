//! What a rule does to traffic: clients of HTTP/1 and HTTP/2, two proxies and programs in one process, on virtual time.
//!
//! `data/<case>.in.yaml` are rules, and requests as HTTP/1.1 writes them. Each request is made in both versions, of a backend with a
//! proxy and of one without. `data/<case>.out.yaml` is what the backends saw and what the client got; what was the same in several
//! of the four ways is written once. `UPDATE=1` writes it anew; read the difference before committing it. `written` is the form of
//! the rules, `world` where it happens, `client` and `program` the two ends. What is no table of requests stands in `bodies`, `names` and `shares`.

#![allow(clippy::disallowed_methods, reason = "UPDATE is read from the environment, and only by the test")]

#[path = "../simulation/authority.rs"]
mod authority;
mod bodies;
mod client;
mod names;
#[path = "../simulation/panics.rs"]
mod panics;
mod program;
mod shares;
mod world;
mod written;

use client::Client;
use std::{fmt::Write, fs, path::Path};
use world::{Way, World, run};
use written::Case;

#[test]
fn every_request_becomes_what_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules/data");
    let files = fs::read_dir(&folder).expect("the cases").map(|entry| entry.expect("a case").path());
    let mut cases: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    cases.sort();
    assert!(cases.len() >= 8, "cases are missing from {}", folder.display());
    let only = std::env::var("CASE").unwrap_or_default();
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| case.to_string_lossy().contains(&only)) {
        let text = fs::read_to_string(case).expect("a case");
        let read: Case =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let answers = answers(&read);
        let expected = case.to_string_lossy().replace(".in.yaml", ".out.yaml");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &answers).expect("the answers");
        }
        if answers != fs::read_to_string(&expected).unwrap_or_default() {
            wrong.push(format!("{} is not what happens:\n{answers}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What becomes of the requests of a case, in each way, as YAML.
fn answers(case: &Case) -> String {
    let lived: Vec<_> = Way::ALL.iter().map(|way| (way, live(case, *way))).collect();
    let mut text = String::new();
    for (at, ask) in case.ask.iter().enumerate() {
        let _ = writeln!(text, "# {}", ask.request().lines().next().unwrap_or_default());
        let mut told: Vec<(Vec<&str>, &str)> = Vec::new();
        for (way, became) in &lived {
            let Some(became) = &became[at] else { continue };
            match told.iter_mut().find(|(_, other)| other == became) {
                Some((ways, _)) => ways.push(way.name()),
                None => told.push((vec![way.name()], became)),
            }
        }
        for (number, (ways, became)) in told.iter().enumerate() {
            let dash = if number == 0 { "-" } else { " " };
            let _ = writeln!(text, "{dash} {}: |", ways.join(", "));
            for line in became.lines() {
                let _ = writeln!(text, "{}", format!("    {line}").trim_end());
            }
        }
    }
    text
}

/// The requests of a case, one after the other, over one connection as long as that lasts.
fn live(case: &Case, way: Way) -> Vec<Option<String>> {
    run(|| async move {
        let world = World::new(way.meshed);
        world.declare(case.policy());
        let mut client = Client::new(&world, way.http2);
        let mut became = Vec::new();
        for ask in &case.ask {
            became.push(match ask.is_for(way) {
                false => None,
                true => {
                    world.reply(ask.reply());
                    let got = client.ask(ask.request()).await;
                    let saw = world.saw().await;
                    Some(client.mask(&format!("{saw}--> {got}")))
                }
            });
        }
        became
    })
}
