//! Names of Kubernetes objects as the mesh uses them, each printed and parsed as people write them.

use std::{fmt, str::FromStr, sync::Arc};

/// A Service: `name.namespace`, as in its cluster DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// One port of a Service: `name.namespace:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    pub service: ServiceName,
    pub port: u16,
}

/// A Pod (or a process outside Kubernetes that stands for one): `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// The text was not of the form that the type prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    text: String,
    form: &'static str,
}

impl ServiceName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn port(&self, port: u16) -> ServicePort {
        ServicePort { service: self.clone(), port }
    }
}

impl WorkloadName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(InvalidName { text: text.into(), form: "namespace/name" }),
        }
    }
}

impl FromStr for ServicePort {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName { text: text.into(), form: "name.namespace:port" };
        let (service, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let (name, namespace) = service.split_once('.').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
        if !is_label(name) || !is_label(namespace) {
            return Err(invalid());
        }
        Ok(ServiceName::new(namespace, name).port(port))
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not of the form {}", self.text, self.form)
    }
}

impl std::error::Error for InvalidName {}

/// RFC 1123 label, as Kubernetes asks of namespaces, services and service accounts: at most 63 bytes.
pub fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(&first), Some(&last)) = (text.as_bytes().first(), text.as_bytes().last()) else { return false };
    text.len() <= 63
        && alphanumeric(first)
        && alphanumeric(last)
        && text.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
}

/// RFC 1123 subdomain, as Kubernetes asks of pods and service accounts: labels joined by dots, at most 253 bytes.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_print_as_they_parse() {
        for text in ["cart.shop:8080", "a.b:1"] {
            assert_eq!(text.parse::<ServicePort>().expect(text).to_string(), text);
        }
        for text in ["shop/cart-7d9f-x2x", "default/a.b"] {
            assert_eq!(text.parse::<WorkloadName>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        for text in ["cart.shop", "cart:80", "cart.shop:0", "cart.shop:70000", "Cart.shop:80", "-a.b:80", ""]
        {
            assert!(text.parse::<ServicePort>().is_err(), "{text}");
        }
        for text in ["shop", "shop/", "/cart", "shop/Cart", "shop/cart/x", "sh_op/cart"] {
            assert!(text.parse::<WorkloadName>().is_err(), "{text}");
        }
    }
}
