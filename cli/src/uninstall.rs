//! `weft uninstall`: what was applied goes, the webhooks first, so that nothing that is left refuses a pod; then what
//! control and the injector made at run time. The issuer's Secret stays: with it, a mesh that comes back is the same. So
//! do the definitions of our kinds, as all policies in the cluster would go with them.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::Value;

use crate::cluster::{Cluster, Connection, Failure};
use crate::install;
use crate::manifests::{self, MANAGED_BY, Object, PART_OF};
use crate::names::{INJECTED, INJECTOR_TLS, ISSUER, TRUST_ROOTS};

/// Meshed pods that are named before the rest is counted.
const NAMED: usize = 20;

/// `weft uninstall --help` tells the rest.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Namespace of the mesh
    #[arg(short, long, value_name = "NAMESPACE", default_value = manifests::NAMESPACE)]
    namespace: String,
    /// Even while meshed pods run: their proxies go on with the certificates they have, until these expire
    #[arg(long)]
    force: bool,
    /// The issuer's Secret too, the namespace, and all policies with their definitions: a mesh installed later has other
    /// roots, and no policies
    #[arg(long)]
    purge: bool,
}

/// Uninstalls, telling on stdout each thing that went.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let cluster = options.connection.open().await?;
    refuse_helm(&cluster, &options.namespace).await?;
    let mut objects = install::applied(&cluster).await?;
    objects.retain(|object| {
        object.namespace.as_ref().is_none_or(|namespace| *namespace == options.namespace)
            && (object.resource.kind != "Namespace" || object.name == options.namespace)
            && (object.resource.kind != manifests::CRD || options.purge)
    });
    let meshed = meshed_pods(&cluster).await?;
    if !meshed.is_empty() && !options.force {
        tell(&meshed);
        return Ok(ExitCode::FAILURE);
    }
    let mut gone = remove(&cluster, &objects).await?;
    gone += remove_made(&cluster, options).await?;
    let namespace = objects.iter().find(|object| object.resource.kind == "Namespace");
    if let Some(namespace) = namespace.filter(|_| options.purge) {
        gone += delete(&cluster, &namespace.path(), &namespace.title()).await?;
        let name = &namespace.name;
        println!(
            "it goes when all in it has ended; before installing anew: kubectl wait --for=delete namespace/{name}"
        );
    }
    if gone == 0 {
        println!("nothing of a mesh was found in namespace {}", options.namespace);
    } else if !options.purge {
        let namespace = &options.namespace;
        println!(
            "kept: namespace {namespace} and in it the Secret {ISSUER}, if there is one: a mesh installed there later \
             is trusted by the same proxies; and all policies with the definitions of their kinds. `weft uninstall \
             --purge` deletes them"
        );
    }
    if !meshed.is_empty() {
        println!("{} pods still have proxies: restart them (kubectl rollout restart)", meshed.len());
    }
    Ok(ExitCode::SUCCESS)
}

async fn refuse_helm(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/weft-control");
    let found: Option<Value> = match cluster.find(&path).await {
        Ok(found) => found,
        Err(why) => bail!("Deployment {namespace}/weft-control cannot be looked at: {why}"),
    };
    if found.is_some_and(|found| found["metadata"]["labels"][MANAGED_BY] == "Helm") {
        bail!("the mesh in namespace {namespace} is Helm's: helm uninstall --namespace {namespace} RELEASE");
    }
    Ok(())
}

/// Pods with a proxy that have not ended: namespace/name.
async fn meshed_pods(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let pods: Vec<Value> = match cluster.list("/api/v1/pods", &format!("{INJECTED}=true")).await {
        Ok(pods) => pods,
        Err(why) => bail!("meshed pods cannot be listed: {why}"),
    };
    let runs = |pod: &&Value| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let name = |pod: &Value| {
        let at = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", at("namespace"), at("name"))
    };
    Ok(pods.iter().filter(runs).map(name).collect())
}

fn tell(meshed: &[String]) {
    eprintln!("weft: {} meshed pods still run; nothing was deleted:", meshed.len());
    for pod in meshed.iter().take(NAMED) {
        eprintln!("  {pod}");
    }
    if meshed.len() > NAMED {
        eprintln!("  and {} more", meshed.len() - NAMED);
    }
    eprintln!(
        "Without control their certificates expire, and connections between them fail. Take the label \
         weft.mesh/inject off their namespaces and restart them, or go on by --force."
    );
}

async fn remove(cluster: &Cluster, objects: &[Object]) -> anyhow::Result<usize> {
    let mut gone = 0;
    // In the reverse order of application: the webhooks were applied last.
    for object in objects.iter().rev().filter(|object| object.resource.kind != "Namespace") {
        gone += delete(cluster, &object.path(), &object.title()).await?;
    }
    Ok(gone)
}

/// What control and the injector have made.
async fn remove_made(cluster: &Cluster, options: &Options) -> anyhow::Result<usize> {
    let namespace = &options.namespace;
    let mut gone = 0;
    let roots: Vec<Value> = match cluster.list("/api/v1/configmaps", &format!("{PART_OF}=weft")).await {
        Ok(roots) => roots,
        Err(why) => bail!("ConfigMaps {TRUST_ROOTS} cannot be listed: {why}"),
    };
    for map in roots.iter().filter(|map| map["metadata"]["name"] == TRUST_ROOTS) {
        let Some(place) = map["metadata"]["namespace"].as_str() else { continue };
        let path = format!("/api/v1/namespaces/{place}/configmaps/{TRUST_ROOTS}");
        gone += delete(cluster, &path, &format!("ConfigMap {place}/{TRUST_ROOTS}")).await?;
    }
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/weft-control");
    gone += delete(cluster, &lease, &format!("Lease {namespace}/weft-control")).await?;
    let mut secrets = vec![INJECTOR_TLS];
    secrets.extend(options.purge.then_some(ISSUER));
    for secret in secrets {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{secret}");
        gone += delete(cluster, &path, &format!("Secret {namespace}/{secret}")).await?;
    }
    Ok(gone)
}

async fn delete(cluster: &Cluster, path: &str, title: &str) -> anyhow::Result<usize> {
    match cluster.delete(path).await {
        Ok(true) => {
            println!("deleted {title}");
            Ok(1)
        }
        Ok(false) => Ok(0),
        Err(Failure::Forbidden(why)) => bail!("{title} may not be deleted: {why}"),
        Err(why) => bail!("{title} was not deleted: {why}"),
    }
}
