//! A handshake message of any content, in records of any size: the records change nothing, each prefix is undecided
//! or already right, and a hello that is read obeys its rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_detect::{MAX_HELLO_RECORDS, Verdict, client};

fn in_records(handshake: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let length = u16::try_from(fragment.len()).expect("at most 2^14");
        [&[0x16, 3, 1][..], &length.to_be_bytes(), fragment].concat()
    };
    handshake.chunks(size).flat_map(record).collect()
}

fuzz_target!(|input: (u16, u16, &[u8])| {
    let (size, cut, body) = input;
    let length = u32::try_from(body.len()).expect("a fuzzer's input is small").to_be_bytes();
    let handshake = [&[1, length[1], length[2], length[3]], body].concat();
    let whole = in_records(&handshake, 1 << 14);
    let verdict = client(&whole);
    let size = usize::from(size).clamp(handshake.len() / MAX_HELLO_RECORDS + 1, 1 << 14);
    assert_eq!(client(&in_records(&handshake, size)), verdict, "in records of {size}");

    let cut = usize::from(cut) % whole.len();
    let early = client(&whole[..cut]);
    assert!(early == Verdict::NeedMore || early == verdict, "{early:?} became {verdict:?} after {cut} bytes");

    if let Verdict::Tls(hello) = verdict {
        assert!(hello.alpn().all(|protocol| !protocol.is_empty() && hello.offers(protocol)));
        let name = hello.server_name().unwrap_or("x");
        assert!(!name.is_empty() && name.len() <= 255);
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
    }
});
