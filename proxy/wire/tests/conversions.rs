//! What is written is read as it was; what means nothing is refused by the field's name; nothing panics.

use policy::{
    BackendTls, Endpoint, Inbound, Origin, Outbound, Protocol, ServiceName, ServicePort, SpiffeId, Target,
    TrustDomain, WorkloadName,
    backend_tls::{Authorities, SubjectAltName},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message;
use proxy_wire::{Malformed, checksum, v1};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

// ---- values ----

fn addresses() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_canonical()),
    ];
    (ip, 1..=u16::MAX).prop_map(SocketAddr::from)
}

fn labels() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
}

fn service_ports() -> impl Strategy<Value = ServicePort> {
    (labels(), labels(), 1..=u16::MAX)
        .prop_map(|(namespace, name, port)| ServiceName::new(&namespace, &name).port(port))
}

fn endpoints() -> impl Strategy<Value = Endpoint> {
    let identity = (labels(), labels()).prop_map(|(namespace, account)| {
        let domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
        SpiffeId::new(&domain, &namespace, &account).expect("labels make an identity")
    });
    let workload = (labels(), "[a-z0-9]{1,9}(\\.[a-z0-9]{1,9})?")
        .prop_map(|(namespace, name)| WorkloadName::new(&namespace, &name));
    (addresses(), option::of(identity), option::of(workload))
        .prop_map(|(address, identity, workload)| Endpoint { address, identity, workload, tls: None })
}

fn backend_tls() -> impl Strategy<Value = Arc<BackendTls>> {
    let name = prop_oneof![
        labels().prop_map(|label| SubjectAltName::Hostname(format!("*.{label}").into())),
        labels().prop_map(|label| SubjectAltName::Uri(format!("spiffe://x/{label}").into())),
    ];
    let given = vec(vec(any::<u8>(), 1..9).prop_map(Arc::from), 0..3).prop_map(Authorities::Given);
    let authorities = prop_oneof![Just(Authorities::WellKnown), given];
    (labels(), vec(name, 0..3), authorities, labels()).prop_map(|(hostname, alt_names, authorities, by)| {
        let by = Origin::new("BackendTLSPolicy", "shop", &by);
        Arc::new(BackendTls { hostname: hostname.into(), alt_names, authorities, by })
    })
}

fn outbounds() -> impl Strategy<Value = Outbound> {
    let target = prop_oneof![
        service_ports().prop_map(Target::Service),
        endpoints().prop_map(Target::Workload),
        Just(Target::External),
    ];
    (target, select(&Protocol::ALL)).prop_map(|(target, protocol)| Outbound::new(target, protocol))
}

proptest! {
    #[test]
    fn outbound_is_read_as_it_was_written(value in outbounds()) {
        let bytes = v1::OutboundPolicy::from(&value).encode_to_vec();
        let read = v1::OutboundPolicy::decode(bytes.as_slice()).expect("own encoding");
        prop_assert_eq!(Outbound::try_from(&read), Ok(value));
    }

    #[test]
    fn inbound_is_read_as_it_was_written(
        protocol in select(&Protocol::ALL),
        service in option::of(service_ports()),
    ) {
        let value = Inbound { protocol, service };
        prop_assert_eq!(Inbound::try_from(v1::InboundPolicy::from(&value)), Ok(value));
    }

    #[test]
    fn endpoints_are_read_as_they_were_written_each_address_once(
        mut value in vec(endpoints(), 0..9),
        tls in option::of(backend_tls()),
    ) {
        let plain = value.iter_mut().filter(|endpoint| endpoint.identity.is_none());
        plain.for_each(|endpoint| endpoint.tls = tls.clone());
        let mut wire = v1::EndpointSet::from(value.as_slice());
        wire.endpoints.extend_from_within(..);
        let mut known = std::collections::HashSet::new();
        value.retain(|endpoint| known.insert(endpoint.address));
        prop_assert_eq!(Vec::<Endpoint>::try_from(wire), Ok(value));
    }

    #[test]
    fn requests_are_read_as_they_were_written(
        target in addresses(), port in 1..=u16::MAX, service in service_ports(), protocol in select(&Protocol::ALL),
    ) {
        let workload = WorkloadName::new("shop", "cart-1");
        prop_assert_eq!(v1::OutboundTarget::new(target, &workload).try_into(), Ok((target, workload.clone())));
        prop_assert_eq!(v1::InboundPort::new(&workload, port).try_into(), Ok((workload, port)));
        prop_assert_eq!(v1::DetectedRequest::new(&service, protocol).try_into(), Ok((service, protocol)));
    }

    /// Bytes of any kind, where they decode at all, give a value or an error.
    #[test]
    fn nonsense_is_survived(bytes in vec(any::<u8>(), 0..64)) {
        if let Ok(message) = v1::OutboundPolicy::decode(bytes.as_slice()) {
            let _ = Outbound::try_from(message);
        }
        if let Ok(message) = v1::EndpointSet::decode(bytes.as_slice()) {
            let _ = Vec::<Endpoint>::try_from(message);
        }
        if let Ok(message) = v1::InboundPolicy::decode(bytes.as_slice()) {
            let _ = Inbound::try_from(message);
        }
    }
}

// ---- nonsense ----

fn good_endpoint() -> v1::Endpoint {
    v1::Endpoint {
        address: Some(v1::SocketAddress { ip: vec![10, 0, 0, 1], port: 80 }),
        identity: "spiffe://cluster.local/ns/shop/sa/cart".into(),
        workload: "shop/cart-1".into(),
    }
}

fn address(endpoint: &mut v1::Endpoint) -> &mut v1::SocketAddress {
    endpoint.address.as_mut().expect("a good endpoint has one")
}

fn good_backend() -> v1::Backend {
    v1::Backend { namespace: "shop".into(), name: "cart".into(), port: 80 }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(read: Result<T, Malformed>, says: &str) {
    assert_eq!(read.expect_err(says).to_string(), says);
}

#[test]
fn a_backend_that_means_nothing_is_refused() {
    type Spoil = fn(&mut v1::Backend);
    let table: [(Spoil, &str); 5] = [
        (|it| it.port = 0, "port: 0 is not a port (1-65535)"),
        (|it| it.port = 65_536, "port: 65536 is not a port (1-65535)"),
        (|it| it.name.clear(), "name: \"\" is not a name that Kubernetes would accept"),
        (|it| it.name = "Cart".into(), "name: \"Cart\" is not a name that Kubernetes would accept"),
        (|it| it.namespace = "a/b".into(), "namespace: \"a/b\" is not a name that Kubernetes would accept"),
    ];
    assert!(ServicePort::try_from(good_backend()).is_ok());
    for (spoil, says) in table {
        let mut backend = good_backend();
        spoil(&mut backend);
        refused(ServicePort::try_from(&backend), says);
        let policy = v1::InboundPolicy { protocol: 0, service: Some(backend) };
        refused(Inbound::try_from(&policy), &format!("service.{says}"));
    }
}

#[test]
fn who_asks_for_endpoints_may_be_left_out() {
    let cart: ServicePort = good_backend().try_into().expect("a good backend");
    let asking = WorkloadName::new("shop", "order-1");
    let asked = v1::EndpointsTarget::new(&cart, &asking);
    assert_eq!((&asked).try_into(), Ok((cart.clone(), Some(asking))));
    // As a proxy asks that does not know the field.
    let earlier = v1::EndpointsTarget::decode(good_backend().encode_to_vec().as_slice()).expect("a message");
    assert_eq!((&earlier).try_into(), Ok((cart, None::<WorkloadName>)));
    let read = |asked: &v1::EndpointsTarget| <(ServicePort, Option<WorkloadName>)>::try_from(asked);
    let nobody = v1::EndpointsTarget { workload: "order-1".into(), ..asked.clone() };
    refused(read(&nobody), "workload: \"order-1\" is not of the form namespace/pod");
    refused(read(&v1::EndpointsTarget { port: 0, ..asked }), "port: 0 is not a port (1-65535)");
}

#[test]
fn an_endpoint_that_means_nothing_is_refused() {
    type Spoil = fn(&mut v1::Endpoint);
    let table: [(Spoil, &str); 8] = [
        (|it| it.address = None, "address: it is missing"),
        (
            |it| it.address = Some(v1::SocketAddress::default()),
            "address.ip: an IP address has 4 or 16 bytes, not 0",
        ),
        (|it| address(it).ip.push(0), "address.ip: an IP address has 4 or 16 bytes, not 5"),
        (|it| address(it).port = 0, "address.port: 0 is not a port (1-65535)"),
        (|it| address(it).port = 1 << 20, "address.port: 1048576 is not a port (1-65535)"),
        (
            |it| it.identity = "cart".into(),
            "identity: \"cart\" is not an identity of the mesh: it does not begin with spiffe://",
        ),
        (|it| it.workload = "cart-1".into(), "workload: \"cart-1\" is not of the form namespace/pod"),
        (|it| it.workload = "shop/../x".into(), "workload: \"shop/../x\" is not of the form namespace/pod"),
    ];
    assert!(Endpoint::try_from(good_endpoint()).is_ok());
    for (spoil, says) in table {
        let mut endpoint = good_endpoint();
        spoil(&mut endpoint);
        refused(Endpoint::try_from(&endpoint), says);
        let set = v1::EndpointSet { endpoints: vec![good_endpoint(), endpoint.clone()], tls: None };
        refused(Vec::<Endpoint>::try_from(set), &format!("endpoints[1].{says}"));
        let policy = v1::OutboundPolicy {
            target: Some(v1::outbound_policy::Target::Workload(endpoint)),
            ..v1::OutboundPolicy::default()
        };
        refused(Outbound::try_from(policy), &format!("workload.{says}"));
    }
}

#[test]
fn tls_that_means_nothing_is_refused() {
    type Spoil = fn(&mut v1::BackendTls);
    let table: [(Spoil, &str); 3] = [
        (|it| it.hostname = "no host".into(), "tls.hostname: \"no host\" is not a hostname"),
        (|it| it.alt_names[0].name = None, "tls.alt_names[0].name: it is missing"),
        (
            |it| it.alt_names[0].name = Some(v1::subject_alt_name::Name::Uri(String::new())),
            "tls.alt_names[0].uri: it is missing",
        ),
    ];
    let name = v1::subject_alt_name::Name::Uri("spiffe://x/y".into());
    let tls = v1::BackendTls {
        hostname: "pay.example".into(),
        alt_names: vec![v1::SubjectAltName { name: Some(name) }],
        ..v1::BackendTls::default()
    };
    let read = |tls: &v1::BackendTls| {
        Vec::<Endpoint>::try_from(v1::EndpointSet { endpoints: Vec::new(), tls: Some(tls.clone()) })
    };
    assert_eq!(read(&tls), Ok(Vec::new()));
    for (spoil, says) in table {
        let mut tls = tls.clone();
        spoil(&mut tls);
        refused(read(&tls), says);
    }
}

#[test]
fn a_policy_that_means_nothing_is_refused() {
    type Spoil = fn(&mut v1::OutboundPolicy);
    let table: [(Spoil, &str); 3] = [
        (|it| it.target = None, "target: it is missing"),
        (|it| it.protocol = 6, "protocol: this version knows no protocol 6"),
        (|it| it.protocol = -1, "protocol: this version knows no protocol -1"),
    ];
    for (spoil, says) in table {
        let mut policy = v1::OutboundPolicy::from(&Outbound::external());
        assert!(Outbound::try_from(&policy).is_ok());
        spoil(&mut policy);
        refused(Outbound::try_from(policy), says);
    }
    refused(<(SocketAddr, WorkloadName)>::try_from(v1::OutboundTarget::default()), "target: it is missing");
    refused(
        <(WorkloadName, u16)>::try_from(v1::InboundPort { workload: "shop/cart".into(), port: 0 }),
        "port: 0 is not a port (1-65535)",
    );
    refused(<(ServicePort, Protocol)>::try_from(v1::DetectedRequest::default()), "service: it is missing");
}

#[test]
fn an_error_is_bounded_whatever_the_peer_wrote() {
    let endpoint = v1::Endpoint { identity: "x".repeat(1 << 20), ..good_endpoint() };
    assert!(Endpoint::try_from(endpoint).expect_err("no identity").to_string().len() < 200);
}

// ---- checksums ----

#[test]
fn checksums_are_fnv_1a_of_the_encoding() {
    // Field 1, length 1, "a": the published FNV-1a 64 of no bytes, and of these computed by hand from its definition.
    assert_eq!(checksum(&v1::Backend::default()), 0xcbf2_9ce4_8422_2325);
    let one = v1::Backend { namespace: "a".into(), ..Default::default() };
    let by_hand = [0x0a_u64, 0x01, 0x61]
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ byte).wrapping_mul(1_099_511_628_211));
    assert_eq!(checksum(&one), by_hand);
}

#[test]
fn checksums_differ_where_contents_do() {
    let one = v1::EndpointSet { endpoints: vec![good_endpoint()], tls: None };
    let mut other = one.clone();
    assert_eq!(checksum(&one), checksum(&other));
    address(&mut other.endpoints[0]).port += 1;
    assert_ne!(checksum(&one), checksum(&other));
}
