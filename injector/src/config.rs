//! The defaults of all pods, as the ConfigMap `weft-injector` holds them. Pure: who reads the file is `serve`.

use crate::values::{AccessLog, Image, LogFilter, Ports, Quantity, Redirection, Sidecar, Subnets, Time};
use serde::{Deserialize, Deserializer, Serialize};
use std::str::FromStr;

/// What a pod gets unless its namespace's or its own annotations say otherwise. Fields that are not given keep their
/// default; unknown ones are refused, as a misspelt setting would be one that is not there.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    pub image: Images,
    /// Where proxies find control, host and port.
    pub control: String,
    /// The trust domain of all identities.
    pub trust_domain: String,
    pub redirection: Redirection,
    pub sidecar: Sidecar,
    /// Ports on which connections arrive that are left alone.
    pub skip_inbound_ports: Ports,
    /// Ports to which connections leave that are left alone.
    pub skip_outbound_ports: Ports,
    /// Networks to which connections leave that are left alone.
    pub skip_outbound_subnets: Subnets,
    pub proxy: Proxy,
}

/// Where the images of the proxy and of weft-init come from: `<prefix>/proxy:<tag>`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Images {
    pub prefix: String,
    pub tag: String,
    pub pull_policy: PullPolicy,
}

/// When the kubelet pulls an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The proxy's own settings. An empty text is none.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Proxy {
    #[serde(deserialize_with = "unless_empty")]
    pub cpu_request: Option<Quantity>,
    #[serde(deserialize_with = "unless_empty")]
    pub memory_request: Option<Quantity>,
    #[serde(deserialize_with = "unless_empty")]
    pub cpu_limit: Option<Quantity>,
    #[serde(deserialize_with = "unless_empty")]
    pub memory_limit: Option<Quantity>,
    pub log_level: LogFilter,
    pub access_log: AccessLog,
    /// How long connections may go on after the pod's end began; as long as the pod's own grace where none is given.
    #[serde(deserialize_with = "unless_empty")]
    pub drain_timeout: Option<Time>,
}

/// The text is no configuration.
#[derive(Debug, thiserror::Error)]
#[error("the injector's configuration cannot be read")]
pub struct ConfigError(#[from] ConfigFault);

/// What is wrong in it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    #[error("{0}")]
    Yaml(String),
    #[error("image: {0:?} is no reference of an image; expected {expected}", expected = <Image as crate::values::Form>::EXPECTED)]
    Image(String),
    #[error("control: {0:?} is no host and port, as in weft-control.weft-system.svc.cluster.local:8486")]
    Control(String),
    #[error("trustDomain: it is empty")]
    TrustDomain,
}

impl Config {
    /// Reads the YAML of `config.yaml`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let options = serde_saphyr::options! { with_snippet: false };
        let config = if text.trim().is_empty() {
            Config::default()
        } else {
            serde_saphyr::from_str_with_options(text, options)
                .map_err(|error| ConfigFault::Yaml(error.to_string()))?
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigFault> {
        for name in ["proxy", "init"] {
            let reference = self.image(name);
            Image::from_str(&reference).map_err(|_| ConfigFault::Image(reference))?;
        }
        let (host, port) = self.control.rsplit_once(':').unwrap_or_default();
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(ConfigFault::Control(self.control.clone()));
        }
        if self.trust_domain.is_empty() {
            return Err(ConfigFault::TrustDomain);
        }
        Ok(())
    }

    /// The image of one of our programs.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.image.prefix, self.image.tag)
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            image: Images::default(),
            control: "weft-control.weft-system.svc.cluster.local:8486".into(),
            trust_domain: "cluster.local".into(),
            redirection: Redirection::Init,
            sidecar: Sidecar::Native,
            skip_inbound_ports: Ports::default(),
            skip_outbound_ports: Ports::default(),
            skip_outbound_subnets: Subnets::default(),
            proxy: Proxy::default(),
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Images {
            prefix: "weft.mesh".into(),
            tag: env!("CARGO_PKG_VERSION").into(),
            pull_policy: PullPolicy::IfNotPresent,
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        let fits = "the default is well-formed";
        Proxy {
            cpu_request: Some("10m".parse().expect(fits)),
            memory_request: Some("16Mi".parse().expect(fits)),
            cpu_limit: None,
            memory_limit: None,
            log_level: "info".parse().expect(fits),
            access_log: AccessLog::Off,
            drain_timeout: None,
        }
    }
}

impl PullPolicy {
    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// A template writes an empty text where nothing is set.
fn unless_empty<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<String, Error = String>,
{
    match Option::<String>::deserialize(from)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => T::try_from(text).map(Some).map_err(serde::de::Error::custom),
    }
}

impl From<serde_saphyr::Error> for ConfigFault {
    fn from(error: serde_saphyr::Error) -> Self {
        ConfigFault::Yaml(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_default() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        let config = Config::parse(
            "image: {prefix: example.org/weft}\nredirection: cni\nskipInboundPorts: 22,9000-9010\nproxy: {cpuLimit: '', memoryLimit: 64Mi, accessLog: errors}\n",
        )
        .unwrap();
        assert_eq!(config.image("proxy"), format!("example.org/weft/proxy:{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(config.redirection, Redirection::Cni);
        assert!(config.skip_inbound_ports.contains(9001));
        assert_eq!(config.proxy.cpu_limit, None);
        assert_eq!(config.proxy.memory_limit, Some("64Mi".parse().unwrap()));
        assert_eq!(config.proxy.memory_request, Some("16Mi".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |text: &str| {
            let error = Config::parse(text).unwrap_err();
            std::error::Error::source(&error).unwrap().to_string()
        };
        assert!(
            error("skipInboundPort: '22'").contains("skipInboundPort"),
            "{}",
            error("skipInboundPort: '22'")
        );
        assert!(error("skipInboundPorts: 22-x").contains("expected ports"));
        assert!(error("proxy: {cpuLimit: lots}").contains("expected a quantity"));
        assert!(error("control: weft-control").contains("no host and port"));
        assert!(error("image: {prefix: 'a b'}").contains("a b/proxy"));
        assert!(error("sidecar: modern").contains("modern"));
    }
}
