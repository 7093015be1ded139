//! Applied twice, changed, moved to another back end, removed; IPv6 off; no programs; no capability.

use crate::pod::{POD, Place, Pod, SERVICE, Who, at};
use crate::traffic::{End, arrives};

const BACKENDS: [&str; 3] = ["nft", "legacy", "native"];
const APP: Who = Who { uid: 1000, mark: 0 };

/// Rules of others, which must survive.
const FOREIGN: &str = "\
*nat
:KUBE-MARK - [0:0]
-A PREROUTING -p udp -m udp --dport 53 -j KUBE-MARK
-A OUTPUT -p udp -m udp --dport 53 -j KUBE-MARK
-A KUBE-MARK -j RETURN
COMMIT
";

#[test]
fn a_second_run_changes_nothing_and_a_changed_plan_replaces() {
    for backend in BACKENDS {
        let pod = Pod::new();
        let first = format!("--backend {backend} --skip-inbound-ports 22");
        pod.init(&first);
        let rules = pod.rules();
        pod.init(&first);
        assert_eq!(pod.rules(), rules, "{backend}: the second run");

        pod.init(&format!("--backend {backend} --skip-inbound-ports 23 --proxy-uid 77 --outbound-port 5000"));
        let changed = pod.rules();
        for (word, is_there) in
            [("22", false), ("2140", false), ("4240 ", false), ("77", true), ("5000", true)]
        {
            assert_eq!(changed.contains(word), is_there, "{backend}: {word} in {changed}");
        }
        arrives(&pod, backend, Place::Pod, APP, at(SERVICE[0], 80), End::Proxy, 5000);
        arrives(&pod, backend, Place::World, APP, at(POD[0], 22), End::Proxy, 4243);
        arrives(&pod, backend, Place::World, APP, at(POD[0], 23), End::There(Place::Pod), 4243);

        pod.init(&first);
        assert_eq!(pod.rules(), rules, "{backend}: the first plan again");
    }
}

#[test]
fn removal_leaves_what_was_there() {
    for backend in BACKENDS {
        let pod = Pod::new();
        for program in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
            pod.restore(&format!("{program}-restore"), FOREIGN);
        }
        pod.done("nft", &["add", "table", "ip", "others"]);
        let before = pod.rules();
        pod.init(&format!("--backend {backend}"));
        assert_ne!(pod.rules(), before, "{backend}");
        let said = pod.init("--remove");
        assert_eq!(said, format!("weft-init: redirection removed ({backend} IPv4, {backend} IPv6)\n"));
        assert_eq!(pod.rules(), before, "{backend}");
        let again = pod.init("--remove");
        assert_eq!(again, "weft-init: no redirection was installed: nothing to remove\n", "{backend}");
        arrives(&pod, backend, Place::Pod, APP, at(SERVICE[0], 80), End::There(Place::World), 4240);
    }
}

#[test]
fn removal_leaves_no_rule_where_nothing_was() {
    for backend in BACKENDS {
        let pod = Pod::new();
        let before = pod.rules();
        pod.init(&format!("--backend {backend}"));
        pod.init(&format!("--backend {backend} --remove"));
        let after = pod.rules();
        if backend == "native" {
            assert_eq!(after, before);
        }
        // iptables itself leaves its table nat behind, with empty chains.
        assert!(
            !after.contains("-A ") && !after.contains("WEFT") && !after.contains("weft"),
            "{backend}: {after}"
        );
    }
}

#[test]
fn another_back_end_takes_over() {
    let pod = Pod::new();
    let marks = [("nft", "-nft-save\n*nat"), ("legacy", "-legacy-save\n*nat"), ("native", "table ip weft")];
    for (backend, older) in
        [("nft", None), ("legacy", Some("nft")), ("native", Some("legacy")), ("nft", Some("native"))]
    {
        let said = pod.init(&format!("--backend {backend}"));
        if let Some(older) = older {
            let lines = format!(
                "older rules taken out ({older}, IPv4)\nweft-init: older rules taken out ({older}, IPv6)\n"
            );
            assert!(said.ends_with(&lines), "{said}");
        }
        let rules = pod.rules();
        let ours = rules.lines().filter(|line| line.contains("WEFT_OUTPUT -p tcp -j REDIRECT")).count();
        assert_eq!(ours, if backend == "native" { 0 } else { 2 }, "{backend}: {rules}");
        assert_eq!(rules.contains("table ip weft"), backend == "native", "{backend}: {rules}");
        assert!(rules.contains(marks.iter().find(|mark| mark.0 == backend).unwrap().1), "{backend}: {rules}");
        arrives(&pod, backend, Place::Pod, APP, at(SERVICE[1], 80), End::Proxy, 4240);
    }
}

#[test]
fn auto_goes_where_the_rules_of_kubernetes_are() {
    for (programs, expected) in
        [(None, "nft"), (Some("iptables-nft-restore"), "nft"), (Some("iptables-legacy-restore"), "legacy")]
    {
        let pod = Pod::new();
        if let Some(program) = programs {
            pod.restore(program, FOREIGN);
        }
        let said = pod.init("");
        assert!(
            said.starts_with(&format!("weft-init: redirection installed ({expected}, ")),
            "{programs:?}: {said}"
        );
    }
}

#[test]
fn ipv6_that_is_off_is_left_alone() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.init(&format!("--backend {backend}"));
        pod.done("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
        let said = pod.init(&format!("--backend {backend}"));
        assert_eq!(
            said,
            format!(
                "weft-init: redirection installed ({backend}, IPv4): outbound -> 4240, inbound -> 4243, exempt uid 2140\n\
                 weft-init: IPv6 is disabled in this namespace: only IPv4 is redirected\n\
                 weft-init: older rules taken out ({backend}, IPv6)\n"
            )
        );
        assert!(!pod.rules().contains("table ip6 weft"), "{backend}");
        assert_eq!(pod.rules().matches("-A WEFT_OUTPUT -d ::1").count(), 0, "{backend}");
        arrives(&pod, backend, Place::Pod, APP, at(SERVICE[0], 80), End::Proxy, 4240);
        let verified = pod.init("verify");
        assert_eq!(verified.lines().count(), 2, "{backend}: only IPv4: {verified}");
    }
}

#[test]
fn ipv6_goes_straight_when_asked() {
    let pod = Pod::new();
    let said = pod.init("--ipv6 off");
    assert!(said.contains("weft-init: IPv6 is not redirected, as asked\n"), "{said}");
    arrives(&pod, "IPv4", Place::Pod, APP, at(SERVICE[0], 80), End::Proxy, 4240);
    arrives(&pod, "IPv6", Place::Pod, APP, at(SERVICE[1], 80), End::There(Place::World), 4240);
}

#[test]
fn without_programs_native_is_chosen() {
    let pod = Pod::new();
    // The programs are hidden from this one process by an empty file system in their place.
    let hidden = |arguments: &str| {
        let script = format!("mount -t tmpfs none /usr/sbin && PATH=/nowhere exec \"$0\" {arguments}");
        pod.run("unshare", &["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_weft-init")])
    };
    let said = hidden("");
    assert!(said.out.starts_with("weft-init: redirection installed (native, IPv4+IPv6)"), "{said:?}");
    arrives(&pod, "native", Place::Pod, APP, at(SERVICE[0], 80), End::Proxy, 4240);
    let said = hidden("--backend nft");
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("no `iptables-nft-restore` in PATH: install iptables, or use --backend native"),
        "{said:?}"
    );
    assert_eq!(hidden("--remove").out, "weft-init: redirection removed (native IPv4, native IPv6)\n");
}

#[test]
fn a_missing_capability_is_named() {
    let pod = Pod::new();
    for arguments in [&[][..], &["--remove"], &["verify"], &["--backend", "native"], &["--backend", "legacy"]]
    {
        let dropped = ["--bounding-set", "-net_admin", env!("CARGO_BIN_EXE_weft-init")];
        let said = pod.run("setpriv", &[&dropped, arguments].concat());
        assert_eq!(said.code, Some(1), "{arguments:?}: {said:?}");
        let named = "weft-init: CAP_NET_ADMIN is missing: add it to securityContext.capabilities";
        assert!(said.err.starts_with(named), "{arguments:?}: {said:?}");
    }
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    let pod = Pod::new();
    for (arguments, part) in [
        ("--inbound-port 4240", "4240 is given twice"),
        ("--skip-inbound-ports 70000", "`70000` is no port"),
        ("--skip-outbound-subnets 10.0.0.0/33", "10.0.0.0/33"),
        ("--backend ipfw", "expected auto, nft, legacy or native"),
        ("--remove --print", "only one of"),
        ("verify --remove", "only one of"),
        ("install", "possible values: apply, verify, prove"),
    ] {
        let said = pod.try_init(arguments);
        assert_eq!(said.code, Some(2), "{arguments}: {said:?}");
        assert!(said.err.contains(part), "{arguments}: {said:?}");
    }
    assert!(!pod.rules().contains("4243"));
}

#[test]
fn flags_come_from_the_environment_too() {
    let pod = Pod::new();
    let settings = "WEFT_INIT_BACKEND=native WEFT_INIT_PROXY_UID=99 WEFT_INIT_SKIP_INBOUND_PORTS= \
                    WEFT_INIT_SKIP_OUTBOUND_PORTS=81,82-83 WEFT_INIT_REMOVE= WEFT_INIT_PRINT=false WEFT_INIT_IPV6=off";
    let mut arguments: Vec<&str> = settings.split_whitespace().collect();
    arguments.push(env!("CARGO_BIN_EXE_weft-init"));
    let said = pod.done("env", &arguments);
    assert!(
        said.contains("installed (native, IPv4): outbound -> 4240, inbound -> 4243, exempt uid 99\n"),
        "{said}"
    );
    assert!(pod.rules().contains("tcp dport 82-83 return"));
}
