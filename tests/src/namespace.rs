//! A network namespace: made by name, used from threads and by programs, removed when dropped.

use crate::PATIENCE;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};
use std::{
    fs::{self, File},
    io::{self, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// All names begin so; the test process' id and a number follow.
const PREFIX: &str = "weft-e2e-";
const FOLDER: &str = "/run/netns";
/// Connections that wait to be accepted, where a burst of them comes.
const BACKLOG: i32 = 1024;

static COUNT: AtomicU32 = AtomicU32::new(0);
static CLEANED: Once = Once::new();

/// A network namespace of this test process.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// A new one, with nothing but its loopback up. `what` becomes part of its name.
    pub fn new(what: &str) -> Self {
        CLEANED.call_once(remove_orphans);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self(format!("{PREFIX}{}-{number}-{what}", std::process::id()));
        done(Command::new("ip").args(["netns", "add", &namespace.0]));
        namespace.ip("link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip` commands in it, one a line.
    pub fn ip(&self, lines: &str) {
        let mut ip = Command::new("ip")
            .args(["-n", &self.0, "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tests need `ip` of iproute2");
        let mut input = ip.stdin.take().expect("it is piped");
        input.write_all(lines.as_bytes()).unwrap();
        drop(input);
        let output = ip.wait_with_output().unwrap();
        assert!(output.status.success(), "ip {lines}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Does something in it, on a thread of its own. Sockets made there stay in the namespace wherever they are used.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path()).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects from it. Reads and writes of the stream fail after [`PATIENCE`].
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Listens in it, on all addresses of both families.
    pub fn listen(&self, port: u16) -> TcpListener {
        self.within(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
            socket.listen(BACKLOG)?;
            io::Result::Ok(socket.into())
        })
        .unwrap_or_else(|error| panic!("listen on {port} in {}: {error}", self.0))
    }

    /// A command that will run in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command.stdin(Stdio::null());
        command
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(FOLDER).join(&self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // In a panic it may not be there yet.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// Runs a command that must succeed, and gives what it printed.
#[track_caller]
pub fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Removes what test processes that were killed have left.
fn remove_orphans() {
    for entry in fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !PathBuf::from("/proc").join(pid).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}
