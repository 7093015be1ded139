//! Answers that a rule gives by itself: redirects, direct responses, preflights, and refusals. No backend hears of these requests.

use super::{Client, Exchange, Stage, Worker, edit, http1};
use crate::{
    respond::Answer,
    routed::{Own, Routed},
    telemetry::Direction,
};
use policy::{Cors, Redirect};
use proxy_http::{exchange::Answered, failed::Failed};
use std::rc::Rc;
use tower::service_fn;

/// Answers what the rule answers itself, and makes of all else what the rule wants to be sent.
pub(super) fn answer_by_rule<S>(worker: Rc<Worker>, direction: Direction, inner: S) -> impl Stage
where
    S: Stage,
{
    service_fn(move |mut exchange: Box<Exchange>| {
        let (worker, mut inner) = (worker.clone(), inner.clone());
        async move {
            let Some(own) = exchange.routed.own() else {
                edit::request(&exchange.routed, &mut exchange.client);
                return inner.call(exchange).await;
            };
            let answer = match own {
                Own::Refuse(failed) => {
                    let failed = failed.clone();
                    let (service, elapsed) = (exchange.routed.service.as_deref(), exchange.begun.elapsed());
                    worker.telemetry.unsent(
                        direction,
                        service,
                        Some(failed.reason),
                        failed.status(),
                        elapsed,
                    );
                    return Err((exchange, failed));
                }
                Own::Redirect(redirect) => redirected(redirect, &exchange.routed, &exchange.client),
                Own::Preflight(cors) => preflight(cors, &exchange.client),
                Own::Respond(response) => {
                    let text = vec![("Content-Type", "text/plain; charset=utf-8".to_owned())];
                    Answer::own(response.status, text, response.body.to_string())
                }
            };
            let (service, elapsed) = (exchange.routed.service.as_deref(), exchange.begun.elapsed());
            worker.telemetry.unsent(direction, service, None, answer.status, elapsed);
            match give(&worker, &mut exchange, &answer).await {
                Some(answered) => Ok((exchange, answered)),
                None => Err((exchange, Failed::client_gone())),
            }
        }
    })
}

async fn give(worker: &Worker, exchange: &mut Exchange, answer: &Answer) -> Option<Answered> {
    match &mut exchange.client {
        Client::Http1(client) => http1::tell(worker, client, answer).await,
        Client::Http2(client) => {
            let (response, body) = answer.to_stream();
            let head = client.request.method == http::Method::HEAD;
            let ended = head || body.is_empty();
            let mut send = client.respond.send_response(response, ended).ok()?;
            if !ended {
                send.send_data(body, true).ok()?;
            }
            Some(Answered { status: answer.status, ..Answered::default() })
        }
    }
}

/// HTTPRequestRedirectFilter.
fn redirected(redirect: &Redirect, routed: &Routed, client: &Client) -> Answer {
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    let authority = String::from_utf8_lossy(client.authority());
    let own = host_of(&authority);
    let host = redirect.hostname.as_deref().unwrap_or(own);
    // Of a scheme that was asked for its own port; else that of the destination.
    let port = redirect.port.or_else(|| if redirect.scheme.is_some() { None } else { routed.port() });
    let port = port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
    let target = client.path();
    let (path, query) = policy::path::split(&target);
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
