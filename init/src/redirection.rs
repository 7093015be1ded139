//! Puts a plan in force in the network namespace of the calling thread, takes it out, prints it.
//!
//! Not here: the rules (`plan.rs`), their syntax (`iptables.rs`, `nftables.rs`), the proof that they work
//! (`verify.rs`).

use std::fmt;

use crate::backend::{BACKENDS, Backend, Choice, choose};
use crate::error::Error;
use crate::host::{self, Ipv6State};
use crate::iptables::{Saved, apply_input, remove_input};
use crate::netlink::Nftables;
use crate::nftables;
use crate::plan::{Chain, FAMILIES, Family, Ipv6, Plan};
use crate::tool::{Kind, Tool};

/// What `apply` did; its `Display` is the line that says so, and more lines where there is more to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub plan: Plan,
    pub backend: Backend,
    pub families: Families,
    /// Other back ends that held older rules of ours, which were taken out.
    pub swept: Vec<(Backend, Family)>,
}

/// What `remove` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub from: Vec<(Backend, Family)>,
}

/// The families that are redirected, and why IPv6 is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    Both,
    /// IPv4 only, for this reason.
    V4Only(&'static str),
}

/// Puts the plan in force, in place of whatever of ours is there. Each family changes in one commit (with
/// `Backend::Native` both in the same one), so no connection sees half of the rules.
pub fn apply(plan: &Plan, choice: Choice) -> Result<Applied, Error> {
    plan.check()?;
    check_capability()?;
    if let Some(uid) = plan.proxy_uid.filter(|uid| !host::is_mapped(*uid)) {
        return Err(Error::UnmappedUid(uid));
    }
    let families = Families::of(plan)?;
    let backend = resolve(choice);
    match Kind::of(backend) {
        Some(kind) => apply_iptables(plan, kind, families)?,
        None => apply_native(plan, families)?,
    }
    // Older rules elsewhere go last: a connection is better redirected twice than not at all.
    let mut swept = Vec::new();
    for family in FAMILIES.into_iter().filter(|family| !families.contains(*family)) {
        sweep(backend, family, &mut swept)?;
    }
    for other in BACKENDS.into_iter().filter(|other| *other != backend) {
        for family in FAMILIES {
            sweep(other, family, &mut swept)?;
        }
    }
    Ok(Applied { plan: plan.clone(), backend, families, swept })
}

/// Takes out everything of ours, from one back end or (`Choice::Auto`) from all.
pub fn remove(choice: Choice) -> Result<Removed, Error> {
    check_capability()?;
    let mut from = Vec::new();
    for backend in BACKENDS {
        if matches!(choice, Choice::This(this) if this != backend) {
            continue;
        }
        for family in FAMILIES {
            if choice != Choice::Auto && family == Family::V4 {
                // One that was asked for must be readable; of those we merely look into, only native must be.
                holds_ours(backend, family)?;
            }
            sweep(backend, family, &mut from)?;
        }
    }
    Ok(Removed { from })
}

/// What `apply` would send to a namespace that holds nothing of ours: input of `iptables-restore`, or for
/// `Backend::Native` the same in the syntax of `nft`. Changes nothing.
pub fn print(plan: &Plan, choice: Choice) -> Result<String, Error> {
    plan.check()?;
    let families = Families::of(plan)?;
    let backend = resolve(choice);
    let mut text = String::new();
    for family in FAMILIES.into_iter().filter(|family| families.contains(*family)) {
        match Kind::of(backend) {
            Some(kind) => {
                text.push_str(&format!("# {} --noflush\n", kind.restore_program(family)));
                text.push_str(&apply_input(plan, family, &Saved::default()));
            }
            None => text.push_str(&nftables::text(plan, family)),
        }
    }
    Ok(text)
}

/// The back ends that hold rules of ours in this family; those that cannot be read hold none.
pub fn holders(family: Family) -> Vec<Backend> {
    BACKENDS.into_iter().filter(|backend| holds_ours(*backend, family).unwrap_or(false)).collect()
}

/// What differs between a chain of the plan and what the kernel holds in this back end, a sentence each.
pub fn differences(chain: &Chain, backend: Backend, family: Family) -> Result<Vec<String>, Error> {
    match Kind::of(backend) {
        Some(kind) => Ok(Tool::find(kind, family)?.save()?.differences(chain)),
        None => Nftables::open()?.differences(chain, family),
    }
}

impl Families {
    /// The families of a plan in this namespace.
    pub fn of(plan: &Plan) -> Result<Families, Error> {
        Families::choose(plan.ipv6, host::ipv6()?)
    }

    fn choose(wish: Ipv6, state: Ipv6State) -> Result<Families, Error> {
        match (wish, state) {
            (Ipv6::Off, _) => Ok(Families::V4Only("IPv6 is not redirected, as asked")),
            (Ipv6::On, Ipv6State::Absent) => Err(Error::NoIpv6),
            (Ipv6::Auto, Ipv6State::Absent) => {
                Ok(Families::V4Only("this kernel has no IPv6: only IPv4 is redirected"))
            }
            (Ipv6::Auto, Ipv6State::Disabled) => {
                Ok(Families::V4Only("IPv6 is disabled in this namespace: only IPv4 is redirected"))
            }
            (Ipv6::On, _) | (Ipv6::Auto, Ipv6State::On) => Ok(Families::Both),
        }
    }

    pub fn contains(self, family: Family) -> bool {
        family == Family::V4 || self == Families::Both
    }
}

/// Asks for the capability over the network namespace, which root of another user namespace may lack although its
/// process has it. nf_tables asks it of every message, so a harmless one tells.
pub fn check_capability() -> Result<(), Error> {
    if !host::has_net_admin()? {
        return Err(Error::MissingCapability);
    }
    match Nftables::open().and_then(|socket| socket.tables()) {
        Err(Error::MissingCapability) => Err(Error::MissingCapability),
        // What else is wrong with nf_tables concerns only those who use it.
        _ => Ok(()),
    }
}

fn resolve(choice: Choice) -> Backend {
    let may_look = check_capability().is_ok();
    let see = |kind| {
        let tool = Tool::find(kind, Family::V4).ok()?;
        // To print rules nothing need be seen: then every namespace is taken for an empty one.
        if may_look { tool.save().ok() } else { Some(Saved::default()) }
    };
    match choice {
        Choice::This(backend) => backend,
        Choice::Auto => choose(see(Kind::Nft).as_ref(), see(Kind::Legacy).as_ref()),
    }
}

fn apply_iptables(plan: &Plan, kind: Kind, families: Families) -> Result<(), Error> {
    // All that can be found missing is found before the first family is changed.
    let mut ready = Vec::new();
    for family in FAMILIES.into_iter().filter(|family| families.contains(*family)) {
        let tool = Tool::find(kind, family)?;
        let saved = tool.save()?;
        ready.push((tool, apply_input(plan, family, &saved)));
    }
    for (index, (tool, input)) in ready.iter().enumerate() {
        tool.restore(input).map_err(|source| match index {
            0 => source,
            _ => Error::SecondFamily { source: Box::new(source) },
        })?;
    }
    Ok(())
}

pub(crate) fn apply_native(plan: &Plan, families: Families) -> Result<(), Error> {
    let wanted = FAMILIES.into_iter().filter(|family| families.contains(*family));
    let steps: Vec<_> = wanted.flat_map(|family| nftables::apply_steps(plan, family)).collect();
    Nftables::open()?.commit(&steps)
}

fn holds_ours(backend: Backend, family: Family) -> Result<bool, Error> {
    match Kind::of(backend) {
        Some(kind) => Ok(Tool::find(kind, family)?.save()?.holds_ours()),
        None => Ok(Nftables::open()?.tables()?.contains(&family)),
    }
}

/// Takes our rules out of one back end, if it can be read and holds any, and notes it.
fn sweep(backend: Backend, family: Family, swept: &mut Vec<(Backend, Family)>) -> Result<(), Error> {
    match Kind::of(backend) {
        Some(kind) => {
            // Without its programs, or on a kernel without it, this back end never held anything of ours.
            let Ok(tool) = Tool::find(kind, family) else { return Ok(()) };
            let Some(input) = tool.save().ok().and_then(|saved| remove_input(&saved)) else { return Ok(()) };
            tool.restore(&input)?;
        }
        None => {
            let Ok(socket) = Nftables::open() else { return Ok(()) };
            if !socket.tables().is_ok_and(|families| families.contains(&family)) {
                return Ok(());
            }
            socket.commit(&[nftables::delete_table(family)])?;
        }
    }
    swept.push((backend, family));
    Ok(())
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families = if self.families == Families::Both { "IPv4+IPv6" } else { "IPv4" };
        write!(
            f,
            "redirection installed ({}, {families}): outbound -> {}, inbound -> {}, exempt ",
            self.backend, self.plan.outbound_port, self.plan.inbound_port
        )?;
        match (self.plan.proxy_uid, self.plan.proxy_mark) {
            (Some(uid), Some(mark)) => write!(f, "uid {uid} and mark {mark:#x}")?,
            (Some(uid), None) => write!(f, "uid {uid}")?,
            (None, mark) => write!(f, "mark {:#x}", mark.unwrap_or_default())?,
        }
        if let Families::V4Only(reason) = self.families {
            write!(f, "\n{reason}")?;
        }
        for (backend, family) in &self.swept {
            write!(f, "\nolder rules taken out ({backend}, {family})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from.is_empty() {
            return f.write_str("no redirection was installed: nothing to remove");
        }
        let places: Vec<String> =
            self.from.iter().map(|(backend, family)| format!("{backend} {family}")).collect();
        write!(f, "redirection removed ({})", places.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_redirected_where_it_is() {
        let table = [
            (Ipv6::Auto, Ipv6State::On, Ok(true)),
            (Ipv6::Auto, Ipv6State::Disabled, Ok(false)),
            (Ipv6::Auto, Ipv6State::Absent, Ok(false)),
            (Ipv6::On, Ipv6State::On, Ok(true)),
            // It can be switched on later, and is then redirected.
            (Ipv6::On, Ipv6State::Disabled, Ok(true)),
            (Ipv6::On, Ipv6State::Absent, Err(())),
            (Ipv6::Off, Ipv6State::On, Ok(false)),
            (Ipv6::Off, Ipv6State::Absent, Ok(false)),
        ];
        for (wish, state, expected) in table {
            let chosen = Families::choose(wish, state);
            let both = chosen.map(|families| families.contains(Family::V6)).map_err(drop);
            assert_eq!(both, expected, "{wish:?} {state:?}");
        }
    }
}
