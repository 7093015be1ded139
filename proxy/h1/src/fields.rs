//! The field lines of a head or a trailer section: ranges into one frozen `Bytes`, order, case and duplicates kept.
//! Not here: which of them travel on (`hop`), and what they say about the body (`framing`).

use std::ops::Range;

use bytes::Bytes;

use crate::Refusal;
use crate::scan::members;

/// Field lines as they were received; none before the whole head or trailer section is there.
///
/// Cleared and filled again it reuses its storage.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Bytes,
    lines: Vec<Line>,
    seen: u16,
    options: Options,
    /// These are trailers: fields that frame or route never count here (RFC 9110 §6.5.1).
    trailers: bool,
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// In the sender's case.
    pub name: &'a [u8],
    /// Without the whitespace around it; may be empty; holds no control character but HTAB.
    pub value: &'a [u8],
    bytes: &'a Bytes,
}

impl Field<'_> {
    /// The value as a slice of the head: no copy, but it keeps the whole head alive.
    pub fn value_bytes(&self) -> Bytes {
        if self.value.is_empty() { Bytes::new() } else { self.bytes.slice_ref(self.value) }
    }
}

impl Fields {
    /// All lines in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { fields: self, lines: self.lines() }
    }

    /// The value of the first line with this name, whatever its case.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines().len()
    }

    /// Is there no line at all?
    pub fn is_empty(&self) -> bool {
        self.lines().len() == 0
    }

    /// Forgets the lines and lets go of their bytes; the storage stays.
    pub fn clear(&mut self) {
        let trailers = self.trailers;
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        *self = Fields { lines, trailers, ..Fields::default() };
    }

    /// To be filled with a trailer section.
    pub(crate) fn of_trailers() -> Self {
        Fields { trailers: true, ..Fields::default() }
    }

    pub(crate) fn are_trailers(&self) -> bool {
        self.trailers
    }

    /// The frozen head.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Adds a line, when there are not yet so many.
    pub(crate) fn push(&mut self, line: Line, limit: usize) -> Result<(), Refusal> {
        if self.lines.len() >= limit {
            return Err(Refusal::TooManyFields);
        }
        self.seen |= line.kind.bit();
        self.lines.push(line);
        Ok(())
    }

    /// The line read last, which a folded one continues.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Line> {
        self.lines.last_mut()
    }

    /// All lines are there; these are the bytes that they are ranges of.
    pub(crate) fn freeze(&mut self, bytes: Bytes) {
        self.bytes = bytes;
        if self.has(Kind::Connection) {
            let mut options = Options::default();
            self.of(Kind::Connection)
                .flat_map(|field| members(field.value))
                .for_each(|option| options.add(option));
            self.options = options;
        }
    }

    /// Is there a line of this kind?
    #[inline]
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.seen & kind.bit() != 0
    }

    /// The lines of one kind, in order.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = Field<'_>> {
        let lines = if self.has(kind) { self.lines() } else { Default::default() };
        lines.filter(move |line| line.kind == kind).map(|line| self.field(line))
    }

    /// What Connection says (RFC 9110 §7.6.1).
    pub(crate) fn options(&self) -> Options {
        self.options
    }

    /// The lines once they are frozen (never without bytes, an empty section has its CRLF); before, they are ranges of nothing.
    pub(crate) fn lines(&self) -> std::slice::Iter<'_, Line> {
        if self.bytes.is_empty() { Default::default() } else { self.lines.iter() }
    }

    #[inline]
    pub(crate) fn field(&self, line: &Line) -> Field<'_> {
        let at = |range: &Range<u32>| &self.bytes[range.start as usize..range.end as usize];
        Field { name: at(&line.name), value: at(&line.value), bytes: &self.bytes }
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = Field<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The lines of [`Fields`] in order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    fields: &'a Fields,
    lines: std::slice::Iter<'a, Line>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        self.lines.next().map(|line| self.fields.field(line))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lines.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// One line, as ranges into the head.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) name: Range<u32>,
    pub(crate) value: Range<u32>,
}

/// The fields that this crate has to know, recognised once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Other,
    Connection,
    ContentLength,
    Expect,
    Host,
    KeepAlive,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
    /// `weft-*`: ours, between proxies only (never from or to an application).
    Weft,
}

impl Kind {
    const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The kind of a field name, whatever its case.
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Kind {
        let Some(first) = name.first() else { return Kind::Other };
        // Length and first letter tell almost every name from those that we know.
        let (known, kind): (&[u8], Kind) = match (first | 0x20, name.len()) {
            (b't', 2) => (b"te", Kind::Te),
            (b'h', 4) => (b"host", Kind::Host),
            (b'e', 6) => (b"expect", Kind::Expect),
            (b'u', 7) => (b"upgrade", Kind::Upgrade),
            (b'k', 10) => (b"keep-alive", Kind::KeepAlive),
            (b'c', 10) => (b"connection", Kind::Connection),
            (b'c', 14) => (b"content-length", Kind::ContentLength),
            (b'p', 16) => (b"proxy-connection", Kind::ProxyConnection),
            (b't', 17) => (b"transfer-encoding", Kind::TransferEncoding),
            (b'w', 5..) => (b"weft-", Kind::Weft),
            _ => return Kind::Other,
        };
        if known.eq_ignore_ascii_case(&name[..known.len()]) { kind } else { Kind::Other }
    }
}

/// The connection options of a message (RFC 9110 §7.6.1).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// It names a field which we do not drop or keep anyway.
    pub(crate) nominates: bool,
}

impl Options {
    fn add(&mut self, option: &[u8]) {
        match Kind::of(option) {
            Kind::KeepAlive => self.keep_alive = true,
            Kind::Upgrade => self.upgrade = true,
            Kind::Other if option.eq_ignore_ascii_case(b"close") => self.close = true,
            Kind::Other | Kind::Expect => self.nominates = true,
            _ => {}
        }
    }
}
