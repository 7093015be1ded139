//! What the workers of a proxy use together of a backend's limits. A limit is of the proxy: divided among workers it would be hit by
//! the one that has most of the connections. So the counts are shared; only requests under a limit touch them, and nobody waits.

use policy::ServicePort;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::lock;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// TCP connections, and requests that have become tunnels.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests under way.
    Requests,
}

/// The counts of one backend.
#[derive(Debug, Default)]
pub struct Usage([AtomicU32; 3]);

/// One of what is limited; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    usage: Arc<Usage>,
    limited: Limited,
}

impl Usage {
    /// One more, if there may be so many.
    pub fn take(self: &Arc<Self>, limited: Limited, limit: u32) -> Option<Permit> {
        let count = &self.0[limited as usize];
        if count.fetch_add(1, Relaxed) >= limit {
            count.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Permit { usage: self.clone(), limited })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.usage.0[self.limited as usize].fetch_sub(1, Relaxed);
    }
}

/// The counts of all backends that somebody sends to.
#[derive(Default)]
pub(super) struct Usages(Mutex<HashMap<ServicePort, Weak<Usage>>>);

impl Usages {
    /// The same for each worker.
    pub(super) fn of(&self, backend: &ServicePort) -> Arc<Usage> {
        let mut all = lock(&self.0);
        if let Some(usage) = all.get(backend).and_then(Weak::upgrade) {
            return usage;
        }
        all.retain(|_, usage| usage.strong_count() > 0);
        let usage = Arc::<Usage>::default();
        all.insert(backend.clone(), Arc::downgrade(&usage));
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_limit_and_give_back_what_they_have_used() {
        let (usages, web) = (Usages::default(), policy::ServiceName::new("shop", "web").port(80));
        let [one, other] = [usages.of(&web), usages.of(&web)];
        let first = one.take(Limited::Requests, 2);
        let second = other.take(Limited::Requests, 2);
        assert!(first.is_some() && second.is_some() && one.take(Limited::Requests, 2).is_none());
        assert!(one.take(Limited::Pending, 1).is_some(), "another limit");
        drop(first);
        assert!(other.take(Limited::Requests, 2).is_some());
        let stranger = usages.of(&policy::ServiceName::new("shop", "cart").port(80));
        assert!(stranger.take(Limited::Requests, 1).is_some());
    }
}
