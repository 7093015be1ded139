//! The short form in which cases write rules, and what it stands for. How Kubernetes' objects become rules is told by the tests of
//! control-translate.

use crate::world::{SERVICES, Way, service};
use policy::{
    BackendRef, BackendSettings, Cors, Filter, HeaderEdit, Match, Mirror, Origin, Outbound, PathEdit,
    PathMatch, Pattern, Protocol, Redirect, Rewrite, RouteRef, Routes, Rule, RuleRef, RuleTable, Set,
    Settings, Share, Target, WeightedBackend,
    settings::{DirectResponse, SessionKind, SessionPersistence},
};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Case {
    /// `HTTP`, `gRPC` or `TCP`.
    routes: String,
    rules: Vec<WrittenRule>,
    pub ask: Vec<Ask>,
}

/// A request, as HTTP/1.1 writes it.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Ask {
    Plain(String),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Full {
    request: String,
    /// What the backend answers, in place of its usual words.
    reply: Option<String>,
    /// Only of clients that speak this version, `1` or `2`.
    http: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenRule {
    /// One of these is what a request's path must be; nothing: any.
    prefix: Option<String>,
    path: Option<String>,
    regex: Option<String>,
    #[serde(default)]
    filters: Vec<WrittenFilter>,
    #[serde(default)]
    backends: Vec<WrittenBackend>,
    /// Status and body.
    respond: Option<(u16, String)>,
    session: Option<WrittenSession>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenBackend {
    /// A Service of the world; another name leads nowhere.
    To(String),
    Full {
        to: String,
        #[serde(default = "one")]
        weight: u32,
        #[serde(default)]
        filters: Vec<WrittenFilter>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSession {
    cookie: Option<String>,
    header: Option<String>,
    #[serde(default)]
    permanent: bool,
    absolute: Option<u64>,
    idle: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum WrittenFilter {
    RequestHeaders(WrittenEdit),
    ResponseHeaders(WrittenEdit),
    Redirect(WrittenUrl),
    Rewrite(WrittenUrl),
    Cors(WrittenCors),
    /// Where to, and percent.
    Mirror(String, u32),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEdit {
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    add: BTreeMap<String, String>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUrl {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    full: Option<String>,
    prefix: Option<String>,
    status: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[derive(Default)]
struct WrittenCors {
    origins: Vec<String>,
    credentials: bool,
    methods: Vec<String>,
    headers: Vec<String>,
    expose: Vec<String>,
    max_age: u32,
}

fn one() -> u32 {
    1
}

impl Ask {
    pub fn request(&self) -> &str {
        match self {
            Self::Plain(request) | Self::Full(Full { request, .. }) => request,
        }
    }

    pub fn reply(&self) -> Option<&str> {
        match self {
            Self::Plain(_) => None,
            Self::Full(full) => full.reply.as_deref(),
        }
    }

    pub fn is_for(&self, way: Way) -> bool {
        match self {
            Self::Plain(_) | Self::Full(Full { http: None, .. }) => true,
            Self::Full(Full { http: Some(version), .. }) => (*version == 2) == way.http2,
        }
    }
}

impl Case {
    pub fn policy(&self) -> Outbound {
        let kind = format!("{}Route", self.routes.to_uppercase());
        let rules =
            || (0..).zip(&self.rules).map(|(index, rule)| (vec![rule.fits()], rule.read(&kind, index)));
        let routes = match self.routes.as_str() {
            "HTTP" => Routes::Http(RuleTable::new(rules())),
            "gRPC" => Routes::Grpc(RuleTable::new(rules())),
            "TCP" => Routes::Tcp(Box::new(self.rules[0].read(&kind, 0))),
            other => panic!("{other} are no routes"),
        };
        Outbound { routes, ..Outbound::new(Target::Service(service("v1")), Protocol::Auto) }
    }
}

impl WrittenRule {
    fn fits(&self) -> Match {
        let path = match (&self.path, &self.prefix, &self.regex) {
            (Some(path), None, None) => PathMatch::Exact(path.as_str().into()),
            (None, Some(prefix), None) => PathMatch::Prefix(prefix.as_str().into()),
            (None, None, Some(regex)) => PathMatch::Regex(Pattern::new(regex).expect(regex)),
            _ => PathMatch::default(),
        };
        Match { path, ..Match::default() }
    }

    fn read(&self, kind: &str, index: u32) -> Rule {
        let route = RouteRef { created: 0, namespace: "shop".into(), name: "a".into(), kind: kind.into() };
        let by = Origin::new("TrafficPolicy", "shop", "a");
        let respond = self.respond.as_ref();
        let direct_response = respond.map(|(status, body)| {
            Set::new(DirectResponse { status: *status, body: body.as_str().into() }, &by)
        });
        Rule {
            source: RuleRef { route, index, name: None },
            filters: self.filters.iter().map(WrittenFilter::read).collect(),
            backends: self.backends.iter().map(|backend| backend.read(self.session.as_ref())).collect(),
            settings: Settings { direct_response, ..Settings::default() },
        }
    }
}

impl WrittenBackend {
    fn read(&self, session: Option<&WrittenSession>) -> WeightedBackend {
        let (to, weight, filters) = match self {
            Self::To(to) => (to, 1, &[][..]),
            Self::Full { to, weight, filters } => (to, *weight, &filters[..]),
        };
        let session = session.map(|session| Set::new(session.read(), &Origin::new("HTTPRoute", "shop", "a")));
        WeightedBackend {
            backend: backend(to),
            weight,
            filters: filters.iter().map(WrittenFilter::read).collect(),
            settings: BackendSettings { session, ..BackendSettings::default() },
        }
    }
}

fn backend(to: &str) -> BackendRef {
    match SERVICES.contains(&to) {
        true => BackendRef::Service(service(to)),
        false => BackendRef::Unresolved(to.into()),
    }
}

impl WrittenSession {
    fn read(&self) -> SessionPersistence {
        let (kind, name) = match (&self.cookie, &self.header) {
            (Some(name), _) => (SessionKind::Cookie { permanent: self.permanent }, name),
            (_, Some(name)) => (SessionKind::Header, name),
            _ => panic!("a session has a cookie or a header"),
        };
        SessionPersistence {
            kind,
            name: name.as_str().into(),
            absolute_timeout: self.absolute.map(Duration::from_secs),
            idle_timeout: self.idle.map(Duration::from_secs),
        }
    }
}

impl WrittenFilter {
    fn read(&self) -> Filter {
        let list = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        match self {
            Self::RequestHeaders(edit) => Filter::RequestHeaders(edit.read()),
            Self::ResponseHeaders(edit) => Filter::ResponseHeaders(edit.read()),
            Self::Redirect(url) => Filter::Redirect(Redirect {
                scheme: text(&url.scheme),
                hostname: text(&url.host),
                port: url.port,
                path: url.path(),
                status: url.status.unwrap_or(302),
            }),
            Self::Rewrite(url) => Filter::Rewrite(Rewrite { hostname: text(&url.host), path: url.path() }),
            Self::Cors(cors) => Filter::Cors(Cors {
                allow_origins: list(&cors.origins),
                allow_credentials: cors.credentials,
                allow_methods: list(&cors.methods),
                allow_headers: list(&cors.headers),
                expose_headers: list(&cors.expose),
                max_age: cors.max_age,
            }),
            Self::Mirror(to, percent) => Filter::Mirror(Mirror {
                backend: backend(to),
                share: Share { numerator: *percent, denominator: 100 },
            }),
        }
    }
}

fn text(text: &Option<String>) -> Option<Arc<str>> {
    text.as_deref().map(Into::into)
}

impl WrittenEdit {
    fn read(&self) -> HeaderEdit {
        let pairs = |pairs: &BTreeMap<String, String>| {
            pairs.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect()
        };
        HeaderEdit {
            set: pairs(&self.set),
            add: pairs(&self.add),
            remove: self.remove.iter().map(|name| name.as_str().into()).collect(),
        }
    }
}

impl WrittenUrl {
    fn path(&self) -> Option<PathEdit> {
        let full = text(&self.full).map(PathEdit::Full);
        full.or_else(|| text(&self.prefix).map(PathEdit::Prefix))
    }
}
