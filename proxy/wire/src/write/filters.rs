//! Filters of rules and backends.

use crate::v1;
use policy::{BackendRef, Cors, Filter, HeaderEdit, Mirror, PathEdit, Redirect, Rewrite, Share};
use std::sync::Arc;

pub(super) fn filters(filters: &[Filter]) -> Vec<v1::Filter> {
    filters.iter().map(|one| v1::Filter { kind: Some(kind(one)) }).collect()
}

fn kind(filter: &Filter) -> v1::filter::Kind {
    use v1::filter::Kind;
    match filter {
        Filter::RequestHeaders(edit) => Kind::RequestHeaders(header_edit(edit)),
        Filter::ResponseHeaders(edit) => Kind::ResponseHeaders(header_edit(edit)),
        Filter::Redirect(one) => Kind::Redirect(redirect(one)),
        Filter::Rewrite(one) => Kind::Rewrite(rewrite(one)),
        Filter::Mirror(one) => Kind::Mirror(mirror(one)),
        Filter::Cors(one) => Kind::Cors(cors(one)),
    }
}

fn header_edit(edit: &HeaderEdit) -> v1::HeaderEdit {
    let headers = |headers: &[(Arc<str>, Arc<str>)]| {
        let one = |(name, value): &(Arc<str>, Arc<str>)| v1::Header {
            name: name.to_string(),
            value: value.to_string(),
        };
        headers.iter().map(one).collect()
    };
    v1::HeaderEdit { set: headers(&edit.set), add: headers(&edit.add), remove: texts(&edit.remove) }
}

fn redirect(redirect: &Redirect) -> v1::Redirect {
    v1::Redirect {
        scheme: redirect.scheme.as_deref().unwrap_or_default().into(),
        hostname: redirect.hostname.as_deref().unwrap_or_default().into(),
        port: redirect.port.unwrap_or_default().into(),
        path: redirect.path.as_ref().map(path_edit),
        status: redirect.status.into(),
    }
}

fn rewrite(rewrite: &Rewrite) -> v1::Rewrite {
    v1::Rewrite {
        hostname: rewrite.hostname.as_deref().unwrap_or_default().into(),
        path: rewrite.path.as_ref().map(path_edit),
    }
}

fn path_edit(edit: &PathEdit) -> v1::PathEdit {
    use v1::path_edit::Kind;
    let kind = match edit {
        PathEdit::Full(path) => Kind::Full(path.as_ref().into()),
        PathEdit::Prefix(prefix) => Kind::Prefix(prefix.as_ref().into()),
    };
    v1::PathEdit { kind: Some(kind) }
}

fn mirror(mirror: &Mirror) -> v1::Mirror {
    use v1::mirror::Backend;
    v1::Mirror {
        backend: Some(match &mirror.backend {
            BackendRef::Service(service) => Backend::Service(service.into()),
            BackendRef::Unresolved(why) => Backend::Unresolved(why.as_ref().into()),
        }),
        share: Some(share(mirror.share)),
    }
}

pub(super) fn share(Share { numerator, denominator }: Share) -> v1::Share {
    v1::Share { numerator, denominator }
}

fn cors(cors: &Cors) -> v1::Cors {
    v1::Cors {
        allow_origins: texts(&cors.allow_origins),
        allow_credentials: cors.allow_credentials,
        allow_methods: texts(&cors.allow_methods),
        allow_headers: texts(&cors.allow_headers),
        expose_headers: texts(&cors.expose_headers),
        max_age: cors.max_age,
    }
}

fn texts(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
