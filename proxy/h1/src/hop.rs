//! What concerns this hop only: connection options, persistence, upgrades, and which fields travel on
//! (RFC 9110 §7.6.1, §7.8, §10.1; RFC 9112 §9.3). Not here: writing the fields of the next hop.

use crate::Version;
use crate::fields::{Field, Fields, Kind, Line};
use crate::framing::BodyLength;
use crate::head::{RequestHead, ResponseHead};
use crate::scan::members;
use std::time::Duration;

impl Fields {
    /// The fields that travel on: without Connection and what it names, Keep-Alive, Proxy-Connection, TE,
    /// Transfer-Encoding, Upgrade (RFC 9110 §7.6.1) and without any `weft-*`.
    ///
    /// Content-Length comes at most once, mended to its first value (`5, 5` to `5`), and not at all beside
    /// Transfer-Encoding (RFC 9112 §6.3). Connection cannot name Host or Content-Length away. Of trailers, those that frame
    /// or route a message are left out (RFC 9110 §6.5.1). Proxy-Authenticate, Proxy-Authorization and Trailer stay.
    pub fn end_to_end(&self) -> EndToEnd<'_> {
        let length = !self.are_trailers() && !self.has(Kind::TransferEncoding);
        EndToEnd { fields: self, lines: self.lines(), length }
    }

    /// Does TE say that the sender takes trailers (RFC 9110 §10.1.4)? The one part of TE that a gateway to HTTP/2 passes on.
    pub fn accepts_trailers(&self) -> bool {
        self.of(Kind::Te)
            .flat_map(|field| members(field.value))
            .any(|member| member.eq_ignore_ascii_case(b"trailers"))
    }

    /// Does Connection name this field?
    fn nominates(&self, name: &[u8]) -> bool {
        self.of(Kind::Connection)
            .flat_map(|field| members(field.value))
            .any(|option| option.eq_ignore_ascii_case(name))
    }

    /// RFC 9112 §9.3. In HTTP/1.0 `keep-alive` is honoured from clients too: the rule against it guards from proxies that pass
    /// Connection on blindly, and a sidecar stands where such a proxy's server would.
    fn persists(&self, version: Version) -> bool {
        let options = self.options();
        !options.close && (version == Version::Http11 || options.keep_alive)
    }

    fn upgrade(&self, version: Version) -> Option<&[u8]> {
        if version != Version::Http11 || !self.options().upgrade {
            return None;
        }
        self.of(Kind::Upgrade).map(|field| field.value).find(|value| !value.is_empty())
    }
}

impl RequestHead {
    /// May another request follow on this connection (RFC 9112 §9.3)?
    pub fn keep_alive(&self) -> bool {
        self.fields().persists(self.version())
    }

    /// The protocols that the client asks to change to, as they stand in (the first) Upgrade: only in HTTP/1.1 and only when
    /// Connection names it (RFC 9110 §7.8).
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.fields().upgrade(self.version())
    }

    /// Does the client wait for a 100 before it sends the body? Never in HTTP/1.0 (RFC 9110 §10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.version() == Version::Http11
            && (self.fields().of(Kind::Expect).flat_map(|field| members(field.value)))
                .any(|member| member.eq_ignore_ascii_case(b"100-continue"))
    }
}

impl ResponseHead {
    /// May the connection be used again once this message is read (RFC 9112 §9.3)? `body` is what [`ResponseHead::body`] said.
    ///
    /// Not after a body that the close ends, and not after a message with both Transfer-Encoding and Content-Length, which may
    /// be an attempt to split responses (RFC 9112 §6.3).
    pub fn keep_alive(&self, body: BodyLength) -> bool {
        let fields = self.fields();
        let ambiguous = fields.has(Kind::TransferEncoding) && fields.has(Kind::ContentLength);
        body != BodyLength::UntilClose && !ambiguous && fields.persists(self.version())
    }

    /// For how long the server will keep the connection when it is idle: `Keep-Alive: timeout=N`, in seconds (RFC 2068 §19.7.1.1).
    pub fn keep_alive_timeout(&self) -> Option<Duration> {
        let mut parameters = self.fields().of(Kind::KeepAlive).flat_map(|field| members(field.value));
        let seconds = parameters.find_map(|parameter| {
            let (name, value) = parameter.split_at_checked(b"timeout".len())?;
            let value =
                value.trim_ascii().strip_prefix(b"=").filter(|_| name.eq_ignore_ascii_case(b"timeout"))?;
            std::str::from_utf8(value.trim_ascii()).ok()?.parse::<u32>().ok()
        });
        seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The protocol of a 101, or those that a 426 asks for (RFC 9110 §7.8).
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.fields().upgrade(self.version())
    }

    /// [`Fields::end_to_end`] of the response to a request with this method: without Content-Length in 1xx, 204 and 2xx to
    /// CONNECT, where it must not stand (RFC 9110 §8.6).
    pub fn end_to_end(&self, request_method: &str) -> EndToEnd<'_> {
        let mut fields = self.fields().end_to_end();
        let lengthless = match self.status() {
            100..=199 | 204 => true,
            200..=299 => request_method == "CONNECT",
            _ => false,
        };
        fields.length &= !lengthless;
        fields
    }
}

/// The fields of a message that travel on to the next hop.
#[derive(Clone, Debug)]
pub struct EndToEnd<'a> {
    fields: &'a Fields,
    lines: std::slice::Iter<'a, Line>,
    /// Content-Length is still to come.
    length: bool,
}

impl<'a> Iterator for EndToEnd<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        for line in self.lines.by_ref() {
            let mut field = self.fields.field(line);
            let travels = match line.kind {
                Kind::Other | Kind::Expect => {
                    !(self.fields.options().nominates && self.fields.nominates(field.name))
                }
                Kind::Host => !self.fields.are_trailers(),
                Kind::ContentLength => {
                    field.value = field.value.split(|&b| b == b',').next().unwrap_or_default().trim_ascii();
                    std::mem::take(&mut self.length)
                }
                Kind::Connection
                | Kind::KeepAlive
                | Kind::ProxyConnection
                | Kind::Te
                | Kind::TransferEncoding
                | Kind::Upgrade
                | Kind::Weft => false,
            };
            if travels {
                return Some(field);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Parse, parse_response};

    #[test]
    fn a_server_says_how_long_it_keeps_a_connection() {
        let table: &[(&str, Option<u64>)] = &[
            ("", None),
            ("Keep-Alive: timeout=5\r\n", Some(5)),
            ("keep-alive: max=100 , Timeout = 65\r\n", Some(65)),
            ("Keep-Alive: max=1\r\nKeep-Alive: timeout=7\r\n", Some(7)),
            ("Keep-Alive: timeout=0\r\n", Some(0)),
            ("Keep-Alive: timeout=-1\r\n", None),
            ("Keep-Alive: timeout=1.5\r\n", None),
            ("Keep-Alive: timeout\r\n", None),
            ("Keep-Alive: time\r\n", None),
            ("Keep-Alive: timeouts=5\r\n", None),
            ("Keep-Alive: timeout=99999999999\r\n", None),
            ("Connection: keep-alive\r\nX: timeout=5\r\n", None),
        ];
        for (fields, seconds) in table {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let mut head = ResponseHead::default();
            let parsed = parse_response(&mut text.as_bytes().into(), &mut head, &Limits::default());
            assert!(matches!(parsed, Ok(Parse::Complete)), "{fields:?}");
            assert_eq!(head.keep_alive_timeout(), seconds.map(Duration::from_secs), "{fields:?}");
        }
    }
}
