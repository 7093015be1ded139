//! Two proxies in one process, on virtual time and a transport that splits, stalls and kills: every message and every
//! connection of bytes arrives exactly, or its receiver is shown that it does not.
//!
//! ```text
//! client ── outbound ═══ weft/1 ═══ inbound ── application      each ── is a `memory` connection with a schedule
//!              └───────────────────────────── application      that is drawn, like the whole world, from a seed
//! client ───────────────────────── inbound ── application
//! ```
//!
//! `plan` and `calls` draw what is said, `schedule` what happens to it, `client` and `application` say it and judge what they
//! hear, `caller` and `serving` do so in HTTP/2, `stage` puts them together and looks what is left at the end, `world` what
//! has happened. A seed always makes the same world. One that fails is named, and runs alone by `SEED=<number>`
//! (`RUST_LOG=trace` tells all); `SEEDS=<count>` runs more of them.

mod application;
mod authority;
mod caller;
mod calls;
mod client;
mod crossing;
mod frames;
mod panics;
mod plan;
mod schedule;
mod serving;
mod stage;
mod wire;
mod world;

use plan::Plan;
use tracing_subscriber::EnvFilter;
use world::{live, live_as};

/// Of each kind.
const SEEDS: u64 = 1_000;

/// Splits and stalls alone change nothing: everything arrives, once.
#[test]
fn whatever_is_split_and_stalled_arrives_exactly() {
    run(true);
}

/// With kills, failing applications, drains: exactly, or visibly not.
#[test]
fn whatever_is_killed_does_not_look_whole() {
    run(false);
}

/// Windows that shrink under a call that has used its own hold nothing up.
#[test]
fn a_crowd_stalls_nobody() {
    for seed in 0..3 {
        let wrongs = live_as(seed, true, Plan::crowded).wrongs;
        assert!(wrongs.is_empty(), "SEED={seed}: {}", wrongs[0]);
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 1_000_003] {
        assert_eq!(live(seed, false).trace, live(seed, false).trace, "seed {seed}");
    }
}

/// The task of a connection, which it keeps all its life; each phase has a box of its own beside it. Growth is to be meant:
/// there may be `limits::CONNECTIONS` of them.
#[test]
fn the_task_of_a_connection_stays_small() {
    let (outbound, inbound) = stage::sizes();
    assert!(outbound <= 1240 && inbound <= 1296, "{outbound} and {inbound} bytes");
}

fn run(mild: bool) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("SEED") {
        Some(seed) => {
            // Both tests may say so.
            let _ = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).try_init();
            seed..seed + 1
        }
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let mut failed = Vec::new();
    for seed in seeds {
        let outcome = live(seed, mild);
        if !outcome.wrongs.is_empty() {
            eprintln!("SEED={seed}: {}", outcome.wrongs.join("\n  "));
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "{} seeds fail, run one alone by SEED=<number>: {failed:?}", failed.len());
}
