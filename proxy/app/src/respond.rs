//! What a proxy answers by itself: the one place where a reason becomes a response.

use crate::telemetry::Direction;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use policy::Reason;
use proxy_h1::Version;
use proxy_http::{failed::Failed, grpc};
use std::{borrow::Cow, net::SocketAddr};

/// An answer that the proxy gives by itself.
pub struct Answer {
    pub status: u16,
    /// By the names as HTTP/1 writes them.
    fields: Vec<(Cow<'static, str>, String)>,
    body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    /// For a failure. `status`: what a codec knows better than the reason (414, 431, 501, …). Callers outside of the mesh are not told
    /// more than the status: `inside` says that this one is of it.
    pub fn new(
        direction: Direction,
        failed: &Failed,
        status: Option<u16>,
        next_hop: Option<SocketAddr>,
        inside: bool,
    ) -> Self {
        let status = status.unwrap_or(failed.status());
        if !inside {
            let text = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let body = format!("{}\n", text.unwrap_or("Error"));
            return Self { status, fields: vec![("Content-Type".into(), TEXT.into())], body };
        }
        let said = proxy_status(direction, failed, next_hop);
        Self {
            status,
            fields: vec![("Proxy-Status".into(), said), ("Content-Type".into(), TEXT.into())],
            body: body(failed.reason, &failed.detail, next_hop),
        }
    }

    /// Of a rule's own. The fields' values are printable ASCII.
    pub fn own(status: u16, fields: Vec<(&'static str, String)>, body: String) -> Self {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Self { status, fields, body }
    }

    /// With its fields as a rule changes them.
    pub fn edited(self, edit: impl Fn(&mut HeaderMap)) -> Self {
        let mut fields = HeaderMap::new();
        self.say(&mut fields);
        edit(&mut fields);
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            (titled(name.as_str()).into(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Self { fields: fields.iter().map(field).collect(), ..self }
    }

    /// For a call of gRPC: a response that is all trailers, as its client looks at nothing else.
    pub fn to_grpc(&self, failed: &Failed) -> Response<()> {
        let mut response = Response::new(());
        *response.headers_mut() = grpc::outcome(failed);
        let headers = response.headers_mut();
        self.say(headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }

    /// For any other stream.
    pub fn to_stream(&self) -> (Response<()>, bytes::Bytes) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(self.status).expect("statuses are of three digits");
        let headers = response.headers_mut();
        self.say(headers);
        if self.has_body() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        (response, self.body.clone().into())
    }

    fn say(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name of ours");
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(name, value);
            }
        }
    }

    /// RFC 9110 §8.6: a 204 says nothing of a length.
    fn has_body(&self) -> bool {
        self.status != 204
    }

    /// For a client that speaks HTTP/1.
    pub fn write(&self, out: &mut Vec<u8>, head: bool, close: bool) {
        let reason = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        proxy_h1::write_status_line(out, Version::Http11, self.status, reason.unwrap_or_default().as_bytes());
        for (name, value) in &self.fields {
            proxy_h1::write_field(out, name.as_bytes(), value.as_bytes());
        }
        if self.has_body() {
            proxy_h1::write_field(out, b"Content-Length", self.body.len().to_string().as_bytes());
        }
        if close {
            proxy_h1::write_field(out, b"Connection", b"close");
        }
        proxy_h1::write_end(out);
        if !head {
            out.extend_from_slice(self.body.as_bytes());
        }
    }
}

/// `content-type` as `Content-Type`.
fn titled(name: &str) -> String {
    let mut start = true;
    let titled = name.chars().map(|symbol| {
        let symbol = if start { symbol.to_ascii_uppercase() } else { symbol };
        start = symbol == '-';
        symbol
    });
    titled.collect()
}

/// RFC 9209 §2: one list member with its parameters.
fn proxy_status(direction: Direction, failed: &Failed, next_hop: Option<SocketAddr>) -> String {
    let by = if failed.by_peer { Direction::Inbound } else { direction };
    let mut text = format!("weft-{}; error={}", by.as_str(), failed.reason);
    if let Some(address) = next_hop {
        text.push_str(&format!("; next-hop=\"{address}\""));
    }
    text.push_str("; details=\"");
    // A structured string (RFC 8941 §3.3.3) is printable ASCII, quotes and backslashes escaped.
    for symbol in failed.detail.chars().take(200) {
        match symbol {
            '"' | '\\' => text.extend(['\\', symbol]),
            ' '..='~' => text.push(symbol),
            _ => text.push('?'),
        }
    }
    text.push('"');
    text
}

fn body(reason: Reason, detail: &str, next_hop: Option<SocketAddr>) -> String {
    let to = next_hop.map(|address| format!(" (next hop {address})")).unwrap_or_default();
    format!("weft: {reason}: {} {detail}{to}.\nTry: {}\n", reason.says(), reason.remedy())
}
