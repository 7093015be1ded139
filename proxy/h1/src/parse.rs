//! Reads heads and trailers, line by line as they arrive (RFC 9112 §2–5).
//!
//! Each line is judged alone and in order, so the result does not depend on how the input was cut. In heads a lone LF ends a
//! line too, as §2.2 allows: the next hop gets CRLF. Not here: what the fields mean.

use std::ops::Range;

use bytes::{Buf, BytesMut};

use crate::fields::{Fields, Kind, Line};
use crate::head::{Progress, RequestHead, ResponseHead, Stage, TargetForm};
use crate::scan::{has_control, is_ows, is_tchar, trim};
use crate::{Limits, Refusal, Version, head};

/// What a parser did with the bytes that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parse {
    /// The head is whole, and its bytes are split off the buffer.
    Complete,
    /// Call again, with the same head, when the buffer has grown; nothing else may touch the buffer meanwhile.
    Partial,
}

/// Reads a request head from the front of `buf`. Empty lines before it are skipped (RFC 9112 §2.2).
///
/// # Errors
/// The rule that is broken. Nothing more can be read from this connection then.
pub fn parse_request(buf: &mut BytesMut, head: &mut RequestHead, limits: &Limits) -> Result<Parse, Refusal> {
    if head.progress.stage == Stage::Complete {
        head.clear();
    }
    parse(buf, head, limits)
}

/// Reads a response head from the front of `buf`, interim (1xx) or final.
///
/// Mended: folded lines become one (RFC 9112 §5.2); whitespace before a colon goes (§5.1); a status line may lack the space
/// after its code.
///
/// # Errors
/// The rule that is broken. Nothing more can be read from this connection then.
pub fn parse_response(
    buf: &mut BytesMut,
    head: &mut ResponseHead,
    limits: &Limits,
) -> Result<Parse, Refusal> {
    if head.progress.stage == Stage::Complete {
        head.clear();
    }
    parse(buf, head, limits)
}

/// What the three kinds of head differ in.
pub(crate) trait Head {
    const DIALECT: Dialect;
    fn progress(&mut self) -> &mut Progress;
    fn fields(&mut self) -> &mut Fields;
    /// The start line without its terminator, or what there is of it while it is not `whole`; the buffer begins with it.
    fn start_line(&mut self, line: &[u8], whole: bool, limits: &Limits) -> Result<(), Refusal>;
    /// All lines are read and frozen: what has to hold between them?
    fn check(&self) -> Result<(), Refusal>;
}

/// How lenient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Request,
    Response,
    /// Inside a chunked body nothing is mended, and each line ends by CRLF.
    Trailers,
}

/// Reads on where the last call stopped.
pub(crate) fn parse<H: Head>(buf: &mut BytesMut, head: &mut H, limits: &Limits) -> Result<Parse, Refusal> {
    // Ranges are 32 bits wide.
    let head_bytes = limits.head_bytes.min(u32::MAX as usize);
    loop {
        let stage = head.progress().stage;
        let Some(line) = head.progress().cursor.line(buf) else {
            if stage == Stage::StartLine {
                // A CR may be the first half of the terminator.
                head.start_line(buf.strip_suffix(b"\r").unwrap_or(buf), false, limits)?;
            }
            return if buf.len() > head_bytes { Err(Refusal::HeadTooLarge) } else { Ok(Parse::Partial) };
        };
        if stage == Stage::StartLine {
            if line.text.is_empty() && H::DIALECT == Dialect::Request {
                buf.advance(line.next);
                *head.progress() = Progress::default();
                continue;
            }
            // What is too long to be read anyway is judged as if its end had not been seen.
            head.start_line(&buf[line.text.clone()], line.next <= head_bytes, limits)?;
        }
        if line.next > head_bytes {
            return Err(Refusal::HeadTooLarge);
        }
        if H::DIALECT == Dialect::Trailers && !line.crlf {
            return Err(Refusal::ChunkEnd);
        }
        if stage != Stage::StartLine {
            if line.text.is_empty() {
                head.fields().freeze(buf.split_to(line.next).freeze());
                head.progress().stage = Stage::Complete;
                head.check()?;
                return Ok(Parse::Complete);
            }
            field_line(head.fields(), buf, line.text.clone(), H::DIALECT, limits)?;
        }
        head.progress().stage = Stage::Fields;
        head.progress().cursor.advance(&line);
    }
}

impl Head for RequestHead {
    const DIALECT: Dialect = Dialect::Request;

    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn fields(&mut self) -> &mut Fields {
        &mut self.fields
    }

    fn start_line(&mut self, line: &[u8], whole: bool, limits: &Limits) -> Result<(), Refusal> {
        // Short of the limits an unfinished line has time.
        if !whole && line.len() <= limits.target_bytes {
            return Ok(());
        }
        let Some(parts) = split_request_line(line, whole, limits)? else { return Ok(()) };
        let target = &line[parts.target.clone()];
        let (form, authority) = target_form(&line[..parts.method], target)
            .ok_or_else(|| control(target).unwrap_or(Refusal::Target))?;
        self.method = narrow(0..parts.method);
        self.target = narrow(parts.target.clone());
        self.form = form;
        self.authority = narrow(parts.target.start + authority.start..parts.target.start + authority.end);
        self.version = parts.version;
        Ok(())
    }

    fn check(&self) -> Result<(), Refusal> {
        self.check_host()
    }
}

impl Head for ResponseHead {
    const DIALECT: Dialect = Dialect::Response;

    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn fields(&mut self) -> &mut Fields {
        &mut self.fields
    }

    fn start_line(&mut self, line: &[u8], whole: bool, _limits: &Limits) -> Result<(), Refusal> {
        let prefix = line.len().min(HTTP.len());
        if line[..prefix] != HTTP[..prefix] {
            return Err(Refusal::StatusLine);
        }
        if !whole {
            return Ok(());
        }
        let (version, rest) = line.split_at_checked(VERSION_BYTES).ok_or(Refusal::StatusLine)?;
        self.version = read_version(version, Refusal::StatusLine)?;
        let (reason_at, reason) = match *rest {
            [b' ', b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => (line.len(), &[][..]),
            [b' ', b'1'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', ref reason @ ..] => {
                (VERSION_BYTES + 5, reason)
            }
            _ => return Err(control(rest).unwrap_or(Refusal::StatusLine)),
        };
        if let Some(refusal) = control(reason) {
            return Err(refusal);
        }
        self.status = rest[1..4].iter().fold(0, |status, &b| status * 10 + u16::from(b - b'0'));
        self.reason = narrow(reason_at..line.len());
        Ok(())
    }

    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Where the parts of a request line are.
struct RequestLine {
    method: usize,
    target: Range<usize>,
    version: Version,
}

/// No method in use comes near; whatever is longer cannot be one that a server implements.
const METHOD_BYTES: usize = 64;
const HTTP: &[u8] = b"HTTP/";
const VERSION_BYTES: usize = HTTP.len() + 3;

/// RFC 9112 §3: two single spaces. `None`: not whole, and nothing is wrong yet.
fn split_request_line(line: &[u8], whole: bool, limits: &Limits) -> Result<Option<RequestLine>, Refusal> {
    let incomplete = || if whole { Err(Refusal::RequestLine) } else { Ok(None) };
    // Judged by bytes that are there in either case, so that what comes later changes nothing.
    let malformed = |text: &[u8]| control(text).unwrap_or(Refusal::RequestLine);

    let head = &line[..line.len().min(METHOD_BYTES + 1)];
    let method = match head.iter().position(|&b| !is_tchar(b)) {
        Some(end) if end > 0 && head[end] == b' ' => end,
        Some(end) => return Err(malformed(&head[end..=end])),
        None if head.len() > METHOD_BYTES => return Err(Refusal::MethodTooLong),
        None => return incomplete(),
    };
    let rest = &line[method + 1..];
    let window = &rest[..rest.len().min(limits.target_bytes.saturating_add(1))];
    let target = match memchr::memchr(b' ', window) {
        Some(end) => end,
        None if window.len() > limits.target_bytes => return Err(Refusal::TargetTooLong),
        None => return incomplete(),
    };
    let version = &rest[target + 1..];
    if version.len() > VERSION_BYTES {
        return Err(malformed(&version[..=VERSION_BYTES]));
    }
    if !whole {
        return Ok(None);
    }
    let version = read_version(version, Refusal::RequestLine)?;
    let start = method + 1;
    Ok(Some(RequestLine { method, target: start..start + target, version }))
}

/// RFC 9112 §2.3: case-sensitive, one digit each.
fn read_version(text: &[u8], malformed: Refusal) -> Result<Version, Refusal> {
    match *text {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'] => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::Version),
        _ => Err(control(text).unwrap_or(malformed)),
    }
}

/// RFC 9112 §3.2: the form, and where in the target its authority is.
fn target_form(method: &[u8], target: &[u8]) -> Option<(TargetForm, Range<usize>)> {
    if method == b"CONNECT" {
        return head::is_authority_with_port(target).then_some((TargetForm::Authority, 0..target.len()));
    }
    // A fragment is no part of a target; those who pass it on disagree about what it means.
    if target.iter().any(|&b| b <= b' ' || b == 0x7f || b == b'#') {
        return None;
    }
    match target {
        [b'/', ..] => Some((TargetForm::Origin, 0..0)),
        b"*" => (method == b"OPTIONS").then_some((TargetForm::Asterisk, 0..0)),
        _ => {
            let colon = memchr::memchr(b':', target)?;
            let (scheme, rest) = target.split_at(colon);
            let scheme_ok = scheme.first().is_some_and(u8::is_ascii_alphabetic)
                && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
            let rest = rest.strip_prefix(b"://")?;
            let start = colon + 3;
            let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
            (scheme_ok && head::is_authority(&rest[..end]))
                .then_some((TargetForm::Absolute, start..start + end))
        }
    }
}

/// The longest field name that `http::HeaderName` can hold.
const MAX_NAME_BYTES: usize = 65_535;

/// One field line, RFC 9112 §5.
#[inline]
fn field_line(
    fields: &mut Fields,
    buf: &mut [u8],
    at: Range<usize>,
    dialect: Dialect,
    limits: &Limits,
) -> Result<(), Refusal> {
    let text = &buf[at.clone()];
    if is_ows(text[0]) {
        return folded_line(fields, buf, at, dialect);
    }
    let name = text.iter().position(|&b| !is_tchar(b)).unwrap_or(text.len());
    let mut colon = name;
    while text.get(colon).copied().is_some_and(is_ows) {
        colon += 1;
    }
    if name > MAX_NAME_BYTES {
        return Err(if dialect == Dialect::Trailers {
            Refusal::TrailersTooLarge
        } else {
            Refusal::HeadTooLarge
        });
    }
    if name == 0 || text.get(colon) != Some(&b':') {
        return Err(control(text).unwrap_or(Refusal::FieldName));
    }
    if colon != name && dialect != Dialect::Response {
        return Err(Refusal::SpaceBeforeColon);
    }
    if let Some(refusal) = control(&text[colon + 1..]) {
        return Err(refusal);
    }
    let kind = Kind::of(&text[..name]);
    let value = trim(buf, at.start + colon + 1..at.end);
    fields.push(Line { kind, name: narrow(at.start..at.start + name), value: narrow(value) }, limits.fields)
}

/// RFC 9112 §5.2: in a response the line break becomes spaces, in place.
#[cold]
fn folded_line(
    fields: &mut Fields,
    buf: &mut [u8],
    at: Range<usize>,
    dialect: Dialect,
) -> Result<(), Refusal> {
    let Some(last) = fields.last_mut() else { return Err(Refusal::SpaceBeforeFields) };
    if dialect != Dialect::Response {
        return Err(Refusal::ObsFold);
    }
    if let Some(refusal) = control(&buf[at.clone()]) {
        return Err(refusal);
    }
    // The terminator of the line before, one byte or two, and the whitespace after it.
    buf[at.start - 1] = b' ';
    if buf[at.start - 2] == b'\r' {
        buf[at.start - 2] = b' ';
    }
    let more = trim(buf, at.clone());
    buf[at.start..more.start].fill(b' ');
    if !more.is_empty() {
        let start = if last.value.is_empty() { more.start as u32 } else { last.value.start };
        last.value = start..more.end as u32;
    }
    Ok(())
}

/// The refusal of a text with a control character in it.
#[inline]
fn control(text: &[u8]) -> Option<Refusal> {
    has_control(text)
        .then(|| if memchr::memchr(b'\r', text).is_some() { Refusal::BareCr } else { Refusal::FieldValue })
}

/// The range as it is stored; `parse` reads no head of 4 GiB.
#[inline]
fn narrow(range: Range<usize>) -> Range<u32> {
    range.start as u32..range.end as u32
}
