//! How long a body is: RFC 9112 §6.3, for requests and for responses, and the conflicts of §6.1 and §6.2.
//! Not here: reading the body (`decode`).

use crate::fields::{Fields, Kind};
use crate::head::{RequestHead, ResponseHead};
use crate::scan::members;
use crate::{Refusal, Version};

/// Where a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyLength {
    /// There is no body and none was announced: a request without framing fields, a response to HEAD, 1xx, 204, 304, and
    /// 2xx to CONNECT (after which the connection is a tunnel). Content-Length, if any, only describes.
    None,
    /// Content-Length, in bytes. Zero is a body that was announced as empty.
    Fixed(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// The rest of the connection. Only in responses.
    UntilClose,
}

impl RequestHead {
    /// Where the body ends (RFC 9112 §6.3).
    ///
    /// # Errors
    /// Every ambiguity is refused: a request that two readers may cut differently is how requests are smuggled.
    pub fn body(&self) -> Result<BodyLength, Refusal> {
        let fields = self.fields();
        if !fields.has(Kind::TransferEncoding) {
            return Ok(fields.content_length()?.map_or(BodyLength::None, BodyLength::Fixed));
        }
        if fields.has(Kind::ContentLength) {
            return Err(Refusal::LengthAndCoding);
        }
        let codings = codings(fields, self.version())?;
        if !codings.chunked {
            Err(Refusal::CodingNotFinal)
        } else if codings.unknown || codings.identity {
            Err(Refusal::CodingUnknown)
        } else {
            Ok(BodyLength::Chunked)
        }
    }
}

impl ResponseHead {
    /// Where the body of the response to a request with this method ends (RFC 9112 §6.3).
    ///
    /// Mended: Content-Length beside Transfer-Encoding does not count (and the connection is not used again, see
    /// [`ResponseHead::keep_alive`]); the obsolete coding `identity` says nothing.
    ///
    /// # Errors
    /// A Content-Length that is malformed or contradicts itself; Transfer-Encoding in HTTP/1.0; a coding that cannot be undone.
    /// The client gets 502 (RFC 9112 §6.3).
    pub fn body(&self, request_method: &str) -> Result<BodyLength, Refusal> {
        let fields = self.fields();
        match self.status() {
            100..=199 | 204 => return Ok(BodyLength::None),
            200..=299 if request_method == "CONNECT" => return Ok(BodyLength::None),
            // Content-Length travels on here as a description, so it has to be a number.
            304 => return fields.content_length().map(|_| BodyLength::None),
            _ if request_method == "HEAD" => return fields.content_length().map(|_| BodyLength::None),
            _ => {}
        }
        if !fields.has(Kind::TransferEncoding) {
            return Ok(fields.content_length()?.map_or(BodyLength::UntilClose, BodyLength::Fixed));
        }
        match codings(fields, self.version())? {
            Codings { unknown: true, .. } => Err(Refusal::CodingUnknown),
            Codings { chunked: true, .. } => Ok(BodyLength::Chunked),
            Codings { .. } => Ok(BodyLength::UntilClose),
        }
    }
}

impl Fields {
    /// Content-Length in bytes, however often it says the same number (RFC 9110 §8.6).
    ///
    /// # Errors
    /// No decimal number, over 64 bits, or several that differ.
    pub fn content_length(&self) -> Result<Option<u64>, Refusal> {
        let mut length = None;
        for value in self.of(Kind::ContentLength).flat_map(|field| field.value.split(|&b| b == b',')) {
            let number = decimal(value.trim_ascii()).ok_or(Refusal::LengthInvalid)?;
            match length.replace(number) {
                Some(other) if other != number => return Err(Refusal::LengthConflict),
                _ => {}
            }
        }
        Ok(length)
    }
}

/// 1*DIGIT that fits; nothing else that `parse` would take, no sign.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// What Transfer-Encoding lists.
#[derive(Default)]
struct Codings {
    /// Chunked is the last one, `identity` not counted.
    chunked: bool,
    /// `identity`, which RFC 7230 took out of the protocol, is among them.
    identity: bool,
    /// A coding that we cannot undo is among them.
    unknown: bool,
}

fn codings(fields: &Fields, version: Version) -> Result<Codings, Refusal> {
    if version == Version::Http10 {
        return Err(Refusal::CodingInHttp10);
    }
    let mut codings = Codings::default();
    let mut chunked_before = false;
    for coding in fields.of(Kind::TransferEncoding).flat_map(|field| members(field.value)) {
        let mut parts = coding.splitn(2, |&b| b == b';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let parameters = parts.next().is_some();
        if name.eq_ignore_ascii_case(b"chunked") {
            if parameters || chunked_before {
                return Err(Refusal::CodingInvalid);
            }
            (codings.chunked, chunked_before) = (true, true);
        } else if name.eq_ignore_ascii_case(b"identity") && !parameters {
            codings.identity = true;
        } else {
            (codings.chunked, codings.unknown) = (false, true);
        }
    }
    Ok(codings)
}
