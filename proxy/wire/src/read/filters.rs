//! Filters of rules and backends.

use super::{each, option, routes::service_ref, text, within};
use crate::{Malformed, Problem, v1};
use policy::{BackendRef, Cors, Filter, HeaderEdit, Mirror, PathEdit, Redirect, Rewrite, Share};
use std::sync::Arc;

pub(super) fn filter(message: &v1::Filter) -> Result<Filter, Malformed> {
    use v1::filter::Kind;
    Ok(match message.kind.as_ref() {
        None => return Err(Malformed::new("kind", Problem::Missing)),
        Some(Kind::RequestHeaders(edit)) => {
            Filter::RequestHeaders(within("request_headers", header_edit(edit))?)
        }
        Some(Kind::ResponseHeaders(edit)) => {
            Filter::ResponseHeaders(within("response_headers", header_edit(edit))?)
        }
        Some(Kind::Redirect(one)) => Filter::Redirect(within("redirect", redirect(one))?),
        Some(Kind::Rewrite(one)) => Filter::Rewrite(within("rewrite", rewrite(one))?),
        Some(Kind::Mirror(one)) => Filter::Mirror(within("mirror", mirror(one))?),
        Some(Kind::Cors(one)) => Filter::Cors(within("cors", cors(one))?),
    })
}

fn header_edit(message: &v1::HeaderEdit) -> Result<HeaderEdit, Malformed> {
    let header = |one: &v1::Header| {
        Ok((text::field_name("name", &one.name)?, text::field_value("value", &one.value)?))
    };
    Ok(HeaderEdit {
        set: each("set", &message.set, header)?,
        add: each("add", &message.add, header)?,
        remove: texts("remove", &message.remove, text::field_name)?,
    })
}

fn redirect(message: &v1::Redirect) -> Result<Redirect, Malformed> {
    const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
    let scheme = |text: &str| text::check("scheme", text, matches!(text, "http" | "https"), "http or https");
    let status = u16::try_from(message.status).ok().filter(|status| STATUSES.contains(status));
    let port = match message.port {
        0 => None,
        port => Some(super::port(port)?),
    };
    Ok(Redirect {
        scheme: unless_empty(&message.scheme, scheme)?,
        hostname: unless_empty(&message.hostname, |text| text::hostname("hostname", text))?,
        port,
        path: option("path", message.path.as_ref(), path_edit)?,
        status: status.ok_or_else(|| {
            let what = "one of 301, 302, 303, 307, 308";
            Malformed::new("status", Problem::Not(message.status.to_string(), what))
        })?,
    })
}

fn rewrite(message: &v1::Rewrite) -> Result<Rewrite, Malformed> {
    Ok(Rewrite {
        hostname: unless_empty(&message.hostname, |text| text::hostname("hostname", text))?,
        path: option("path", message.path.as_ref(), path_edit)?,
    })
}

fn path_edit(message: &v1::PathEdit) -> Result<PathEdit, Malformed> {
    use v1::path_edit::Kind;
    Ok(match message.kind.as_ref() {
        None => return Err(Malformed::new("kind", Problem::Missing)),
        Some(Kind::Full(path)) => PathEdit::Full(text::path("full", path)?),
        Some(Kind::Prefix(prefix)) => PathEdit::Prefix(text::prefix("prefix", prefix)?),
    })
}

fn mirror(message: &v1::Mirror) -> Result<Mirror, Malformed> {
    use v1::mirror::Backend;
    let backend = match message.backend.as_ref() {
        None => return Err(Malformed::new("backend", Problem::Missing)),
        Some(Backend::Service(service)) => service_ref(service)?,
        Some(Backend::Unresolved(why)) => BackendRef::Unresolved(why.as_str().into()),
    };
    let to = message.share.as_ref().ok_or_else(|| Malformed::new("share", Problem::Missing))?;
    Ok(Mirror { backend, share: within("share", share(to))? })
}

pub(super) fn share(message: &v1::Share) -> Result<Share, Malformed> {
    let v1::Share { numerator, denominator } = *message;
    if denominator == 0 {
        return Err(Malformed::new("denominator", Problem::Range(0, 1..=u64::MAX)));
    }
    if numerator > denominator {
        return Err(Malformed::new("numerator", Problem::Range(numerator.into(), 0..=denominator.into())));
    }
    Ok(Share { numerator, denominator })
}

fn cors(message: &v1::Cors) -> Result<Cors, Malformed> {
    Ok(Cors {
        allow_origins: texts("allow_origins", &message.allow_origins, text::origin)?,
        allow_credentials: message.allow_credentials,
        allow_methods: texts("allow_methods", &message.allow_methods, text::token)?,
        allow_headers: texts("allow_headers", &message.allow_headers, text::token)?,
        expose_headers: texts("expose_headers", &message.expose_headers, text::token)?,
        max_age: message.max_age,
    })
}

fn texts(
    field: &str,
    texts: &[String],
    read: impl Fn(&str, &str) -> Result<Arc<str>, Malformed>,
) -> Result<Vec<Arc<str>>, Malformed> {
    texts.iter().enumerate().map(|(at, text)| read(&format!("{field}[{at}]"), text)).collect()
}

fn unless_empty<T>(text: &str, read: impl Fn(&str) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
    (!text.is_empty()).then(|| read(text)).transpose()
}
