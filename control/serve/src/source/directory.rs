//! Watches directories of manifests: a thread of its own looks at them at each event, and now and then without one.

use super::{
    Batch,
    files::{Files, is_manifest},
};
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Events of one change come together: the look waits for the last of them.
const SETTLE: Duration = Duration::from_millis(5);
/// The look waits this long for a file that somebody is writing.
const WRITING: Duration = Duration::from_millis(300);
/// Between looks where the system gives no events.
const POLL: Duration = Duration::from_secs(2);

/// A watched set of directories; dropping it ends the thread.
#[derive(Debug)]
pub struct Directory {
    signals: Sender<Signal>,
    thread: Option<JoinHandle<()>>,
}

enum Signal {
    Event(notify::Result<Event>),
    Stop,
}

/// When to look next, by what has been heard.
#[derive(Debug, Default)]
struct Heard {
    first: Option<Instant>,
    last: Option<Instant>,
    writing: HashSet<PathBuf>,
}

impl Directory {
    /// Looks once, hands over what is there, and then watches. Fails when the first of `roots` that is not a directory
    /// is found; what is wrong in the directories is in the batches.
    pub fn watch(
        roots: Vec<PathBuf>,
        rescan: Duration,
        mut take: impl FnMut(Batch) + Send + 'static,
    ) -> io::Result<Self> {
        for root in &roots {
            std::fs::read_dir(root)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", root.display())))?;
        }
        let (signals, heard) = mpsc::channel();
        let events = signals.clone();
        let send = move |event| drop(events.send(Signal::Event(event)));
        // Watched before the first look: nothing falls between.
        let watcher = notify::recommended_watcher(send).and_then(|mut watcher| {
            roots.iter().try_for_each(|root| watcher.watch(root, RecursiveMode::Recursive))?;
            Ok(watcher)
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(
                "no events from the directories ({error}); they are looked at each {} s",
                POLL.as_secs()
            );
        });
        let mut files = Files::new(roots.clone());
        let (batch, again) = files.look(Instant::now());
        take(batch);
        let rescan = if watcher.is_ok() { rescan } else { rescan.min(POLL) };
        let thread = thread::Builder::new()
            .name("directory".into())
            .spawn(move || watch(&heard, watcher.ok(), &roots, files, rescan, again, take))?;
        Ok(Self { signals, thread: Some(thread) })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Stop);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that watched the directories had failed");
        }
    }
}

fn watch(
    signals: &Receiver<Signal>,
    mut watcher: Option<RecommendedWatcher>,
    roots: &[PathBuf],
    mut files: Files,
    rescan: Duration,
    again: Option<Duration>,
    mut take: impl FnMut(Batch),
) {
    let mut heard = Heard::default();
    let mut next = Instant::now() + again.unwrap_or(rescan);
    loop {
        let due = heard.due().map_or(next, |due| due.min(next));
        match signals.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Signal::Event(Ok(event))) => heard.take(&event, Instant::now()),
            // Events may have been lost: look at once.
            Ok(Signal::Event(Err(_))) => next = Instant::now(),
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let quiet = heard.due().is_none();
                heard = Heard::default();
                let (batch, again) = files.look(Instant::now());
                take(batch);
                next = Instant::now() + again.unwrap_or(rescan);
                // A root that was replaced has lost its watch; watching again what is watched changes nothing.
                if let Some(watcher) = watcher.as_mut().filter(|_| quiet && again.is_none()) {
                    let _ = roots.iter().try_for_each(|root| watcher.watch(root, RecursiveMode::Recursive));
                }
            }
        }
    }
}

impl Heard {
    /// When to look: as soon as it is quiet and nobody is in the middle of writing.
    fn due(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        Some(if self.writing.is_empty() { (last + SETTLE).min(first + WRITING) } else { first + WRITING })
    }

    fn take(&mut self, event: &Event, now: Instant) {
        let manifests = event.paths.iter().filter(|path| is_manifest(path)).cloned();
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                manifests.for_each(|path| {
                    self.writing.remove(&path);
                });
            }
            // Reading, also our own.
            EventKind::Access(_) => return,
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                self.writing.extend(manifests);
            }
            _ => {}
        }
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}
