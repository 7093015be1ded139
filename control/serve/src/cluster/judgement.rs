//! Whether a caller may have what its token claims: pure, from the review of the token, where the call came from, and
//! what the index knows of Pods.
//!
//! A token proves the Pod that it was made for, not that this Pod holds it. So the call must come from that Pod's own
//! address: a token that was carried off to another Pod gets no certificate there.

use control_index::{Account, Index};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use policy::WorkloadName;
use std::net::IpAddr;
use tonic::Status;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Whom a token speaks for, as the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub account: Account,
    pub pod: WorkloadName,
    pub uid: String,
}

impl Claim {
    /// Fails with what to tell the caller.
    pub fn read(review: TokenReviewStatus, audience: &str) -> Result<Self, String> {
        if review.authenticated != Some(true) {
            let why = review.error.unwrap_or_else(|| "it is none, or it has expired".into());
            return Err(format!(
                "the token is not valid for the audience {audience:?}: {why}; read its file again, and look at \
                 the audience of the Pod's projected token"
            ));
        }
        // An API server that knows nothing of audiences leaves them out: then it has checked none (TokenReviewStatus).
        if !review.audiences.unwrap_or_default().iter().any(|one| one == audience) {
            return Err(format!("the token is not for the audience {audience:?}; project one that is"));
        }
        let user = review.user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let Some((namespace, account)) = account else {
            return Err(format!("the token is {name:?}'s, which is no service account"));
        };
        let extra = user.extra.unwrap_or_default();
        let one = |key| extra.get(key).and_then(|values| values.first()).cloned();
        let (Some(pod), Some(uid)) = (one(POD_NAME), one(POD_UID)) else {
            return Err(
                "the token is not bound to a Pod; mount the one that is projected into the Pod".into()
            );
        };
        let pod = WorkloadName::new(namespace, &pod);
        Ok(Self { account: Account::new(namespace, account), pod, uid })
    }
}

/// The account that a caller at `source` may have a certificate of. What only time can mend is `Unavailable`.
pub fn judge(claim: &Claim, source: Option<IpAddr>, index: &Index) -> Result<Account, Status> {
    let Claim { account, pod: name, uid } = claim;
    let source = source.map(|ip| ip.to_canonical());
    // A Pod of the same name that came after it is known under another uid: the index has not heard of it yet.
    let Some(pod) = index.pod(name).filter(|pod| pod.uid.is_empty() || *pod.uid == **uid) else {
        return Err(Status::unavailable(format!(
            "Pod {name} is not known to control yet; ask again in a moment"
        )));
    };
    if pod.addresses.is_empty() {
        return Err(Status::unavailable(format!("Pod {name} has no address yet; ask again in a moment")));
    }
    if !source.is_some_and(|source| pod.addresses.contains(&source)) {
        let from = source.map_or("an unknown address".into(), |source| source.to_string());
        tracing::warn!("a token of Pod {name} ({account}) was shown from {from}, which is not that Pod's");
        return Err(Status::permission_denied(format!(
            "the token is Pod {name}'s, whose addresses are {:?}, but the call came from {from}; a Pod must show its \
             own token, from its own address (is the path to control masqueraded?)",
            pod.addresses
        )));
    }
    if pod.account != *account {
        return Err(Status::permission_denied(format!(
            "the token is of the account {account}, but Pod {name} runs as {}",
            pod.account
        )));
    }
    Ok(account.clone())
}
