//! XMeshes of the Gateway API that name us as their controller: whether they are accepted, and which of its features the
//! mesh has. Looked at now and then, by whoever holds the Lease; where there is no such kind, nothing is said.

use super::{Cluster, FIELD_MANAGER, REQUEST_WAIT, explain, statuses::since};
use crate::{
    Control,
    problems::{Problem, Source},
};
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{sleep, timeout};

const GROUP: &str = "gateway.networking.x-k8s.io";
const VERSION: &str = "v1alpha1";
const KIND: &str = "XMesh";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// Objects of one list; nobody has more.
const MOST: u32 = 100;

/// What the Gateway API's conformance suite finds the mesh to do, by its names, in their order.
pub const FEATURES: [&str; 17] = [
    "GRPCRoute",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];

/// Says it to each of ours. Serves until it is dropped.
pub async fn keep(control: &Control, cluster: &Cluster) {
    let resource = ApiResource {
        group: GROUP.into(),
        version: VERSION.into(),
        api_version: format!("{GROUP}/{VERSION}"),
        kind: KIND.into(),
        plural: "xmeshes".into(),
    };
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    loop {
        let problem = match timeout(REQUEST_WAIT, look(&api)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(explain(&error)),
            Err(_) => Some(format!("the API server did not answer for {} s", REQUEST_WAIT.as_secs())),
        };
        let problem = problem.map(|what| Problem {
            object: KIND.into(),
            field: "status".into(),
            what: format!("the mesh's features cannot be told ({what}); nothing else depends on it"),
            ..Problem::default()
        });
        control.world().problems_of(Source::Meshes, problem.into_iter().collect::<BTreeSet<_>>());
        sleep(LOOK).await;
    }
}

async fn look(api: &Api<DynamicObject>) -> Result<(), kube::Error> {
    let meshes = match api.list(&ListParams::default().limit(MOST)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        meshes => meshes?,
    };
    let now = Timestamp::now().round(Unit::Second).unwrap_or_default().to_string();
    for mesh in &meshes.items {
        let Some(status) = unsaid(mesh, &now) else { continue };
        let name = mesh.metadata.name.as_deref().unwrap_or_default();
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": {"name": name},
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(name, &parameters, &Patch::Apply(&body)).await {
            // It went in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            written => drop(written?),
        }
    }
    Ok(())
}

/// The status of one of ours, if it is not what it should be.
fn unsaid(mesh: &DynamicObject, now: &str) -> Option<Value> {
    if mesh.data["spec"]["controllerName"] != api::CONTROLLER_NAME {
        return None;
    }
    let held = &mesh.data["status"];
    let conditions = held["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said = match mesh.data["spec"]["parametersRef"].is_object() {
        false => [("Accepted", "True", "Accepted", ""), ("Programmed", "True", "Programmed", "")],
        true => {
            let what = "spec.parametersRef: a mesh of weft.mesh/controller has no parameters; leave it out";
            [
                ("Accepted", "False", "InvalidParameters", what),
                ("Programmed", "False", "InvalidParameters", what),
            ]
        }
    };
    let wanted: Vec<Value> = said
        .into_iter()
        .map(|(type_, status, reason, message)| {
            json!({
                "type": type_,
                "status": status,
                "observedGeneration": mesh.metadata.generation,
                "lastTransitionTime": since(conditions, type_, status, now),
                "reason": reason,
                "message": message,
            })
        })
        .collect();
    let features: Vec<Value> = FEATURES.iter().map(|name| json!({"name": name})).collect();
    let same =
        wanted.iter().all(|one| conditions.contains(one)) && held["supportedFeatures"] == json!(features);
    (!same).then(|| json!({"conditions": wanted, "supportedFeatures": features}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(controller: &str, more: Value, status: Value) -> DynamicObject {
        let mut mesh = json!({
            "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XMesh",
            "metadata": {"name": "weft", "generation": 1},
            "spec": {"controllerName": controller}, "status": status,
        });
        if more.is_object() {
            mesh["spec"]["parametersRef"] = more;
        }
        serde_json::from_value(mesh).expect("an object")
    }

    #[test]
    fn one_of_ours_hears_once_what_the_mesh_does() {
        let now = "2026-01-02T03:04:05Z";
        let pending = json!({"conditions": [{"type": "Accepted", "status": "Unknown", "reason": "Pending"}]});
        assert_eq!(unsaid(&mesh("example.net/mesh", Value::Null, pending.clone()), now), None);
        let said = unsaid(&mesh(api::CONTROLLER_NAME, Value::Null, pending), now).expect("something to say");
        assert_eq!(said["conditions"][0]["status"], "True");
        assert_eq!(said["conditions"][0]["lastTransitionTime"], now);
        assert_eq!(said["supportedFeatures"][7]["name"], "Mesh");
        assert!(FEATURES.is_sorted());
        let later = "2027-01-02T03:04:05Z";
        assert_eq!(unsaid(&mesh(api::CONTROLLER_NAME, Value::Null, said.clone()), later), None);
        let parameters = json!({"group": "", "kind": "ConfigMap", "name": "a"});
        let refused = unsaid(&mesh(api::CONTROLLER_NAME, parameters, said), later).expect("something to say");
        assert_eq!(refused["conditions"][0]["reason"], "InvalidParameters");
        assert_eq!(refused["conditions"][0]["lastTransitionTime"], later);
    }
}
