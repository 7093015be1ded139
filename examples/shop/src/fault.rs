//! Every way in which a service does not give what it was asked for, and how that is told over HTTP.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};

use crate::client::Failure;

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    BadRequest(String),
    #[error("a token from POST /session is needed")]
    Unauthorized,
    #[error("there is no {0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("the body is longer than {0} bytes")]
    TooLarge(usize),
    /// It was told to fail.
    #[error("this release answers some requests so")]
    Flaky,
    /// An upstream says that the caller is wrong (4xx): its answer is passed on as it is.
    #[error("an upstream refused with {status}")]
    Refused { status: StatusCode, content_type: Option<HeaderValue>, body: Bytes },
    /// No whole answer came from `upstream`.
    #[error("{upstream}: {failure}")]
    Unreachable { upstream: &'static str, failure: Failure },
    /// `upstream` answered with something that is of no use; `cause` is its own explanation if it gave one.
    #[error("{upstream} answered {status}")]
    Failed { upstream: &'static str, status: StatusCode, reason: String, cause: Option<Value> },
}

impl Fault {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Flaky => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused { status, .. } => *status,
            Self::Unreachable { .. } | Self::Failed { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// What the caller reads. A failed upstream is named, and so is the one it blames in turn.
    pub fn json(&self) -> Value {
        match self {
            Self::Unreachable { upstream, failure } => {
                json!({"error": self.to_string(), "upstream": upstream, "reason": failure.reason()})
            }
            Self::Failed { upstream, reason, cause, .. } => {
                json!({"error": self.to_string(), "upstream": upstream, "reason": reason, "cause": cause})
            }
            _ => json!({"error": self.to_string()}),
        }
    }
}

/// The service that is to blame in the end, and why: follows `cause` as deep as it goes.
pub fn blame(answer: &Value) -> Option<(&str, &str)> {
    let deeper = answer.get("cause").and_then(blame);
    deeper.or_else(|| Some((answer.get("upstream")?.as_str()?, answer.get("reason")?.as_str()?)))
}

/// The `error` parameter of a `Proxy-Status` field (RFC 9209 §2.1.1), if one stands there.
pub fn proxy_error(field: &HeaderValue) -> Option<&str> {
    let parameters = field.to_str().ok()?.split([';', ',']);
    parameters.map(str::trim).find_map(|parameter| parameter.strip_prefix("error="))
}
