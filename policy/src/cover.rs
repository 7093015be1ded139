//! Matches that can never win, because one that goes before them fits whatever they fit.

use crate::{Match, PathMatch, RuleTable, TextMatch};

/// A match that never wins, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Its place among the matches of the table.
    pub at: usize,
    /// The place of the one that goes before it.
    pub by: usize,
}

impl RuleTable {
    /// The matches of which it is certain that none of them ever wins. What regular expressions have in common is not looked
    /// into: of them only equal ones are known, and those that are for everything.
    pub fn shadowed(&self) -> impl Iterator<Item = Shadowed> {
        let matches = self.matches();
        matches.iter().enumerate().filter_map(move |(at, (one, _))| {
            let by = matches[..at].iter().position(|(earlier, _)| earlier.covers(one))?;
            Some(Shadowed { at, by })
        })
    }
}

impl Match {
    /// It fits, for certain, all that `other` fits.
    pub fn covers(&self, other: &Self) -> bool {
        self.path.covers(&other.path)
            && self.method.as_ref().is_none_or(|method| other.method.as_ref() == Some(method))
            && self.headers.iter().all(|header| other.headers.contains(header))
            && self.query.iter().all(|parameter| other.query.contains(parameter))
    }
}

impl PathMatch {
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prefix(prefix), _) if prefix.trim_end_matches('/').is_empty() => true,
            (Self::Prefix(_), Self::Exact(path)) => self.fits(path.as_bytes()),
            // Whatever begins with the longer one begins with the shorter one.
            (Self::Prefix(_), Self::Prefix(longer)) => self.fits(longer.trim_end_matches('/').as_bytes()),
            (Self::Regex(_), Self::Exact(path)) => self.fits(path.as_bytes()),
            (Self::Rpc { service, method }, Self::Rpc { service: other_service, method: other_method }) => {
                covers(service, other_service) && covers(method, other_method)
            }
            (one, other) => one == other,
        }
    }
}

/// `None` is for any text.
fn covers(one: &Option<TextMatch>, other: &Option<TextMatch>) -> bool {
    match (one, other) {
        (None, _) => true,
        (Some(TextMatch::Regex(pattern)), Some(TextMatch::Exact(text))) => pattern.fits(text.as_bytes()),
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pattern, ValueMatch};

    #[test]
    fn only_what_fits_less_is_covered() {
        let regex = |text: &str| PathMatch::Regex(Pattern::new(text).expect(text));
        let (exact, prefix) =
            (|path: &str| PathMatch::Exact(path.into()), |path: &str| PathMatch::Prefix(path.into()));
        for (one, other, covers) in [
            (exact("/a"), exact("/a"), true),
            (exact("/a"), exact("/b"), false),
            (exact("/a"), prefix("/a"), false),
            (prefix("/"), regex(".*"), true),
            (prefix("/a"), exact("/a/b"), true),
            (prefix("/a"), exact("/ab"), false),
            (prefix("/a"), prefix("/a/"), true),
            (prefix("/a/"), prefix("/a"), true),
            (prefix("/a"), prefix("/a/b"), true),
            (prefix("/a/b"), prefix("/a"), false),
            (prefix("/a"), regex("/a"), false),
            (regex("/a.*"), exact("/abc"), true),
            (regex("/a.*"), regex("/a.*"), true),
            (regex("/a.*"), regex("/ab.*"), false),
        ] {
            assert_eq!(one.covers(&other), covers, "{one} {other}");
        }
    }

    #[test]
    fn who_asks_for_more_covers_nothing_that_asks_for_less() {
        let header = ValueMatch { name: "x-user".into(), value: TextMatch::Exact("beta".into()) };
        let plain = Match::default();
        let special = Match { headers: vec![header], ..Match::default() };
        let post = Match { method: Some("POST".into()), ..Match::default() };
        assert!(plain.covers(&special) && !special.covers(&plain) && special.covers(&special));
        assert!(plain.covers(&post) && !post.covers(&plain) && !post.covers(&special));
    }
}
