//! The namespaces that hold the whole demo, so that nothing of it can remain: the process that was called (outside)
//! waits at the terminal; its one child (inside) is PID 1 of a PID namespace, and with it everything in there ends.
//!
//! The inside is told to stop by the end of its standard input, which also comes when the outside is killed. To
//! signals of the terminal it is deaf, as the kernel spares the PID 1 of a namespace those it did not ask for.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getegid, geteuid};

/// The exit code of a process ended by the terminal's interrupt, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// Signals closer together are one: timeout(1) sends two, one to its child and one to the process group.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

const REMEDY: &str = "the demo needs root, or a kernel that lets users make user namespaces. \
    Is one of these in the way? user.max_user_namespaces=0, kernel.unprivileged_userns_clone=0, \
    kernel.apparmor_restrict_unprivileged_userns=1 (see them with sysctl), or a container without --privileged";

/// How the inside ended.
pub enum Ended {
    /// By itself, or after it was asked to, with this exit code.
    With(u8),
    /// It had to be killed.
    Killed,
}

/// Moves this process to new namespaces and runs `inside` as their PID 1 until it ends. The first signal asks it to
/// stop, a later one kills it. Must be called while the process has one thread.
pub fn enclose(inside: &mut Command) -> anyhow::Result<Ended> {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD];
    let signals: SigSet = signals.into_iter().collect();
    signals.thread_block().context("blocking signals")?;
    enter()?;
    let mut child = inside.stdin(Stdio::piped()).spawn().context("starting in the new namespaces")?;
    let mut lifeline = child.stdin.take();
    let mut asked: Option<Instant> = None;
    loop {
        match signals.wait().context("waiting for signals")? {
            Signal::SIGCHLD => {}
            _ if asked.is_some_and(|asked| asked.elapsed() > ONE_SIGNAL) => return kill(child),
            _ => {
                asked.get_or_insert_with(Instant::now);
                drop(lifeline.take());
            }
        }
        if let Some(status) = child.try_wait().context("waiting for the demo")? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(Ended::Killed, Ended::With));
        }
    }
}

fn kill(mut child: Child) -> anyhow::Result<Ended> {
    child.kill().context("killing the demo")?;
    child.wait().context("waiting for the demo")?;
    Ok(Ended::Killed)
}

fn enter() -> anyhow::Result<()> {
    let (user, group) = (geteuid(), getegid());
    let namespaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if user.is_root() {
        match unshare(namespaces) {
            // Root of a container may lack the capability and yet be allowed a user namespace.
            Err(Errno::EPERM) => {}
            result => return result.context("making network, mount and PID namespaces"),
        }
    }
    match unshare(CloneFlags::CLONE_NEWUSER | namespaces) {
        Ok(()) => {}
        Err(errno @ (Errno::EPERM | Errno::ENOSPC | Errno::EINVAL | Errno::ENOSYS)) => {
            bail!("the kernel refuses a user namespace ({}): {REMEDY}", errno.desc())
        }
        Err(errno) => return Err(errno).context("making user, network, mount and PID namespaces"),
    }
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).with_context(|| {
            format!("the kernel refuses /proc/self/{file} of the new user namespace: {REMEDY}")
        })
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))
}

/// The inside's first act: its mounts become its own, and it blocks no signals, for the programs that it will start
/// inherit that.
pub fn settle() -> anyhow::Result<()> {
    SigSet::all().thread_unblock().context("unblocking signals")?;
    let recursive_private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, recursive_private, None::<&str>)
        .with_context(|| format!("the kernel grants no rights in the new namespaces: {REMEDY}"))
}

/// The PID of this process as seen by those who mounted /proc: outside.
pub fn pid_outside() -> io::Result<String> {
    Ok(fs::read_link(Path::new("/proc/self"))?.to_string_lossy().into_owned())
}

/// Whether this process is in a user namespace that maps one user only, as the demo makes where it is not root.
pub fn is_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().nth(2) == Some("1")
}

/// Whether the outside wants an end.
#[derive(Clone, Default)]
pub struct Stop {
    asked: Arc<(Mutex<bool>, Condvar)>,
}

/// The person at the terminal does not want to wait any longer.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

impl Stop {
    /// Is asked for when standard input ends.
    pub fn at_end_of_input() -> io::Result<Self> {
        let stop = Self::default();
        let asked = stop.asked.clone();
        let listen = move || {
            // Whatever ends it, no one is there any more.
            let _ = io::stdin().lock().read_to_end(&mut Vec::new());
            *asked.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            asked.1.notify_all();
        };
        thread::Builder::new().name("stop".into()).spawn(listen)?;
        Ok(stop)
    }

    /// Waits; an error, at once, when the end is asked for.
    pub fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        let asked = self.asked.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.asked.1.wait_timeout_while(asked, time, |asked| !*asked);
        let (asked, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *asked { Err(Interrupted) } else { Ok(()) }
    }
}
