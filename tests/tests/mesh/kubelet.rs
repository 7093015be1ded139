//! What a kubelet asks of a pod: TCP probes, which the proxy answers for the application, and the hook that waits for the proxy.

use std::{net::SocketAddr, process::Output};
use tests::{
    PATIENCE,
    app::App,
    http::Client,
    manifest::Phase,
    pod::{ADMIN_PORT, Pod},
    world::{World, binary},
};

const PORT: u16 = 5432;

#[test]
fn a_tcp_probe_tells_of_the_application_and_not_of_the_proxy() {
    let world = World::new();
    let mut pod = world.pod("store", true, Phase::Ready);
    let mut options = world.proxy_options(&pod);
    options.flags = ["--tcp-probe-ports", "5432,5433"].map(String::from).to_vec();
    pod.start_proxy(options);
    let probe = |address: SocketAddr, port: u16| {
        let mut kubelet = Client::from(world.bridge.connect(address).unwrap());
        kubelet.get(&format!("/probe/tcp/{port}")).head.status()
    };
    for address in pod.at(ADMIN_PORT) {
        // The proxy accepts for everybody, which is why a kubelet must not ask by connecting.
        assert!(world.bridge.connect(SocketAddr::new(address.ip(), PORT)).is_ok(), "{address}");
        assert_eq!(probe(address, PORT), 503, "{address}: nobody listens yet");
    }
    let app = App::echo(&pod, PORT);
    for address in pod.at(ADMIN_PORT) {
        assert_eq!(probe(address, PORT), 200, "{address}");
        assert_eq!(probe(address, 5433), 503, "{address}");
        assert_eq!(probe(address, ADMIN_PORT), 404, "{address}: not one of the ports");
    }
    drop(app);
    for address in pod.at(ADMIN_PORT) {
        assert_eq!(probe(address, PORT), 503, "{address}: it has ended");
    }
}

#[test]
fn the_hook_waits_until_the_proxy_is_ready() {
    let world = World::new();
    let mut pod = world.pod("late", true, Phase::Ready);
    let nobody = hook(&pod, "0s");
    let said = String::from_utf8_lossy(&nobody.stderr);
    assert_eq!(nobody.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the proxy is not ready after 0ns: its admin port 127.0.0.1:4291 does not answer"),
        "{said}"
    );

    // It has a proxy that gets no certificate: its token is nobody's.
    let options = world.proxy_options(&pod);
    let token = world.folder().join("nobody");
    std::fs::write(&token, "nobody").unwrap();
    let mut wrong = options.clone();
    wrong.token = token;
    pod.start_unready_proxy(wrong);
    tests::eventually(PATIENCE, || pod.page("GET", "/ready").map_err(|error| error.to_string()));
    let unready = hook(&pod, "0s");
    let said = String::from_utf8_lossy(&unready.stderr);
    assert_eq!(unready.status.code(), Some(1), "{said}");
    assert!(said.contains("not ready: no certificate yet"), "{said}");

    pod.proxy_mut().kill();
    pod.start_unready_proxy(options);
    let ready = hook(&pod, "20s");
    assert!(ready.status.success(), "{}", String::from_utf8_lossy(&ready.stderr));
    assert_eq!(pod.page("GET", "/ready").unwrap().0, 200);
}

/// The hook of a classic sidecar.
fn hook(pod: &Pod, wait: &str) -> Output {
    let mut command = pod.namespace.command(binary("weft-proxy"));
    command.args(["--await-ready", "--await-timeout", wait]).output().unwrap()
}
