//! The facts of one line, their names, and how they are written.
//!
//! Names are OpenTelemetry's attributes where it has one; ours begin with `weft.`. What is not known is left out.
//!
//! | name | what |
//! |---|---|
//! | `time` | when it began: RFC 3339, UTC, milliseconds |
//! | `weft.direction` | `outbound`: from the local application; `inbound`: to it |
//! | `network.transport` | `tcp` |
//! | `network.protocol.name`, `.version` | `http` and `1.0`, `1.1` or `2`; left out for a connection of bytes |
//! | `http.request.method` | |
//! | `url.path` | without the query, which may carry secrets |
//! | `server.address`, `server.port` | whom the client asked for: its Host or `:authority`, or for bytes the address that it dialled |
//! | `http.response.status_code` | left out when there was no answer |
//! | `rpc.grpc.status_code` | |
//! | `client.address`, `client.port` | the other end of the connection: the application, or the peer, which may be a proxy |
//! | `weft.service` | the Service port that was asked for: `cart.shop:8080` |
//! | `weft.destination` | the address and port that the client dialled |
//! | `weft.next_hop` | where it was sent |
//! | `weft.peer.workload` | the pod there: `shop/cart-1` |
//! | `weft.client.identity`, `weft.server.identity` | verified SPIFFE ids |
//! | `tls.protocol.version` | towards the peer: `1.3`; `backend` where a BackendTLSPolicy asks for TLS; or `none` |
//! | `weft.attempts` | how often it was sent, or a connection for it was tried |
//! | `weft.retry` | `retry_budget_exhausted`: it would have been sent once more otherwise |
//! | `weft.bytes.from_client`, `weft.bytes.to_client` | payload |
//! | `weft.first_byte_ms`, `weft.duration_ms` | from its beginning to the answer's, and to its end; milliseconds |
//! | `weft.reason`, `weft.details` | why the proxy itself answered, reset or refused: the words of `Proxy-Status` |

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use policy::{Reason, limits};

use super::super::{Direction, Repetition};

/// What one line says. Borrowed facts: it is made only when it is wanted.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Which way.
    pub direction: Direction,
    /// A request, or bytes.
    pub traffic: Traffic<'a>,
    /// When it ended.
    pub ended: SystemTime,
    /// How long it lasted.
    pub elapsed: Duration,
    /// Until the answer's head, or for bytes the connection to the next hop, was there.
    pub first_byte: Option<Duration>,
    /// The other end of the client's connection.
    pub client: Option<SocketAddr>,
    /// The address that the client dialled.
    pub destination: Option<SocketAddr>,
    /// Where it was sent; `None` when it got no further than this proxy.
    pub next_hop: Option<SocketAddr>,
    /// The service that was asked for, "cart.shop:8080"; "" where the address belongs to none.
    pub service: &'a str,
    /// The pod at the next hop (outbound), "shop/cart-1"; "" if unknown.
    pub workload: &'a str,
    /// The caller's verified identity, "" where there is none.
    pub client_identity: &'a str,
    /// The callee's verified identity, "" where there is none.
    pub server_identity: &'a str,
    /// TLS towards the peer: "1.3" or "none".
    pub tls: &'static str,
    /// Times that it was sent, or that a connection was tried; 0 when it got no further than this proxy.
    pub attempts: usize,
    /// It was not sent once more, as the budget of repetitions is used up.
    pub out_of_budget: bool,
    /// Payload bytes from the client.
    pub from_client: u64,
    /// Payload bytes to the client.
    pub to_client: u64,
    /// Why the proxy itself answered, reset or refused, and what exactly; "" for nothing to add.
    pub failure: Option<(Reason, &'a str)>,
}

/// What it was.
#[derive(Clone, Debug)]
pub enum Traffic<'a> {
    /// One request and its response.
    Request(Request<'a>),
    /// A TCP connection.
    Connection,
}

/// A request and its response, in the words of their heads.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What the client speaks: "1.0", "1.1", "2".
    pub version: &'static str,
    /// "" when no valid head has come.
    pub method: &'a str,
    /// The request target as it came, in whichever form (RFC 9112 §3.2).
    pub target: &'a [u8],
    /// Host or `:authority`; may be empty.
    pub authority: &'a [u8],
    /// Of the final response; 0 where there was none.
    pub status: u16,
    /// What `grpc-status` said.
    pub grpc_status: Option<u16>,
}

impl Entry<'_> {
    /// Adds the line, with its end.
    pub(super) fn render(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        write_time(out, self.ended.checked_sub(self.elapsed).unwrap_or(self.ended));
        out.push(b'"');
        text(out, "weft.direction", self.direction.as_str().as_bytes());
        text(out, "network.transport", b"tcp");
        match &self.traffic {
            Traffic::Request(request) => request.render(out),
            Traffic::Connection => address(out, "server", self.destination),
        }
        address(out, "client", self.client);
        text(out, "weft.service", self.service.as_bytes());
        socket(out, "weft.destination", self.destination);
        socket(out, "weft.next_hop", self.next_hop);
        text(out, "weft.peer.workload", self.workload.as_bytes());
        text(out, "weft.client.identity", self.client_identity.as_bytes());
        text(out, "weft.server.identity", self.server_identity.as_bytes());
        text(out, "tls.protocol.version", self.tls.as_bytes());
        number(out, "weft.attempts", self.attempts as u64);
        if self.out_of_budget {
            text(out, "weft.retry", Repetition::OutOfBudget.as_str().as_bytes());
        }
        number(out, "weft.bytes.from_client", self.from_client);
        number(out, "weft.bytes.to_client", self.to_client);
        if let Some(first_byte) = self.first_byte {
            milliseconds(out, "weft.first_byte_ms", first_byte);
        }
        milliseconds(out, "weft.duration_ms", self.elapsed);
        if let Some((reason, details)) = self.failure {
            text(out, "weft.reason", reason.as_str().as_bytes());
            text(out, "weft.details", details.as_bytes());
        }
        out.extend_from_slice(b"}\n");
    }
}

impl Request<'_> {
    fn render(&self, out: &mut Vec<u8>) {
        text(out, "network.protocol.name", b"http");
        text(out, "network.protocol.version", self.version.as_bytes());
        text(out, "http.request.method", self.method.as_bytes());
        let (authority, path) = split_target(self.method, self.target);
        let authority = if self.authority.is_empty() { authority } else { self.authority };
        text(out, "url.path", path);
        let (host, port) = split_authority(authority);
        text(out, "server.address", host);
        if let Some(port) = port {
            number(out, "server.port", port.into());
        }
        if self.status > 0 {
            number(out, "http.response.status_code", self.status.into());
        }
        if let Some(status) = self.grpc_status {
            number(out, "rpc.grpc.status_code", status.into());
        }
    }
}

/// The authority, if the target has one, and the path without its query: of the origin, absolute, authority and asterisk
/// forms.
fn split_target<'a>(method: &str, target: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    if method == "CONNECT" && !target.starts_with(b"/") {
        return (target, b"");
    }
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let target = &target[..end];
    if target.starts_with(b"/") {
        return (b"", target);
    }
    match target.windows(3).position(|window| window == b"://") {
        Some(scheme) => {
            let rest = &target[scheme + 3..];
            let path = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            (&rest[..path], &rest[path..])
        }
        None => (b"", target),
    }
}

/// Host and port. A password has no place in a log (RFC 3986 §3.2.1).
fn split_authority(authority: &[u8]) -> (&[u8], Option<u16>) {
    let host = authority.iter().rposition(|byte| *byte == b'@').map_or(authority, |at| &authority[at + 1..]);
    let unbracketed = |host: &[u8]| !host.contains(&b':') || host.ends_with(b"]");
    let split = host.iter().rposition(|byte| *byte == b':').filter(|colon| unbracketed(&host[..*colon]));
    let port = split
        .and_then(|colon| std::str::from_utf8(&host[colon + 1..]).ok())
        .and_then(|port| port.parse().ok());
    let host = if port.is_some() { &host[..split.unwrap_or(host.len())] } else { host };
    (host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host), port)
}

/// RFC 3339 §5.6, UTC. What is before 1970 is told as its first moment.
fn write_time(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March end with the day that may not be: 400 of them have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let milliseconds = since.subsec_millis();
    put(
        out,
        format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"),
    );
}

fn put(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a vector takes everything");
}

fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    name(out, key);
    put(out, format_args!("{value}"));
}

fn milliseconds(out: &mut Vec<u8>, key: &str, value: Duration) {
    name(out, key);
    let microseconds = value.as_micros();
    put(out, format_args!("{}.{:03}", microseconds / 1000, microseconds % 1000));
}

fn socket(out: &mut Vec<u8>, key: &str, value: Option<SocketAddr>) {
    if let Some(value) = value {
        name(out, key);
        put(out, format_args!("\"{value}\""));
    }
}

fn address(out: &mut Vec<u8>, role: &str, value: Option<SocketAddr>) {
    if let Some(value) = value {
        put(out, format_args!(",\"{role}.address\":\"{}\",\"{role}.port\":{}", value.ip(), value.port()));
    }
}

/// A string (RFC 8259 §7); nothing where it is empty. What is no UTF-8 becomes U+FFFD, and what is too long is cut.
fn text(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    let cut = value.len() > limits::ACCESS_LOG_VALUE_BYTES;
    let value = if cut { &value[..limits::ACCESS_LOG_VALUE_BYTES] } else { value };
    name(out, key);
    out.push(b'"');
    for chunk in value.utf8_chunks() {
        escape(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if cut {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    let special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\' | 0x7f);
    while let Some(at) = text.iter().position(special) {
        out.extend_from_slice(&text[..at]);
        match text[at] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => put(out, format_args!("\\u{byte:04x}")),
        }
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_calendar() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_007, "2000-03-01T00:00:00.007Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (milliseconds, expected) in table {
            let mut out = Vec::new();
            write_time(&mut out, SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn targets_of_every_form_give_a_path_without_its_query() {
        let table = [
            ("GET", "/a/b?token=secret", "", "/a/b"),
            ("GET", "/", "", "/"),
            ("GET", "http://u:p@shop:80/a?b", "u:p@shop:80", "/a"),
            ("GET", "http://shop?b", "shop", ""),
            ("OPTIONS", "*", "", "*"),
            ("CONNECT", "shop:1", "shop:1", ""),
            ("CONNECT", "/chat?a", "", "/chat"),
            ("", "", "", ""),
        ];
        for (method, target, authority, path) in table {
            let split = split_target(method, target.as_bytes());
            assert_eq!(split, (authority.as_bytes(), path.as_bytes()), "{method} {target}");
        }
    }

    #[test]
    fn authorities_give_host_and_port() {
        let table = [
            ("shop", "shop", None),
            ("shop:80", "shop", Some(80)),
            ("user:secret@shop:80", "shop", Some(80)),
            ("[fd00::1]:80", "fd00::1", Some(80)),
            ("[fd00::1]", "fd00::1", None),
            ("fd00::1", "fd00::1", None),
            ("shop:99999", "shop:99999", None),
            ("", "", None),
        ];
        for (authority, host, port) in table {
            assert_eq!(split_authority(authority.as_bytes()), (host.as_bytes(), port), "{authority}");
        }
    }
}
