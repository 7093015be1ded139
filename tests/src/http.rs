//! HTTP/1 by hand, for tests: messages go out as bytes and come back with every field as it was.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

/// The head of a request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The request or status line.
    pub start: String,
    /// In order, with the case that they had.
    pub fields: Vec<(String, String)>,
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    Close,
}

impl Head {
    pub fn status(&self) -> u16 {
        let word = self.start.split(' ').nth(1).unwrap_or_default();
        word.parse().unwrap_or_else(|_| panic!("no status in {:?}", self.start))
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn length(&self) -> Option<u64> {
        self.field("content-length").map(|text| text.parse().expect("a number"))
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    /// How a request with this head ends (RFC 9112 §6.3).
    pub fn request_framing(&self) -> Framing {
        if self.is_chunked() { Framing::Chunked } else { Framing::Length(self.length().unwrap_or(0)) }
    }

    /// How the response with this head to a `method` request ends.
    pub fn response_framing(&self, method: &str) -> Framing {
        match self.status() {
            100..200 | 204 | 304 => Framing::Length(0),
            _ if method == "HEAD" => Framing::Length(0),
            200..300 if method == "CONNECT" => Framing::Length(0),
            _ if self.is_chunked() => Framing::Chunked,
            _ => self.length().map_or(Framing::Close, Framing::Length),
        }
    }
}

impl Message {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// Reads a head; `None` when the connection ends before its first byte.
pub fn read_head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let Some(start) = line(from)? else { return Ok(None) };
    let fields = fields(from)?;
    Ok(Some(Head { start, fields }))
}

/// Reads a body and its trailers.
pub fn read_body(from: &mut impl BufRead, framing: Framing) -> io::Result<(Vec<u8>, Vec<(String, String)>)> {
    let mut body = Vec::new();
    match framing {
        Framing::Close => {
            from.read_to_end(&mut body)?;
        }
        Framing::Length(length) => {
            body.resize(length as usize, 0);
            from.read_exact(&mut body)?;
        }
        Framing::Chunked => loop {
            let size = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| invalid(format!("chunk size {size:?}")))?;
            if size == 0 {
                return Ok((body, fields(from)?));
            }
            let begin = body.len();
            body.resize(begin + size, 0);
            from.read_exact(&mut body[begin..])?;
            if line(from)?.as_deref() != Some("") {
                return Err(invalid("a chunk does not end where it said"));
            }
        },
    }
    Ok((body, Vec::new()))
}

fn fields(from: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("field line {line:?}")))?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A line without its CRLF; `None` at the end of the connection.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| invalid("a line without CRLF"))?;
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// A client's side of a connection.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl From<TcpStream> for Client {
    fn from(stream: TcpStream) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, stream) }
    }
}

impl Client {
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub fn reader(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.reader
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// The next head; `UnexpectedEof` when there is none.
    pub fn head(&mut self) -> io::Result<Head> {
        read_head(&mut self.reader)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The next response, interim ones included, to a request of this method.
    pub fn try_answer(&mut self, method: &str) -> io::Result<Message> {
        let head = self.head()?;
        let (body, trailers) = read_body(&mut self.reader, head.response_framing(method))?;
        Ok(Message { head, body, trailers })
    }

    #[track_caller]
    pub fn answer(&mut self, method: &str) -> Message {
        self.try_answer(method).unwrap_or_else(|error| panic!("no whole answer to {method}: {error}"))
    }

    /// Sends a GET with a Host and gives its answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Message {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: web.test\r\n\r\n"));
        self.answer("GET")
    }

    /// Sends a request with a Host, and this body if any, and gives its answer.
    pub fn try_request(&mut self, method: &str, target: &str, body: &str) -> io::Result<Message> {
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        write!(self.reader.get_mut(), "{method} {target} HTTP/1.1\r\nHost: web.test\r\n{length}\r\n{body}")?;
        self.try_answer(method)
    }

    /// The connection's end has come, cleanly and with nothing before it.
    #[track_caller]
    pub fn assert_ended(&mut self) {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).expect("a clean end");
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing should have come before the end");
    }
}
