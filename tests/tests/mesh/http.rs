//! HTTP/1 messages: what arrives is what was sent, in each of the shapes that HTTP/1 has.

use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};
use tests::{
    app::{App, ok},
    grid::{Grid, Route},
    http::{Client, Message, read_head},
    manifest::Port,
    websocket::{CLOSE, TEXT, frame, read_frame},
};

const PORT: u16 = 8080;

/// Both servers run the same application.
fn serve(app: impl Fn(&tests::pod::Pod) -> App) -> (Grid, [App; 2]) {
    let grid = Grid::new(Port::auto(PORT));
    let apps = grid.servers().map(app);
    (grid, apps)
}

#[test]
fn requests_arrive_as_they_were_sent() {
    let (grid, _apps) = serve(|pod| App::mirror(pod, PORT));
    for Route { name, client, address } in grid.routes() {
        let mut client = client.client(address);
        client.send(
            "POST /a%20b/../c?x=1&x=2;%C3%A4 HTTP/1.1\r\nHost: Shop.Example:8080\r\nX-MiXeD-cAse: Kept\r\n\
             x-twice: 1\r\nx-twice: 2\r\nX-Empty:\r\nCookie: a=b; c=d\r\nContent-Length: 5\r\n\r\nhello",
        );
        let seen = client.answer("POST");
        assert_eq!(
            seen.text(),
            "POST /a%20b/../c?x=1&x=2;%C3%A4 HTTP/1.1\nHost: Shop.Example:8080\nX-MiXeD-cAse: Kept\n\
             x-twice: 1\nx-twice: 2\nX-Empty: \nCookie: a=b; c=d\nContent-Length: 5\n\nhello",
            "{name}"
        );
        // Neither the mesh's own fields, nor those of one connection, go on.
        client.send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
             Weft-Http: 2\r\nweft-peer: root\r\n\r\n",
        );
        let seen = client.answer("GET").text().to_lowercase();
        for field in ["x-hop", "keep-alive", "weft-"] {
            assert!(!seen.contains(field), "{name}: {field} reached the application: {seen}");
        }
        let sent = Message { head: client_head(&mut client), body: Vec::new(), trailers: Vec::new() };
        assert!(
            sent.head.fields.iter().all(|(field, _)| !field.to_lowercase().starts_with("weft-")),
            "{name}: a field of the mesh reached the client: {sent:?}"
        );
    }
}

/// The head of an answer whose request has no body.
fn client_head(client: &mut Client) -> tests::http::Head {
    client.get("/").head
}

#[test]
fn http_1_0_is_answered_and_ends() {
    let (grid, _apps) = serve(|pod| {
        App::tcp(pod, PORT, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Ok(Some(head)) = read_head(&mut reader) else { return };
            // To a client of 1.0 a body without a length ends with the connection.
            let _ = write!(&stream, "HTTP/1.0 200 OK\r\nX-Seen: {}\r\n\r\nto the end", head.start);
        })
    });
    for Route { name, client, address } in grid.routes() {
        let mut client = client.client(address);
        client.send("GET /old HTTP/1.0\r\n\r\n");
        let answer = client.answer("GET");
        assert_eq!(answer.head.status(), 200, "{name}");
        assert_eq!(answer.head.field("x-seen"), Some("GET /old HTTP/1.0"), "{name}");
        assert_eq!(answer.head.field("transfer-encoding"), None, "{name}: unknown to HTTP/1.0");
        assert_eq!(answer.text(), "to the end", "{name}");
        client.assert_ended();
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (grid, _apps) = serve(|pod| {
        App::http(pod, PORT, |request| {
            if request.head.target().ends_with('0') {
                thread::sleep(Duration::from_millis(30));
            }
            ok(&format!("{} {}", request.head.target(), request.body.len()))
        })
    });
    for Route { name, client, address } in grid.routes() {
        let mut client = client.client(address);
        let requests: String = (0..25)
            .map(|at| {
                let body = "x".repeat(at * 100);
                format!("PUT /{at} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            })
            .collect();
        client.send(requests);
        for at in 0..25 {
            assert_eq!(client.answer("PUT").text(), format!("/{at} {}", at * 100), "{name}");
        }
    }
}

#[test]
fn chunked_bodies_and_trailers_go_both_ways() {
    let (grid, _apps) = serve(|pod| {
        App::http(pod, PORT, |request| {
            let trailers: Vec<_> =
                request.trailers.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let seen = format!("{}|{}", String::from_utf8_lossy(&request.body), trailers.join(","));
            let (begin, end) = seen.split_at(3);
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 {:x}\r\n{begin}\r\n{:x};ext=1\r\n{end}\r\n0\r\nX-Sum: 42\r\n\r\n",
                begin.len(),
                end.len()
            )
            .into_bytes()
        })
    });
    for Route { name, client, address } in grid.routes() {
        let mut client = client.client(address);
        for _ in 0..2 {
            client.send(
                "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n",
            );
            for part in ["5\r\nhello\r\n", "6;a=b\r\n world\r\n", "0\r\n", "X-Check: 11\r\n\r\n"] {
                client.send(part);
                thread::sleep(Duration::from_millis(2));
            }
            let answer = client.answer("POST");
            assert_eq!(answer.text().to_lowercase(), "hello world|x-check=11", "{name}");
            let [(field, value)] = &answer.trailers[..] else { panic!("{name}: trailers {answer:?}") };
            assert_eq!((field.to_lowercase().as_str(), value.as_str()), ("x-sum", "42"), "{name}");
        }
    }
}

#[test]
fn responses_without_a_body_leave_the_connection_in_step() {
    let (grid, _apps) = serve(|pod| {
        App::http(pod, PORT, |request| match request.head.target() {
            "/none" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/same" => b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 77\r\n\r\n".to_vec(),
            _ if request.head.method() == "HEAD" => {
                b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nX-Kind: head\r\n\r\n".to_vec()
            }
            target => ok(target),
        })
    });
    for Route { name, client, address } in grid.routes() {
        let mut client = client.client(address);
        client.send("HEAD /big HTTP/1.1\r\nHost: a\r\n\r\nGET /after HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.answer("HEAD").head;
        assert_eq!(
            (head.field("content-length"), head.field("x-kind")),
            (Some("5000"), Some("head")),
            "{name}"
        );
        assert_eq!(client.answer("GET").text(), "/after", "{name}");
        let none = client.get("/none").head;
        assert_eq!((none.status(), none.field("content-length")), (204, None), "{name}");
        assert_eq!(none.field("transfer-encoding"), None, "{name}: RFC 9112 §6.1");
        let same = client.get("/same").head;
        assert_eq!((same.status(), same.field("etag")), (304, Some("\"1\"")), "{name}");
        assert_eq!(client.get("/end").text(), "/end", "{name}");
    }
}

#[test]
fn interim_responses_pass() {
    let (grid, _apps) = serve(|pod| {
        App::tcp(pod, PORT, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while let Ok(Some(head)) = read_head(&mut reader) {
                let mut writer = &stream;
                if head.target() == "/refused" {
                    // The body is never asked for.
                    let _ = writer.write_all(
                        b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    );
                    return;
                }
                writer.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").unwrap();
                if head.field("expect") == Some("100-continue") {
                    writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                }
                let (body, _) = tests::http::read_body(&mut reader, head.request_framing()).unwrap();
                writer.write_all(&ok(&format!("{} bytes", body.len()))).unwrap();
            }
        })
    });
    for Route { name, client: pod, address } in grid.routes() {
        let mut client = pod.client(address);
        client.send("PUT /f HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n");
        let hints = client.answer("PUT").head;
        assert_eq!((hints.status(), hints.field("link")), (103, Some("</a.css>")), "{name}");
        assert_eq!(client.answer("PUT").head.status(), 100, "{name}");
        client.send("12345678");
        assert_eq!(client.answer("PUT").text(), "8 bytes", "{name}");
        // HTTP/1.0 knows no interim responses.
        let mut old = pod.client(address);
        old.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(old.answer("GET").head.status(), 200, "{name}");
        let mut refused = pod.client(address);
        refused.send("PUT /refused HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n");
        assert_eq!(refused.answer("PUT").head.status(), 417, "{name}");
    }
}

#[test]
fn an_early_answer_arrives_whole() {
    let (grid, _apps) = serve(|pod| {
        App::tcp(pod, PORT, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Ok(Some(_)) = read_head(&mut reader) else { return };
            let body = "no".repeat(5000);
            let head = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 10000\r\n\r\n";
            let _ = write!(&stream, "{head}{body}");
            let _ = stream.shutdown(Shutdown::Write);
            // Takes a part of the rest, as servers do lest the answer be lost to a reset, and gives up.
            let _ = std::io::copy(&mut reader.take(300_000), &mut std::io::sink());
        })
    });
    for Route { name, client, address } in grid.routes() {
        let mut client = client.client(address);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
        let mut upload = client.stream().try_clone().unwrap();
        let sending = thread::spawn(move || {
            let part = vec![b'x'; 100_000];
            // Breaks off when the connection does.
            (0..500).take_while(|_| upload.write_all(&part).is_ok()).count()
        });
        let answer = client.answer("POST");
        assert_eq!((answer.head.status(), answer.body.len()), (413, 10_000), "{name}");
        client.stream().shutdown(Shutdown::Both).ok();
        sending.join().unwrap();
    }
}

#[test]
fn connect_opens_a_tunnel() {
    let (grid, _apps) = serve(|pod| {
        App::tcp(pod, PORT, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Ok(Some(head)) = read_head(&mut reader) else { return };
            if head.target() != "db.example:5432" {
                let _ = (&stream).write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnot!");
                return;
            }
            (&stream).write_all(b"HTTP/1.1 200 Connection established\r\n\r\nfirst words ").unwrap();
            let mut writer = stream;
            let _ = std::io::copy(&mut reader, &mut writer);
            let _ = writer.write_all(b" last words");
        })
    });
    for Route { name, client: pod, address } in grid.routes() {
        let mut client = pod.client(address);
        client.send("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n");
        assert_eq!(client.head().unwrap().status(), 200, "{name}");
        client.send("\x00\x01 not HTTP\r\n\r\n");
        client.stream().shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        client.reader().read_to_string(&mut said).unwrap();
        assert_eq!(said, "first words \x00\x01 not HTTP\r\n\r\n last words", "{name}");
        let mut refused = pod.client(address);
        refused.send("CONNECT other.example:1 HTTP/1.1\r\nHost: other.example:1\r\n\r\n");
        let answer = refused.answer("CONNECT");
        assert_eq!((answer.head.status(), answer.text()), (403, "not!"), "{name}");
    }
}

#[test]
fn websocket_pair_talks_through_both_proxies() {
    let (grid, _apps) = serve(|pod| App::tcp(pod, PORT, websocket_echo));
    for Route { name, client: pod, address } in grid.routes() {
        let mut client = pod.client(address);
        // The key and its answer are those of RFC 6455 §1.3.
        client.send(
            "GET /chat HTTP/1.1\r\nHost: chat.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        );
        let head = client.head().unwrap();
        assert_eq!(head.status(), 101, "{name}: {head:?}");
        assert_eq!(head.field("upgrade"), Some("websocket"), "{name}");
        assert!(
            head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")),
            "{name}"
        );
        assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{name}");
        assert_eq!(read_frame(client.reader()), (TEXT, b"welcome".to_vec()), "{name}");
        for text in ["one", "two", &"long ".repeat(10_000)] {
            client.send(frame(TEXT, Some([1, 2, 3, 4]), text.as_bytes()));
            assert_eq!(read_frame(client.reader()), (TEXT, text.as_bytes().to_vec()), "{name}");
        }
        client.send(frame(CLOSE, Some([9, 9, 9, 9]), &1000_u16.to_be_bytes()));
        assert_eq!(read_frame(client.reader()).0, CLOSE, "{name}");
        client.assert_ended();
        // An upgrade that is refused is an ordinary answer.
        let mut refused = pod.client(address);
        refused.send("GET /no HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n");
        let answer = refused.answer("GET");
        assert_eq!((answer.head.status(), answer.text()), (426, "no key"), "{name}");
    }
}

fn websocket_echo(stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Ok(Some(head)) = read_head(&mut reader) else { return };
    let mut writer = &stream;
    if head.field("sec-websocket-key") != Some("dGhlIHNhbXBsZSBub25jZQ==") {
        let _ = writer.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 6\r\n\r\nno key");
        return;
    }
    assert!(head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{head:?}");
    let mut hello = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        .to_vec();
    // The first frame comes with the head.
    hello.extend(frame(TEXT, None, b"welcome"));
    writer.write_all(&hello).unwrap();
    loop {
        let (kind, text) = read_frame(&mut reader);
        writer.write_all(&frame(kind, None, &text)).unwrap();
        if kind == CLOSE {
            return;
        }
    }
}

#[test]
fn broken_responses_are_not_made_whole() {
    let (grid, _apps) = serve(|pod| {
        App::tcp(pod, PORT, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Ok(Some(head)) = read_head(&mut reader) else { return };
            let said: &[u8] = match head.target() {
                "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
                "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                "/head" => b"HTTP/1.1 200 OK\r\nContent-Len",
                "/nonsense" => b"220 mail.example ESMTP\r\n",
                _ => b"",
            };
            let _ = (&stream).write_all(said);
        })
    });
    for Route { name, client: pod, address } in grid.routes() {
        for (target, reason) in [
            ("/head", "http_response_incomplete"),
            ("/nonsense", "http_protocol_error"),
            ("/silence", "connection_terminated"),
        ] {
            let answer = pod.client(address).get(target);
            assert_eq!(answer.head.status(), 502, "{name}, {target}: {answer:?}");
            // Strangers are not told why.
            let status = answer.head.field("proxy-status").unwrap_or_default();
            let inside = pod.manifest.meshed;
            assert_eq!(status.contains(&format!("error={reason}")), inside, "{name}, {target}: {answer:?}");
        }
        for target in ["/length", "/chunked"] {
            let mut client = pod.client(address);
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let head = client.head().unwrap();
            if head.status() == 502 {
                // The proxy saw the break before it had said anything.
                continue;
            }
            assert_eq!(head.status(), 200, "{name}, {target}");
            let body = tests::http::read_body(client.reader(), head.response_framing("GET"));
            assert!(body.is_err(), "{name}, {target}: a part must not look like the whole: {body:?}");
        }
    }
}
