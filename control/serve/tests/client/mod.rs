//! A control in its own folder, and a client as a proxy has one.

use crate::generated::{
    endpoints_client::EndpointsClient, identity_client::IdentityClient, inbound_client::InboundClient,
    outbound_client::OutboundClient, report_client::ReportClient,
};
use control_serve::{Config, Objects, Server, StartError};
use policy::TrustDomain;
use proxy_tls::Trust;
use std::{fs, io, net::SocketAddr, path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// Nothing in these tests takes nearly as long; what does has failed.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Running {
    pub folder: TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub task: JoinHandle<Result<(), StartError>>,
    pub stop: oneshot::Sender<()>,
}

/// A folder with manifests, for a control that is started later.
pub fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("manifests")).expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join("manifests").join(name), text).expect("a manifest");
    }
    folder
}

pub fn trust_domain() -> TrustDomain {
    "cluster.local".parse().expect("a trust domain")
}

pub fn config(folder: &TempDir) -> Config {
    let path = folder.path();
    let mut config =
        Config::new(Objects::Directories(vec![path.join("manifests")]), path.join("state"), trust_domain());
    config.listen = "127.0.0.1:0".parse().expect("an address");
    config.admin_listen = "127.0.0.1:0".parse().expect("an address");
    config
}

pub async fn start(files: &[(&str, &str)]) -> Running {
    start_with(folder(files), |_| {}).await
}

pub async fn start_with(folder: TempDir, set: impl FnOnce(&mut Config)) -> Running {
    let mut config = config(&folder);
    set(&mut config);
    let server = Server::start(config).await.expect("a control");
    let (address, admin) = server.addresses().expect("its addresses");
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    Running { folder, address, admin, task, stop }
}

impl Running {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a manifest as careful programs do.
    pub fn replace(&self, name: &str, text: &str) {
        let half = self.path("half");
        fs::write(&half, text).expect("a file");
        fs::rename(half, self.path("manifests").join(name)).expect("a manifest");
    }

    pub fn trust(&self) -> Trust {
        let pem = fs::read(self.path("state/ca.pem")).expect("the roots");
        Trust::from_pem(trust_domain(), &pem).expect("roots")
    }

    pub fn token(&self, account: &str) -> String {
        fs::read_to_string(self.path("state/tokens").join(format!("{account}.token"))).expect("a token")
    }

    pub async fn connect(&self) -> Channel {
        self.try_connect(&self.trust()).await.expect("a connection")
    }

    pub async fn try_connect(&self, trust: &Trust) -> Result<Channel, tonic::transport::Error> {
        let (address, tls) = (self.address, proxy_tls::control_client(trust).expect("a TLS configuration"));
        let connector = TlsConnector::from(tls);
        let connect = move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name =
                    proxy_tls::server_name(&proxy_tls::control_identity(&trust_domain())).expect("a name");
                let stream = connector.connect(name, stream).await?;
                Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        };
        Endpoint::from_static("http://control").connect_with_connector(tower::service_fn(connect)).await
    }

    pub async fn outbound(&self) -> OutboundClient<Channel> {
        OutboundClient::new(self.connect().await)
    }

    pub async fn endpoints(&self) -> EndpointsClient<Channel> {
        EndpointsClient::new(self.connect().await)
    }

    pub async fn inbound(&self) -> InboundClient<Channel> {
        InboundClient::new(self.connect().await)
    }

    pub async fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.connect().await)
    }

    pub async fn report(&self) -> ReportClient<Channel> {
        ReportClient::new(self.connect().await)
    }

    /// Status line, headers and body.
    pub async fn admin(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).await.expect("the admin port");
        let request = format!("GET {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut response = String::new();
        stream.read_to_string(&mut response).await.expect("a response");
        response
    }

    /// Asks until the answer is as wanted.
    pub async fn admin_until(&self, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let patience = tokio::time::Instant::now() + PATIENCE;
        loop {
            let response = self.admin(path).await;
            if wanted(&response) {
                return response;
            }
            assert!(tokio::time::Instant::now() < patience, "not what is wanted, in time: {response}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The next message; fails when it does not come.
pub async fn next<T>(stream: &mut Streaming<T>) -> T {
    soon(stream.message()).await.expect("no error").expect("a message")
}

/// What comes in time.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it comes in time")
}
