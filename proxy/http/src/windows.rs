//! How much each stream of a connection may send ahead of its reader (RFC 9113 §5.2).
//!
//! The receiver shares `SHARED_WINDOW_BYTES` out among the streams that are open: the first few get windows for long
//! paths, many get small ones, and what slow readers can make a proxy hold stays bounded. A stream keeps what it has filled, so
//! the connection's own window is the sum over a history of openings; it never runs out, and no stream waits for another.

use policy::limits::{SHARED_WINDOW_BYTES, STREAM_WINDOW_LEAST_BYTES, STREAM_WINDOW_MOST_BYTES};

/// The window that a connection grants to its streams.
pub(crate) struct Windows {
    /// Streams that the present window is for: a power of two.
    level: u32,
    /// As the other side was last told.
    told: u32,
}

impl Windows {
    pub(crate) const FIRST: u32 = STREAM_WINDOW_MOST_BYTES;

    pub(crate) fn new() -> Self {
        Self { level: 1, told: Self::FIRST }
    }

    /// Calls `tell` with the new window if so many open streams call for another one: smaller at once, larger only when most
    /// have ended. A failure, as while the last change is yet to be acknowledged, is made good at the next call.
    pub(crate) fn adapt<E>(&mut self, streams: u32, tell: impl FnOnce(u32) -> Result<(), E>) {
        let wanted = streams.max(1).next_power_of_two();
        if wanted > self.level || wanted < self.level / 4 {
            self.level = wanted;
        }
        let window = window(self.level);
        if window != self.told && tell(window).is_ok() {
            self.told = window;
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
        windows.adapt(streams, |_| Ok::<_, ()>(()));
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
        windows.adapt(64, |_| Err(()));
        assert_eq!(windows.told, Windows::FIRST);
        assert_eq!(granted(&mut windows, 64), 256 * 1024);
    }
}
