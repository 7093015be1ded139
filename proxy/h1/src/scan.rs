//! The byte-level questions: where does a line end, is this a token, does it hold a control character.
//! Not here: what a line means.

use std::ops::Range;

/// Where an incremental reader stands in a buffer that only grows: each byte is searched for its LF once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// Start of the line that is being read.
    line: usize,
    /// No LF lies between `line` and here.
    searched: usize,
}

/// One line: its bytes without the terminator, and where the next one starts.
pub(crate) struct Line {
    pub(crate) text: Range<usize>,
    pub(crate) next: usize,
    /// Ended by CRLF, not by a lone LF.
    pub(crate) crlf: bool,
}

impl Cursor {
    /// The line under the cursor once it is whole; the cursor stays on it.
    #[inline]
    pub(crate) fn line(&mut self, buf: &[u8]) -> Option<Line> {
        let Some(at) = memchr::memchr(b'\n', buf.get(self.searched..)?) else {
            self.searched = buf.len();
            return None;
        };
        let lf = self.searched + at;
        self.searched = lf;
        let crlf = lf > self.line && buf[lf - 1] == b'\r';
        Some(Line { text: self.line..lf - usize::from(crlf), next: lf + 1, crlf })
    }

    /// Goes on to the next line.
    #[inline]
    pub(crate) fn advance(&mut self, line: &Line) {
        *self = Cursor { line: line.next, searched: line.next };
    }
}

/// Is `b` a tchar (RFC 9110 §5.6.2)?
#[inline]
pub(crate) const fn is_tchar(b: u8) -> bool {
    TCHAR[b as usize]
}

const TCHAR: [bool; 256] = bytes_of(b"!#$%&'*+-.^_`|~", false);

/// A table of the letters, the digits and `marks`, and of all over 0x7f if `high`.
pub(crate) const fn bytes_of(marks: &[u8], high: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut b = 0;
    while b < table.len() {
        table[b] = (b as u8).is_ascii_alphanumeric() || (high && b >= 0x80);
        b += 1;
    }
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
}

/// Optional whitespace (RFC 9110 §5.6.3).
#[inline]
pub(crate) const fn is_ows(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// `range` of `buf` without the OWS at both ends. When nothing is left, an empty range at the end.
#[inline]
pub(crate) fn trim(buf: &[u8], range: Range<usize>) -> Range<usize> {
    let Range { mut start, mut end } = range;
    while start < end && is_ows(buf[start]) {
        start += 1;
    }
    while end > start && is_ows(buf[end - 1]) {
        end -= 1;
    }
    start..end
}

/// Does `text` hold a control character other than HTAB (RFC 9110 §5.5: field-vchar, SP, HTAB are what may stand)?
#[inline]
pub(crate) fn has_control(text: &[u8]) -> bool {
    const EIGHT: usize = size_of::<u64>();
    let word = |at: usize| {
        let bytes: [u8; EIGHT] = text[at..at + EIGHT].try_into().expect("eight bytes were sliced");
        suspicious(u64::from_le_bytes(bytes))
    };
    let found = if text.len() < EIGHT {
        return text.iter().any(|&b| is_control(b));
    } else {
        let last = text.len() - EIGHT;
        (0..last).step_by(EIGHT).any(word) || word(last)
    };
    found && text.iter().any(|&b| is_control(b))
}

#[inline]
const fn is_control(b: u8) -> bool {
    (b < 0x20 && b != b'\t') || b == 0x7f
}

/// Is one of the eight bytes below 0x20 or equal to 0x7f? (HTAB is told apart by the caller, it is rare.)
#[inline]
const fn suspicious(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    let low = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    let without_del = word ^ (ONES * 0x7f);
    let del = without_del.wrapping_sub(ONES) & !without_del & HIGH;
    low | del != 0
}

/// The members of a comma-separated list, without OWS and empty ones (RFC 9110 §5.6.1). Not for lists with quoted strings.
pub(crate) fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_at_each_place_is_judged_as_alone() {
        for b in 0..=255u8 {
            for len in 1..20 {
                for at in 0..len {
                    let mut text = vec![b'a'; len];
                    text[at] = b;
                    assert_eq!(has_control(&text), is_control(b), "{b:#x} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn a_tab_does_not_hide_what_follows() {
        assert!(has_control(b"aaaaaa\taaaaaaaaaaaa\0aaaaaaaa"));
        assert!(!has_control(b"aaaaaa\taaaa\xff\xe4aaaaaaaaaaa"));
    }
}
