//! What control is told when it starts.

use policy::TrustDomain;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Everything that can be set. `Config::new` has the defaults of the command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the objects are.
    pub objects: Objects,
    /// Where the root's key, the roots and the tokens are kept.
    pub state: PathBuf,
    /// Proxies connect here.
    pub listen: SocketAddr,
    /// `/ready`, `/live`, `/metrics`, `/problems`.
    pub admin_listen: SocketAddr,
    pub trust_domain: TrustDomain,
    /// How long certificates are valid, the clock skew before it not counted.
    pub certificate_lifetime: Duration,
    /// How long a new root is told to proxies before an issuer below it signs.
    pub root_spread: Duration,
    /// Each stream says at least this often what it last said: a proxy that lost an update, and the heartbeat after it,
    /// still finds out within 65 s.
    pub heartbeat: Duration,
    /// Directories and state are looked at this often even when nothing says that they changed.
    pub rescan: Duration,
}

/// Where objects are read from.
#[derive(Clone, Debug)]
pub enum Objects {
    /// Directories of manifests.
    Directories(Vec<PathBuf>),
    /// The API server, with control's own namespace there and the audience of proxies' tokens.
    Kubernetes { namespace: String, audience: String },
}

impl Config {
    pub fn new(objects: Objects, state: PathBuf, trust_domain: TrustDomain) -> Self {
        let any = |port| SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
        Self {
            objects,
            state,
            listen: any(8486),
            admin_listen: any(8487),
            trust_domain,
            certificate_lifetime: Duration::from_secs(24 * 3600),
            root_spread: Duration::from_secs(65),
            heartbeat: Duration::from_secs(20),
            rescan: Duration::from_secs(30),
        }
    }
}
