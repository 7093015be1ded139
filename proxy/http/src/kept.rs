//! The beginning of a request's body, or of a TCP client's bytes, kept for as long as it may have to be sent once more.

use bytes::Bytes;
use http::HeaderMap;
use policy::limits::REPLAY_BYTES;
use std::cell::RefCell;

/// Holds what has been sent of a body, up to `REPLAY_BYTES`; nothing of it is copied.
#[derive(Default)]
pub struct Kept(RefCell<Inside>);

#[derive(Default)]
struct Inside {
    chunks: Vec<Bytes>,
    /// Chunks that this attempt has given already.
    given: usize,
    bytes: usize,
    trailers: Option<HeaderMap>,
    /// Something has gone that is not held.
    over: bool,
}

impl Kept {
    /// Nothing is kept, of a body that has not begun.
    pub(crate) fn clear(&mut self) {
        self.0 = RefCell::default();
    }

    /// Keeps a piece, or gives up when that is too much.
    pub(crate) fn keep(&self, data: &Bytes) {
        let mut inside = self.0.borrow_mut();
        if inside.over {
            return;
        }
        inside.bytes += data.len();
        if inside.bytes > REPLAY_BYTES {
            return inside.forget();
        }
        inside.chunks.push(data.clone());
        inside.given = inside.chunks.len();
    }

    pub(crate) fn keep_trailers(&self, trailers: &HeaderMap) {
        let mut inside = self.0.borrow_mut();
        if !inside.over && inside.trailers.is_none() {
            inside.trailers = Some(trailers.clone());
        }
    }

    /// The request will not be sent once more.
    pub(crate) fn forget(&self) {
        self.0.borrow_mut().forget();
    }

    /// Can the body be sent once more, from its beginning?
    pub fn is_whole(&self) -> bool {
        !self.0.borrow().over
    }

    /// The next attempt begins, if it `is_whole`.
    pub(crate) fn rewind(&self) {
        self.0.borrow_mut().given = 0;
    }

    /// The next piece that was sent before.
    pub(crate) fn again(&self) -> Option<Bytes> {
        let mut inside = self.0.borrow_mut();
        let chunk = inside.chunks.get(inside.given).cloned();
        inside.given += usize::from(chunk.is_some());
        chunk
    }

    pub(crate) fn holds_more(&self) -> bool {
        let inside = self.0.borrow();
        inside.given < inside.chunks.len() || inside.trailers.is_some()
    }

    pub(crate) fn trailers(&self) -> Option<HeaderMap> {
        self.0.borrow().trailers.clone()
    }
}

impl Inside {
    fn forget(&mut self) {
        // What this attempt has yet to send once more stays.
        self.chunks.drain(..self.given);
        self.given = 0;
        self.over = true;
    }
}
