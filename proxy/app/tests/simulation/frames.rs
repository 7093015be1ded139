//! Bodies in HTTP/2 frames as a client or an application sends and reads them, by the `h2` crate.

use crate::{
    calls::{Call, Flow, Quit, Settings},
    wire::{Broken, take},
};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, ready},
    time::Duration,
};
use tokio::time::sleep;

/// How a stream ended before it was whole, or why what came on it is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The other side reset it.
    Reset(Reason),
    /// The connection is gone.
    Connection,
    /// This side gave it up.
    Own,
    Nonsense(String),
}

impl From<h2::Error> for Cut {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() && error.is_remote() => Self::Reset(reason),
            // What this side finds wrong with the frames of the other.
            Some(_) if error.is_library() => Self::Nonsense(format!("{error:?}")),
            _ => Self::Connection,
        }
    }
}

impl From<Broken> for Cut {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Nonsense(why) => Self::Nonsense(why),
            Broken::Ended | Broken::Reset => Self::Connection,
        }
    }
}

/// The sending half, which also resets.
pub type Send = RefCell<SendStream<Bytes>>;

/// Sends a part of a body.
async fn say_part(send: &Send, mut bytes: Bytes, piece: usize, end: bool) -> Result<(), Cut> {
    if bytes.is_empty() && end {
        send.borrow_mut().send_data(bytes, true)?;
        return Ok(());
    }
    while !bytes.is_empty() {
        let wanted = bytes.len().min(piece);
        let granted = poll_fn(|cx| {
            let mut send = send.borrow_mut();
            send.reserve_capacity(wanted);
            loop {
                match send.capacity() {
                    0 => match ready!(send.poll_capacity(cx)) {
                        None => return Poll::Ready(Err(Cut::Connection)),
                        Some(granted) => _ = granted?,
                    },
                    capacity => return Poll::Ready(Ok::<_, Cut>(capacity)),
                }
            }
        });
        let granted = granted.await?;
        let part = bytes.split_to(granted.min(wanted));
        let last = end && bytes.is_empty();
        send.borrow_mut().send_data(part, last)?;
    }
    Ok(())
}

/// Sends a body: whole, or `until` there and no end. The second half waits until `heard` says that enough has come.
pub async fn say(
    send: &Send,
    flow: &Flow,
    trailers: HeaderMap,
    until: Option<usize>,
    pause: Duration,
    heard: impl Fn() -> bool,
) -> Result<(), Cut> {
    let bytes = Bytes::from_static(flow.body.bytes());
    let half = flow.body.len / 2;
    let first = until.map_or(half, |until| until.min(half));
    say_part(send, bytes.slice(..first), flow.piece, false).await?;
    if !pause.is_zero() {
        sleep(pause).await;
    }
    // Polled together with who hears.
    poll_fn(|_| if heard() { Poll::Ready(()) } else { Poll::Pending }).await;
    if let Some(until) = until {
        return say_part(send, bytes.slice(first..until), flow.piece, false).await;
    }
    let ends = !flow.bare_end && trailers.is_empty();
    say_part(send, bytes.slice(half..), flow.piece, ends).await?;
    if !trailers.is_empty() {
        send.borrow_mut().send_trailers(trailers)?;
    } else if !ends {
        send.borrow_mut().send_data(Bytes::new(), true)?;
    }
    Ok(())
}

/// Reads a body that begins like `flow`'s: the bytes that are missing at its end, and its trailers. `quit`: gives up then.
pub async fn hear(
    body: &mut RecvStream,
    flow: &Flow,
    heard: &Cell<usize>,
    quit: Option<usize>,
) -> Result<(usize, HeaderMap), Cut> {
    let mut left = flow.body.bytes();
    loop {
        if quit.is_some_and(|quit| heard.get() >= quit) {
            return Err(Cut::Own);
        }
        let Some(data) = body.data().await else { break };
        let data = data?;
        take(&mut left, &data)?;
        heard.set(flow.body.len - left.len());
        body.flow_control().release_capacity(data.len())?;
    }
    let trailers = body.trailers().await?;
    Ok((left.len(), trailers.unwrap_or_default()))
}

/// The trailers of a request, or of a reply.
pub fn trailers(call: &Call, flow: &Flow, reply: bool) -> HeaderMap {
    let mut map = HeaderMap::new();
    if flow.trailers {
        map.insert("x-trailer", HeaderValue::from(call.id));
        if reply && call.grpc {
            map.insert("grpc-status", HeaderValue::from_static(call.grpc_status()));
        }
    }
    map
}

pub fn path_of(call: &Call) -> String {
    format!("/{}?a=%20b", call.id)
}

/// How much a client says of its body.
pub fn said(call: &Call) -> Option<usize> {
    match call.quits {
        Some((Quit::Said(count), _)) => Some(count),
        _ => None,
    }
}

/// The transport cuts bodies into single bytes, which are a frame each in the end: no attack here.
pub fn client(settings: Settings) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame)
        .max_concurrent_reset_streams(1_000)
        .data_frame_budget(1 << 24);
    builder
}

pub fn server(settings: Settings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(settings.window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame)
        .max_concurrent_streams(settings.streams)
        .max_concurrent_reset_streams(1_000)
        .data_frame_budget(1 << 24);
    builder
}
