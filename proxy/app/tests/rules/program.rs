//! The programs behind a rule: of HTTP/1.1 or HTTP/2 as their clients speak, they note what they read and say what they are told to.

use crate::{client::Message, world::Programs};
use bytes::Bytes;
use proxy_transport::Stream;
use std::{io::Cursor, rc::Rc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, join, split};

const USUAL: &str = "HTTP/1.1 200 OK\nX-MiXed: kept\nContent-Type: text/plain\nContent-Length: 2\n\nok";
const USUAL_GRPC: &str = "HTTP/1.1 200 OK\nContent-Type: application/grpc\n\nok";

pub async fn serve(programs: Rc<Programs>, pod: String, mut stream: Stream) {
    let mut first = [0; 3];
    if stream.read_exact(&mut first).await.is_err() {
        return;
    }
    if programs.silent.borrow().contains(&&*pod) {
        return std::future::pending().await;
    }
    let (read, write) = split(stream);
    let read = Cursor::new(first.to_vec()).chain(read);
    match &first {
        // Bytes, of TLS or of anybody.
        [22, ..] | b"SSH" => {
            let (mut read, mut write) = (read, write);
            let _ = read.read_to_end(&mut Vec::new()).await;
            let _ = write.write_all(pod.as_bytes()).await;
        }
        b"PRI" => serve_http2(programs, pod, join(read, write)).await,
        _ => serve_http1(programs, pod, read, write).await,
    }
}

async fn serve_http1(
    programs: Rc<Programs>,
    pod: String,
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) {
    let mut read = BufReader::new(read);
    while let Some(request) = Message::read(&mut read, None).await {
        let head = request.start.starts_with("HEAD ");
        programs.note(&pod, request);
        let reply = reply(&programs, &pod, USUAL);
        let (top, body) = reply.split_once("\n\n").unwrap_or((&reply, ""));
        let bytes = format!("{}\r\n\r\n{}", top.replace('\n', "\r\n"), if head { "" } else { body });
        if write.write_all(bytes.as_bytes()).await.is_err() || write.flush().await.is_err() {
            return;
        }
    }
}

async fn serve_http2(programs: Rc<Programs>, pod: String, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (programs, pod) = (programs.clone(), pod.clone());
        tokio::task::spawn_local(async move {
            let grpc = request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
            let head = request.method() == http::Method::HEAD;
            let Some(request) = Message::of_stream(request).await else { return };
            programs.note(&pod, request);
            let reply = reply(&programs, &pod, if grpc { USUAL_GRPC } else { USUAL });
            let (status, fields, body) = parts(&reply);
            let mut response = http::Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(name.to_ascii_lowercase(), value);
            }
            let response = response.body(()).expect("a response");
            let ended = head || (body.is_empty() && !grpc);
            let Ok(mut send) = respond.send_response(response, ended) else { return };
            if !ended {
                let _ = send.send_data(Bytes::copy_from_slice(body.as_bytes()), !grpc);
            }
            if grpc {
                let trailers =
                    [(http::HeaderName::from_static("grpc-status"), "0".parse().expect("a value"))];
                let _ = send.send_trailers(trailers.into_iter().collect());
            }
        });
    }
}

impl Programs {
    fn note(&self, pod: &str, request: Message) {
        self.saw.borrow_mut().push((pod.to_owned(), request.to_string()));
        self.bodies.borrow_mut().push((pod.to_owned(), request.body));
    }
}

/// What a program says; `{pod}` is its own name.
fn reply(programs: &Programs, pod: &str, usual: &str) -> String {
    programs.reply.borrow().as_deref().unwrap_or(usual).replace("{pod}", pod)
}

fn parts(reply: &str) -> (u16, Vec<(&str, &str)>, &str) {
    let (top, body) = reply.split_once("\n\n").unwrap_or((reply, ""));
    let mut lines = top.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let fields = lines.map(|line| line.split_once(": ").expect("a field"));
    (status.parse().expect("a status"), fields.collect(), body)
}
