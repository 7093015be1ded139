//! Answers that a rule gives by itself: redirects, direct responses, preflights, and refusals. No backend hears of these requests.

use super::{Client, Ended, Exchange, Http2, Stage, Stopped, Worker, edit, http1};
use crate::{
    respond::Answer,
    routed::{Own, Routed},
    telemetry::Direction,
};
use policy::{Cors, Redirect};
use proxy_http::{exchange::Answered, failed::Failed};
use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
};
use tower::service_fn;

/// Answers what the rule answers itself, and makes of all else what the rule wants to be sent.
pub(super) fn answer_by_rule<S>(worker: Rc<Worker>, direction: Direction, inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |mut exchange: Box<Exchange>| {
        let (worker, mut inner) = (worker.clone(), inner.clone());
        async move {
            let Some(answer) = answer(&exchange) else {
                edit::request(&worker, &exchange.routed, &mut exchange.client);
                return inner.call(exchange).await;
            };
            let (service, elapsed) = (exchange.routed.service.as_deref(), exchange.begun.elapsed());
            let (reason, status) = match &answer {
                Ok(answer) => (None, answer.status),
                Err(failed) => (Some(failed.reason), failed.status()),
            };
            worker.telemetry.unsent(direction, service, reason, status, elapsed);
            match answer {
                // Boxed: few requests are answered so.
                Ok(answer) => Box::pin(give(worker, exchange, answer)).await,
                Err(failed) => Err((exchange, failed)),
            }
        }
    })
}

/// What is said without asking a backend, or why nobody is asked.
fn answer(exchange: &Exchange) -> Option<Result<Answer, Failed>> {
    let Exchange { routed, client, .. } = exchange;
    let answer = match routed.own()? {
        Own::Refuse(failed) => return Some(Err(failed.clone())),
        // What a page of another origin may do is all that a preflight asks.
        Own::Preflight(cors) => return Some(Ok(preflight(cors, client))),
        Own::Redirect(redirect) => redirected(redirect, routed, client),
        Own::Respond(response) => {
            let text =
                (!response.body.is_empty()).then(|| ("Content-Type", "text/plain; charset=utf-8".to_owned()));
            Answer::own(response.status, text.into_iter().collect(), response.body.to_string())
        }
    };
    Some(Ok(match edit::of_response(routed, client, None) {
        Some(edit) => answer.edited(edit),
        None => answer,
    }))
}

async fn give(worker: Rc<Worker>, mut exchange: Box<Exchange>, answer: Answer) -> Result<Ended, Stopped> {
    let given = match &mut exchange.client {
        Client::Http1(client) => http1::tell(&worker, client, &answer).await,
        Client::Http2(client) => tell_http2(client, &answer),
    };
    match given {
        Some(answered) => Ok((exchange, answered)),
        None => Err((exchange, Failed::client_gone())),
    }
}

fn tell_http2(client: &mut Http2, answer: &Answer) -> Option<Answered> {
    let (response, body) = answer.to_stream();
    let ended = client.request.method == http::Method::HEAD || body.is_empty();
    let mut send = client.respond.send_response(response, ended).ok()?;
    if !ended {
        send.send_data(body, true).ok()?;
    }
    Some(Answered { status: answer.status, ..Answered::default() })
}

/// HTTPRequestRedirectFilter.
fn redirected(redirect: &Redirect, routed: &Routed, client: &Client) -> Answer {
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    let authority = String::from_utf8_lossy(client.authority());
    let dialled = routed.dialled();
    // A client of HTTP/1.0 need not say whom it asks.
    let own = match host_of(&authority) {
        "" => dialled.map(host_at).unwrap_or_default(),
        host => host.to_owned(),
    };
    let host = redirect.hostname.as_deref().unwrap_or(&own);
    // Of a scheme that was asked for its own port; else that of the destination.
    let port =
        redirect.port.or_else(|| dialled.filter(|_| redirect.scheme.is_none()).map(|address| address.port()));
    let port = port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
    let target = client.path();
    let (path, query) = policy::path::split(&target);
    // `OPTIONS *` has none.
    let path = if path.starts_with(b"/") { path } else { b"/" };
    let path = match &redirect.path {
        Some(edit) => edit.apply(path, routed.prefix()),
        None => String::from_utf8_lossy(path).into_owned(),
    };
    let mut location = format!("{scheme}://{host}");
    if let Some(port) = port {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(&path);
    if let Some(query) = query {
        location.push('?');
        location.push_str(&String::from_utf8_lossy(query));
    }
    Answer::own(redirect.status, vec![("Location", location)], String::new())
}

/// The host of an authority, without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// An address as the host of a URL.
fn host_at(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The answer to a preflight (Fetch standard, CORS-preflight): what the page's script may send, if it may anything.
fn preflight(cors: &Cors, client: &Client) -> Answer {
    let text = |name: &str| client.values(name).map(|value| String::from_utf8_lossy(&value).into_owned());
    let mut fields = Vec::new();
    if let Some(origin) = text("origin").filter(|origin| cors.allows_origin(origin)) {
        fields = edit::cors_fields(cors, &origin);
        // With credentials `*` means nothing to a browser: it is told what it asked for.
        let list = |allowed: &[std::sync::Arc<str>], asked: Option<String>| match allowed
            .iter()
            .any(|one| **one == *"*")
        {
            true if cors.allow_credentials => asked.unwrap_or_default(),
            true => "*".to_owned(),
            false => allowed.join(", "),
        };
        let methods = list(&cors.allow_methods, text("access-control-request-method"));
        let headers = list(&cors.allow_headers, text("access-control-request-headers"));
        for (name, value) in
            [("Access-Control-Allow-Methods", methods), ("Access-Control-Allow-Headers", headers)]
        {
            if !value.is_empty() {
                fields.push((name, value));
            }
        }
        fields.push(("Access-Control-Max-Age", cors.max_age.to_string()));
    }
    Answer::own(204, fields, String::new())
}
