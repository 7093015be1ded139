//! Properties of the heads' conversions: what passes through two proxies is what passes through none, and what the wire says
//! between them reaches nobody. Not here: what `proxy-h1` itself lets pass.

use bytes::BytesMut;
use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use proptest::{collection::vec, prelude::*, sample::select};
use proxy_h1::{BodyLength, Limits, Parse, RequestHead, ResponseHead, TargetForm};
use proxy_http::head::{ClientFraming, RequestRef, ResponseRef, StreamRequest};

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "PATCH", "PROPFIND", "g'x|~"];

/// Names that mean something to a proxy, beside any others.
const NAMES: [&str; 22] = [
    "Accept",
    "accept",
    "ACCEPT",
    "X-a",
    "x-A",
    "Cookie",
    "cookie",
    "Set-Cookie",
    "set-cookie",
    "ETag",
    "TE",
    "Connection",
    "Keep-Alive",
    "Upgrade",
    "Weft-Http",
    "weft-case",
    "WEFT-Target",
    "Proxy-Connection",
    "Sec-WebSocket-Key",
    "Expect",
    "Trailer",
    "x-b",
];

const VALUES: [&[u8]; 16] = [
    b"",
    b"a",
    b"a=1; b=2",
    b"b, a",
    b"\xff\xfe",
    b"a\tb",
    b"t;X-A",
    b"2",
    b"trailers",
    b"x-b, close",
    b"Upgrade, x-a",
    b"keep-alive",
    b"websocket",
    b"other/1",
    b"100-continue",
    b"\"q\\\"\"",
];

type Lines = Vec<(String, Vec<u8>)>;

fn lines() -> impl Strategy<Value = Lines> {
    let name =
        prop_oneof![3 => select(&NAMES[..]).prop_map(str::to_owned), 1 => "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}"];
    let name = name.prop_filter("framing is the message's own", |name| {
        !["host", "content-length", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str())
    });
    let value =
        prop_oneof![3 => select(&VALUES[..]).prop_map(<[u8]>::to_vec), 1 => vec(0x21..=0xffu8, 0..12)];
    let value = value.prop_map(|value| value.into_iter().filter(|byte| *byte != 0x7f).collect());
    vec((name, value), 0..12)
}

fn targets() -> impl Strategy<Value = String> {
    prop_oneof![
        "/[!-\"$-~]{0,40}",
        "/[a-z]{0,5}(\\?[!-\"$-~]{0,10})?",
        "http://[a-z]{1,9}(:[0-9]{1,4})?(/[!-\"$-~]{0,20})?(\\?[a-z=&]{0,9})?",
        Just("*".to_owned()),
    ]
}

/// The framing of a body.
fn framings() -> impl Strategy<Value = &'static str> {
    select(&["", "", "Content-Length: 5\r\n", "content-length: 0\r\n", "Transfer-Encoding: chunked\r\n"][..])
}

fn text(start: &str, framing: &str, lines: &Lines) -> Vec<u8> {
    let mut text = format!("{start}\r\n{framing}").into_bytes();
    for (name, value) in lines {
        text.extend_from_slice(format!("{name}: ").as_bytes());
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

fn request(text: &[u8]) -> Option<(RequestHead, BodyLength)> {
    let mut head = RequestHead::default();
    let parsed = proxy_h1::parse_request(&mut BytesMut::from(text), &mut head, &Limits::default());
    let body = (parsed == Ok(Parse::Complete)).then(|| head.body())?.ok()?;
    Some((head, body))
}

fn response(text: &[u8]) -> Option<ResponseHead> {
    let mut head = ResponseHead::default();
    let parsed = proxy_h1::parse_response(&mut BytesMut::from(text), &mut head, &Limits::default());
    (parsed == Ok(Parse::Complete)).then_some(head)
}

/// Fields by name, in the order of each: what HTTP may not change. HTTP/2 sends all of a name together.
fn by_name<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut names: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for (name, value) in fields {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        match names.iter_mut().find(|(one, _)| *one == name) {
            Some((_, values)) => values.push(value.to_vec()),
            None => names.push((name, vec![value.to_vec()])),
        }
    }
    names.sort();
    names
}

fn fields_of(fields: &proxy_h1::Fields) -> Vec<(String, Vec<Vec<u8>>)> {
    by_name(fields.iter().map(|field| (field.name, field.value)))
}

/// Were all names of one kind spelled alike?
fn spelled_alike(lines: &Lines) -> bool {
    lines.iter().all(|(name, _)| lines.iter().all(|(one, _)| one == name || !one.eq_ignore_ascii_case(name)))
}

/// From one proxy to the other.
fn over_the_wire(request: Request<()>) -> StreamRequest {
    match StreamRequest::wire(request.into_parts().0) {
        Ok(request) => request,
        Err(_) => panic!("a message is no TCP connection"),
    }
}

fn has_wire(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("weft-"))
}

/// Method, target, protocol and fields, to be compared.
fn said(request: &Request<()>) -> (Method, Uri, Option<String>, HeaderMap) {
    let protocol = request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
    (request.method().clone(), request.uri().clone(), protocol, request.headers().clone())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn an_http_1_request_passes_the_wire(
        method in select(&METHODS[..]), target in targets(), old in any::<bool>(), framing in framings(), lines in lines(),
    ) {
        let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
        let text = text(&format!("{method} {target} {version}"), &format!("Host: shop\r\n{framing}"), &lines);
        let Some((head, body)) = request(&text) else { return Ok(()) };
        let ended = matches!(body, BodyLength::None | BodyLength::Fixed(0));
        let (mut direct, mut wired) = (Vec::new(), Vec::new());
        let chunked = RequestRef::Http1(&head, body).write(&mut direct, ended, None);
        let stream = over_the_wire(RequestRef::Http1(&head, body).to_stream(true));
        prop_assert_eq!(RequestRef::Http2(&stream).write(&mut wired, ended, None), chunked);
        let (Some((direct, direct_body)), Some((wired, wired_body))) = (request(&direct), request(&wired)) else {
            return Err(TestCaseError::fail("what is written is not read"));
        };
        prop_assert_eq!((direct.method(), direct.version(), direct_body), (wired.method(), wired.version(), wired_body));
        prop_assert_eq!(direct_body, body);
        // An origin server gets the origin form (RFC 9112 §3.2.1), and Host of it.
        if head.target_form() == TargetForm::Absolute {
            let path = &head.target()[7 + head.authority().len()..];
            let slash = if path.starts_with(b"/") { &b""[..] } else { b"/" };
            prop_assert_eq!(wired.target(), [slash, path].concat());
            prop_assert_eq!(wired.fields().first("host"), Some(head.authority()));
        } else {
            prop_assert_eq!(direct.target(), wired.target());
            prop_assert_eq!(fields_of(direct.fields()), fields_of(wired.fields()));
            if spelled_alike(&lines) {
                // But for those that a proxy writes itself.
                for field in head.fields().end_to_end() {
                    prop_assert!(wired.fields().iter().any(|one| one.name == field.name), "{:?}", field);
                }
            }
        }
        prop_assert!(!wired.fields().iter().any(|field| field.name.to_ascii_lowercase().starts_with(b"weft-")));
    }

    #[test]
    fn an_http_1_request_is_one_to_an_http_2_program(
        method in select(&METHODS[..]), target in targets(), framing in framings(), lines in lines(),
    ) {
        let text = text(&format!("{method} {target} HTTP/1.1"), &format!("Host: shop:80\r\n{framing}"), &lines);
        let Some((head, body)) = request(&text) else { return Ok(()) };
        let direct = RequestRef::Http1(&head, body).to_stream(false);
        let stream = over_the_wire(RequestRef::Http1(&head, body).to_stream(true));
        let wired = RequestRef::Http2(&stream).to_stream(false);
        prop_assert_eq!(said(&direct), said(&wired));
        let path = direct.uri().path_and_query().map(|path| path.as_str()).unwrap_or_default();
        prop_assert!(head.target() == b"/" || path != "/" || head.target_form() == TargetForm::Absolute);
        prop_assert!(!has_wire(direct.headers()) && !direct.headers().contains_key("host"));
        let authority = direct.uri().authority().map(|authority| authority.as_str().as_bytes().to_vec());
        prop_assert_eq!(authority.as_deref(), Some(head.authority()));
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            prop_assert!(!direct.headers().contains_key(name), "{}", name);
        }
        prop_assert!(direct.headers().get_all("te").iter().all(|value| value == "trailers"));
    }

    #[test]
    fn an_http_2_request_passes_the_wire(
        method in select(&METHODS[..]), path in "/[!-!$-;=?-Z_a-z~]{0,40}", lines in lines(), upgrade in any::<bool>(),
    ) {
        let mut sent = Request::new(());
        *sent.uri_mut() = Uri::builder().scheme("http").authority("shop:80").path_and_query(path).build().expect("a target");
        *sent.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method");
        if upgrade {
            *sent.method_mut() = Method::CONNECT;
            sent.extensions_mut().insert(Protocol::from_static("websocket"));
        }
        for (name, value) in &lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a token");
            sent.headers_mut().append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        let wanted = {
            let mut headers = HeaderMap::new();
            let kept = sent.headers().iter().filter(|(name, _)| !name.as_str().starts_with("weft-"));
            kept.for_each(|(name, value)| _ = headers.append(name, value.clone()));
            let (method, uri, protocol, _) = said(&sent);
            (method, uri, protocol, headers)
        };
        let program = StreamRequest::program(sent.into_parts().0);
        let stream = over_the_wire(RequestRef::Http2(&program).to_stream(true));
        prop_assert_eq!(stream.version, http::Version::HTTP_2);
        prop_assert_eq!(said(&RequestRef::Http2(&stream).to_stream(false)), wanted.clone());
        // As without a wire.
        prop_assert_eq!(said(&RequestRef::Http2(&program).to_stream(false)), wanted);
    }

    #[test]
    fn an_http_1_response_passes_the_wire(
        status in 200..=599u16, reason in "[ -~]{0,20}", method in select(&["GET", "HEAD"][..]), old in any::<bool>(),
        framing in framings(), lines in lines(), usual in any::<bool>(),
    ) {
        let usual = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).filter(|_| usual);
        let reason = usual.unwrap_or(&reason);
        let text = text(&format!("HTTP/1.1 {status} {reason}"), framing, &lines);
        let Some(head) = response(&text) else { return Ok(()) };
        let Ok(body) = head.body(method) else { return Ok(()) };
        let version = if old { proxy_h1::Version::Http10 } else { proxy_h1::Version::Http11 };
        let client = ClientFraming { version, keep_alive: true, head: method == "HEAD" };
        let (mut direct, mut wired) = (Vec::new(), Vec::new());
        let direct_follows = client.write_response(&mut direct, &ResponseRef::Http1(&head, method), body);
        let (mut parts, ()) = ResponseRef::Http1(&head, method).into_stream(true, None).into_parts();
        let wired_follows = client.write_response(&mut wired, &ResponseRef::Http2(&mut parts), BodyLength::None);
        prop_assert_eq!(direct_follows, wired_follows);
        let (Some(direct), Some(wired)) = (response(&direct), response(&wired)) else {
            return Err(TestCaseError::fail("what is written is not read"));
        };
        prop_assert_eq!((direct.status(), direct.reason()), (wired.status(), wired.reason()));
        prop_assert_eq!(direct.reason(), reason.as_bytes());
        prop_assert_eq!(direct.body(method), wired.body(method));
        prop_assert_eq!(fields_of(direct.fields()), fields_of(wired.fields()));
        if spelled_alike(&lines) {
            for field in head.end_to_end(method) {
                prop_assert!(wired.fields().iter().any(|one| one.name == field.name), "{:?}", field);
            }
        }
        prop_assert!(!wired.fields().iter().any(|field| field.name.to_ascii_lowercase().starts_with(b"weft-")));
    }

    #[test]
    fn a_stream_to_a_program_says_nothing_of_the_wire(status in 200..=599u16, lines in lines()) {
        let text = text(&format!("HTTP/1.1 {status} Ok"), "Content-Length: 5\r\n", &lines);
        let Some(head) = response(&text) else { return Ok(()) };
        let direct = ResponseRef::Http1(&head, "GET").into_stream(false, None);
        let (mut parts, ()) = ResponseRef::Http1(&head, "GET").into_stream(true, None).into_parts();
        let wired = ResponseRef::Http2(&mut parts).into_stream(false, None);
        prop_assert_eq!((direct.status(), direct.headers()), (wired.status(), wired.headers()));
        prop_assert!(!has_wire(direct.headers()));
    }
}

#[test]
fn the_longest_name_is_no_reason_to_panic() {
    for (length, read) in [(65_535, true), (65_536, false)] {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: b\r\n\r\n", "x".repeat(length));
        let head = request(text.as_bytes());
        assert_eq!(head.is_some(), read, "{length}");
        if let Some((head, body)) = head {
            assert_eq!(RequestRef::Http1(&head, body).to_stream(true).headers().keys_len().min(1), 1);
        }
    }
}

/// Requests that once were not the same with a wire and without one.
#[test]
fn odd_requests_are_the_same_over_the_wire() {
    let table: [(&[u8], &str); 6] = [
        (b"CONNECT a:1 HTTP/1.1\r\nHost: b:2\r\n\r\n", "a:1"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n", "a:1"),
        (b"GET http://a?b=c HTTP/1.1\r\nHost: b\r\n\r\n", "http://a/?b=c"),
        (b"GET http://\xe9a/b HTTP/1.1\r\nHost: a\r\n\r\n", "/b"),
        (b"GET /<a>?b=\"c\" HTTP/1.1\r\nHost: a\r\n\r\n", "http://a/%3Ca%3E?b=%22c%22"),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\xef\r\n\r\n", "http://a/a"),
    ];
    for (text, target) in table {
        let (head, body) = request(text).expect("a request");
        let direct = RequestRef::Http1(&head, body);
        let stream = over_the_wire(direct.to_stream(true));
        let wired = RequestRef::Http2(&stream);
        assert_eq!(said(&direct.to_stream(false)), said(&wired.to_stream(false)));
        assert_eq!(direct.to_stream(false).uri().to_string(), target);
        let chunked = |request: RequestRef<'_>| request.write(&mut Vec::new(), true, None);
        assert_eq!((chunked(direct), chunked(wired)), (false, false));
    }
}

#[test]
fn cookies_come_together_in_http_1() {
    let request = Request::builder()
        .uri("http://shop/a")
        .header("cookie", "a=1")
        .header("x", "y")
        .header("cookie", "b=2")
        .body(())
        .expect("a request");
    let mut out = Vec::new();
    RequestRef::Http2(&StreamRequest::program(request.into_parts().0)).write(&mut out, true, None);
    assert_eq!(
        String::from_utf8_lossy(&out),
        "GET /a HTTP/1.1\r\nhost: shop\r\nx: y\r\ncookie: a=1; b=2\r\n\r\n"
    );
}
