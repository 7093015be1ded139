//! A mesh of any size, by arithmetic: who is in it, what proxies must be told of it, and how it changes.
//!
//! Services have two ports, five Pods by default, and stand in Namespaces of fifty. Pods have loopback addresses, so that a
//! proxy can call control from its Pod's own address on any host. What is said by `endpoints`, `outbound` and `inbound` is
//! written down from Kubernetes' rules, not asked from control's index.

use policy::{
    Endpoint, Inbound, Outbound, Protocol, ServiceName, ServicePort, SpiffeId, Target, TrustDomain,
    WorkloadName,
};
use std::{
    collections::{HashSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

/// The port of every Service that is watched, and the Pods' port behind it.
pub const SERVICE_PORT: u16 = 80;
pub const POD_PORT: u16 = 8080;
/// A port of Pods that no Service leads to.
pub const OTHER_PORT: u16 = 9191;

/// Before the first Pod's address; and the first Service's.
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(127, 16, 0, 0);
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const SERVICES_PER_NAMESPACE: usize = 50;
const PODS_PER_NODE: usize = 50;
const ZONES: [&str; 3] = ["eu-central-1a", "eu-central-1b", "eu-central-1c"];
const WORDS: [&str; 8] =
    ["cart", "checkout", "catalogue", "payment", "recommendation", "session", "shipping", "stock"];

/// How large a mesh is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub services: usize,
    pub pods: usize,
}

/// All that is in the mesh.
pub struct Mesh {
    pub services: Vec<Service>,
    pub nodes: usize,
    /// Counts the writes; the mesh begins at 1.
    pub version: u64,
    trust_domain: TrustDomain,
    pods_made: u32,
}

pub struct Service {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// What `appProtocol` says of its port: any HTTP, or HTTP/2 without TLS.
    pub http2: bool,
    pub address: Ipv4Addr,
    pub pods: Vec<Pod>,
    /// Of the Service and of its EndpointSlice.
    pub version: u64,
    pub slice_version: u64,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub name: Arc<str>,
    pub address: Ipv4Addr,
    pub node: usize,
    pub phase: Phase,
    pub version: u64,
    /// Unique in the mesh.
    pub number: u32,
}

/// Where a Pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its Node, and has no address.
    Pending,
    /// It has its address and comes in the place of another.
    Starting,
    Ready,
    /// It was ready and fails its probe.
    Unready,
    /// It is being deleted and still answers.
    Terminating,
}

/// One change, as an operator would say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Pod begins to leave, and the one that comes in its place gets its address.
    Retire { service: usize, pod: usize },
    /// The Pod that comes in the place of one is ready, the old one is gone.
    Succeed { service: usize },
    /// A Pod fails its readiness probe, or passes it again.
    Flip { service: usize, pod: usize },
    /// A Service says that it speaks another protocol.
    Redeclare { service: usize },
}

/// An object that a change wrote, and the version that this made.
#[derive(Clone, Debug)]
pub struct Write {
    pub version: u64,
    pub verb: Verb,
    pub object: Object,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Added,
    Modified,
    Deleted,
}

/// An object by the number of its Service.
#[derive(Clone, Debug)]
pub enum Object {
    Pod(usize, Pod),
    EndpointSlice(usize),
    Service(usize),
}

impl Mesh {
    pub fn new(size: Size) -> Self {
        let trust_domain = "cluster.local".parse().expect("it is a domain");
        let nodes = size.pods.div_ceil(PODS_PER_NODE).max(1);
        let mut mesh = Self { services: Vec::new(), nodes, version: 1, trust_domain, pods_made: 0 };
        for number in 0..size.services {
            mesh.services.push(Service::new(number));
            // What does not divide evenly goes to the first ones.
            let share = size.pods / size.services + usize::from(number < size.pods % size.services);
            for _ in 0..share {
                let pod = mesh.pod(number, Phase::Ready);
                mesh.services[number].pods.push(pod);
            }
        }
        mesh
    }

    /// The Namespaces, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<str>> {
        self.services.iter().step_by(SERVICES_PER_NAMESPACE).map(|service| &service.namespace)
    }

    pub fn pods(&self) -> impl Iterator<Item = (&Service, &Pod)> {
        self.services.iter().flat_map(|service| service.pods.iter().map(move |pod| (service, pod)))
    }

    /// The Pod with this name, as Kubernetes writes it: `namespace/name`.
    pub fn pod_named(&self, workload: &str) -> Option<(&Service, &Pod)> {
        let (namespace, name) = workload.split_once('/')?;
        self.pods().find(|(service, pod)| *service.namespace == *namespace && *pod.name == *name)
    }

    /// What a proxy must hear of a Service's endpoints: the ready ones, or, without any, those that are leaving
    /// (KEP-1669), by address.
    pub fn endpoints(&self, service: usize) -> Vec<Endpoint> {
        let service = &self.services[service];
        let of = |phase| service.pods.iter().filter(move |pod| pod.phase == phase);
        let chosen = if of(Phase::Ready).next().is_some() { Phase::Ready } else { Phase::Terminating };
        let mut pods: Vec<&Pod> = of(chosen).collect();
        pods.sort_by_key(|pod| pod.address);
        let identity = SpiffeId::new(&self.trust_domain, &service.namespace, &service.name).ok();
        let endpoint = |pod: &Pod| Endpoint {
            address: SocketAddr::new(pod.address.into(), POD_PORT),
            identity: identity.clone(),
            workload: Some(WorkloadName::new(&service.namespace, &pod.name)),
            tls: None,
        };
        pods.into_iter().map(endpoint).collect()
    }

    /// What a proxy must hear of the Service's address.
    pub fn outbound(&self, service: usize) -> Outbound {
        let service = &self.services[service];
        let target = Target::Service(service.port());
        Outbound::new(target, service.protocol())
    }

    /// What a proxy beside the Service's Pods must hear of their port.
    pub fn inbound(&self, service: usize) -> Inbound {
        let service = &self.services[service];
        Inbound { protocol: service.protocol(), service: Some(service.port()) }
    }

    /// Makes a change; answers what it wrote, in order. A change that makes no sense now writes nothing.
    pub fn change(&mut self, change: Change) -> Vec<Write> {
        match change {
            Change::Retire { service, pod } => self.retire(service, pod),
            Change::Succeed { service } => self.succeed(service),
            Change::Flip { service, pod } => {
                let Some(flipped) = self.services[service].pods.get_mut(pod) else { return Vec::new() };
                flipped.phase = match flipped.phase {
                    Phase::Ready => Phase::Unready,
                    Phase::Unready => Phase::Ready,
                    Phase::Pending | Phase::Starting | Phase::Terminating => return Vec::new(),
                };
                vec![self.write_pod(Verb::Modified, service, pod), self.write_slice(service)]
            }
            Change::Redeclare { service } => {
                self.version += 1;
                self.services[service].http2 ^= true;
                self.services[service].version = self.version;
                vec![Write { version: self.version, verb: Verb::Modified, object: Object::Service(service) }]
            }
        }
    }

    fn retire(&mut self, service: usize, pod: usize) -> Vec<Write> {
        match self.services[service].pods.get_mut(pod) {
            Some(old) if old.phase == Phase::Ready => old.phase = Phase::Terminating,
            _ => return Vec::new(),
        }
        let old = self.write_pod(Verb::Modified, service, pod);
        let new = self.pod(service, Phase::Pending);
        self.services[service].pods.push(new);
        let last = self.services[service].pods.len() - 1;
        let added = self.write_pod(Verb::Added, service, last);
        self.services[service].pods[last].phase = Phase::Starting;
        let started = self.write_pod(Verb::Modified, service, last);
        vec![old, added, started, self.write_slice(service)]
    }

    fn succeed(&mut self, service: usize) -> Vec<Write> {
        let in_phase = |phase| self.services[service].pods.iter().position(|pod| pod.phase == phase);
        let (Some(old), Some(new)) = (in_phase(Phase::Terminating), in_phase(Phase::Starting)) else {
            return Vec::new();
        };
        self.services[service].pods[new].phase = Phase::Ready;
        let ready = self.write_pod(Verb::Modified, service, new);
        let slice = self.write_slice(service);
        let gone = self.write_pod(Verb::Deleted, service, old);
        self.services[service].pods.remove(old);
        vec![ready, slice, gone]
    }

    fn write_pod(&mut self, verb: Verb, service: usize, pod: usize) -> Write {
        self.version += 1;
        let written = &mut self.services[service].pods[pod];
        written.version = self.version;
        Write { version: self.version, verb, object: Object::Pod(service, written.clone()) }
    }

    fn write_slice(&mut self, service: usize) -> Write {
        self.version += 1;
        self.services[service].slice_version = self.version;
        Write { version: self.version, verb: Verb::Modified, object: Object::EndpointSlice(service) }
    }

    fn pod(&mut self, service: usize, phase: Phase) -> Pod {
        self.pods_made += 1;
        let number = self.pods_made;
        let name = format!("{}-6d5f7c9b8-{number:05x}", self.services[service].name);
        Pod {
            name: name.into(),
            address: Ipv4Addr::from(u32::from(FIRST_POD) + number),
            node: number as usize % self.nodes,
            phase,
            version: self.version,
            number,
        }
    }
}

impl Service {
    fn new(number: usize) -> Self {
        Self {
            namespace: format!("team-{:03}", number / SERVICES_PER_NAMESPACE).into(),
            name: format!("{}-{number:04}", WORDS[number % WORDS.len()]).into(),
            http2: false,
            address: Ipv4Addr::from(u32::from(FIRST_SERVICE) + number as u32),
            pods: Vec::new(),
            version: 1,
            slice_version: 1,
        }
    }

    /// The port that is watched.
    pub fn port(&self) -> ServicePort {
        ServiceName::new(&self.namespace, &self.name).port(SERVICE_PORT)
    }

    /// "http" leaves open which version it is.
    fn protocol(&self) -> Protocol {
        if self.http2 { Protocol::Http2 } else { Protocol::Auto }
    }
}

impl Change {
    /// The Service that it concerns.
    pub fn service(self) -> usize {
        match self {
            Self::Retire { service, .. }
            | Self::Succeed { service }
            | Self::Flip { service, .. }
            | Self::Redeclare { service } => service,
        }
    }
}

impl Pod {
    pub fn workload(&self, service: &Service) -> WorkloadName {
        WorkloadName::new(&service.namespace, &self.name)
    }
}

/// The zone of a Node.
pub fn zone(node: usize) -> &'static str {
    ZONES[node % ZONES.len()]
}

/// Chooses changes: of ten, three retire a Pod, three let one succeed, three flip one's readiness, one redeclares a Service.
pub struct Picker {
    state: u64,
    retired: VecDeque<usize>,
    /// Numbers of Pods that stay: proxies speak from there.
    stay: HashSet<u32>,
}

impl Picker {
    pub fn new(seed: u64, stay: HashSet<u32>) -> Self {
        Self { state: seed, retired: VecDeque::new(), stay }
    }

    /// A change that makes sense now.
    pub fn pick(&mut self, mesh: &Mesh) -> Change {
        loop {
            let service = self.random(mesh.services.len());
            match (self.random(10), self.retired.front()) {
                (0..3, _) | (3..6, None) => {
                    let pods = mesh.services[service].pods.iter().enumerate();
                    let may = |pod: &Pod| pod.phase == Phase::Ready && !self.stay.contains(&pod.number);
                    let may: Vec<usize> = pods.filter(|(_, pod)| may(pod)).map(|(at, _)| at).collect();
                    if may.is_empty() {
                        continue;
                    }
                    self.retired.push_back(service);
                    return Change::Retire { service, pod: may[self.random(may.len())] };
                }
                (3..6, Some(service)) => {
                    let service = *service;
                    self.retired.pop_front();
                    return Change::Succeed { service };
                }
                (6..9, _) => {
                    let pod = self.random(mesh.services[service].pods.len().max(1));
                    let phase = mesh.services[service].pods.get(pod).map(|pod| pod.phase);
                    if matches!(phase, Some(Phase::Ready | Phase::Unready)) {
                        return Change::Flip { service, pod };
                    }
                }
                _ => return Change::Redeclare { service },
            }
        }
    }

    /// SplitMix64: the same run after run.
    fn random(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    }
}
