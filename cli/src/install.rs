//! `weft install` and `weft upgrade`: the embedded manifests to the cluster, by server-side apply.
//!
//! What Helm has installed stays Helm's. What somebody else changed stays his, unless `--force-conflicts` takes it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;
use tokio::time::sleep;

use crate::cluster::{Cluster, Connection, FIELD_MANAGER, Failure};
use crate::manifests::{self, Fit, MANAGED_BY, MANAGER, Object, PART_OF, RESOURCES, Variant};
use crate::readiness;

/// Between two looks at what is not ready yet.
const LOOK: Duration = Duration::from_secs(1);

/// What to install and how; `weft install --help` tells the rest.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    connection: Connection,
    /// Namespace of the mesh; made if it is not there
    #[arg(short, long, value_name = "NAMESPACE", default_value = manifests::NAMESPACE)]
    namespace: String,
    /// Several replicas of control and injector, apart from each other
    #[arg(long, conflicts_with = "cni")]
    ha: bool,
    /// Redirect by a CNI plugin: pods need no NET_ADMIN. An agent runs on each node
    #[arg(long)]
    cni: bool,
    /// Where the images come from: PREFIX/proxy:TAG
    #[arg(long, value_name = "PREFIX", default_value = manifests::IMAGE_PREFIX)]
    image_prefix: String,
    /// The images' tag
    #[arg(long, value_name = "TAG", default_value = manifests::VERSION)]
    image_tag: String,
    /// Print the manifests, for `kubectl apply --server-side -f -`, and touch nothing
    #[arg(long)]
    print: bool,
    /// Take fields that others have changed
    #[arg(long)]
    force_conflicts: bool,
    /// Wait this long until all is ready
    #[arg(long, value_name = "SECONDS", default_value = "300", conflicts_with = "no_wait")]
    timeout: u64,
    /// Do not wait until all is ready
    #[arg(long)]
    no_wait: bool,
}

/// Whether something may be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It need not.
    Install,
    /// It must; what the new manifests do not have any more is deleted.
    Upgrade,
}

impl Options {
    fn objects(&self) -> anyhow::Result<Vec<Object>> {
        let variant = match (self.ha, self.cni) {
            (true, _) => Variant::Ha,
            (_, true) => Variant::Cni,
            _ => Variant::Default,
        };
        let fit = Fit {
            namespace: self.namespace.clone(),
            image_prefix: self.image_prefix.trim_end_matches('/').to_owned(),
            image_tag: self.image_tag.clone(),
        };
        manifests::objects(variant.rendering(), &fit)
    }
}

/// Installs or upgrades. Progress goes to stderr, what was done to stdout.
pub async fn run(options: &Options, mode: Mode) -> anyhow::Result<ExitCode> {
    let objects = options.objects()?;
    if options.print {
        print!("{}", manifests::yaml(&objects)?);
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = options.connection.open().await?;
    let present = inspect(&cluster, &objects).await?;
    if mode == Mode::Upgrade && !present {
        bail!("no mesh in namespace {}: `weft install` makes one", options.namespace);
    }
    let mut changed = apply(&cluster, &objects, options.force_conflicts).await?;
    if mode == Mode::Upgrade {
        changed += prune(&cluster, &objects).await?;
    }
    if changed == 0 {
        println!("nothing to change");
    }
    if options.no_wait {
        println!("not waited for; `weft check` tells whether all is well");
        return Ok(ExitCode::SUCCESS);
    }
    if !wait(&cluster, &objects, Duration::from_secs(options.timeout)).await? {
        return Ok(ExitCode::FAILURE);
    }
    println!("ready: Weft {} in namespace {}", options.image_tag, options.namespace);
    if mode == Mode::Upgrade {
        println!(
            "pods keep the proxies they have until they are replaced: kubectl rollout restart deployment"
        );
    } else {
        println!("next: kubectl label namespace NAME weft.mesh/inject=enabled, and restart its pods");
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the mesh is there. Helm's is refused.
async fn inspect(cluster: &Cluster, objects: &[Object]) -> anyhow::Result<bool> {
    let mut present = false;
    for object in objects.iter().filter(|object| object.resource.kind != "Namespace") {
        let found: Option<Value> = cluster.find(&object.path()).await.map_err(|why| lookup(object, &why))?;
        let Some(found) = found else { continue };
        if found.pointer("/metadata/labels").is_some_and(|labels| labels[MANAGED_BY] == "Helm") {
            let annotations = &found["metadata"]["annotations"];
            bail!(
                "{} belongs to Helm's release {} in namespace {}: use `helm upgrade`, or `helm uninstall` it first",
                object.title(),
                annotations["meta.helm.sh/release-name"].as_str().unwrap_or("(unnamed)"),
                annotations["meta.helm.sh/release-namespace"].as_str().unwrap_or("(unnamed)"),
            );
        }
        present |= matches!(object.resource.kind, "Deployment");
    }
    Ok(present)
}

/// Applies all; the number of those that were new or are not what they were.
async fn apply(cluster: &Cluster, objects: &[Object], force: bool) -> anyhow::Result<usize> {
    let mut changed = 0;
    for object in objects {
        let before: Option<Value> = cluster.find(&object.path()).await.map_err(|why| lookup(object, &why))?;
        let after = match cluster.apply(&object.path(), &object.value, force).await {
            Ok(after) => after,
            Err(Failure::Conflict(fields)) => bail!(
                "{} is changed by others: {}. Let them go back, or take the fields by --force-conflicts",
                object.title(),
                fields.join("; ")
            ),
            Err(Failure::Forbidden(why)) => {
                bail!("{} may not be applied: {why}. `weft check --pre` lists what is needed", object.title())
            }
            Err(why) => bail!("{} was not taken: {why}", object.title()),
        };
        let version = |value: &Value| value.pointer("/metadata/resourceVersion").cloned();
        match &before {
            None => println!("created {}", object.title()),
            Some(before) if version(before) != version(&after) => println!("changed {}", object.title()),
            Some(_) => continue,
        }
        changed += 1;
    }
    Ok(changed)
}

/// Deletes what was applied once and is not among the objects any more.
async fn prune(cluster: &Cluster, objects: &[Object]) -> anyhow::Result<usize> {
    let kept: BTreeSet<_> = objects.iter().map(Object::path).collect();
    let mut gone = 0;
    for object in applied(cluster).await?.iter().rev() {
        if object.resource.kind == "Namespace" || kept.contains(&object.path()) {
            continue;
        }
        if cluster.delete(&object.path()).await.map_err(|why| lookup(object, &why))? {
            println!("deleted {}: the mesh has it no more", object.title());
            gone += 1;
        }
    }
    Ok(gone)
}

/// Everything in the cluster that was applied by `weft install` or `weft upgrade`, in the order of application. Objects
/// that control and injector make at run time are not among them.
pub async fn applied(cluster: &Cluster) -> anyhow::Result<Vec<Object>> {
    let selector = format!("{MANAGED_BY}={MANAGER},{PART_OF}=weft");
    let mut found = Vec::new();
    for resource in RESOURCES {
        let listed: Vec<Value> = match cluster.list(&resource.collection(None), &selector).await {
            Ok(listed) => listed,
            Err(Failure::Absent) => continue,
            Err(why) => bail!("{} cannot be listed: {why}", resource.plural),
        };
        for value in listed.into_iter().filter(is_applied) {
            let at = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
            let (Some(name), namespace) = (at("name"), at("namespace")) else { continue };
            found.push(Object { resource, namespace, name, value });
        }
    }
    Ok(found)
}

fn is_applied(object: &Value) -> bool {
    let fields = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    fields.is_some_and(|fields| {
        fields.iter().any(|entry| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply")
    })
}

/// Until everything is ready, telling what is missing each time that it is another thing; false when time is up.
async fn wait(cluster: &Cluster, objects: &[Object], patience: Duration) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let mut told = BTreeSet::new();
    loop {
        let missing = readiness::missing(cluster, objects).await?;
        if missing.is_empty() {
            return Ok(true);
        }
        for what in missing.difference(&told) {
            eprintln!("waiting: {what}");
        }
        if begun.elapsed() >= patience {
            eprintln!("weft: not ready within {} s:", patience.as_secs());
            for what in &missing {
                eprintln!("  {what}");
            }
            eprintln!("`weft check` looks closer");
            return Ok(false);
        }
        told = missing;
        sleep(LOOK).await;
    }
}

fn lookup(object: &Object, why: &Failure) -> anyhow::Error {
    anyhow::anyhow!("{}: {why}", object.title())
}
