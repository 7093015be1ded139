//! Reading Prometheus' classic text: sums over the series that match.

use std::collections::BTreeMap;

/// One series of a scrape.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of all series of this name that carry all these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name)
            .filter(|(text, _)| labels.iter().all(|(label, value)| has_label(text, label, value)))
            .map(|(_, value)| value)
            .sum()
    }

    /// How often the proxy gave this reason itself.
    pub fn reason(&self, direction: &str, reason: &str) -> f64 {
        self.sum("weft_reasons_total", &[("direction", direction), ("reason", reason)])
    }

    /// All series of this name, with their labels. Values of labels that hold quotes or commas are not understood.
    pub fn series_of(&self, name: &str) -> Vec<Series> {
        let labels = |text: &str| {
            let pairs = text.split("\",").filter_map(|pair| pair.split_once("=\""));
            pairs.map(|(label, value)| (label.to_owned(), value.trim_end_matches('"').to_owned())).collect()
        };
        self.series(name).map(|(text, value)| Series { labels: labels(text), value }).collect()
    }

    /// The label text and the value of each series of this name.
    fn series(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.parse().ok()?))
        })
    }
}

fn has_label(labels: &str, label: &str, value: &str) -> bool {
    let pair = format!("{label}=\"{value}\"");
    labels == pair
        || labels.starts_with(&format!("{pair},"))
        || labels.ends_with(&format!(",{pair}"))
        || labels.contains(&format!(",{pair},"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_matches() {
        let metrics = Metrics(
            "# TYPE a_total counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\na_total_b 9\nb 5\n".into(),
        );
        assert_eq!(metrics.sum("a_total", &[]), 7.0);
        assert_eq!(metrics.sum("a_total", &[("y", "3"), ("x", "1")]), 4.0);
        assert_eq!(metrics.sum("a_total", &[("x", "")]), 0.0);
        assert_eq!(metrics.sum("b", &[]), 5.0);
        let series = metrics.series_of("a_total");
        assert_eq!((series.len(), series[1].labels["y"].as_str(), series[1].value), (2, "3", 4.0));
    }
}
