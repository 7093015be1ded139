//! The thread that writes the log out, the file, and what happens when it is full.
//!
//! Nothing here holds up a worker: while a write blocks or fails, their buffers fill up and count what they drop. A failed
//! batch is lost and counted, the next one is tried as if nothing had been.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::AccessLog;

/// How long lines are gathered for one write.
const GATHER: Duration = Duration::from_millis(100);
/// Between two warnings that it cannot be written.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Its lines name users' paths: for its owner, and for the group that collects logs.
const FILE_MODE: u32 = 0o640;

/// Where the lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, which is appended to. Renamed or deleted, it is made anew.
    File(PathBuf),
}

/// The thread at its work.
#[derive(Debug)]
pub struct Writing {
    log: AccessLog,
    /// Closes when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Writing {
    /// Starts the thread. Fails when the file cannot be opened; later that is only counted and told.
    pub fn start(log: AccessLog, target: Target) -> io::Result<Self> {
        let mut output = Output::open(target)?;
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("access-log".into()).spawn({
            let log = log.clone();
            move || {
                write_all(&log, &mut output);
                drop(end);
            }
        })?;
        // Set once: a log has one writer.
        let _ = log.0.writer.set(thread.thread().clone());
        log.wake();
        Ok(Self { log, ended })
    }

    /// Writes what is there and ends; waits no longer than `wait`, as whoever reads it may be stuck.
    pub fn end(self, wait: Duration) {
        self.log.0.ending.store(true, Release);
        self.log.wake();
        if let Err(mpsc::RecvTimeoutError::Timeout) = self.ended.recv_timeout(wait) {
            tracing::warn!("the end of the access log could not be written in time");
        }
    }
}

fn write_all(log: &AccessLog, output: &mut Output) {
    loop {
        // Looked at before the buffers are: what was there when the end was called is written.
        let ending = log.0.ending.load(Acquire);
        log.each(|bytes| {
            let lines = count(bytes);
            let written = output.write(bytes);
            log.0.written.fetch_add(written, Relaxed);
            log.0.failed.fetch_add(lines - written, Relaxed);
        });
        if ending {
            return;
        }
        while !log.0.pending.load(Relaxed) && !log.0.ending.load(Acquire) {
            thread::park();
        }
        if !log.0.ending.load(Acquire) {
            thread::park_timeout(GATHER);
        }
    }
}

fn count(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The file, and how it fares.
struct Output {
    target: Target,
    file: Option<File>,
    /// The last write ended inside of a line.
    cut: bool,
    failing: Option<Failing>,
}

struct Failing {
    warned: Instant,
    lines: u64,
}

impl Output {
    fn open(target: Target) -> io::Result<Self> {
        let file = Some(open(&target)?);
        Ok(Self { target, file, cut: false, failing: None })
    }

    /// The number of lines that were written whole.
    fn write(&mut self, bytes: &[u8]) -> u64 {
        let (written, ended) = match self.current() {
            Ok(()) => self.write_to_file(bytes),
            Err(error) => (0, Err(error)),
        };
        let lines = count(&bytes[..written]);
        match ended {
            Ok(()) => self.recovered(),
            Err(error) => self.failed(&error, count(bytes) - lines),
        }
        lines
    }

    /// Makes sure that the file is the one that its path names: rotation renames it, or deletes it.
    fn current(&mut self) -> io::Result<()> {
        if let (Target::File(path), Some(file)) = (&self.target, &self.file) {
            let named = std::fs::metadata(path);
            let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
            if !named.is_ok_and(|named| file.metadata().is_ok_and(|held| same(&named, &held))) {
                self.file = None;
                self.cut = false;
            }
        }
        if self.file.is_none() {
            self.file = Some(open(&self.target)?);
        }
        Ok(())
    }

    /// The bytes that were written, and what stopped the rest.
    fn write_to_file(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let file = self.file.as_mut().expect("`current` has opened it");
        if self.cut {
            if let Err(error) = file.write_all(b"\n") {
                return (0, Err(error));
            }
            self.cut = false;
        }
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(count) if count > 0 => written += count,
                Ok(_) => return self.stopped(bytes, written, io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.stopped(bytes, written, error),
            }
        }
        (written, Ok(()))
    }

    fn stopped(&mut self, bytes: &[u8], written: usize, error: io::Error) -> (usize, io::Result<()>) {
        self.cut = written > 0 && bytes[written - 1] != b'\n';
        (written, Err(error))
    }

    fn failed(&mut self, error: &io::Error, lines: u64) {
        let now = Instant::now();
        let failing = match &mut self.failing {
            Some(failing) if now - failing.warned < WARN_EVERY => {
                failing.lines += lines;
                return;
            }
            Some(failing) => {
                *failing = Failing { warned: now, lines: failing.lines + lines };
                failing
            }
            None => self.failing.insert(Failing { warned: now, lines }),
        };
        tracing::warn!(lines = failing.lines, target = ?self.target, "the access log cannot be written, its lines are lost: {error}");
    }

    fn recovered(&mut self) {
        if let Some(failing) = self.failing.take() {
            tracing::info!(lines = failing.lines, target = ?self.target, "the access log is written again; lines were lost");
        }
    }
}

fn open(target: &Target) -> io::Result<File> {
    match target {
        // Not through `std::io::Stdout`, which buffers, and keeps what could not be written.
        Target::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        Target::File(path) => OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path),
    }
}
