//! The annotation by which the injector tells which redirection a pod needs.
//!
//! Pure.

use init::plan::{Plan, parse_list};
use serde::Deserialize;

/// Its presence is the order to redirect.
pub const REDIRECT: &str = "weft.mesh/redirect";
/// The label that every injected pod carries.
pub const INJECTED: &str = "weft.mesh/injected";

/// What stands in it: JSON, each value a list as weft-init's options take it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Options {
    skip_inbound_ports: String,
    skip_outbound_ports: String,
    skip_outbound_subnets: String,
}

/// The plan that an annotation's value asks for. An option that is not known is an error: a pod that is redirected otherwise than
/// its author said is worse than one that does not start.
pub fn plan(value: &str) -> Result<Plan, String> {
    let failed = |what: &str| format!("annotation {REDIRECT}: {what}: {value}");
    let options: Options = serde_json::from_str(value).map_err(|error| {
        failed(&format!("{error}; is weft-cni as new as the injector that wrote it? The value"))
    })?;
    let list = |name: &str, error: String| failed(&format!("{name}: {error}; the value"));
    Ok(Plan {
        skip_inbound_ports: parse_list(&options.skip_inbound_ports)
            .map_err(|error| list("skipInboundPorts", error))?,
        skip_outbound_ports: parse_list(&options.skip_outbound_ports)
            .map_err(|error| list("skipOutboundPorts", error))?,
        skip_outbound_subnets: parse_list(&options.skip_outbound_subnets)
            .map_err(|error| list("skipOutboundSubnets", error))?,
        ..Plan::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_plans() {
        assert_eq!(plan("{}"), Ok(Plan::default()));
        let value = r#"{"skipInboundPorts":"22,9000-9010","skipOutboundPorts":"","skipOutboundSubnets":"10.0.0.0/8, fd00::/8"}"#;
        let expected = Plan {
            skip_inbound_ports: vec![22.into(), "9000-9010".parse().unwrap()],
            skip_outbound_subnets: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Plan::default()
        };
        assert_eq!(plan(value), Ok(expected));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (value, part) in [
            ("", "annotation weft.mesh/redirect: EOF while parsing"),
            (r#"{"skipInboundPorts":"0"}"#, "skipInboundPorts: `0`: expected ports from 1 to 65535"),
            (r#"{"skipOutboundSubnets":"10.0.0.0/33"}"#, "skipOutboundSubnets: `10.0.0.0/33`"),
            (r#"{"skipUids":"7"}"#, "unknown field `skipUids`"),
            (r#"{"skipInboundPorts":22}"#, "expected a string"),
        ] {
            let said = plan(value).unwrap_err();
            assert!(said.contains(part) && said.ends_with(value), "{value}: {said}");
        }
    }
}
