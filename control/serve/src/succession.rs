//! When a new issuer begins to sign: once the root that it leads to has been told to proxies for a while, since whoever
//! has not heard of a root refuses what is signed below it. Roots themselves are told at once.
//!
//! Where nothing leads from the old issuer to the new roots there is nothing to wait with: the new one signs at once.
//! A run of control takes what it finds at its start for told.

use crate::issuer::Authority;
use policy::TrustDomain;
use rustls_pki_types::CertificateDer;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// The roots that are told, and the issuer that waits for its own to be known.
pub struct Succession {
    trust_domain: TrustDomain,
    spread: Duration,
    /// When each root was first told; `None` for those of the start.
    told: HashMap<CertificateDer<'static>, Option<Instant>>,
    heir: Option<(Arc<Authority>, Instant)>,
}

impl Succession {
    pub fn new(first: &Authority, trust_domain: TrustDomain, spread: Duration) -> Self {
        let told = first.roots().iter().map(|root| (root.clone(), None)).collect();
        Self { trust_domain, spread, told, heir: None }
    }

    /// What to rely on now that the files say `new`, while `held` has signed until now.
    pub fn take(&mut self, held: &Authority, new: Authority, now: Instant) -> Authority {
        self.heir = None;
        self.told.retain(|root, _| new.roots().contains(root));
        for root in new.roots() {
            self.told.entry(root.clone()).or_insert(Some(now));
        }
        let ready = |told: Option<Instant>| told.is_none_or(|told| told + self.spread <= now);
        let known: Vec<_> =
            self.told.iter().filter(|(_, told)| ready(**told)).map(|(root, _)| root.clone()).collect();
        let successor = !new.signs_as(held) && !new.leads_to(&known, &self.trust_domain);
        if !successor || !held.leads_to(new.roots(), &self.trust_domain) {
            return new;
        }
        let reign = new.signed_by(held);
        let latest = self.told.values().flatten().max().copied().unwrap_or(now);
        self.heir = Some((Arc::new(new), latest + self.spread));
        reign
    }

    /// When the next issuer begins to sign.
    pub fn due(&self) -> Option<Instant> {
        self.heir.as_ref().map(|(_, due)| *due)
    }

    /// The next issuer, if its time has come.
    pub fn next(&mut self, now: Instant) -> Option<Arc<Authority>> {
        self.heir.take_if(|(_, due)| *due <= now).map(|(heir, _)| heir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};
    use tempfile::TempDir;

    fn domain() -> TrustDomain {
        "cluster.local".parse().expect("a trust domain")
    }

    fn state() -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        Authority::open(folder.path(), &domain()).expect("a root");
        folder
    }

    fn read(folder: &Path, file: &str) -> Vec<u8> {
        fs::read(folder.join(file)).expect("a file")
    }

    /// The issuer of one state, and the roots of these.
    fn files(issuer: &TempDir, roots: &[&TempDir]) -> Authority {
        let folder = tempfile::tempdir().expect("a folder");
        let all: Vec<u8> = roots.iter().flat_map(|root| read(root.path(), "ca.pem")).collect();
        for (file, bytes) in [
            ("issuer.pem", read(issuer.path(), "issuer.pem")),
            ("issuer.key", read(issuer.path(), "issuer.key")),
            ("ca.pem", all),
        ] {
            fs::write(folder.path().join(file), bytes).expect("a file");
        }
        Authority::open(folder.path(), &domain()).expect("an authority")
    }

    #[test]
    fn an_issuer_signs_when_its_root_has_been_told_for_a_while() {
        const SPREAD: u64 = 65;
        let (old, new) = (state(), state());
        let (from_old, from_new) = (|| files(&old, &[&old, &new]), || files(&new, &[&old, &new]));
        // What the files say, when (s); who signs from then on, and when the other one begins.
        type Step<'a> = (u64, &'a dyn Fn() -> Authority, &'a TempDir, Option<u64>);
        let table: [(&str, &[Step<'_>]); 5] = [
            ("both at once: the root first", &[(0, &from_new, &old, Some(SPREAD))]),
            (
                "the root first, and the issuer soon after it",
                &[(0, &from_old, &old, None), (30, &from_new, &old, Some(SPREAD))],
            ),
            (
                "the root first, and the issuer late enough",
                &[(0, &from_old, &old, None), (SPREAD, &from_new, &new, None)],
            ),
            ("no way from the old issuer to the new root", &[(0, &|| files(&new, &[&new]), &new, None)]),
            (
                "another change of the roots in the meantime, and a step back",
                &[
                    (0, &from_new, &old, Some(SPREAD)),
                    (10, &|| files(&new, &[&new, &old]), &old, Some(SPREAD)),
                    (20, &|| files(&old, &[&old]), &old, None),
                ],
            ),
        ];
        for (case, steps) in table {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let mut held = Authority::open(old.path(), &domain()).expect("an authority");
            let mut succession = Succession::new(&held, domain(), Duration::from_secs(SPREAD));
            for (second, said, signer, due) in steps {
                held = succession.take(&held, said(), at(*second));
                let signer = Authority::open(signer.path(), &domain()).expect("an authority");
                assert!(held.signs_as(&signer), "{case}: at {second} s another one signs");
                assert_eq!(held.roots(), said().roots(), "{case}: roots are told at once");
                assert_eq!(succession.due(), due.map(at), "{case}: at {second} s");
                let Some(due) = due else { continue };
                assert!(succession.next(at(due - 1)).is_none(), "{case}");
            }
            if let Some(due) = succession.due() {
                assert!(succession.next(due).expect("an heir").signs_as(&from_new()), "{case}");
                assert!(succession.next(due).is_none(), "{case}");
            }
        }
    }
}
