//! Properties: what is written is read back the same, however it arrives, and nothing that arrives makes a panic.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proxy_h1::{
    BodyLength, Decoded, Decoder, Limits, Parse, Refusal, RequestHead, ResponseHead, Version, parse_request,
    parse_response, write_chunk_end, write_chunk_head, write_end, write_field, write_last_chunk,
    write_request_line, write_status_line,
};

const LIMITS: Limits = Limits { head_bytes: 400, fields: 8, target_bytes: 64, extension_bytes: 8 };

type Lines = Vec<(String, Vec<u8>)>;

fn fields() -> impl Strategy<Value = Lines> {
    let value = vec(prop_oneof![Just(b'\t'), 0x20..0x7fu8, 0x80..=0xffu8], 0..20);
    vec(("x-[a-zA-Z0-9!#$%&'*+.^_`|~-]{0,12}", value.prop_map(|value| value.trim_ascii().to_vec())), 0..8)
}

/// Bytes of which the grammar is made, so that random inputs get far.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "\r\n",
        "\n",
        "\r",
        " ",
        ":",
        ",",
        ";",
        "\t",
        "\0",
        "/",
        "*",
        "GET",
        "POST",
        "HTTP/1.1",
        "HTTP/1.0",
        "200",
        "Host: a",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "A: b",
        "0",
        "5",
        "ffffffff",
        "hello",
        "GET / HTTP/1.1\r\n",
        "HTTP/1.1 200 OK\r\n",
        "CONNECT a:1 HTTP/1.1\r\n",
        "0\r\n",
        "5\r\nhello\r\n",
    ];
    let word = prop_oneof![
        8 => prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
        1 => (prop::sample::select(b"a0/ \r\n".to_vec()), prop_oneof![55..75usize, 0..500usize]).prop_map(|(b, times)| vec![b; times]),
    ];
    vec(word, 0..30).prop_map(|words| words.concat())
}

/// `input` in pieces whose sizes come round and round from `cuts`.
fn pieces<'a>(mut input: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let (piece, rest) = input.split_at((*cuts.next()?).min(input.len()));
        input = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn feed(
    input: &[u8],
    cuts: &[usize],
    mut parse: impl FnMut(&mut BytesMut) -> Result<Parse, Refusal>,
) -> (Result<Parse, Refusal>, Vec<u8>) {
    let (mut buf, mut last) = (BytesMut::new(), Ok(Parse::Partial));
    for piece in pieces(input, cuts) {
        buf.extend_from_slice(piece);
        if last == Ok(Parse::Partial) {
            last = parse(&mut buf);
        }
    }
    (last, buf.to_vec())
}

fn decode(
    input: &[u8],
    cuts: &[usize],
    length: BodyLength,
) -> (Result<bool, Refusal>, Vec<u8>, Lines, Vec<u8>) {
    let (mut buf, mut data) = (BytesMut::new(), Vec::new());
    let mut decoder = Decoder::with_limits(length, LIMITS);
    let mut refused = None;
    for piece in pieces(input, cuts) {
        buf.extend_from_slice(piece);
        while refused.is_none() {
            match decoder.decode(&mut buf) {
                Ok(Decoded::Data(bytes)) => data.extend_from_slice(&bytes),
                Ok(Decoded::NeedMore | Decoded::End) => break,
                Err(refusal) => refused = Some(refusal),
            }
        }
    }
    let (end, left) = match refused {
        Some(refusal) => (Err(refusal), Vec::new()),
        None => (Ok(decoder.is_end()), buf.to_vec()),
    };
    let trailers = decoder.trailers().iter().map(|field| (text(field.name), field.value.to_vec())).collect();
    (end, data, trailers, left)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn chunked(chunks: &[Vec<u8>], trailers: &Lines) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        write_chunk_head(&mut wire, chunk.len());
        wire.extend_from_slice(chunk);
        write_chunk_end(&mut wire);
    }
    write_last_chunk(&mut wire);
    trailers.iter().for_each(|(name, value)| write_field(&mut wire, name.as_bytes(), value));
    write_end(&mut wire);
    wire
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn a_request_head_comes_back(
        method in "[A-Z]{1,12}", path in "/[!-\"$-~]{0,60}", lines in fields(), cuts in vec(1..50usize, 1..8),
        rest in vec(any::<u8>(), 0..10),
    ) {
        prop_assume!(method != "CONNECT");
        let mut wire = BytesMut::new();
        write_request_line(&mut wire, method.as_bytes(), path.as_bytes(), Version::Http10);
        lines.iter().for_each(|(name, value)| write_field(&mut wire, name.as_bytes(), value));
        write_end(&mut wire);
        wire.extend_from_slice(&rest);
        let mut head = RequestHead::default();
        let (result, left) = feed(&wire, &cuts, |buf| parse_request(buf, &mut head, &Limits::default()));
        prop_assert_eq!(result, Ok(Parse::Complete));
        prop_assert_eq!(left, rest);
        prop_assert_eq!((head.method(), head.target(), head.version()), (&method[..], path.as_bytes(), Version::Http10));
        let back: Lines = head.fields().iter().map(|field| (text(field.name), field.value.to_vec())).collect();
        prop_assert_eq!(back, lines);
    }

    #[test]
    fn a_response_head_comes_back(status in 100..=999u16, reason in "[ -~]{0,20}", lines in fields(), cuts in vec(1..50usize, 1..8)) {
        let mut wire = Vec::new();
        write_status_line(&mut wire, Version::Http11, status, reason.as_bytes());
        lines.iter().for_each(|(name, value)| write_field(&mut wire, name.as_bytes(), value));
        write_end(&mut wire);
        let mut head = ResponseHead::default();
        let (result, left) = feed(&wire, &cuts, |buf| parse_response(buf, &mut head, &Limits::default()));
        prop_assert_eq!((result, left), (Ok(Parse::Complete), vec![]));
        prop_assert_eq!((head.status(), head.reason(), head.version()), (status, reason.as_bytes(), Version::Http11));
        let back: Lines = head.fields().iter().map(|field| (text(field.name), field.value.to_vec())).collect();
        prop_assert_eq!(back, lines);
    }

    #[test]
    fn a_chunked_body_comes_back(
        chunks in vec(vec(any::<u8>(), 0..300), 0..10), trailers in fields(), cuts in vec(1..400usize, 1..8),
        rest in vec(any::<u8>(), 0..10),
    ) {
        let mut wire = chunked(&chunks, &trailers);
        wire.extend_from_slice(&rest);
        let body = chunks.concat();
        prop_assert_eq!(decode(&wire, &cuts, BodyLength::Chunked), (Ok(true), body, trailers, rest));
    }

    #[test]
    fn a_counted_body_comes_back(body in vec(any::<u8>(), 0..600), cuts in vec(1..400usize, 1..8), rest in vec(any::<u8>(), 0..10)) {
        let wire = [&body[..], &rest].concat();
        prop_assert_eq!(decode(&wire, &cuts, BodyLength::Fixed(body.len() as u64)), (Ok(true), body, vec![], rest));
    }

    #[test]
    fn a_cut_body_is_not_whole(chunks in vec(vec(any::<u8>(), 1..30), 1..5), trailers in fields(), at in any::<prop::sample::Index>()) {
        let wire = chunked(&chunks, &trailers);
        let wire = &wire[..at.index(wire.len())];
        prop_assert_eq!(decode(wire, &[7], BodyLength::Chunked).0, Ok(false));
    }

    #[test]
    fn cuts_change_nothing(input in soup(), cuts in vec(1..40usize, 1..8)) {
        let whole = [input.len().max(1)];
        let request = |cuts: &[usize]| {
            let mut head = RequestHead::default();
            let (result, left) = feed(&input, cuts, |buf| parse_request(buf, &mut head, &LIMITS));
            let fields: Lines = head.fields().iter().map(|field| (text(field.name), field.value.to_vec())).collect();
            result.map(|parse| (parse, (parse == Parse::Complete).then_some((left, fields, text(head.target())))))
        };
        prop_assert_eq!(request(&cuts), request(&whole));
        let response = |cuts: &[usize]| {
            let mut head = ResponseHead::default();
            let (result, left) = feed(&input, cuts, |buf| parse_response(buf, &mut head, &LIMITS));
            let fields: Lines = head.fields().iter().map(|field| (text(field.name), field.value.to_vec())).collect();
            result.map(|parse| (parse, (parse == Parse::Complete).then_some((left, fields, head.status()))))
        };
        prop_assert_eq!(response(&cuts), response(&whole));
        prop_assert_eq!(decode(&input, &cuts, BodyLength::Chunked), decode(&input, &whole, BodyLength::Chunked));
    }

    #[test]
    fn a_head_that_was_used_is_as_good_as_new(lines in fields(), second in soup()) {
        let mut first = BytesMut::new();
        write_request_line(&mut first, b"GET", b"http://b/c", Version::Http11);
        write_field(&mut first, b"Host", b"a");
        lines.iter().take(7).for_each(|(name, value)| write_field(&mut first, name.as_bytes(), value));
        write_end(&mut first);
        let (mut used, mut new) = (RequestHead::default(), RequestHead::default());
        prop_assert_eq!(parse_request(&mut first, &mut used, &LIMITS), Ok(Parse::Complete));
        let again = parse_request(&mut BytesMut::from(&second[..]), &mut used, &LIMITS);
        prop_assert_eq!(again, parse_request(&mut BytesMut::from(&second[..]), &mut new, &LIMITS));
        prop_assert_eq!(format!("{used:?}"), format!("{new:?}"));
    }
}

#[test]
fn an_unfinished_head_can_be_asked() {
    let mut head = RequestHead::default();
    let mut buf = BytesMut::from(
        &b"GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: x\r\nb ad\r\n\r\n"[..],
    );
    assert_eq!(parse_request(&mut buf, &mut head, &Limits::default()), Err(Refusal::FieldName));
    assert_eq!(
        (head.method(), head.target(), head.authority(), head.fields().len()),
        ("", &b""[..], &b""[..], 0)
    );
    assert_eq!((head.body(), head.fields().end_to_end().count()), (Ok(BodyLength::None), 0));
    assert!(head.target_bytes().is_empty() && head.fields().first("host").is_none());
}

#[test]
fn data_is_a_slice_of_what_was_read() {
    let mut buf = BytesMut::from(&b"5\r\nhello\r\n0\r\n\r\n"[..]);
    let at = buf.as_ptr() as usize + 3;
    match Decoder::new(BodyLength::Chunked).decode(&mut buf) {
        Ok(Decoded::Data(data)) => {
            assert_eq!((data.as_ptr() as usize, data), (at, Bytes::from_static(b"hello")))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pipelined_requests_come_one_by_one_out_of_one_buffer() {
    let mut buf = BytesMut::from(
        &b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\nA: b\r\n\r\nGET /3"[..],
    );
    let mut head = RequestHead::default();
    let mut next = || {
        let parse = parse_request(&mut buf, &mut head, &Limits::default());
        (parse, text(head.target()), head.fields().len())
    };
    assert_eq!(next(), (Ok(Parse::Complete), "/1".to_owned(), 1));
    assert_eq!(next(), (Ok(Parse::Complete), "/2".to_owned(), 2));
    assert_eq!(next().0, Ok(Parse::Partial));
}
