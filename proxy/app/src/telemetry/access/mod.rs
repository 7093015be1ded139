//! The access log: one line of JSON for each request, and for each connection of bytes, that has ended.
//!
//! Off by default. A worker renders a line straight into a buffer of its own, and one thread for all workers takes the
//! buffers and writes them out: the path of a request never waits for a disk or a reader. What finds no room, since they
//! are slow, is lost and counted. Here is neither the decision what a request's end means (the callers know) nor rotation:
//! whoever renames the file gets a new one.
//!
//! | file | what it has |
//! |---|---|
//! | `mod` | what is logged, the workers' buffers and their hand-over |
//! | `entry` | the facts of one line, their names, and how they are written |
//! | `writer` | the thread, the file, and what happens when it is full |

mod entry;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::thread::Thread;

use policy::{Reason, limits};

use super::lock;

pub use entry::{Entry, Request, Traffic};
pub use writer::{Target, Writing};

/// What is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    #[default]
    Off,
    /// What had a reason of a proxy's own, or was answered with a server's error: a status from 500, or one of gRPC's
    /// codes for what is not the caller's fault.
    Errors,
    /// Every request and every connection of bytes.
    All,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "errors" => Ok(Self::Errors),
            "all" => Ok(Self::All),
            _ => Err(format!("{text:?} is none of off, errors, all")),
        }
    }
}

/// How something ended, as far as it decides whether it is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The proxy itself answered, reset or refused.
    pub reason: Option<Reason>,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// What `grpc-status` said.
    pub grpc_status: Option<u16>,
}

impl Verdict {
    /// Not as it should be, and not by the caller's fault.
    pub fn is_error(self) -> bool {
        self.reason.is_some() || self.status >= 500 || self.grpc_status.is_some_and(is_server_error)
    }
}

/// The codes that OpenTelemetry's conventions for gRPC servers count as errors.
fn is_server_error(grpc_status: u16) -> bool {
    const UNKNOWN: u16 = 2;
    const DEADLINE_EXCEEDED: u16 = 4;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const DATA_LOSS: u16 = 15;
    matches!(grpc_status, UNKNOWN | DEADLINE_EXCEEDED | UNIMPLEMENTED | INTERNAL | UNAVAILABLE | DATA_LOSS)
}

/// Lines by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// They are where they should be.
    pub written: u64,
    /// They found no room: the writer was behind.
    pub dropped: u64,
    /// They could not be written: a full disk, a closed pipe.
    pub failed: u64,
}

/// The access log of one proxy. Clones share it.
#[derive(Clone)]
pub struct AccessLog(Arc<Inner>);

struct Inner {
    mode: Mode,
    shards: Mutex<Vec<Arc<Shard>>>,
    written: AtomicU64,
    failed: AtomicU64,
    /// There may be lines that the writer has not taken.
    pending: AtomicBool,
    /// The last lines are in the buffers.
    ending: AtomicBool,
    writer: OnceLock<Thread>,
}

/// What one worker and the writer share. The writer holds at most one of the two buffers at a time, and only to exchange
/// it for an empty one: a worker that finds the first one held takes the second, and never waits.
#[derive(Debug, Default)]
struct Shard {
    buffers: [Mutex<Vec<u8>>; 2],
    dropped: AtomicU64,
}

impl AccessLog {
    /// A log whose lines stay in its buffers until they are taken; [`Writing::start`] does that.
    pub fn new(mode: Mode) -> Self {
        Self(Arc::new(Inner {
            mode,
            shards: Mutex::default(),
            written: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            pending: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            writer: OnceLock::new(),
        }))
    }

    /// The handle of one more worker.
    pub fn worker(&self) -> Handle {
        let shard = Arc::<Shard>::default();
        if self.0.mode != Mode::Off {
            lock(&self.0.shards).push(Arc::clone(&shard));
        }
        Handle { mode: self.0.mode, shard, log: self.clone() }
    }

    /// Takes the lines that have come since the last time.
    pub fn take(&self) -> Vec<u8> {
        let mut all = Vec::new();
        self.each(|bytes| all.extend_from_slice(bytes));
        all
    }

    /// What became of the lines so far; `None` where none are wanted.
    pub fn lines(&self) -> Option<Lines> {
        let dropped = || lock(&self.0.shards).iter().map(|shard| shard.dropped.load(Relaxed)).sum();
        (self.0.mode != Mode::Off).then(|| Lines {
            written: self.0.written.load(Relaxed),
            dropped: dropped(),
            failed: self.0.failed.load(Relaxed),
        })
    }

    /// Empties every buffer; those that hold something are given to `write` while nobody holds them.
    fn each(&self, mut write: impl FnMut(&[u8])) {
        self.0.pending.store(false, Relaxed);
        let shards = lock(&self.0.shards).clone();
        let mut taken = Vec::new();
        for buffer in shards.iter().flat_map(|shard| &shard.buffers) {
            std::mem::swap(&mut *lock(buffer), &mut taken);
            if !taken.is_empty() {
                write(&taken);
                taken.clear();
            }
            taken.shrink_to(limits::ACCESS_LOG_KEPT_BYTES);
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("mode", &self.0.mode).finish_non_exhaustive()
    }
}

/// One worker's way into the log. Clones are the same one: they stay on the worker's thread.
#[derive(Clone, Debug)]
pub struct Handle {
    mode: Mode,
    shard: Arc<Shard>,
    log: AccessLog,
}

impl Handle {
    /// Whether anything may be wanted.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.mode != Mode::Off
    }

    /// Whether what ended so is to be logged: to be asked before the facts are gathered.
    #[inline]
    pub fn wants(&self, verdict: Verdict) -> bool {
        match self.mode {
            Mode::Off => false,
            Mode::Errors => verdict.is_error(),
            Mode::All => true,
        }
    }

    /// Adds a line. Never waits: where there is no room, the line is counted as dropped.
    pub fn write(&self, entry: &Entry<'_>) {
        let Some(mut buffer) = self.shard.buffer() else { return self.shard.drop_line() };
        let before = buffer.len();
        entry.render(&mut buffer);
        if buffer.len() > limits::ACCESS_LOG_BYTES {
            buffer.truncate(before);
            return self.shard.drop_line();
        }
        drop(buffer);
        // The writer forgets what is pending before it takes: what is added after that is told of again.
        let pending = &self.log.0.pending;
        if !pending.load(Relaxed) && !pending.swap(true, Relaxed) {
            self.log.wake();
        }
    }
}

impl AccessLog {
    fn wake(&self) {
        if let Some(writer) = self.0.writer.get() {
            writer.unpark();
        }
    }
}

impl Shard {
    /// A buffer that the writer does not hold. It may change its hold between two looks: hence the second round.
    fn buffer(&self) -> Option<MutexGuard<'_, Vec<u8>>> {
        self.buffers.iter().chain(&self.buffers).find_map(|buffer| match buffer.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }

    fn drop_line(&self) {
        // One writer: this worker.
        self.dropped.store(self.dropped.load(Relaxed) + 1, Relaxed);
    }
}
