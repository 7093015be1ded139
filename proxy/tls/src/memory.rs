//! Chains that were verified a while ago: checking a chain's signatures again is about half of a handshake's cost.
//! A memory belongs to one set of roots and goes with it.

use crate::{trust::Role, validity::Validity};
use policy::SpiffeId;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

/// Chains remembered: peers of one proxy, with their last certificates.
const CHAINS: usize = 1024;

#[derive(Default)]
pub(crate) struct Memory {
    hasher: RandomState,
    /// By the hash of role and chain; the chain itself is compared, so that a collision costs only time.
    chains: Mutex<HashMap<u64, Entry>>,
}

struct Entry {
    role: Role,
    chain: Vec<CertificateDer<'static>>,
    identity: SpiffeId,
    validity: Validity,
}

impl Memory {
    /// Who the chain was verified to be, if it was and each of its certificates is valid at `now`, without any skew:
    /// at its edges the chain is verified anew.
    pub fn recall(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<SpiffeId> {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = chains.get(&self.hash(role, leaf, intermediates))?;
        let same = entry.role == role && entry.chain.iter().eq(std::iter::once(leaf).chain(intermediates));
        (same && entry.validity.holds(now, std::time::Duration::ZERO)).then(|| entry.identity.clone())
    }

    /// Remembers a chain that was verified for `role`.
    pub fn keep(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        identity: &SpiffeId,
        now: UnixTime,
    ) {
        let chain: Vec<_> =
            std::iter::once(leaf).chain(intermediates).map(|one| one.clone().into_owned()).collect();
        let Some(validity) =
            chain.iter().map(|one| Validity::of(one)).reduce(|one, other| Some(one?.and(other?))).flatten()
        else {
            return;
        };
        let key = self.hash(role, leaf, intermediates);
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if chains.len() >= CHAINS {
            chains.retain(|_, entry| entry.validity.holds(now, std::time::Duration::ZERO));
        }
        if chains.len() >= CHAINS {
            chains.clear();
        }
        chains.insert(key, Entry { role, chain, identity: identity.clone(), validity });
    }

    fn hash(&self, role: Role, leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> u64 {
        self.hasher.hash_one((role, leaf.as_ref(), intermediates.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 2);
        parameters.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn a_chain_is_recalled_for_its_role_and_time_alone() {
        let (memory, leaf, other) = (Memory::default(), certificate(), certificate());
        let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().expect("an identity");
        let start =
            u64::try_from(rcgen::date_time_ymd(2020, 1, 1).unix_timestamp()).expect("after the epoch");
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(start + seconds));
        let issuer = [other.clone()];

        memory.keep(Role::Client, &leaf, &issuer, &identity, at(1));
        assert_eq!(memory.recall(Role::Client, &leaf, &issuer, at(2)), Some(identity));
        assert_eq!(memory.recall(Role::Server, &leaf, &issuer, at(2)), None, "another role");
        assert_eq!(memory.recall(Role::Client, &leaf, &[], at(2)), None, "another chain");
        assert_eq!(
            memory.recall(Role::Client, &leaf, std::slice::from_ref(&leaf), at(2)),
            None,
            "another issuer"
        );
        assert_eq!(memory.recall(Role::Client, &other, &issuer, at(2)), None, "another leaf");
        assert_eq!(memory.recall(Role::Client, &leaf, &issuer, at(86_401)), None, "expired");
        assert_eq!(
            memory.recall(Role::Client, &leaf, &issuer, UnixTime::since_unix_epoch(Default::default())),
            None,
            "not yet valid",
        );
    }

    #[test]
    fn the_memory_is_bounded() {
        let (memory, identity) = (Memory::default(), "spiffe://a/ns/b/sa/c".parse().expect("an identity"));
        let leaf = certificate();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_577_900_000));
        for number in 0..2 * CHAINS {
            // Bytes after the certificate make another chain of it, which is all that this needs.
            let mut der = leaf.to_vec();
            der.extend_from_slice(&number.to_be_bytes());
            memory.keep(Role::Client, &CertificateDer::from(der), &[], &identity, now);
        }
        let held = memory.chains.lock().expect("nobody panicked").len();
        assert!((1..=CHAINS).contains(&held), "{held}");
    }
}
