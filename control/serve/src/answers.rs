//! What proxies watch: one shared answer for each question, made anew only when something that it depends on was
//! touched, and sent only when it differs.

use control_index::Touched;
use control_translate::Mesh;
use policy::{ServicePort, WorkloadName};
use proxy_wire::{checksum, v1};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};
use tokio::sync::watch;

/// The name of a zone: a label's value, so it is ASCII.
pub type Zone = Arc<str>;

/// After every zone and every namespace.
const LAST_NAME: &str = "\u{7f}";

/// The namespace of who asks.
pub type Namespace = Arc<str>;

/// The answer to one question as it stands.
#[derive(Debug)]
pub struct Answer<P> {
    /// Grows with each change, over all questions of this run.
    pub version: u64,
    /// Of the content, as `proxy_wire::checksum` counts.
    pub checksum: u64,
    pub content: P,
}

/// Something that a proxy asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Asked from a namespace: routes may hold for it alone.
    Outbound(SocketAddr, Namespace),
    /// Asked from a zone; empty: from one that is not known.
    Endpoints(ServicePort, Zone),
    Inbound(WorkloadName, u16),
}

/// The answers to one kind of question, by question, as long as somebody watches them.
#[derive(Debug)]
pub struct Answers<K, P> {
    held: BTreeMap<K, watch::Sender<Arc<Answer<P>>>>,
}

/// All answers that are watched.
#[derive(Debug, Default)]
pub struct Watched {
    pub outbound: Answers<(SocketAddr, Namespace), v1::OutboundPolicy>,
    pub endpoints: Answers<(ServicePort, Zone), v1::EndpointSet>,
    pub inbound: Answers<(WorkloadName, u16), v1::InboundPolicy>,
    version: u64,
}

impl Watched {
    pub fn watch_outbound(
        &mut self,
        mesh: &Mesh<'_>,
        destination: SocketAddr,
        namespace: Namespace,
    ) -> watch::Receiver<Arc<Answer<v1::OutboundPolicy>>> {
        self.outbound.watch((destination, namespace), &mut self.version, outbound(mesh))
    }

    pub fn watch_endpoints(
        &mut self,
        mesh: &Mesh<'_>,
        backend: ServicePort,
        zone: Zone,
    ) -> watch::Receiver<Arc<Answer<v1::EndpointSet>>> {
        self.endpoints.watch((backend, zone), &mut self.version, endpoints(mesh))
    }

    pub fn watch_inbound(
        &mut self,
        mesh: &Mesh<'_>,
        workload: WorkloadName,
        port: u16,
    ) -> watch::Receiver<Arc<Answer<v1::InboundPolicy>>> {
        self.inbound.watch((workload, port), &mut self.version, inbound(mesh))
    }

    /// Makes anew what was touched; answers how many answers changed by it.
    pub fn renew(&mut self, mesh: &Mesh<'_>, touched: &Touched) -> usize {
        let mut changed = 0;
        for ip in &touched.addresses {
            changed += self.outbound.renew(destinations(*ip), &mut self.version, outbound(mesh));
        }
        for service in &touched.services {
            let ports = (service.port(0), "".into())..=(service.port(u16::MAX), LAST_NAME.into());
            changed += self.endpoints.renew(ports, &mut self.version, endpoints(mesh));
        }
        for workload in &touched.workloads {
            let ports = (workload.clone(), 0)..=(workload.clone(), u16::MAX);
            changed += self.inbound.renew(ports, &mut self.version, inbound(mesh));
        }
        changed
    }

    /// Forgets an answer that nobody watches any more.
    pub fn release(&mut self, question: &Question) {
        match question {
            Question::Outbound(destination, namespace) => {
                self.outbound.release(&(*destination, Arc::clone(namespace)))
            }
            Question::Endpoints(backend, zone) => {
                self.endpoints.release(&(backend.clone(), Arc::clone(zone)))
            }
            Question::Inbound(workload, port) => self.inbound.release(&(workload.clone(), *port)),
        }
    }

    /// Ends every watch.
    pub fn close(&mut self) {
        let version = self.version;
        *self = Self { version, ..Self::default() };
    }
}

impl<K: Ord + Clone, P: prost::Message> Answers<K, P> {
    fn watch(
        &mut self,
        question: K,
        version: &mut u64,
        make: impl Fn(&K) -> P,
    ) -> watch::Receiver<Arc<Answer<P>>> {
        if let Some(answers) = self.held.get(&question) {
            return answers.subscribe();
        }
        let content = make(&question);
        *version += 1;
        let answer = Answer { version: *version, checksum: checksum(&content), content };
        let (answers, watcher) = watch::channel(Arc::new(answer));
        self.held.insert(question, answers);
        watcher
    }

    fn renew(&mut self, questions: RangeInclusive<K>, version: &mut u64, make: impl Fn(&K) -> P) -> usize {
        let mut changed = 0;
        for (question, answers) in self.held.range(questions) {
            let content = make(question);
            let checksum = checksum(&content);
            if answers.borrow().checksum != checksum {
                *version += 1;
                changed += 1;
                answers.send_replace(Arc::new(Answer { version: *version, checksum, content }));
            }
        }
        changed
    }

    fn release(&mut self, question: &K) {
        if self.held.get(question).is_some_and(|answers| answers.receiver_count() == 0) {
            self.held.remove(question);
        }
    }
}

impl<K, P> Default for Answers<K, P> {
    fn default() -> Self {
        Self { held: BTreeMap::new() }
    }
}

/// All namespaces that have no routes of their own are answered alike: it is made once.
fn outbound(mesh: &Mesh<'_>) -> impl Fn(&(SocketAddr, Namespace)) -> v1::OutboundPolicy {
    let common = RefCell::new(None);
    move |(destination, namespace)| {
        let make = || v1::OutboundPolicy::from(&mesh.outbound(*destination, namespace));
        if mesh.has_routes_of_its_own(*destination, namespace) {
            return make();
        }
        // Questions come in the order of their destinations.
        match &mut *common.borrow_mut() {
            Some((of, content)) if of == destination => Clone::clone(content),
            common => common.insert((*destination, make())).1.clone(),
        }
    }
}

fn endpoints(mesh: &Mesh<'_>) -> impl Fn(&(ServicePort, Zone)) -> v1::EndpointSet {
    |(backend, zone)| mesh.endpoints(backend, Some(&**zone).filter(|zone| !zone.is_empty())).as_slice().into()
}

fn inbound(mesh: &Mesh<'_>) -> impl Fn(&(WorkloadName, u16)) -> v1::InboundPolicy {
    |(workload, port)| (&mesh.inbound(workload, *port)).into()
}

/// Every port of an address, whoever asks. IPv6 addresses in answers have neither scope nor flow, so these are all.
fn destinations(ip: IpAddr) -> RangeInclusive<(SocketAddr, Namespace)> {
    (SocketAddr::new(ip, 0), "".into())..=(SocketAddr::new(ip, u16::MAX), LAST_NAME.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_index::Index;
    use control_translate::Detected;

    #[test]
    fn an_answer_is_held_while_it_is_watched() {
        let (index, detected) = (Index::default(), Detected::default());
        let trust_domain = "cluster.local".parse().expect("a trust domain");
        let mesh = Mesh { index: &index, detected: &detected, trust_domain: &trust_domain };
        let mut watched = Watched::default();
        let destination: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        let first = watched.watch_outbound(&mesh, destination, "shop".into());
        let second = watched.watch_outbound(&mesh, destination, "shop".into());
        assert_eq!(watched.outbound.held.len(), 1, "two watch the same answer");
        assert!(Arc::ptr_eq(&first.borrow(), &second.borrow()));
        let other = watched.watch_outbound(&mesh, destination, "cellar".into());
        assert_eq!(watched.outbound.held.len(), 2, "routes may hold for a namespace alone");
        drop(other);
        watched.release(&Question::Outbound(destination, "cellar".into()));
        drop(first);
        watched.release(&Question::Outbound(destination, "shop".into()));
        assert_eq!(watched.outbound.held.len(), 1);
        drop(second);
        watched.release(&Question::Outbound(destination, "shop".into()));
        assert_eq!(watched.outbound.held.len(), 0);
    }
}
