//! A user namespace with one uid: the proxy is exempt by its mark.

use std::process::Command;

use crate::pod::{Place, Pod, SERVICE, Who, at};
use crate::traffic::{End, arrives};

#[test]
fn one_uid_and_a_mark() {
    // This test binary again, inside: making a user namespace takes a process without threads.
    let script =
        "mount -t tmpfs none /run && exec \"$0\" --ignored --exact user_namespace::inside --nocapture";
    let own = std::env::current_exe().unwrap();
    let output = Command::new("unshare").args(["-Urnm", "sh", "-c", script]).arg(own).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Run by the test above.
#[test]
#[ignore = "runs inside the user namespace that one_uid_and_a_mark makes"]
fn inside() {
    let (app, proxy) = (Who { uid: 0, mark: 0 }, Who { uid: 0, mark: 0x77 });
    for backend in ["nft", "legacy", "native"] {
        let pod = Pod::new();
        let said = pod.try_init("");
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains("uid 2140 does not exist in this user namespace"), "{said:?}");
        assert!(said.err.contains("--proxy-mark"), "{said:?}");
        let said = pod.init(&format!("--backend {backend} --proxy-mark 0x77"));
        assert!(said.ends_with("exempt mark 0x77\n"), "{said}");
        for service in SERVICE {
            let service = at(service, 80);
            arrives(&pod, backend, Place::Pod, app, service, End::Proxy, 4240);
            arrives(&pod, backend, Place::Pod, proxy, service, End::There(Place::World), 4240);
        }
        assert_eq!(pod.init("verify --proxy-mark 0x77").matches("outbound: proven").count(), 2);
        pod.init("--remove");
    }
}
