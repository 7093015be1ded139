//! How long requests may take and how often they are tried, faults and direct responses: an HTTPRoute's own fields where
//! it has them, a TrafficPolicy's for the rest.

use std::time::Duration;

use policy::grpc::CODES;
use serde_json::{Map, Value, json};

use crate::duration;
use crate::output::object;
use crate::tree::Node;

/// What a rule says of time and failure, by the places in which it can be said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resilience {
    pub request: Option<String>,
    pub backend_request: Option<String>,
    pub attempts: Option<u64>,
    pub codes: Vec<u16>,
    pub grpc_codes: Vec<String>,
    pub reasons: Vec<&'static str>,
    pub backoff: Option<String>,
    pub other_host: Option<bool>,
    pub fault: Map<String, Value>,
    pub direct_response: Map<String, Value>,
}

/// Attempts after the first one, at most (TrafficPolicy.retry.attempts).
const MAX_ATTEMPTS: u64 = 10;
/// Characters of a direct response's body.
const MAX_BODY: usize = 4096;
/// Attempts after the first one that Istio makes where `attempts` is not there.
const DEFAULT_ATTEMPTS: u64 = 2;
/// The statuses that are assigned (IANA, HTTP Status Code Registry).
const SERVER_ERRORS: [u16; 11] = [500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511];

pub(crate) fn read(rule: &Node) -> Resilience {
    let request = rule.field("timeout").and_then(duration::carry);
    let mut found = Resilience { request, ..Resilience::default() };
    if let Some(retries) = rule.field("retries") {
        found.read_retries(retries, rule);
    }
    if let Some(fault) = rule.field("fault") {
        found.fault = read_fault(fault);
    }
    if let Some(response) = rule.field("directResponse") {
        found.direct_response = read_direct_response(response);
    }
    found
}

impl Resilience {
    fn read_retries(&mut self, retries: &Node, rule: &Node) {
        retries.fields();
        let attempts = retries.field("attempts");
        let count = attempts.and_then(Node::number).unwrap_or(DEFAULT_ATTEMPTS);
        if count == 0 {
            retries.note("no retries: nothing is sent again unless a policy asks for it", "");
            for name in
                ["perTryTimeout", "retryOn", "backoff", "retryRemoteLocalities", "retryIgnorePreviousHosts"]
            {
                if let Some(node) = retries.field(name) {
                    node.note("left out: there are no retries", "");
                }
            }
            return;
        }
        if count > MAX_ATTEMPTS {
            let remedy = "raise timeouts rather than attempts";
            retries.note(format!("{count} attempts become {MAX_ATTEMPTS}, the most there may be"), remedy);
        }
        match retries.text_at("retryOn").filter(|on| !on.trim().is_empty()) {
            Some(on) => {
                let node = retries.field("retryOn").expect("it was read above");
                on.split(',').map(str::trim).for_each(|condition| self.read_condition(condition, node));
            }
            // Istio's own: connect-failure, refused-stream, unavailable, cancelled.
            None => self.grpc_codes = vec!["UNAVAILABLE".to_owned(), "CANCELLED".to_owned()],
        }
        if self.codes.is_empty() && self.grpc_codes.is_empty() && self.reasons.is_empty() {
            for name in ["attempts", "perTryTimeout", "backoff", "retryIgnorePreviousHosts"] {
                if let Some(node) = retries.field(name) {
                    node.drop(
                        "of these failures every proxy sends a request again by itself, as often as there are \
                         endpoints to try",
                        "",
                    );
                }
            }
        } else {
            self.attempts = Some(count.min(MAX_ATTEMPTS));
            self.backoff = retries.field("backoff").and_then(duration::carry);
            self.other_host = retries.field("retryIgnorePreviousHosts").and_then(Node::truth);
            self.read_per_try_timeout(retries, rule);
        }
        if let Some(node) = retries.field("retryRemoteLocalities") {
            node.drop("another attempt goes to any endpoint that the balancer may take", "");
        }
    }

    /// One attempt may not take longer than all of them.
    fn read_per_try_timeout(&mut self, retries: &Node, rule: &Node) {
        let Some(node) = retries.field("perTryTimeout") else { return };
        let all = rule.field("timeout").and_then(duration::read).filter(|all| !all.is_zero());
        match (duration::read(node), all) {
            (Some(Duration::ZERO), Some(_)) => {}
            (Some(one), Some(all)) if one > all => {
                node.note("it is longer than timeout, and never reached", "")
            }
            _ => self.backend_request = duration::carry(node),
        }
    }

    fn read_condition(&mut self, condition: &str, node: &Node) {
        let mut codes = |codes: &[u16]| {
            for code in codes {
                if !self.codes.contains(code) {
                    self.codes.push(*code);
                }
            }
        };
        match condition {
            "" => {}
            "5xx" => {
                codes(&SERVER_ERRORS);
                self.reasons(&["connection_terminated", "http_response_incomplete"]);
                node.note(
                    "5xx becomes the statuses from 500 on that are assigned",
                    "add others that you use",
                );
            }
            "gateway-error" => codes(&[502, 503, 504]),
            "retriable-4xx" => codes(&[409]),
            "reset" => self.reasons(&["connection_terminated", "http_response_incomplete"]),
            // What a server has surely not executed is always sent again.
            "connect-failure" | "refused-stream" | "reset-before-request" => {}
            // The codes stand beside it.
            "retriable-status-codes" => {}
            "cancelled" | "deadline-exceeded" | "internal" | "resource-exhausted" | "unavailable" => {
                let name = condition.to_ascii_uppercase().replace('-', "_");
                if !self.grpc_codes.contains(&name) {
                    self.grpc_codes.push(name);
                }
            }
            number => match number.parse::<u16>() {
                Ok(code @ 400..=599) => codes(&[code]),
                _ => node.drop(
                    format!("{condition}: there is no such condition for a retry; the others are carried"),
                    "name statuses or reasons in the TrafficPolicy",
                ),
            },
        }
    }

    fn reasons(&mut self, reasons: &[&'static str]) {
        for reason in reasons {
            if !self.reasons.contains(reason) {
                self.reasons.push(reason);
            }
        }
    }

    /// `HTTPRoute.spec.rules[].timeouts`.
    pub fn route_timeouts(&self) -> Map<String, Value> {
        object([("request", text(&self.request)), ("backendRequest", text(&self.backend_request))])
    }

    /// `HTTPRoute.spec.rules[].retry`; empty where it has nothing to look for.
    pub fn route_retry(&self) -> Map<String, Value> {
        match (&self.codes[..], self.attempts) {
            ([], _) | (_, None) => Map::new(),
            (codes, Some(attempts)) => object([
                ("attempts", attempts.into()),
                ("backoff", text(&self.backoff)),
                ("codes", codes.into()),
            ]),
        }
    }

    /// `TrafficPolicy.spec` without its targets: what the route does not say. `in_route`: it has timeouts and retries.
    pub fn policy(&self, in_route: bool) -> Map<String, Value> {
        let mut retry = Map::new();
        let said = in_route && !self.codes.is_empty();
        if let Some(attempts) = self.attempts
            && self.direct_response.is_empty()
        {
            let codes = if in_route { &[][..] } else { &self.codes[..] };
            retry = object([
                ("httpCodes", codes.into()),
                ("grpcCodes", self.grpc_codes.clone().into()),
                ("reasons", self.reasons.clone().into()),
            ]);
            if let Some(other) = self.other_host {
                retry.insert("otherHost".into(), other.into());
            }
            if !retry.is_empty() && !said {
                retry.insert("attempts".into(), attempts.into());
                if let Some(backoff) = &self.backoff {
                    retry.insert("backoff".into(), json!({"base": backoff}));
                }
            }
        }
        let timeouts = if in_route { Map::new() } else { self.route_timeouts() };
        object([
            ("timeouts", timeouts.into()),
            ("retry", retry.into()),
            ("fault", self.fault.clone().into()),
            ("directResponse", self.direct_response.clone().into()),
        ])
    }
}

fn text(text: &Option<String>) -> Value {
    text.as_deref().map_or(Value::Null, Value::from)
}

fn read_fault(fault: &Node) -> Map<String, Value> {
    let mut found = Map::new();
    if let Some(delay) = fault.field("delay") {
        let time = delay.field("fixedDelay").and_then(duration::carry);
        let share = share(delay);
        if time.is_none() {
            delay.drop("a delay is of a fixed time", "use fixedDelay");
        }
        match (time, share) {
            (Some(time), Some(share)) => {
                found.insert("delay".into(), json!({"duration": time, "percent": share}));
            }
            (Some(_), None) => {
                delay.note("it has no percentage, so that no request is delayed: left out", "")
            }
            _ => {}
        }
    }
    if let Some(abort) = fault.field("abort") {
        let status = abort.field("httpStatus").and_then(|node| {
            let code = node.number().filter(|code| (200..=599).contains(code));
            code.map(|code| ("httpStatus", Value::from(code)))
        });
        let status = status.or_else(|| abort.field("grpcStatus").and_then(grpc_status));
        if status.is_none() {
            abort.drop(
                "a fault answers with a status of HTTP from 200 to 599, or with one of gRPC's",
                "use httpStatus, or grpcStatus with UNAVAILABLE or another of its names",
            );
        }
        match (status, share(abort)) {
            (Some((field, status)), Some(share)) => {
                found.insert("abort".into(), json!({field: status, "percent": share}));
            }
            (Some(_), None) => {
                abort.note("it has no percentage, so that no request is aborted: left out", "")
            }
            _ => {}
        }
    }
    found
}

/// By name or, as a text too, by number.
fn grpc_status(node: &Node) -> Option<(&'static str, Value)> {
    let text = node.text()?;
    let named = CODES.iter().find(|name| text.eq_ignore_ascii_case(name));
    let name = named.or_else(|| CODES.get(text.parse::<usize>().ok()?))?;
    Some(("grpcStatus", (*name).into()))
}

/// The share of requests that a fault meets, in percent; `None` where it meets none.
fn share(fault: &Node) -> Option<Value> {
    let (node, percent) = match fault.field("percentage") {
        Some(percentage) => match percentage.field("value") {
            Some(node) => (node, node.decimal()?),
            None => {
                percentage.fields();
                return None;
            }
        },
        None => {
            let node = fault.field("percent")?;
            (node, node.decimal()?)
        }
    };
    let hundredths = (percent * 100.0).round();
    if !(0.0..=10_000.0).contains(&hundredths) {
        node.drop("a share is from 0 to 100 percent", "write one");
        return None;
    }
    if hundredths != percent * 100.0 && (hundredths - percent * 100.0).abs() > 1e-6 {
        node.note("a share is rounded to the hundredth of a percent", "");
    }
    let percent = hundredths / 100.0;
    Some(if percent.fract() == 0.0 { (percent as u32).into() } else { percent.into() })
}

fn read_direct_response(response: &Node) -> Map<String, Value> {
    let Some(status) = response.field("status").and_then(Node::number) else { return Map::new() };
    if !(200..=599).contains(&status) {
        response.drop("a response has a status from 200 to 599", "choose one");
        return Map::new();
    }
    let mut found = object([("status", status.into())]);
    if let Some(body) = response.field("body") {
        if let Some(node) = body.field("string") {
            match node.text() {
                Some(text) if text.chars().count() <= MAX_BODY => {
                    found.insert("body".into(), text.into());
                }
                _ => node.drop(
                    format!("the body of a direct response has {MAX_BODY} characters at most"),
                    "shorten it",
                ),
            }
        }
        if let Some(bytes) = body.field("bytes") {
            bytes.drop("the body of a direct response is a text", "write it as string");
        }
    }
    found
}
