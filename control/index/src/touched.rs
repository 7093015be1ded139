//! What a change can have changed: whose answers are to be made anew.

use crate::{Account, Key};
use policy::{ServiceName, WorkloadName};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

/// Everything whose answer may differ now. It may name too much, never too little.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Destinations at these addresses, on any port.
    pub addresses: BTreeSet<IpAddr>,
    /// The endpoints of every port of these Services, and the problems of these Services.
    pub services: BTreeSet<ServiceName>,
    /// What these workloads accept, on any port.
    pub workloads: BTreeSet<WorkloadName>,
    /// Namespaces that came, changed or went, and those whose first or last Pod with a proxy came or went.
    pub namespaces: BTreeSet<Arc<str>>,
    /// Service accounts that came or went.
    pub accounts: BTreeSet<Account>,
    /// The statuses and problems of these routes, which may be gone.
    pub routes: BTreeSet<Key>,
    /// The statuses and problems of these policies, which may be gone.
    pub policies: BTreeSet<Key>,
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds all that `other` touched.
    pub fn merge(&mut self, mut other: Touched) {
        self.addresses.append(&mut other.addresses);
        self.services.append(&mut other.services);
        self.workloads.append(&mut other.workloads);
        self.namespaces.append(&mut other.namespaces);
        self.accounts.append(&mut other.accounts);
        self.routes.append(&mut other.routes);
        self.policies.append(&mut other.policies);
    }
}
