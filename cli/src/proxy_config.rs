//! `weft proxy-config`: what a pod's proxy has learned from control, as the proxy tells it: destinations with their
//! endpoints, and the ports of its own program.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use crate::identity;
use crate::output::{self, Form};
use crate::target::Target;

/// `weft proxy-config --help` tells the rest.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// Form of the answer; json and yaml hold all that the proxy tells
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    pod: &'a str,
    #[serde(flatten)]
    config: &'a Value,
}

pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let said = options.target.ask().await?;
    let answer = Answer { pod: &said.pod, config: &said.config };
    output::print(options.output, &answer, || text(&said.pod, &said.config))?;
    Ok(ExitCode::SUCCESS)
}

fn text(pod: &str, config: &Value) -> String {
    let control = &config["control"];
    let reached = match (control["connected"].as_bool(), control["failure"].as_str()) {
        (Some(true), _) => "connected".to_owned(),
        (_, Some(why)) => format!("not reached: {why}"),
        _ => "not reached yet".to_owned(),
    };
    let mut text = format!("pod       {pod}\nidentity  {}\n", identity::named(config));
    text += &format!("control   {}, {reached}\n", plain(&control["address"]));
    let discovery = &config["discovery"];
    let destinations = watches(&discovery["outbound"]).map(|(address, watch)| {
        let answer = &watch["answer"];
        [address.to_owned(), target(answer), plain(&answer["protocol"]), plain(&watch["version"]), age(watch)]
    });
    text += &section(
        "Destinations that its program has dialled",
        ["ADDRESS", "TARGET", "PROTOCOL", "VERSION", "CONFIRMED"],
        destinations.collect(),
    );
    let endpoints = watches(&discovery["endpoints"]).flat_map(|(service, watch)| {
        let all = watch["answer"].as_array().map(Vec::as_slice).unwrap_or_default();
        let row = |endpoint: &Value| {
            let (workload, identity) = (plain(&endpoint["workload"]), plain(&endpoint["identity"]));
            [
                service.to_owned(),
                plain(&endpoint["address"]),
                workload,
                identity,
                plain(&watch["version"]),
                age(watch),
            ]
        };
        let nothing = all.is_empty().then(|| row(&Value::Null));
        nothing.into_iter().chain(all.iter().map(row)).collect::<Vec<_>>()
    });
    text += &section(
        "Endpoints of Services; one without an identity has no proxy",
        ["SERVICE", "ENDPOINT", "WORKLOAD", "IDENTITY", "VERSION", "CONFIRMED"],
        endpoints.collect(),
    );
    let ports = watches(&discovery["inbound"]).map(|(port, watch)| {
        let answer = &watch["answer"];
        [
            port.to_owned(),
            plain(&answer["service"]),
            plain(&answer["protocol"]),
            plain(&watch["version"]),
            age(watch),
        ]
    });
    text += &section(
        "Ports of its program that were dialled",
        ["PORT", "SERVICE", "PROTOCOL", "VERSION", "CONFIRMED"],
        ports.collect(),
    );
    text
}

fn section<const N: usize>(title: &str, header: [&str; N], rows: Vec<[String; N]>) -> String {
    if rows.is_empty() {
        return format!("\n{title}: none\n");
    }
    format!("\n{title}\n{}", output::table(header, rows))
}

fn watches(watches: &Value) -> impl Iterator<Item = (&str, &Value)> {
    watches.as_object().into_iter().flatten().map(|(question, watch)| (question.as_str(), watch))
}

fn target(answer: &Value) -> String {
    let target = &answer["target"];
    match (target["service"].as_str(), target["workload"]["workload"].as_str(), target.as_str()) {
        (Some(service), ..) => format!("service {service}"),
        (_, Some(workload), _) => format!("pod {workload}"),
        (_, _, Some(other)) => other.to_owned(),
        _ => plain(&target["workload"]["address"]),
    }
}

fn age(watch: &Value) -> String {
    let doubted = if watch["doubted"].is_null() { "" } else { ", doubted" };
    match watch["age_s"].as_u64() {
        Some(age) => format!("{age} s ago{doubted}"),
        None => "not yet".to_owned(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::{env, fs};

    /// `x.in.json` is what a proxy tells, `x.out.txt` what people see.
    #[test]
    fn what_a_proxy_tells_is_shown_as_written_down() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/proxy-config");
        for name in ["known", "new"] {
            let config = fs::read_to_string(folder.join(format!("{name}.in.json"))).unwrap();
            let shown = text("shop/cart-0", &serde_json::from_str(&config).unwrap());
            let file = folder.join(format!("{name}.out.txt"));
            if env::var_os("UPDATE").is_some() {
                fs::write(&file, &shown).unwrap();
            }
            let expected = fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(shown, expected, "{}: UPDATE=1 rewrites it", file.display());
        }
    }
}
