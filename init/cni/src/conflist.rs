//! Our place in a network's configuration list (`.conflist`): put in, brought up to date, taken out, and nothing else changed, not
//! a space. Whoever owns the file recognises it.
//!
//! Pure.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::ops::Range;

/// The type under which the runtime looks for our program.
pub const TYPE: &str = "weft-cni";

/// Why a file cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConflistError {
    #[error("it is no configuration list: {0}")]
    Unreadable(String),
    #[error("its list of plugins is empty: none makes an interface, behind which weft-cni could stand")]
    Empty,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    plugins: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(default)]
    r#type: String,
}

/// The text with `plugin` (JSON) as the last of the list, or in the place where ours stands already.
pub fn insert(text: &str, plugin: &str) -> Result<String, ConflistError> {
    let entries = entries(text)?;
    let ours: Vec<_> = entries.iter().filter(|entry| entry.is_ours).collect();
    if let [first, more @ ..] = ours.as_slice() {
        // From the end, so that the earlier ranges hold.
        let mut edited = text.to_owned();
        for entry in more.iter().rev() {
            edited.replace_range(with_comma(&entries, entry), "");
        }
        edited.replace_range(first.span.clone(), plugin);
        return Ok(edited);
    }
    let last = entries.last().ok_or(ConflistError::Empty)?;
    let mut edited = text.to_owned();
    edited.insert_str(last.span.end, &format!("{}{plugin}", separator(text, &entries)));
    Ok(edited)
}

/// The text without ours.
pub fn remove(text: &str) -> Result<String, ConflistError> {
    let entries = entries(text)?;
    let mut edited = text.to_owned();
    for entry in entries.iter().rev().filter(|entry| entry.is_ours) {
        edited.replace_range(with_comma(&entries, entry), "");
    }
    Ok(edited)
}

/// Whether ours stands in it, once, and as given.
pub fn holds(text: &str, plugin: &str) -> bool {
    insert(text, plugin).is_ok_and(|edited| edited == text)
}

/// Whether anything of ours stands in it.
pub fn is_touched(text: &str) -> bool {
    entries(text).is_ok_and(|entries| entries.iter().any(|entry| entry.is_ours))
}

struct Entry {
    index: usize,
    /// Where it stands in the text.
    span: Range<usize>,
    is_ours: bool,
}

fn entries(text: &str) -> Result<Vec<Entry>, ConflistError> {
    let unreadable = |error: serde_json::Error| ConflistError::Unreadable(error.to_string());
    let list: List<'_> = serde_json::from_str(text).map_err(unreadable)?;
    let entry = |(index, raw): (usize, &&RawValue)| {
        let plugin: Plugin = serde_json::from_str(raw.get()).map_err(unreadable)?;
        // It was borrowed from the text.
        let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        Ok(Entry { index, span: start..start + raw.get().len(), is_ours: plugin.r#type == TYPE })
    };
    list.plugins.iter().enumerate().map(entry).collect()
}

/// What stands between two entries here: as between the last two, or as before the only one.
fn separator(text: &str, entries: &[Entry]) -> String {
    match entries {
        [.., before, last] => text[before.span.end..last.span.start].to_owned(),
        [only] => {
            let bracket = text[..only.span.start].rfind('[').map_or(only.span.start, |at| at + 1);
            let indent = &text[bracket..only.span.start];
            if indent.contains('\n') { format!(",{indent}") } else { ", ".to_owned() }
        }
        [] => String::new(),
    }
}

/// An entry with the comma that goes with it: the one before it, or for the first the one behind.
fn with_comma(entries: &[Entry], entry: &Entry) -> Range<usize> {
    match (entry.index.checked_sub(1).and_then(|before| entries.get(before)), entries.get(entry.index + 1)) {
        (Some(before), _) => before.span.end..entry.span.end,
        (None, Some(next)) => entry.span.start..next.span.start,
        (None, None) => entry.span.clone(),
    }
}
