//! The receiving half of an HTTP/2 stream, from before its head has come.

use crate::{
    body::Failure,
    windows::{Credit, Place},
};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client::ResponseFuture};
use http::HeaderMap;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Frames of less than this are put together when several have come: what is passed on byte by byte, a receiver may take for a
/// flood, and end a connection that is not this sender's alone.
const SMALL_BYTES: usize = 256;
/// And at most so much.
const TOGETHER_BYTES: usize = 16 * 1024;

/// DATA frames as they come. Flow control is released for what was given only when more is asked for.
pub struct Inflow {
    state: State,
    /// Given, and perhaps still waiting for room.
    unreleased: usize,
    /// Came already, to be given first; not in `unreleased`.
    early: Option<Bytes>,
    /// Among the streams of its connection.
    place: Place,
}

enum State {
    /// Nobody has waited for the head of this answer yet.
    Opening(ResponseFuture),
    Open(RecvStream),
}

impl Inflow {
    pub fn new(stream: RecvStream, credit: &Credit) -> Self {
        Self { state: State::Open(stream), unreleased: 0, early: None, place: credit.place() }
    }

    /// Of a stream whose answer has not come yet.
    pub fn opening(response: ResponseFuture, credit: &Credit) -> Self {
        Self { state: State::Opening(response), unreleased: 0, early: None, place: credit.place() }
    }

    /// Ready when the sender has said something (true), or has ended or broken the stream without a word.
    pub fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.early.is_none() {
            let stream = match ready!(self.state.poll_open(cx)) {
                Ok(stream) => stream,
                Err(_) => return Poll::Ready(false),
            };
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => self.early = Some(data),
                Some(Err(_)) | None => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }

    /// The next bytes; `None` at the end. Asking again says that the last ones have found room.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let (unreleased, early) = (std::mem::take(&mut self.unreleased), self.early.take());
        let stream = ready!(self.state.poll_open(cx))?;
        if unreleased > 0 {
            // An error says that the stream is gone; reading from it says so better.
            let _ = stream.flow_control().release_capacity(unreleased);
        }
        let data = if early.is_some() {
            early
        } else {
            // A reset with NO_ERROR after the end (RFC 9113 §8.1) is no error here; one before it cuts the body like any other.
            let Poll::Ready(data) = stream.poll_data(cx) else {
                if self.place.has_shrunk(cx) {
                    let _ = stream.flow_control().release_capacity(0);
                }
                return Poll::Pending;
            };
            data.transpose()?
        };
        let data = data.map(|data| self.put_together(cx, data));
        self.unreleased = data.as_ref().map_or(0, Bytes::len);
        Poll::Ready(Ok(data))
    }

    /// `data`, with what came right after it where that is small.
    fn put_together(&mut self, cx: &mut Context<'_>, data: Bytes) -> Bytes {
        let State::Open(stream) = &mut self.state else { return data };
        if data.len() >= SMALL_BYTES {
            return data;
        }
        let mut together = BytesMut::new();
        // The end and errors come again when asked for again.
        while !stream.is_end_stream()
            && let Poll::Ready(Some(Ok(next))) = stream.poll_data(cx)
        {
            if together.is_empty() {
                together.extend_from_slice(&data);
            }
            if next.len() >= SMALL_BYTES || together.len() + next.len() > TOGETHER_BYTES {
                self.early = Some(next);
                break;
            }
            together.extend_from_slice(&next);
        }
        if together.is_empty() { data } else { together.freeze() }
    }

    /// The trailers, after the end.
    pub(crate) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, Failure>> {
        let stream = ready!(self.state.poll_open(cx))?;
        Poll::Ready(Ok(ready!(stream.poll_trailers(cx))?))
    }

    /// Is the end known to have come, without waiting?
    pub fn is_end(&self) -> bool {
        match &self.state {
            State::Opening(_) => false,
            State::Open(stream) => self.early.is_none() && stream.is_end_stream(),
        }
    }
}

impl State {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut RecvStream, h2::Error>> {
        if let Self::Opening(response) = self {
            let response = ready!(Pin::new(response).poll(cx))?;
            *self = Self::Open(response.into_body());
        }
        match self {
            Self::Open(stream) => Poll::Ready(Ok(stream)),
            Self::Opening(_) => unreachable!("it was opened above"),
        }
    }
}
