//! What a rule changes in the heads that pass: fields, host and path of requests, fields of responses.

use super::mirror;
use crate::{hop::Hop, routed::Routed, worker::Worker};
use http::{HeaderMap, HeaderName, HeaderValue, header::HOST};
use policy::{Cors, Filter, HeaderEdit};
use proxy_http::{client::Client, head::is_fixed};
use std::{rc::Rc, sync::Arc};

/// Changes the request as its rule and its backend say, in their order, and lets others see what it is by then. A request without
/// such filters is not copied.
pub(super) fn request(worker: &Rc<Worker>, routed: &Routed, client: &mut Client) {
    let concerns = |filter: &Filter| {
        matches!(filter, Filter::RequestHeaders(_) | Filter::Rewrite(_) | Filter::Mirror(_))
    };
    if !routed.filters().any(concerns) {
        return;
    }
    let path = policy::path::split(&client.path()).0.to_vec();
    for filter in routed.filters() {
        match filter {
            Filter::RequestHeaders(edit) => {
                let edited = client.edit();
                if let Some(host) = host_of(edit) {
                    edited.set_authority(host);
                }
                apply(edit, edited.fields());
            }
            Filter::Rewrite(rewrite) => {
                let edited = client.edit();
                if let Some(host) = &rewrite.hostname {
                    edited.set_authority(host);
                }
                // `OPTIONS *` and CONNECT have no path.
                if let Some(edit) = rewrite.path.as_ref().filter(|_| path.starts_with(b"/")) {
                    edited.set_path(&edit.apply(&path, routed.prefix()));
                }
            }
            Filter::Mirror(mirror) => mirror::begin(worker, mirror, routed, client),
            Filter::ResponseHeaders(_) | Filter::Redirect(_) | Filter::Cors(_) => {}
        }
    }
}

/// Changes the fields of a response. Boxed, as few requests have one, and each would have room for it.
pub(super) type Edit<'a> = Box<dyn Fn(&mut HeaderMap) + 'a>;

/// What is to be changed in the response to a client; `None`: nothing. `hop`: who answers, unless it is the proxy.
pub(super) fn of_response<'a>(routed: &'a Routed, client: &Client, hop: Option<&Hop>) -> Option<Edit<'a>> {
    let edits = routed.filters().any(|filter| matches!(filter, Filter::ResponseHeaders(_) | Filter::Cors(_)));
    let session = hop.and_then(|hop| routed.session_field(hop));
    if !edits && session.is_none() {
        return None;
    }
    let origin = client.values("origin").map(|value| String::from_utf8_lossy(&value).into_owned());
    Some(Box::new(move |fields: &mut HeaderMap| {
        for filter in routed.filters() {
            match filter {
                Filter::ResponseHeaders(edit) => apply(edit, fields),
                Filter::Cors(cors) => allow(cors, origin.as_deref(), fields),
                _ => {}
            }
        }
        if let Some((name, value)) = &session {
            fields.append(name, value.clone());
        }
    }))
}

/// The fields by which a page of this origin, which is allowed, is told so.
pub(super) fn cors_fields(cors: &Cors, origin: &str) -> Vec<(&'static str, String)> {
    let any = cors.allow_origins.iter().any(|one| **one == *"*") && !cors.allow_credentials;
    let mut fields =
        vec![("Access-Control-Allow-Origin", if any { "*".to_owned() } else { origin.to_owned() })];
    if !any {
        fields.push(("Vary", "Origin".to_owned()));
    }
    if cors.allow_credentials {
        fields.push(("Access-Control-Allow-Credentials", "true".to_owned()));
    }
    fields
}

/// What a response says to a page of another origin is the rule's to say, whatever the application does.
fn allow(cors: &Cors, origin: Option<&str>, fields: &mut HeaderMap) {
    let Some(origin) = origin else { return };
    let said: Vec<HeaderName> =
        fields.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    said.iter().for_each(|name| drop(fields.remove(name)));
    if !cors.allows_origin(origin) {
        return;
    }
    let mut told = cors_fields(cors, origin);
    // With credentials `*` means nothing to a browser, and nothing says which fields there will be.
    let exposed = cors.expose_headers.iter().filter(|name| !cors.allow_credentials || ***name != *"*");
    let exposed: Vec<&str> = exposed.map(|name| &**name).collect();
    if !exposed.is_empty() {
        told.push(("Access-Control-Expose-Headers", exposed.join(", ")));
    }
    for (name, value) in told {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name of ours");
        if let Ok(value) = HeaderValue::from_str(&value) {
            fields.append(name, value);
        }
    }
}

/// HTTPHeaderFilter: set, add, remove. What frames a message nobody edits, and Host is set where it stands.
fn apply(edit: &HeaderEdit, fields: &mut HeaderMap) {
    let named = |name: &Arc<str>| {
        HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !is_fixed(name) && name != HOST)
    };
    for (name, value) in &edit.set {
        if let (Some(name), Ok(value)) = (named(name), HeaderValue::from_str(value)) {
            fields.insert(name, value);
        }
    }
    for (name, value) in &edit.add {
        if let (Some(name), Ok(value)) = (named(name), HeaderValue::from_str(value)) {
            fields.append(name, value);
        }
    }
    for name in edit.remove.iter().filter_map(named) {
        fields.remove(name);
    }
}

fn host_of(edit: &HeaderEdit) -> Option<&str> {
    edit.set.iter().find(|(name, _)| **name == *"host").map(|(_, value)| &**value)
}
