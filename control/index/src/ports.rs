//! A set of ports as annotations write it: `25,3306,6000-6010`.

use crate::{manifest::ObjectMeta, problem::Notes};
use std::ops::RangeInclusive;

/// The annotation of ports whose bytes are not looked at.
const OPAQUE_PORTS: &str = "weft.mesh/opaque-ports";

/// Some ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Box<[RangeInclusive<u16>]>);

impl Ports {
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// What the annotation says; `None` when it is not there. Parts that are no ports are left out and noted.
    pub(crate) fn annotated(metadata: &ObjectMeta, notes: &mut Notes) -> Option<Self> {
        let text = metadata.annotation(OPAQUE_PORTS)?;
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let ranges = parts.filter_map(|part| {
            let range = range(part);
            if range.is_none() {
                let field = format!("metadata.annotations[{OPAQUE_PORTS}]");
                notes.add(
                    field,
                    format!("{part:?} is neither a port nor a range such as 6000-6010; it is left out"),
                );
            }
            range
        });
        Some(Self(ranges.collect()))
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.trim().parse().ok().filter(|port| *port != 0);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some(first..=last)
}
