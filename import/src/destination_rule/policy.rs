//! A `trafficPolicy` in our terms: limits, outlier detection, times, sessions, TLS. What it is attached to is told in the
//! module above.

use serde_json::{Map, Value, json};

use crate::duration;
use crate::output::object as compact;
use crate::tree::Node;

/// The greatest limit of a BackendPolicy; more than that is none.
const MAX_LIMIT: u64 = 1_000_000;
/// What holds in Istio where a DestinationRule does not say it.
const FAILURES: u64 = 5;
const EJECTION: &str = "30s";
const MAX_EJECTION: std::time::Duration = std::time::Duration::from_secs(300);
const EJECTION_PERCENT: u64 = 10;

/// A `trafficPolicy` in parts that are inherited one by one: where a subset names a part, its own holds as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Policy {
    pub connection_pool: Option<Pool>,
    pub failure_accrual: Option<Value>,
    pub session: Option<Value>,
    pub retry_budget: Option<Value>,
    pub tls: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pool {
    pub limits: Map<String, Value>,
    pub timeouts: Map<String, Value>,
}

impl Policy {
    pub fn or(self, base: &Policy) -> Policy {
        Policy {
            connection_pool: self.connection_pool.or_else(|| base.connection_pool.clone()),
            failure_accrual: self.failure_accrual.or_else(|| base.failure_accrual.clone()),
            session: self.session.or_else(|| base.session.clone()),
            retry_budget: self.retry_budget.or_else(|| base.retry_budget.clone()),
            tls: self.tls.or_else(|| base.tls.clone()),
        }
    }

    /// `BackendPolicy.spec` without its targets.
    pub fn backend(&self) -> Map<String, Value> {
        let limits = self.connection_pool.as_ref().map(|pool| pool.limits.clone()).unwrap_or_default();
        compact([
            ("limits", limits.into()),
            ("failureAccrual", self.failure_accrual.clone().unwrap_or_default()),
            ("sessionPersistence", self.session.clone().unwrap_or_default()),
            ("retryBudget", self.retry_budget.clone().unwrap_or_default()),
        ])
    }

    /// `TrafficPolicy.spec` without its targets.
    pub fn traffic(&self) -> Map<String, Value> {
        let timeouts = self.connection_pool.as_ref().map(|pool| pool.timeouts.clone()).unwrap_or_default();
        compact([("timeouts", timeouts.into())])
    }
}

/// Reads a `trafficPolicy` or the settings of a port.
pub(super) fn read(policy: &Node) -> Policy {
    policy.fields();
    for (field, why, remedy) in [
        ("tunnel", "connections are not tunnelled through another proxy", "connect to that proxy yourself"),
        ("proxyProtocol", "no PROXY protocol is spoken", "see whether the application needs it"),
    ] {
        if let Some(node) = policy.field(field) {
            node.drop(why, remedy);
        }
    }
    Policy {
        connection_pool: policy.field("connectionPool").map(read_pool),
        failure_accrual: policy.field("outlierDetection").map(read_outliers),
        session: policy.field("loadBalancer").and_then(read_balancer),
        retry_budget: policy.field("retryBudget").map(read_budget),
        tls: policy.field("tls").map(read_tls),
    }
}

fn limit(node: &Node) -> Option<Value> {
    let limit = node.number()?;
    match limit {
        0 => {
            node.drop("a limit is at least 1", "leave it out, or write one");
            None
        }
        _ if limit > MAX_LIMIT => {
            node.note("so much is no limit: left out", "");
            None
        }
        _ => Some(limit.into()),
    }
}

fn read_pool(pool: &Node) -> Pool {
    let mut limits = Map::new();
    let mut timeouts = Map::new();
    for (part, field, ours) in [
        ("tcp", "maxConnections", "maxConnections"),
        ("http", "http1MaxPendingRequests", "maxPendingRequests"),
        ("http", "http2MaxRequests", "maxRequests"),
    ] {
        if let Some(found) = pool.at(&[part, field]).and_then(limit) {
            limits.insert(ours.into(), found);
        }
    }
    for (field, ours) in [("connectTimeout", "connect"), ("idleTimeout", "idle")] {
        if let Some(found) = pool.at(&["tcp", field]).and_then(duration::carry) {
            timeouts.insert(ours.into(), found.into());
        }
    }
    for (part, field, why, remedy) in [
        ("tcp", "tcpKeepalive", "proxies keep connections alive by a measure of their own", ""),
        (
            "tcp",
            "maxConnectionDuration",
            "connections are not ended for their age",
            "end them in the application",
        ),
        (
            "http",
            "maxRequestsPerConnection",
            "a connection carries as many requests as its server lets it",
            "",
        ),
        (
            "http",
            "maxRetries",
            "retries are bounded by a share of the load",
            "see retryBudget of BackendPolicy",
        ),
        (
            "http",
            "idleTimeout",
            "idle connections are used as long as their server is known to keep them",
            "",
        ),
        (
            "http",
            "maxConcurrentStreams",
            "streams are shared out among connections by need",
            "see maxRequests",
        ),
    ] {
        if let Some(node) = pool.at(&[part, field]) {
            node.drop(why, remedy);
        }
    }
    if let Some(node) = pool.at(&["http", "h2UpgradePolicy"])
        && !matches!(node.text(), Some("DEFAULT" | "DO_NOT_UPGRADE"))
    {
        node.note("between proxies all requests share connections of HTTP/2 as it is", "");
    }
    if let Some(node) = pool.at(&["http", "useClientProtocol"]) {
        node.carry();
        if node.truth() == Some(false) {
            node.note("a server is always spoken to in its client's version of HTTP", "");
        }
    }
    Pool { limits, timeouts }
}

fn read_outliers(outliers: &Node) -> Value {
    outliers.fields();
    for (field, why) in [
        ("interval", "each failure counts at once, not at intervals"),
        ("splitExternalLocalOriginErrors", "failures of connections and of responses are counted together"),
        ("consecutiveLocalOriginFailures", "failures of connections and of responses are counted together"),
    ] {
        if let Some(node) = outliers.field(field) {
            node.drop(why, "");
        }
    }
    if let Some(node) = outliers.field("minHealthPercent")
        && node.number() != Some(0)
    {
        node.drop(
            "endpoints stay barred however few are left, up to maxEjectionPercent",
            "lower maxEjectionPercent",
        );
    }
    let count = |field: &str| outliers.field(field).and_then(|node| Some((node, node.number()?)));
    // An older name of the same.
    let all = count("consecutive5xxErrors").or_else(|| count("consecutiveErrors"));
    let gateway = count("consecutiveGatewayErrors");
    let failures = match (all, gateway) {
        (Some((_, 0)), None | Some((_, 0))) => return json!({"mode": "None"}),
        (Some((_, failures)), Some((node, count))) if failures > 0 => {
            if count > 0 && count < failures {
                node.drop("every status from 500 on counts alike", "lower consecutive5xxErrors");
            }
            failures
        }
        (_, Some((node, count))) if count > 0 => {
            node.note("every status from 500 on counts, not 502, 503 and 504 alone", "");
            count
        }
        (Some((_, failures)), _) if failures > 0 => failures,
        _ => FAILURES,
    };
    let base = outliers.field("baseEjectionTime");
    let time = base.and_then(duration::read).unwrap_or(MAX_EJECTION / 10);
    let min = base.map_or(Some(EJECTION.to_owned()), duration::carry).unwrap_or_else(|| EJECTION.to_owned());
    let max = if time > MAX_EJECTION { min.clone() } else { "5m".to_owned() };
    let percent = outliers.field("maxEjectionPercent").and_then(|node| {
        let percent = node.number().filter(|percent| *percent <= 100);
        if percent.is_none() {
            node.drop("a share is from 0 to 100 percent", "write one");
        }
        percent
    });
    json!({
        "mode": "Consecutive",
        "maxFailures": failures.min(10_000),
        "minPenalty": min,
        "maxPenalty": max,
        "maxEjectionPercent": percent.unwrap_or(EJECTION_PERCENT),
    })
}

/// Session persistence for a cookie that Istio sets; the rest is the balancer's.
fn read_balancer(balancer: &Node) -> Option<Value> {
    if let Some(node) = balancer.field("simple") {
        match node.text() {
            Some("LEAST_REQUEST" | "LEAST_CONN" | "UNSPECIFIED") => {
                node.note(
                    "endpoints are chosen by their latency and load (peak EWMA, the better of two)",
                    "",
                );
            }
            _ => {
                node.drop("endpoints are chosen by their latency and load (peak EWMA, the better of two)", "")
            }
        }
    }
    for (field, why) in [
        ("localityLbSetting", "endpoints of the own zone are preferred as the hints of EndpointSlices say"),
        ("warmup", "a new endpoint is found slow or fast by its first answers"),
        ("warmupDurationSecs", "a new endpoint is found slow or fast by its first answers"),
    ] {
        if let Some(node) = balancer.field(field) {
            node.drop(why, "");
        }
    }
    let hash = balancer.field("consistentHash")?;
    let Some(cookie) = hash.field("httpCookie") else {
        hash.drop(
            "there is no balancing by hash in this version",
            "use sessionPersistence of BackendPolicy if requests of one session belong together",
        );
        return None;
    };
    for (name, node) in hash.fields() {
        if name != "httpCookie" {
            node.drop("a session stays with its endpoint as long as that is there: no table is needed", "");
        }
    }
    for (name, node) in cookie.fields() {
        if !["name", "ttl"].contains(&name.as_str()) {
            node.drop("the cookie of a session is for all of a host, and has no attributes of its own", "");
        }
    }
    cookie.note("the cookie names the endpoint that answered first, instead of a hash", "");
    let name = cookie.text_at("name").filter(|name| !name.is_empty());
    let lifetime = cookie.field("ttl").and_then(duration::carry).filter(|ttl| ttl != "0s");
    let config = match &lifetime {
        Some(_) => json!({"lifetimeType": "Permanent"}),
        None => json!({"lifetimeType": "Session"}),
    };
    let session = compact([
        ("type", "Cookie".into()),
        ("sessionName", name.map_or(Value::Null, Value::from)),
        ("absoluteTimeout", lifetime.map_or(Value::Null, Value::from)),
        ("cookieConfig", config),
    ]);
    Some(session.into())
}

fn read_budget(budget: &Node) -> Value {
    let percent = budget.field("percent").and_then(Node::decimal).unwrap_or(20.0);
    let mut spec = json!({"percent": percent.clamp(0.0, 100.0).round() as u32});
    if percent.fract() != 0.0 {
        budget.note("the share of retries is a whole percent: it is rounded", "");
    }
    if let Some(count) = budget.field("minRetryConcurrency").and_then(Node::number) {
        spec["minRetryRate"] = json!({"count": count.min(MAX_LIMIT), "interval": "1s"});
    }
    budget.note("retries are counted over 10 s, not those that are under way", "");
    spec
}

/// `BackendTLSPolicy.spec.validation`; null where proxies do what is asked for by themselves, or nothing can be written.
fn read_tls(tls: &Node) -> Value {
    let mode = tls.field("mode");
    match mode.and_then(Node::text) {
        Some("ISTIO_MUTUAL") => {
            for (name, node) in tls.fields() {
                if name != "mode" {
                    node.drop("proxies verify each other by their identities alone", "");
                }
            }
            return Value::Null;
        }
        Some("SIMPLE") => {}
        Some("DISABLE") | None => {
            tls.drop("between proxies mTLS is always spoken; without a proxy at the other end, none is", "");
            return Value::Null;
        }
        Some(_) => {
            tls.drop(
                "no certificate of yours is shown to a server by a policy of Gateway API for Services",
                "let the application speak TLS",
            );
            return Value::Null;
        }
    }
    for field in ["caCertificates", "caCrl", "clientCertificate", "privateKey"] {
        if let Some(node) = tls.field(field) {
            node.drop(
                "files of a proxy's container are not read; the authorities of the system are believed",
                "put the certificates into a ConfigMap, and name it in caCertificateRefs of the BackendTLSPolicy",
            );
        }
    }
    let Some(sni) = tls.text_at("sni").filter(|sni| !sni.is_empty()) else {
        tls.drop("a BackendTLSPolicy needs the name that the server's certificate is for", "add sni");
        return Value::Null;
    };
    let mut validation = json!({"hostname": sni});
    match tls.text_at("credentialName") {
        Some(name) => {
            validation["caCertificateRefs"] = json!([{"group": "", "kind": "Secret", "name": name}]);
        }
        None => validation["wellKnownCACertificates"] = "System".into(),
    }
    let names = tls.items_at("subjectAltNames").iter().filter_map(Node::text);
    let names: Vec<Value> = names
        .map(|name| match name.contains("://") {
            true => json!({"type": "URI", "uri": name}),
            false => json!({"type": "Hostname", "hostname": name}),
        })
        .collect();
    if !names.is_empty() {
        validation["subjectAltNames"] = names.into();
    }
    if let Some(node) = tls.field("insecureSkipVerify")
        && node.truth() != Some(false)
    {
        node.drop("a server's certificate is always verified", "name the authority that it is of");
    }
    validation
}
