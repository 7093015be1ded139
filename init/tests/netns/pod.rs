//! A pod to redirect: a network namespace with a default route, and a world at the other end of its cable.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Uid, geteuid, setfsuid};
use socket2::{Domain, SockAddr, Socket, Type};

/// The pod's own addresses.
pub const POD: [&str; 2] = ["10.99.0.2", "fd00:99::2"];
/// Services: addresses in the world, behind the pod's default route.
pub const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
/// More services, in a network of their own (/24, /64).
pub const OTHER_SERVICE: [&str; 2] = ["10.96.9.10", "fd00:96:9::10"];

/// Longest wait for what must happen; reached only by failing tests.
const PATIENCE: Duration = Duration::from_secs(5);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces, removed when dropped.
pub struct Pod {
    name: String,
    world: String,
}

/// A listener that is gone when dropped. A program that another test starts at that moment holds a copy of the
/// descriptor until it runs, so closing alone would leave the port in use.
pub struct Listener(Socket);

impl Listener {
    /// The next connection and who made it.
    pub fn accept(&self) -> io::Result<(Socket, SockAddr)> {
        self.0.accept()
    }

    /// Has `accept` answer at once.
    pub fn stop_waiting(&self) {
        self.0.set_nonblocking(true).unwrap();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Fails only on a socket that listens no more.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// In which of the two something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Pod,
    World,
}

/// Who connects: a uid, and a mark unless it is 0.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    pub uid: u32,
    pub mark: u32,
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Pod {
    pub fn new() -> Pod {
        assert!(
            geteuid().is_root(),
            "these tests make network namespaces: run them as root, or inside `unshare -Urnm --map-auto` \
             with a tmpfs on /run"
        );
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-init-{}-{number}", std::process::id());
        let pod = Pod { world: format!("{name}-w"), name };
        for line in pod.setup().lines() {
            let output = Command::new("ip").args(line.split_whitespace()).output().unwrap();
            assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        pod
    }

    fn setup(&self) -> String {
        let (pod, world) = (&self.name, &self.world);
        let [service, service6] = SERVICE;
        let [other, other6] = OTHER_SERVICE;
        format!(
            "netns add {pod}
             netns add {world}
             -n {pod} link set lo up
             -n {world} link set lo up
             -n {pod} link add eth0 type veth peer name eth0 netns {world}
             -n {pod} addr add 10.99.0.2/24 dev eth0
             -n {pod} addr add fd00:99::2/64 dev eth0 nodad
             -n {world} addr add 10.99.0.1/24 dev eth0
             -n {world} addr add fd00:99::1/64 dev eth0 nodad
             -n {world} addr add {service}/32 dev lo
             -n {world} addr add {service6}/128 dev lo nodad
             -n {world} addr add {other}/32 dev lo
             -n {world} addr add {other6}/128 dev lo nodad
             -n {pod} link set eth0 up
             -n {world} link set eth0 up
             -n {pod} route add default via 10.99.0.1
             -n {pod} -6 route add default via fd00:99::1"
        )
    }

    /// Does something in one of the namespaces, on a thread of its own.
    pub fn within<T: Send>(&self, place: Place, act: impl FnOnce() -> T + Send) -> T {
        let name = if place == Place::Pod { &self.name } else { &self.world };
        let namespace = File::open(format!("/run/netns/{name}")).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program in the pod.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Said {
        let output = self.within(Place::Pod, || Command::new(program).args(arguments).output()).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs a program in the pod that must succeed, and gives what it printed.
    pub fn done(&self, program: &str, arguments: &[&str]) -> String {
        let said = self.run(program, arguments);
        assert_eq!(said.code, Some(0), "{program} {arguments:?}: {said:?}");
        said.out
    }

    /// `weft-init`, which must succeed.
    pub fn init(&self, arguments: &str) -> String {
        self.done(env!("CARGO_BIN_EXE_weft-init"), &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// `weft-init`, however it ends.
    pub fn try_init(&self, arguments: &str) -> Said {
        self.run(env!("CARGO_BIN_EXE_weft-init"), &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Feeds `iptables-restore` of some kind.
    pub fn restore(&self, program: &str, input: &str) {
        let file = std::env::temp_dir().join(format!("{}-{program}", self.name));
        fs::write(&file, input).unwrap();
        self.done(program, &["--noflush", file.to_str().unwrap()]);
        fs::remove_file(&file).unwrap();
    }

    /// All rules that the pod's kernel holds, by every interface it has, without counters and comments.
    pub fn rules(&self) -> String {
        let programs =
            ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];
        let mut rules = String::new();
        for program in programs {
            rules.push_str(&format!("{program}\n"));
            for line in self.done(program, &[]).lines().filter(|line| !line.starts_with('#')) {
                // `:OUTPUT ACCEPT [12:720]`
                rules.push_str(line.split(" [").next().unwrap());
                rules.push('\n');
            }
        }
        for line in self.done("nft", &["--stateless", "list", "ruleset"]).lines() {
            rules.push_str(&format!("{line}\n"));
        }
        rules
    }

    /// Listens in one of the namespaces.
    pub fn listen(&self, place: Place, address: SocketAddr) -> Listener {
        self.within(place, || {
            let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            if address.is_ipv6() {
                listener.set_only_v6(true)?;
            }
            listener.set_reuse_address(true)?;
            listener.bind(&address.into())?;
            listener.listen(16)?;
            listener.set_read_timeout(Some(PATIENCE))?;
            io::Result::Ok(Listener(listener))
        })
        .unwrap_or_else(|error| panic!("listen on {address}: {error}"))
    }

    /// Connects from one of the namespaces.
    pub fn connect(&self, place: Place, who: Who, address: SocketAddr) -> io::Result<Socket> {
        self.within(place, || {
            let own = geteuid();
            let client = as_uid(who.uid, || Socket::new(Domain::for_address(address), Type::STREAM, None))?;
            if who.mark != 0 {
                client.set_mark(who.mark)?;
            }
            client.connect_timeout(&address.into(), PATIENCE)?;
            assert_eq!(geteuid(), own);
            Ok(client)
        })
    }
}

/// Makes a socket of another uid: the one its thread has for files.
fn as_uid<T>(uid: u32, make: impl FnOnce() -> T) -> T {
    let uid = Uid::from_raw(uid);
    setfsuid(uid);
    // The second call answers with what the first one set.
    assert_eq!(setfsuid(uid), uid, "uid {uid} must exist");
    let made = make();
    setfsuid(geteuid());
    made
}

impl Drop for Pod {
    fn drop(&mut self) {
        for name in [&self.name, &self.world] {
            // In a panic both may not be there yet.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// An address and port.
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), port)
}

/// The address that listens on all addresses of the same family.
pub fn any(address: SocketAddr) -> SocketAddr {
    at(if address.is_ipv4() { "0.0.0.0" } else { "::" }, address.port())
}

/// Where the connection wanted to go before it was redirected.
pub fn original(accepted: &Socket, address: SocketAddr) -> io::Result<Option<SocketAddr>> {
    let original = if address.is_ipv4() { accepted.original_dst_v4() } else { accepted.original_dst_v6() };
    original
        .as_ref()
        .map(SockAddr::as_socket)
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))
}
