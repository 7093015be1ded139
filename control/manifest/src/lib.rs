//! One manifest file: its documents, the objects in them, and what is wrong with which line and field.
//! A document that fails takes no other one with it. Here is no reading of files: the text is handed over.

use control_index::{Kind, Object};
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::{Options, Spanned, options};
use std::path::Path;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Objects, each with the line of its beginning.
    pub objects: Vec<(u64, Object)>,
    pub faults: Vec<Fault>,
    /// Objects of kinds that are not taken (Deployments, Jobs, …), and those that say nothing that is.
    pub skipped: usize,
}

/// A document that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: u64,
    /// `spec.ports[0].port`; empty when the document as a whole is wrong.
    pub field: String,
    pub what: String,
}

/// As much of a document as says what to read it as.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// `kind: List`, as `kubectl get -o yaml` prints it.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Spanned<Value>>,
}

impl Parsed {
    fn take(&mut self, line: u64, object: Object) {
        match object.is_of_use() {
            true => self.objects.push((line, object)),
            false => self.skipped += 1,
        }
    }
}

/// Reads the documents of a file: of YAML many, divided by `---`; of JSON one after the other.
pub fn parse(path: &Path, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let documents = match path.extension().is_some_and(|extension| extension == "json") {
        true => json_documents(text),
        false => yaml_documents(text),
    };
    for (line, document) in documents {
        if let Err(fault) = read(line, document, &mut parsed) {
            parsed.faults.push(fault);
        }
    }
    parsed
}

fn read(line: u64, document: &str, parsed: &mut Parsed) -> Result<(), Fault> {
    let head: Option<Head> =
        serde_saphyr::from_str_with_options(document, plain()).map_err(|error| fault(line, "", &error))?;
    let Some(head) = head else { return Ok(()) };
    if head.kind == "List" {
        return read_list(line, document, parsed);
    }
    match kind(&head).map_err(|fault| Fault { line, ..fault })? {
        None => parsed.skipped += 1,
        Some(kind) => {
            let mut field = String::new();
            let object = serde_saphyr::with_deserializer_from_str_with_options(document, plain(), |from| {
                located(&mut field, |track| kind.read(serde_path_to_error::Deserializer::new(from, track)))
            });
            parsed.take(line, object.map_err(|error| fault(line, &field, &error))?);
        }
    }
    Ok(())
}

/// Items are taken one by one; what is wrong in one is said with the line of its beginning.
fn read_list(line: u64, document: &str, parsed: &mut Parsed) -> Result<(), Fault> {
    let list: List = serde_saphyr::from_str_with_options(document, plain())
        .map_err(|error| fault(line, "items", &error))?;
    for (at, item) in list.items.into_iter().enumerate() {
        let line = line + item.referenced.line().saturating_sub(1);
        let within = |field: &str| format!("items[{at}].{field}");
        let read = Head::deserialize(&item.value)
            .map_err(|error| Fault { line, field: String::new(), what: error.to_string() })
            .and_then(|head| kind(&head));
        match read {
            Err(fault) => parsed.faults.push(Fault { line, field: within(&fault.field), ..fault }),
            Ok(None) => parsed.skipped += 1,
            Ok(Some(kind)) => {
                let mut field = String::new();
                let object = located(&mut field, |track| {
                    kind.read(serde_path_to_error::Deserializer::new(item.value, track))
                });
                match object {
                    Ok(object) => parsed.take(line, object),
                    Err(error) => {
                        parsed.faults.push(Fault { line, field: within(&field), what: error.to_string() })
                    }
                }
            }
        }
    }
    Ok(())
}

fn kind(head: &Head) -> Result<Option<Kind>, Fault> {
    let missing = |field: &str| Fault { line: 0, field: field.into(), what: "it is missing".into() };
    match (head.api_version.as_str(), head.kind.as_str()) {
        (_, "") => Err(missing("kind")),
        ("", _) => Err(missing("apiVersion")),
        (api_version, kind) => Ok(Kind::named(api_version, kind)),
    }
}

/// Runs `read`; when it fails, `field` is where.
fn located<T, E>(
    field: &mut String,
    read: impl FnOnce(&mut serde_path_to_error::Track) -> Result<T, E>,
) -> Result<T, E> {
    let mut track = serde_path_to_error::Track::new();
    let result = read(&mut track);
    if result.is_err() {
        let path = track.path().to_string();
        *field = if path == "." { String::new() } else { path };
    }
    result
}

fn plain() -> Options {
    options! { with_snippet: false }
}

fn fault(first_line: u64, field: &str, error: &serde_saphyr::Error) -> Fault {
    let within = error.location().map_or(1, |location| location.line()).max(1);
    let text = error.without_snippet().to_string();
    // The position within the document says nothing to someone who has the file.
    let what = text.lines().next().unwrap_or_default();
    let what = what.split(" at line ").next().unwrap_or(what);
    Fault { line: first_line + within - 1, field: field.into(), what: what.into() }
}

/// The documents of a YAML stream, each with its first line. `---` at a line's beginning can only be a marker, also in
/// block scalars (YAML 1.2 §9.1.2), so that one malformed document leaves the others whole.
fn yaml_documents(text: &str) -> Vec<(u64, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && at > start {
            documents.push((first_line, &text[start..at]));
        }
        if marker {
            (start, first_line) = (at, index as u64 + 1);
        }
        at += line.len();
    }
    documents.push((first_line, &text[start..]));
    documents.into_iter().filter_map(|(line, document)| beginning(line, document)).collect()
}

/// A document from the first line that says something, with that line's number; `None` when there is none.
fn beginning(mut line: u64, document: &str) -> Option<(u64, &str)> {
    let mut at = 0;
    for text in document.split_inclusive('\n') {
        // A directive (`%YAML 1.2`) says nothing that matters here.
        let content = text.trim().trim_start_matches("---").trim_start();
        if !(content.is_empty() || content.starts_with(['#', '%']) || content == "...") {
            return Some((line, &document[at..]));
        }
        at += text.len();
        line += 1;
    }
    None
}

/// JSON texts one after the other. What follows malformed text cannot be found: it is left to the YAML reader,
/// which says what is wrong where.
fn json_documents(text: &str) -> Vec<(u64, &str)> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    while let Some(Ok(_)) = stream.next() {
        documents.push((start, stream.byte_offset()));
        start = stream.byte_offset();
    }
    documents.push((start, text.len()));
    let trimmed = documents.into_iter().map(|(start, end)| {
        let start = start + (text[start..end].len() - text[start..end].trim_start().len());
        (text[..start].matches('\n').count() as u64 + 1, &text[start..end])
    });
    trimmed.filter(|(_, document)| !document.is_empty()).collect()
}

#[cfg(test)]
mod tests;
