//! Applications that are threads of the test: they can say and see exactly what a test is about.

use crate::{
    http::{self, Message},
    pod::Pod,
};
use socket2::SockRef;
use std::{
    collections::HashMap,
    io::{self, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A listening application. Dropped, it listens no more and its connections end.
#[derive(Debug)]
pub struct App {
    listener: TcpListener,
    connections: Arc<Mutex<HashMap<u64, TcpStream>>>,
}

impl App {
    /// Serves each connection on a thread of its own; the connection ends when `serve` returns and drops it.
    pub fn tcp(pod: &Pod, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = pod.namespace.listen(port);
        let connections: Arc<Mutex<HashMap<u64, TcpStream>>> = Arc::default();
        let app = Self { listener: listener.try_clone().unwrap(), connections: connections.clone() };
        let serve = Arc::new(serve);
        thread::spawn(move || {
            // Ends when the listener is shut down.
            for (number, stream) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                let held = stream.try_clone().unwrap();
                connections.lock().unwrap().insert(number, held);
                let (serve, connections) = (serve.clone(), connections.clone());
                thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    serve(stream);
                    connections.lock().unwrap().remove(&number);
                });
            }
        });
        app
    }

    /// Serves HTTP/1.1 with keep-alive. What `answer` gives for a request are the bytes of the response.
    pub fn http(pod: &Pod, port: u16, answer: impl Fn(Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::tcp(pod, port, move |stream| {
            // A connection that breaks is over; the client's side of the test says whether that was right.
            let _ = serve_http(stream, &answer);
        })
    }

    /// Answers each request with what it was: its head as it came, an empty line, its body, then its trailers.
    pub fn mirror(pod: &Pod, port: u16) -> Self {
        Self::http(pod, port, |request| {
            let mut body = format!("{}\n", request.head.start);
            for (name, value) in &request.head.fields {
                body += &format!("{name}: {value}\n");
            }
            body += &format!("\n{}", String::from_utf8_lossy(&request.body));
            for (name, value) in &request.trailers {
                body += &format!("\n{name}: {value}");
            }
            ok(&body)
        })
    }

    /// Sends back every byte; an end too.
    pub fn echo(pod: &Pod, port: u16) -> Self {
        Self::tcp(pod, port, |mut stream| {
            let mut writer = stream.try_clone().unwrap();
            let _ = io::copy(&mut stream, &mut writer);
        })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        for stream in self.connections.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A 200 with this text.
pub fn ok(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

fn serve_http(stream: TcpStream, answer: &impl Fn(Message) -> Vec<u8>) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = http::read_head(&mut reader)? {
        let (body, trailers) = http::read_body(&mut reader, head.request_framing())?;
        writer.write_all(&answer(Message { head, body, trailers }))?;
    }
    Ok(())
}
