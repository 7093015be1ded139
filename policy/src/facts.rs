//! What is known of a request or a connection when it is decided about.

use std::borrow::Cow;

/// A request's head.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub method: &'a str,
    /// Path and query as they came; of `OPTIONS *` and CONNECT what stands in their place.
    pub target: &'a [u8],
    pub fields: &'a dyn Fields,
    /// It is a call of gRPC.
    pub grpc: bool,
}

/// The fields of a head.
pub trait Fields {
    /// The value of a field by its lower-case name; of one that comes several times, all of its values, joined by commas
    /// (RFC 9110 §5.3).
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// By name and value, in order: for tests and for people who ask.
impl Fields for Vec<(String, String)> {
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let values =
            self.iter().filter(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes());
        joined(values)
    }
}

/// The values of one field as one.
pub fn joined<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Cow<'a, [u8]>> {
    let first = values.next()?;
    let mut all = Cow::Borrowed(first);
    for value in values {
        let all = all.to_mut();
        all.push(b',');
        all.extend_from_slice(value);
    }
    Some(all)
}
