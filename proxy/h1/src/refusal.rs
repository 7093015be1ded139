//! Why a message is refused: one variant a rule, with the section that makes it.
//! Not here: the response itself; `proxy/http` makes it of `status()` and `detail()`.

/// A message that cannot be read in one way only, or that is over a limit. The connection it came on is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.detail())]
pub enum Refusal {
    /// The request line is not `method SP request-target SP HTTP-version` (RFC 9112 §3).
    RequestLine,
    /// A method longer than any that is in use (RFC 9112 §3: 501).
    MethodTooLong,
    /// The request-target is over `Limits::target_bytes` (RFC 9112 §3: 414).
    TargetTooLong,
    /// The request-target has none of the four forms, or one that its method cannot have (RFC 9112 §3.2).
    Target,
    /// A version whose major number is not 1 (RFC 9110 §15.6.6).
    Version,
    /// The status line is not `HTTP-version SP 3DIGIT SP [reason-phrase]` (RFC 9112 §4).
    StatusLine,
    /// A CR that no LF follows (RFC 9112 §2.2).
    BareCr,
    /// A field name that is empty, or not a token, or a line without a colon (RFC 9112 §5, RFC 9110 §5.1).
    FieldName,
    /// A field value or a start line with NUL or another control character (RFC 9110 §5.5).
    FieldValue,
    /// Whitespace between field name and colon in a request or a trailer (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A folded line in a request or a trailer (RFC 9112 §5.2).
    ObsFold,
    /// Whitespace between the start line and the first field (RFC 9112 §2.2).
    SpaceBeforeFields,
    /// The head is over `Limits::head_bytes` (RFC 6585 §5).
    HeadTooLarge,
    /// More field lines than `Limits::fields` (RFC 6585 §5).
    TooManyFields,
    /// A 1.1 request without Host (RFC 9112 §3.2).
    HostMissing,
    /// More than one Host line (RFC 9112 §3.2).
    HostRepeated,
    /// Host is no `uri-host [ ":" port ]` (RFC 9112 §3.2).
    HostInvalid,
    /// A Content-Length that is no decimal number, or does not fit 64 bits (RFC 9112 §6.3, RFC 9110 §8.6).
    LengthInvalid,
    /// Several Content-Length values that differ (RFC 9112 §6.3).
    LengthConflict,
    /// A request with both Transfer-Encoding and Content-Length (RFC 9112 §6.1, §6.3).
    LengthAndCoding,
    /// Transfer-Encoding in an HTTP/1.0 message (RFC 9112 §6.1).
    CodingInHttp10,
    /// A request whose last transfer coding is not chunked (RFC 9112 §6.3).
    CodingNotFinal,
    /// Chunked is applied twice or has parameters (RFC 9112 §6.1, §7.1).
    CodingInvalid,
    /// A transfer coding other than chunked: we cannot undo it, and without its label the content would be passed on as if
    /// it were plain (RFC 9112 §6.1: 501).
    CodingUnknown,
    /// A chunk size that is not 1*HEXDIG (RFC 9112 §7.1).
    ChunkSize,
    /// A chunk size that does not fit 64 bits (RFC 9112 §7.1).
    ChunkSizeTooLarge,
    /// A control character in a chunk extension (RFC 9112 §7.1.1).
    ChunkExtension,
    /// The chunk extensions are over `Limits::extension_bytes` (RFC 9112 §7.1.1).
    ChunkExtensionTooLong,
    /// A line of the chunked coding, or a chunk's data, does not end by CRLF (RFC 9112 §7.1).
    ChunkEnd,
    /// The trailer section is over `Limits::head_bytes` (RFC 9112 §7.1.2, RFC 6585 §5).
    TrailersTooLarge,
}

impl Refusal {
    /// What a client is answered whose request is refused. A refused *response* is always 502 to the client, whichever
    /// rule it broke (RFC 9110 §15.6.3).
    pub const fn status(self) -> u16 {
        match self {
            Refusal::TargetTooLong => 414,
            Refusal::HeadTooLarge | Refusal::TooManyFields | Refusal::TrailersTooLarge => 431,
            Refusal::MethodTooLong | Refusal::CodingUnknown => 501,
            Refusal::StatusLine => 502,
            Refusal::Version => 505,
            _ => 400,
        }
    }

    /// One short phrase for the `details` of Proxy-Status and for logs: printable ASCII without quotes.
    pub const fn detail(self) -> &'static str {
        match self {
            Refusal::RequestLine => "malformed request line",
            Refusal::MethodTooLong => "method too long",
            Refusal::TargetTooLong => "request-target too long",
            Refusal::Target => "malformed request-target",
            Refusal::Version => "unsupported HTTP version",
            Refusal::StatusLine => "malformed status line",
            Refusal::BareCr => "CR without LF in the head",
            Refusal::FieldName => "malformed field name",
            Refusal::FieldValue => "control character in the head",
            Refusal::SpaceBeforeColon => "whitespace before the colon of a field",
            Refusal::ObsFold => "folded field line",
            Refusal::SpaceBeforeFields => "whitespace before the first field",
            Refusal::HeadTooLarge => "head too large",
            Refusal::TooManyFields => "too many fields",
            Refusal::HostMissing => "Host is missing",
            Refusal::HostRepeated => "more than one Host",
            Refusal::HostInvalid => "malformed Host",
            Refusal::LengthInvalid => "malformed Content-Length",
            Refusal::LengthConflict => "Content-Length values differ",
            Refusal::LengthAndCoding => "both Content-Length and Transfer-Encoding",
            Refusal::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Refusal::CodingNotFinal => "the last transfer coding is not chunked",
            Refusal::CodingInvalid => "chunked applied twice or with parameters",
            Refusal::CodingUnknown => "unknown transfer coding",
            Refusal::ChunkSize => "malformed chunk size",
            Refusal::ChunkSizeTooLarge => "chunk size over 64 bits",
            Refusal::ChunkExtension => "control character in a chunk extension",
            Refusal::ChunkExtensionTooLong => "chunk extensions too long",
            Refusal::ChunkEnd => "chunk not ended by CRLF",
            Refusal::TrailersTooLarge => "trailer section too large",
        }
    }
}
