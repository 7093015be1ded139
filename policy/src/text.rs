//! Texts that a request is held against: exact ones, and regular expressions.

use regex::bytes::Regex;
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// The size that a compiled regular expression may have.
const PATTERN_BYTES: usize = 1024 * 1024;

/// What one text of a request must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TextMatch {
    Exact(Arc<str>),
    Regex(Pattern),
}

/// A regular expression (RE2's syntax, as the crate `regex` has it) that must fit the whole text.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    whole: Regex,
}

/// The text is no regular expression, or one that is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPattern(String);

impl TextMatch {
    pub fn fits(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == text,
            Self::Regex(pattern) => pattern.fits(text),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(text) => text,
            Self::Regex(pattern) => pattern.as_str(),
        }
    }
}

impl Pattern {
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        let compile = |pattern: &str| {
            let compiled = regex::bytes::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
            compiled.map_err(|error| InvalidPattern(said(text, &error)))
        };
        // By itself too: `a)|(b` is none, and would be one within the group.
        compile(text)?;
        let whole = compile(&format!("^(?:{text})$"))?;
        Ok(Self { text: text.into(), whole })
    }

    pub fn fits(&self, text: &[u8]) -> bool {
        self.whole.is_match(text)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// In one line: the library draws a picture of syntax errors.
fn said(text: &str, error: &regex::Error) -> String {
    let why = match error {
        regex::Error::CompiledTooBig(limit) => format!("it takes more than {limit} bytes"),
        error => {
            error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    };
    format!("{text:?} is no regular expression: {why}")
}

impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "{text:?}"),
            Self::Regex(pattern) => write!(f, "~{:?}", pattern.as_str()),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{:?}", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_the_whole_text() {
        let pattern = Pattern::new("/a|/b.*").expect("a pattern");
        for (text, fits) in [("/a", true), ("/ab", false), ("/bcd", true), ("x/b", false), ("", false)] {
            assert_eq!(pattern.fits(text.as_bytes()), fits, "{text}");
        }
    }

    #[test]
    fn what_is_none_says_why() {
        let why = |text| Pattern::new(text).expect_err(text).to_string();
        assert_eq!(why("("), "\"(\" is no regular expression: unclosed group");
        assert_eq!(why("a)|(b"), "\"a)|(b\" is no regular expression: unopened group");
        assert_eq!(
            why("(?:a{1000}){1000}"),
            "\"(?:a{1000}){1000}\" is no regular expression: it takes more than 1048576 bytes"
        );
    }
}
