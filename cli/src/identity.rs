//! `weft identity`: the certificate that a pod's proxy holds, and whom it believes, as the proxy tells it.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::certificate::Certificate;
use crate::output::{self, Form};
use crate::target::{Said, Target};

/// `weft identity --help` tells the rest.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// Print the chain, leaf first, and the trust roots as PEM
    #[arg(long, conflicts_with = "output")]
    pem: bool,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    pod: String,
    /// The SPIFFE ID.
    identity: String,
    /// Leaf first.
    chain: Vec<Certificate>,
    trust_roots: Vec<Certificate>,
    /// Whether the chain is signed by one of the roots, and it and its issuers are valid now.
    is_valid: bool,
}

/// Tells, and by the exit code whether the certificate is valid.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let said = options.target.ask().await?;
    if options.pem {
        print!("{}{}", text(&said, "chain")?, text(&said, "roots")?);
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let identity = Identity::read(&said, now)?;
    output::print(options.output, &identity, || identity.text(now))?;
    Ok(if identity.is_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text<'a>(said: &'a Said, field: &str) -> anyhow::Result<&'a str> {
    let certificate = &said.config["certificate"];
    if certificate.is_null() {
        let why = said.config["control"]["failure"].as_str().unwrap_or("control has not answered yet");
        return Err(anyhow!("the proxy of pod {} has no certificate yet: {why}", said.pod));
    }
    certificate[field]
        .as_str()
        .with_context(|| format!("the proxy of pod {} does not tell its {field}", said.pod))
}

impl Identity {
    fn read(said: &Said, now: Timestamp) -> anyhow::Result<Self> {
        let parse = |field: &str| {
            Certificate::all(text(said, field)?).map_err(|why| anyhow!("pod {}: {field}: {why}", said.pod))
        };
        let (chain, trust_roots) = (parse("chain")?, parse("roots")?);
        let is_now = |one: &Certificate| one.not_before <= now && now < one.not_after;
        let is_linked = chain.windows(2).all(|pair| pair[1].vouches_for(&pair[0]));
        let top = chain.last().expect("a parsed chain is not empty");
        let is_rooted =
            trust_roots.iter().any(|root| is_now(root) && (root.is(top) || root.vouches_for(top)));
        let is_valid = chain.iter().all(is_now) && is_linked && is_rooted;
        let identity = said.config["identity"].as_str().unwrap_or_default().to_owned();
        Ok(Self { pod: said.pod.clone(), identity, chain, trust_roots, is_valid })
    }

    fn text(&self, now: Timestamp) -> String {
        let leaf = &self.chain[0];
        let mut text = String::new();
        let mut line = |name: &str, value: &str| text += &format!("{name:12} {value}\n");
        line("pod", &self.pod);
        line("identity", &self.identity);
        line("serial", &leaf.serial);
        line("issuer", &leaf.issuer);
        line("valid from", &leaf.not_before.to_string());
        line("valid until", &format!("{} ({})", leaf.not_after, until(leaf.not_after.duration_since(now))));
        for issuer in &self.chain[1..] {
            line(
                "signed by",
                &format!("{}, until {} (serial {})", issuer.subject, issuer.not_after, issuer.serial),
            );
        }
        for root in &self.trust_roots {
            line(
                "trust root",
                &format!("{}, until {} (serial {})", root.subject, root.not_after, root.serial),
            );
        }
        if !self.is_valid {
            line("NOT VALID", "no peer that believes the same roots accepts it now");
        }
        text
    }
}

/// In the largest unit that says enough.
fn until(left: SignedDuration) -> String {
    let seconds = left.as_secs();
    match seconds {
        ..=0 => "expired".to_owned(),
        1..=119 => format!("{seconds} s left"),
        120..=7199 => format!("{} min left", seconds / 60),
        7200..=172_799 => format!("{} h left", seconds / 3600),
        _ => format!("{} d left", seconds / 86_400),
    }
}

/// For `weft proxy-config`: the identity by itself.
pub fn named(config: &Value) -> &str {
    config["identity"].as_str().unwrap_or("none yet")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;
    use std::path::PathBuf;

    fn pem(names: &[&str]) -> String {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/check/certificates");
        names.iter().map(|name| fs::read_to_string(folder.join(format!("{name}.pem"))).unwrap()).collect()
    }

    fn identity(chain: &[&str], roots: &[&str]) -> Identity {
        let config = json!({
            "identity": "spiffe://cluster.local/ns/shop/sa/cart",
            "certificate": { "chain": pem(chain), "roots": pem(roots) },
        });
        let now = "2026-12-01T00:00:00Z".parse().unwrap();
        Identity::read(&Said { pod: "shop/cart-0".into(), config }, now).unwrap()
    }

    #[test]
    fn only_a_whole_chain_of_now_up_to_a_root_is_valid() {
        for (chain, roots, is_valid) in [
            (&["leaf", "issuer"][..], &["other", "root"][..], true),
            (&["leaf"], &["issuer"], true),
            (&["shortleaf", "issuer"], &["root"], false),
            (&["leaf", "issuer"], &["other"], false),
            (&["leaf", "hookca"], &["hookca"], false),
            (&["leaf"], &["root"], false),
        ] {
            assert_eq!(identity(chain, roots).is_valid, is_valid, "{chain:?} below {roots:?}");
        }
    }

    #[test]
    fn people_see_who_and_until_when() {
        let shown = identity(&["leaf", "issuer"], &["root"]);
        let text = shown.text("2026-12-01T00:00:00Z".parse().unwrap());
        for part in [
            "identity     spiffe://cluster.local/ns/shop/sa/cart\n",
            "issuer       CN=Weft Issuer\n",
            "valid until  2027-11-21T17:51:48Z (355 d left)\n",
            "signed by    CN=Weft Issuer, until 2027-11-21",
            "trust root   CN=Weft Root, until 2036-11-18",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert_eq!(shown.chain[0].uri.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/cart"));
    }

    #[test]
    fn a_proxy_without_a_certificate_says_why() {
        let config = json!({ "certificate": null, "control": { "failure": "connection refused" } });
        let error =
            Identity::read(&Said { pod: "shop/cart-0".into(), config }, Timestamp::now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the proxy of pod shop/cart-0 has no certificate yet: connection refused"
        );
    }

    #[test]
    fn time_is_told_in_a_unit_that_says_enough() {
        for (seconds, told) in [
            (-1, "expired"),
            (90, "90 s left"),
            (3600, "60 min left"),
            (86_400, "24 h left"),
            (259_200, "3 d left"),
        ] {
            assert_eq!(until(SignedDuration::from_secs(seconds)), told);
        }
    }
}
