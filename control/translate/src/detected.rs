//! What proxies found ports to speak, for those whose owners did not say.

use policy::{Protocol, ServiceName, ServicePort};
use std::collections::BTreeMap;

/// The verdicts reported so far.
#[derive(Clone, Debug, Default)]
pub struct Detected {
    /// `Auto`: reports differ, and the port stays undecided so that one client's protocol does not bind another's.
    verdicts: BTreeMap<ServicePort, Protocol>,
}

impl Detected {
    /// Takes a verdict; answers whether anything changes by it. A verdict of `Auto` is none.
    pub fn report(&mut self, backend: &ServicePort, protocol: Protocol) -> bool {
        if protocol == Protocol::Auto {
            return false;
        }
        match self.verdicts.get_mut(backend) {
            None => {
                self.verdicts.insert(backend.clone(), protocol);
                true
            }
            Some(held) if *held == protocol || *held == Protocol::Auto => false,
            Some(held) => {
                *held = Protocol::Auto;
                true
            }
        }
    }

    /// Forgets the verdicts on a Service that is gone.
    pub fn forget(&mut self, service: &ServiceName) {
        self.verdicts.retain(|backend, _| backend.service != *service);
    }

    /// What the port speaks as far as proxies agree.
    pub fn protocol(&self, backend: &ServicePort) -> Protocol {
        self.verdicts.get(backend).copied().unwrap_or_default()
    }
}
