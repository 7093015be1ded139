//! `weft-proxy --await-ready`: waits for the proxy that runs beside it in the same pod. A classic sidecar has it as its postStart hook,
//! so that the application's containers start when the proxy can take their traffic.
//!
//! Blocking, on one thread: it is a program of its own that does nothing else.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for one answer.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read: its status, and a reason for people.
const ANSWER_BYTES: u64 = 4096;

/// Asks `/ready` of the admin port that listens on `admin` until it answers 200. The error is the last reason why not.
pub fn await_ready(admin: SocketAddr, wait: Duration) -> Result<(), String> {
    let deadline = Instant::now() + wait;
    loop {
        let why = match ask(admin) {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("the proxy is not ready after {wait:?}: {why}"));
        }
        thread::sleep(PAUSE.min(left));
    }
}

fn ask(admin: SocketAddr) -> Result<(), String> {
    let loopbacks = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let addresses = match admin.ip().is_unspecified() {
        true => loopbacks.map(|ip| SocketAddr::new(ip, admin.port())).to_vec(),
        false => vec![admin],
    };
    let mut why = String::new();
    for address in addresses {
        match ready(address) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => return Ok(()),
            Ok(answer) => {
                let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
                let said = if body.is_empty() { head.lines().next().unwrap_or_default() } else { body };
                return Err(said.trim_end().to_owned());
            }
            // The first address is the one that a reader knows.
            Err(error) if why.is_empty() => {
                why = format!("its admin port {address} does not answer: {error}")
            }
            Err(_) => {}
        }
    }
    Err(why)
}

/// The answer to `GET /ready`, head and body.
fn ready(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WAIT)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.set_write_timeout(Some(ANSWER_WAIT))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const NOT_READY: &str = "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: no certificate yet\n";

    /// Answers each connection with the next of these, then no more.
    fn serve<const N: usize>(answers: [&'static str; N]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut head = [0; 512];
                let read = stream.read(&mut head).expect("a request");
                assert!(head[..read].starts_with(b"GET /ready HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).expect("written");
            }
        });
        address
    }

    #[test]
    fn it_ends_when_the_proxy_is_ready() {
        let address = serve([NOT_READY, "", "HTTP/1.1 200 OK\r\n\r\nready\n"]);
        assert_eq!(await_ready(address, Duration::from_secs(20)), Ok(()));
    }

    #[test]
    fn the_last_reason_is_told() {
        let said = await_ready(serve([NOT_READY]), Duration::ZERO).expect_err("it is not");
        assert_eq!(said, "the proxy is not ready after 0ns: not ready: no certificate yet");

        let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it is bound");
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), closed.port());
        let said = await_ready(any, Duration::ZERO).expect_err("nobody listens");
        let part = format!("its admin port 127.0.0.1:{} does not answer: Connection refused", closed.port());
        assert!(said.contains(&part), "{said}");
    }
}
