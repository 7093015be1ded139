//! Which hop an attempt gets, and how long it may take.

use super::*;
use crate::{
    discovery::{Discovery, Script},
    telemetry::{Gauges, Telemetry},
    worker::Parts,
};
use policy::{WorkloadName, outbound::Target};
use proxy_http::streams::Dialer;
use proxy_transport::{
    Network,
    memory::{MemoryNetwork, Step},
};
use tokio::time::sleep;

const DIALLED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)), 80);

pub(crate) fn worker(connections: usize) -> (Rc<Worker>, Script) {
    let (discovery, script) = Discovery::scripted();
    let network = Network::Memory(MemoryNetwork::new(Rc::new(|| Step::Pass(usize::MAX))));
    let worker = Worker::new(Parts {
        workload: WorkloadName::new("shop", "client"),
        discovery,
        dialer: Dialer {
            network,
            credentials: Arc::default(),
            header_bytes: policy::limits::HEADER_LIST_BYTES,
        },
        telemetry: Telemetry::new(Gauges::default).worker(),
        connections,
        own_ports: Vec::new(),
        seed: 1,
    });
    (worker, script)
}

fn service() -> ServicePort {
    policy::ServiceName::new("shop", "web").port(80)
}

/// Endpoints of a Service, of which these are meshed.
fn endpoints(meshed: &[bool]) -> Vec<Endpoint> {
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let endpoint = |(at, meshed): (usize, &bool)| Endpoint {
        address: SocketAddr::from(([10, 0, 0, at as u8 + 1], 8080)),
        identity: meshed.then(|| identity.clone()),
        workload: None,
        tls: None,
    };
    meshed.iter().enumerate().map(endpoint).collect()
}

/// The addresses of all attempts, when each fails, and which had the long wait.
async fn attempts(worker: &Rc<Worker>, hops: &Hops) -> Vec<(SocketAddr, bool)> {
    let (mut tried, mut seen) = (Vec::new(), Vec::new());
    loop {
        let chosen = hops.choose(worker, &tried, None).await.unwrap();
        let connect = Duration::from_secs(1);
        seen.push((chosen.hop.endpoint.address, chosen.wait(connect) > connect));
        tried.push(chosen.hop);
        if tried.len() == ATTEMPTS || !hops.others(tried.iter()) {
            return seen;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_ends_with_the_address_that_was_dialled_only_if_nothing_else_is_known() {
    let (fresh, stale) = (Duration::from_secs(70), Duration::from_secs(80));
    // Which endpoints are meshed, the age of that knowledge, how many attempts are made, and if the last is as dialled.
    let table: &[(&[bool], Duration, usize, bool)] = &[
        (&[false], fresh, 1, false),
        (&[false], stale, 2, true),
        (&[false, false], fresh, 2, false),
        (&[false, false], stale, 3, true),
        (&[false, false, false, false], fresh, 3, false),
        (&[false, false, false, false], stale, 3, true),
        // Never in plaintext to where a proxy was.
        (&[true], stale, 1, false),
        (&[true, true, true, true], stale, 3, false),
        (&[false, true], stale, 2, false),
    ];
    for (meshed, age, count, falls_back) in table {
        let (worker, script) = worker(1);
        script.outbound(DIALLED, Outbound { target: Target::Service(service()), ..Outbound::external() });
        script.endpoints(&service(), endpoints(meshed));
        let destination = worker.destination(DIALLED).await;
        let hops = destination.resolve(&worker).target();
        sleep(*age).await;
        let seen = attempts(&worker, &hops).await;
        let what = format!("{meshed:?} after {age:?}: {seen:?}");
        assert_eq!(seen.len(), *count, "{what}");
        assert_eq!(
            seen.iter().filter(|(address, _)| *address == DIALLED).count(),
            usize::from(*falls_back),
            "{what}"
        );
        assert_eq!(seen.last().unwrap().0 == DIALLED, *falls_back, "{what}");
        // No endpoint is tried twice, and the last attempt is the one that waits.
        let waits: Vec<_> = seen.iter().map(|(_, waits)| *waits).collect();
        let distinct: std::collections::HashSet<_> = seen.iter().map(|(address, _)| address).collect();
        assert_eq!(distinct.len(), seen.len(), "{what}");
        assert!(waits.last().unwrap(), "{what}");
        assert!(*falls_back || waits[..waits.len() - 1].iter().all(|waits| !waits), "{what}");
    }
}

#[tokio::test]
async fn connections_over_the_limit_are_refused_until_others_end() {
    let (worker, _script) = worker(2);
    let first = worker.count(Direction::Outbound);
    let second = worker.count(Direction::Inbound);
    assert!(first.is_some() && second.is_some());
    assert!(worker.count(Direction::Outbound).is_none());
    drop(first);
    assert!(worker.count(Direction::Inbound).is_some());
}
