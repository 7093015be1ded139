//! What the client of `tests/conformance/echo` prints, read.

use std::collections::BTreeMap;

/// Fields by their lower-case names.
type Fields = BTreeMap<String, Vec<String>>;

/// One answer.
#[derive(Debug)]
pub struct Answer {
    /// As it was printed.
    pub text: String,
    pub status: String,
    /// The response's fields.
    pub response: Fields,
    /// The request's fields, as the backend saw them.
    pub request: Fields,
    /// The other lines of the body.
    pub body: BTreeMap<String, String>,
}

impl Answer {
    /// All that were printed, each ended by an empty line.
    pub fn all(printed: &str) -> Vec<Self> {
        printed.split("\n\n").filter(|text| !text.trim().is_empty()).map(Self::read).collect()
    }

    fn read(text: &str) -> Self {
        let (mut status, mut body) = (String::new(), BTreeMap::new());
        let (mut response, mut request) = (Fields::new(), Fields::new());
        for line in text.lines() {
            let Some((place, (key, value))) =
                line.split_once("] ").and_then(|(place, line)| Some((place, line.split_once('=')?)))
            else {
                continue;
            };
            match (place.ends_with("body"), key) {
                (false, "StatusCode") => status = value.to_owned(),
                (false, "ResponseHeader") => add(&mut response, value),
                (true, "RequestHeader") => add(&mut request, value),
                (true, _) => drop(body.insert(key.to_owned(), value.to_owned())),
                (false, _) => {}
            }
        }
        Self { text: text.to_owned(), status, response, request, body }
    }

    /// The pod that answered; `None`: nobody of ours did.
    pub fn backend(&self) -> Option<&str> {
        self.body.get("Hostname").map(String::as_str)
    }
}

fn add(fields: &mut Fields, field: &str) {
    let (name, value) = field.split_once(':').unwrap_or((field, ""));
    fields.entry(name.to_lowercase()).or_default().push(value.to_owned());
}
