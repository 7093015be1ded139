//! A Namespace, as far as the mesh is concerned.

use crate::{manifest::Namespace as Manifest, ports::Ports, problem::Notes};

/// The label by which a Namespace asks for proxies.
const INJECT: &str = "weft.mesh/inject";

/// One Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// New Pods in it get a proxy.
    pub injected: bool,
    /// It is being deleted: nothing new can be made in it.
    pub terminating: bool,
    /// For Pods and Services in it that say nothing themselves.
    pub opaque: Option<Ports>,
}

impl Namespace {
    pub(crate) fn read(manifest: &Manifest, notes: &mut Notes) -> Self {
        Self {
            injected: manifest.metadata.label(INJECT) == Some("enabled"),
            terminating: manifest.metadata.deletion_timestamp.is_some(),
            opaque: Ports::annotated(&manifest.metadata, notes),
        }
    }
}
