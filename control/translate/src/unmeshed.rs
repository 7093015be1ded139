//! Pods without a proxy where their Namespace asks for one, and why.

use control_index::{Index, Pod, State};

/// Why a Pod has no proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmeshed {
    /// It is so because somebody wants it.
    pub wanted: bool,
    /// What to know, and what to do about it.
    pub why: String,
}

/// Why a Pod has no proxy; `None` when it has one, or when nobody asked for one, or when it has ended.
pub fn unmeshed(index: &Index, pod: &Pod) -> Option<Unmeshed> {
    let asked = index.namespace(&pod.name.namespace).is_some_and(|namespace| namespace.injected);
    let gone = matches!(pod.state, State::Ended | State::Terminating);
    if !asked || pod.meshed || gone {
        return None;
    }
    let why = match &pod.not_injected {
        Some(why) => why.to_string(),
        None if pod.opted_out => "it asks for none by weft.mesh/inject: disabled".into(),
        None if pod.host_network => {
            "it is on the host's network, where nothing can be redirected for it alone".into()
        }
        None => format!(
            "created before the namespace was labelled, or while the injector did not answer; restart it: \
             kubectl rollout restart -n {} <its Deployment, StatefulSet or DaemonSet>",
            pod.name.namespace
        ),
    };
    Some(Unmeshed { wanted: pod.opted_out, why })
}
