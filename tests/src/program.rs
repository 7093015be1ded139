//! A process in a namespace, with its output in a file. It dies with its test, whichever way that ends.

use crate::{eventually, holds, namespace::Namespace};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a program has for a gentle end when its test is over.
const FAREWELL: Duration = Duration::from_secs(3);
/// How much of a log a failed test shows.
const TAIL_BYTES: usize = 4096;

/// Who a program runs as, and how it is ended.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// As the proxy's uid; ended by SIGKILL.
    Proxy,
    /// As root; ended by SIGKILL.
    Weft,
    /// As root; ended by SIGTERM first, since it may have children.
    App,
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    role: Role,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Starts a program; its output goes to `LOGS/NAME.log`.
    pub fn start<I: IntoIterator<Item: AsRef<OsStr>>>(
        namespace: &Namespace,
        role: Role,
        (logs, name): (&Path, &str),
        program: impl AsRef<OsStr>,
        arguments: I,
    ) -> Self {
        let log = logs.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let mut command = namespace.command("setpriv");
        match role {
            // The signal comes when the thread ends that starts the program: the test's own.
            Role::Proxy => {
                command.args(["--reuid=2140", "--regid=2140", "--clear-groups", "--pdeathsig=KILL"])
            }
            Role::Weft => command.arg("--pdeathsig=KILL"),
            Role::App => command.arg("--pdeathsig=TERM"),
        };
        command.arg("--").arg(program.as_ref()).args(arguments);
        command.stdout(output.try_clone().unwrap()).stderr(Stdio::from(output));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name: name.into(), child, log, role, ended: None }
    }

    /// Waits until the log has `text`; panics with the log when the program ends before or is too slow.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, within: Duration) {
        eventually(within, || {
            let log = self.log();
            if let Some(status) = self.status() {
                panic!("{} ended ({status}) before it said {text:?}:\n{log}", self.name);
            }
            holds(log.contains(text), format!("{} has not said {text:?}:\n{log}", self.name))
        });
    }

    /// All it has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        }
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        eventually(within, || self.status().ok_or(format!("{} still runs:\n{}", self.name, self.log())))
    }

    /// Ends it at once, with no chance to say goodbye.
    pub fn kill(&mut self) {
        if self.status().is_none() {
            self.child.kill().unwrap();
            self.ended = Some(self.child.wait().unwrap());
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Resident memory in bytes (`VmRSS`).
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let tail = &log[log.floor_char_boundary(log.len().saturating_sub(TAIL_BYTES))..];
            let status = self.status();
            eprintln!("--- {} ({status:?}) said:\n{tail}", self.name);
        }
        if matches!(self.role, Role::App) && self.status().is_none() {
            self.signal(Signal::SIGTERM);
            let asked = Instant::now();
            while self.status().is_none() && asked.elapsed() < FAREWELL {
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill();
    }
}
