//! Reads a ClientHello as far as detection needs it: the server name and the application protocols.
//! Key shares, cipher suites and versions are skipped; whoever terminates TLS reads them.

use std::borrow::Cow;

use crate::{Lean, Look};

/// A ClientHello, its record headers included, has at most 64 KiB.
pub const MAX_CLIENT_HELLO: usize = 64 * 1024;

/// A ClientHello comes in at most this many records.
pub const MAX_HELLO_RECORDS: usize = 64;

/// The first byte of every TLS connection: a record of the type `handshake` (RFC 8446 §5.1).
pub(crate) const HANDSHAKE_RECORD: u8 = 0x16;

const RECORD_HEADER: usize = 5;
/// RFC 8446 §5.1: 2^14 bytes of plaintext a record.
const MAX_RECORD: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
const HANDSHAKE_HEADER: usize = 4;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;
/// RFC 1035 §2.3.4.
const MAX_HOST_NAME: usize = 255;

/// What a ClientHello says about where it wants to go and what it will speak there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
}

impl ClientHello {
    /// The host name of the `server_name` extension (RFC 6066 §3), in lower case.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The application protocols (RFC 7301), in the client's order of preference.
    pub fn alpn(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.alpn.iter().map(Vec::as_slice)
    }

    /// Whether the client offers this application protocol, for example `weft/1`.
    #[must_use]
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| offered == protocol)
    }
}

/// `bytes` begin with [`HANDSHAKE_RECORD`].
pub(crate) fn look(bytes: &[u8]) -> Look {
    let (bytes, cut) = match bytes.get(..MAX_CLIENT_HELLO) {
        Some(bounded) => (bounded, true),
        None => (bytes, false),
    };
    match assemble(bytes) {
        Ok(Assembled::Whole(hello)) => parse(&hello).map_or(Look::Opaque, Look::Tls),
        Ok(Assembled::Partial) if cut => Look::Opaque,
        // Three bytes say TLS and its version; fewer may be anything.
        Ok(Assembled::Partial) if bytes.len() >= 3 => Look::Partial(Lean::Tls),
        Ok(Assembled::Partial) => Look::Partial(Lean::Unknown),
        Err(NotTls) => Look::Opaque,
    }
}

/// The bytes break a rule that every ClientHello keeps.
struct NotTls;

enum Assembled<'a> {
    /// The body of the ClientHello, without its handshake header.
    Whole(Cow<'a, [u8]>),
    Partial,
}

/// Takes the ClientHello out of its records. Each record and the handshake header are judged as soon as their
/// bytes are there; nothing is copied before the last one has come, nor when all of it stands in one record.
fn assemble(bytes: &[u8]) -> Result<Assembled<'_>, NotTls> {
    let mut seen = 0;
    let mut header = [0; HANDSHAKE_HEADER];
    for (index, record) in records(bytes).enumerate() {
        let fragment = match record {
            Record::Fragment(_) if index == MAX_HELLO_RECORDS => return Err(NotTls),
            Record::Fragment(fragment) => fragment,
            Record::PartialHeader => return Ok(Assembled::Partial),
            Record::Invalid => return Err(NotTls),
        };
        if seen < HANDSHAKE_HEADER {
            let wanted = fragment.len().min(HANDSHAKE_HEADER - seen);
            header[seen..seen + wanted].copy_from_slice(&fragment[..wanted]);
        }
        seen += fragment.len();
        if seen >= 1 && header[0] != CLIENT_HELLO {
            return Err(NotTls);
        }
        if seen < HANDSHAKE_HEADER {
            continue;
        }
        let end = HANDSHAKE_HEADER + u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        if end > MAX_CLIENT_HELLO {
            return Err(NotTls);
        }
        if seen >= end {
            return Ok(Assembled::Whole(body(bytes, fragment, index, end)));
        }
    }
    Ok(Assembled::Partial)
}

/// The handshake bytes from the header's end to `end`; the record number `last` is where they end.
fn body<'a>(bytes: &'a [u8], fragment: &'a [u8], last: usize, end: usize) -> Cow<'a, [u8]> {
    if last == 0 {
        return Cow::Borrowed(&fragment[HANDSHAKE_HEADER..end]);
    }
    let mut joined = Vec::with_capacity(end + MAX_RECORD);
    for record in records(bytes).take(last + 1) {
        if let Record::Fragment(fragment) = record {
            joined.extend_from_slice(fragment);
        }
    }
    joined.truncate(end);
    joined.drain(..HANDSHAKE_HEADER);
    Cow::Owned(joined)
}

enum Record<'a> {
    /// What has come of one record's content.
    Fragment(&'a [u8]),
    /// The bytes end inside a header that is right so far.
    PartialHeader,
    Invalid,
}

/// Walks over the records; ends after the first that is not whole.
fn records(bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let here = std::mem::take(&mut rest);
        if !plausible_header(here) {
            return Some(Record::Invalid);
        }
        let Some((header, content)) = here.split_at_checked(RECORD_HEADER) else {
            return Some(Record::PartialHeader);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let (fragment, after) = content.split_at(length.min(content.len()));
        rest = after;
        Some(Record::Fragment(fragment))
    })
}

/// Judges as much of a record header as there is: type, version 3.1 to 3.4, length 1 to 2^14.
fn plausible_header(bytes: &[u8]) -> bool {
    let at = |index: usize, right: fn(u8) -> bool| bytes.get(index).is_none_or(|&byte| right(byte));
    at(0, |byte| byte == HANDSHAKE_RECORD)
        && at(1, |byte| byte == 3)
        && at(2, |byte| (1..=4).contains(&byte))
        && at(3, |byte| usize::from(byte) << 8 <= MAX_RECORD)
        && bytes.get(3..5).is_none_or(|length| {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            (1..=MAX_RECORD).contains(&length)
        })
}

/// RFC 8446 §4.1.2. `None` when the structure does not hold.
fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(body);
    let legacy_version = body.u16()?;
    if legacy_version >> 8 != 3 {
        return None;
    }
    body.take(32)?; // random
    let session_id = body.vector8()?;
    let cipher_suites = body.vector16()?;
    let compression_methods = body.vector8()?;
    if session_id.0.len() > 32 || cipher_suites.0.len() < 2 || cipher_suites.0.len() % 2 != 0 {
        return None;
    }
    if compression_methods.is_empty() {
        return None;
    }
    let mut hello = ClientHello::default();
    if body.is_empty() {
        return Some(hello); // Before TLS 1.3 there may be no extensions at all.
    }
    let mut extensions = body.vector16()?;
    if !body.is_empty() {
        return None;
    }
    let (mut names, mut protocols) = (0, 0);
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vector16()?;
        match kind {
            EXTENSION_SERVER_NAME => {
                names += 1;
                hello.server_name = parse_server_name(content)?;
            }
            EXTENSION_ALPN => {
                protocols += 1;
                hello.alpn = parse_alpn(content)?;
            }
            _ => {}
        }
    }
    // RFC 8446 §4.2: no extension twice. A server would refuse it, so let it.
    (names <= 1 && protocols <= 1).then_some(hello)
}

/// RFC 6066 §3: a list that is not empty, with at most one name of each type.
fn parse_server_name(mut content: Reader<'_>) -> Option<Option<String>> {
    let mut list = content.vector16()?;
    if !content.is_empty() || list.is_empty() {
        return None;
    }
    let mut host = None;
    while !list.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?.0;
        if kind != NAME_TYPE_HOST {
            continue;
        }
        let printable = name.iter().all(u8::is_ascii_graphic);
        if host.is_some() || name.is_empty() || name.len() > MAX_HOST_NAME || !printable {
            return None;
        }
        host = Some(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect());
    }
    Some(host)
}

/// RFC 7301 §3.1: a list that is not empty, of names that are not empty.
fn parse_alpn(mut content: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = content.vector16()?;
    if !content.is_empty() || list.is_empty() {
        return None;
    }
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let name = list.vector8()?.0;
        if name.is_empty() {
            return None;
        }
        protocols.push(name.to_vec());
    }
    Some(protocols)
}

/// The presentation language of RFC 8446 §3: integers in network order, vectors behind their length.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<Reader<'a>> {
        let length = self.u8()?;
        self.take(usize::from(length)).map(Reader)
    }

    fn vector16(&mut self) -> Option<Reader<'a>> {
        let length = self.u16()?;
        self.take(usize::from(length)).map(Reader)
    }
}
