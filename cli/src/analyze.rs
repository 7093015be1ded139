//! `weft analyze`: everything that is wrong with objects, each where it is written.
//!
//! What control finds while it translates them, in its words; besides, rules that can never win and Pods without the
//! proxy that their Namespace asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::process::ExitCode;

use anyhow::Result;
use control_index::{Key, Kind, Problem};
use control_translate::{Detected, Mesh, problems, remarks, unmeshed};
use policy::{Routes, WorkloadName};
use serde::Serialize;

use crate::objects::{Objects, Source};
use crate::output::{self, Form};

#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    source: Source,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something does not do what it says.
    Error,
    /// It works, and perhaps not as it was meant.
    Warning,
    /// Nothing is wrong.
    Note,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// `HTTPRoute shop/product`; empty when it is not known.
    pub object: String,
    /// `shop/product.yaml:12`; empty in a cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub at: String,
    pub level: Level,
    /// `spec.rules[0]`; empty when the whole is meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    pub what: String,
}

#[derive(Serialize)]
struct Report {
    objects: usize,
    problems: Vec<Found>,
}

pub async fn run(options: &Options) -> Result<ExitCode> {
    let objects = match options.source.read().await {
        Ok(objects) => objects,
        Err(error) => {
            eprintln!("weft analyze: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let mesh = Mesh {
        index: &objects.index,
        detected: &Detected::default(),
        trust_domain: &options.source.trust_domain,
    };
    let report = Report { objects: objects.places.len(), problems: analyze(&objects, &mesh) };
    output::print(options.output, &report, || report.to_string())?;
    let errors = report.problems.iter().any(|one| one.level == Level::Error);
    Ok(if errors { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All that is wrong, by object.
pub fn analyze(objects: &Objects, mesh: &Mesh<'_>) -> Vec<Found> {
    let mut found: BTreeSet<Found> = objects
        .faults
        .iter()
        .map(|fault| Found {
            object: String::new(),
            at: fault.at.clone(),
            level: Level::Error,
            field: fault.field.clone(),
            what: fault.what.clone(),
        })
        .collect();
    for key in objects.places.keys() {
        found.extend(problems(mesh.index, key).iter().map(|problem| Found::of(objects, problem)));
        found.extend(remarks(mesh.index, key).iter().map(|remark| Found::noted(objects, remark)));
        found.extend(alone(objects, key));
    }
    found.extend(shadowed(objects, mesh));
    found.into_iter().collect()
}

/// A Pod without a proxy that nobody wanted so.
fn alone(objects: &Objects, key: &Key) -> Option<Found> {
    if key.kind != Kind::Pod {
        return None;
    }
    let pod = objects.index.pod(&WorkloadName::new(&key.namespace, &key.name))?;
    let found = unmeshed(&objects.index, pod).filter(|found| !found.wanted)?;
    Some(Found {
        what: format!("it has no proxy: {}", found.why),
        ..Found::about(objects, key, Level::Warning)
    })
}

/// Matches that can never win, as they are for somebody: the Service's own routes for everybody, and those that a namespace has for
/// itself for its clients.
fn shadowed(objects: &Objects, mesh: &Mesh<'_>) -> BTreeSet<Found> {
    let mut found = BTreeSet::new();
    let mut asked: BTreeMap<(policy::ServiceName, &str), ()> = BTreeMap::new();
    for route in mesh.index.routes() {
        for service in route.parents() {
            let own = service.namespace.to_string();
            asked.insert((service, if own == *route.key.namespace { "" } else { &route.key.namespace }), ());
        }
    }
    for (service, namespace) in asked.into_keys() {
        let Some(known) = mesh.index.service(&service) else { continue };
        let namespace = if namespace.is_empty() { &*service.namespace } else { namespace };
        for port in &known.ports {
            let policy = mesh.to_service(service.port(port.number), namespace);
            let (Routes::Http(table) | Routes::Grpc(table)) = &policy.routes else { continue };
            for one in table.shadowed() {
                let (lost, rule) = &table.matches()[one.at];
                let (winner, by) = &table.matches()[one.by];
                let (source, by) = (&table.rules()[*rule].source, &table.rules()[*by].source);
                let Some(key) = objects.key(&source.route.to_string()) else { continue };
                found.insert(Found {
                    field: format!("spec.rules[{}]", source.index),
                    what: format!("its match {lost} can never win: {by} goes before it with {winner}"),
                    ..Found::about(objects, &key, Level::Warning)
                });
            }
        }
    }
    found
}

impl Found {
    pub fn of(objects: &Objects, problem: &Problem) -> Self {
        // What is said of these is dealt with by the proxies, or will pass.
        let passes = problem.field.ends_with("appProtocol") || problem.field == "endpoints";
        let level = if passes { Level::Warning } else { Level::Error };
        Self {
            field: problem.field.clone(),
            what: problem.what.clone(),
            ..Self::about(objects, &problem.object, level)
        }
    }

    /// What is as it should be.
    pub fn noted(objects: &Objects, remark: &Problem) -> Self {
        Self { level: Level::Note, ..Self::of(objects, remark) }
    }

    fn about(objects: &Objects, key: &Key, level: Level) -> Self {
        let at = objects.places.get(key).cloned().unwrap_or_default();
        Self { object: key.to_string(), at, level, field: String::new(), what: String::new() }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.object, &self.field, &self.what].into_iter().filter(|part| !part.is_empty());
        f.write_str(&parts.cloned().collect::<Vec<_>>().join(": "))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for one in &self.problems {
            let head = match (one.object.as_str(), one.at.as_str()) {
                ("", at) => at.to_owned(),
                (object, "") => object.to_owned(),
                (object, at) => format!("{object} ({at})"),
            };
            if last.as_ref() != Some(&head) {
                writeln!(f, "{head}")?;
                last = Some(head);
            }
            let level = match one.level {
                Level::Error => "error",
                Level::Warning => "warning",
                Level::Note => "note",
            };
            let field = if one.field.is_empty() { String::new() } else { format!("{}: ", one.field) };
            writeln!(f, "  {level:<7}  {field}{}", one.what)?;
        }
        let count = |level| self.problems.iter().filter(|one| one.level == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warning));
        let counted = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        let objects = counted(self.objects, "object");
        match errors + warnings {
            0 => writeln!(f, "{objects}, nothing wrong"),
            _ => writeln!(f, "{objects}: {}, {}", counted(errors, "error"), counted(warnings, "warning")),
        }
    }
}
