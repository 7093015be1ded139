//! `weft-init prove`: shows without any capability whether connections come to the proxy's port.

use std::process::Command;
use std::thread;

use crate::pod::{Place, Pod, Said};

/// As in a pod that drops everything: another uid than root, no capability.
fn prove(pod: &Pod, arguments: &[&str]) -> Said {
    let dropped =
        ["--reuid=65532", "--regid=65532", "--clear-groups", "--bounding-set=-all", "--no-new-privs"];
    pod.run("setpriv", &[&dropped[..], &[env!("CARGO_BIN_EXE_weft-init"), "prove"], arguments].concat())
}

#[test]
fn a_redirected_pod_is_proven() {
    for backend in ["nft", "native"] {
        let pod = Pod::new();
        pod.init(&format!("--backend {backend} --skip-outbound-ports 80"));
        let said = prove(&pod, &["--skip-outbound-ports", "80"]);
        assert_eq!(said.code, Some(0), "{backend}: {said:?}");
        assert!(said.out.contains("IPv4 outbound: proven: a connection to 192.0.2.1:443 came"), "{said:?}");
        assert!(
            said.out.contains("IPv6 outbound: proven: a connection to [2001:db8::1]:443 came"),
            "{said:?}"
        );
    }
}

#[test]
fn a_pod_without_redirection_fails_and_says_who_is_missing() {
    let pod = Pod::new();
    let said = prove(&pod, &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("the redirection of this pod is not in force: the CNI plugin weft-cni did not run"),
        "{said:?}"
    );
    // One family of two is not enough.
    pod.init("--backend native --ipv6 off");
    let said = prove(&pod, &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("IPv4 outbound: proven") && !said.err.contains("IPv6 outbound: proven"),
        "{said:?}"
    );
    assert_eq!(prove(&pod, &["--ipv6", "off"]).code, Some(0));
}

#[test]
fn it_waits_until_somebody_mends_the_pod() {
    let pod = Pod::new();
    let waiting = pod.within(Place::Pod, || {
        Command::new(env!("CARGO_BIN_EXE_weft-init")).args(["prove", "--wait", "30s"]).spawn().unwrap()
    });
    let ended = thread::spawn(move || waiting.wait_with_output().unwrap());
    pod.init("--backend native");
    assert!(ended.join().unwrap().status.success());
}

#[test]
fn one_family_without_a_route_is_enough_and_none_is_not() {
    let pod = Pod::new();
    pod.init("--backend native");
    pod.done("ip", &["-6", "addr", "flush", "dev", "eth0", "scope", "global"]);
    pod.done("ip", &["-6", "route", "flush", "default"]);
    let said = prove(&pod, &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("IPv6 outbound: not tried: no address outside has a route"), "{said:?}");
    pod.done("ip", &["link", "set", "eth0", "down"]);
    assert_eq!(prove(&pod, &[]).code, Some(1));
}

#[test]
fn a_plan_that_redirects_nothing_outbound_is_not_in_the_way() {
    let pod = Pod::new();
    pod.init("--backend native --skip-outbound-ports 1-65535");
    let said = prove(&pod, &["--skip-outbound-ports", "1-65535"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}
