//! Which connections come to the proxy and which go straight, asked of the kernel.

use std::net::SocketAddr;

use crate::pod::{OTHER_SERVICE, POD, Place, Pod, SERVICE, Who, any, at, original};

const APP: Who = Who { uid: 1000, mark: 0 };
const ROOT: Who = Who { uid: 0, mark: 0 };
const PROXY: Who = Who { uid: 2140, mark: 0 };
const MARKED: Who = Who { uid: 1000, mark: 0x2140 };
const OTHERWISE_MARKED: Who = Who { uid: 1000, mark: 0x2141 };

/// Where a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the proxy's port of that direction.
    Proxy,
    /// At the address that was dialled, in this namespace.
    There(Place),
}

const WORLD: End = End::There(Place::World);
const SELF: End = End::There(Place::Pod);

#[test]
fn nft() {
    whole_plan("nft");
}

#[test]
fn legacy() {
    whole_plan("legacy");
}

#[test]
fn native() {
    whole_plan("native");
}

fn whole_plan(backend: &str) {
    let pod = Pod::new();
    let said = pod.init(&format!(
        "--backend {backend} --proxy-uid 2140 --proxy-mark 0x2140
         --skip-outbound-ports 25,3300-3310 --skip-outbound-subnets 10.96.9.0/24,fd00:96:9::/64
         --skip-inbound-ports 22,9000-9010"
    ));
    assert_eq!(
        said,
        format!(
            "weft-init: redirection installed ({backend}, IPv4+IPv6): outbound -> 4240, inbound -> 4243, \
             exempt uid 2140 and mark 0x2140\n"
        )
    );
    for family in [0, 1] {
        outgoing(&pod, backend, family);
        incoming(&pod, backend, family);
    }
}

fn outgoing(pod: &Pod, backend: &str, family: usize) {
    let loopback = ["127.0.0.1", "::1"][family];
    let table = [
        ("the application to a service", APP, at(SERVICE[family], 80), End::Proxy),
        ("root to a service", ROOT, at(SERVICE[family], 80), End::Proxy),
        ("another mark", OTHERWISE_MARKED, at(SERVICE[family], 80), End::Proxy),
        ("behind a skipped range", APP, at(SERVICE[family], 3311), End::Proxy),
        ("another proxy's inbound port", APP, at(SERVICE[family], 4243), End::Proxy),
        ("the proxy by uid", PROXY, at(SERVICE[family], 80), WORLD),
        ("the proxy by mark", MARKED, at(SERVICE[family], 80), WORLD),
        ("a skipped port", APP, at(SERVICE[family], 25), WORLD),
        ("in a skipped range", APP, at(SERVICE[family], 3305), WORLD),
        ("the end of a skipped range", APP, at(SERVICE[family], 3310), WORLD),
        ("a skipped network", APP, at(OTHER_SERVICE[family], 80), WORLD),
        ("loopback", APP, at(loopback, 8080), SELF),
        ("the own address, by lo", APP, at(POD[family], 8080), SELF),
    ];
    for (name, who, address, end) in table {
        let name = format!("{backend}, outgoing: {name} ({address})");
        arrives(pod, &name, Place::Pod, who, address, end, 4240);
    }
}

fn incoming(pod: &Pod, backend: &str, family: usize) {
    let table = [
        ("the application", 8080, End::Proxy),
        ("behind a skipped range", 9011, End::Proxy),
        ("a port skipped outbound only", 25, End::Proxy),
        ("a skipped port", 22, SELF),
        ("in a skipped range", 9005, SELF),
        ("the admin port", 4291, SELF),
        ("the proxy's inbound port itself", 4243, SELF),
        ("the proxy's outbound port", 4240, SELF),
    ];
    for (name, port, end) in table {
        let address = at(POD[family], port);
        let name = format!("{backend}, incoming: {name} ({address})");
        arrives(pod, &name, Place::World, ROOT, address, end, 4243);
    }
}

/// Connects, and checks at which listener that ends and which destination `SO_ORIGINAL_DST` names.
pub fn arrives(pod: &Pod, name: &str, from: Place, who: Who, address: SocketAddr, end: End, proxy_port: u16) {
    // There is a listener where the rules should not lead, too: a wrong turn is a wrong answer, not a refusal.
    let proxy = at(if address.is_ipv4() { "0.0.0.0" } else { "::" }, proxy_port);
    let proxy = (address.port() != proxy_port || from == Place::Pod).then(|| pod.listen(Place::Pod, proxy));
    let place = match end {
        End::There(place) => place,
        End::Proxy if from == Place::Pod => Place::World,
        End::Proxy => Place::Pod,
    };
    let straight = pod.listen(place, any(address));
    let client = pod.connect(from, who, address).unwrap_or_else(|error| panic!("{name}: {error}"));
    let listener = if end == End::Proxy { proxy.as_ref().unwrap() } else { &straight };
    let (accepted, peer) =
        listener.accept().unwrap_or_else(|error| panic!("{name}: not at {end:?}: {error}"));
    assert_eq!(peer.as_socket(), client.local_addr().unwrap().as_socket(), "{name}: somebody else's");
    if end == End::Proxy {
        assert_eq!(original(&accepted, address).unwrap(), Some(address), "{name}: original destination");
    }
}
