//! One connection and one GET over it, with as little work in the client as possible. Understands responses with a
//! `Content-Length` only: that is what the backend sends, and a proxy has no reason to change it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// No connection takes longer than this: a proxy that does not accept counts as an error, not as a wait.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often a service that is not there yet is asked.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// How long one such question may hang.
const ASK_LIMIT: Duration = Duration::from_millis(1500);

/// What happens to the connection after the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is used again.
    Keep,
    /// The server closes it, and this is waited for.
    Close,
}

/// A connection without Nagle's delay.
pub async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(to)).await.map_err(io::Error::from)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The bytes of a GET to `host`, to be made once and sent often.
pub fn request(host: SocketAddr, after: After) -> Vec<u8> {
    let connection = match after {
        After::Keep => "",
        After::Close => "Connection: close\r\n",
    };
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n{connection}\r\n").into_bytes()
}

/// Sends `request` and reads the response to its end. Anything but a complete 200 is an error.
pub async fn get(stream: &mut TcpStream, request: &[u8], after: After) -> io::Result<()> {
    stream.write_all(request).await?;
    let mut buffer = [0u8; 8192];
    let mut held = 0;
    let end = loop {
        held += match stream.read(&mut buffer[held..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => count,
        };
        if let Some(end) = end_of(&buffer[..held])? {
            break end;
        }
    };
    while held < end {
        held += match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => count,
        };
    }
    if after == After::Close && stream.read(&mut buffer).await? != 0 {
        return Err(invalid("bytes after the response"));
    }
    Ok(())
}

/// Where the response ends, once its head is there.
fn end_of(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    if !bytes.starts_with(b"HTTP/1.1 200") {
        return Err(invalid("not a 200"));
    }
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|value| value.trim().parse::<usize>().ok());
    length.map(|length| Some(head + 4 + length)).ok_or_else(|| invalid("no Content-Length"))
}

/// Asks until a 200 comes, for `limit` at most. Gives the time of its coming since the Unix epoch.
pub async fn first_ok(to: SocketAddr, limit: Duration) -> io::Result<Duration> {
    let begun = Instant::now();
    let request = request(to, After::Close);
    while begun.elapsed() < limit {
        let asked = timeout(ASK_LIMIT, async {
            let mut stream = connect(to).await?;
            get(&mut stream, &request, After::Keep).await
        });
        if let Ok(Ok(())) = asked.await {
            return Ok(SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock stands after 1970"));
        }
        sleep(ASK_EVERY).await;
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::end_of;

    #[test]
    fn the_end_of_a_response() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(end_of(ok.as_bytes()).unwrap(), Some(ok.len() + 5));
        assert_eq!(end_of(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap(), None);
        assert!(end_of(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(end_of(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
