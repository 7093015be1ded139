//! The application's probes. Those by HTTP, gRPC and commands stay as they are: they reach the application through the
//! proxy. A connection alone would always be accepted, by the proxy; so a `tcpSocket` probe becomes a question to
//! the proxy, which connects to the application as it does for others. Pure.

use crate::values::Ports;
use init::plan::ADMIN_PORT;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Where the proxy answers whether a port of the application accepts connections.
const PATH: &str = "/probe/tcp/";

const PROBES: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];

/// Turns the `tcpSocket` probes of a container into questions to the proxy; the ports that they ask for are added to
/// `asked`, also those of probes that were turned earlier. Probes of ports that pass by the proxy stay.
pub fn turn(container: &mut Value, past_the_proxy: &Ports, asked: &mut BTreeSet<u16>) {
    let ports = container.get("ports").cloned().unwrap_or_default();
    for name in PROBES {
        let Some(Value::Object(probe)) = container.get_mut(name) else { continue };
        if let Some(port) = probe.get("httpGet").and_then(turned) {
            asked.insert(port);
            continue;
        }
        let Some(socket) = probe.get("tcpSocket") else { continue };
        // A host of its own: the kubelet connects elsewhere, not to this pod.
        if socket.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
            continue;
        }
        // A name that is nobody's fails in the kubelet, with its own words.
        let Some(port) = socket.get("port").and_then(|port| number(port, &ports)) else { continue };
        if past_the_proxy.contains(port) {
            continue;
        }
        probe.remove("tcpSocket");
        let path = format!("{PATH}{port}");
        probe.insert("httpGet".into(), json!({"path": path, "port": ADMIN_PORT, "scheme": "HTTP"}));
        asked.insert(port);
    }
}

/// The port that a probe asks the proxy for already.
fn turned(http: &Value) -> Option<u16> {
    let is_ours = http.get("port").and_then(Value::as_u64) == Some(ADMIN_PORT.into());
    let path = http.get("path")?.as_str()?;
    path.strip_prefix(PATH).filter(|_| is_ours)?.parse().ok()
}

/// As the kubelet reads it: a number, the name of a port of this container, or a number in quotes.
fn number(port: &Value, ports: &Value) -> Option<u16> {
    let number = match port {
        Value::String(name) => {
            let named = |port: &&Value| port.get("name").and_then(Value::as_str) == Some(name);
            match ports.as_array().and_then(|ports| ports.iter().find(named)) {
                Some(port) => port.get("containerPort")?.as_u64()?,
                None => name.parse().ok()?,
            }
        }
        other => other.as_u64()?,
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}
