//! A pod: a namespace with an address of each family, its document, and perhaps a proxy.

use crate::{
    PATIENCE, eventually,
    http::Client,
    manifest::{Manifests, NAMESPACE, Phase, PodManifest},
    metrics::Metrics,
    namespace::{Namespace, done},
    program::{Program, Role},
    world::binary,
};
use std::{
    ffi::OsStr,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::chown,
    path::PathBuf,
};

/// The proxy's ports.
pub const OUTBOUND_PORT: u16 = 4240;
pub const INBOUND_PORT: u16 = 4243;
pub const ADMIN_PORT: u16 = 4291;
const PROXY_UID: u32 = 2140;
/// More than one, so that what workers share is shared.
const WORKERS: u16 = 2;

/// One pod.
pub struct Pod {
    pub manifest: PodManifest,
    /// Before the namespace, so that it is gone first.
    pub proxy: Option<Program>,
    pub namespace: Namespace,
    manifests: Manifests,
    folder: PathBuf,
    /// The proxy's command line.
    flags: Vec<String>,
}

/// How a proxy is started.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    pub control: SocketAddr,
    pub trust_anchors: PathBuf,
    pub token: PathBuf,
    /// Further flags.
    pub flags: Vec<String>,
    /// What carries the redirection: a back end of weft-init.
    pub backend: &'static str,
}

impl Pod {
    pub(crate) fn new(
        namespace: Namespace,
        manifest: PodManifest,
        manifests: Manifests,
        folder: PathBuf,
    ) -> Self {
        Self { manifest, proxy: None, namespace, manifests, folder, flags: Vec::new() }
    }

    /// NAMESPACE/NAME.
    pub fn workload(&self) -> String {
        format!("{NAMESPACE}/{}", self.manifest.name)
    }

    /// The identity that control gives its proxy.
    pub fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{}", self.manifest.app)
    }

    /// Its own address of both families, IPv4 first.
    pub fn at(&self, port: u16) -> [SocketAddr; 2] {
        [SocketAddr::new(self.manifest.v4.into(), port), SocketAddr::new(self.manifest.v6.into(), port)]
    }

    /// Redirects its traffic and starts its proxy; it is ready then.
    pub fn start_proxy(&mut self, options: ProxyOptions) {
        self.start_unready_proxy(options);
        self.proxy_mut().wait_for("weft-proxy: ready", PATIENCE);
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT);
        eventually(PATIENCE, || match self.admin(address, "GET", "/ready") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Redirects its traffic and starts its proxy, whether that will ever be ready or not.
    pub fn start_unready_proxy(&mut self, options: ProxyOptions) {
        done(self.namespace.command(binary("weft-init")).args(["apply", "--backend", options.backend]));
        let token = self.folder.join(format!("{}.token", self.manifest.name));
        eventually(PATIENCE, || fs::copy(&options.token, &token).map_err(|error| error.to_string()));
        chown(&token, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
        let anchors = self.folder.join(format!("{}.pem", self.manifest.name));
        fs::copy(&options.trust_anchors, &anchors).unwrap();
        chown(&anchors, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
        let mut flags = vec![
            "--workload".to_owned(),
            self.workload(),
            "--control".to_owned(),
            options.control.to_string(),
            "--trust-anchors".to_owned(),
            anchors.display().to_string(),
            "--token-file".to_owned(),
            token.display().to_string(),
            "--workers".to_owned(),
            WORKERS.to_string(),
        ];
        flags.extend(options.flags);
        self.proxy = Some(self.spawn_proxy(&flags));
        self.flags = flags;
    }

    /// Kills the proxy and starts it anew, as a crash would; not ready yet.
    pub fn restart_proxy(&mut self) {
        self.proxy_mut().kill();
        self.proxy = Some(self.spawn_proxy(&self.flags));
    }

    fn spawn_proxy(&self, flags: &[String]) -> Program {
        let log = format!("{}-proxy", self.manifest.name);
        let program = binary("weft-proxy");
        Program::start(&self.namespace, Role::Proxy, (&self.folder, &log), program, flags)
    }

    pub fn proxy(&self) -> &Program {
        self.proxy.as_ref().expect("the pod is meshed")
    }

    pub fn proxy_mut(&mut self) -> &mut Program {
        self.proxy.as_mut().expect("the pod is meshed")
    }

    /// What its proxy counts.
    pub fn metrics(&self) -> Metrics {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT);
        let (status, text) = self.admin(address, "GET", "/metrics").unwrap();
        assert_eq!(status, 200);
        Metrics(text)
    }

    /// A page of the proxy's admin port, as seen from inside the pod.
    pub fn page(&self, method: &str, path: &str) -> io::Result<(u16, String)> {
        self.admin(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT), method, path)
    }

    fn admin(&self, address: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
        let mut client = Client::from(self.connect(address)?);
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"));
        let answer = client.try_answer(method)?;
        Ok((answer.head.status(), answer.text().to_owned()))
    }

    /// Connects from the pod, as its application would.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.namespace.connect(to)
    }

    /// An HTTP client in the pod.
    #[track_caller]
    pub fn client(&self, to: SocketAddr) -> Client {
        self.connect(to).unwrap_or_else(|error| panic!("connect to {to}: {error}")).into()
    }

    /// Runs a program in the pod that must succeed, and gives what it printed.
    #[track_caller]
    pub fn done<I: IntoIterator<Item: AsRef<OsStr>>>(&self, program: &str, arguments: I) -> String {
        done(self.namespace.command(program).args(arguments))
    }

    /// Starts a program in the pod.
    pub fn start<I: IntoIterator<Item: AsRef<OsStr>>>(&self, program: &str, arguments: I) -> Program {
        let short = program.rsplit('/').next().unwrap_or(program);
        let log = format!("{}-{short}", self.manifest.name);
        Program::start(&self.namespace, Role::App, (&self.folder, &log), program, arguments)
    }

    /// Waits until a program in the pod listens.
    #[track_caller]
    pub fn wait_for_port(&self, port: u16) {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        eventually(3 * PATIENCE, || self.connect(address).map_err(|error| format!("port {port}: {error}")));
    }

    /// Tells control where the pod is in its life.
    pub fn set_phase(&mut self, phase: Phase) {
        self.manifest.phase = phase;
        self.manifests.pod(&self.manifest);
    }

    /// Takes its document away.
    pub fn delete(&self) {
        self.manifests.remove(&format!("pod-{}.yaml", self.manifest.name));
    }
}
