//! HTTP/1.1 and bytes as a client or an application reads and writes them: the tests' own reading of RFC 9112, strict, and
//! sharing nothing with the proxy's.

use crate::plan::{Body, Framing, Half};
use bytes::{Bytes, BytesMut};
use futures_util::future::try_join;
use proxy_transport::Stream;
use std::{cell::Cell, future::poll_fn, io, task::Poll};

/// How what was to be heard ended before it was whole, or why it is no message at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The other side ended in the middle of it.
    Ended,
    /// The connection was reset.
    Reset,
    /// No message is like this.
    Nonsense(String),
}

fn nonsense<T>(what: impl std::fmt::Debug) -> Result<T, Broken> {
    Err(Broken::Nonsense(format!("{what:?}")))
}

/// A start line and fields.
#[derive(Debug)]
pub struct Head {
    pub line: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// What Content-Length and Transfer-Encoding say; `None` is neither.
    pub fn length(&self) -> Result<Option<Length>, Broken> {
        match (self.field("content-length"), self.field("transfer-encoding")) {
            (None, None) => Ok(None),
            (Some(length), None) => match length.parse() {
                Ok(length) => Ok(Some(Length::Fixed(length))),
                Err(_) => nonsense(length),
            },
            (None, Some("chunked")) => Ok(Some(Length::Chunked)),
            both => nonsense(both),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Fixed(usize),
    Chunked,
    UntilClose,
}

/// What was said and not yet heard.
pub struct Input<'a> {
    stream: &'a Stream,
    buffer: BytesMut,
    first: Option<u8>,
}

impl<'a> Input<'a> {
    pub fn new(stream: &'a Stream) -> Self {
        Self { stream, buffer: BytesMut::new(), first: None }
    }

    /// Waits for more; false at the end.
    async fn more(&mut self) -> Result<bool, Broken> {
        match poll_fn(|cx| self.stream.poll_read(cx, &mut self.buffer, 16 * 1024)).await {
            Ok(count) => {
                self.first = self.first.or(self.buffer.first().copied());
                Ok(count > 0)
            }
            Err(_) => Err(Broken::Reset),
        }
    }

    /// The first byte that ever came.
    pub fn first(&self) -> Option<u8> {
        self.first
    }

    /// A line without its end; `None` when the connection ended before it.
    async fn line(&mut self) -> Result<Option<String>, Broken> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return match line.strip_suffix(b"\r\n").map(std::str::from_utf8) {
                    Some(Ok(line)) => Ok(Some(line.to_owned())),
                    _ => nonsense(line),
                };
            }
            let begun = !self.buffer.is_empty();
            match self.more().await? {
                true => {}
                false if begun => return Err(Broken::Ended),
                false => return Ok(None),
            }
        }
    }

    /// The next head; `None` when the connection ended before it.
    pub async fn head(&mut self) -> Result<Option<Head>, Broken> {
        let Some(line) = self.line().await? else { return Ok(None) };
        Ok(Some(Head { line, fields: self.fields().await? }))
    }

    /// Field lines up to the empty one.
    async fn fields(&mut self) -> Result<Vec<(String, String)>, Broken> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?.ok_or(Broken::Ended)?;
            match line.split_once(": ") {
                _ if line.is_empty() => return Ok(fields),
                Some((name, value)) => fields.push((name.to_owned(), value.to_owned())),
                None => return nonsense(line),
            }
        }
    }

    /// At most this many bytes, at least one; `None` at the end.
    async fn some(&mut self, most: usize) -> Result<Option<Bytes>, Broken> {
        if self.buffer.is_empty() && !self.more().await? {
            return Ok(None);
        }
        let count = self.buffer.len().min(most);
        Ok(Some(self.buffer.split_to(count).freeze()))
    }

    /// A body that must be `expected`, of which nothing else may come even if it breaks off; its trailers.
    pub async fn body(&mut self, length: Length, expected: &[u8]) -> Result<Vec<(String, String)>, Broken> {
        let mut left = expected;
        match length {
            Length::Fixed(mut count) => {
                while count > 0 {
                    let bytes = self.some(count).await?.ok_or(Broken::Ended)?;
                    count -= bytes.len();
                    take(&mut left, &bytes)?;
                }
            }
            Length::UntilClose => {
                while let Some(bytes) = self.some(usize::MAX).await? {
                    take(&mut left, &bytes)?;
                }
            }
            Length::Chunked => loop {
                let line = self.line().await?.ok_or(Broken::Ended)?;
                let Ok(mut count) = usize::from_str_radix(&line, 16) else { return nonsense(line) };
                if count == 0 {
                    let trailers = self.fields().await?;
                    whole(left, expected)?;
                    return Ok(trailers);
                }
                while count > 0 {
                    let bytes = self.some(count).await?.ok_or(Broken::Ended)?;
                    count -= bytes.len();
                    take(&mut left, &bytes)?;
                }
                if !self.line().await?.ok_or(Broken::Ended)?.is_empty() {
                    return nonsense("no end of line after a chunk");
                }
            },
        }
        whole(left, expected)?;
        Ok(Vec::new())
    }

    /// So many bytes, whatever they are.
    pub async fn skip(&mut self, mut count: usize) -> Result<(), Broken> {
        while count > 0 {
            count -= self.some(count).await?.ok_or(Broken::Ended)?.len();
        }
        Ok(())
    }

    /// Everything up to the end, whatever it is.
    pub async fn drain(&mut self) -> Result<(), Broken> {
        while self.some(usize::MAX).await?.is_some() {}
        Ok(())
    }
}

/// Takes `bytes` from the front of what is expected.
pub fn take(left: &mut &[u8], bytes: &[u8]) -> Result<(), Broken> {
    match left.strip_prefix(bytes) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => {
            let fits = left.iter().zip(bytes).take_while(|(one, other)| one == other).count();
            nonsense(format!(
                "a wrong byte, {} before the end, {fits} into {} new ones",
                left.len(),
                bytes.len()
            ))
        }
    }
}

fn whole(left: &[u8], expected: &[u8]) -> Result<(), Broken> {
    if left.is_empty() {
        return Ok(());
    }
    nonsense(format!("{} bytes of {} are missing from what looks whole", left.len(), expected.len()))
}

/// Writes it all.
pub async fn write(stream: &Stream, bytes: impl Into<Bytes>) -> io::Result<()> {
    let mut bytes = bytes.into();
    poll_fn(|cx| stream.poll_drain(cx, &mut bytes)).await
}

/// The fields that announce a body.
pub fn announce(text: &mut Vec<u8>, framing: Framing, body: &Body) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length => text.extend_from_slice(format!("Content-Length: {}\r\n", body.len).as_bytes()),
        Framing::Chunked { .. } => text.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// A body in its framing.
pub fn frame(text: &mut Vec<u8>, framing: Framing, body: &Body, id: usize) {
    let Framing::Chunked { chunk, trailers } = framing else { return text.extend_from_slice(body.bytes()) };
    for bytes in body.bytes().chunks(chunk) {
        text.extend_from_slice(format!("{:X}\r\n", bytes.len()).as_bytes());
        text.extend_from_slice(bytes);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n");
    if trailers {
        text.extend_from_slice(format!("X-Trailer: {id}\r\n").as_bytes());
    }
    text.extend_from_slice(b"\r\n");
}

/// No chunk begins like this.
pub const GARBAGE: &[u8] = b"no chunk\r\n";

/// Turns a body in chunks into nonsense, half way but at the beginning of a chunk.
pub fn garble(text: &mut Vec<u8>) {
    let (mut at, half) = (0, text.len() / 2);
    while at < half {
        let line = text[at..].iter().position(|byte| *byte == b'\r').expect("chunks end so");
        let size = std::str::from_utf8(&text[at..at + line]).expect("sizes are ASCII");
        match usize::from_str_radix(size, 16).expect("chunks begin so") {
            0 => break,
            size => at += line + 2 + size + 2,
        }
    }
    text.truncate(at);
    text.extend_from_slice(GARBAGE);
}

/// What a side of a connection of bytes has heard.
#[derive(Clone, Debug)]
pub struct Heard {
    pub bytes: usize,
    pub end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side has ended.
    Ended,
    /// The connection was reset.
    Reset,
    /// This side has reset it.
    Own,
    /// A wrong byte.
    Nonsense(String),
}

/// One side of a connection of bytes: says its half and hears the other one, of which it may say how much has come at any time.
pub async fn converse(input: &mut Input<'_>, say: &Half, hear: &Half) -> Heard {
    let stream = input.stream;
    let (heard, ended) = (Cell::new(0), Cell::new(false));
    let listen = async {
        let mut left = hear.body.bytes();
        let end = loop {
            match input.some(usize::MAX).await {
                Ok(Some(bytes)) => match take(&mut left, &bytes) {
                    Ok(()) => heard.set(hear.body.len - left.len()),
                    Err(broken) => break End::Nonsense(format!("{broken:?}")),
                },
                Ok(None) => break End::Ended,
                Err(_) => break End::Reset,
            }
        };
        ended.set(true);
        Ok(end)
    };
    let speak = async {
        // Polled after `listen`, in the same task.
        poll_fn(|_| if heard.get() >= say.after || ended.get() { Poll::Ready(()) } else { Poll::Pending })
            .await;
        let said = write(stream, say.body.bytes()).await;
        if say.reset {
            stream.reset_on_drop();
            return Err(End::Own);
        }
        if said.is_ok() {
            stream.shutdown_write();
        }
        Ok(())
    };
    let end = try_join(listen, speak).await.map_or_else(|own| own, |(end, ())| end);
    Heard { bytes: heard.get(), end }
}
