//! What holds of every decision: whose turn it is does not depend on the order in which objects were read, it is what Gateway API
//! says, and weights and shares are met.

use policy::{
    Facts, Found, Match, Outbound, PathMatch, Pattern, Protocol, RouteRef, Routes, Rule, RuleRef, RuleTable,
    ServiceName, Settings, Share, Target, TextMatch, Trace, ValueMatch, WeightedBackend, route, rule::pick,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::{cmp::Ordering, collections::BTreeSet};

// ---- values that meet ----

/// Texts of few kinds, so that matches overlap.
fn text_matches() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        select(vec!["a", "b", "a.b"]).prop_map(|text| TextMatch::Exact(text.into())),
        select(vec!["a.*", "[ab]"]).prop_map(|text| TextMatch::Regex(Pattern::new(text).expect(text))),
    ]
}

fn paths() -> impl Strategy<Value = &'static str> {
    select(vec!["/", "/a", "/a/b", "/a/bc", "/a/b/c", "/é/b"])
}

fn path_matches(grpc: bool) -> BoxedStrategy<PathMatch> {
    if grpc {
        let rpc = (option::of(text_matches()), option::of(text_matches()));
        return rpc.prop_map(|(service, method)| PathMatch::Rpc { service, method }).boxed();
    }
    prop_oneof![
        paths().prop_map(|path| PathMatch::Exact(path.into())),
        paths().prop_map(|path| PathMatch::Prefix(path.into())),
        select(vec!["/a.*", "/.*/b"]).prop_map(|text| PathMatch::Regex(Pattern::new(text).expect(text))),
    ]
    .boxed()
}

fn value_matches() -> impl Strategy<Value = Vec<ValueMatch>> {
    let one = (select(vec!["x", "y"]), text_matches());
    vec(one.prop_map(|(name, value)| ValueMatch { name: name.into(), value }), 0..3)
}

fn matches(grpc: bool) -> impl Strategy<Value = Match> {
    let method = option::of(select(vec!["GET", "POST"]).prop_map(Into::into));
    let query = if grpc { Just(Vec::new()).boxed() } else { value_matches().boxed() };
    (path_matches(grpc), method, value_matches(), query).prop_map(|(path, method, headers, query)| Match {
        path,
        method,
        headers,
        query,
    })
}

type Given = Vec<(Vec<Match>, Rule)>;

/// Up to four routes with names of their own, of the same few ages, each with up to three rules.
fn rules(grpc: bool) -> impl Strategy<Value = Given> {
    let kind = if grpc { "GRPCRoute" } else { "HTTPRoute" };
    let route = (0..2u64, vec(vec(matches(grpc), 0..3), 1..4));
    vec(route, 1..5).prop_map(move |routes| {
        let mut given = Vec::new();
        for (at, (created, rules)) in routes.into_iter().enumerate() {
            let (namespace, name) = (["shop", "bank"][at / 2].into(), ["a", "b"][at % 2].into());
            let route = RouteRef { created, namespace, name, kind: kind.into() };
            for (index, matches) in (0..).zip(rules) {
                let source = RuleRef { route: route.clone(), index, name: None };
                let (filters, backends) = (Vec::new(), vec![to("cart", 1)]);
                given.push((matches, Rule { source, filters, backends, settings: Settings::default() }));
            }
        }
        given
    })
}

fn to(service: &str, weight: u32) -> WeightedBackend {
    let backend = policy::BackendRef::Service(ServiceName::new("shop", service).port(80));
    WeightedBackend { backend, weight, filters: Vec::new(), settings: Default::default() }
}

fn policy_of(table: RuleTable) -> Outbound {
    let target = Target::Service(ServiceName::new("shop", "product").port(80));
    Outbound { routes: Routes::Http(table), ..Outbound::new(target, Protocol::Auto) }
}

#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    target: String,
    fields: Vec<(String, String)>,
}

fn requests() -> impl Strategy<Value = Request> {
    let values = || vec((select(vec!["x", "y"]), select(vec!["a", "b", "a.b", "c"])), 0..3);
    (
        select(vec!["GET", "POST", "PUT"]),
        select(vec!["/", "/a", "/a/b", "/a/b/c", "/b", "/a.b/a"]),
        values(),
        values(),
    )
        .prop_map(|(method, path, query, fields)| {
            let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let target = format!("{path}?{}", query.join("&"));
            let fields = fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            Request { method, target, fields }
        })
}

impl Request {
    fn facts(&self) -> Facts<'_> {
        let Self { method, target, fields } = self;
        Facts { method, target: target.as_bytes(), fields, grpc: false }
    }
}

// ---- precedence ----

/// Gateway API's words for who goes first, written once more: HTTPRouteRule.matches and GRPCRouteRule.matches.
fn who_is_first(one: &(Match, RuleRef, usize), other: &(Match, RuleRef, usize)) -> Ordering {
    let more = |count: fn(&Match) -> usize| count(&other.0).cmp(&count(&one.0));
    more(|one| usize::from(matches!(one.path, PathMatch::Exact(_))))
        .then(more(|one| usize::from(matches!(one.path, PathMatch::Regex(_)))))
        .then(more(|one| match &one.path {
            PathMatch::Exact(path) => path.chars().count(),
            PathMatch::Regex(pattern) => pattern.as_str().chars().count(),
            PathMatch::Prefix(prefix) => prefix.trim_end_matches('/').chars().count(),
            PathMatch::Rpc { service, .. } => {
                service.as_ref().map_or(0, |text| text.as_str().chars().count())
            }
        }))
        .then(more(|one| match &one.path {
            PathMatch::Rpc { method, .. } => method.as_ref().map_or(0, |text| text.as_str().chars().count()),
            _ => 0,
        }))
        .then(more(|one| usize::from(one.method.is_some())))
        .then(more(|one| one.headers.len()))
        .then(more(|one| one.query.len()))
        .then(one.1.route.created.cmp(&other.1.route.created))
        .then(one.1.route.namespace.cmp(&other.1.route.namespace))
        .then(one.1.route.name.cmp(&other.1.route.name))
        .then(one.1.index.cmp(&other.1.index))
        .then(one.2.cmp(&other.2))
}

fn by_the_words(given: &Given, request: &Request) -> Option<RuleRef> {
    let mut all = Vec::new();
    for (matches, rule) in given {
        let matches = if matches.is_empty() { vec![Match::default()] } else { matches.clone() };
        all.extend(matches.into_iter().enumerate().map(|(at, one)| (one, rule.source.clone(), at)));
    }
    // Whether one fits alone is another question than which of them goes first.
    let fits = |one: &(Match, RuleRef, usize)| {
        let (_, rule) = given.iter().find(|(_, rule)| rule.source == one.1).expect("it was given");
        let alone = policy_of(RuleTable::new([(vec![one.0.clone()], rule.clone())]));
        route(&alone, &request.facts(), &mut ()).rule.is_some()
    };
    all.into_iter().filter(fits).min_by(who_is_first).map(|(_, source, _)| source)
}

fn given() -> impl Strategy<Value = (Given, Given)> {
    prop_oneof![rules(false), rules(true)]
        .prop_flat_map(|given| (Just(given.clone()), Just(given).prop_shuffle()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_order_in_which_rules_are_given_does_not_matter((given, shuffled) in given(), request in requests()) {
        let (one, other) = (policy_of(RuleTable::new(given)), policy_of(RuleTable::new(shuffled)));
        prop_assert_eq!(&one, &other);
        let (mut trace, mut again) = (Trace::default(), Trace::default());
        let decisions = (route(&one, &request.facts(), &mut trace), route(&other, &request.facts(), &mut again));
        prop_assert_eq!(decisions.0, decisions.1);
        prop_assert_eq!(trace, again);
    }

    #[test]
    fn precedence_is_what_gateway_api_says((given, _) in given(), request in requests()) {
        let policy = policy_of(RuleTable::new(given.clone()));
        let decided = route(&policy, &request.facts(), &mut ()).rule.map(|rule| rule.source.clone());
        prop_assert_eq!(decided, by_the_words(&given, &request));
    }

    /// Who only wants the decision gets the one of who asks why, too; and each match is spoken of once.
    #[test]
    fn the_reasons_do_not_change_the_decision((given, _) in given(), request in requests()) {
        let policy = policy_of(RuleTable::new(given.clone()));
        let mut trace = Trace::default();
        let told = route(&policy, &request.facts(), &mut trace);
        let silent = route(&policy, &request.facts(), &mut ());
        prop_assert_eq!(&told, &silent);
        prop_assert_eq!(trace.considered.len(), given.iter().map(|(matches, _)| matches.len().max(1)).sum::<usize>());
        let holding: Vec<_> = trace.considered.iter().filter(|one| one.lost.is_none()).collect();
        prop_assert_eq!(holding.len(), usize::from(told.rule.is_some()));
        if let Some(rule) = told.rule {
            prop_assert_eq!(&holding[0].rule, &rule.source.to_string());
            prop_assert_eq!(told.found.and_then(|found: Found| policy.routes.rule(found)), Some(rule));
        }
    }

    /// What is said to be in the shadow of another one never holds, and the other one could.
    #[test]
    fn a_shadowed_match_never_wins((given, _) in given(), requests in vec(requests(), 9)) {
        let table = RuleTable::new(given);
        let shadowed: Vec<_> = table.shadowed().collect();
        let policy = policy_of(table);
        for request in &requests {
            let found = route(&policy, &request.facts(), &mut ()).found.and_then(|found| found.by);
            prop_assert!(shadowed.iter().all(|one| Some(one.at) != found), "{request:?}");
        }
        prop_assert!(shadowed.iter().all(|one| one.by < one.at));
    }

    /// Order is total: what comes from one table is sorted, and equal precedence is decided by who wrote it.
    #[test]
    fn no_match_stands_behind_one_that_it_goes_before((given, _) in given()) {
        let table = RuleTable::new(given);
        let keyed: Vec<_> = table.matches().iter()
            .enumerate()
            .map(|(at, (one, rule))| (one.clone(), table.rules()[*rule].source.clone(), at))
            .collect();
        for pair in keyed.windows(2) {
            prop_assert_eq!(who_is_first(&pair[0], &pair[1]), Ordering::Less);
        }
    }
}

// ---- chance ----

/// SplitMix64 (Steele, Lea, Flood 2014): evenly drawn numbers from a seed.
struct Draws(u64);

impl Draws {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

const DRAWS: u32 = 100_000;

#[test]
fn weights_are_met_within_a_percent() {
    for (seed, weights) in (1..).zip([
        &[1u32, 1][..],
        &[90, 10],
        &[1, 0, 2],
        &[0, 1],
        &[999_999, 1],
        &[7, 11, 13, 17, 0, 52],
        &[u32::MAX, u32::MAX],
    ]) {
        let backends: Vec<_> = weights.iter().map(|weight| to("cart", *weight)).collect();
        let mut draws = Draws(seed);
        let mut counts = vec![0u32; weights.len()];
        for _ in 0..DRAWS {
            counts[pick(&backends, draws.draw()).expect("some weigh something")] += 1;
        }
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (weight, count) in weights.iter().zip(&counts) {
            let (wanted, got) = (f64::from(*weight) / total, f64::from(*count) / f64::from(DRAWS));
            assert!((wanted - got).abs() < 0.01, "{weights:?} {counts:?}");
            assert!(*weight > 0 || *count == 0, "{weights:?} {counts:?}");
        }
    }
}

#[test]
fn nobody_is_picked_where_nobody_weighs_anything() {
    assert_eq!(pick(&[], 7), None);
    assert_eq!(pick(&[to("cart", 0), to("order", 0)], 7), None);
}

#[test]
fn the_bounds_of_a_draw_pick_the_first_and_the_last() {
    let backends = [to("cart", 0), to("order", 3), to("pay", 1), to("mail", 0)];
    assert_eq!((pick(&backends, 0), pick(&backends, u64::MAX)), (Some(1), Some(2)));
}

#[test]
fn shares_are_met_within_a_percent() {
    for (seed, (numerator, denominator)) in
        (1..).zip([(1, 2), (1, 3), (25, 10_000), (99, 100), (1, 1), (0, 1)])
    {
        let (share, mut draws) = (Share { numerator, denominator }, Draws(seed));
        let taken = (0..DRAWS).filter(|_| share.takes(draws.draw())).count();
        let wanted = f64::from(numerator) / f64::from(denominator);
        assert!((wanted - taken as f64 / f64::from(DRAWS)).abs() < 0.01, "{share} {taken}");
        assert!(numerator > 0 || taken == 0);
        assert!(numerator < denominator || taken == DRAWS as usize);
    }
}

#[test]
fn draws_are_even() {
    let mut draws = Draws(9);
    let buckets: BTreeSet<u64> = (0..1_000).map(|_| draws.draw() >> 58).collect();
    assert_eq!(buckets.len(), 64);
}
