//! Clients of HTTP/1.1 and HTTP/2 that say what a case has written, and the messages that both ends read.

use crate::world::World;
use bytes::Bytes;
use h2::client::SendRequest;
use proxy_transport::Stream;
use std::{
    fmt::{self, Write},
    rc::Rc,
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Stands for the value of a session.
const SESSION: &str = "SESSION";

/// One connection, made anew when it has ended.
pub struct Client {
    world: Rc<World>,
    http2: bool,
    http1: Option<Stream>,
    streams: Option<SendRequest<Bytes>>,
    /// The value of the last session that it was told of, for which `SESSION` stands.
    session: String,
}

/// A message as it was read.
#[derive(Debug, Default)]
pub struct Message {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub trailers: Vec<(String, String)>,
}

impl Client {
    pub fn new(world: &Rc<World>, http2: bool) -> Self {
        Self { world: world.clone(), http2, http1: None, streams: None, session: SESSION.to_owned() }
    }

    /// Makes a request; what came back, as text.
    pub async fn ask(&mut self, request: &str) -> String {
        let again = if self.http2 || self.http1.is_some() { "" } else { "on a new connection: " };
        let got = self.exchange(&request.replace(SESSION, &self.session)).await;
        let got = got.map_or_else(|error| error, |got| got.to_string());
        format!("{again}{got}")
    }

    /// The text without what is another one in each run.
    pub fn mask(&mut self, text: &str) -> String {
        let is_session = |word: &str| word.len() == 48 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut words = text.split(|symbol: char| !symbol.is_ascii_alphanumeric());
        let Some(session) = words.rfind(|word| is_session(word)) else { return text.to_owned() };
        session.clone_into(&mut self.session);
        text.replace(session, SESSION)
    }

    /// Makes a request; what came back, or why nothing did.
    pub async fn exchange(&mut self, request: &str) -> Result<Message, String> {
        let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end(), ""));
        let body = body.trim_end_matches('\n');
        if self.http2 { self.ask_http2(head, body).await } else { self.ask_http1(head, body).await }
    }

    async fn ask_http1(&mut self, head: &str, body: &str) -> Result<Message, String> {
        let connection = self.http1.get_or_insert_with(|| self.world.dial());
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let mut bytes = format!("{}\r\n\r\n", head.replace('\n', "\r\n"));
        match chunked {
            true => {
                let (one, other) = body.split_at(body.len() / 2);
                for piece in [one, other].into_iter().filter(|piece| !piece.is_empty()) {
                    let _ = write!(bytes, "{:x}\r\n{piece}\r\n", piece.len());
                }
                bytes.push_str("0\r\n\r\n");
            }
            false => bytes.push_str(body),
        }
        // It reads while it writes: an answer may come early.
        let (read, write) = tokio::io::split(connection);
        let mut read = BufReader::new(read);
        let said = async move {
            let mut write = write;
            write.write_all(bytes.as_bytes()).await
        };
        let (_, got) =
            futures_util::future::join(said, Message::read(&mut read, head.split(' ').next())).await;
        let Some(got) = got else {
            self.http1 = None;
            return Err("the connection ended".into());
        };
        if head.lines().next().is_some_and(|line| line.ends_with("1.0"))
            || got.field("connection").is_some_and(|value| value == "close")
        {
            self.http1 = None;
        }
        Ok(got)
    }

    async fn ask_http2(&mut self, head: &str, body: &str) -> Result<Message, String> {
        if self.streams.is_none() {
            let (sender, connection) = h2::client::handshake(self.world.dial()).await.expect("a preface");
            tokio::task::spawn_local(connection);
            self.streams = Some(sender);
        }
        let sender = self.streams.take().expect("it is there");
        let mut sender = match sender.ready().await {
            Ok(sender) => sender,
            Err(error) => return Err(format!("the connection ended: {error}")),
        };
        let mut lines = head.lines();
        let mut start = lines.next().expect("a request line").split(' ');
        let (method, target) = (start.next().expect("a method"), start.next().expect("a target"));
        let fields: Vec<_> = lines.map(|line| line.split_once(": ").expect("a field")).collect();
        let host = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let uri = match host {
            Some((_, host)) if target.starts_with('/') => format!("http://{host}{target}"),
            _ => target.to_owned(),
        };
        let mut request = http::Request::builder().method(method).uri(uri);
        let skipped = ["host", "transfer-encoding", "connection"];
        for (name, value) in fields.iter().filter(|(name, _)| !skipped.contains(&&*name.to_lowercase())) {
            request = request.header(name.to_lowercase(), *value);
        }
        let request = request.body(()).expect("a request");
        let (response, mut send) = sender.send_request(request, body.is_empty()).expect("a stream");
        if !body.is_empty() {
            send.send_data(Bytes::copy_from_slice(body.as_bytes()), true).expect("an open stream");
        }
        self.streams = Some(sender);
        match response.await {
            Err(error) => Err(format!("reset: {error}")),
            Ok(response) => Ok(Message::of_response(response).await),
        }
    }
}

impl Message {
    /// Reads a message of HTTP/1.1; of a response, `method` is what it answers.
    pub async fn read(reader: &mut (impl AsyncBufRead + Unpin), method: Option<&str>) -> Option<Self> {
        let mut message = Self { start: line(reader).await?, ..Self::default() };
        message.fields = fields(reader).await?;
        let status = message.start.split(' ').nth(1).unwrap_or_default();
        let bodiless = method == Some("HEAD") || method.is_some() && matches!(status, "204" | "304");
        if bodiless {
            return Some(message);
        }
        let mut body = Vec::new();
        if message.field("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&line(reader).await?, 16).ok()?;
                let mut chunk = vec![0; size];
                reader.read_exact(&mut chunk).await.ok()?;
                body.extend(chunk);
                if size == 0 {
                    break;
                }
                line(reader).await?;
            }
            message.trailers = fields(reader).await?;
        } else if let Some(length) = message.field("content-length") {
            body = vec![0; length.parse().ok()?];
            reader.read_exact(&mut body).await.ok()?;
        } else if method.is_some() {
            reader.read_to_end(&mut body).await.ok()?;
        }
        message.body = String::from_utf8_lossy(&body).into_owned();
        Some(message)
    }

    /// A request that came as a stream; `None` when it is broken off.
    pub async fn of_stream(request: http::Request<h2::RecvStream>) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let start = format!("{} {} {:?}", parts.method, parts.uri, parts.version);
        let mut message = Self { start, fields: pairs(&parts.headers), ..Self::default() };
        message.receive(body).await.then_some(message)
    }

    async fn of_response(response: http::Response<h2::RecvStream>) -> Self {
        let (parts, body) = response.into_parts();
        let start = format!("{:?} {}", parts.version, parts.status.as_u16());
        let mut message = Self { start, fields: pairs(&parts.headers), ..Self::default() };
        if !message.receive(body).await {
            message.body.push_str("... and a reset");
        }
        message
    }

    async fn receive(&mut self, mut stream: h2::RecvStream) -> bool {
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            let Ok(data) = data else { return false };
            body.extend_from_slice(&data);
            let _ = stream.flow_control().release_capacity(data.len());
        }
        self.body = String::from_utf8_lossy(&body).into_owned();
        match stream.trailers().await {
            Ok(trailers) => self.trailers = trailers.map(|map| pairs(&map)).unwrap_or_default(),
            Err(_) => return false,
        }
        true
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

fn pairs(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(pair).collect()
}

async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).await.ok().filter(|count| *count > 0)?;
    Some(line.trim_end().to_owned())
}

async fn fields(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = line(reader).await?;
        if line.is_empty() {
            return Some(fields);
        }
        let (name, value) = line.split_once(':')?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.start)?;
        for (name, value) in &self.fields {
            writeln!(f, "  {name}: {value}")?;
        }
        if !self.body.is_empty() {
            let body = match self.body.len() {
                0..=2_000 => self.body.trim_end().replace('\n', "\n  | "),
                many => format!("{many} bytes"),
            };
            writeln!(f, "  | {body}")?;
        }
        self.trailers.iter().try_for_each(|(name, value)| writeln!(f, "  then {name}: {value}"))
    }
}
