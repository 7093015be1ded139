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

#[cfg(test)]
mod tests {
    use super::*;
    use control_index::Kind;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use tonic::Code;

    const AUDIENCE: &str = "identity.weft.mesh";

    fn index() -> Index {
        let mut index = Index::default();
        for (name, uid, account, addresses) in [
            ("cart-1", "u1", "cart", r#"{"ip":"10.1.0.1"},{"ip":"fd00::1"}"#),
            ("order-1", "u2", "order", r#"{"ip":"10.1.0.2"}"#),
            ("young-1", "u3", "cart", ""),
        ] {
            let json = format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"shop","uid":"{uid}"}},
                     "spec":{{"serviceAccountName":"{account}","containers":[]}},"status":{{"podIPs":[{addresses}]}}}}"#
            );
            let pod = Kind::Pod.read(&mut serde_json::Deserializer::from_str(&json)).expect("a pod");
            index.apply(&pod);
        }
        index
    }

    fn claim(account: &str, pod: &str, uid: &str) -> Claim {
        Claim { account: Account::new("shop", account), pod: WorkloadName::new("shop", pod), uid: uid.into() }
    }

    #[test]
    fn a_token_counts_only_from_its_own_pods_address() {
        let index = index();
        let cart = || claim("cart", "cart-1", "u1");
        let table = [
            ("its own address", cart(), Some("10.1.0.1"), None),
            ("its other family", cart(), Some("fd00::1"), None),
            ("as a dual socket says it", cart(), Some("::ffff:10.1.0.1"), None),
            ("another Pod's address", cart(), Some("10.1.0.2"), Some(Code::PermissionDenied)),
            ("nobody's address", cart(), Some("10.9.9.9"), Some(Code::PermissionDenied)),
            ("no address at all", cart(), None, Some(Code::PermissionDenied)),
            (
                "another account than the Pod's",
                claim("order", "cart-1", "u1"),
                Some("10.1.0.1"),
                Some(Code::PermissionDenied),
            ),
            (
                "a Pod that nobody has heard of",
                claim("cart", "cart-9", "u9"),
                Some("10.1.0.1"),
                Some(Code::Unavailable),
            ),
            (
                "a later Pod of that name",
                claim("cart", "cart-1", "u9"),
                Some("10.1.0.1"),
                Some(Code::Unavailable),
            ),
            (
                "a Pod without an address yet",
                claim("cart", "young-1", "u3"),
                Some("10.1.0.3"),
                Some(Code::Unavailable),
            ),
        ];
        for (case, claim, source, refused) in table {
            let source = source.map(|text| text.parse().expect("an address"));
            let judged = judge(&claim, source, &index);
            assert_eq!(judged.as_ref().err().map(Status::code), refused, "{case}: {judged:?}");
            if let Ok(account) = judged {
                assert_eq!(account, Account::new("shop", "cart"), "{case}");
            }
        }
    }

    fn review() -> TokenReviewStatus {
        let extra = [(POD_NAME, "cart-1"), (POD_UID, "u1")];
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.into()]),
            user: Some(UserInfo {
                username: Some("system:serviceaccount:shop:cart".into()),
                extra: Some(extra.map(|(key, value)| (key.into(), vec![value.into()])).into()),
                ..UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        }
    }

    #[test]
    fn a_review_that_proves_no_pod_of_an_account_is_refused() {
        type Spoil = fn(&mut TokenReviewStatus);
        assert_eq!(Claim::read(review(), AUDIENCE), Ok(claim("cart", "cart-1", "u1")));
        let table: [(Spoil, &str); 6] = [
            (|it| it.authenticated = None, "is not valid"),
            (
                |it| (it.authenticated, it.error) = (Some(false), Some("token has expired".into())),
                "token has expired",
            ),
            // From an API server that knows nothing of audiences.
            (|it| it.audiences = None, "audience"),
            (|it| it.audiences = Some(vec!["https://kubernetes.default.svc".into()]), "audience"),
            (
                |it| it.user = Some(UserInfo { username: Some("admin".into()), ..UserInfo::default() }),
                "no service account",
            ),
            (|it| it.user.as_mut().expect("a user").extra = None, "not bound to a Pod"),
        ];
        for (spoil, says) in table {
            let mut review = review();
            spoil(&mut review);
            let refused = Claim::read(review, AUDIENCE).expect_err(says);
            assert!(refused.contains(says), "{refused}");
        }
    }
}
