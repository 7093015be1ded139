//! The receiving half of an HTTP/2 stream, from before its head has come.

use crate::body::Failure;
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
}

enum State {
    /// Nobody has waited for the head of this answer yet.
    Opening(ResponseFuture),
    Open(RecvStream),
}

impl Inflow {
    pub fn new(stream: RecvStream) -> Self {
        Self { state: State::Open(stream), unreleased: 0, early: None }
    }

    /// Of a stream whose answer has not come yet.
    pub fn opening(response: ResponseFuture) -> Self {
        Self { state: State::Opening(response), unreleased: 0, early: None }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut RecvStream, h2::Error>> {
        if let State::Opening(response) = &mut self.state {
            let response = ready!(Pin::new(response).poll(cx))?;
            self.state = State::Open(response.into_body());
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(stream)),
            State::Opening(_) => unreachable!("it was opened above"),
        }
    }

    /// Ready when the sender has said something (true), or has ended or broken the stream without a word.
    pub fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.early.is_none() {
            let stream = match ready!(self.poll_open(cx)) {
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
        let stream = ready!(self.poll_open(cx))?;
        if unreleased > 0 {
            // An error says that the stream is gone; reading from it says so better.
            let _ = stream.flow_control().release_capacity(unreleased);
        }
        // A reset with NO_ERROR after the end (RFC 9113 §8.1) is no error here; one before it cuts the body like any other.
        let data = ready!(stream.poll_data(cx)).transpose()?;
        self.unreleased = data.as_ref().map_or(0, Bytes::len);
        Poll::Ready(Ok(data))
    }

    /// The trailers, after the end.
    pub(crate) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, Failure>> {
        let stream = ready!(self.poll_open(cx))?;
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
