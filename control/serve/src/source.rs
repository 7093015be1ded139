//! Where objects come from. A source hands over batches of changes, and with each batch all that is wrong in it.

pub mod directory;
mod files;
pub mod kubernetes;

use crate::problems::{self, Problem};
use control_index::{Key, Object};
use std::{collections::BTreeSet, sync::Arc};

/// One object that came, changed or went.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Apply {
        object: Arc<Object>,
        /// Where it is written, for people: `shop/cart.yaml:12`; empty: in the cluster.
        origin: String,
    },
    Delete(Key),
}

/// What a look at the source found.
#[derive(Debug)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// Who says what is wrong.
    pub source: problems::Source,
    /// All that is wrong in the source now, not only what is new.
    pub problems: BTreeSet<Problem>,
    /// Objects of kinds that are not taken.
    pub skipped: usize,
}
