//! The TCP probe: whether the application takes connections on a port, for a kubelet that cannot ask it itself. A `tcpSocket` probe
//! would reach the proxy, which accepts for everybody; the injector makes it `/probe/tcp/PORT` of the admin port.
//!
//! Not here: HTTP (`admin.rs`), and the order in which an application's addresses are tried (`proxy-http::plain`).

use policy::limits::TCP_PROBE_WAIT;
use proxy_http::plain::find_local;
use proxy_transport::SystemNetwork;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::time::timeout;

/// Which ports may be asked about, and how they are reached.
#[derive(Clone, Debug, Default)]
pub struct TcpProbe {
    pub network: SystemNetwork,
    /// Others are not dialled: whoever reaches the admin port could look around in the pod.
    pub ports: Vec<u16>,
}

impl TcpProbe {
    /// Connects as the inbound side would for a client that has dialled `pod` at this port, and closes at once.
    pub async fn ask(&self, pod: IpAddr, port: u16) -> io::Result<()> {
        let address = SocketAddr::new(pod.to_canonical(), port);
        let connect = find_local(address, 0, |address| self.network.connect_local(address));
        match timeout(TCP_PROBE_WAIT, connect).await {
            Ok(connected) => connected.map(drop),
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {TCP_PROBE_WAIT:?}")))
            }
        }
    }
}
