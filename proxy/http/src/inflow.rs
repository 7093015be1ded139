//! The receiving half of an HTTP/2 stream, from before its head has come.

use crate::{
    body::Failure,
    windows::{Credit, Place},
};
use bytes::Bytes;
use h2::{RecvStream, client::ResponseFuture};
use http::HeaderMap;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// DATA frames as they come. Flow control is released for what was given only when more is asked for.
pub struct Inflow {
    state: State,
    /// Given, and perhaps still waiting for room.
    unreleased: usize,
    /// Came already, to be given first.
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
        if let Some(early) = self.early.take() {
            self.unreleased = early.len();
            return Poll::Ready(Ok(Some(early)));
        }
        let unreleased = std::mem::take(&mut self.unreleased);
        let stream = ready!(self.state.poll_open(cx))?;
        if unreleased > 0 {
            // An error says that the stream is gone; reading from it says so better.
            let _ = stream.flow_control().release_capacity(unreleased);
        }
        // A reset with NO_ERROR after the end (RFC 9113 §8.1) is no error here; one before it cuts the body like any other.
        let Poll::Ready(data) = stream.poll_data(cx) else {
            if self.place.has_shrunk(cx) {
                let _ = stream.flow_control().release_capacity(0);
            }
            return Poll::Pending;
        };
        let data = data.transpose()?;
        self.unreleased = data.as_ref().map_or(0, Bytes::len);
        Poll::Ready(Ok(data))
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
