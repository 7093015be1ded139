//! Random objects of a small mesh: few names and values, so that they meet; and now and then one that makes no sense.

use serde_json::{Value, json};
use std::net::SocketAddr;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

const NAMESPACES: [&str; 2] = ["shop", "bank"];
const SERVICES: [&str; 3] = ["a", "b", "c"];
const PATHS: [&str; 8] = ["/", "/a", "/a/b", "/a/bc", "/a/b/c", "/p/7", "/a%20b", "/%61"];
const VALUES: [&str; 5] = ["beta", "a", "b", "a b", "red,green"];
const NAMES: [&str; 4] = ["x-user", "X-Team", "user-agent", "x-a"];

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x1234_5678)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.draw() % count as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<'a>(&mut self, values: &[&'a str]) -> &'a str {
        values[self.below(values.len())]
    }

    fn many(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> Value) -> Value {
        let count = self.below(most + 1);
        (0..count).map(|_| make(self)).collect()
    }

    fn maybe(
        &mut self,
        object: &mut Value,
        field: &str,
        one_in: usize,
        make: impl FnOnce(&mut Self) -> Value,
    ) {
        if self.one_in(one_in) {
            object[field] = make(self);
        }
    }

    // ---- objects ----

    pub fn objects(&mut self) -> Vec<Value> {
        let mut objects = Vec::new();
        for (at, namespace) in NAMESPACES.iter().enumerate() {
            for (index, name) in SERVICES.iter().enumerate() {
                if !self.one_in(8) {
                    objects.push(self.service(namespace, name, at * 10 + index));
                }
                objects.push(self.pod(namespace, name, at * 10 + index));
            }
        }
        for at in 0..2 + self.below(7) {
            objects.push(self.route(at));
        }
        for at in 0..1 + self.below(6) {
            objects.push(self.policy(at));
        }
        if self.one_in(2) {
            objects.push(self.grant());
        }
        objects
    }

    fn service(&mut self, namespace: &str, name: &str, at: usize) -> Value {
        let word = self.of(&["http", "grpc", "tcp", "tls", "kubernetes.io/h2c", "nonsense", "HTTP1"]);
        let mut port = json!({"name": "web", "port": 80, "targetPort": 8080});
        if self.one_in(3) {
            port["appProtocol"] = word.into();
        }
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": format!("10.96.0.{}", at + 1), "selector": {"app": name}, "ports": [port]}})
    }

    fn pod(&mut self, namespace: &str, name: &str, at: usize) -> Value {
        let mut labels = json!({"app": if self.one_in(6) { "nobody" } else { name }});
        if self.one_in(2) {
            labels["weft.mesh/injected"] = "true".into();
        }
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("{name}-1"), "namespace": namespace, "labels": labels},
            "spec": {"serviceAccountName": name},
            "status": {"podIP": format!("10.1.0.{}", at + 1), "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn grant(&mut self) -> Value {
        let kind = self.of(&["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"]);
        let (from, to) = (self.of(&NAMESPACES), self.of(&NAMESPACES));
        json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
            "metadata": {"name": "grant", "namespace": to},
            "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": from}],
                "to": [{"group": "", "kind": "Service"}]}})
    }

    fn route(&mut self, at: usize) -> Value {
        let namespace = self.of(&NAMESPACES);
        let (kind, version) = match self.below(8) {
            0..=4 => ("HTTPRoute", "v1"),
            5 | 6 => ("GRPCRoute", "v1"),
            _ => [("TLSRoute", "v1alpha3"), ("TCPRoute", "v1alpha2")][self.below(2)],
        };
        let rules = self.many(3, |random| random.rule(kind));
        let mut parent = json!({"group": "", "kind": "Service", "name": self.of(&SERVICES)});
        self.maybe(&mut parent, "namespace", 3, |random| random.of(&NAMESPACES).into());
        self.maybe(&mut parent, "port", 3, |random| ([80, 81][random.below(2)]).into());
        let mut route = json!({"apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind,
            "metadata": {"name": format!("r{at}"), "namespace": namespace,
                "creationTimestamp": format!("2026-01-0{}T00:00:00Z", 1 + self.below(3))},
            "spec": {"parentRefs": [parent], "rules": rules}});
        if kind == "TLSRoute" {
            route["spec"]["hostnames"] = json!([self.of(&["a.example", "*.example", "b.example"])]);
        }
        route
    }

    fn rule(&mut self, kind: &str) -> Value {
        let mut rule = json!({"backendRefs": self.many(3, Self::backend)});
        if matches!(kind, "TLSRoute" | "TCPRoute") {
            return rule;
        }
        let grpc = kind == "GRPCRoute";
        rule["matches"] = self.many(3, |random| random.one_match(grpc));
        rule["filters"] = self.many(2, |random| random.filter(grpc));
        // Of what is drawn so blindly hardly a redirect makes sense: some that do.
        if !grpc && self.one_in(4) {
            let status = [301, 302, 303, 307, 308][self.below(5)];
            rule = json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": status, "hostname": "a.example"}}]});
        } else if !grpc && self.one_in(3) {
            let origin = self.of(&["https://a.example", "*", "https://*.example"]);
            rule["filters"] =
                json!([{"type": "CORS", "cors": {"allowOrigins": [origin], "allowMethods": ["GET"]}}]);
        }
        self.maybe(&mut rule, "name", 3, |random| random.of(&["first", "second"]).into());
        self.maybe(&mut rule, "timeouts", 4, |random| {
            json!({"request": random.of(&["3s", "0s", "10s"]), "backendRequest": random.of(&["1s", "500ms", "20s"])})
        });
        self.maybe(&mut rule, "retry", 4, |random| {
            json!({"codes": [([500, 503, 200, 404][random.below(4)])], "attempts": random.below(4),
                "backoff": random.of(&["100ms", "1h"])})
        });
        self.maybe(&mut rule, "sessionPersistence", 8, |random| {
            json!({"sessionName": random.of(&["sid", "s d", ""]), "type": random.of(&["Cookie", "Header"]),
                "absoluteTimeout": "1h"})
        });
        rule
    }

    fn backend(&mut self) -> Value {
        let mut backend = json!({"name": self.of(&["a", "b", "c", "missing"]), "port": 80});
        self.maybe(&mut backend, "namespace", 4, |random| random.of(&NAMESPACES).into());
        self.maybe(&mut backend, "weight", 2, |random| ([0, 1, 10, 90, 1_000_000][random.below(5)]).into());
        self.maybe(&mut backend, "port", 8, |random| ([81, 0, 70_000][random.below(3)]).into());
        self.maybe(&mut backend, "kind", 12, |random| random.of(&["Service", "ServiceImport"]).into());
        self.maybe(&mut backend, "filters", 6, |random| random.many(2, |random| random.filter(false)));
        backend
    }

    fn one_match(&mut self, grpc: bool) -> Value {
        let mut one = json!({"headers": self.many(2, Self::value)});
        if grpc {
            self.maybe(&mut one, "method", 2, |random| {
                let mut method = json!({"type": random.of(&["Exact", "Exact", "RegularExpression", "Odd"])});
                random.maybe(&mut method, "service", 2, |random| {
                    random.of(&["shop.A", "shop.B", "shop\\..*", "("]).into()
                });
                random.maybe(&mut method, "method", 2, |random| random.of(&["Get", "Put", ".*"]).into());
                method
            });
            return one;
        }
        self.maybe(&mut one, "path", 2, |random| match random.below(8) {
            0 => json!({"type": "RegularExpression", "value": random.of(&["/a.*", "/[0-9]+", "a)|(b", "(", ""])}),
            1..=3 => json!({"type": "Exact", "value": random.of(&PATHS)}),
            4 => json!({"type": "Exact", "value": random.of(&["a", "", "//", "/a?b", "/é"])}),
            _ => json!({"type": "PathPrefix", "value": random.of(&PATHS)}),
        });
        one["queryParams"] = self.many(1, Self::value);
        self.maybe(&mut one, "method", 4, |random| random.of(&["GET", "POST", "PUT", "g t"]).into());
        one
    }

    fn value(&mut self) -> Value {
        match self.below(8) {
            0 => {
                json!({"type": "RegularExpression", "name": self.of(&NAMES), "value": self.of(&["[ab].*", "(", ".+"])})
            }
            1 => json!({"name": self.of(&["", "x y", "é"]), "value": "a"}),
            _ => json!({"name": self.of(&NAMES), "value": self.of(&VALUES)}),
        }
    }

    fn filter(&mut self, grpc: bool) -> Value {
        let header = |random: &mut Self| match random.below(8) {
            0 => {
                json!({"name": random.of(&["x y", "", "weft-x", "host"]), "value": random.of(&["a\r\nb: c", "a", " a "])})
            }
            _ => json!({"name": random.of(&NAMES), "value": random.of(&VALUES)}),
        };
        let edit = |random: &mut Self| {
            json!({"set": random.many(1, header), "add": random.many(1, header),
                "remove": random.many(1, |random| random.of(&["X-A", "x-b", "x y"]).into())})
        };
        let path = |random: &mut Self| match random.below(3) {
            0 => json!({"type": "ReplaceFullPath", "replaceFullPath": random.of(&["/x", "x", "", "/a b"])}),
            _ => {
                json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": random.of(&["/x", "", "/", "x y"])})
            }
        };
        match self.below(if grpc { 4 } else { 7 }) {
            0 => json!({"type": "RequestHeaderModifier", "requestHeaderModifier": edit(self)}),
            1 => json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": edit(self)}),
            2 => json!({"type": "RequestMirror", "requestMirror": {"backendRef": self.backend(),
                "percent": ([0, 10, 100, 200][self.below(4)])}}),
            3 if self.one_in(2) => {
                json!({"type": "ExtensionRef", "extensionRef": {"group": "x", "kind": "Y", "name": "z"}})
            }
            3 => json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": edit(self)}),
            4 => {
                let mut redirect = json!({"statusCode": ([301, 302, 303, 307, 308, 300][self.below(6)])});
                self.maybe(&mut redirect, "path", 2, path);
                self.maybe(&mut redirect, "scheme", 3, |random| random.of(&["http", "https", "ftp"]).into());
                self.maybe(&mut redirect, "hostname", 3, |random| {
                    random.of(&["a.example", "A b", "a.example/x"]).into()
                });
                self.maybe(&mut redirect, "port", 3, |random| {
                    ([80, 8443, 0, 70_000][random.below(4)]).into()
                });
                json!({"type": "RequestRedirect", "requestRedirect": redirect})
            }
            5 => {
                let mut rewrite = json!({});
                self.maybe(&mut rewrite, "path", 2, path);
                self.maybe(&mut rewrite, "hostname", 3, |random| {
                    random.of(&["a.example", "A b", "*.example"]).into()
                });
                json!({"type": "URLRewrite", "urlRewrite": rewrite})
            }
            _ => json!({"type": "CORS", "cors": {
                "allowOrigins": [self.of(&["https://a.example", "*", "https://*.example", "a b", ""])],
                "allowMethods": [self.of(&["GET", "*", "a b"])], "allowHeaders": [self.of(&["x-a", "*", "x y"])],
                "exposeHeaders": self.many(1, |random| random.of(&["x-b", "b\n"]).into()),
                "maxAge": ([5, 0, -1][self.below(3)]), "allowCredentials": self.one_in(2)}}),
        }
    }

    fn policy(&mut self, at: usize) -> Value {
        let namespace = self.of(&NAMESPACES);
        let traffic = self.one_in(2);
        let mut target = match self.below(4) {
            0 => json!({"group": "", "kind": "Namespace", "name": self.of(&NAMESPACES)}),
            1 => json!({"group": "gateway.networking.k8s.io", "kind": self.of(&["HTTPRoute", "GRPCRoute"]),
                "name": self.of(&["r0", "r1", "r2", "r9"])}),
            _ => json!({"group": "", "kind": "Service", "name": self.of(&SERVICES)}),
        };
        self.maybe(&mut target, "sectionName", 3, |random| {
            random.of(&["first", "second", "web", "none"]).into()
        });
        let mut spec = if traffic { self.traffic() } else { self.backing() };
        spec["targetRefs"] = json!([target]);
        json!({"apiVersion": "policy.weft.mesh/v1alpha1", "kind": if traffic { "TrafficPolicy" } else { "BackendPolicy" },
            "metadata": {"name": format!("p{at}"), "namespace": namespace,
                "creationTimestamp": format!("2026-01-0{}T00:00:00Z", 1 + self.below(3))},
            "spec": spec})
    }

    fn traffic(&mut self) -> Value {
        let mut spec = json!({});
        self.maybe(&mut spec, "timeouts", 2, |random| {
            json!({"connect": random.of(&["1s", "0s"]), "request": random.of(&["3s", "99999h"]), "idle": "1m"})
        });
        self.maybe(&mut spec, "retry", 2, |random| {
            json!({"httpCodes": [([503, 500, 399, 600][random.below(4)])], "grpcCodes": [random.of(&["UNAVAILABLE", "INTERNAL"])],
                "reasons": [random.of(&["connection_refused", "sunspots"])], "attempts": random.below(5),
                "perTryTimeout": "1s", "bodyLimit": random.of(&["64Ki", "1Mi"]), "otherHost": random.one_in(2)})
        });
        self.maybe(
            &mut spec,
            "hedge",
            4,
            |random| json!({"delay": random.of(&["50ms", "0s"]), "max": random.below(4)}),
        );
        self.maybe(&mut spec, "fault", 3, |random| {
            let abort = match random.below(3) {
                0 => json!({"grpcStatus": "UNAVAILABLE"}),
                1 => json!({"httpStatus": ([503, 100, 600][random.below(3)])}),
                _ => json!({"httpStatus": 503, "percent": ([0.25, 50.0, 200.0][random.below(3)])}),
            };
            json!({"abort": abort, "delay": {"duration": "1s"}, "headers": [{"name": random.of(&["x-a", "X-B", "x y"]), "value": "a"}]})
        });
        self.maybe(
            &mut spec,
            "directResponse",
            5,
            |random| json!({"status": ([200, 404, 503, 99][random.below(4)]), "body": "no"}),
        );
        spec
    }

    fn backing(&mut self) -> Value {
        let mut spec = json!({});
        self.maybe(
            &mut spec,
            "limits",
            2,
            |random| json!({"maxRequests": random.below(3), "maxConnections": 7}),
        );
        self.maybe(&mut spec, "failureAccrual", 2, |random| {
            json!({"maxFailures": random.below(9), "minPenalty": random.of(&["1s", "2m"]), "maxPenalty": "1m"})
        });
        self.maybe(&mut spec, "retryBudget", 3, |random| json!({"interval": random.of(&["10s", "0s"])}));
        self.maybe(
            &mut spec,
            "sessionPersistence",
            4,
            |random| json!({"sessionName": random.of(&["sid", "s d"]), "type": "Cookie"}),
        );
        spec
    }

    // ---- questions ----

    /// Where to, and the namespace of who asks.
    pub fn ends(&mut self) -> (SocketAddr, &'static str) {
        let namespace = self.of(&NAMESPACES);
        let to = match self.below(16) {
            0 => ([10, 1, 0, 1], 8080),
            1 => ([192, 0, 2, 1], 80),
            _ => ([10, 96, 0, (self.below(2) * 10 + self.below(3) + 1) as u8], 80),
        };
        (SocketAddr::from(to), namespace)
    }

    /// The query of `/why`.
    pub fn query(&mut self, to: SocketAddr) -> String {
        let encoded = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        match self.below(12) {
            0 => return format!("to={to}&bytes"),
            1 => return format!("to={to}&sni={}", self.of(&["a.example", "x.example", "b.example", ""])),
            _ => {}
        }
        let mut query = match self.below(5) {
            0 => format!(
                "to={to}&grpc={}/{}",
                self.of(&["shop.A", "shop.B"]),
                self.of(&["Get", "Put", "List"])
            ),
            _ => {
                let parameter = self.of(&["", "?x-user=beta", "?x-a=a&user-agent=b"]);
                let target = format!(
                    "{}{parameter}",
                    self.of(&["/", "/a", "/a/b", "/a/b/c", "/p/7", "/x", "/a//b", "/a/../p/7"])
                );
                format!(
                    "to={to}&method={}&path={}",
                    self.of(&["GET", "POST", "PUT", "OPTIONS"]),
                    encoded(&target)
                )
            }
        };
        for _ in 0..self.below(3) {
            let header = format!("{}: {}", self.of(&NAMES), self.of(&VALUES));
            query += &format!("&header={}", encoded(&header));
        }
        if query.contains("OPTIONS") {
            for header in ["origin: https://a.example", "access-control-request-method: GET"] {
                query += &format!("&header={}", encoded(header));
            }
        }
        query
    }
}
