//! The rules of RFC 9112 §2–7 and §9, one block of `tests/data/*.txt` each, under every way to cut the input.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use proxy_h1::{
    BodyLength, Decoded, Decoder, Field, Limits, Parse, Refusal, RequestHead, ResponseHead, parse_request,
    parse_response,
};

#[test]
fn requests() {
    let sections = check(include_str!("data/requests.txt"), request);
    require(
        &sections,
        "§2.1 §2.2 §2.3 §3 §3.1 §3.2 §3.2.1 §3.2.2 §3.2.3 §3.2.4 §5 §5.1 §5.2 §6.1 §6.2 §6.3 §7 §7.4 §9.3",
    );
}

#[test]
fn responses() {
    let sections = check(include_str!("data/responses.txt"), response);
    require(&sections, "§2.1 §2.2 §2.3 §4 §5 §5.1 §5.2 §6.1 §6.2 §6.3 §9.3");
}

#[test]
fn bodies() {
    let sections = check(include_str!("data/chunked.txt"), body);
    require(&sections, "§6.2 §6.3 §7.1 §7.1.1 §7.1.2");
}

/// What came of an input: the words that stand after `>`.
type Outcome = BTreeMap<&'static str, String>;

struct Block {
    title: String,
    option: Option<String>,
    input: Vec<u8>,
    expected: Vec<(String, String)>,
}

/// The input as it arrives.
type Pieces<'a> = &'a [&'a [u8]];

fn request(pieces: Pieces<'_>, _option: Option<&str>) -> Outcome {
    let (mut buf, mut head) = (BytesMut::new(), RequestHead::default());
    let refused = |refusal: Refusal| Outcome::from([("refuse", format!("{} {refusal:?}", refusal.status()))]);
    match drive(pieces, &mut buf, |buf| parse_request(buf, &mut head, &Limits::default())) {
        Err(refusal) => return refused(refusal),
        Ok(Parse::Partial) => return Outcome::from([("partial", String::new())]),
        Ok(Parse::Complete) => {}
    }
    let body = match head.body() {
        Err(refusal) => return refused(refusal),
        Ok(body) => body,
    };
    assert_eq!(head.target_bytes(), head.target());
    Outcome::from([
        ("method", head.method().to_owned()),
        ("target", show(head.target())),
        ("form", format!("{:?}", head.target_form())),
        ("authority", show(head.authority())),
        ("version", format!("{:?}", head.version())),
        ("body", format!("{body:?}")),
        ("keep-alive", head.keep_alive().to_string()),
        ("upgrade", show(head.upgrade().unwrap_or_default())),
        ("continue", head.expects_continue().to_string()),
        ("te-trailers", head.fields().accepts_trailers().to_string()),
        ("fields", list(head.fields().iter())),
        ("forward", list(head.fields().end_to_end())),
        ("left", show(&buf)),
    ])
}

fn response(pieces: Pieces<'_>, option: Option<&str>) -> Outcome {
    let method = option.unwrap_or("GET");
    let (mut buf, mut head) = (BytesMut::new(), ResponseHead::default());
    let refused = |refusal: Refusal| Outcome::from([("refuse", format!("{refusal:?}"))]);
    match drive(pieces, &mut buf, |buf| parse_response(buf, &mut head, &Limits::default())) {
        Err(refusal) => return refused(refusal),
        Ok(Parse::Partial) => return Outcome::from([("partial", String::new())]),
        Ok(Parse::Complete) => {}
    }
    let body = match head.body(method) {
        Err(refusal) => return refused(refusal),
        Ok(body) => body,
    };
    Outcome::from([
        ("status", head.status().to_string()),
        ("reason", show(head.reason())),
        ("version", format!("{:?}", head.version())),
        ("body", format!("{body:?}")),
        ("keep-alive", head.keep_alive(body).to_string()),
        ("upgrade", show(head.upgrade().unwrap_or_default())),
        ("fields", list(head.fields().iter())),
        ("forward", list(head.end_to_end(method))),
        ("left", show(&buf)),
    ])
}

/// Gives the parser one piece after the other, until it is content or there are no more; the rest of them is appended.
fn drive(
    pieces: Pieces<'_>,
    buf: &mut BytesMut,
    mut parse: impl FnMut(&mut BytesMut) -> Result<Parse, Refusal>,
) -> Result<Parse, Refusal> {
    let mut last = Ok(Parse::Partial);
    for piece in pieces {
        buf.extend_from_slice(piece);
        if last == Ok(Parse::Partial) {
            last = parse(buf);
        }
    }
    last
}

fn body(pieces: Pieces<'_>, option: Option<&str>) -> Outcome {
    let length = match option.map(|option| option.split_once(' ').unwrap_or((option, ""))) {
        None => BodyLength::Chunked,
        Some(("Fixed", length)) => BodyLength::Fixed(length.parse().expect("a length")),
        Some(("UntilClose", _)) => BodyLength::UntilClose,
        Some(("None", _)) => BodyLength::None,
        Some(other) => panic!("{other:?} is no length"),
    };
    let (mut buf, mut decoder, mut data) = (BytesMut::new(), Decoder::new(length), Vec::new());
    let mut outcome = Outcome::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        while !outcome.contains_key("refuse") {
            match decoder.decode(&mut buf) {
                Ok(Decoded::Data(bytes)) => {
                    assert!(!bytes.is_empty(), "data is never empty");
                    data.extend_from_slice(&bytes);
                }
                Ok(Decoded::NeedMore | Decoded::End) => break,
                Err(refusal) => {
                    outcome.insert("refuse", format!("{} {refusal:?}", refusal.status()));
                }
            }
        }
    }
    outcome.insert("data", show(&data));
    if !outcome.contains_key("refuse") {
        outcome.insert("end", decoder.is_end().to_string());
        outcome.insert("trailers", list(decoder.trailers().iter()));
        outcome.insert("forward", list(decoder.trailers().end_to_end()));
        outcome.insert("left", show(&buf));
        outcome.insert("eof", if decoder.eof().is_ok() { "whole" } else { "truncated" }.to_owned());
    }
    outcome
}

/// Runs every block of a file and returns the sections that it covers.
fn check(file: &str, run: impl Fn(Pieces<'_>, Option<&str>) -> Outcome) -> BTreeSet<String> {
    let mut wrong = Vec::new();
    let blocks = blocks(file);
    for block in &blocks {
        let option = block.option.as_deref();
        let input = &block.input[..];
        let whole = run(&[input], option);
        for (key, value) in &block.expected {
            let seen = whole.get(key.as_str());
            if seen.map(|seen| seen.trim_end()) != Some(value.trim_end()) {
                wrong.push(format!("{}: {key} should be {value:?}: {:?}", block.title, short(&whole)));
            }
        }
        // A long input is cut at a few places only; byte by byte it also shows that reading is linear.
        let step = input.len() / 400 + 1;
        for at in (1..input.len()).step_by(step) {
            let (front, back) = input.split_at(at);
            if run(&[front, back], option) != whole {
                wrong.push(format!("{}: cut at {at} it differs", block.title));
            }
        }
        let bytes = run(&input.chunks(1).collect::<Vec<_>>(), option);
        if bytes != whole {
            wrong.push(format!(
                "{}: byte by byte it differs: {:?}, {:?}",
                block.title,
                short(&bytes),
                short(&whole)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    blocks.iter().map(|block| block.title.split(':').next().unwrap_or_default().to_owned()).collect()
}

fn require(sections: &BTreeSet<String>, wanted: &str) {
    for section in wanted.split(' ') {
        assert!(sections.contains(section), "no rule of {section} is in the table");
    }
}

fn blocks(file: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('§') {
            blocks.push(Block {
                title: line.to_owned(),
                option: None,
                input: Vec::new(),
                expected: Vec::new(),
            });
            continue;
        }
        let block = blocks.last_mut().expect("a block starts with its title");
        match line.split_at(2) {
            ("< ", input) => block.input = unescape(input),
            ("? ", option) => block.option = Some(option.to_owned()),
            ("> ", expected) => {
                let (key, value) = expected.split_once(' ').unwrap_or((expected, ""));
                block.expected.push((key.to_owned(), value.to_owned()));
            }
            _ => panic!("not understood: {line}"),
        }
    }
    for block in &blocks {
        assert!(!block.expected.is_empty() && !block.input.is_empty(), "{}: nothing is tested", block.title);
    }
    blocks
}

/// `\r \n \t \0 \xNN` and `{text*times}`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '{' {
            let (inner, after) = rest[1..].split_once('}').expect("{ is closed");
            let (what, times) = inner.rsplit_once('*').expect("{text*times}");
            out.extend(unescape(what).repeat(times.parse().expect("a number of times")));
            rest = after;
        } else if first == '\\' {
            let (escape, after) = rest.split_at(if rest[1..].starts_with('x') { 4 } else { 2 });
            out.push(match &escape[1..] {
                "r" => b'\r',
                "n" => b'\n',
                "t" => b'\t',
                "0" => 0,
                hex => u8::from_str_radix(&hex[1..], 16).expect("\\xNN"),
            });
            rest = after;
        } else {
            out.extend(first.to_string().bytes());
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn list<'a>(fields: impl Iterator<Item = Field<'a>>) -> String {
    let show = |field: Field<'a>| {
        assert_eq!(field.value_bytes(), Bytes::copy_from_slice(field.value));
        format!("{}: {}", show(field.name), show(field.value))
    };
    fields.map(show).collect::<Vec<_>>().join(" | ")
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn short(outcome: &Outcome) -> BTreeMap<&str, &str> {
    outcome.iter().map(|(&key, value)| (key, &value[..value.len().min(100)])).collect()
}
