//! The whole measurement: a mesh is served, control reads it, proxies ask, the mesh changes, and what happened is told.

use crate::{
    api::Api,
    control::{Control, Usage},
    ledger::{Ledger, Subject, Tally},
    mesh::{Mesh, Picker, Size},
    proxy::{Plan, Proxy, Settings},
    store::Store,
};
use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use proxy_tls::Trust;
use proxy_wire::{checksum, v1};
use std::{
    collections::HashSet,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{Instant as Time, sleep, sleep_until};

/// Proxies that connect at once.
const AT_ONCE: usize = 16;
/// Wait for everybody to hold the truth, at the start and at the end.
const SETTLE_WAIT: Duration = Duration::from_secs(60);
/// Choices are the same in each run.
const SEED: u64 = 20;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The program.
    pub control: PathBuf,
    /// The CPU that it runs on, if that is to be one.
    pub control_cpu: Option<usize>,
    pub size: Size,
    pub proxies: usize,
    /// Services that each proxy dials.
    pub destinations: usize,
    /// Proxies and what they dial are among the first so many Services; changes are among all.
    pub among: usize,
    /// Changes a second, and for how long.
    pub rate: f64,
    pub duration: Duration,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    /// From the start of control until it had read everything and listened, and until the last proxy had all answers.
    pub ready: Duration,
    pub answered: Duration,
    /// Memory once the mesh was read, with all proxies before the changes, and after them.
    pub read: Usage,
    pub before: Usage,
    pub after: Usage,
    pub changes: usize,
    /// How long each change took to each watch that it concerns, in order.
    pub arrivals: Vec<Duration>,
    /// Of each proxy during the changes.
    pub tallies: Vec<Tally>,
    /// Bytes on the connection of each proxy: until it had all answers, and during the changes.
    pub first_bytes: Vec<u64>,
    pub bytes: Vec<u64>,
    /// Of each watch: what it is about, the changes there, and what came.
    pub streams: Vec<(Subject, usize, Tally)>,
    /// What watches were about that did not hold the truth in the end.
    pub behind: Vec<Subject>,
}

/// Measures once.
pub async fn run(scale: &Scale) -> anyhow::Result<Outcome> {
    ensure!(scale.among <= scale.size.services, "there are not so many Services to be among");
    ensure!(scale.destinations <= scale.among, "there are not so many Services to dial");
    let store = Arc::new(Store::new(Mesh::new(scale.size)));
    let api = Api::listen("127.0.0.1:0".parse()?, Arc::clone(&store)).await?;
    let kubeconfig = api.kubeconfig()?;
    let serving = tokio::spawn(api.serve());
    let start = Instant::now();
    let mut control = Control::start(&scale.control, &kubeconfig, scale.control_cpu)?;
    let address = control.ready().await?;
    let (ready, read) = (start.elapsed(), control.usage()?);

    let ledger = Arc::new(Ledger::default());
    let plans = store.with_mesh(|mesh| {
        (0..scale.size.services).for_each(|service| tell(&ledger, mesh, service, start));
        plans(scale, mesh)
    })?;
    let stay = store.with_mesh(|mesh| staying(mesh, &plans));
    let settings = Settings { control: address, anchors: roots(&store).await?, ledger: Arc::clone(&ledger) };
    let asking = Instant::now();
    let starts = plans.into_iter().map(|plan| Proxy::start(&settings, plan));
    let mut proxies: Vec<Proxy> = stream::iter(starts).buffered(AT_ONCE).try_collect().await?;
    let behind = settle(&ledger, &mut proxies).await?;
    if let Some(first) = behind.first() {
        bail!(
            "{} watches were not answered by the truth, one of {first:?}:\n{}",
            behind.len(),
            control.log()
        );
    }
    let answered = asking.elapsed();

    let first_bytes: Vec<u64> = proxies.iter().map(Proxy::received).collect();
    let before = control.usage()?;
    ledger.reset();
    let since = Instant::now();
    let changes = change(scale, &store, &ledger, &mut Picker::new(SEED, stay)).await;
    let behind = settle(&ledger, &mut proxies).await?;
    if let Some(first) = behind.first() {
        eprintln!("{} watches do not hold the truth, one of {first:?}:\n{}", behind.len(), control.log());
    }
    let after = control.usage()?;
    serving.abort();
    let received = proxies.iter().map(Proxy::received);
    Ok(Outcome {
        ready,
        answered,
        read,
        before,
        after,
        changes,
        arrivals: ledger.arrivals(),
        tallies: ledger.tallies(scale.proxies),
        bytes: received.zip(&first_bytes).map(|(all, first)| all - first).collect(),
        first_bytes,
        streams: ledger.streams(since),
        behind,
    })
}

/// Proxies stand beside the first Pods of the Services that they are among, in turn, and dial the Services after their own.
fn plans(scale: &Scale, mesh: &Mesh) -> anyhow::Result<Vec<Plan>> {
    let plan = |number: usize| {
        let service = number % scale.among;
        let of = &mesh.services[service];
        let pod = of.pods.get(number / scale.among).context("there are more proxies than Pods")?;
        let far = |step: usize| (service + step * (scale.among / scale.destinations)) % scale.among;
        let destinations = (0..scale.destinations).map(far);
        Ok(Plan {
            number,
            workload: pod.workload(of),
            address: pod.address,
            service,
            destinations: destinations.map(|one| (one, mesh.services[one].address)).collect(),
        })
    };
    (0..scale.proxies).map(plan).collect()
}

/// The Pods that proxies speak from.
fn staying(mesh: &Mesh, plans: &[Plan]) -> HashSet<u32> {
    let addresses: HashSet<_> = plans.iter().map(|plan| plan.address).collect();
    mesh.pods().filter(|(_, pod)| addresses.contains(&pod.address)).map(|(_, pod)| pod.number).collect()
}

/// The roots that control writes where proxies are.
async fn roots(store: &Store) -> anyhow::Result<Trust> {
    let namespace =
        store.with_mesh(|mesh| mesh.namespaces().next().cloned()).context("a mesh without Services")?;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/weft-trust-roots");
    let patience = Time::now() + SETTLE_WAIT;
    loop {
        if let Some(pem) = store.read(&path).as_ref().and_then(|map| map["data"]["ca.pem"].as_str()) {
            return Ok(Trust::from_pem("cluster.local".parse()?, pem.as_bytes())?);
        }
        if Time::now() > patience {
            bail!("control has not written {path}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Writes down what is true of a Service now.
fn tell(ledger: &Ledger, mesh: &Mesh, service: usize, now: Instant) {
    let endpoints = v1::EndpointSet::from(mesh.endpoints(service).as_slice());
    ledger.set(Subject::Endpoints(service), checksum(&endpoints), now);
    ledger.set(Subject::Outbound(service), checksum(&v1::OutboundPolicy::from(&mesh.outbound(service))), now);
    ledger.set(Subject::Inbound(service), checksum(&v1::InboundPolicy::from(&mesh.inbound(service))), now);
}

/// Changes at an even pace; answers how often. What is late is made up for.
async fn change(scale: &Scale, store: &Store, ledger: &Ledger, picker: &mut Picker) -> usize {
    let begun = Time::now();
    let changes = (scale.rate * scale.duration.as_secs_f64()).round() as usize;
    for number in 0..changes {
        sleep_until(begun + Duration::from_secs_f64(number as f64 / scale.rate)).await;
        let change = store.with_mesh(|mesh| picker.pick(mesh));
        store.change(change, |mesh| tell(ledger, mesh, change.service(), Instant::now()));
    }
    changes
}

/// Waits until every watch holds the truth; answers what those are about that do not.
async fn settle(ledger: &Ledger, proxies: &mut [Proxy]) -> anyhow::Result<Vec<Subject>> {
    let patience = Time::now() + SETTLE_WAIT;
    loop {
        if let Some(fault) = proxies.iter_mut().find_map(Proxy::fault) {
            return Err(fault.context("a proxy's watch ended"));
        }
        let behind = ledger.behind();
        if behind.is_empty() || Time::now() > patience {
            return Ok(behind);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The value below which a part of them are, in order.
fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

impl fmt::Display for Outcome {
    /// One line of `key=value` pairs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let proxies = self.tallies.len().max(1) as f64;
        let sum = |count: fn(&Tally) -> u64| self.tallies.iter().map(count).sum::<u64>();
        let mean = |bytes: &[u64]| bytes.iter().sum::<u64>() as f64 / proxies / 1e3;
        let cpu = self.after.cpu.saturating_sub(self.before.cpu);
        write!(f, "ready_ms={:.0} answered_ms={:.0}", ms(self.ready), ms(self.answered))?;
        write!(f, " rss_read_mb={:.1} rss_before_mb={:.1}", mb(self.read.rss), mb(self.before.rss))?;
        write!(f, " rss_after_mb={:.1} rss_peak_mb={:.1}", mb(self.after.rss), mb(self.after.peak))?;
        write!(f, " changes={} told={} behind={}", self.changes, self.arrivals.len(), self.behind.len())?;
        for (name, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            write!(f, " {name}_ms={:.2}", ms(quantile(&self.arrivals, part)))?;
        }
        write!(f, " cpu_us_change={:.0}", cpu.as_secs_f64() * 1e6 / self.changes.max(1) as f64)?;
        write!(f, " answers_proxy={:.2}", sum(|tally| tally.answers) as f64 / proxies)?;
        write!(f, " content_b_proxy={:.0}", sum(|tally| tally.bytes) as f64 / proxies)?;
        write!(f, " first_kb_proxy={:.2} kb_proxy={:.2}", mean(&self.first_bytes), mean(&self.bytes))?;
        write!(f, " partial={} repeated={}", sum(|tally| tally.partial), sum(|tally| tally.repeated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_is_there() {
        let hundred: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        for (part, value) in [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)] {
            assert_eq!(quantile(&hundred, part), Duration::from_millis(value), "{part}");
        }
        assert_eq!(quantile(&[], 0.99), Duration::ZERO);
    }
}
