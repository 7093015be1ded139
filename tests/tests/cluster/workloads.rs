//! The shapes of workloads: each is meshed, reached by mTLS with its own identity, and answers as it would without a mesh.

use std::time::Duration;
use tests::cluster::{
    Cluster,
    namespace::{Namespace, is_meshed, name},
    workloads::{client, pod, server, service},
};

/// A headless service's pods are called by their own names.
pub fn statefulset_with_headless_service(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "stateful");
    namespace.apply(&client("client"));
    let set = server("db", 2)
        .replace("kind: Deployment", "kind: StatefulSet")
        .replace("  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n", "  serviceName: db\n");
    let set = set
        .replace("spec: {selector: {app: db}, ports", "spec: {clusterIP: None, selector: {app: db}, ports");
    namespace.apply(&set.replace("port: 80,", "port: 8080,"));
    namespace.ready(&["statefulset/db", "pod/client"]);
    for pod in ["db-0", "db-1"] {
        let answer = namespace.get("client", &format!("http://{pod}.db:8080/"));
        assert!(answer.contains(&format!("pod={pod} ")), "{pod} was asked, but {answer}");
        namespace.assert_mtls(pod, "inbound", "client");
    }
    // By the service's name it is one of them.
    namespace.get("client", "http://db.stateful.svc.cluster.local:8080/");
    namespace.assert_mtls("client", "outbound", "db");
}

pub fn daemonset_on_each_node(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "daemons");
    let set =
        server("agent", 2).replace("kind: Deployment", "kind: DaemonSet").replace("  replicas: 2\n", "");
    namespace.apply(&set.replace("  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n", ""));
    namespace.apply(&client("client"));
    namespace.ready(&["daemonset/agent", "pod/client"]);
    let pods = namespace.pods("app=agent");
    let mut nodes: Vec<_> =
        pods.iter().map(|pod| pod["spec"]["nodeName"].as_str().expect("scheduled")).collect();
    nodes.sort();
    assert_eq!(nodes, ["node1", "node2"]);
    assert!(pods.iter().all(is_meshed), "each has its proxy");
    namespace.get("client", "http://agent/");
    namespace.assert_mtls("client", "outbound", "agent");
}

/// Two applications in a pod behind ports by name, with a classic sidecar in one of the pods; plain probes of TCP among others.
pub fn several_containers_and_ports_by_name(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "containers");
    for (name, sidecar) in [("native", "native"), ("classic", "classic")] {
        let manifest = pod(name, "[serve]", ", ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}")
            .replace("labels:", &format!("annotations: {{weft.mesh/sidecar: {sidecar}}}, labels:"))
            + "  - {name: second, image: \"weft.test/echo:1\", args: [serve, -addr, ':9090'], ports: [{name: admin, containerPort: 9090}], \
               readinessProbe: {tcpSocket: {port: admin}, periodSeconds: 1}}\n";
        namespace.apply(&manifest);
        namespace.apply(
            &service(name, "").replace(
                "targetPort: http}",
                "targetPort: http}, {name: admin, port: 90, targetPort: admin}",
            ),
        );
    }
    namespace.apply(&client("client"));
    namespace.ready(&["pod/native", "pod/classic", "pod/client"]);
    for (pod, field) in [("native", "initContainers"), ("classic", "containers")] {
        let spec = &namespace.json(&[&format!("pod/{pod}")])["spec"];
        let containers = spec[field].as_array().expect("some");
        assert!(
            containers.iter().any(|container| container["name"] == "weft-proxy"),
            "{pod}: no proxy in {field}"
        );
        for (port, local) in [(80, 8080), (90, 9090)] {
            let answer = namespace.get("client", &format!("http://{pod}:{port}/"));
            assert!(answer.contains(&format!(":{local}")), "port {port} of {pod} is {local}: {answer}");
        }
        namespace.assert_mtls("client", "outbound", pod);
        namespace.assert_mtls(pod, "inbound", "client");
    }
    // A probe of TCP says when nobody listens, though the proxy would accept.
    let dead = pod(
        "dead",
        "[sleep]",
        ", ports: [{containerPort: 8080}], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}",
    );
    namespace.apply(&dead);
    namespace.eventually(Duration::from_secs(60), || {
        let events = namespace.try_kubectl(&[
            "get",
            "events",
            "--field-selector",
            "reason=Unhealthy,involvedObject.name=dead",
            "-o",
            "name",
        ])?;
        if events.trim().is_empty() { Err("no probe of dead has failed".to_owned()) } else { Ok(()) }
    });
    let conditions = namespace.json(&["pod/dead"])["status"]["conditions"].clone();
    let ready = conditions.as_array().and_then(|all| all.iter().find(|one| one["type"] == "Ready")).cloned();
    assert!(ready.is_some_and(|one| one["status"] == "False"), "nobody listens in it: {conditions}");
}

/// IPv4 and IPv6 of one Service; applications that listen on the pod's address alone, or on loopback alone.
pub fn applications_on_one_address(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "addresses");
    let port = ", ports: [{name: http, containerPort: 8080}]";
    let address = ", env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]";
    namespace.apply(&pod("wide", "[serve]", port));
    namespace.apply(&pod("narrow", "[serve, -addr, '$POD_IP:8080']", &format!("{port}{address}")));
    namespace.apply(&pod("inner", "[serve, -addr, '127.0.0.1:8080']", port));
    namespace.apply(&service("wide", "ipFamilyPolicy: RequireDualStack, "));
    namespace.apply(&service("narrow", ""));
    namespace.apply(&service("inner", ""));
    namespace.apply(&client("client"));
    namespace.ready(&["pod/wide", "pod/narrow", "pod/inner", "pod/client"]);
    let addresses = namespace.json(&["service/wide"])["spec"]["clusterIPs"].clone();
    for address in addresses.as_array().expect("two") {
        let address = address.as_str().expect("an address");
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        namespace.get("client", &format!("http://{host}/"));
    }
    let metrics = namespace.metrics("client");
    let backends: Vec<_> = metrics
        .series_of("weft_requests_total")
        .into_iter()
        .map(|one| one.labels["backend"].clone())
        .collect();
    assert!(backends.iter().any(|backend| backend.starts_with("[fd44:")), "none by IPv6: {backends:?}");
    assert!(backends.iter().any(|backend| backend.starts_with("10.244.")), "none by IPv4: {backends:?}");
    for pod in ["narrow", "inner"] {
        let answer = namespace.get("client", &format!("http://{pod}/"));
        assert!(answer.contains(&format!("pod={pod} ")), "{answer}");
        namespace.assert_mtls("client", "outbound", pod);
    }
}

/// What lets connections pass to the application's port alone, as a NetworkPolicy does, lets the mesh pass.
pub fn a_filter_on_the_original_port(cluster: &Cluster) {
    let namespace = Namespace::meshed(cluster, "filter");
    namespace.apply(&server("server", 1));
    namespace.apply(&client("client"));
    namespace.ready(&["deployment/server", "pod/client"]);
    let pods = namespace.pods("app=server");
    let node = pods[0]["spec"]["nodeName"].as_str().expect("scheduled");
    let address = pods[0]["status"]["podIP"].as_str().expect("an address");
    let rule = |verb: &'static str| {
        vec![
            "iptables", verb, "FORWARD", "-d", address, "-p", "tcp", "--syn", "!", "--dport", "8080", "-j",
            "DROP",
        ]
    };
    cluster.on_node(node, &rule("-I")).unwrap_or_else(|error| panic!("{error}"));
    namespace.get("client", "http://server/");
    namespace.assert_mtls("client", "outbound", "server");
    // The filter filters: the proxy's own port, which is open, is out of reach.
    let port = format!("http://{address}:4291/live");
    let through = namespace.try_exec("client", &["/echo", "get", "-timeout", "2s", &port]);
    assert!(through.is_err(), "port 4291 of {} answers in spite of the filter: {through:?}", name(&pods[0]));
    cluster.on_node(node, &rule("-D")).unwrap_or_else(|error| panic!("{error}"));
}
