//! Durations in cumulative buckets, and the quantiles that they allow.

/// Cumulative counts by upper bound in seconds, the bounds rising, the last infinite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Adds a count to the bucket of this bound.
    pub fn add_bucket(&mut self, bound: f64, count: u64) {
        match self.buckets.binary_search_by(|(known, _)| known.total_cmp(&bound)) {
            Ok(found) => self.buckets[found].1 += count,
            Err(place) => self.buckets.insert(place, (bound, count)),
        }
    }

    /// Adds another histogram of the same bounds.
    pub fn merge(&mut self, other: &Self) {
        for (bound, count) in &other.buckets {
            self.add_bucket(*bound, *count);
        }
    }

    /// What was recorded after an earlier state.
    pub fn since(&self, earlier: &Self) -> Self {
        let count_of =
            |bound: f64| earlier.buckets.iter().find(|(known, _)| *known == bound).map_or(0, |it| it.1);
        let buckets = self
            .buckets
            .iter()
            .map(|&(bound, count)| (bound, count.saturating_sub(count_of(bound))))
            .collect();
        Self { buckets }
    }

    /// The `q`-quantile in seconds, interpolated within its bucket as Prometheus does; 0 without any record, the
    /// highest finite bound when it is above that.
    pub fn quantile(&self, q: f64) -> f64 {
        let total = self.buckets.last().map_or(0, |(_, count)| *count);
        let rank = q * total as f64;
        let (mut lower, mut below) = (0.0, 0);
        for &(bound, count) in &self.buckets {
            if total > 0 && count as f64 >= rank && count > below {
                if bound.is_infinite() {
                    return lower;
                }
                return lower + (bound - lower) * (rank - below as f64) / (count - below) as f64;
            }
            (lower, below) = (if bound.is_infinite() { lower } else { bound }, count);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(buckets: &[(f64, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        // In any order.
        buckets.iter().rev().for_each(|(bound, count)| histogram.add_bucket(*bound, *count));
        histogram
    }

    #[test]
    fn quantiles_are_interpolated() {
        let inf = f64::INFINITY;
        let even = histogram(&[(0.001, 10), (0.002, 90), (0.005, 100), (inf, 100)]);
        let table = [
            (&even, 0.5, 0.0015),
            (&even, 0.05, 0.0005),
            (&even, 0.95, 0.0035),
            (&even, 1.0, 0.005),
            (&histogram(&[(0.001, 0), (0.002, 0), (inf, 4)]), 0.5, 0.002),
            (&histogram(&[(0.001, 0), (0.002, 4), (inf, 4)]), 0.0, 0.001),
            (&histogram(&[(0.001, 0), (inf, 0)]), 0.99, 0.0),
            (&Histogram::default(), 0.5, 0.0),
        ];
        for (histogram, q, seconds) in table {
            let found = histogram.quantile(q);
            assert!((found - seconds).abs() < 1e-9, "{histogram:?} {q}: {found}, not {seconds}");
        }
    }

    #[test]
    fn histograms_add_and_subtract() {
        let (first, second) = (histogram(&[(1.0, 3), (2.0, 5)]), histogram(&[(1.0, 1), (2.0, 1)]));
        let mut sum = first.clone();
        sum.merge(&second);
        assert_eq!(sum, histogram(&[(1.0, 4), (2.0, 6)]));
        assert_eq!(sum.since(&second), first);
        assert_eq!(first.since(&Histogram::default()), first);
    }
}
