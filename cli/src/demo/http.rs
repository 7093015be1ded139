//! One HTTP GET over one connection, for probes and scrapes. HTTP/1.0: the answer ends with its connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of an answer that are taken; a proxy's metrics are a tenth of it.
const ANSWER_BYTES: u64 = 16 * 1024 * 1024;

pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Each step, to connect, to write, each read, may take as long as `patience`.
pub fn get(address: SocketAddr, path: &str, patience: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\nUser-Agent: weft-demo\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{address} does not answer HTTP")))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_told_apart() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\nnot ready\r\n\r\nyet").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "not ready\r\n\r\nyet"));
        assert_eq!(parse("HTTP/1.0 204\r\n\r\n").unwrap().status, 204);
        for text in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 twenty\r\n\r\n"] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }
}
