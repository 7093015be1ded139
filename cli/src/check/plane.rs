//! Whether what `weft install` made works: control, injector, agent, and what they keep in the cluster.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::before::{numbers, right, waiting_nodes};
use super::facts::{Facts, InjectorTls, Issuer, Known, Lease, Webhook, Workload};
use super::finding::{Breach, Check, Stage, judge};
use crate::certificate::Certificate;
use crate::names::{CNI, CONTROL, INJECTOR, INJECTOR_TLS, ISSUER, TRUST_ROOTS, WEBHOOK};

/// The webhooks of the configuration.
const WEBHOOKS: [&str; 2] = ["namespace.inject.weft.mesh", "pod.inject.weft.mesh"];
/// The definitions of our own kinds.
const DEFINITIONS: [&str; 2] = ["backendpolicies.policy.weft.mesh", "trafficpolicies.policy.weft.mesh"];
/// A certificate is due when this share of its lifetime is left: it should have been replaced at a third.
const DUE: i64 = 5;
/// A Lease that was not renewed for so many of its durations has no holder.
const LEASE_DURATIONS: i64 = 2;

pub const CHECKS: &[Check] = &[
    Check {
        name: "deployments",
        what: "control and injector have all their replicas",
        why: "without control, proxies keep what they know and nothing changes; without the injector, no pod of a \
              labelled namespace starts",
        stage: Stage::Installed,
        look: deployments,
    },
    Check {
        name: "cni",
        what: "where pods are redirected by the CNI plugin, its agent runs on each node",
        why: "meshed pods wait for a node whose agent is ready",
        stage: Stage::Installed,
        look: cni,
    },
    Check {
        name: "versions",
        what: "control and injector are of one version, which is this command's",
        why: "parts of neighbouring versions understand each other, others may not",
        stage: Stage::Installed,
        look: versions,
    },
    Check {
        name: "policies",
        what: "the definitions of our own kinds are there",
        why: "a TrafficPolicy or BackendPolicy cannot be made, and those that were are not seen",
        stage: Stage::Installed,
        look: policies,
    },
    Check {
        name: "webhook",
        what: "the webhook is there, and the API server believes its certificate",
        why: "otherwise no pod of a labelled namespace starts",
        stage: Stage::Installed,
        look: webhook,
    },
    Check {
        name: "issuer",
        what: "control's issuer certificate is valid, and its root is among the mesh's",
        why: "proxies get no certificates from it, and those that run lose theirs one after the other",
        stage: Stage::Installed,
        look: issuer,
    },
    Check {
        name: "trust-roots",
        what: "each namespace with meshed pods has the mesh's roots",
        why: "new proxies start with them; without, their pods hang, and with others they do not believe control",
        stage: Stage::Installed,
        look: trust_roots,
    },
    Check {
        name: "lease",
        what: "a replica of control holds the Lease",
        why: "its holder gives roots to new namespaces, writes Events, and says in statuses what became of routes and policies; nobody else does",
        stage: Stage::Installed,
        look: lease,
    },
    Check {
        name: "rights",
        what: "the mesh's service accounts have the rights that its manifests give them",
        why: "control would see nothing of the cluster, or believe no token",
        stage: Stage::Installed,
        look: rights,
    },
    Check {
        name: "problems",
        what: "control finds nothing wrong with the cluster's objects",
        why: "what is misread is not done",
        stage: Stage::Installed,
        look: problems,
    },
];

fn deployments(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.deployments, |deployments| {
        [CONTROL, INJECTOR].iter().filter_map(|name| deployment(facts, deployments, name)).collect()
    })
}

fn deployment(facts: &Facts, deployments: &[Workload], name: &str) -> Option<Breach> {
    let namespace = &facts.namespace;
    let at = format!("Deployment {namespace}/{name}");
    let Some(found) = deployments.iter().find(|one| one.metadata.name == name) else {
        return Some(Breach::failed(
            at,
            "it is not there",
            "weft install, or --namespace if it is elsewhere",
        ));
    };
    let (wanted, available) = (found.spec.replicas.unwrap_or(1), found.status.available_replicas);
    if wanted == 0 {
        let mend = format!("kubectl scale deployment {name} --namespace {namespace} --replicas=1");
        return Some(Breach::failed(at, "it is scaled to nothing", mend));
    }
    let why = pods_of(facts, name).unwrap_or_default();
    let mend =
        format!("kubectl describe pods --namespace {namespace} --selector app.kubernetes.io/name=weft");
    let said = format!("{available} of {wanted} replicas are available{why}");
    match available {
        0 => Some(Breach::failed(at, said, mend)),
        some if some < wanted => Some(Breach::warning(at, said, mend)),
        _ => None,
    }
}

/// Why the first pod of a workload of ours that waits does so.
fn pods_of(facts: &Facts, name: &str) -> Option<String> {
    let pods = facts.pods.known()?.iter().filter(|pod| {
        pod.metadata.namespace.as_ref() == Some(&facts.namespace) && pod.metadata.name.starts_with(name)
    });
    let reason = pods.flat_map(|pod| pod.statuses()).find_map(|status| {
        let waits = status.state.waiting.as_ref().map(|waiting| (&waiting.reason, &waiting.message));
        let ended = status.last_state.terminated.as_ref().map(|ended| (&ended.reason, &ended.message));
        waits.or(ended)
    });
    reason.map(|(reason, message)| format!(": {reason} {message}").trim_end().to_owned())
}

fn cni(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.daemon_sets, |sets| {
        let Some(agent) = sets.iter().find(|one| one.metadata.name == CNI) else {
            if !facts.cni {
                return Vec::new();
            }
            let mend = "weft upgrade --cni, or helm upgrade --set cni.enabled=true";
            return vec![Breach::failed(
                format!("DaemonSet {}/{CNI}", facts.namespace),
                "it is not there",
                mend,
            )];
        };
        let (wanted, available) = (agent.status.desired_number_scheduled, agent.status.number_available);
        let mut breaches = Vec::new();
        if available < wanted {
            let why = pods_of(facts, CNI).unwrap_or_default();
            breaches.push(Breach::failed(
                format!("DaemonSet {}/{CNI}", facts.namespace),
                format!("{available} of {wanted} nodes have it{why}"),
                format!(
                    "kubectl describe pods --namespace {} --selector app.kubernetes.io/component=cni",
                    facts.namespace
                ),
            ));
        }
        let waiting = facts.nodes.known().map(|nodes| waiting_nodes(nodes)).unwrap_or_default();
        breaches.extend(waiting.into_iter().map(|node| {
            Breach::warning(
                format!("node {node}"),
                "it takes no pods until its agent is ready",
                format!("kubectl logs --namespace {} daemonset/{CNI}", facts.namespace),
            )
        }));
        breaches
    })
}

fn versions(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.deployments, |deployments| {
        let of =
            |name: &str| deployments.iter().find(|one| one.metadata.name == name).and_then(image_version);
        let (control, injector) = (of(CONTROL), of(INJECTOR));
        let mut breaches = Vec::new();
        if let (Some(control), Some(injector)) = (&control, &injector)
            && control != injector
        {
            breaches.push(Breach::failed(
                "",
                format!("control is {control}, the injector {injector}"),
                "finish the upgrade: weft upgrade, or helm upgrade",
            ));
        }
        if let Some(control) = control.filter(|control| numbers(control) != numbers(&facts.version)) {
            breaches.push(Breach::warning(
                "",
                format!("control is {control}, this command {}", facts.version),
                "use the command of control's version, or weft upgrade",
            ));
        }
        breaches
    })
}

fn image_version(workload: &Workload) -> Option<String> {
    tag(&workload.spec.template.spec.containers.first()?.image).map(str::to_owned)
}

/// The tag of an image's reference; none of one that is named by its digest alone.
pub fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next()?.rsplit('/').next()?;
    name.split_once(':').map(|(_, tag)| tag)
}

fn policies(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.definitions, |definitions| {
        let missing = DEFINITIONS.iter().filter(|name| definitions.iter().all(|one| one.name != **name));
        let mend = "weft upgrade; of a mesh of Helm's: kubectl apply --server-side -f charts/weft/crds";
        missing
            .map(|name| Breach::warning(format!("CustomResourceDefinition {name}"), "it is not there", mend))
            .collect()
    })
}

fn webhook(facts: &Facts) -> Vec<Breach> {
    judge("", &facts.webhooks, |webhooks| {
        let at = format!("MutatingWebhookConfiguration {WEBHOOK}");
        let Some(found) = webhooks.iter().find(|one| one.metadata.name == WEBHOOK) else {
            return vec![Breach::failed(
                at,
                "it is not there: no pod gets a proxy",
                "weft upgrade, or helm upgrade",
            )];
        };
        let mut breaches: Vec<_> = WEBHOOKS
            .iter()
            .filter(|name| found.webhooks.iter().all(|one| one.name != **name))
            .map(|name| {
                Breach::failed(at.clone(), format!("{name} is not in it"), "weft upgrade, or helm upgrade")
            })
            .collect();
        breaches.extend(judge("Secret", &facts.injector_tls, |secret| {
            webhook_certificate(facts, secret.as_ref())
        }));
        if let Some(Some(InjectorTls { tls_crt: Some(pem) })) = facts.injector_tls.known() {
            breaches.extend(found.webhooks.iter().filter_map(|one| bundle(&at, one, pem)));
        }
        breaches
    })
}

fn webhook_certificate(facts: &Facts, secret: Option<&InjectorTls>) -> Vec<Breach> {
    let at = format!("Secret {}/{INJECTOR_TLS}", facts.namespace);
    let mend = format!(
        "the injector makes it: kubectl logs --namespace {} deployment/{INJECTOR}; \
         or kubectl delete secret --namespace {} {INJECTOR_TLS}, and it makes a new one",
        facts.namespace, facts.namespace
    );
    let Some(pem) = secret.and_then(|secret| secret.tls_crt.as_ref()) else {
        return vec![Breach::failed(at, "it is not there, or has no tls.crt", mend)];
    };
    match Certificate::all(pem) {
        Err(why) => vec![Breach::failed(at, format!("tls.crt: {why}"), mend)],
        Ok(chain) => {
            let name = format!("{INJECTOR}.{}.svc", facts.namespace);
            let mut breaches: Vec<_> =
                validity(&at, "its certificate", &chain[0], facts.now, &mend).into_iter().collect();
            if !chain[0].dns_names.contains(&name) {
                let found = format!("its certificate is for {:?}, not for {name}", chain[0].dns_names);
                breaches.push(Breach::failed(at, found, mend));
            }
            breaches
        }
    }
}

fn bundle(at: &str, webhook: &Webhook, pem: &str) -> Option<Breach> {
    let mend = "the injector writes it within seconds; its logs say why it has not";
    let bundle = webhook.client_config.ca_bundle.as_ref().map(|bytes| String::from_utf8_lossy(&bytes.0));
    let Some(bundle) = bundle.filter(|bundle| !bundle.is_empty()) else {
        return Some(Breach::failed(at, format!("{} has no caBundle", webhook.name), mend));
    };
    let (roots, chain) = match (Certificate::all(&bundle), Certificate::all(pem)) {
        (Ok(roots), Ok(chain)) => (roots, chain),
        (Err(why), _) => return Some(Breach::failed(at, format!("{}: caBundle: {why}", webhook.name), mend)),
        // The Secret's own breach says it.
        (_, Err(_)) => return None,
    };
    let believed = chain.iter().any(|one| roots.iter().any(|root| root.vouches_for(one) || root.is(one)));
    (!believed).then(|| {
        let found =
            format!("the caBundle of {} is not of the certificate in Secret {INJECTOR_TLS}", webhook.name);
        Breach::failed(at, found, mend)
    })
}

fn issuer(facts: &Facts) -> Vec<Breach> {
    let at = format!("Secret {}/{ISSUER}", facts.namespace);
    judge(&at, &facts.issuer, |issuer| {
        let Some(issuer) = issuer else {
            let mend = format!(
                "control makes it: kubectl logs --namespace {} deployment/{CONTROL}",
                facts.namespace
            );
            return vec![Breach::failed(at.clone(), "it is not there", mend)];
        };
        issuer_chain(facts, &at, issuer)
    })
}

fn issuer_chain(facts: &Facts, at: &str, issuer: &Issuer) -> Vec<Breach> {
    let mend = "put a new issuer.key and issuer.pem, of a root in ca.pem, into it";
    let parsed = |key: &str, pem: &Option<String>| {
        let pem = pem.as_ref().ok_or_else(|| format!("{key} is not in it"))?;
        Certificate::all(pem).map_err(|why| format!("{key}: {why}"))
    };
    let (chain, roots) = match (parsed("issuer.pem", &issuer.issuer_pem), parsed("ca.pem", &issuer.ca_pem)) {
        (Ok(chain), Ok(roots)) => (chain, roots),
        (chain, roots) => {
            let wrong = chain.err().into_iter().chain(roots.err());
            return wrong.map(|why| Breach::failed(at, why, mend)).collect();
        }
    };
    let mut breaches: Vec<_> =
        validity(at, "the issuer's certificate", &chain[0], facts.now, mend).into_iter().collect();
    if !issuer.has_key {
        breaches.push(Breach::failed(at, "issuer.key is not in it", mend));
    }
    for pair in chain.windows(2) {
        if !pair[1].vouches_for(&pair[0]) {
            let found = format!("issuer.pem: {} has not signed {}", pair[1].subject, pair[0].subject);
            breaches.push(Breach::failed(at, found, mend));
        }
    }
    let top = chain.last().expect("a parsed chain is not empty");
    let root = roots.iter().find(|root| root.is(top) || root.vouches_for(top));
    match root {
        None => {
            breaches.push(Breach::failed(at, format!("no root in ca.pem has signed {}", top.subject), mend))
        }
        Some(root) => breaches.extend(validity(
            at,
            "its root",
            root,
            facts.now,
            "add a new root to ca.pem, then an issuer of it",
        )),
    }
    breaches
}

/// What is wrong with a certificate's time.
fn validity(at: &str, whose: &str, certificate: &Certificate, now: Timestamp, mend: &str) -> Option<Breach> {
    let left = certificate.not_after.duration_since(now);
    let lifetime = certificate.not_after.duration_since(certificate.not_before);
    if left <= SignedDuration::ZERO {
        return Some(Breach::failed(at, format!("{whose} expired at {}", certificate.not_after), mend));
    }
    if certificate.not_before > now {
        let found = format!("{whose} is valid from {} on only: is a clock wrong?", certificate.not_before);
        return Some(Breach::failed(at, found, mend));
    }
    (left.as_secs() < lifetime.as_secs() / DUE)
        .then(|| Breach::warning(at, format!("{whose} expires at {}", certificate.not_after), mend))
}

fn trust_roots(facts: &Facts) -> Vec<Breach> {
    let mend = format!(
        "control writes it within seconds: kubectl logs --namespace {} deployment/{CONTROL}",
        facts.namespace
    );
    let wanted = facts.issuer.known().and_then(Option::as_ref).and_then(|issuer| issuer.ca_pem.as_ref());
    let wanted = wanted.and_then(|pem| Certificate::all(pem).ok());
    judge("", &facts.trust_roots, |held| {
        super::workloads::meshed_namespaces(facts)
            .into_iter()
            .filter_map(|namespace| {
                let at = format!("ConfigMap {namespace}/{TRUST_ROOTS}");
                let Some(pem) = held.get(&namespace) else {
                    return Some(Breach::failed(at, "it is not there", mend.clone()));
                };
                let found = match Certificate::all(pem) {
                    Ok(found) => found,
                    Err(why) => return Some(Breach::failed(at, format!("ca.pem: {why}"), mend.clone())),
                };
                let lacks = wanted.as_ref()?.iter().find(|root| !found.iter().any(|one| one.is(root)))?;
                let found = format!("the root {} ({}) is not in it", lacks.subject, lacks.serial);
                Some(Breach::failed(at, found, mend.clone()))
            })
            .collect()
    })
}

fn lease(facts: &Facts) -> Vec<Breach> {
    let at = format!("Lease {}/{CONTROL}", facts.namespace);
    let mend = format!("kubectl logs --namespace {} deployment/{CONTROL}", facts.namespace);
    judge(&at, &facts.lease, |lease| {
        let found = match lease {
            None => "it is not there".to_owned(),
            Some(Lease { spec }) if spec.holder_identity.as_deref().unwrap_or("").is_empty() => {
                "nobody holds it".to_owned()
            }
            Some(Lease { spec }) => {
                let longest = spec.lease_duration_seconds.unwrap_or(15) * LEASE_DURATIONS;
                let Some(renewed) = spec.renew_time else { return Vec::new() };
                if facts.now.duration_since(renewed).as_secs() <= longest {
                    return Vec::new();
                }
                format!(
                    "{} renewed it last at {renewed}",
                    spec.holder_identity.as_deref().unwrap_or_default()
                )
            }
        };
        vec![Breach::failed(at.clone(), found, mend)]
    })
}

fn rights(facts: &Facts) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for access in &facts.access {
        let Some(account) = &access.account else { continue };
        match &access.allowed {
            Known::Known(true) => {}
            Known::Known(false) => breaches.push(Breach::failed(
                format!("ServiceAccount {account}"),
                format!("it may not {}", right(access)),
                "weft upgrade, or helm upgrade: its role or binding was changed",
            )),
            unknown @ Known::Unknown { .. } => {
                breaches.extend(judge(&format!("ServiceAccount {account}"), unknown, |_| Vec::new()));
                break;
            }
        }
    }
    breaches
}

fn problems(facts: &Facts) -> Vec<Breach> {
    let mut breaches: Vec<Breach> = Vec::new();
    for (pod, problems) in &facts.problems {
        let of_pod = judge(&format!("Pod {pod}"), problems, |problems| {
            let told = |problem: &super::facts::Problem| {
                let field =
                    if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
                // What is of no object says itself what to do.
                let mend = if problem.object.is_empty() { "" } else { "change the object" };
                Breach::warning(problem.object.clone(), format!("{field}{}", problem.what), mend)
            };
            problems.iter().map(told).collect()
        });
        // Each replica sees the same objects.
        breaches.extend(of_pod.into_iter().filter(|one| !breaches.contains(one)).collect::<Vec<_>>());
    }
    breaches
}
