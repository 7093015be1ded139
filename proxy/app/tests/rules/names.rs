//! Connections of bytes: those of TLS by the name that their clients ask for (TLSRoute), others by weight (TCPRoute).

use crate::world::{DIALLED, World, at, run, service};
use policy::{
    BackendRef, BackendSettings, Outbound, Protocol, RouteRef, Routes, Rule, RuleRef, Settings, Target,
    TlsRule, WeightedBackend,
};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::{collections::HashMap, rc::Rc, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn rule(index: u32, backends: &[(&str, u32)]) -> Rule {
    let route = RouteRef { created: 0, namespace: "shop".into(), name: "a".into(), kind: "TLSRoute".into() };
    let backend = |(to, weight): &(&str, u32)| WeightedBackend {
        backend: match *to {
            "gone" => BackendRef::Unresolved("Service shop/gone is not there".into()),
            to => BackendRef::Service(service(to)),
        },
        weight: *weight,
        filters: Vec::new(),
        settings: BackendSettings::default(),
    };
    Rule {
        source: RuleRef { route, index, name: None },
        filters: Vec::new(),
        backends: backends.iter().map(backend).collect(),
        settings: Settings::default(),
    }
}

fn declare(world: &World, routes: Routes, protocol: Protocol) {
    let policy = Outbound { routes, ..Outbound::new(Target::Service(service("v1")), protocol) };
    world.script.outbound(at(DIALLED), policy);
}

/// What a TLS client says first.
fn hello(name: Option<&str>) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.enable_sni = name.is_some();
    let name = name.unwrap_or("unsaid.example").to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a ClientHello");
    bytes
}

/// Which pod answers a client that says this first; none: it is reset.
async fn answers(world: &Rc<World>, says: &[u8]) -> Option<String> {
    let mut stream = world.dial();
    stream.write_all(says).await.ok()?;
    stream.shutdown().await.ok()?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.ok()?;
    Some(heard)
}

#[test]
fn the_name_that_a_tls_client_asks_for_decides() {
    let tls = |hostnames: &[&str], rule| TlsRule {
        hostnames: hostnames.iter().map(|name| (*name).into()).collect(),
        rule,
    };
    for (meshed, protocol) in [
        (true, Protocol::Auto),
        (false, Protocol::Auto),
        (true, Protocol::Tls),
        (false, Protocol::Tls),
        (false, Protocol::Opaque),
    ] {
        let rules = vec![
            tls(&["*.example"], rule(0, &[("v2", 1)])),
            tls(&["a.example", "b.test"], rule(1, &[("v1", 1)])),
            tls(&["gone.test"], rule(2, &[("gone", 1)])),
            tls(&["zero.test"], rule(3, &[("v1", 0)])),
            tls(&["none.test"], rule(4, &[("none", 1)])),
        ];
        run(|| async move {
            let world = World::new(meshed);
            declare(&world, Routes::Tls(rules), protocol);
            for (name, expected) in [
                (Some("a.example"), Some("v1-1")),
                (Some("A.Example"), Some("v1-1")),
                (Some("x.a.example"), Some("v2-1")),
                (Some("b.test"), Some("v1-1")),
                (Some("c.test"), None),
                (Some("gone.test"), None),
                (Some("zero.test"), None),
                (Some("none.test"), None),
                (None, None),
            ] {
                let pod = answers(&world, &hello(name)).await;
                assert_eq!(pod.as_deref(), expected, "{name:?} {meshed} {protocol}");
            }
            // What is no TLS is none of the rules' business.
            assert_eq!(answers(&world, b"SSH-2.0-x\r\n").await.as_deref(), Some("v1-1"), "{protocol}");
        });
    }
}

#[test]
fn connections_of_bytes_go_by_weight() {
    for (protocol, says) in [
        (Protocol::Auto, b"SSH-2.0-x\r\n".to_vec()),
        (Protocol::Opaque, b"SSH-2.0-x\r\n".to_vec()),
        (Protocol::Auto, hello(Some("a.example"))),
    ] {
        let rule = rule(0, &[("v1", 60), ("v2", 30), ("gone", 10)]);
        run(|| async move {
            let world = World::new(false);
            declare(&world, Routes::Tcp(Box::new(rule)), protocol);
            let mut counts: HashMap<Option<String>, i32> = HashMap::new();
            for _ in 0..1_000 {
                *counts.entry(answers(&world, &says).await).or_default() += 1;
            }
            for (pod, expected) in [(Some("v1-1"), 600), (Some("v2-1"), 300), (None, 100)] {
                let counted = counts[&pod.map(str::to_owned)];
                assert!((counted - expected).abs() <= 50, "{counts:?}");
            }
        });
    }
}
