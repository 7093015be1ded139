//! Which of the kernel's interfaces carries the rules, and how `auto` chooses.
//!
//! Pure. What each back end does is in `iptables.rs` with `tool.rs`, and in `nftables.rs` with `netlink.rs`.

use std::fmt;
use std::str::FromStr;

use crate::iptables::Saved;

/// What carries the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `iptables-restore` that speaks to nf_tables.
    Nft,
    /// `iptables-restore` that speaks to the kernel's old iptables.
    Legacy,
    /// nf_tables by netlink, without any program.
    Native,
}

/// All back ends, in order of preference.
pub const BACKENDS: [Backend; 3] = [Backend::Nft, Backend::Legacy, Backend::Native];

/// A back end, or the wish to have it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Where the rules of Kubernetes are, else where more rules are, else nft; native where no program works.
    #[default]
    Auto,
    This(Backend),
}

/// Chooses by what each kind of iptables sees; `None` is one whose programs are not there, or fail.
///
/// Rules in both tables would be evaluated one after the other, in an order that is hard to foresee: so ours go
/// where the others are.
pub fn choose(nft: Option<&Saved>, legacy: Option<&Saved>) -> Backend {
    match (nft, legacy) {
        (Some(nft), Some(legacy)) => {
            if (legacy.kube > 0, legacy.total) > (nft.kube > 0, nft.total) {
                Backend::Legacy
            } else {
                Backend::Nft
            }
        }
        (Some(_), None) => Backend::Nft,
        (None, Some(_)) => Backend::Legacy,
        (None, None) => Backend::Native,
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Nft => "nft",
            Backend::Legacy => "legacy",
            Backend::Native => "native",
        })
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        match text {
            "auto" => Ok(Choice::Auto),
            "nft" => Ok(Choice::This(Backend::Nft)),
            "legacy" => Ok(Choice::This(Backend::Legacy)),
            "native" => Ok(Choice::This(Backend::Native)),
            _ => Err("expected auto, nft, legacy or native".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_goes_where_the_rules_are() {
        let saved = |kube, total| Some(Saved { kube, total, ..Saved::default() });
        let table = [
            ("nothing anywhere", saved(0, 0), saved(0, 0), Backend::Nft),
            ("kube rules in legacy", saved(0, 0), saved(3, 9), Backend::Legacy),
            ("kube rules in nft, more others in legacy", saved(1, 1), saved(0, 50), Backend::Nft),
            ("kube rules in both, more in legacy", saved(1, 1), saved(1, 5), Backend::Legacy),
            ("kube hints of kubelet in nft, none in legacy", saved(2, 0), saved(0, 0), Backend::Nft),
            ("only others, in legacy", saved(0, 0), saved(0, 1), Backend::Legacy),
            ("as many in both", saved(0, 4), saved(0, 4), Backend::Nft),
            ("only the legacy programs", None, saved(0, 0), Backend::Legacy),
            ("only the nft programs", saved(0, 0), None, Backend::Nft),
            ("no programs", None, None, Backend::Native),
        ];
        for (name, nft, legacy, expected) in table {
            assert_eq!(choose(nft.as_ref(), legacy.as_ref()), expected, "{name}");
        }
    }
}
