//! The proof, as a type, that a peer holds what it claims.

use std::{fmt, ops::Deref};

/// A value that a TLS handshake has proven: the peer showed a certificate for it of a trusted root, valid now, and
/// holds its key. Nobody but this crate can make one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }

    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Display> fmt::Display for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
