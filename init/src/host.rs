//! What this process and its network namespace can do: capability, IPv6, uids. Read from `/proc`, of the calling
//! thread's own namespaces.
//!
//! Not here: decisions about it (`redirection.rs`).

use std::fs;
use std::io;

use crate::error::Error;

/// Number of `CAP_NET_ADMIN` (capabilities(7)).
const CAP_NET_ADMIN: u32 = 12;

/// Whether a namespace speaks IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6State {
    On,
    /// `net.ipv6.conf.all.disable_ipv6` is set and no interface has an address.
    Disabled,
    /// The kernel was built or started without IPv6.
    Absent,
}

/// Whether the calling thread may change network settings in its own user namespace.
pub fn has_net_admin() -> Result<bool, Error> {
    const PATH: &str = "/proc/thread-self/status";
    let status = fs::read_to_string(PATH).map_err(|source| Error::Read { path: PATH, source })?;
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(held.is_some_and(|mask| mask & (1 << CAP_NET_ADMIN) != 0))
}

/// Whether the network namespace of the calling thread speaks IPv6.
pub fn ipv6() -> Result<Ipv6State, Error> {
    const ADDRESSES: &str = "/proc/thread-self/net/if_inet6";
    const SWITCH: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
    let addresses = match fs::read_to_string(ADDRESSES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ipv6State::Absent),
        Err(source) => return Err(Error::Read { path: ADDRESSES, source }),
    };
    // A namespace whose interfaces are still down has no address either; so the switch must agree.
    let disabled = fs::read_to_string(SWITCH).map(|text| text.trim() == "1").unwrap_or(false);
    Ok(if addresses.is_empty() && disabled { Ipv6State::Disabled } else { Ipv6State::On })
}

/// Whether a process of this user namespace can have the uid.
pub fn is_mapped(uid: u32) -> bool {
    fs::read_to_string("/proc/thread-self/uid_map").map_or(true, |map| maps(&map, uid))
}

/// Reads a `uid_map`: lines of first uid inside, first uid outside, how many.
fn maps(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(_), Some(Ok(count))) => (first..first + count).contains(&u64::from(uid)),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_maps_are_read() {
        let all = "         0          0 4294967295\n";
        let one = "         0       1000          1\n";
        let some = "         0       1000          1\n         1     100000      65536\n";
        for (map, uid, expected) in
            [(all, 2140, true), (one, 2140, false), (one, 0, true), (some, 2140, true), (some, 65537, false)]
        {
            assert_eq!(maps(map, uid), expected, "{map:?} {uid}");
        }
    }
}
