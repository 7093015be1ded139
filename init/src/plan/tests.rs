//! What the rules say about single packets; the kernel's answers to the same questions are in `tests/netns`.

use super::*;

fn plan() -> Plan {
    Plan {
        proxy_mark: Some(0x2140),
        skip_inbound_ports: vec![22.into(), PortRange::new(9000, 9010).unwrap()],
        skip_outbound_ports: vec![25.into(), PortRange::new(3300, 3310).unwrap()],
        skip_outbound_subnets: vec!["10.96.7.9/24".parse().unwrap(), "fd00:7::/32".parse().unwrap()],
        ..Plan::default()
    }
}

/// Asks the rules of the destination's family.
fn ask(hook: Hook, interface: &str, destination: &str, uid: u32, mark: u32) -> Verdict {
    let destination: SocketAddr = destination.parse().unwrap();
    let family = if destination.is_ipv4() { Family::V4 } else { Family::V6 };
    let chain = plan().chains(family).into_iter().find(|chain| chain.hook == hook).unwrap();
    chain.verdict(&Packet { destination, uid, mark, interface })
}

#[test]
fn outgoing() {
    let redirect = Verdict::Redirect(4240);
    let table = [
        ("a service", "eth0", "10.96.0.1:80", 1000, 0, redirect),
        ("a service by IPv6", "eth0", "[fd00:96::1]:80", 1000, 0, redirect),
        ("the proxy by uid", "eth0", "10.96.0.1:80", 2140, 0, Verdict::Return),
        ("the proxy by mark", "eth0", "10.96.0.1:80", 0, 0x2140, Verdict::Return),
        ("another mark", "eth0", "10.96.0.1:80", 0, 0x2141, redirect),
        ("the own pod address, routed by lo", "lo", "10.1.2.3:80", 1000, 0, Verdict::Return),
        ("loopback", "lo", "127.0.0.1:80", 1000, 0, Verdict::Return),
        ("loopback addresses sent elsewhere", "eth0", "127.3.0.1:80", 1000, 0, Verdict::Return),
        ("loopback by IPv6", "lo", "[::1]:80", 1000, 0, Verdict::Return),
        ("a skipped port", "eth0", "10.96.0.1:25", 1000, 0, Verdict::Return),
        ("the last of a skipped range", "eth0", "10.96.0.1:3310", 1000, 0, Verdict::Return),
        ("behind a skipped range", "eth0", "10.96.0.1:3311", 1000, 0, redirect),
        ("a skipped network", "eth0", "10.96.7.255:80", 1000, 0, Verdict::Return),
        ("beside a skipped network", "eth0", "10.96.8.0:80", 1000, 0, redirect),
        ("a skipped IPv6 network", "eth0", "[fd00:7:1::1]:80", 1000, 0, Verdict::Return),
        ("a port skipped inbound only", "eth0", "10.96.0.1:22", 1000, 0, redirect),
        ("another proxy's admin port", "eth0", "10.96.0.1:4291", 1000, 0, redirect),
    ];
    for (name, interface, destination, uid, mark, expected) in table {
        assert_eq!(ask(Hook::Output, interface, destination, uid, mark), expected, "{name}");
    }
}

#[test]
fn incoming() {
    let redirect = Verdict::Redirect(4243);
    let table = [
        ("the application", "eth0", "10.1.2.3:8080", redirect),
        ("the application by IPv6", "eth0", "[fd00::3]:8080", redirect),
        ("by a second interface", "net1", "10.1.2.3:8080", redirect),
        ("by lo", "lo", "10.1.2.3:8080", Verdict::Return),
        ("a skipped port", "eth0", "10.1.2.3:22", Verdict::Return),
        ("in a skipped range", "eth0", "10.1.2.3:9005", Verdict::Return),
        ("a port skipped outbound only", "eth0", "10.1.2.3:25", redirect),
        ("the proxy's admin port", "eth0", "10.1.2.3:4291", Verdict::Return),
        ("the proxy's inbound port", "eth0", "10.1.2.3:4243", Verdict::Return),
        ("the proxy's outbound port", "eth0", "10.1.2.3:4240", Verdict::Return),
    ];
    for (name, interface, destination, expected) in table {
        assert_eq!(ask(Hook::Prerouting, interface, destination, 0, 0), expected, "{name}");
    }
}

#[test]
fn impossible_plans_are_refused() {
    let base = Plan::default();
    let table = [
        (base.clone(), Ok(())),
        (Plan { proxy_uid: None, ..base.clone() }, Err(PlanError::NoExemption)),
        (Plan { proxy_uid: None, proxy_mark: Some(7), ..base.clone() }, Ok(())),
        (Plan { proxy_mark: Some(0), ..base.clone() }, Err(PlanError::ZeroMark)),
        (Plan { inbound_port: 0, ..base.clone() }, Err(PlanError::ZeroPort)),
        (Plan { inbound_port: 4240, ..base.clone() }, Err(PlanError::SamePort(4240))),
        (Plan { admin_port: 4240, ..base.clone() }, Err(PlanError::SamePort(4240))),
        (Plan { admin_port: 4243, ..base.clone() }, Err(PlanError::SamePort(4243))),
    ];
    for (plan, expected) in table {
        assert_eq!(plan.check(), expected, "{plan:?}");
    }
}

#[test]
fn port_ranges_are_parsed() {
    for text in ["1", "80", "65535", "8000-8100"] {
        assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
    }
    assert_eq!("80-80".parse::<PortRange>().unwrap().to_string(), "80");
    for text in ["", "0", "0-5", "65536", "90-80", "80-", "-80", "80:90", "http", "+80 "] {
        assert!(text.parse::<PortRange>().is_err(), "{text:?}");
    }
}
