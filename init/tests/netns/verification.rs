//! `weft-init verify`: proves what works, and says what does not.

use std::time::{Duration, Instant};

use crate::pod::{Place, Pod, any, at};

const BACKENDS: [&str; 3] = ["nft", "legacy", "native"];
const INBOUND: &str = "the kernel holds the rules of the plan; not probed: a connection from outside cannot be made from within";

#[test]
fn a_working_redirection_is_proven() {
    for backend in BACKENDS {
        let pod = Pod::new();
        let plan = "--skip-inbound-ports 22 --skip-outbound-ports 25,3300-3310 --skip-outbound-subnets 10.96.9.0/24,fd00:96:9::/64";
        pod.init(&format!("--backend {backend} {plan}"));
        let proven = |target| {
            format!(
                "outbound: proven: a connection to {target} came to the proxy's port, and SO_ORIGINAL_DST named {target}"
            )
        };
        assert_eq!(
            pod.init(&format!("verify {plan}")),
            format!(
                "weft-init: IPv4 {}\nweft-init: IPv4 inbound: {INBOUND}\n\
                 weft-init: IPv6 {}\nweft-init: IPv6 inbound: {INBOUND}\n",
                proven("192.0.2.1:80"),
                proven("[2001:db8::1]:80")
            ),
            "{backend}"
        );
        // Another plan than the one in force.
        let said = pod.try_init("verify --skip-inbound-ports 23");
        assert_eq!(said.code, Some(1), "{backend}: {said:?}");
        assert_eq!(said.out.matches("FAILED: ").count(), 4, "{backend}: {said:?}");
        assert!(said.out.contains("23"), "{backend}: {said:?}");
    }
}

#[test]
fn the_probe_is_never_the_proxy() {
    let pod = Pod::new();
    pod.init("--proxy-uid 0");
    assert_eq!(pod.init("verify --proxy-uid 0").matches("outbound: proven").count(), 2);
}

#[test]
fn without_a_default_route_a_neighbour_is_the_target() {
    let pod = Pod::new();
    pod.init("");
    pod.done("ip", &["route", "del", "default"]);
    pod.done("ip", &["-6", "route", "del", "default"]);
    let said = pod.init("verify");
    assert!(said.contains("IPv4 outbound: proven: a connection to 10.99.0.1:80 came"), "{said}");
    assert!(said.contains("IPv6 outbound: proven: a connection to [fd00:99::1]:80 came"), "{said}");
}

#[test]
fn without_any_route_the_rules_are_read_back() {
    let pod = Pod::new();
    pod.init("");
    pod.done("ip", &["link", "set", "eth0", "down"]);
    let said = pod.init("verify");
    let reason = "the kernel holds the rules of the plan; not probed: no address outside has a route (";
    assert!(said.contains(&format!("IPv4 outbound: {reason}192.0.2.1:80: Network is unreachable")), "{said}");
    assert!(said.contains(&format!("IPv6 outbound: {reason}[2001:db8::1]:80: ")), "{said}");
}

#[test]
fn a_running_proxy_is_not_disturbed() {
    let pod = Pod::new();
    pod.init("");
    let proxies =
        [any(at("0.0.0.0", 4240)), any(at("::", 4240))].map(|address| pod.listen(Place::Pod, address));
    let said = pod.init("verify");
    let reason = "not probed: port 4240 is in use: a proxy runs already";
    assert_eq!(said.matches(reason).count(), 2, "{said}");
    for proxy in proxies {
        proxy.stop_waiting();
        assert_eq!(
            proxy.accept().unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock,
            "nothing was sent to it"
        );
    }
}

#[test]
fn what_is_not_installed_fails() {
    let pod = Pod::new();
    let said = pod.try_init("verify");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(
        said.out.matches("FAILED: no back end holds any rule of ours: run weft-init first").count(),
        4,
        "{said:?}"
    );
}

#[test]
fn tampered_rules_are_named() {
    let table: [(&str, &[&str], &str); 4] = [
        (
            "nft",
            &["iptables-nft", "-t", "nat", "-D", "OUTPUT", "1"],
            "missing: -A OUTPUT -p tcp -j WEFT_OUTPUT",
        ),
        (
            "legacy",
            &["iptables-legacy", "-t", "nat", "-D", "WEFT_OUTPUT", "1"],
            "missing: -A WEFT_OUTPUT -p tcp -m owner --uid-owner 2140 -j RETURN",
        ),
        (
            "native",
            &["nft", "flush", "chain", "ip", "weft", "output"],
            "chain output holds 0 rules instead of 4",
        ),
        (
            "native",
            &["nft", "insert", "rule", "ip", "weft", "output", "tcp", "dport", "80", "return"],
            "chain output holds another rule in place of: meta l4proto tcp meta skuid 2140 return",
        ),
    ];
    for (backend, command, part) in table {
        let pod = Pod::new();
        pod.init(&format!("--backend {backend}"));
        pod.done(command[0], &command[1..]);
        let said = pod.try_init("verify");
        assert_eq!(said.code, Some(1), "{backend}: {said:?}");
        assert!(
            said.out.contains("IPv4 outbound: FAILED: ") && said.out.contains(part),
            "{backend}: {said:?}"
        );
        assert!(said.out.contains(&format!("IPv4 inbound: {INBOUND}")), "{backend}: {said:?}");
    }
}

#[test]
fn a_rule_of_others_that_decides_first_is_found_by_the_probe() {
    let pod = Pod::new();
    pod.init("--backend native --ipv6 off");
    // Read back, our rules look well; only a connection finds the firewall.
    pod.done("iptables-legacy", &["-A", "OUTPUT", "-p", "tcp", "--dport", "4240", "-j", "DROP"]);
    let began = Instant::now();
    let said = pod.try_init("verify --ipv6 off");
    assert!(began.elapsed() < Duration::from_secs(4), "it must end in bounded time: {:?}", began.elapsed());
    assert_eq!(said.code, Some(1), "{said:?}");
    let part = "FAILED: the rules are there, but a connection to 192.0.2.1:80 did not come to port 4240";
    assert!(said.out.contains(part), "{said:?}");
}
