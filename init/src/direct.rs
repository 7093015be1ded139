//! The redirection by nf_tables alone, for whoever enters the network namespaces of others: the CNI plugin and its agent. No
//! program of the host is run there, whatever PATH holds, and no other back end is looked at: nobody else put rules of ours there.
//!
//! Not here: entering a namespace, which the caller's thread has done.

use crate::error::Error;
use crate::host;
use crate::netlink::Nftables;
use crate::plan::{FAMILIES, Plan};
use crate::redirection::{Families, apply_native, check_capability};

/// Puts the plan in force, in place of whatever of ours is there, both families in one commit.
pub fn install(plan: &Plan) -> Result<Families, Error> {
    plan.check()?;
    check_capability()?;
    if let Some(uid) = plan.proxy_uid.filter(|uid| !host::is_mapped(*uid)) {
        return Err(Error::UnmappedUid(uid));
    }
    let families = Families::of(plan)?;
    apply_native(plan, families)?;
    Ok(families)
}

/// What the kernel's rules differ in from the plan, a sentence each; none when it is in force.
pub fn differences(plan: &Plan) -> Result<Vec<String>, Error> {
    plan.check()?;
    check_capability()?;
    let families = Families::of(plan)?;
    let mut found = Vec::new();
    for family in FAMILIES.into_iter().filter(|family| families.contains(*family)) {
        for chain in plan.chains(family) {
            let differences = Nftables::open()?.differences(&chain, family)?;
            found.extend(differences.into_iter().map(|difference| format!("{family}: {difference}")));
        }
    }
    Ok(found)
}
