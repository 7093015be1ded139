//! A program that runs in a pod, and its log.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::demo::sandbox::Sandbox;

/// Lines of a log that are shown when its program failed.
const TAIL_LINES: usize = 15;

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it in the pod. What it writes goes to the end of the log.
    pub fn start(sandbox: &Sandbox, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let program = PathBuf::from(command.get_program());
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        let errors = file.try_clone().context("duplicating a log's descriptor")?;
        // In a process group of its own, so that the terminal's Ctrl-C does not reach it: it is ended in its turn.
        command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = sandbox.spawn(command).with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { name, child, log: log.into() })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Whether it ended well; an error when it ended otherwise.
    pub fn succeeded(&mut self) -> anyhow::Result<bool> {
        match self.ended()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => bail!("{} failed ({status}){}", self.name, self.tail()),
        }
    }

    /// An error when it has ended, in whatever way.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}){}", self.name, self.tail()),
        }
    }

    /// Asks it to end.
    pub fn terminate(&self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).context("a PID out of range")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("sending SIGTERM to {}", self.name))
    }

    /// The end of its log, on lines of its own.
    pub fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        let tail: String = lines[from..].iter().map(|line| format!("\n    {line}")).collect();
        let tail = if tail.is_empty() { " (empty)" } else { &tail };
        format!("\n  {} ends:{tail}", self.log.display())
    }
}
