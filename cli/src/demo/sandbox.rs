//! Pods as network namespaces: each is a thread that unshares its network and its mounts, as a pause container would,
//! and starts programs in them on request. The namespaces end with the thread and the programs.
//! What runs in a pod, and when, is the kubelet's business.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::links::{Links, Peer};

const BRIDGE: &str = "weft0";

type Job = Box<dyn FnOnce() + Send>;

/// The node's side of the pods' network: a bridge in the namespace of the demo.
pub struct Network {
    links: Links,
    gateways: Vec<Gateway>,
    plugged: usize,
}

/// The bridge's address in one family; the pods' are in its subnet.
#[derive(Clone, Copy)]
pub struct Gateway {
    pub address: IpAddr,
    pub prefix_length: u8,
}

/// The namespaces of one pod.
pub struct Sandbox {
    jobs: mpsc::Sender<Job>,
}

impl Network {
    /// Makes the bridge in the calling thread's network namespace.
    pub fn new(gateways: Vec<Gateway>) -> anyhow::Result<Self> {
        let links = Links::open()?;
        links.set_up("lo")?;
        links.add_bridge(BRIDGE)?;
        links.set_up(BRIDGE)?;
        for gateway in &gateways {
            links.add_address(BRIDGE, gateway.address, gateway.prefix_length)?;
        }
        Ok(Self { links, gateways, plugged: 0 })
    }

    /// A new pod with these addresses, whose names for others are those of the `hosts` file.
    pub fn sandbox(&mut self, addresses: Vec<IpAddr>, hosts: &Path) -> anyhow::Result<Sandbox> {
        self.plugged += 1;
        let port = format!("pod{}", self.plugged);
        let (jobs, work) = mpsc::channel::<Job>();
        let (made, outcome) = mpsc::channel();
        let (gateways, hosts, end) = (self.gateways.clone(), PathBuf::from(hosts), port.clone());
        let live = move || {
            let result = unshare_pod(&gateways, &addresses, &hosts, &end);
            let failed = result.is_err();
            let is_awaited = made.send(result).is_ok();
            if !failed && is_awaited {
                work.into_iter().for_each(|job| job());
            }
        };
        thread::Builder::new().name(port.clone()).spawn(live).context("starting a thread for a pod")?;
        outcome.recv().map_err(|_| anyhow!("the thread of a pod ended"))??;
        self.links.plug(&port, BRIDGE)?;
        Ok(Sandbox { jobs })
    }
}

impl Sandbox {
    /// Starts a program in the pod.
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let (started, outcome) = mpsc::channel();
        let job: Job = Box::new(move || {
            // The other end waits for it below.
            let _ = started.send(command.spawn());
        });
        let gone = |_| io::Error::other("the thread of the pod ended");
        self.jobs.send(job).map_err(|_| io::Error::other("the thread of the pod ended"))?;
        outcome.recv().map_err(gone)?
    }
}

/// Moves the calling thread, and what it starts from now on, into namespaces of its own.
fn unshare_pod(gateways: &[Gateway], addresses: &[IpAddr], hosts: &Path, port: &str) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("unsharing the namespaces of a pod")?;
    bind_hosts(hosts)?;
    let links = Links::open()?;
    links.set_up("lo")?;
    links.add_veth("eth0", &Peer { name: port, namespace_of: std::process::id() })?;
    links.set_up("eth0")?;
    for address in addresses {
        let in_family = gateways.iter().find(|gateway| gateway.address.is_ipv4() == address.is_ipv4());
        let gateway = in_family.with_context(|| format!("no gateway for {address}"))?;
        links.add_address("eth0", *address, gateway.prefix_length)?;
        links.add_default_route("eth0", gateway.address)?;
    }
    Ok(())
}

/// Puts the file in the place of /etc/hosts, for this mount namespace.
pub fn bind_hosts(hosts: &Path) -> anyhow::Result<()> {
    mount(Some(hosts), "/etc/hosts", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("mounting a file over /etc/hosts")
}
