//! Request and response heads: what their start lines say, and their fields.
//! Not here: how they are read (`parse`), what they mean for body (`framing`) and connection (`hop`).

use std::ops::Range;

use bytes::Bytes;

use crate::fields::{Fields, Kind};
use crate::scan::{Cursor, bytes_of};
use crate::{Refusal, Version};

/// The head of a request. Made empty, filled by [`crate::parse_request`], used again for the next one.
/// Before it is complete (or when it was refused) all that it says is empty.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub(crate) progress: Progress,
    pub(crate) method: Range<u32>,
    pub(crate) target: Range<u32>,
    pub(crate) form: TargetForm,
    pub(crate) authority: Range<u32>,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

/// The head of a response. Made empty, filled by [`crate::parse_response`], used again for the next one.
/// Before it is complete (or when it was refused) it says nothing of use.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    pub(crate) progress: Progress,
    pub(crate) status: u16,
    pub(crate) reason: Range<u32>,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

/// How far an incomplete head was read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) cursor: Cursor,
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    StartLine,
    Fields,
    Complete,
}

/// The four forms of a request-target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path`
    Absolute,
    /// `host:port`, of CONNECT and only there.
    Authority,
    /// `*`, of OPTIONS and only there.
    Asterisk,
}

impl RequestHead {
    /// The method, a token; methods are case-sensitive.
    pub fn method(&self) -> &str {
        std::str::from_utf8(slice(self.fields.bytes(), &self.method))
            .expect("a parsed method is a token, and so ASCII")
    }

    /// The request-target as received: no controls, no whitespace, no `#`; bytes over 0x7f are let through.
    pub fn target(&self) -> &[u8] {
        slice(self.fields.bytes(), &self.target)
    }

    /// [`RequestHead::target`] as a slice of the head, without a copy.
    pub fn target_bytes(&self) -> Bytes {
        let target = self.target();
        if target.is_empty() { Bytes::new() } else { self.fields.bytes().slice_ref(target) }
    }

    /// Which form the target has.
    pub fn target_form(&self) -> TargetForm {
        self.form
    }

    /// `host[:port]` that the request is for: the target's own where it has one, and then Host does not count
    /// (RFC 9112 §3.2.2: whoever passes the request on has to replace Host by it); else Host. Empty when neither says.
    pub fn authority(&self) -> &[u8] {
        match self.form {
            TargetForm::Absolute | TargetForm::Authority => slice(self.fields.bytes(), &self.authority),
            TargetForm::Origin | TargetForm::Asterisk => {
                self.fields.of(Kind::Host).next().map_or(b"", |field| field.value)
            }
        }
    }

    /// The version that the client speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// All field lines.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Forgets the message and lets go of its bytes; the storage stays. [`crate::parse_request`] does it by itself.
    pub fn clear(&mut self) {
        self.fields.clear();
        let fields = std::mem::take(&mut self.fields);
        *self = RequestHead { fields, ..RequestHead::default() };
    }

    /// Host (RFC 9112 §3.2): one line at most, exactly one in 1.1, well-formed or empty.
    pub(crate) fn check_host(&self) -> Result<(), Refusal> {
        let mut hosts = self.fields.of(Kind::Host);
        match (hosts.next(), hosts.next()) {
            (None, _) if self.version == Version::Http11 => Err(Refusal::HostMissing),
            (None, _) => Ok(()),
            (Some(_), Some(_)) => Err(Refusal::HostRepeated),
            (Some(host), None) if host.value.is_empty() || is_authority(host.value) => Ok(()),
            (Some(_), None) => Err(Refusal::HostInvalid),
        }
    }
}

impl ResponseHead {
    /// The status code, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase, possibly empty. It means nothing (RFC 9112 §4).
    pub fn reason(&self) -> &[u8] {
        slice(self.fields.bytes(), &self.reason)
    }

    /// The version that the server speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// All field lines.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Forgets the message and lets go of its bytes; the storage stays. [`crate::parse_response`] does it by itself.
    pub fn clear(&mut self) {
        self.fields.clear();
        let fields = std::mem::take(&mut self.fields);
        *self = ResponseHead { fields, ..ResponseHead::default() };
    }
}

/// Empty for a head that is not complete, as its ranges point nowhere yet.
fn slice<'a>(bytes: &'a Bytes, range: &Range<u32>) -> &'a [u8] {
    bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// `uri-host [ ":" [port] ]` with a host that is not empty (RFC 3986 §3.2.2, RFC 9110 §4.2.1, §7.2).
pub(crate) fn is_authority(text: &[u8]) -> bool {
    match split_port(text) {
        Some((host, port)) => !host.is_empty() && port.iter().all(u8::is_ascii_digit),
        None => false,
    }
}

/// `uri-host ":" port`, as CONNECT needs it (RFC 9110 §9.3.6).
pub(crate) fn is_authority_with_port(text: &[u8]) -> bool {
    let number = |port: &[u8]| std::str::from_utf8(port).ok()?.parse::<u16>().ok();
    is_authority(text) && split_port(text).and_then(|(_, port)| number(port)).is_some_and(|port| port > 0)
}

/// Host and port (without the colon; empty when there is none), when the host's bytes may stand in one.
fn split_port(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (host, rest) = if text.first() == Some(&b'[') {
        let end = memchr::memchr(b']', text)?;
        let literal = &text[1..end];
        let valid = !literal.is_empty() && literal.iter().all(|&b| b == b':' || is_reg_name(b));
        (valid.then_some(literal)?, &text[end + 1..])
    } else {
        let end = text.iter().position(|&b| !is_reg_name(b)).unwrap_or(text.len());
        text.split_at(end)
    };
    match rest.split_first() {
        None => Some((host, b"")),
        Some((b':', port)) => Some((host, port)),
        Some(_) => None,
    }
}

/// unreserved, pct-encoded or sub-delims of RFC 3986 §3.2.2; raw UTF-8 passes too, as internal names have it.
const fn is_reg_name(b: u8) -> bool {
    REG_NAME[b as usize]
}

const REG_NAME: [bool; 256] = bytes_of(b"-._~%!$&'()*+,;=", true);
