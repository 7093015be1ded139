//! Which label sets have series of their own: the budget, folding into `other`, and making room.
//!
//! A label set is charged when it is first seen, whoever sees it, with what it typically shows. Where nothing is
//! left, the label sets that no worker holds any more (replaced pods, clients that went) leave the exposition, as
//! their Prometheus series would: their counts are not added to another series, since `rate` would take that sum for
//! traffic of that moment. If that is not enough, new label sets are counted in `other` from their first event on.
//! Scopes stay, so a service's request count and durations never go back.

use std::collections::HashMap;
use std::sync::Arc;

use super::Direction;
use super::edge::{BUCKETS, Edge, EdgeLabels, EdgeTotals, OTHER, Scope, ScopeTotals};

/// Series of an edge: three classes, in flight, two of connections, two of bytes.
const EDGE_SERIES: usize = 8;
/// Series of a scope: its histogram with sum, count and `+Inf`, some reasons, and the age of its endpoints.
const SCOPE_SERIES: usize = BUCKETS.len() + 3 + 4;
/// Kept back for `other`, for what happens once a connection, and for the process.
const RESERVED_SERIES: usize = 200;

type Map<K, V> = HashMap<K, Vec<Option<Arc<V>>>, foldhash::fast::RandomState>;

/// A scope's labels: direction and service.
pub(super) type ScopeKey = (Direction, Arc<str>);

/// What a scrape sees: each label set once, in order.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub edges: Vec<(EdgeLabels, EdgeTotals)>,
    pub scopes: Vec<(ScopeKey, ScopeTotals)>,
    /// Label sets that were refused their own series, each time they asked.
    pub folded: u64,
}

/// Every worker's shards, by label set; a row is indexed by the worker.
pub(super) struct Table {
    edges: Map<EdgeLabels, Edge>,
    scopes: Map<ScopeKey, Scope>,
    /// Series that may still be promised.
    left: usize,
    folded: u64,
}

impl Table {
    /// An empty table with room for `series`.
    pub(super) fn new(series: usize) -> Self {
        Self {
            edges: Map::default(),
            scopes: Map::default(),
            left: series.saturating_sub(RESERVED_SERIES),
            folded: 0,
        }
    }

    /// The shard of this worker for these labels, or for what they fold into.
    pub(super) fn edge(&mut self, worker: usize, labels: &EdgeLabels) -> Arc<Edge> {
        if let Some(edge) = self.edges.get(labels).and_then(|row| row.get(worker)).and_then(Option::as_ref) {
            return Arc::clone(edge);
        }
        let scope = self.scope(worker, labels.direction, &labels.service);
        let own = self.edges.contains_key(labels) || self.charge(EDGE_SERIES);
        let labels = if own { labels.clone() } else { labels.folded() };
        resolve(&mut self.edges, labels, worker, || Edge::new(scope))
    }

    /// The shard of this worker for a direction and service, or for `other`.
    pub(super) fn scope(&mut self, worker: usize, direction: Direction, service: &str) -> Arc<Scope> {
        let key = (direction, Arc::from(service));
        let own = self.scopes.contains_key(&key) || self.charge(SCOPE_SERIES);
        let key = if own { key } else { (direction, Arc::from(OTHER)) };
        resolve(&mut self.scopes, key, worker, Scope::default)
    }

    /// The sums over workers.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            edges: sum(&self.edges, EdgeTotals::add),
            scopes: sum(&self.scopes, ScopeTotals::add),
            folded: self.folded,
        }
    }

    fn charge(&mut self, series: usize) -> bool {
        if self.left < series {
            self.retire();
        }
        let fits = self.left >= series;
        if fits {
            self.left -= series;
        } else {
            self.folded += 1;
        }
        fits
    }

    /// Drops the edges whose handles are all gone, in all workers at once: a series that lived on in one worker would
    /// seem to have been reset.
    fn retire(&mut self) {
        let before = self.edges.len();
        self.edges.retain(|labels, row| {
            &*labels.backend == OTHER || row.iter().flatten().any(|edge| Arc::strong_count(edge) > 1)
        });
        self.left += (before - self.edges.len()) * EDGE_SERIES;
    }
}

fn resolve<K: Eq + std::hash::Hash, V>(
    map: &mut Map<K, V>,
    key: K,
    worker: usize,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    let row = map.entry(key).or_default();
    if row.len() <= worker {
        row.resize_with(worker + 1, || None);
    }
    Arc::clone(row[worker].get_or_insert_with(|| Arc::new(make())))
}

fn sum<K: Clone + Ord, V, T: Default>(map: &Map<K, V>, add: impl Fn(&mut T, &V)) -> Vec<(K, T)> {
    let mut all: Vec<_> = map
        .iter()
        .map(|(key, row)| {
            let mut total = T::default();
            row.iter().flatten().for_each(|shard| add(&mut total, shard));
            (key.clone(), total)
        })
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}
