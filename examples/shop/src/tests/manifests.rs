//! Holds `examples/manifests` to this program and to itself: every flag and variable is one that the program takes,
//! every URL is a Service that exists and selects pods, and nothing but the namespace's label speaks of the mesh.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::{CommandFactory, Parser};
use serde_json::Value;

use crate::args::{Args, Role};
use crate::roles::Service;

const IMAGE: &str = concat!("weft.mesh/shop:", env!("CARGO_PKG_VERSION"));

/// Every document, with the name of its file.
fn documents() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut documents = Vec::new();
    for path in files {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let parsed: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        documents.extend(parsed.into_iter().map(|document| (file.clone(), document)));
    }
    documents
}

fn of_kind<'a>(documents: &'a [(String, Value)], kind: &str) -> BTreeMap<&'a str, &'a Value> {
    let those = documents.iter().map(|(_, document)| document).filter(|document| document["kind"] == kind);
    those.map(|document| (document["metadata"]["name"].as_str().unwrap(), document)).collect()
}

/// The container's arguments and environment as this program reads them.
fn parse(container: &Value) -> Args {
    let mut line = vec!["weft-shop".to_owned()];
    line.extend(container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned()));
    let command = Args::command();
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap();
        let flag = command.get_arguments().find(|arg| arg.get_env().is_some_and(|env| env == name));
        let flag = flag.and_then(|arg| arg.get_long()).unwrap_or_else(|| panic!("nobody reads {name}"));
        line.push(format!("--{flag}={}", variable["value"].as_str().expect("a string, as Kubernetes wants")));
    }
    Args::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_deployment_starts_with_what_it_is_given() {
    let documents = documents();
    let deployments = of_kind(&documents, "Deployment");
    let names: Vec<_> = deployments.keys().copied().collect();
    assert_eq!(names, ["auth", "cart", "customer", "order", "product-v1", "product-v2", "review", "visitor"]);
    let accounts = of_kind(&documents, "ServiceAccount");
    for (name, deployment) in deployments {
        let template = &deployment["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], *labels, "{name}");
        let account = template["spec"]["serviceAccountName"].as_str().unwrap();
        assert!(accounts.contains_key(account), "{name} runs as {account}");
        let container = &template["spec"]["containers"][0];
        assert_eq!(container["image"], IMAGE, "{name}");
        let args = parse(container);
        if args.role == Role::Visitor {
            assert!(args.visit.target.is_some());
            continue;
        }
        assert_eq!(labels["version"], args.version, "{name}");
        assert_eq!(container["ports"][0]["containerPort"], args.listen.port(), "{name}");
        assert_eq!(container["readinessProbe"]["httpGet"]["port"], container["ports"][0]["name"], "{name}");
        let service = Service::new(args.role, &args.version, args.upstreams).expect(name);
        assert_eq!(service.to_string(), format!("{}-{}", labels["app"].as_str().unwrap(), args.version));
    }
}

#[test]
fn every_url_is_a_service_with_pods_behind_it() {
    let documents = documents();
    let (services, deployments) = (of_kind(&documents, "Service"), of_kind(&documents, "Deployment"));
    let pods_of = |service: &Value| {
        let selector = service["spec"]["selector"].as_object().unwrap();
        let selected = |deployment: &&&Value| {
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            selector.iter().all(|(key, value)| labels[key] == *value)
        };
        deployments.values().filter(selected).count()
    };
    for (name, service) in &services {
        assert_eq!(pods_of(service), if *name == "product" { 2 } else { 1 }, "{name}");
    }
    let mut edges = 0;
    for (name, deployment) in &deployments {
        let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
        let urls =
            env.as_array().into_iter().flatten().filter(|v| v["name"].as_str().unwrap().ends_with("_URL"));
        for url in urls {
            let url = url["value"].as_str().unwrap();
            let called = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix(".shop:8080"));
            let port =
                services.get(called.unwrap_or(url)).map(|service| &service["spec"]["ports"][0]["port"]);
            assert_eq!(port, Some(&Value::from(8080)), "{name} calls {url}");
            edges += 1;
        }
    }
    // visitor 1, customer 4, cart 2, order 3, product 1 for each of two versions
    assert_eq!(edges, 12);
}

#[test]
fn only_the_namespace_knows_of_the_mesh() {
    for (file, mut document) in documents() {
        let namespace = &document["metadata"]["namespace"];
        if document["kind"] == "Namespace" {
            let labels = document["metadata"]["labels"].take();
            assert_eq!(labels, serde_json::json!({"weft.mesh/inject": "enabled"}));
        } else {
            assert_eq!(namespace, "shop", "{file}");
        }
        let text = document.to_string().replace(IMAGE, "");
        assert!(!text.contains("weft.mesh"), "{file}");
    }
}
