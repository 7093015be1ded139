//! Whether what is to be meshed is: namespaces, pods, their redirection, their proxies and certificates.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;

use super::facts::{Container, Facts, Known, Namespace, Pod, Proxy};
use super::finding::{Breach, Check, Stage, judge};
use super::plane::tag;
use crate::certificate::Certificate;
use crate::names::{CONTROL, INIT_CONTAINER, INJECT, INJECTED, NOT_INJECTED, PROXY_CONTAINER, REDIRECTION};

pub const CHECKS: &[Check] = &[
    Check {
        name: "namespaces",
        what: "namespaces are labelled, by values that the injector knows",
        why: "only pods of labelled namespaces, and pods that are labelled themselves, get a proxy",
        stage: Stage::Installed,
        look: namespaces,
    },
    Check {
        name: "pod-security",
        what: "Pod Security lets weft-init into labelled namespaces",
        why: "it needs NET_ADMIN and NET_RAW, which the levels baseline and restricted refuse: pods would not start",
        stage: Stage::Installed,
        look: pod_security,
    },
    Check {
        name: "unmeshed-pods",
        what: "each pod of a labelled namespace has a proxy",
        why: "without, its traffic is plaintext",
        stage: Stage::Installed,
        look: unmeshed,
    },
    Check {
        name: "redirection",
        what: "weft-init of each meshed pod has done its work",
        why: "the pod does not start without",
        stage: Stage::Installed,
        look: redirection,
    },
    Check {
        name: "proxies",
        what: "the proxy of each meshed pod is ready, and of control's version",
        why: "a pod whose proxy is not ready takes no traffic",
        stage: Stage::Installed,
        look: proxies,
    },
    Check {
        name: "proxy-certificates",
        what: "proxies hold valid certificates, and reach control",
        why: "no proxy believes an expired certificate",
        stage: Stage::Installed,
        look: certificates,
    },
];

/// Namespaces that are labelled, or hold meshed pods.
pub fn meshed_namespaces(facts: &Facts) -> BTreeSet<String> {
    let labelled = facts.namespaces.known().into_iter().flatten().filter(|one| is_labelled(one));
    let pods = facts.pods.known().into_iter().flatten().filter(|pod| is_meshed(pod));
    labelled
        .map(|one| one.metadata.name.clone())
        .chain(pods.filter_map(|pod| pod.metadata.namespace.clone()))
        .collect()
}

fn is_labelled(namespace: &Namespace) -> bool {
    namespace.metadata.label(INJECT) == Some("enabled")
}

fn is_meshed(pod: &Pod) -> bool {
    !pod.has_ended() && (pod.metadata.label(INJECTED) == Some("true") || pod.proxy().is_some())
}

fn meshed(facts: &Facts) -> impl Iterator<Item = &Pod> {
    facts.pods.known().into_iter().flatten().filter(|pod| is_meshed(pod))
}

fn namespaces(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.namespaces, |namespaces| {
        let mut breaches = Vec::new();
        for Namespace { metadata } in namespaces {
            let Some(value) = metadata.label(INJECT).filter(|one| !matches!(*one, "enabled" | "disabled"))
            else {
                continue;
            };
            breaches.push(Breach::failed(
                format!("namespace {}", metadata.name),
                format!("{INJECT}: {value} is neither enabled nor disabled, and counts for nothing"),
                format!("kubectl label --overwrite namespace {} {INJECT}=enabled", metadata.name),
            ));
        }
        for name in ["kube-system", facts.namespace.as_str()] {
            if namespaces.iter().any(|one| one.metadata.name == name && is_labelled(one)) {
                let found =
                    "it is labelled, but its pods never get a proxy: the cluster must start without the mesh";
                breaches.push(Breach::notice(
                    format!("namespace {name}"),
                    found,
                    format!("kubectl label namespace {name} {INJECT}-"),
                ));
            }
        }
        if !namespaces.iter().any(is_labelled) && meshed(facts).next().is_none() {
            let mend = format!("kubectl label namespace NAME {INJECT}=enabled, and restart its pods");
            breaches.push(Breach::notice("", "none is: nothing is meshed", mend));
        }
        breaches
    })
}

fn pod_security(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.namespaces, |namespaces| {
        namespaces.iter().filter(|one| is_labelled(one)).filter_map(|one| refusing(facts, one)).collect()
    })
}

fn refusing(facts: &Facts, Namespace { metadata }: &Namespace) -> Option<Breach> {
    let level = metadata.label("pod-security.kubernetes.io/enforce")?;
    let by_cni = metadata.annotation(REDIRECTION).map_or(facts.cni, |value| value == "cni");
    if by_cni || !matches!(level, "baseline" | "restricted") {
        return None;
    }
    Some(Breach::failed(
        format!("namespace {}", metadata.name),
        format!("it enforces {level}"),
        "redirect by the CNI plugin (weft upgrade --cni), or let it enforce privileged",
    ))
}

fn unmeshed(facts: &Facts) -> Vec<Breach> {
    let labelled: BTreeSet<_> = facts
        .namespaces
        .known()
        .into_iter()
        .flatten()
        .filter(|one| {
            is_labelled(one) && one.metadata.name != "kube-system" && one.metadata.name != facts.namespace
        })
        .map(|one| one.metadata.name.as_str())
        .collect();
    judge("", &facts.pods, |pods| {
        let wanted = |pod: &&Pod| {
            let own = pod.metadata.label(INJECT) == Some("enabled");
            own || pod.metadata.namespace.as_deref().is_some_and(|namespace| labelled.contains(namespace))
        };
        let without = pods.iter().filter(|pod| !pod.has_ended() && pod.proxy().is_none());
        without.filter(wanted).map(why_unmeshed).collect()
    })
}

fn why_unmeshed(pod: &Pod) -> Breach {
    let at = format!("Pod {}", pod.title());
    let opted_out = [pod.metadata.label(INJECT), pod.metadata.annotation(INJECT)].contains(&Some("disabled"));
    if opted_out {
        return Breach::notice(at, format!("it opted out ({INJECT}: disabled)"), "");
    }
    let intended = format!("if that is intended, label it {INJECT}: disabled");
    if let Some(reason) = pod.metadata.annotation(NOT_INJECTED) {
        return Breach::warning(at, reason, intended);
    }
    if pod.spec.host_network {
        let found =
            "it uses the network of its node (hostNetwork), where there is nothing of its own to redirect";
        return Breach::warning(at, found, intended);
    }
    Breach::failed(
        at,
        "it was created before its namespace was labelled, or while the injector did not answer",
        "restart it: kubectl rollout restart, or kubectl delete pod where nothing stands above it",
    )
}

fn redirection(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.pods, |pods| {
        pods.iter().filter(|pod| is_meshed(pod)).filter_map(|pod| init(facts, pod)).collect()
    })
}

fn init(facts: &Facts, pod: &Pod) -> Option<Breach> {
    let status = pod.container_status(INIT_CONTAINER)?;
    let title = pod.title();
    let mend = format!(
        "kubectl logs --namespace {} {} --container {INIT_CONTAINER}; a missing kernel module is loaded on the node",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name
    );
    let states = [&status.state, &status.last_state];
    let ended =
        states.iter().find_map(|state| state.terminated.as_ref()).filter(|ended| ended.exit_code != 0);
    let said = facts.init_logs.get(&title).map(|log| log.trim()).filter(|log| !log.is_empty());
    if let Some(ended) = ended {
        let message = said.or(Some(ended.message.trim())).filter(|said| !said.is_empty());
        let message = message.unwrap_or(&ended.reason);
        let found = format!("weft-init failed ({}): {message}", ended.exit_code);
        return Some(Breach::failed(format!("Pod {title}"), found, mend));
    }
    let waits =
        status.state.waiting.as_ref().filter(|waiting| {
            !matches!(waiting.reason.as_str(), "" | "PodInitializing" | "ContainerCreating")
        })?;
    let found = format!("weft-init waits: {} {}", waits.reason, waits.message);
    Some(Breach::failed(format!("Pod {title}"), found.trim_end(), mend))
}

fn proxies(facts: &Facts) -> Vec<Breach> {
    let control = facts.deployments.known().and_then(|all| {
        let control = all.iter().find(|one| one.metadata.name == CONTROL)?;
        tag(&control.spec.template.spec.containers.first()?.image)
    });
    judge("", &facts.pods, |pods| {
        pods.iter()
            .filter(|pod| is_meshed(pod))
            .filter_map(|pod| not_ready(pod).or_else(|| skewed(pod, pod.proxy()?, control?)))
            .collect()
    })
}

fn not_ready(pod: &Pod) -> Option<Breach> {
    let status = pod.container_status(PROXY_CONTAINER).filter(|status| !status.ready)?;
    // What keeps it is weft-init, and told there.
    if pod
        .container_status(INIT_CONTAINER)
        .is_some_and(|init| init.state.terminated.as_ref().is_none_or(|one| one.exit_code != 0))
    {
        return None;
    }
    let waiting = status.state.waiting.as_ref().map(|one| format!(": {} {}", one.reason, one.message));
    let ended = status
        .last_state
        .terminated
        .as_ref()
        .map(|one| format!(": it ended with {} {}", one.exit_code, one.reason));
    let why = waiting.or(ended).unwrap_or_default();
    let found = format!("its proxy is not ready{}", why.trim_end());
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mend =
        format!("kubectl logs --namespace {namespace} {} --container {PROXY_CONTAINER}", pod.metadata.name);
    Some(Breach::failed(format!("Pod {}", pod.title()), found, mend))
}

fn skewed(pod: &Pod, proxy: &Container, control: &str) -> Option<Breach> {
    let version = tag(&proxy.image).filter(|version| *version != control)?;
    let found = format!("its proxy is {version}, control {control}");
    Some(Breach::warning(
        format!("Pod {}", pod.title()),
        found,
        "restart it, and the injector gives it the new one",
    ))
}

fn certificates(facts: &Facts) -> Vec<Breach> {
    facts
        .proxies
        .iter()
        .flat_map(|(pod, proxy)| {
            let at = format!("Pod {pod}");
            match proxy {
                Known::Known(proxy) => certificate(facts, &at, proxy),
                unknown => judge(&at, unknown, |_| Vec::new()),
            }
        })
        .collect()
}

fn certificate(facts: &Facts, at: &str, proxy: &Proxy) -> Vec<Breach> {
    let mend = format!(
        "kubectl logs --namespace {} deployment/{CONTROL}, and of the pod's container {PROXY_CONTAINER}",
        facts.namespace
    );
    let mut breaches = Vec::new();
    match proxy.certificate.as_ref().map(|held| Certificate::all(&held.chain)) {
        None => breaches.push(Breach::failed(at, "its proxy has no certificate", mend.clone())),
        Some(Err(why)) => {
            breaches.push(Breach::failed(at, format!("its proxy's certificate: {why}"), mend.clone()))
        }
        Some(Ok(chain)) => {
            let left = chain[0].not_after.duration_since(facts.now);
            if left <= SignedDuration::ZERO {
                let found = format!("its proxy's certificate expired at {}", chain[0].not_after);
                breaches.push(Breach::failed(at, found, mend.clone()));
            }
        }
    }
    if !proxy.control.connected {
        let why = proxy.control.failure.as_deref().unwrap_or("it has not answered yet");
        breaches.push(Breach::failed(at, format!("its proxy does not reach control: {why}"), mend));
    }
    breaches
}
