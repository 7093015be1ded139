//! The filters of HTTPRoutes and GRPCRoutes.

use crate::{
    backends::{self, Scope},
    findings::{ConditionReason, Notes},
};
use control_index::{Kind, manifest};
use policy::{
    BackendRef, Cors, Filter, HeaderEdit, Mirror, PathEdit, Redirect, Rewrite, Share,
    form::{is_field_value, is_origin, is_path, is_path_part, is_token},
    names::is_subdomain,
};
use std::sync::Arc;

/// Seconds for which a browser keeps an answer about CORS when nobody says (HTTPCORSFilter.maxAge).
const CORS_MAX_AGE: u32 = 5;

/// Where filters stand.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    /// At a rule: whether all of its matches are by a prefix of the path, and whether it has backends.
    Rule {
        prefixes: bool,
        backends: bool,
    },
    Backend,
}

/// What was read of a list of filters.
#[derive(Default)]
pub(crate) struct Filters {
    pub list: Vec<Filter>,
    /// One of them cannot be applied, for this reason: requests that it is for fail.
    pub broken: Option<String>,
}

pub(crate) fn read(
    scope: Scope<'_>,
    filters: &[manifest::Filter],
    level: Level,
    notes: &mut Notes<'_>,
) -> Filters {
    let mut read = Filters::default();
    for (at, filter) in filters.iter().enumerate() {
        let mut notes = notes.at(format_args!("filters[{at}]"));
        if is_incompatible(filter, &filters[..at]) {
            notes.refuse(
                ConditionReason::IncompatibleFilters,
                format!("{} does not go with the filters before it", filter.type_()),
            );
        }
        if !is_known(scope.kind, filter, level) {
            let what = match level {
                Level::Rule { .. } => {
                    format!("{:?} is no filter that {}s can have here", filter.type_(), scope.kind)
                }
                Level::Backend => format!("{:?} is no filter that a backend can have here", filter.type_()),
            };
            notes.at("type").reject(what);
            continue;
        }
        one(scope, filter, level, &mut notes, &mut read);
    }
    read
}

/// URLRewrite and RequestRedirect exclude each other, and most filters may stand once (HTTPRouteRule.filters).
fn is_incompatible(filter: &manifest::Filter, before: &[manifest::Filter]) -> bool {
    use manifest::Filter::{ExtensionRef, RequestMirror, RequestRedirect, UrlRewrite};
    before.iter().any(|other| match (filter, other) {
        (RequestMirror(_), _) | (ExtensionRef(_), _) => false,
        (UrlRewrite(_), RequestRedirect(_)) | (RequestRedirect(_), UrlRewrite(_)) => true,
        (filter, other) => filter.type_() == other.type_(),
    })
}

fn is_known(kind: Kind, filter: &manifest::Filter, level: Level) -> bool {
    use manifest::Filter::{
        Cors, ExtensionRef, RequestHeaderModifier, RequestMirror, RequestRedirect, ResponseHeaderModifier,
        Unknown, UrlRewrite,
    };
    match filter {
        RequestHeaderModifier(_) | ResponseHeaderModifier(_) | RequestMirror(_) | ExtensionRef(_) => true,
        UrlRewrite(_) => kind == Kind::HttpRoute,
        RequestRedirect(_) | Cors(_) => kind == Kind::HttpRoute && matches!(level, Level::Rule { .. }),
        Unknown(_) => false,
    }
}

fn one(scope: Scope<'_>, filter: &manifest::Filter, level: Level, notes: &mut Notes<'_>, read: &mut Filters) {
    match filter {
        manifest::Filter::RequestHeaderModifier(edit) => {
            let edit = headers(edit, &mut notes.at("requestHeaderModifier"));
            read.list.push(Filter::RequestHeaders(edit));
        }
        manifest::Filter::ResponseHeaderModifier(edit) => {
            let edit = headers(edit, &mut notes.at("responseHeaderModifier"));
            read.list.push(Filter::ResponseHeaders(edit));
        }
        manifest::Filter::RequestRedirect(redirect) => {
            if matches!(level, Level::Rule { backends: true, .. }) {
                let what = "a redirect sends nothing to a backend; leave out backendRefs or the redirect";
                notes.refuse(ConditionReason::IncompatibleFilters, what);
            }
            read.list.extend(
                self::redirect(redirect, level, &mut notes.at("requestRedirect")).map(Filter::Redirect),
            );
        }
        manifest::Filter::UrlRewrite(rewrite) => {
            let mut notes = notes.at("urlRewrite");
            let path = rewrite.path.as_ref().and_then(|path| path_edit(path, level, &mut notes.at("path")));
            let hostname = hostname(rewrite.hostname.as_deref(), &mut notes);
            read.list.push(Filter::Rewrite(Rewrite { hostname, path }));
        }
        manifest::Filter::RequestMirror(mirror) => {
            read.list.extend(self::mirror(scope, mirror, &mut notes.at("requestMirror")).map(Filter::Mirror));
        }
        manifest::Filter::Cors(cors) => read.list.push(Filter::Cors(self::cors(cors, &mut notes.at("cors")))),
        manifest::Filter::ExtensionRef(extension) => {
            let manifest::LocalObjectReference { group, kind, name } = extension;
            let what = format!("{kind} of {group:?}, as {name:?} is said to be, is no kind of filter here");
            notes.at("extensionRef").unresolved(ConditionReason::InvalidKind, what.clone());
            read.broken = Some(what);
        }
        // It was refused before.
        manifest::Filter::Unknown(_) => {}
    }
}

fn headers(edit: &manifest::HeaderFilter, notes: &mut Notes<'_>) -> HeaderEdit {
    let mut fields = |list: &str, fields: &[manifest::Header]| -> Vec<(Arc<str>, Arc<str>)> {
        let read = |(at, field): (usize, &manifest::Header)| {
            let mut notes = notes.at(format_args!("{list}[{at}]"));
            let name = field_name(&field.name, &mut notes.at("name"));
            check(
                is_field_value(&field.value),
                &field.value,
                "value of a header field",
                &mut notes.at("value"),
            );
            (name, field.value.as_str().into())
        };
        fields.iter().enumerate().map(read).collect()
    };
    let (set, add) = (fields("set", &edit.set), fields("add", &edit.add));
    let name = |(at, name): (usize, &String)| field_name(name, &mut notes.at(format_args!("remove[{at}]")));
    HeaderEdit { set, add, remove: edit.remove.iter().enumerate().map(name).collect() }
}

/// In lower case.
fn field_name(name: &str, notes: &mut Notes<'_>) -> Arc<str> {
    check(is_token(name), name, "name of a header field", notes);
    name.to_ascii_lowercase().into()
}

fn check(fits: bool, text: &str, what: &str, notes: &mut Notes<'_>) {
    if !fits {
        notes.refuse(ConditionReason::UnsupportedValue, format!("{text:?} is no {what}"));
    }
}

fn hostname(name: Option<&str>, notes: &mut Notes<'_>) -> Option<Arc<str>> {
    let name = name.filter(|name| !name.is_empty())?;
    check(is_subdomain(name), name, "hostname", &mut notes.at("hostname"));
    Some(name.into())
}

fn redirect(redirect: &manifest::Redirect, level: Level, notes: &mut Notes<'_>) -> Option<Redirect> {
    if let Some(scheme) = redirect.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        notes.at("scheme").reject(format!("{scheme:?} is no scheme; known are http, https"));
    }
    let status = redirect.status_code.unwrap_or(302);
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        let what = format!("{status} is no status of a redirect; known are 301, 302, 303, 307, 308");
        notes.at("statusCode").reject(what);
    }
    let port = redirect.port.map(u16::try_from).transpose().ok().filter(|port| *port != Some(0));
    if port.is_none() {
        notes.at("port").refuse(ConditionReason::UnsupportedValue, "it is no port (1-65535)");
    }
    Some(Redirect {
        scheme: redirect.scheme.as_deref().map(Arc::from),
        hostname: hostname(redirect.hostname.as_deref(), notes),
        port: port?,
        path: redirect.path.as_ref().and_then(|path| path_edit(path, level, &mut notes.at("path"))),
        status,
    })
}

fn path_edit(path: &manifest::PathModifier, level: Level, notes: &mut Notes<'_>) -> Option<PathEdit> {
    match path.type_.as_str() {
        "ReplaceFullPath" => {
            let full = path.replace_full_path.as_deref().unwrap_or("/");
            check(is_path(full), full, "path that begins with a slash", &mut notes.at("replaceFullPath"));
            Some(PathEdit::Full(full.into()))
        }
        "ReplacePrefixMatch" => {
            if matches!(level, Level::Rule { prefixes: false, .. }) {
                let what =
                    "only a PathPrefix can be replaced, and not all matches of the rule are of this type";
                notes.at("type").reject(what);
            }
            let prefix = path.replace_prefix_match.as_deref().unwrap_or_default();
            check(is_path_part(prefix), prefix, "part of a path", &mut notes.at("replacePrefixMatch"));
            Some(PathEdit::Prefix(prefix.into()))
        }
        other => {
            let what = format!("{other:?} is no type; known are ReplaceFullPath, ReplacePrefixMatch");
            notes.at("type").reject(what);
            None
        }
    }
}

/// One that leads nowhere is left out (HTTPRequestMirrorFilter.backendRef).
fn mirror(scope: Scope<'_>, mirror: &manifest::Mirror, notes: &mut Notes<'_>) -> Option<Mirror> {
    let share = share(mirror);
    if share.is_none() {
        let what = "it is no share of the requests: neither 0 to 100 percent nor a fraction of at most one";
        notes.refuse(ConditionReason::UnsupportedValue, what);
    }
    let service = backends::resolve(scope, &mirror.backend_ref, &mut notes.at("backendRef")).ok()?;
    Some(Mirror { backend: BackendRef::Service(service), share: share? })
}

fn share(mirror: &manifest::Mirror) -> Option<Share> {
    let (numerator, denominator) = match (mirror.percent, mirror.fraction) {
        (None, None) => return Some(Share::ALL),
        (Some(percent), None) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (Some(_), Some(_)) => return None,
    };
    let share = Share { numerator: numerator.try_into().ok()?, denominator: denominator.try_into().ok()? };
    (share.denominator > 0 && share.numerator <= share.denominator).then_some(share)
}

fn cors(cors: &manifest::Cors, notes: &mut Notes<'_>) -> Cors {
    let mut texts = |field: &str, list: &[String], fits: fn(&str) -> bool, what: &str| -> Vec<Arc<str>> {
        let read = |(at, text): (usize, &String)| {
            check(fits(text), text, what, &mut notes.at(format_args!("{field}[{at}]")));
            text.as_str().into()
        };
        list.iter().enumerate().map(read).collect()
    };
    Cors {
        allow_origins: texts("allowOrigins", &cors.allow_origins, is_origin, "origin of a page"),
        allow_credentials: cors.allow_credentials.unwrap_or_default(),
        allow_methods: texts("allowMethods", &cors.allow_methods, is_token, "method"),
        allow_headers: texts("allowHeaders", &cors.allow_headers, is_token, "name of a header field"),
        expose_headers: texts("exposeHeaders", &cors.expose_headers, is_token, "name of a header field"),
        max_age: cors.max_age.and_then(|age| u32::try_from(age).ok()).unwrap_or(CORS_MAX_AGE),
    }
}
