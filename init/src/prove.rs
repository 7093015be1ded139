//! Proves without any capability that connections of this network namespace come to the proxy's port: the init container of
//! a pod whose redirection somebody else installs, the CNI plugin. It keeps the application from starting unmeshed.
//!
//! Reading the rules takes CAP_NET_ADMIN, so a connection is the proof; see `verify.rs`. Inbound rules are installed in the same
//! commit as outbound ones, and cannot be tried from within.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::plan::{FAMILIES, Family, Plan};
use crate::redirection::Families;
use crate::verify::{PROBE_LIMIT, Proof, probe, targets};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What connections of each family have shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// `Proof::ReadBack` says here that no connection could be made, and why.
    pub families: Vec<(Family, Proof)>,
    /// The plan redirects nothing that leaves, so there is nothing to prove.
    pub nothing_leaves: bool,
}

/// Tries until the outbound direction is proven, for at most `wait`: the redirection may come a moment later.
pub fn prove(plan: &Plan, wait: Duration) -> Result<Proven, Error> {
    plan.check()?;
    let deadline = Instant::now() + wait;
    loop {
        let proven = attempt(plan)?;
        if proven.holds() || Instant::now() >= deadline {
            return Ok(proven);
        }
        thread::sleep(PAUSE);
    }
}

fn attempt(plan: &Plan) -> Result<Proven, Error> {
    let families = Families::of(plan)?;
    let deadline = Instant::now() + PROBE_LIMIT;
    let families = FAMILIES.into_iter().filter(|family| families.contains(*family));
    let nothing_leaves = FAMILIES.into_iter().all(|family| targets(plan, family, &[]).is_empty());
    let families = families.map(|family| (family, probe(plan, family, deadline))).collect();
    Ok(Proven { families, nothing_leaves })
}

impl Proven {
    /// Whether a connection of at least one family came to the proxy's port, and none went elsewhere. A family may have no
    /// route, so that nothing can leave by it.
    pub fn holds(&self) -> bool {
        let any = |wanted: fn(&Proof) -> bool| self.families.iter().any(|(_, proof)| wanted(proof));
        !any(|proof| matches!(proof, Proof::Failed(_)))
            && (self.nothing_leaves || any(|proof| matches!(proof, Proof::Probed(_))))
    }
}

impl fmt::Display for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (family, proof)) in self.families.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            match proof {
                Proof::Probed(target) => {
                    write!(
                        f,
                        "{newline}{family} outbound: proven: a connection to {target} came to the proxy's port"
                    )?;
                }
                Proof::ReadBack(why) => write!(f, "{newline}{family} outbound: not tried: {why}")?,
                Proof::Failed(reasons) => {
                    write!(f, "{newline}{family} outbound: FAILED: {}", reasons.join("; "))?
                }
            }
        }
        if !self.holds() {
            f.write_str(
                "\nthe redirection of this pod is not in force: the CNI plugin weft-cni did not run for it, nor did its \
                 agent mend it. Is a pod of the DaemonSet weft-cni ready on this node? Its log says what it did",
            )?;
        }
        Ok(())
    }
}
