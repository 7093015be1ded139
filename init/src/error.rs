//! Everything that can go wrong, each with what is missing and what to do about it.

use std::io;

use crate::plan::{Family, PlanError};

/// Why the redirection could not be put in force, taken out or read back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the plan is impossible")]
    Plan(#[from] PlanError),
    #[error(
        "CAP_NET_ADMIN is missing: add it to securityContext.capabilities (`add: [NET_ADMIN]`), \
         or run as root of the user namespace that owns this network namespace"
    )]
    MissingCapability,
    #[error(
        "kernel module {modules} is missing ({needed_for}): load it on the node (`modprobe`), \
         or choose another --backend; the kernel's answer: {answer}"
    )]
    MissingModule { modules: String, needed_for: &'static str, answer: String },
    #[error("no `{program}` in PATH: install iptables, or use --backend native, which needs no program")]
    MissingProgram { program: &'static str },
    #[error("`{program}` failed for {family}: {answer}")]
    Program { program: String, family: Family, answer: String },
    #[error("`{program}` could not be run")]
    Spawn {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the lock of iptables-legacy cannot be taken: mount a writable directory at /run, \
         or point XTABLES_LOCKFILE at a file; iptables says: {answer}"
    )]
    Lock { answer: String },
    #[error("nf_tables refused to {step}")]
    Netlink {
        step: String,
        #[source]
        source: io::Error,
    },
    #[error("IPv6 was asked for (--ipv6 on), but this kernel or namespace has none: use --ipv6 auto or off")]
    NoIpv6,
    #[error(
        "uid {0} does not exist in this user namespace, so the proxy cannot run as it: \
         exempt the proxy by its socket mark instead (--proxy-mark)"
    )]
    UnmappedUid(u32),
    #[error(
        "IPv4 is redirected now, but IPv6 could not be: run again when the cause is gone, or with --ipv6 off"
    )]
    SecondFamily {
        #[source]
        source: Box<Error>,
    },
    #[error("{path} could not be read")]
    Read {
        path: &'static str,
        #[source]
        source: io::Error,
    },
}
