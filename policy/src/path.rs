//! The normal form of a path, in which it is held against matches, so that one resource has one name.

use std::borrow::Cow;

/// A target's path and its query, if it has one; without the `?`.
pub fn split(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// RFC 3986 §6.2.2: percent-encoded unreserved characters are decoded, hexadecimal digits are capitals, and dot segments are
/// removed. Besides, slashes that follow each other are one. Other encoded characters stay, `%2F` among them. Nothing is sent on
/// in this form but what follows a prefix that is replaced: it is for comparing.
pub fn normal(path: &[u8]) -> Cow<'_, [u8]> {
    if is_normal(path) {
        return Cow::Borrowed(path);
    }
    Cow::Owned(without_dots(&decoded(path)))
}

/// In one look: nothing that could have to change.
fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|byte| {
        let plain = *byte != b'%' && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = *byte;
        plain
    })
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let digits = |at: usize| after.get(at).copied().and_then(digit);
        let (Some(high), Some(low)) = (digits(0), digits(1)) else {
            // Left as it is, it could begin another one with what follows.
            decoded.extend_from_slice(b"%25");
            continue;
        };
        match high << 4 | low {
            plain @ (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                decoded.push(plain)
            }
            other => decoded.extend_from_slice(format!("%{other:02X}").as_bytes()),
        }
        rest = &after[2..];
    }
    decoded
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// RFC 3986 §5.2.4, of a path that begins with a slash; another one (`*`, an authority) stays.
fn without_dots(path: &[u8]) -> Vec<u8> {
    if !path.starts_with(b"/") {
        return path.to_vec();
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut folder = false;
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        folder = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for segment in &kept {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if folder || kept.is_empty() {
        normal.push(b'/');
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_resource_has_one_name() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("/", "/"),
            ("*", "*"),
            ("/a//b", "/a/b"),
            ("//", "/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../..", "/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61%2fb", "/a%2Fb"),
            ("/a/%2E%2e/b", "/b"),
            ("/%zz%4", "/%25zz%254"),
            ("/%%32e", "/%252e"),
            ("/.a/..b", "/.a/..b"),
            ("/a/", "/a/"),
        ] {
            assert_eq!(String::from_utf8_lossy(&normal(path.as_bytes())), expected, "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn the_normal_form_of_a_normal_form_is_itself(path in "/?([./%a2eEfFzZ-]|%2[eEfF]|%25|é){0,24}") {
            let once = normal(path.as_bytes()).into_owned();
            let twice = normal(&once).into_owned();
            prop_assert_eq!(String::from_utf8_lossy(&twice), String::from_utf8_lossy(&once));
        }
    }
}
