//! The same for routes and settings: random ones go there and back, and each field that means nothing is named.

use policy::{
    BackendRef, BackendSettings, Cors, Filter, HeaderEdit, Match, Mirror, Origin, Outbound, PathEdit,
    PathMatch, Pattern, Protocol, Reason, Redirect, Rewrite, RouteRef, Routes, Rule, RuleRef, RuleTable,
    ServiceName, ServicePort, Set, Settings, Share, Target, TextMatch, TlsRule, ValueMatch, WeightedBackend,
    settings::{
        Abort, DirectResponse, FailureAccrual, Fault, Hedge, Limits, Retry, RetryBudget, SessionKind,
        SessionPersistence, Timeouts,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message;
use proxy_wire::v1;
use std::{sync::Arc, time::Duration};

// ---- values ----

fn texts(form: &'static str) -> impl Strategy<Value = Arc<str>> {
    form.prop_map(Into::into)
}

fn labels() -> impl Strategy<Value = Arc<str>> {
    texts("[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?")
}

fn field_names() -> impl Strategy<Value = Arc<str>> {
    texts("[a-z][a-z0-9-]{0,9}")
}

fn service_ports() -> impl Strategy<Value = ServicePort> {
    (labels(), labels(), 1..=u16::MAX)
        .prop_map(|(namespace, name, port)| ServiceName::new(&namespace, &name).port(port))
}

fn patterns() -> impl Strategy<Value = Pattern> {
    select(vec!["", "/a/.*", "[0-9]+", "a|b", "é"]).prop_map(|text| Pattern::new(text).expect(text))
}

fn text_matches() -> impl Strategy<Value = TextMatch> {
    prop_oneof![texts("\\PC{0,9}").prop_map(TextMatch::Exact), patterns().prop_map(TextMatch::Regex)]
}

fn value_matches() -> impl Strategy<Value = Vec<ValueMatch>> {
    vec((field_names(), text_matches()).prop_map(|(name, value)| ValueMatch { name, value }), 0..3)
}

fn matches() -> impl Strategy<Value = Match> {
    let path = prop_oneof![
        texts("/[a-z/]{0,9}").prop_map(PathMatch::Exact),
        texts("/[a-z/]{0,9}").prop_map(PathMatch::Prefix),
        patterns().prop_map(PathMatch::Regex),
        (option::of(text_matches()), option::of(text_matches()))
            .prop_map(|(service, method)| PathMatch::Rpc { service, method }),
    ];
    (path, option::of(texts("[A-Z]{1,7}")), value_matches(), value_matches())
        .prop_map(|(path, method, headers, query)| Match { path, method, headers, query })
}

fn shares() -> impl Strategy<Value = Share> {
    (1..=u32::MAX)
        .prop_flat_map(|denominator| (0..=denominator, Just(denominator)))
        .prop_map(|(numerator, denominator)| Share { numerator, denominator })
}

fn backend_refs() -> impl Strategy<Value = BackendRef> {
    prop_oneof![
        service_ports().prop_map(BackendRef::Service),
        texts("[a-z ]{0,9}").prop_map(BackendRef::Unresolved)
    ]
}

fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let headers = || vec((field_names(), texts("([!-~]([ -~]{0,9}[!-~])?)?")), 0..3);
    let edit = || {
        (headers(), headers(), vec(field_names(), 0..3)).prop_map(|(set, add, remove)| HeaderEdit {
            set,
            add,
            remove,
        })
    };
    let path = || {
        option::of(prop_oneof![
            texts("/[a-z/]{0,9}").prop_map(PathEdit::Full),
            texts("[a-z/]{0,9}").prop_map(PathEdit::Prefix),
        ])
    };
    let redirect = (
        option::of(select(vec!["http", "https"]).prop_map(Arc::from)),
        option::of(labels()),
        option::of(1..=u16::MAX),
        path(),
        select(vec![301, 302, 303, 307, 308]),
    )
        .prop_map(|(scheme, hostname, port, path, status)| Redirect {
            scheme,
            hostname,
            port,
            path,
            status,
        });
    let names = || vec(texts("[A-Za-z*-]{1,9}"), 0..3);
    let cors = (vec(texts("[!-~]{1,9}"), 0..3), any::<bool>(), names(), names(), names(), any::<u32>())
        .prop_map(
            |(allow_origins, allow_credentials, allow_methods, allow_headers, expose_headers, max_age)| {
                Cors {
                    allow_origins,
                    allow_credentials,
                    allow_methods,
                    allow_headers,
                    expose_headers,
                    max_age,
                }
            },
        );
    let filter = prop_oneof![
        edit().prop_map(Filter::RequestHeaders),
        edit().prop_map(Filter::ResponseHeaders),
        redirect.prop_map(Filter::Redirect),
        (option::of(labels()), path())
            .prop_map(|(hostname, path)| Filter::Rewrite(Rewrite { hostname, path })),
        (backend_refs(), shares()).prop_map(|(backend, share)| Filter::Mirror(Mirror { backend, share })),
        cors.prop_map(Filter::Cors),
    ];
    vec(filter, 0..3)
}

const CENTURY_MS: u64 = 3_153_600_000_000;

fn times() -> impl Strategy<Value = Duration> {
    (0..=CENTURY_MS).prop_map(Duration::from_millis)
}

fn set<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Set<T>>> {
    let by = texts("TrafficPolicy [a-z]{1,5}/[a-z]{1,5}");
    option::of((value, by).prop_map(|(value, by)| Set { value, by: Origin::of(&by) }))
}

fn retries() -> impl Strategy<Value = Retry> {
    (
        set(vec(400..=599u16, 0..3)),
        set(vec(0..=16u16, 0..3)),
        set(vec(select(Reason::ALL), 0..3)),
        set(any::<u32>()),
        (set(times()), set(times()), set(times())),
        set(any::<u64>()),
        set(any::<bool>()),
    )
        .prop_map(|(http_codes, grpc_codes, reasons, attempts, times, body_limit, other_host)| Retry {
            http_codes,
            grpc_codes,
            reasons,
            attempts,
            per_try_timeout: times.0,
            backoff_base: times.1,
            backoff_max: times.2,
            body_limit,
            other_host,
        })
}

fn settings() -> impl Strategy<Value = Settings> {
    let timeouts = (set(times()), set(times()), set(times()), set(times()), set(times()), set(times()))
        .prop_map(|times| Timeouts {
            connect: times.0,
            request: times.1,
            backend_request: times.2,
            idle: times.3,
            stream_idle: times.4,
            max_stream_duration: times.5,
        });
    let abort = prop_oneof![(200..=599u16).prop_map(Abort::Http), (0..=16u16).prop_map(Abort::Grpc)];
    let fault = (value_matches(), option::of((times(), shares())), option::of((abort, shares())))
        .prop_map(|(headers, delay, abort)| Fault { headers, delay, abort });
    let response =
        (200..=599u16, texts("\\PC{0,9}")).prop_map(|(status, body)| DirectResponse { status, body });
    let hedge = (times(), any::<u32>()).prop_map(|(delay, max)| Hedge { delay, max });
    (timeouts, retries(), set(hedge), set(fault), set(response)).prop_map(
        |(timeouts, retry, hedge, fault, direct_response)| Settings {
            timeouts,
            retry,
            hedge,
            fault,
            direct_response,
        },
    )
}

fn backend_settings() -> impl Strategy<Value = BackendSettings> {
    let limits = (set(any::<u32>()), set(any::<u32>()), set(any::<u32>())).prop_map(|counts| Limits {
        max_connections: counts.0,
        max_pending_requests: counts.1,
        max_requests: counts.2,
    });
    let accrual = (1..=u32::MAX, times(), times(), 0..=10_000u32, 0..=100u32).prop_map(
        |(max_failures, min_penalty, max_penalty, jitter, max_ejection)| FailureAccrual {
            max_failures,
            min_penalty,
            max_penalty,
            jitter,
            max_ejection,
        },
    );
    let some_time = || (1..=CENTURY_MS).prop_map(Duration::from_millis);
    let budget = (0..=100u32, some_time(), any::<u32>(), some_time()).prop_map(
        |(percent, interval, min_count, min_interval)| RetryBudget {
            percent,
            interval,
            min_count,
            min_interval,
        },
    );
    let kind = prop_oneof![
        any::<bool>().prop_map(|permanent| SessionKind::Cookie { permanent }),
        Just(SessionKind::Header)
    ];
    let session = (kind, texts("[A-Za-z-]{1,9}"), option::of(some_time()), option::of(some_time())).prop_map(
        |(kind, name, absolute_timeout, idle_timeout)| SessionPersistence {
            kind,
            name,
            absolute_timeout,
            idle_timeout,
        },
    );
    (limits, set(accrual), set(budget), set(session))
        .prop_map(|(limits, accrual, budget, session)| BackendSettings { limits, accrual, budget, session })
}

fn rules() -> impl Strategy<Value = Rule> {
    let source = (any::<u64>(), labels(), labels(), any::<u32>(), option::of(labels())).prop_map(
        |(created, namespace, route, index, name)| RuleRef {
            route: RouteRef { created, namespace, name: route, kind: "HTTPRoute".into() },
            index,
            name,
        },
    );
    let backend = (backend_refs(), any::<u32>(), filters(), backend_settings()).prop_map(
        |(backend, weight, filters, settings)| WeightedBackend { backend, weight, filters, settings },
    );
    (source, filters(), vec(backend, 0..3), settings())
        .prop_map(|(source, filters, backends, settings)| Rule { source, filters, backends, settings })
}

fn routes() -> impl Strategy<Value = Routes> {
    let table = || vec((vec(matches(), 0..3), rules()), 0..3).prop_map(RuleTable::new);
    let hostnames = vec(texts("(\\*\\.)?[a-z]{1,5}(\\.[a-z]{1,5})?"), 0..3);
    let tls = (hostnames, rules()).prop_map(|(hostnames, rule)| TlsRule { hostnames, rule });
    prop_oneof![
        Just(Routes::None),
        table().prop_map(Routes::Http),
        table().prop_map(Routes::Grpc),
        vec(tls, 0..3).prop_map(Routes::Tls),
        rules().prop_map(|rule| Routes::Tcp(rule.into())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_policy_is_read_as_it_was_written(
        service in service_ports(), routes in routes(), settings in settings(), backend in backend_settings(),
    ) {
        let protocol = Protocol::Auto;
        let value = Outbound { target: Target::Service(service), protocol, routes, settings, backend };
        let bytes = v1::OutboundPolicy::from(&value).encode_to_vec();
        let read = v1::OutboundPolicy::decode(bytes.as_slice()).expect("own encoding");
        prop_assert_eq!(Outbound::try_from(&read), Ok(value));
    }

    /// One byte of a good message differs: whatever it says then, it is read or refused.
    #[test]
    fn a_broken_policy_is_survived(rule in rules(), one in matches(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let routes = Routes::Http(RuleTable::new([(vec![one], rule)]));
        let mut bytes = v1::OutboundPolicy::from(&Outbound { routes, ..Outbound::external() }).encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(message) = v1::OutboundPolicy::decode(bytes.as_slice()) {
            let _ = Outbound::try_from(message);
        }
    }
}

#[test]
fn what_is_shorter_than_a_millisecond_is_one_as_zero_means_no_limit() {
    let mut policy = Outbound::external();
    let by = Origin::new("TrafficPolicy", "shop", "quick");
    policy.settings.timeouts.request = Some(Set::new(Duration::from_micros(1), &by));
    let read = Outbound::try_from(v1::OutboundPolicy::from(&policy)).expect("a good policy");
    assert_eq!(read.settings.timeouts.request(), Some(Duration::from_millis(1)));
}

// ---- nonsense ----

/// One of everything.
fn good() -> v1::OutboundPolicy {
    let by = Origin::new("TrafficPolicy", "shop", "slow");
    let exact = |text: &str| TextMatch::Exact(text.into());
    let value = |name: &str| ValueMatch { name: name.into(), value: exact("beta") };
    let cart = ServiceName::new("shop", "cart").port(80);
    let edit = || HeaderEdit {
        set: vec![("x-a".into(), "1".into())],
        add: vec![("x-b".into(), "2".into())],
        remove: vec!["x-c".into()],
    };
    let settings = Settings {
        retry: Retry {
            http_codes: Some(Set::new(vec![503], &by)),
            grpc_codes: Some(Set::new(vec![14], &by)),
            attempts: Some(Set::new(2, &by)),
            other_host: Some(Set::new(true, &by)),
            ..Retry::default()
        },
        fault: Some(Set::new(
            Fault {
                headers: vec![value("x-fault")],
                delay: Some((Duration::from_secs(1), Share::ALL)),
                abort: Some((Abort::Http(503), Share::ALL)),
            },
            &by,
        )),
        direct_response: Some(Set::new(DirectResponse { status: 200, body: "".into() }, &by)),
        ..Settings::default()
    };
    let backend = BackendSettings {
        limits: Limits { max_requests: Some(Set::new(9, &by)), ..Limits::default() },
        accrual: Some(Set::new(FailureAccrual::default(), &by)),
        budget: Some(Set::new(RetryBudget::default(), &by)),
        session: Some(Set::new(
            SessionPersistence {
                kind: SessionKind::Header,
                name: "x-session".into(),
                absolute_timeout: None,
                idle_timeout: None,
            },
            &by,
        )),
    };
    let filters = vec![
        Filter::RequestHeaders(edit()),
        Filter::ResponseHeaders(edit()),
        Filter::Redirect(Redirect {
            scheme: Some("https".into()),
            hostname: Some("a.example".into()),
            port: Some(8443),
            path: Some(PathEdit::Full("/x".into())),
            status: 308,
        }),
        Filter::Rewrite(Rewrite {
            hostname: Some("b.example".into()),
            path: Some(PathEdit::Prefix("/y".into())),
        }),
        Filter::Mirror(Mirror { backend: BackendRef::Service(cart.clone()), share: Share::ALL }),
        Filter::Cors(Cors {
            allow_origins: vec!["https://a.example".into()],
            allow_methods: vec!["GET".into()],
            allow_headers: vec!["X-A".into()],
            expose_headers: vec!["X-B".into()],
            ..Cors::default()
        }),
    ];
    let rule = Rule {
        source: RuleRef {
            route: RouteRef {
                created: 1,
                namespace: "shop".into(),
                name: "cart".into(),
                kind: "HTTPRoute".into(),
            },
            index: 0,
            name: Some("beta".into()),
        },
        filters,
        backends: vec![WeightedBackend {
            backend: BackendRef::Service(cart.clone()),
            weight: 1,
            filters: vec![Filter::RequestHeaders(edit())],
            settings: backend.clone(),
        }],
        settings: settings.clone(),
    };
    let one = Match {
        method: Some("GET".into()),
        headers: vec![value("x-user")],
        query: vec![value("user")],
        ..Match::default()
    };
    let routes = Routes::Http(RuleTable::new([(vec![one], rule)]));
    let target = Target::Service(cart);
    v1::OutboundPolicy::from(&Outbound { target, protocol: Protocol::Auto, routes, settings, backend })
}

fn table(policy: &mut v1::OutboundPolicy) -> &mut v1::RuleTable {
    match policy.routes.as_mut() {
        Some(v1::outbound_policy::Routes::Http(table)) => table,
        _ => panic!("a good policy has routes of HTTP"),
    }
}

fn one_match(policy: &mut v1::OutboundPolicy) -> &mut v1::Match {
    &mut table(policy).matches[0]
}

fn path(policy: &mut v1::OutboundPolicy) -> &mut Option<v1::path_match::Kind> {
    &mut one_match(policy).path.as_mut().expect("a good match has one").kind
}

fn rule(policy: &mut v1::OutboundPolicy) -> &mut v1::Rule {
    &mut table(policy).rules[0]
}

fn source(policy: &mut v1::OutboundPolicy) -> &mut v1::RuleRef {
    rule(policy).source.as_mut().expect("a good rule has one")
}

macro_rules! filter {
    ($policy:ident, $kind:ident) => {
        rule($policy)
            .filters
            .iter_mut()
            .find_map(|filter| match filter.kind.as_mut() {
                Some(v1::filter::Kind::$kind(one)) => Some(one),
                _ => None,
            })
            .expect("a good rule has each filter")
    };
}

fn settings_of(policy: &mut v1::OutboundPolicy) -> &mut v1::Settings {
    policy.settings.as_mut().expect("a good policy has some")
}

fn fault(policy: &mut v1::OutboundPolicy) -> &mut v1::Fault {
    settings_of(policy).fault.as_mut().expect("a good policy has one")
}

fn backend(policy: &mut v1::OutboundPolicy) -> &mut v1::BackendSettings {
    policy.backend.as_mut().expect("a good policy has some")
}

type Spoil = fn(&mut v1::OutboundPolicy);

#[track_caller]
fn each_is_refused(cases: &[(Spoil, &str)]) {
    assert!(Outbound::try_from(good()).is_ok());
    for (spoil, says) in cases {
        let mut policy = good();
        spoil(&mut policy);
        assert_eq!(Outbound::try_from(policy).expect_err(says).to_string(), *says);
    }
}

#[test]
fn a_match_that_means_nothing_is_refused() {
    use v1::path_match::Kind;
    each_is_refused(&[
        (|it| one_match(it).rule = 1, "http.matches[0].rule: there is no 1 among 1"),
        (|it| one_match(it).path = None, "http.matches[0].path: it is missing"),
        (|it| *path(it) = None, "http.matches[0].path: it is missing"),
        (
            |it| *path(it) = Some(Kind::Exact(String::new())),
            "http.matches[0].path.exact: \"\" is not a path that begins with /",
        ),
        (
            |it| *path(it) = Some(Kind::Prefix("/a?b".into())),
            "http.matches[0].path.prefix: \"/a?b\" is not a path that begins with /",
        ),
        (
            |it| *path(it) = Some(Kind::Regex("(".into())),
            "http.matches[0].path.regex: \"(\" is no regular expression: unclosed group",
        ),
        (
            |it| {
                let service = Some(v1::TextMatch { kind: None });
                *path(it) = Some(Kind::Rpc(v1::Rpc { service, method: None }));
            },
            "http.matches[0].path.rpc.service.kind: it is missing",
        ),
        (|it| one_match(it).method = "G T".into(), "http.matches[0].method: \"G T\" is not a token of HTTP"),
        (
            |it| one_match(it).headers[0].name = "X-User".into(),
            "http.matches[0].headers[0].name: \"X-User\" is not the name of an HTTP field in lower case",
        ),
        (|it| one_match(it).headers[0].value = None, "http.matches[0].headers[0].value: it is missing"),
        (|it| one_match(it).query[0].name.clear(), "http.matches[0].query[0].name: it is missing"),
    ]);
}

#[test]
fn a_rule_that_means_nothing_is_refused() {
    use v1::weighted_backend::Backend;
    each_is_refused(&[
        (|it| rule(it).source = None, "http.rules[0].source: it is missing"),
        (|it| source(it).kind.clear(), "http.rules[0].source.kind: it is missing"),
        (|it| source(it).namespace.clear(), "http.rules[0].source.namespace: it is missing"),
        (|it| source(it).name.clear(), "http.rules[0].source.name: it is missing"),
        (|it| rule(it).backends[0].backend = None, "http.rules[0].backends[0].backend: it is missing"),
        (
            |it| rule(it).backends[0].backend = Some(Backend::Service(v1::Backend::default())),
            "http.rules[0].backends[0].service.namespace: \"\" is not a name that Kubernetes would accept",
        ),
        (
            |it| rule(it).backends[0].filters[0].kind = None,
            "http.rules[0].backends[0].filters[0].kind: it is missing",
        ),
        (
            |it| {
                let tls = v1::TlsRule { hostnames: vec!["*.".into()], rule: Some(rule(it).clone()) };
                it.routes = Some(v1::outbound_policy::Routes::Tls(v1::TlsRules { rules: vec![tls] }));
            },
            "tls.rules[0].hostnames[0]: \"*.\" is not a hostname or *. before one",
        ),
        (
            |it| {
                let tls = v1::TlsRule::default();
                it.routes = Some(v1::outbound_policy::Routes::Tls(v1::TlsRules { rules: vec![tls] }));
            },
            "tls.rules[0].rule: it is missing",
        ),
        (
            |it| it.routes = Some(v1::outbound_policy::Routes::Tcp(v1::Rule::default())),
            "tcp.source: it is missing",
        ),
    ]);
}

#[test]
fn a_filter_that_means_nothing_is_refused() {
    each_is_refused(&[
        (
            |it| filter!(it, RequestHeaders).set[0].name = "x a".into(),
            "http.rules[0].filters[0].request_headers.set[0].name: \"x a\" is not the name of an HTTP field in lower case",
        ),
        (
            |it| filter!(it, ResponseHeaders).add[0].value = "1\r\nx-evil: 2".into(),
            "http.rules[0].filters[1].response_headers.add[0].value: \"1\\r\\nx-evil: 2\" is not the value of an HTTP field",
        ),
        (
            |it| filter!(it, ResponseHeaders).remove[0].clear(),
            "http.rules[0].filters[1].response_headers.remove[0]: \"\" is not the name of an HTTP field in lower case",
        ),
        (
            |it| filter!(it, Redirect).status = 300,
            "http.rules[0].filters[2].redirect.status: \"300\" is not one of 301, 302, 303, 307, 308",
        ),
        (
            |it| filter!(it, Redirect).scheme = "ftp".into(),
            "http.rules[0].filters[2].redirect.scheme: \"ftp\" is not http or https",
        ),
        (
            |it| filter!(it, Redirect).port = 65_536,
            "http.rules[0].filters[2].redirect.port: 65536 is not a port (1-65535)",
        ),
        (
            |it| filter!(it, Redirect).path = Some(v1::PathEdit { kind: None }),
            "http.rules[0].filters[2].redirect.path.kind: it is missing",
        ),
        (
            |it| filter!(it, Rewrite).hostname = "b.example/c".into(),
            "http.rules[0].filters[3].rewrite.hostname: \"b.example/c\" is not a hostname",
        ),
        (
            |it| {
                let kind = Some(v1::path_edit::Kind::Full("x y".into()));
                filter!(it, Rewrite).path = Some(v1::PathEdit { kind });
            },
            "http.rules[0].filters[3].rewrite.path.full: \"x y\" is not a path that begins with /",
        ),
        (|it| filter!(it, Mirror).backend = None, "http.rules[0].filters[4].mirror.backend: it is missing"),
        (|it| filter!(it, Mirror).share = None, "http.rules[0].filters[4].mirror.share: it is missing"),
        (
            |it| filter!(it, Mirror).share = Some(v1::Share { numerator: 0, denominator: 0 }),
            "http.rules[0].filters[4].mirror.share.denominator: 0 is less than 1",
        ),
        (
            |it| filter!(it, Mirror).share = Some(v1::Share { numerator: 3, denominator: 2 }),
            "http.rules[0].filters[4].mirror.share.numerator: 3 is not in 0-2",
        ),
        (
            |it| filter!(it, Cors).allow_origins[0].clear(),
            "http.rules[0].filters[5].cors.allow_origins[0]: \"\" is not an origin",
        ),
        (
            |it| filter!(it, Cors).expose_headers[0] = "a\n".into(),
            "http.rules[0].filters[5].cors.expose_headers[0]: \"a\\n\" is not a token of HTTP",
        ),
    ]);
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    fn number(message: &mut Option<v1::Number>) -> &mut v1::Number {
        message.as_mut().expect("a good policy has one")
    }
    fn numbers(message: &mut Option<v1::Numbers>) -> &mut v1::Numbers {
        message.as_mut().expect("a good policy has some")
    }
    each_is_refused(&[
        (
            |it| numbers(&mut settings_of(it).retry_http_codes).values[0] = 399,
            "settings.retry_http_codes.values[0]: 399 is not in 400-599",
        ),
        (
            |it| numbers(&mut settings_of(it).retry_grpc_codes).values[0] = 17,
            "settings.retry_grpc_codes.values[0]: 17 is not in 0-16",
        ),
        (
            |it| number(&mut settings_of(it).retry_attempts).value = 1 << 32,
            "settings.retry_attempts.value: 4294967296 is not in 0-4294967295",
        ),
        (
            |it| number(&mut settings_of(it).retry_other_host).value = 2,
            "settings.retry_other_host.value: 2 is not in 0-1",
        ),
        (
            |it| fault(it).delay_share = Some(v1::Share::default()),
            "settings.fault.delay_share.denominator: 0 is less than 1",
        ),
        (
            |it| settings_of(it).idle = Some(v1::Time { ms: u64::MAX, by: String::new() }),
            "settings.idle.ms: 18446744073709551615 is not in 0-3153600000000",
        ),
        (
            |it| fault(it).delay_ms = u64::MAX,
            "settings.fault.delay_ms: 18446744073709551615 is not in 0-3153600000000",
        ),
        (|it| fault(it).abort = None, "settings.fault.abort: it is missing"),
        (
            |it| fault(it).abort = Some(v1::fault::Abort::HttpStatus(199)),
            "settings.fault.http_status: 199 is not in 200-599",
        ),
        (
            |it| fault(it).abort = Some(v1::fault::Abort::GrpcStatus(17)),
            "settings.fault.grpc_status: 17 is not in 0-16",
        ),
        (|it| fault(it).headers[0].value = None, "settings.fault.headers[0].value: it is missing"),
        (
            |it| settings_of(it).direct_response.as_mut().expect("one").status = 101,
            "settings.direct_response.status: 101 is not in 200-599",
        ),
        (
            |it| rule(it).settings.as_mut().expect("some").direct_response.as_mut().expect("one").status = 0,
            "http.rules[0].settings.direct_response.status: 0 is not in 200-599",
        ),
        (
            |it| number(&mut backend(it).max_requests).value = 1 << 40,
            "backend.max_requests.value: 1099511627776 is not in 0-4294967295",
        ),
        (
            |it| backend(it).failure_accrual.as_mut().expect("one").max_failures = 0,
            "backend.failure_accrual.max_failures: 0 is less than 1",
        ),
        (
            |it| backend(it).failure_accrual.as_mut().expect("one").max_ejection = 101,
            "backend.failure_accrual.max_ejection: 101 is not in 0-100",
        ),
        (
            |it| backend(it).failure_accrual.as_mut().expect("one").jitter = 10_001,
            "backend.failure_accrual.jitter: 10001 is not in 0-10000",
        ),
        (
            |it| backend(it).retry_budget.as_mut().expect("one").percent = 101,
            "backend.retry_budget.percent: 101 is not in 0-100",
        ),
        (
            |it| backend(it).retry_budget.as_mut().expect("one").interval_ms = 0,
            "backend.retry_budget.interval_ms: 0 is not in 1-3153600000000",
        ),
        (
            |it| backend(it).session_persistence.as_mut().expect("one").name = "a b".into(),
            "backend.session_persistence.name: \"a b\" is not a token of HTTP",
        ),
    ]);
}
