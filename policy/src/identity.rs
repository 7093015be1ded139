//! SPIFFE identities of the form the mesh issues: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//! That a peer *holds* an identity is said only by `proxy-tls` (`Verified`); here are the names alone.

use crate::names::{is_label, is_subdomain};
use std::{fmt, str::FromStr, sync::Arc};

/// The audience of the tokens that proxies show control in Kubernetes: such a token proves who one is to the mesh, and
/// is worth nothing at the API server.
pub const TOKEN_AUDIENCE: &str = "identity.weft.mesh";

/// A SPIFFE trust domain (SPIFFE-ID §2.1): lower-case letters, digits, `.`, `-`, `_`; at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

/// The identity of a service account. Compares and hashes by its parts; printing gives the URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    pub trust_domain: TrustDomain,
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
}

/// The text is not an identity of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSpiffeId {
    text: String,
    why: &'static str,
}

impl SpiffeId {
    /// Namespace and service account must be names that Kubernetes would accept.
    pub fn new(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The DNS form that stands in the SNI between proxies:
    /// `<service account>.<namespace>.serviceaccount.identity.<trust domain>`.
    pub fn server_name(&self) -> String {
        format!("{}.{}.serviceaccount.identity.{}", self.service_account, self.namespace, self.trust_domain)
    }
}

impl TrustDomain {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if text.is_empty() || text.len() > 255 || !text.bytes().all(fits) {
            return Err(InvalidSpiffeId {
                text: text.into(),
                why: "a trust domain is 1-255 lower-case letters, digits, '.', '-' or '_'",
            });
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let invalid = |why| InvalidSpiffeId { text: text.into(), why };
        let rest =
            text.strip_prefix("spiffe://").ok_or_else(|| invalid("it does not begin with spiffe://"))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| invalid("it has no path"))?;
        let parts: Vec<&str> = path.split('/').collect();
        let ["ns", namespace, "sa", service_account] = parts[..] else {
            return Err(invalid("the path is not /ns/<namespace>/sa/<service account>"));
        };
        if !is_label(namespace) || !is_subdomain(service_account) {
            return Err(invalid("namespace or service account is not a Kubernetes name"));
        }
        Ok(Self {
            trust_domain: domain.parse().map_err(|_| invalid("its trust domain is malformed"))?,
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for InvalidSpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an identity of the mesh: {}", self.text, self.why)
    }
}

impl std::error::Error for InvalidSpiffeId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_print_as_they_parse() {
        let text = "spiffe://cluster.local/ns/shop/sa/cart";
        let id: SpiffeId = text.parse().expect("a good identity");
        assert_eq!(id.to_string(), text);
        assert_eq!(id.server_name(), "cart.shop.serviceaccount.identity.cluster.local");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "spiffe://cluster.local",
            "spiffe:///ns/shop/sa/cart",
            "https://cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/cart/",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns/shop/sa/../cart",
            "spiffe://Cluster.local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/shop/sa/cart?x",
            "spiffe://user@cluster.local/ns/shop/sa/cart",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
