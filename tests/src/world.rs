//! One test's world: a bridge that pods hang on, a directory of manifests, and a control that reads it.

use crate::{
    PATIENCE, eventually, holds,
    http::Client,
    manifest::{Manifests, Phase, PodManifest, Port},
    metrics::Metrics,
    namespace::Namespace,
    pod::{Pod, ProxyOptions},
    program::{Program, Role},
};
use nix::unistd::geteuid;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

/// Worlds that stand at once: the tests' programs fill two CPUs.
const WORLDS: usize = 2;
/// Control's ports.
pub const CONTROL_PORT: u16 = 8486;
const CONTROL_ADMIN_PORT: u16 = 8487;

static STANDING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// A network, control, and whatever a test puts there.
pub struct World {
    pub manifests: Manifests,
    pub control: Control,
    /// Where pods meet; what belongs to no pod lives here.
    pub bridge: Namespace,
    folder: tempfile::TempDir,
    pods: AtomicU16,
    services: AtomicU16,
    /// Last, so that the place is free only when all else is gone.
    _place: Place,
}

/// A control plane of a world, in a namespace of its own.
pub struct Control {
    pub program: Program,
    pub namespace: Namespace,
    pub address: SocketAddr,
    state: PathBuf,
    /// The folder of logs, its name, and its command line.
    command: (PathBuf, String, Vec<String>),
}

/// The addresses of a Service.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Service {
    /// Its address of both families, IPv4 first.
    pub fn at(&self, port: u16) -> [SocketAddr; 2] {
        [SocketAddr::new(self.v4.into(), port), SocketAddr::new(self.v6.into(), port)]
    }
}

impl World {
    pub fn new() -> Self {
        Self::with_control(&[])
    }

    /// A world whose control has further flags.
    pub fn with_control(flags: &[&str]) -> Self {
        assert!(geteuid().is_root(), "these tests make network namespaces: run them as root");
        let place = Place::take();
        let folder = tempfile::Builder::new().prefix("weft-e2e-").tempdir().unwrap();
        // Proxies run as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let manifests = Manifests::new(folder.path().join("manifests"));
        let bridge = Namespace::new("net");
        bridge.ip("link add br0 type bridge mcast_snooping 0\n\
                   link set br0 up\n\
                   addr add 10.244.0.1/16 dev br0\n\
                   addr add fd00:244::1/64 dev br0 nodad");
        let namespace = Namespace::new("control");
        let (v4, v6) = pod_addresses(2);
        connect(&bridge, &namespace, 2, v4, v6);
        let control = Control::start(namespace, v4.into(), folder.path(), "control", &manifests, flags);
        let (pods, services) = (AtomicU16::new(3), AtomicU16::new(1));
        Self { manifests, control, bridge, folder, pods, services, _place: place }
    }

    /// The folder of this world: for logs, data and configuration of programs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A Service that leads to the pods of `app`.
    pub fn service(&self, name: &str, app: &str, ports: &[Port]) -> Service {
        let number = self.services.fetch_add(1, Ordering::Relaxed);
        let v4 = Ipv4Addr::new(10, 96, (number >> 8) as u8, number as u8);
        let v6 = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number);
        self.manifests.service(name, app, v4, v6, ports);
        self.settle();
        Service { v4, v6 }
    }

    /// A ready pod with a proxy.
    pub fn meshed(&self, app: &str) -> Pod {
        let mut pod = self.pod(app, true, Phase::Ready);
        pod.start_proxy(self.proxy_options(&pod));
        pod
    }

    /// A ready pod without.
    pub fn unmeshed(&self, app: &str) -> Pod {
        self.pod(app, false, Phase::Ready)
    }

    /// A pod whose proxy, if it is to have one, has not been started. Its name is that of its app and a number.
    pub fn pod(&self, app: &str, meshed: bool, phase: Phase) -> Pod {
        let pod = self.pod_while_control_is_gone(app, meshed, phase);
        self.settle();
        pod
    }

    /// The same, without waiting until control knows of it.
    pub fn pod_while_control_is_gone(&self, app: &str, meshed: bool, phase: Phase) -> Pod {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let (v4, v6) = pod_addresses(number);
        let name = format!("{app}-{number}");
        let namespace = Namespace::new(&name);
        connect(&self.bridge, &namespace, number, v4, v6);
        let manifest = PodManifest { name, app: app.into(), meshed, phase, v4, v6 };
        self.manifests.account(app);
        self.manifests.pod(&manifest);
        Pod::new(namespace, manifest, self.manifests.clone(), self.folder().into())
    }

    /// How this world's proxies are started.
    pub fn proxy_options(&self, pod: &Pod) -> ProxyOptions {
        self.control.proxy_options(&pod.manifest.app)
    }

    /// Waits until control holds as many objects as were made here.
    pub fn settle(&self) {
        self.control.settle(&self.manifests);
    }

    /// One more control in this world, with its own state and so its own root, that reads the same manifests.
    pub fn another_control(&self, name: &str, flags: &[&str]) -> Control {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let (v4, v6) = pod_addresses(number);
        let namespace = Namespace::new(name);
        connect(&self.bridge, &namespace, number, v4, v6);
        Control::start(namespace, v4.into(), self.folder(), name, &self.manifests, flags)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Control {
    fn start(
        namespace: Namespace,
        ip: IpAddr,
        folder: &Path,
        name: &str,
        manifests: &Manifests,
        flags: &[&str],
    ) -> Self {
        let state = folder.join(format!("{name}-state"));
        let mut arguments: Vec<String> =
            ["--directory", &manifests.folder().display().to_string(), "--state"].map(String::from).into();
        arguments.push(state.display().to_string());
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let command = (folder.to_owned(), name.to_owned(), arguments);
        let program = Self::program(&namespace, &command);
        Self { program, namespace, address: SocketAddr::new(ip, CONTROL_PORT), state, command }
    }

    fn program(namespace: &Namespace, (folder, name, arguments): &(PathBuf, String, Vec<String>)) -> Program {
        let binary = binary("weft-control");
        let mut program = Program::start(namespace, Role::Weft, (folder, name), binary, arguments);
        program.wait_for("weft-control: ready", PATIENCE);
        program
    }

    /// Starts it again after its end, with the state that it left.
    pub fn start_again(&mut self) {
        self.program.kill();
        self.program = Self::program(&self.namespace, &self.command);
    }

    /// A page of its admin port.
    pub fn page(&self, path: &str) -> String {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), CONTROL_ADMIN_PORT);
        let mut client = Client::from(self.namespace.connect(address).unwrap());
        let answer = client.get(path);
        assert_eq!(answer.head.status(), 200, "{path}: {answer:?}");
        answer.text().to_owned()
    }

    pub fn metrics(&self) -> Metrics {
        Metrics(self.page("/metrics"))
    }

    /// Where a service account's token is, and the roots that proxies trust.
    pub fn proxy_options(&self, account: &str) -> ProxyOptions {
        let namespace = crate::manifest::NAMESPACE;
        ProxyOptions {
            control: self.address,
            trust_anchors: self.trust_anchors(),
            token: self.state.join(format!("tokens/{namespace}/{account}.token")),
            flags: Vec::new(),
            backend: "native",
        }
    }

    /// Its root's key and what else it keeps.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The file of the roots that proxies trust.
    pub fn trust_anchors(&self) -> PathBuf {
        self.state.join("ca.pem")
    }

    fn settle(&self, manifests: &Manifests) {
        let documents = manifests.count();
        eventually(PATIENCE, || {
            let objects = self.metrics().sum("weft_control_objects", &[]) as usize;
            holds(objects >= documents, format!("control holds {objects} of {documents} objects"))
        });
    }
}

/// A Weft program: beside the test's own folder, or in `WEFT_BIN_DIR`.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("WEFT_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("a process has a program");
        test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST").into()
    });
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: `cargo build --workspace` makes it", path.display());
    path
}

fn pod_addresses(number: u16) -> (Ipv4Addr, Ipv6Addr) {
    (
        Ipv4Addr::new(10, 244, (number >> 8) as u8, number as u8),
        Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, number),
    )
}

/// Hangs a namespace on the bridge, with addresses of both families and default routes, so that Service addresses leave it.
fn connect(bridge: &Namespace, namespace: &Namespace, number: u16, v4: Ipv4Addr, v6: Ipv6Addr) {
    bridge.ip(&format!(
        "link add port{number} type veth peer name eth0 netns {}\n\
         link set port{number} master br0 up",
        namespace.name()
    ));
    namespace.ip(&format!(
        "addr add {v4}/16 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         link set eth0 up\n\
         route add default via 10.244.0.1\n\
         route add default via fd00:244::1"
    ));
}

/// One of the places for worlds, given back when dropped.
struct Place;

impl Place {
    fn take() -> Self {
        let standing = STANDING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut standing = FREED
            .wait_while(standing, |standing| *standing >= WORLDS)
            .unwrap_or_else(PoisonError::into_inner);
        *standing += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *STANDING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}
