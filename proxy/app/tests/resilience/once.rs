//! A POST whose server reads it and resets is executed once, under every policy that does not say otherwise. On real sockets, since what
//! a kernel tells of a broken connection is what this is about.

use crate::world::{Does, World, ms, set};
use policy::{
    BackendSettings, Reason, Settings,
    settings::{FailureAccrual, Hedge, Retry, Timeouts},
};
use proxy_transport::{
    Network, SystemNetwork,
    memory::{MemoryNetwork, Step},
};
use std::rc::Rc;
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
};

/// Every policy, and whether it says that a POST may be executed again.
fn policies() -> Vec<(&'static str, Settings, BackendSettings, bool)> {
    let retry = |retry| Settings { retry, ..Settings::default() };
    let asks = Retry { attempts: set(3), ..Retry::default() };
    let all_codes = Retry {
        http_codes: set((400..600).collect::<Vec<u16>>()),
        grpc_codes: set((1..17).collect::<Vec<u16>>()),
        ..asks.clone()
    };
    let reasons = |reasons: &[Reason]| Retry { reasons: set(reasons.to_vec()), ..asks.clone() };
    let others: Vec<Reason> =
        Reason::ALL.iter().copied().filter(|reason| *reason != Reason::ConnectionTerminated).collect();
    let accrual = BackendSettings { accrual: set(FailureAccrual::default()), ..BackendSettings::default() };
    let none = BackendSettings::default;
    vec![
        ("none", Settings::default(), none(), false),
        ("attempts", retry(asks.clone()), none(), false),
        ("every status", retry(all_codes.clone()), none(), false),
        ("every other reason", retry(reasons(&others)), none(), false),
        (
            "a time for each attempt",
            retry(Retry { per_try_timeout: set(ms(5_000)), ..asks.clone() }),
            none(),
            false,
        ),
        ("the same host", retry(Retry { other_host: set(false), ..all_codes.clone() }), none(), false),
        (
            "a hedge",
            Settings { hedge: set(Hedge { delay: ms(1), max: 2 }), ..retry(all_codes) },
            none(),
            false,
        ),
        (
            "times",
            Settings {
                timeouts: Timeouts {
                    request: set(ms(5_000)),
                    backend_request: set(ms(5_000)),
                    ..Timeouts::default()
                },
                ..retry(asks.clone())
            },
            none(),
            false,
        ),
        ("a breaker", retry(asks.clone()), accrual, false),
        ("this reason", retry(reasons(&[Reason::ConnectionTerminated])), none(), true),
        ("every reason", retry(reasons(Reason::ALL)), none(), true),
    ]
}

#[test]
fn a_post_whose_server_resets_is_executed_once_unless_a_policy_says_otherwise() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.expect("a runtime").block_on(async {
        for (name, settings, backend, again) in policies() {
            // First on a new connection, then on one that has served before.
            for reused in [false, true] {
                let memory = MemoryNetwork::new(Rc::new(|| Step::Pass(usize::MAX)));
                let world = Rc::new(World::new(Network::System(SystemNetwork { mark: None }), memory));
                world.declare(settings.clone(), backend.clone());
                let mut addresses = Vec::new();
                for endpoint in 0..2 {
                    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                    addresses.push(listener.local_addr().expect("an address"));
                    let world = world.clone();
                    tokio::task::spawn_local(async move {
                        while let Ok((stream, _)) = listener.accept().await {
                            let world = world.clone();
                            tokio::task::spawn_local(async move {
                                let does = |_: &World, seen: &crate::world::Seen| {
                                    if seen.head.starts_with("POST") {
                                        Does::Reset
                                    } else {
                                        Does::Status(200)
                                    }
                                };
                                world.serve(endpoint, stream.into(), &does).await;
                            });
                        }
                    });
                }
                world.endpoints(&addresses);
                if reused {
                    // One connection to each.
                    let (one, other) = tokio::join!(world.get(), world.get());
                    assert_eq!((one.status, other.status), (200, 200), "{name}");
                }
                let heard = world.post("pay").await;
                assert_eq!(heard.status, 502, "{name}: {heard:?}");
                let posts = world.seen().iter().filter(|seen| seen.head.starts_with("POST")).count();
                assert_eq!(posts, if again { 4 } else { 1 }, "{name}, reused: {reused}");
            }
        }
    });
}
