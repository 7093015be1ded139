//! What the suite expects of a cluster: the Gateway API's definitions, the image of its pods, and a mesh.

use std::{process::Command, time::Duration};
use tests::{
    cluster::{Cluster, SYSTEM},
    namespace::done,
};

const INSTALLED: Duration = Duration::from_secs(60);
/// By its status the suite knows what is to be tested.
const MESH: &str = "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XMesh\nmetadata: {name: weft}\n\
                    spec: {controllerName: weft.mesh/controller}\n";

pub fn definitions_images_and_weft(cluster: &Cluster) {
    cluster.script("tests/conformance/build", &[]);
    let images = cluster.target().join("conformance/images");
    cluster.script("tests/cluster/load", &[images.to_str().expect("UTF-8")]);

    // At the version of the suite: both come from one go.mod.
    let mut module = Command::new("go");
    module.args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api"]);
    let module = done(module.current_dir(cluster.root().join("tests/conformance")));
    let definitions = format!("{}/config/crd/experimental", module.trim());
    for args in [
        vec!["apply", "--server-side", "-k", &definitions],
        vec!["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"],
    ] {
        cluster.kubectl(&args).unwrap_or_else(|error| panic!("{error}"));
    }

    let (code, text) = cluster.weft(&["install"]);
    assert_eq!(code, 0, "weft install: {text}");
    cluster.rolled_out(SYSTEM, INSTALLED);
    cluster.eventually(SYSTEM, INSTALLED, || match cluster.weft(&["check"]) {
        (0, _) => Ok(()),
        (code, text) => Err(format!("weft check ends with {code}:\n{text}")),
    });

    cluster.apply(MESH);
    cluster.eventually(SYSTEM, INSTALLED, || {
        let status = &cluster.json(&["xmesh", "weft"])["status"];
        let told = status["supportedFeatures"].as_array().is_some_and(|features| !features.is_empty());
        if told { Ok(()) } else { Err(format!("XMesh weft is not told the mesh's features: {status}")) }
    });
}
