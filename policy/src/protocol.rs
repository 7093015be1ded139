//! What a port speaks, as its owner declared it or as it was found out.

use std::{fmt, str::FromStr};

/// `Auto` means that nobody said: the proxy finds out connection by connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    #[default]
    Auto,
    Http1,
    Http2,
    Grpc,
    Tls,
    /// Bytes: nothing is read into them.
    Opaque,
}

/// The word names no protocol; the port is treated as `Auto` and the word is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProtocol(pub String);

impl Protocol {
    pub const ALL: [Protocol; 6] =
        [Self::Auto, Self::Http1, Self::Http2, Self::Grpc, Self::Tls, Self::Opaque];

    /// The word for metrics, `weft` and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::Http1 => "HTTP1",
            Self::Http2 => "HTTP2",
            Self::Grpc => "gRPC",
            Self::Tls => "TLS",
            Self::Opaque => "Opaque",
        }
    }

    /// A Service port's `appProtocol`: the names of Kubernetes KEP-3726 and those in common use.
    /// `http` stays `Auto`-detected between HTTP/1 and HTTP/2, as clients of such ports speak either.
    pub fn from_app_protocol(word: &str) -> Result<Self, UnknownProtocol> {
        Ok(match word {
            "http" | "kubernetes.io/ws" | "kubernetes.io/wss" => Self::Auto,
            "HTTP1" | "http1" => Self::Http1,
            "kubernetes.io/h2c" | "h2c" | "http2" | "HTTP2" => Self::Http2,
            "grpc" | "gRPC" => Self::Grpc,
            "https" | "tls" | "TLS" => Self::Tls,
            "tcp" | "mysql" | "redis" | "mongo" | "postgresql" | "opaque" | "Opaque" => Self::Opaque,
            other => return Err(UnknownProtocol(other.into())),
        })
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(word: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL.into_iter().find(|one| one.as_str() == word).ok_or_else(|| UnknownProtocol(word.into()))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} names no protocol; known are http, h2c, grpc, https, tls, tcp, redis, mysql, …",
            self.0
        )
    }
}

impl std::error::Error for UnknownProtocol {}
