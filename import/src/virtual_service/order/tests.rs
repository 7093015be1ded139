//! Istio's first match against Gateway API's precedence, as crate `policy` has it: rules that were mended agree on all
//! requests, unless it was said that they do not.

use std::collections::BTreeMap;

use policy::{PathMatch, RouteRef, Rule, RuleRef, RuleTable, Settings, TextMatch, ValueMatch};
use proptest::prelude::*;

use super::*;
use crate::virtual_service::matches::{PRESENT, Path, PathKind, Text};

/// A request, as far as matches look at one.
#[derive(Clone, Debug)]
struct Request {
    path: &'static str,
    method: &'static str,
    headers: BTreeMap<&'static str, &'static str>,
    query: BTreeMap<&'static str, &'static str>,
}

fn pattern(text: &str) -> policy::Pattern {
    policy::Pattern::new(text).unwrap()
}

/// The match as the proxies have it.
fn as_policy(matched: &Match) -> policy::Match {
    let texts = |texts: &BTreeMap<String, Text>| {
        let value = |(name, text): (&String, &Text)| ValueMatch {
            name: name.as_str().into(),
            value: match text {
                Text::Exact(value) => TextMatch::Exact(value.as_str().into()),
                Text::RegularExpression(value) => TextMatch::Regex(pattern(value)),
            },
        };
        texts.iter().map(value).collect()
    };
    policy::Match {
        path: match &matched.path {
            None => PathMatch::default(),
            Some(Path { kind: PathKind::Prefix, value }) => PathMatch::Prefix(value.as_str().into()),
            Some(Path { kind: PathKind::Exact, value }) => PathMatch::Exact(value.as_str().into()),
            Some(Path { kind: PathKind::RegularExpression, value }) => PathMatch::Regex(pattern(value)),
        },
        method: matched.method.as_deref().map(Into::into),
        headers: texts(&matched.headers),
        query: texts(&matched.query),
    }
}

fn fits(matched: &policy::Match, request: &Request) -> bool {
    let all = |texts: &[ValueMatch], values: &BTreeMap<&str, &str>| {
        texts
            .iter()
            .all(|text| values.get(&*text.name).is_some_and(|value| text.value.fits(value.as_bytes())))
    };
    matched.path.fits(request.path.as_bytes())
        && matched.method.as_deref().is_none_or(|method| method == request.method)
        && all(&matched.headers, &request.headers)
        && all(&matched.query, &request.query)
}

/// Which rule Istio takes: the first that matches.
fn first(rules: &[Vec<Match>]) -> impl Fn(&Request) -> Option<usize> {
    let rules: Vec<Vec<policy::Match>> =
        rules.iter().map(|rule| rule.iter().map(as_policy).collect()).collect();
    move |request| rules.iter().position(|rule| rule.iter().any(|matched| fits(matched, request)))
}

/// Which rule the proxies take: that of the match which goes first.
fn preferred(rules: &[Matches<'_>]) -> impl Fn(&Request) -> Option<usize> {
    let rule = |index: usize| Rule {
        source: RuleRef {
            route: RouteRef {
                created: 0,
                namespace: "shop".into(),
                name: "x".into(),
                kind: "HTTPRoute".into(),
            },
            index: u32::try_from(index).unwrap(),
            name: None,
        },
        filters: Vec::new(),
        backends: Vec::new(),
        settings: Settings::default(),
    };
    let with_matches = rules.iter().enumerate().filter(|(_, matches)| !matches.is_empty());
    let table = RuleTable::new(with_matches.map(|(index, matches)| {
        (matches.iter().map(|placed| as_policy(&placed.matched)).collect::<Vec<_>>(), rule(index))
    }));
    move |request| {
        let (_, at) = table.matches().iter().find(|(matched, _)| fits(matched, request))?;
        Some(table.rules()[*at].source.index as usize)
    }
}

fn path(with_regex: bool) -> BoxedStrategy<Option<Path>> {
    let path = |kind, values: &'static [&'static str]| {
        proptest::sample::select(values)
            .prop_map(move |value| Some(Path { kind, value: value.to_owned() }))
            .boxed()
    };
    let plain = prop_oneof![
        Just(None),
        path(PathKind::Prefix, &["/a", "/a/b", "/c"]),
        path(PathKind::Exact, &["/a", "/a/b", "/a/b/c", "/d"]),
    ];
    match with_regex {
        true => prop_oneof![plain, path(PathKind::RegularExpression, &["/a/.*", "/[ab]", "/a/b/c?", "/d+"])]
            .boxed(),
        false => plain.boxed(),
    }
}

fn texts(names: &'static [&'static str]) -> impl Strategy<Value = BTreeMap<String, Text>> {
    let text = prop_oneof![
        Just(Text::Exact("1".into())),
        Just(Text::Exact("2".into())),
        Just(Text::RegularExpression(PRESENT.into())),
        Just(Text::RegularExpression("[12]".into())),
    ];
    proptest::collection::btree_map(proptest::sample::select(names).prop_map(str::to_owned), text, 0..=2)
}

fn rules(with_regex: bool) -> impl Strategy<Value = Vec<Vec<Match>>> {
    let matched = (
        path(with_regex),
        prop_oneof![3 => Just(None), 1 => Just(Some("GET".to_owned()))],
        texts(&["x", "y"]),
        texts(&["q"]),
    )
        .prop_map(|(path, method, headers, query)| Match { path, method, headers, query });
    proptest::collection::vec(proptest::collection::vec(matched, 1..3), 1..6)
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let values = |names: &'static [&'static str]| {
        proptest::collection::btree_map(
            proptest::sample::select(names),
            proptest::sample::select(&["1", "2", "3"][..]),
            0..=2,
        )
    };
    let path = proptest::sample::select(
        &["/", "/a", "/a/b", "/a/b/c", "/a/b/", "/b", "/c/d", "/d", "/dd", "/ab"][..],
    );
    let request = (path, proptest::sample::select(&["GET", "POST"][..]), values(&["x", "y"]), values(&["q"]))
        .prop_map(|(path, method, headers, query)| Request { path, method, headers, query });
    proptest::collection::vec(request, 30)
}

fn node() -> Node {
    serde_saphyr::from_str("{}").unwrap()
}

fn placed<'a>(rules: &[Vec<Match>], node: &'a Node) -> Vec<Matches<'a>> {
    let place = |matched: &Match| Placed { matched: matched.clone(), own: matched.clone(), node };
    rules.iter().map(|rule| rule.iter().map(place).collect()).collect()
}

/// Whether it was said that some request goes elsewhere.
fn is_told(node: &Node) -> bool {
    node.remarks().iter().any(|remark| remark.dropped)
}

fn agree(rules: &[Vec<Match>], requests: &[Request]) -> Result<bool, TestCaseError> {
    let node = node();
    let mut mended = placed(rules, &node);
    mend(&mut mended);
    if is_told(&node) {
        return Ok(false);
    }
    let (first, preferred) = (first(rules), preferred(&mended));
    for request in requests {
        prop_assert_eq!(first(request), preferred(request), "{:?}: {:?}", request, mended);
    }
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_first_rule_of_istio_is_the_preferred_one(rules in rules(false), requests in requests()) {
        agree(&rules, &requests)?;
    }

    #[test]
    fn so_it_is_with_regular_expressions_or_it_is_said(rules in rules(true), requests in requests()) {
        agree(&rules, &requests)?;
    }
}

#[test]
fn without_being_mended_the_order_of_rules_is_lost() {
    let header = BTreeMap::from([("x".to_owned(), Text::Exact("1".into()))]);
    let rules = [
        vec![Match { headers: header, ..Match::default() }],
        vec![Match { path: Some(Path { kind: PathKind::Prefix, value: "/a".into() }), ..Match::default() }],
    ];
    let request =
        Request { path: "/a", method: "GET", headers: BTreeMap::from([("x", "1")]), query: BTreeMap::new() };
    let node = node();
    let mut mended = placed(&rules, &node);
    assert_eq!(preferred(&mended)(&request), Some(1), "by precedence the longer path wins");
    mend(&mut mended);
    assert_eq!(preferred(&mended)(&request), Some(0), "as Istio has it");
    assert!(!is_told(&node));
}

#[test]
fn what_cannot_be_kept_is_said() {
    let path = |kind, value: &str| {
        vec![Match { path: Some(Path { kind, value: value.into() }), ..Match::default() }]
    };
    for (earlier, later, said) in [
        ((PathKind::Prefix, "/a"), (PathKind::RegularExpression, "/[ab]/c"), true),
        ((PathKind::Prefix, "/a"), (PathKind::RegularExpression, "/a/[0-9]+"), false),
        ((PathKind::Prefix, "/a"), (PathKind::RegularExpression, "/b/[0-9]+"), false),
        ((PathKind::Prefix, "/a"), (PathKind::RegularExpression, "/a|/b"), true),
        ((PathKind::Prefix, "/ab"), (PathKind::RegularExpression, "/abc?/d"), true),
        ((PathKind::RegularExpression, "/a.*"), (PathKind::Exact, "/ab"), false),
        ((PathKind::RegularExpression, "/a.*"), (PathKind::RegularExpression, "/.*bcdef"), true),
    ] {
        let node = node();
        let mut rules = placed(&[path(earlier.0, earlier.1), path(later.0, later.1)], &node);
        mend(&mut rules);
        assert_eq!(is_told(&node), said, "{earlier:?} {later:?}: {rules:?}");
    }
}

#[test]
fn many_matches_in_common_are_bounded() {
    let matched = |at: usize| {
        let headers = (0..=at).map(|header| (format!("h{at}-{header}"), Text::Exact("1".into())));
        vec![Match { headers: headers.collect(), ..Match::default() }]
    };
    let rules: Vec<Vec<Match>> = (0..40).map(matched).collect();
    let node = node();
    let mut mended = placed(&rules, &node);
    mend(&mut mended);
    assert!(mended.iter().all(|rule| rule.len() <= MAX_MATCHES));
    assert!(is_told(&node), "it is said that some go elsewhere");
}
