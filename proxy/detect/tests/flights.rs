//! First flights of real clients, each cut at every byte: a prefix says `NeedMore` or already the final verdict.
//!
//! `data/*.hex` are captures, a verdict in their second line; the tables here are what can be read as text.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use proxy_detect::{ClientHello, MAX_PEEK, Verdict, client};

/// Checks every prefix and returns the length of the first that decides.
fn check(name: &str, bytes: &[u8], want: &str) -> usize {
    let mut decided_at = None;
    for cut in 0..=bytes.len() {
        let verdict = client(&bytes[..cut]);
        if verdict == Verdict::NeedMore {
            assert!(decided_at.is_none(), "{name}: undecided again at {cut}");
            continue;
        }
        assert_eq!(words(&verdict), want, "{name}: the first {cut} of {} bytes", bytes.len());
        decided_at.get_or_insert(cut);
    }
    decided_at.unwrap_or_else(|| panic!("{name}: no verdict after {} bytes", bytes.len()))
}

/// A verdict as the captures write it.
fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::NeedMore => "need more".into(),
        Verdict::Http1 => "http1".into(),
        Verdict::Http2 => "http2".into(),
        Verdict::Opaque => "opaque".into(),
        Verdict::Tls(hello) => {
            let alpn: Vec<_> = hello.alpn().map(String::from_utf8_lossy).collect();
            format!("tls server_name={} alpn={}", hello.server_name().unwrap_or(""), alpn.join(","))
        }
    }
}

/// A capture: its bytes and the verdict it asks for.
fn capture(path: &Path) -> (Vec<u8>, String) {
    let text = fs::read_to_string(path).unwrap();
    let (comments, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    let verdict = comments.iter().find_map(|line| line.strip_prefix("# verdict: ")).unwrap();
    let digits = lines.concat();
    let bytes =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    (bytes, verdict.to_owned())
}

fn data(name: &str) -> Vec<u8> {
    capture(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).0
}

fn hello(bytes: &[u8]) -> ClientHello {
    match client(bytes) {
        Verdict::Tls(hello) => hello,
        other => panic!("not TLS but {other:?}"),
    }
}

#[test]
fn captures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (bytes, want) = capture(&path);
        check(&path.display().to_string(), &bytes, &want);
        count += 1;
    }
    assert!(count >= 25, "only {count} captures were found");
}

/// The first flight, its verdict, and how many bytes it takes.
#[rustfmt::skip]
const TEXT: &[(&[u8], &str, usize)] = &[
    // HTTP/1: decided with the version, whatever the method.
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "http1", 13),
    (b"GET / HTTP/1.0\r\n\r\n", "http1", 13),
    (b"\r\nPOST /a HTTP/1.1\r\n\r\n", "http1", 17),
    (b"\r\n\r\nPURGE /a HTTP/1.1\r\n\r\n", "http1", 20),
    (b"PURGE /a HTTP/1.1\r\n", "http1", 16),
    (b"get /lower-case HTTP/1.1\r\n", "http1", 23),
    (b"UPDATEREDIRECTREF /a HTTP/1.1\r\n", "http1", 28),
    (b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n", "http1", 18),
    (b"PRI * HTTP/1.1\r\n", "http1", 13),
    // The engine is to refuse these; as opaque bytes they would slip past the routes.
    (b"GET  /two  HTTP/1.1\r\n", "http1", 18),
    (b"GET /a b HTTP/1.1\r\n", "http1", 16),
    (b"GET /\xc3\xbc HTTP/1.1\r\n", "http1", 15),
    // HTTP/2.
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2", 24),
    (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "opaque", 19),
    // HTTP/0.9 has no version; who still speaks it is not ours to answer.
    (b"GET /\r\n", "opaque", 7),
    // Words that others share with HTTP.
    (b"OPTIONS rtsp://camera/1 RTSP/1.0\r\n", "opaque", 34),
    (b"OPTIONS sip:carol@example.org SIP/2.0\r\n", "opaque", 39),
    (b"CONNECT {\"verbose\":false}\r\n", "opaque", 27),
    (b"GET counter\r\n", "opaque", 13),
    (b"DELETE /x\n", "opaque", 10),
    // Lines of other protocols.
    (b"PING\r\n", "opaque", 5),
    (b"SSH-2.0-Go\r\n", "opaque", 11),
    (b"EHLO client.example.org\r\n", "opaque", 24),
    (b"ehlo client.example.org\r\n", "opaque", 24),
    (b"MAIL FROM:<a@b> SIZE=3\r\n", "opaque", 17),
    (b"set key 0 900 5\r\n", "opaque", 9),
    (b"gets key\r\n", "opaque", 9),
    (b"stats\r\n", "opaque", 6),
    (b"a1 LOGIN user word\r\n", "opaque", 10),
    (b"USER anonymous\r\n", "opaque", 15),
    (b"HTTP/1.1 200 OK\r\n", "opaque", 5),
    (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "opaque", 12),
    (b"{\"jsonrpc\":\"2.0\"}\n", "opaque", 1),
    (b"<?xml version='1.0'?><stream:stream", "opaque", 1),
    (b"\rGET / HTTP/1.1\r\n", "opaque", 2),
    (b"\nGET / HTTP/1.1\r\n", "opaque", 1),
    (b" GET / HTTP/1.1\r\n", "opaque", 1),
    (b"GET\t/ HTTP/1.1\r\n", "opaque", 4),
    (b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n", "opaque", 10),
    (b"A-METHOD-OF-THIRTY-THREE-BYTES-AA / HTTP/1.1\r\n", "opaque", 33),
    (b"PURGE  /a HTTP/1.1\r\n", "opaque", 7),
    (b"PURGE /a HTTP/2.0\r\n", "opaque", 15),
    // TLS that is none.
    (b"\x16\x03\x00\x00\x05\x01\x00\x00\x01\x00", "opaque", 3),
    (b"\x16\x02\x01", "opaque", 2),
    (b"\x16\x03\x05", "opaque", 3),
    (b"\x16\x03\x01\x00\x00", "opaque", 5),
    (b"\x16\x03\x01\x40\x01", "opaque", 5),
    (b"\x16\x03\x01\x41", "opaque", 4),
    (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "opaque", 6),
    (b"\x16\x03\x01\x00\x05\x01\x01\x00\x00\x00", "opaque", 9),
    (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", "opaque", 10),
    (b"\x16\x03\x01\x00\x01\x01\x17", "opaque", 7),
    (b"\x17\x03\x03\x00\x01\x00", "opaque", 1),
];

#[test]
fn text() {
    for (bytes, want, at) in TEXT {
        let name = String::from_utf8_lossy(bytes);
        assert_eq!(check(&name, bytes, want), *at, "{name:?}: bytes it takes");
    }
}

#[test]
fn nothing_is_undecided() {
    assert_eq!(client(b""), Verdict::NeedMore);
}

#[test]
fn a_request_line_ends_somewhere() {
    let long = |start: &str| [start.as_bytes(), &vec![b'a'; 9000]].concat();
    assert_eq!(check("a long URI", &long("GET /"), "http1"), 8192);
    assert_eq!(check("an unknown method with a long target", &long("PURGE /"), "opaque"), 8192);
    let cut = [&long("PURGE /")[..8190], b" HTTP/1.1\r\n"].concat();
    assert_eq!(check("a version that begins too late", &cut, "opaque"), 8192);
}

#[test]
fn weft_is_seen_in_its_hello() {
    let ours = hello(&data("tls_rustls_weft.hex"));
    assert!(ours.offers(b"weft/1"));
    assert!(!ours.offers(b"weft/"));
    assert!(!hello(&data("tls_curl.hex")).offers(b"weft/1"));
}

/// The same handshake bytes, one record each `size` bytes.
fn in_records(handshake: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for fragment in handshake.chunks(size) {
        out.extend_from_slice(&[0x16, 3, 1]);
        out.extend_from_slice(&u16::try_from(fragment.len()).unwrap().to_be_bytes());
        out.extend_from_slice(fragment);
    }
    out
}

#[test]
fn records_may_cut_a_hello_anywhere() {
    for name in ["tls_openssl.hex", "tls_rustls_weft.hex"] {
        let bytes = data(name);
        let want = words(&client(&bytes));
        for size in (bytes.len() / 64 + 1)..bytes.len() {
            assert_eq!(words(&client(&in_records(&bytes[5..], size))), want, "{name} in records of {size}");
        }
        // The handshake header itself in pieces, then the rest.
        for first in 1..4 {
            let mut pieces = in_records(&bytes[5..5 + first], first);
            pieces.extend(in_records(&bytes[5 + first..], 1 << 14));
            check(name, &pieces, &want);
        }
    }
}

#[test]
fn more_than_64_records_are_no_hello() {
    let bytes = data("tls_openssl.hex");
    assert_eq!(client(&in_records(&bytes[5..], 1)), Verdict::Opaque);
}

/// A ClientHello with this body.
fn with_body(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [&[1, length[1], length[2], length[3]], body].concat();
    in_records(&handshake, 1 << 14)
}

/// What stands before the extensions; `after_random` is the session id, the cipher suites, the compression.
fn body(version: [u8; 2], after_random: &[u8]) -> Vec<u8> {
    [&version[..], &[7; 32], after_random].concat()
}

const AFTER_RANDOM: &[u8] = &[0, 0, 2, 0x13, 0x01, 1, 0];

/// A ClientHello with these extensions, in as few records as can be.
fn made(extensions: &[u8]) -> Vec<u8> {
    let length = u16::try_from(extensions.len()).unwrap().to_be_bytes();
    with_body(&[&body([3, 3], AFTER_RANDOM), &length[..], extensions].concat())
}

#[test]
fn a_hello_keeps_its_form() {
    let tls = "tls server_name= alpn=";
    let long_id = [&[33][..], &[1; 33], &AFTER_RANDOM[1..]].concat();
    let full_id = [&[32][..], &[1; 32], &AFTER_RANDOM[1..]].concat();
    check("no extensions", &with_body(&body([3, 1], AFTER_RANDOM)), tls);
    check("a session id of 32 bytes", &with_body(&body([3, 3], &full_id)), tls);
    check("a session id of 33 bytes", &with_body(&body([3, 3], &long_id)), "opaque");
    check("another version", &with_body(&body([2, 3], AFTER_RANDOM)), "opaque");
    check("no cipher suite", &with_body(&body([3, 3], &[0, 0, 0, 1, 0])), "opaque");
    check("half a cipher suite", &with_body(&body([3, 3], &[0, 0, 3, 1, 2, 3, 1, 0])), "opaque");
    check("no compression", &with_body(&body([3, 3], &[0, 0, 2, 0x13, 0x01, 0])), "opaque");
    check("half a random", &with_body(&body([3, 3], &[])[..20]), "opaque");
    check(
        "bytes after the extensions",
        &with_body(&body([3, 3], &[AFTER_RANDOM, &[0, 0, 9]].concat())),
        "opaque",
    );
}

/// One extension.
fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), content].concat()
}

#[test]
fn extensions_keep_their_form() {
    #[rustfmt::skip]
    let table: &[(&str, u16, &[u8], &str)] = &[
        ("upper case", 0, b"\x00\x06\x00\x00\x03A.b", "tls server_name=a.b alpn="),
        ("another type of name", 0, b"\x00\x04\x09\x00\x01x", "tls server_name= alpn="),
        ("an unknown extension", 0xfafa, b"\x01", "tls server_name= alpn="),
        ("two protocols", 16, b"\x00\x05\x02h2\x01x", "tls server_name= alpn=h2,x"),
        ("no name", 0, b"\x00\x00", "opaque"),
        ("an empty name", 0, b"\x00\x03\x00\x00\x00", "opaque"),
        ("two names", 0, b"\x00\x08\x00\x00\x01a\x00\x00\x01b", "opaque"),
        ("a name with a blank", 0, b"\x00\x06\x00\x00\x03a b", "opaque"),
        ("a name with a NUL", 0, b"\x00\x06\x00\x00\x03a\x00b", "opaque"),
        ("a name that is too long for its list", 0, b"\x00\x05\x00\x00\x03ab", "opaque"),
        ("bytes after the list", 0, b"\x00\x04\x00\x00\x01aX", "opaque"),
        ("no protocol", 16, b"\x00\x00", "opaque"),
        ("an empty protocol", 16, b"\x00\x04\x02h2\x00", "opaque"),
        ("bytes after the protocols", 16, b"\x00\x03\x02h2X", "opaque"),
    ];
    for (name, kind, content, want) in table {
        check(name, &made(&extension(*kind, content)), want);
    }
    let alpn = extension(16, b"\x00\x03\x02h2");
    check("two ALPN extensions", &made(&[&alpn[..], &alpn].concat()), "opaque");
    let name = extension(0, b"\x00\x04\x00\x00\x01a");
    check("two server names", &made(&[&name[..], &name].concat()), "opaque");
    let long =
        |length: u8| extension(0, &[&[0, length + 3, 0, 0, length][..], &vec![b'a'; length.into()]].concat());
    check("a name of 252 bytes", &made(&long(252)), &format!("tls server_name={} alpn=", "a".repeat(252)));
    let longer = [&[1, 3, 0, 1, 0][..], &[b'a'; 256]].concat();
    check("a name of 256 bytes", &made(&extension(0, &longer)), "opaque");
    check("half an extension", &made(&alpn[..3]), "opaque");
}

#[test]
fn a_hello_has_64_kib_at_most() {
    let padded = |length: usize| made(&extension(21, &vec![0; length]));
    let fits = padded(65_000);
    assert!(fits.len() <= MAX_PEEK);
    assert_eq!(words(&client(&fits)), "tls server_name= alpn=");
    assert_eq!(client(&fits[..fits.len() - 1]), Verdict::NeedMore);

    let beyond = padded(65_480);
    assert!(beyond.len() > MAX_PEEK);
    assert_eq!(client(&beyond[..MAX_PEEK - 1]), Verdict::NeedMore);
    assert_eq!(client(&beyond[..MAX_PEEK]), Verdict::Opaque);
    assert_eq!(client(&beyond), Verdict::Opaque);
}
