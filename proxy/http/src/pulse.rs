//! Is the peer of a connection still there? Asked only when it owes an answer and has long been silent: any byte is life, and
//! quiet connections are left alone.

use h2::{Ping, PingPong};
use policy::limits::PING_AFTER;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep, sleep};

pub(crate) struct Pulse {
    ping_pong: PingPong,
    /// Runs while streams are open.
    timer: Option<Pin<Box<Sleep>>>,
    asked: bool,
}

impl Pulse {
    pub(crate) fn new(ping_pong: PingPong) -> Self {
        Self { ping_pong, timer: None, asked: false }
    }

    /// To be polled after the connection. Ready when the peer is to be given up. `heard`: bytes came since the last poll.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, heard: bool, streams: u32) -> Poll<()> {
        if heard {
            self.asked = false;
            // The answer to a question needs no other notice than that bytes came.
            let _ = self.ping_pong.poll_pong(cx);
        }
        if streams == 0 {
            self.timer = None;
            self.asked = false;
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(PING_AFTER)));
        if heard && timer.deadline() < Instant::now() + PING_AFTER / 2 {
            timer.as_mut().reset(Instant::now() + PING_AFTER);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if self.asked {
                return Poll::Ready(());
            }
            self.asked = self.ping_pong.send_ping(Ping::opaque()).is_ok();
            timer.as_mut().reset(Instant::now() + PING_AFTER);
            // The connection is to send it.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
