//! `weft-init` in network namespaces: the program itself, the kernel's own answers, every back end, both families.
//!
//! Needs root, of the host or of a user namespace in which the uids 1000 and 2140 exist. The pure half is tested
//! beside its code.

#![allow(clippy::unwrap_used)]

mod golden;
mod lifecycle;
mod pod;
mod proof;
mod traffic;
mod user_namespace;
mod verification;
