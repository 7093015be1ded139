//! Reads a body out of a buffer, without copying it (RFC 9112 §6, §7.1).
//! Not here: how long the body is (`framing`), and writing one (`encode`).

use bytes::{Buf, Bytes, BytesMut};

use crate::fields::Fields;
use crate::head::{Progress, Stage};
use crate::parse::{Dialect, Head, Parse, parse};
use crate::{BodyLength, Limits, Refusal};

/// Reads one message's body from a connection.
///
/// ```text
/// Fixed ---------------------------------------------> End
/// UntilClose ------------------ eof() ---------------> End
/// Size -> Extension -> SizeLf -> Data -> DataCr -> DataLf -> Size
///                        '-- 0 --> Trailers ---------> End
/// ```
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of chunk extensions so far, in the whole body.
    extension: usize,
    limits: Limits,
    trailers: Trailers,
}

/// What [`Decoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Bytes of the body, never none: all that is there, of chunked all of the present chunk.
    Data(Bytes),
    /// Call again when the buffer has grown.
    NeedMore,
    /// The body is over; what is left in the buffer belongs to the next message. Trailers are there.
    End,
}

/// The connection ended before the body did (RFC 9112 §8): what was delivered is not the whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection closed before the end of the body")]
pub struct Truncated;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes are to come, at least one.
    Fixed(u64),
    UntilClose,
    /// In the size, of which these many digits are read.
    Size {
        size: u64,
        digits: u8,
    },
    /// After the size, in extensions.
    Extension {
        size: u64,
    },
    /// After the CR of the size line.
    SizeLf {
        size: u64,
    },
    /// In a chunk of which so much is to come, at least one byte.
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// More digits than 64 bits need: some pad with zeros, but not forever.
const SIZE_DIGITS: u8 = 32;

impl Decoder {
    /// For a body of this length, with the default limits for chunk extensions and trailers.
    pub fn new(length: BodyLength) -> Self {
        Self::with_limits(length, Limits::default())
    }

    /// For a body of this length. Of the limits those for extensions count, and those for heads as limits of the trailers.
    pub fn with_limits(length: BodyLength, limits: Limits) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Fixed(0) => State::End,
            BodyLength::Fixed(length) => State::Fixed(length),
            BodyLength::Chunked => State::SIZE,
            BodyLength::UntilClose => State::UntilClose,
        };
        Decoder { state, extension: 0, limits, trailers: Trailers::default() }
    }

    /// Takes what it can from the front of `buf`.
    ///
    /// # Errors
    /// The chunked coding is broken or over a limit. What was delivered before must not pass for a whole message.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, Refusal> {
        loop {
            match self.state {
                State::End => return Ok(Decoded::End),
                State::Trailers => return self.read_trailers(buf),
                _ if buf.is_empty() => return Ok(Decoded::NeedMore),
                State::UntilClose => return Ok(Decoded::Data(buf.split().freeze())),
                State::Fixed(left) => {
                    return Ok(Decoded::Data(self.data(buf, left, State::Fixed, State::End)));
                }
                State::Data(left) => {
                    return Ok(Decoded::Data(self.data(buf, left, State::Data, State::DataCr)));
                }
                _ => self.frame(buf)?,
            }
        }
    }

    /// Has the body ended?
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// The connection has ended, and all that it brought was decoded. That ends a body of `UntilClose`.
    ///
    /// # Errors
    /// The body is not whole.
    pub fn eof(&mut self) -> Result<(), Truncated> {
        match self.state {
            State::End => Ok(()),
            State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(Truncated),
        }
    }

    /// The trailers, once `End` was said; none before, and none of a body that is not chunked.
    /// Pass on their [`Fields::end_to_end`].
    pub fn trailers(&self) -> &Fields {
        &self.trailers.fields
    }

    /// As many of the `left` bytes as there are; the state after them.
    fn data(&mut self, buf: &mut BytesMut, left: u64, more: fn(u64) -> State, done: State) -> Bytes {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let left = left - here as u64;
        self.state = if left == 0 { done } else { more(left) };
        buf.split_to(here).freeze()
    }

    /// Reads on to the next data, or through all that is there.
    fn frame(&mut self, buf: &mut BytesMut) -> Result<(), Refusal> {
        let mut read = 0;
        for &b in &buf[..] {
            read += 1;
            self.state = self.step(b)?;
            if matches!(self.state, State::Data(_) | State::Trailers) {
                break;
            }
        }
        buf.advance(read);
        Ok(())
    }

    /// One byte of the framing between two chunks' data.
    fn step(&mut self, b: u8) -> Result<State, Refusal> {
        match (self.state, b) {
            (State::Size { size, digits }, _) if b.is_ascii_hexdigit() => match size.checked_mul(16) {
                Some(shifted) if digits < SIZE_DIGITS => {
                    Ok(State::Size { size: shifted | u64::from(hex_digit(b)), digits: digits + 1 })
                }
                _ => Err(Refusal::ChunkSizeTooLarge),
            },
            (State::Size { size, digits: 1.. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { size, digits: 1.. }, b';' | b' ' | b'\t') => self.extend(size),
            (State::Size { digits: 1.., .. }, b'\n') => Err(Refusal::ChunkEnd),
            (State::Size { .. }, _) => Err(Refusal::ChunkSize),
            (State::Extension { size }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { .. }, b'\n') => Err(Refusal::ChunkEnd),
            (State::Extension { .. }, 0..=8 | 11..=31 | 127) => Err(Refusal::ChunkExtension),
            (State::Extension { size }, _) => self.extend(size),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailers),
            (State::SizeLf { size }, b'\n') => Ok(State::Data(size)),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::SIZE),
            _ => Err(Refusal::ChunkEnd),
        }
    }

    /// One more byte of extension, which we do not pass on (RFC 9112 §7.1.1: ignored when not understood).
    fn extend(&mut self, size: u64) -> Result<State, Refusal> {
        self.extension += 1;
        if self.extension > self.limits.extension_bytes {
            return Err(Refusal::ChunkExtensionTooLong);
        }
        Ok(State::Extension { size })
    }

    fn read_trailers(&mut self, buf: &mut BytesMut) -> Result<Decoded, Refusal> {
        match parse(buf, &mut self.trailers, &self.limits) {
            Ok(Parse::Partial) => Ok(Decoded::NeedMore),
            Ok(Parse::Complete) => {
                self.state = State::End;
                Ok(Decoded::End)
            }
            Err(Refusal::HeadTooLarge) => Err(Refusal::TrailersTooLarge),
            Err(refusal) => Err(refusal),
        }
    }
}

impl State {
    const SIZE: State = State::Size { size: 0, digits: 0 };
}

const fn hex_digit(b: u8) -> u8 {
    match b {
        b'0'..=b'9' => b - b'0',
        _ => (b | 0x20) - b'a' + 10,
    }
}

/// A head without a start line.
#[derive(Debug)]
struct Trailers {
    progress: Progress,
    fields: Fields,
}

impl Default for Trailers {
    fn default() -> Self {
        let progress = Progress { stage: Stage::Fields, ..Progress::default() };
        Trailers { progress, fields: Fields::of_trailers() }
    }
}

impl Head for Trailers {
    const DIALECT: Dialect = Dialect::Trailers;

    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn fields(&mut self) -> &mut Fields {
        &mut self.fields
    }

    fn start_line(&mut self, _line: &[u8], _whole: bool, _limits: &Limits) -> Result<(), Refusal> {
        Ok(())
    }

    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}
