//! How much each stream of a connection may send ahead of its reader (RFC 9113 §5.2).
//!
//! The receiver shares `SHARED_WINDOW_BYTES` out among the streams that are open: the first few get windows for long
//! paths, many get small ones, and what slow readers can make a proxy hold stays bounded. A stream keeps what it has filled, so
//! the connection's own window is the sum over a history of openings; it never runs out, and no stream waits for another.
//!
//! `h2` announces what a reader has taken when that is half of the window, and looks only when more is taken. A window that
//! shrinks under a stream which has not used half of it would be lost for ever: [`Credit`] has every such stream look again.

use policy::limits::{SHARED_WINDOW_BYTES, STREAM_WINDOW_LEAST_BYTES, STREAM_WINDOW_MOST_BYTES};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

/// The window that a connection grants to its streams.
pub(crate) struct Windows {
    /// Streams that the present window is for: a power of two.
    level: u32,
    /// As the other side was last told.
    told: u32,
    /// The last change made it smaller, and has not been acknowledged yet.
    shrinking: bool,
}

/// The streams of a connection that wait for data.
#[derive(Clone, Default)]
pub struct Credit(Rc<Waiting>);

#[derive(Default)]
struct Waiting {
    /// How often windows have shrunk.
    shrunk: Cell<u32>,
    places: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// A stream among them.
pub(crate) struct Place {
    of: Credit,
    number: Option<usize>,
    /// What `shrunk` was when this stream looked.
    seen: u32,
}

impl Windows {
    pub(crate) const FIRST: u32 = STREAM_WINDOW_MOST_BYTES;

    pub(crate) fn new() -> Self {
        Self { level: 1, told: Self::FIRST, shrinking: false }
    }

    /// Calls `tell` with the new window if so many open streams call for another one: smaller at once, larger only when most
    /// have ended. A failure, as while the last change is yet to be acknowledged, is made good at the next call. To be called before
    /// and after each poll of the connection; true when it must be polled again.
    pub(crate) fn adapt<E>(
        &mut self,
        streams: u32,
        credit: &Credit,
        tell: impl FnOnce(u32) -> Result<(), E>,
    ) -> bool {
        let wanted = streams.max(1).next_power_of_two();
        if wanted > self.level || wanted < self.level / 4 {
            self.level = wanted;
        }
        let window = window(self.level);
        // What is told once more, though it has not changed, is taken only when it has been acknowledged.
        if (window == self.told && !self.shrinking) || tell(window).is_err() {
            return false;
        }
        if self.shrinking {
            credit.renew();
        }
        self.shrinking = window < self.told;
        self.told = window;
        true
    }
}

impl Credit {
    /// Windows have shrunk.
    fn renew(&self) {
        self.0.shrunk.set(self.0.shrunk.get().wrapping_add(1));
        self.0.places.borrow_mut().iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    pub(crate) fn place(&self) -> Place {
        Place { of: self.clone(), number: None, seen: self.0.shrunk.get() }
    }
}

impl Place {
    /// Has the window shrunk since the last call? Wakes the task when it does.
    pub(crate) fn has_shrunk(&mut self, cx: &mut Context<'_>) -> bool {
        let waiting = &*self.of.0;
        let mut places = waiting.places.borrow_mut();
        let number = *self.number.get_or_insert_with(|| {
            waiting.free.borrow_mut().pop().unwrap_or_else(|| {
                places.push(None);
                places.len() - 1
            })
        });
        match &mut places[number] {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        std::mem::replace(&mut self.seen, waiting.shrunk.get()) != waiting.shrunk.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.of.0.places.borrow_mut()[number] = None;
            self.of.0.free.borrow_mut().push(number);
        }
    }
}

fn window(level: u32) -> u32 {
    (SHARED_WINDOW_BYTES / level).clamp(STREAM_WINDOW_LEAST_BYTES, STREAM_WINDOW_MOST_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::limits::{CONNECTION_WINDOW_BYTES, STREAMS_PER_CONNECTION};

    /// The window after so many streams are open.
    fn granted(windows: &mut Windows, streams: u32) -> u32 {
        windows.adapt(streams, &Credit::default(), |_| Ok::<_, ()>(()));
        windows.told
    }

    #[test]
    fn streams_that_fill_their_windows_one_after_the_other_never_use_up_the_connection() {
        let mut windows = Windows::new();
        let mut held = 0;
        for streams in 1..=STREAMS_PER_CONNECTION {
            held += u64::from(granted(&mut windows, streams));
            assert!(held <= u64::from(CONNECTION_WINDOW_BYTES), "{streams} streams hold {held}");
        }
    }

    #[test]
    fn windows_do_not_change_with_every_stream() {
        let mut windows = Windows::new();
        for streams in [64, 33, 64, 40, 20, 17] {
            assert_eq!(granted(&mut windows, streams), 256 * 1024);
        }
        assert_eq!(granted(&mut windows, 2), STREAM_WINDOW_MOST_BYTES);
    }

    #[test]
    fn a_change_that_could_not_be_told_is_told_later() {
        let mut windows = Windows::new();
        windows.adapt(64, &Credit::default(), |_| Err(()));
        assert_eq!(windows.told, Windows::FIRST);
        assert_eq!(granted(&mut windows, 64), 256 * 1024);
    }
}
