//! Any head, as a request and as a response: what two proxies make of it, one after the other, is what one alone makes of it,
//! for programs of HTTP/1 and of HTTP/2; no panic, and nothing of what the wire says reaches anyone.
//! Not here: how heads are read (`h1`).
#![no_main]

use bytes::BytesMut;
use h2::ext::Protocol;
use libfuzzer_sys::fuzz_target;
use proxy_h1::{
    BodyLength, Fields, Limits, Parse, RequestHead, ResponseHead, TargetForm, Version, parse_request,
    parse_response,
};
use proxy_http::head::{ClientFraming, RequestRef, ResponseRef, StreamRequest};

fuzz_target!(|input: &[u8]| {
    request(input);
    for method in ["GET", "HEAD"] {
        for version in [Version::Http10, Version::Http11] {
            response(input, method, version);
        }
    }
});

fn request(input: &[u8]) {
    let Some((head, body)) = read_request(input) else { return };
    let ended = matches!(body, BodyLength::None | BodyLength::Fixed(0));
    let (mut direct, mut wired) = (Vec::new(), Vec::new());
    RequestRef::Http1(&head, body).write(&mut direct, ended, None);
    let Ok(stream) = StreamRequest::wire(RequestRef::Http1(&head, body).to_stream(true).into_parts().0) else {
        panic!("a message is no TCP connection");
    };
    RequestRef::Http2(&stream).write(&mut wired, ended, None);
    let (direct, direct_body) = read_request(&direct).expect("what is written is read");
    let (wired, wired_body) = read_request(&wired).expect("what came over the wire is read");
    assert_eq!((direct.method(), direct.version(), direct_body), (wired.method(), wired.version(), wired_body));
    // An absolute target becomes its origin form, and Host what it says.
    if head.target_form() != TargetForm::Absolute {
        assert_eq!(direct.target(), wired.target());
        assert_eq!(seen(direct.fields()), seen(wired.fields()));
    }

    let to_program = |request: RequestRef<'_>| {
        let request = request.to_stream(false);
        let protocol = request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
        assert!(!request.headers().keys().any(|name| name.as_str().starts_with("weft-")));
        (request.method().clone(), request.uri().clone(), protocol, request.headers().clone())
    };
    assert_eq!(to_program(RequestRef::Http1(&head, body)), to_program(RequestRef::Http2(&stream)));
}

fn response(input: &[u8], method: &str, version: Version) {
    let Some(head) = read_response(input) else { return };
    let Ok(body) = head.body(method) else { return };
    let client = ClientFraming { version, keep_alive: true, connect: false, head: method == "HEAD" };
    let (mut direct, mut wired) = (Vec::new(), Vec::new());
    let follows = client.write_response(&mut direct, &ResponseRef::Http1(&head, method), body);
    let (mut parts, ()) = ResponseRef::Http1(&head, method).into_stream(true, None).into_parts();
    let wired_follows = client.write_response(&mut wired, &ResponseRef::Http2(&mut parts), BodyLength::None);
    assert_eq!(follows.chunked, wired_follows.chunked);
    let direct = read_response(&direct).expect("what is written is read");
    let wired = read_response(&wired).expect("what came over the wire is read");
    assert_eq!((direct.status(), direct.reason()), (wired.status(), wired.reason()));
    assert_eq!(direct.body(method), wired.body(method));
    assert_eq!(seen(direct.fields()), seen(wired.fields()));
}

fn read_request(input: &[u8]) -> Option<(RequestHead, BodyLength)> {
    let mut head = RequestHead::default();
    let parsed = parse_request(&mut BytesMut::from(input), &mut head, &Limits::default());
    let body = (parsed == Ok(Parse::Complete)).then(|| head.body())?.ok()?;
    Some((head, body))
}

fn read_response(input: &[u8]) -> Option<ResponseHead> {
    let mut head = ResponseHead::default();
    let parsed = parse_response(&mut BytesMut::from(input), &mut head, &Limits::default());
    (parsed == Ok(Parse::Complete)).then_some(head)
}

/// Fields by name, in the order of each; HTTP/2 sends all of a name together.
fn seen(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen: Vec<_> =
        fields.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec())).collect();
    assert!(!seen.iter().any(|(name, _)| name.starts_with(b"weft-")));
    seen.sort_by(|(one, _), (other, _)| one.cmp(other));
    seen
}
