//! The lines of the Prometheus text format: samples with their labels. Comments, timestamps and exemplars are skipped.

use std::borrow::Cow;

pub struct Sample<'a> {
    pub name: &'a str,
    labels: Vec<(&'a str, Cow<'a, str>)>,
    value: f64,
}

impl Sample<'_> {
    /// The empty text where the label is missing: Prometheus does not tell the two apart.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    pub fn count(&self) -> u64 {
        self.value as u64
    }
}

/// The samples of a text, in its order. A malformed line yields none.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(open) = rest.strip_prefix('{') {
        rest = open;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(closed) = rest.strip_prefix('}') {
                rest = closed;
                break;
            }
            let (key, value) = rest.split_once("=\"")?;
            let (value, after) = quoted(value)?;
            labels.push((key, value));
            rest = after;
        }
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// A label's value up to its closing quote, with its escapes taken out, and what comes after it.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    let (value, after) = (&text[..end], &text[end + 1..]);
    if !value.contains('\\') {
        return Some((value.into(), after));
    }
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match (c, c == '\\') {
            (_, true) => match characters.next()? {
                'n' => plain.push('\n'),
                other => plain.push(other),
            },
            (c, false) => plain.push(c),
        }
    }
    Some((plain.into(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# HELP x y\nup 1\nx_total{a=\"1\",b=\"q\\\"\\\\\\n}\",} 12 1700000000\n\
                    h_bucket{le=\"+Inf\"} 3 # {id=\"x\"} 0.5\nbroken{a=\"1\nempty{} nothing\n# EOF\n";
        let read: Vec<_> = samples(text).map(|it| (it.name.to_owned(), it.count())).collect();
        assert_eq!(read, [("up", 1), ("x_total", 12), ("h_bucket", 3)].map(|(n, c)| (n.to_owned(), c)));
        let x = samples(text).nth(1).unwrap();
        assert_eq!((x.label("a"), x.label("b"), x.label("c")), ("1", "q\"\\\n}", ""));
    }
}
