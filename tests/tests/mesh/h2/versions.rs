//! HTTP/2 where it meets HTTP/1.1, and WebSockets over both (RFC 8441).

use super::{PORT, app};
use h2::ext::Protocol;
use http::Request;
use std::{
    io::{BufReader, Write},
    process::Command,
    time::Duration,
};
use tests::{
    PATIENCE,
    app::App,
    grid::{Grid, Route},
    h2::{Client, Exchange, Server, part, receive, response, run, send},
    http::read_head,
    manifest::Port,
    namespace::done,
    websocket::{CLOSE, TEXT, frame, read_frame},
};

/// Opens a WebSocket by extended CONNECT (RFC 8441), talks, and closes it.
async fn websocket_over_h2(name: &str, client: &mut Client) {
    let allowed = tokio::time::timeout(PATIENCE, async {
        while !client.requests.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    allowed.await.unwrap_or_else(|_| panic!("{name}: SETTINGS_ENABLE_CONNECT_PROTOCOL has not come"));
    let mut request = Request::builder()
        .method("CONNECT")
        .uri("http://chat.test/chat")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "talk")
        .body(())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let (answer, mut out) = client.start(request, false).await.unwrap();
    let answer = answer.await.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(answer.status(), 200, "{name}: {answer:?}");
    assert_eq!(answer.headers().get("sec-websocket-protocol").unwrap(), "talk", "{name}");
    let mut stream = answer.into_body();
    let mut heard = Vec::new();
    for text in ["one", "two", &"long ".repeat(10_000)] {
        send(&mut out, frame(TEXT, Some([1, 2, 3, 4]), text.as_bytes()).into(), false).await.unwrap();
        let expected = frame(TEXT, None, text.as_bytes());
        while heard.len() < expected.len() {
            heard.extend_from_slice(&part(&mut stream).await.unwrap().expect("more to come"));
        }
        assert_eq!(heard.drain(..).as_slice(), expected, "{name}");
    }
    send(&mut out, frame(CLOSE, Some([9; 4]), &1000_u16.to_be_bytes()).into(), true).await.unwrap();
    let (rest, _) = receive(&mut stream).await.unwrap();
    assert_eq!(read_frame(&mut &rest[..]), (CLOSE, 1000_u16.to_be_bytes().to_vec()), "{name}");
}

/// A server of WebSockets by extended CONNECT, and of whatever else [`app`] serves.
async fn chat(mut exchange: Exchange) -> Result<(), h2::Error> {
    let protocol =
        exchange.request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
    if protocol.as_deref() != Some("websocket") {
        return app(exchange).await;
    }
    let fields = exchange.request.headers();
    // They belong to HTTP/1.1 only (RFC 8441 §5).
    if fields.contains_key("sec-websocket-key") || fields["sec-websocket-version"] != "13" {
        return exchange.answer(400, "not RFC 8441").await;
    }
    let mut head = response(200);
    head.headers_mut().insert("sec-websocket-protocol", fields["sec-websocket-protocol"].clone());
    let mut out = exchange.respond.send_response(head, false)?;
    let mut heard = Vec::new();
    loop {
        // A frame's length is found by trying to read it: these are small.
        while let Some((kind, payload, length)) = whole_frame(&heard) {
            heard.drain(..length);
            send(&mut out, frame(kind, None, &payload).into(), kind == CLOSE).await?;
            if kind == CLOSE {
                return Ok(());
            }
        }
        match part(exchange.request.body_mut()).await? {
            Some(part) => heard.extend_from_slice(&part),
            None => return Ok(()),
        }
    }
}

/// The first masked frame of these bytes and its length, if it is all there.
fn whole_frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let payload = match (bytes.get(1)? & 0x7f, bytes) {
        (126, [_, _, high, low, ..]) => usize::from(u16::from_be_bytes([*high, *low])) + 2,
        (126.., _) => return None,
        (short, _) => usize::from(short),
    };
    let length = 2 + 4 + payload;
    let mut whole = bytes.get(..length)?;
    let (kind, payload) = read_frame(&mut whole);
    Some((kind, payload, length))
}

#[test]
fn h2_websocket_talks_through_both_proxies() {
    let grid = Grid::new(Port::auto(PORT));
    let _servers = grid.servers().map(|pod| Server::start(pod, PORT, chat));
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            assert_eq!(client.get("/").await.unwrap().text(), "hello", "{name}");
            for _ in 0..2 {
                websocket_over_h2(name, &mut client).await;
            }
            assert_eq!(client.get("/").await.unwrap().text(), "hello", "{name}");
        });
    }
}

/// Where `appProtocol` says that the server speaks HTTP/2, a client of HTTP/1.1 reaches it, WebSockets included.
#[test]
fn h2_only_servers_are_reached_by_http_1_1() {
    let grid = Grid::new(Port::declared(PORT, "kubernetes.io/h2c"));
    let _servers = grid.servers().map(|pod| Server::start(pod, PORT, chat));
    for Route { name, client: pod, address } in grid.routes() {
        let mut client = pod.client(address);
        client.send(
            "POST /fields/x?y HTTP/1.1\r\nHost: Shop.Example\r\nX-Mixed-Case: Kept\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
             Content-Length: 2\r\n\r\nhi",
        );
        let seen = client.answer("POST");
        let text = seen.text().to_owned();
        assert!(text.starts_with("POST http://Shop.Example/fields/x?y\n"), "{name}: {seen:?}");
        assert!(text.contains("x-mixed-case: Kept\n") && !text.contains("x-hop"), "{name}: {text}");
        client.send(
            "POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Check: 11\r\n\r\n",
        );
        let answer = client.answer("POST");
        assert_eq!(answer.text(), "hello", "{name}");
        let trailer = |name: &str| {
            let found = answer.trailers.iter().find(|(held, _)| held.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(
            (trailer("end"), trailer("seen-x-check")),
            (Some("of echo"), Some("11")),
            "{name}: {answer:?}"
        );
        client
            .send("HEAD /status/200 HTTP/1.1\r\nHost: a\r\n\r\nGET /status/304 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer("HEAD").head.field("content-length"), Some("5000"), "{name}");
        assert_eq!(client.answer("GET").head.status(), 304, "{name}");
        client.send("GET /break/8 HTTP/1.1\r\nHost: a\r\n\r\n");
        let broken = client.try_answer("GET");
        assert!(broken.is_err(), "{name}: a part must not look like the whole: {broken:?}");

        let mut client = pod.client(address);
        // The key and its answer are those of RFC 6455 §1.3.
        client.send(
            "GET /chat HTTP/1.1\r\nHost: chat.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: talk\r\n\r\n",
        );
        let head = client.head().unwrap();
        assert_eq!(head.status(), 101, "{name}: {head:?}");
        assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{name}");
        assert_eq!(head.field("sec-websocket-protocol"), Some("talk"), "{name}");
        for text in ["one", &"long ".repeat(10_000)] {
            client.send(frame(TEXT, Some([1, 2, 3, 4]), text.as_bytes()));
            assert_eq!(read_frame(client.reader()), (TEXT, text.as_bytes().to_vec()), "{name}");
        }
        client.send(frame(CLOSE, Some([9; 4]), &1000_u16.to_be_bytes()));
        assert_eq!(read_frame(client.reader()).0, CLOSE, "{name}");
        client.assert_ended();
    }
}

/// And the other way: a WebSocket of HTTP/2 to a server that `appProtocol` says speaks HTTP/1.1.
#[test]
fn h2_websocket_reaches_a_server_of_http_1_1() {
    let grid = Grid::new(Port::declared(PORT, "http"));
    let _apps = grid.servers().map(|pod| {
        App::tcp(pod, PORT, |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut writer = &stream;
            let Ok(Some(head)) = read_head(&mut reader) else { return };
            let key = head.field("sec-websocket-key").expect("a WebSocket of HTTP/1.1 has a key");
            let sum =
                format!("printf %s {key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11 | openssl dgst -sha1 -binary");
            let proof = done(Command::new("sh").args(["-c", &format!("{sum} | openssl base64")]));
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: talk\r\n\r\n",
                proof.trim()
            );
            writer.write_all(head.as_bytes()).unwrap();
            loop {
                let (kind, text) = read_frame(&mut reader);
                writer.write_all(&frame(kind, None, &text)).unwrap();
                if kind == CLOSE {
                    return;
                }
            }
        })
    });
    for Route { name, client, address } in grid.routes() {
        run(async {
            let mut client = Client::connect(client, address).await.unwrap();
            websocket_over_h2(name, &mut client).await;
        });
    }
}
