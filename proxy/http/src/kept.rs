//! The beginning of a request's body, or of a TCP client's bytes, kept for as long as it may have to be sent once more.

use crate::{body::Trailers, copy::Feed, head::to_map};
use bytes::Bytes;
use http::HeaderMap;
use policy::limits::REPLAY_BYTES;
use std::cell::RefCell;

/// Holds what has been sent of a body, up to a limit, which is `REPLAY_BYTES` unless somebody says otherwise; nothing of it is
/// copied.
#[derive(Default)]
pub struct Kept(RefCell<Inside>);

struct Inside {
    limit: usize,
    chunks: Vec<Bytes>,
    /// Chunks that this attempt has given already.
    given: usize,
    bytes: usize,
    trailers: Option<HeaderMap>,
    /// Something has gone that is not held.
    over: bool,
    /// Copies of the request, which see each piece once.
    feeds: Vec<Feed>,
}

impl Kept {
    /// Nothing is kept, of a body that has not begun.
    pub(crate) fn clear(&mut self) {
        self.0 = RefCell::default();
    }

    /// Of a body that has not begun so much is kept.
    pub(crate) fn limit(&self, bytes: usize) {
        self.0.borrow_mut().limit = bytes;
    }

    /// Keeps a piece, or gives up when that is too much.
    pub(crate) fn keep(&self, data: &Bytes) {
        let mut inside = self.0.borrow_mut();
        inside.feeds.iter().for_each(|feed| feed.push(data));
        if inside.over {
            return;
        }
        inside.bytes += data.len();
        if inside.bytes > inside.limit {
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

    /// What passes feeds a copy, too.
    pub(crate) fn feed(&self, feed: Feed) {
        self.0.borrow_mut().feeds.push(feed);
    }

    pub(crate) fn is_copied(&self) -> bool {
        !self.0.borrow().feeds.is_empty()
    }

    /// All of it has come.
    pub(crate) fn ended(&self, trailers: &Trailers) {
        for feed in &self.0.borrow().feeds {
            feed.end(match trailers {
                Trailers::None => None,
                Trailers::Fields(fields) => Some(to_map(fields.end_to_end())),
                Trailers::Map(map) => Some(map.clone()),
            });
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

    /// How much there is of it so far, if all of that can be sent once more.
    pub(crate) fn bytes(&self) -> Option<usize> {
        let inside = self.0.borrow();
        (!inside.over).then_some(inside.bytes)
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

impl Default for Inside {
    fn default() -> Self {
        Self {
            limit: REPLAY_BYTES,
            chunks: Vec::new(),
            given: 0,
            bytes: 0,
            trailers: None,
            over: false,
            feeds: Vec::new(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    /// Asks as a body's source does: what was kept first, then the next piece of `body` after the `read` ones.
    fn next(kept: &Kept, body: &[Bytes], read: &mut usize) -> Option<Bytes> {
        if let Some(again) = kept.again() {
            return Some(again);
        }
        let data = body.get(*read)?;
        *read += 1;
        kept.keep(data);
        Some(data.clone())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Each attempt stops after so many pieces; `forgets`: the last one is answered half way.
        #[test]
        fn each_attempt_sends_the_body_from_its_beginning(
            lengths in vec(prop_oneof![1..2_000usize, 1..REPLAY_BYTES], 0..12), attempts in vec(0..14usize, 0..4), forgets in any::<bool>(),
        ) {
            let body: Vec<_> = (0u8..).zip(&lengths).map(|(byte, length)| Bytes::from(vec![byte; *length])).collect();
            let whole = body.concat();
            let (kept, mut read) = (Kept::default(), 0);
            let mut last = Vec::new();
            for stop in attempts {
                if !kept.is_whole() {
                    break;
                }
                kept.rewind();
                let sent: Vec<_> = std::iter::from_fn(|| next(&kept, &body, &mut read)).take(stop).collect();
                last = sent.concat();
                prop_assert!(whole.starts_with(&last));
                // Kept is what fits, and only that.
                prop_assert_eq!(kept.is_whole(), body[..read].concat().len() <= REPLAY_BYTES);
            }
            if forgets {
                kept.forget();
                prop_assert!(!kept.is_whole());
            }
            let rest: Vec<_> = std::iter::from_fn(|| next(&kept, &body, &mut read)).collect();
            prop_assert_eq!([last, rest.concat()].concat(), whole);
            prop_assert!(!kept.holds_more());
        }
    }
}
