//! A copy of a request, for somebody else to see. Its body is what passes of the original's, piece by piece and never copied in
//! memory; the original waits for nothing. A copy that falls behind by more than `MIRROR_BYTES` is given up.
//!
//! Here are the copy and the queue that feeds it; how it is sent stands in `exchange`, and when one is made is for a rule to say.

use crate::{body::Failure, head::StreamRequest};
use bytes::Bytes;
use http::HeaderMap;
use policy::limits::MIRROR_BYTES;
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// What a piece costs besides its bytes.
const PIECE_BYTES: usize = 256;

/// A request that nobody waits for the answer of.
pub struct Copy {
    pub request: StreamRequest,
    /// `None`: nothing follows the head.
    pub(crate) body: Option<Tail>,
}

/// The end of the queue that the copy reads.
pub(crate) struct Tail(Rc<RefCell<Queue>>);

/// The end that the original's body is put into. One that is dropped before the end breaks the copy off.
pub(crate) struct Feed(Rc<RefCell<Queue>>);

struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    state: State,
    waker: Option<Waker>,
}

enum State {
    Open,
    /// With its trailers, until they are taken.
    Ended(Option<HeaderMap>),
    /// The copy has fallen too far behind.
    Behind,
    /// The original did not come whole.
    BrokenOff,
}

impl Copy {
    /// Without a body, or with one that is fed.
    pub(crate) fn new(request: StreamRequest, has_body: bool) -> (Self, Option<Feed>) {
        if !has_body {
            return (Self { request, body: None }, None);
        }
        let queue = Queue { pieces: VecDeque::new(), bytes: 0, state: State::Open, waker: None };
        let queue = Rc::new(RefCell::new(queue));
        (Self { request, body: Some(Tail(queue.clone())) }, Some(Feed(queue)))
    }

    /// What says when the original has gone.
    pub fn original(&self) -> Original {
        Original(self.body.as_ref().map(|tail| tail.0.clone()))
    }
}

/// How the original's body fares.
pub struct Original(Option<Rc<RefCell<Queue>>>);

impl Original {
    /// Ends when nothing more of it will come.
    pub async fn over(&self) {
        let Some(queue) = &self.0 else { return };
        poll_fn(|cx| {
            let mut queue = queue.borrow_mut();
            if matches!(queue.state, State::Open) {
                queue.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// The copy was given up, as it had fallen behind.
    pub fn is_ahead(&self) -> bool {
        self.0.as_ref().is_some_and(|queue| matches!(queue.borrow().state, State::Behind))
    }
}

impl Feed {
    pub(crate) fn push(&self, data: &Bytes) {
        let mut queue = self.0.borrow_mut();
        if !matches!(queue.state, State::Open) || data.is_empty() {
            return;
        }
        queue.bytes += data.len() + PIECE_BYTES;
        if queue.bytes > MIRROR_BYTES {
            return queue.end(State::Behind);
        }
        queue.pieces.push_back(data.clone());
        queue.wake();
    }

    pub(crate) fn end(&self, trailers: Option<HeaderMap>) {
        self.0.borrow_mut().end(State::Ended(trailers));
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.borrow_mut().end(State::BrokenOff);
    }
}

impl Queue {
    /// Only once.
    fn end(&mut self, state: State) {
        if !matches!(self.state, State::Open) {
            return;
        }
        if !matches!(state, State::Ended(_)) {
            self.pieces.clear();
        }
        self.state = state;
        self.wake();
    }

    /// Whoever waits is one task.
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Tail {
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let mut queue = self.0.borrow_mut();
        if let Some(piece) = queue.pieces.pop_front() {
            queue.bytes -= piece.len() + PIECE_BYTES;
            return Poll::Ready(Ok(Some(piece)));
        }
        match queue.state {
            State::Open => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ended(_) => Poll::Ready(Ok(None)),
            State::Behind => Poll::Ready(Err(io::Error::other("the copy fell behind").into())),
            State::BrokenOff => Poll::Ready(Err(io::Error::other("the original was broken off").into())),
        }
    }

    pub(crate) fn trailers(&mut self) -> Option<HeaderMap> {
        match &mut self.0.borrow_mut().state {
            State::Ended(trailers) => trailers.take(),
            _ => None,
        }
    }

    pub(crate) fn is_end(&self) -> bool {
        let queue = self.0.borrow();
        queue.pieces.is_empty() && matches!(queue.state, State::Ended(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Context;

    fn fed() -> (Tail, Feed) {
        let request = StreamRequest::program(http::Request::new(()).into_parts().0);
        let (copy, feed) = Copy::new(request, true);
        (copy.body.expect("a body"), feed.expect("a feed"))
    }

    fn next(tail: &mut Tail) -> Option<Result<Option<Bytes>, ()>> {
        let mut cx = Context::from_waker(Waker::noop());
        match tail.poll_data(&mut cx) {
            Poll::Pending => None,
            Poll::Ready(data) => Some(data.map_err(|_| ())),
        }
    }

    #[test]
    fn what_is_fed_comes_out_and_then_the_end() {
        let (mut tail, feed) = fed();
        assert!(next(&mut tail).is_none());
        feed.push(&Bytes::from_static(b"a"));
        feed.push(&Bytes::from_static(b"b"));
        feed.end(None);
        drop(feed);
        assert_eq!(next(&mut tail), Some(Ok(Some(Bytes::from_static(b"a")))));
        assert!(!tail.is_end());
        assert_eq!(next(&mut tail), Some(Ok(Some(Bytes::from_static(b"b")))));
        assert!(tail.is_end());
        assert_eq!(next(&mut tail), Some(Ok(None)));
    }

    #[test]
    fn a_copy_that_falls_behind_holds_nothing_any_more() {
        let (mut tail, feed) = fed();
        let piece = Bytes::from(vec![0; 16 * 1024]);
        (0..=MIRROR_BYTES / piece.len()).for_each(|_| feed.push(&piece));
        assert!(tail.0.borrow().pieces.is_empty());
        assert_eq!(next(&mut tail), Some(Err(())));
        feed.end(None);
        assert_eq!(next(&mut tail), Some(Err(())), "it does not look whole");
        // One that keeps up has no limit.
        let (mut tail, feed) = fed();
        for _ in 0..10 * MIRROR_BYTES / piece.len() {
            feed.push(&piece);
            assert!(next(&mut tail).is_some_and(|data| data.is_ok()));
        }
    }

    #[test]
    fn a_broken_original_breaks_its_copy() {
        let (mut tail, feed) = fed();
        feed.push(&Bytes::from_static(b"a"));
        drop(feed);
        assert_eq!(next(&mut tail), Some(Err(())));
    }
}
