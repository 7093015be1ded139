//! What one pod gets: the configuration, changed by the annotations of its namespace, changed by its own. The nearest
//! wins, and an empty list is one too. Pure.

use crate::{
    Problem,
    config::Config,
    values::{AccessLog, Form, Image, LogFilter, Ports, Quantity, Redirection, Sidecar, Subnets, Time},
};
use serde_json::Value;
use std::collections::BTreeMap;

pub const SKIP_INBOUND_PORTS: &str = "weft.mesh/skip-inbound-ports";
pub const SKIP_OUTBOUND_PORTS: &str = "weft.mesh/skip-outbound-ports";
pub const SKIP_OUTBOUND_SUBNETS: &str = "weft.mesh/skip-outbound-subnets";
pub const OPAQUE_PORTS: &str = "weft.mesh/opaque-ports";
pub const SIDECAR: &str = "weft.mesh/sidecar";
pub const REDIRECTION: &str = "weft.mesh/redirection";
pub const CPU_REQUEST: &str = "weft.mesh/proxy-cpu-request";
pub const CPU_LIMIT: &str = "weft.mesh/proxy-cpu-limit";
pub const MEMORY_REQUEST: &str = "weft.mesh/proxy-memory-request";
pub const MEMORY_LIMIT: &str = "weft.mesh/proxy-memory-limit";
pub const LOG_LEVEL: &str = "weft.mesh/proxy-log-level";
pub const ACCESS_LOG: &str = "weft.mesh/access-log";
pub const DRAIN_TIMEOUT: &str = "weft.mesh/drain-timeout";
pub const PROXY_IMAGE: &str = "weft.mesh/proxy-image";

/// All that people may write; those of the list that stand on a namespace are defaults for its pods.
pub const SETTINGS: [&str; 14] = [
    SKIP_INBOUND_PORTS,
    SKIP_OUTBOUND_PORTS,
    SKIP_OUTBOUND_SUBNETS,
    OPAQUE_PORTS,
    SIDECAR,
    REDIRECTION,
    CPU_REQUEST,
    CPU_LIMIT,
    MEMORY_REQUEST,
    MEMORY_LIMIT,
    LOG_LEVEL,
    ACCESS_LOG,
    DRAIN_TIMEOUT,
    PROXY_IMAGE,
];

/// What one pod gets.
#[derive(Debug, Clone)]
pub struct Settings {
    pub sidecar: Sidecar,
    pub redirection: Redirection,
    pub skip_inbound_ports: Ports,
    pub skip_outbound_ports: Ports,
    pub skip_outbound_subnets: Subnets,
    pub cpu: Amounts,
    pub memory: Amounts,
    pub log_level: LogFilter,
    pub access_log: AccessLog,
    /// As long as the pod's own grace where none is given.
    pub drain_timeout: Option<Time>,
    pub proxy_image: String,
}

/// What of a resource is requested, and what is the most.
#[derive(Debug, Clone)]
pub struct Amounts {
    pub request: Option<Quantity>,
    pub limit: Option<Quantity>,
}

/// Annotations from far to near, with the words for where they stand.
struct Annotations<'a> {
    namespace: &'a BTreeMap<String, String>,
    pod: Option<&'a Value>,
}

impl Settings {
    /// Reads the annotations; the first one that cannot be read is the problem.
    pub fn read(
        config: &Config,
        namespace: &BTreeMap<String, String>,
        pod: Option<&Value>,
    ) -> Result<Settings, Problem> {
        let given = Annotations { namespace, pod };
        let proxy = &config.proxy;
        // Control reads these. A pod that it could not read is refused here, where somebody hears of it.
        given.value::<Ports>(OPAQUE_PORTS)?;
        let drain_timeout = given.value(DRAIN_TIMEOUT)?.or_else(|| proxy.drain_timeout.clone());
        Ok(Settings {
            sidecar: given.value(SIDECAR)?.unwrap_or(config.sidecar),
            redirection: given.value(REDIRECTION)?.unwrap_or(config.redirection),
            skip_inbound_ports: given.or(SKIP_INBOUND_PORTS, &config.skip_inbound_ports)?,
            skip_outbound_ports: given.or(SKIP_OUTBOUND_PORTS, &config.skip_outbound_ports)?,
            skip_outbound_subnets: given.or(SKIP_OUTBOUND_SUBNETS, &config.skip_outbound_subnets)?,
            cpu: given.amounts([CPU_REQUEST, CPU_LIMIT], [&proxy.cpu_request, &proxy.cpu_limit])?,
            memory: given
                .amounts([MEMORY_REQUEST, MEMORY_LIMIT], [&proxy.memory_request, &proxy.memory_limit])?,
            log_level: given.or(LOG_LEVEL, &proxy.log_level)?,
            access_log: given.or(ACCESS_LOG, &proxy.access_log)?,
            drain_timeout,
            proxy_image: given
                .value::<Image>(PROXY_IMAGE)?
                .map_or_else(|| config.image("proxy"), |image| image.to_string()),
        })
    }
}

impl Annotations<'_> {
    fn or<T: Form + Clone>(&self, name: &str, default: &T) -> Result<T, Problem> {
        Ok(self.value(name)?.unwrap_or_else(|| default.clone()))
    }

    fn value<T: Form>(&self, name: &str) -> Result<Option<T>, Problem> {
        let (place, text) = match self.pod.and_then(|pod| pod.get(name)).filter(|value| !value.is_null()) {
            Some(Value::String(text)) => ("the pod", text),
            Some(other) => {
                return Err(Problem {
                    what: format!("annotation {name} of the pod"),
                    value: other.to_string(),
                    expected: "a string: annotations are quoted where YAML would read something else".into(),
                });
            }
            None => match self.namespace.get(name) {
                Some(text) => ("the namespace", text),
                None => return Ok(None),
            },
        };
        let unreadable = || Problem {
            what: format!("annotation {name} of {place}"),
            value: format!("{text:?}"),
            expected: T::EXPECTED.into(),
        };
        text.trim().parse().map(Some).map_err(|_| unreadable())
    }

    /// A request that nobody wrote beside a limit gives way to it.
    fn amounts(&self, names: [&str; 2], defaults: [&Option<Quantity>; 2]) -> Result<Amounts, Problem> {
        let [request_name, limit_name] = names;
        let limit = self.value(limit_name)?.or_else(|| defaults[1].clone());
        let exceeds = |request: &Quantity| limit.as_ref().is_some_and(|limit| request.exceeds(limit));
        let request = match self.value::<Quantity>(request_name)? {
            Some(request) if exceeds(&request) => {
                let most = limit.as_ref().map(ToString::to_string).unwrap_or_default();
                return Err(Problem {
                    what: format!("annotation {request_name}"),
                    value: format!("{:?}", request.to_string()),
                    expected: format!("no more than the limit, which is {most}"),
                });
            }
            Some(request) => Some(request),
            None if defaults[0].as_ref().is_some_and(exceeds) => limit.clone(),
            None => defaults[0].clone(),
        };
        Ok(Amounts { request, limit })
    }
}
