//! Any bytes, as request, response and body: no panic, progress, and the same result however they are cut.
//! Not here: what the right result is (`proxy/h1/tests`).
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proxy_h1::{
    BodyLength, Decoded, Decoder, Field, Limits, Parse, Refusal, RequestHead, ResponseHead, parse_request,
    parse_response,
};

/// Small, so that inputs of a few hundred bytes reach them.
const LIMITS: Limits = Limits { head_bytes: 400, fields: 8, target_bytes: 100, extension_bytes: 16 };

// The first two bytes say how the rest is cut: pieces of so many bytes, in turn.
fuzz_target!(|input: &[u8]| {
    let [first, second, input @ ..] = input else { return };
    let cuts = [usize::from(*first) + 1, usize::from(*second % 8) + 1];
    let whole = [usize::MAX, usize::MAX];
    assert_eq!(requests(input, cuts), requests(input, whole));
    for method in ["GET", "HEAD", "CONNECT"] {
        assert_eq!(responses(input, cuts, method), responses(input, whole, method));
    }
    for length in [BodyLength::Chunked, BodyLength::Fixed(20), BodyLength::UntilClose, BodyLength::None] {
        let read = |cuts| Reader::new(input, cuts).body(length);
        assert_eq!(read(cuts), read(whole));
    }
});

/// All requests of a connection, with their bodies.
fn requests(input: &[u8], cuts: [usize; 2]) -> Vec<String> {
    let (mut reader, mut head, mut seen) = (Reader::new(input, cuts), RequestHead::default(), Vec::new());
    loop {
        let parse = reader.head(|buf| parse_request(buf, &mut head, &LIMITS));
        seen.push(format!("{parse:?} {} {:?} {:?}", head.method(), head.target(), head.authority()));
        seen.push(fields(head.fields().end_to_end()));
        let Ok(Parse::Complete) = parse else { return seen };
        let body = head.body();
        seen.push(format!("{body:?} {} {} {:?}", head.keep_alive(), head.expects_continue(), head.upgrade()));
        let Ok(body) = body else { return seen };
        let (over, what) = reader.body(body);
        seen.push(what);
        if !over {
            return seen;
        }
    }
}

/// All responses of a connection to requests of one method, with their bodies.
fn responses(input: &[u8], cuts: [usize; 2], method: &str) -> Vec<String> {
    let (mut reader, mut head, mut seen) = (Reader::new(input, cuts), ResponseHead::default(), Vec::new());
    loop {
        let parse = reader.head(|buf| parse_response(buf, &mut head, &LIMITS));
        let Ok(Parse::Complete) = parse else {
            seen.push(format!("{parse:?}"));
            return seen;
        };
        assert!((100..=999).contains(&head.status()));
        seen.push(format!("{} {:?} {}", head.status(), head.reason(), fields(head.end_to_end(method))));
        let body = head.body(method);
        seen.push(format!("{body:?} {:?} {:?}", head.upgrade(), body.map(|body| head.keep_alive(body))));
        let Ok(body) = body else { return seen };
        let (over, what) = reader.body(body);
        seen.push(what);
        if !over {
            return seen;
        }
    }
}

/// A connection that brings its bytes in pieces.
struct Reader<'a> {
    input: &'a [u8],
    cuts: std::iter::Cycle<std::array::IntoIter<usize, 2>>,
    buf: BytesMut,
}

impl<'a> Reader<'a> {
    fn new(input: &'a [u8], cuts: [usize; 2]) -> Self {
        Reader { input, cuts: cuts.into_iter().cycle(), buf: BytesMut::new() }
    }

    /// Is there more?
    fn read(&mut self) -> bool {
        let cut = self.cuts.next().unwrap_or(1).min(self.input.len());
        let (piece, rest) = self.input.split_at(cut);
        self.input = rest;
        self.buf.extend_from_slice(piece);
        !piece.is_empty()
    }

    fn head(
        &mut self,
        mut parse: impl FnMut(&mut BytesMut) -> Result<Parse, Refusal>,
    ) -> Result<Parse, Refusal> {
        loop {
            let before = self.buf.len();
            let parsed = parse(&mut self.buf);
            match parsed {
                Ok(Parse::Complete) => assert!(self.buf.len() < before, "a head has bytes"),
                Ok(Parse::Partial) => {
                    assert!(self.buf.len() <= LIMITS.head_bytes, "what is unfinished is bounded")
                }
                Err(_) => {}
            }
            if parsed != Ok(Parse::Partial) || !self.read() {
                return parsed;
            }
        }
    }

    /// Did it end, and what was it?
    fn body(&mut self, length: BodyLength) -> (bool, String) {
        let (mut decoder, mut data) = (Decoder::with_limits(length, LIMITS), Vec::new());
        loop {
            match decoder.decode(&mut self.buf) {
                Ok(Decoded::Data(bytes)) => {
                    assert!(!bytes.is_empty(), "data is never empty");
                    data.extend_from_slice(&bytes);
                }
                Ok(Decoded::End) => {
                    assert!(decoder.is_end() && decoder.eof().is_ok());
                    return (true, format!("{data:?} {}", fields(decoder.trailers().end_to_end())));
                }
                Ok(Decoded::NeedMore) => {
                    assert!(!decoder.is_end());
                    if !self.read() {
                        return (false, format!("{data:?} {:?}", decoder.eof()));
                    }
                }
                Err(refusal) => return (false, format!("{data:?} {refusal:?}")),
            }
        }
    }
}

/// What may be written again: one line each, with nothing in it that could end the line or the head.
fn fields<'a>(fields: impl Iterator<Item = Field<'a>>) -> String {
    let mut seen = String::new();
    for field in fields {
        assert!(!field.name.is_empty() && !field.name.iter().any(|&b| b <= b' ' || b == b':' || b >= 0x7f));
        assert!(!field.value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f));
        assert_eq!(field.value_bytes(), field.value);
        seen += &format!("{:?}: {:?}, ", field.name, field.value);
    }
    seen
}
