//! A client that speaks HTTP/1.1 to the application that speaks HTTP/2: one call after the other.

use crate::{
    caller::{Outcome, end, judge},
    calls::{Call, Flow},
    frames::{Cut, path_of},
    plan::{Framing, Path},
    wire::{Broken, Input, announce, frame, write},
    world::World,
};
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderName, HeaderValue};
use proxy_transport::Stream;
use std::{pin::pin, rc::Rc};
use tokio::time::sleep;

/// Makes all calls of a connection.
pub async fn call(world: &World, path: Path, stream: Stream, calls: &[Rc<Call>]) {
    let mut input = Input::new(&stream);
    let mut calls = calls.iter();
    for call in calls.by_ref() {
        sleep(call.after).await;
        let receive = receive(world, path, call, &mut input);
        let outcome = match select(pin!(receive), pin!(send(&stream, call))).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(((), receive)) => receive.await,
        };
        world.ended(call);
        let (outcome, stays) = outcome.unwrap_or_else(|cut| (Outcome::Cut(cut), false));
        judge(world, path, call, true, outcome);
        if !stays {
            break;
        }
    }
    for call in calls {
        world.ended(call);
        if world.mild {
            world.wrong(format!("{path:?}: call {} could not be made any more", call.id));
        }
    }
}

/// Errors show in the reply.
async fn send(stream: &Stream, call: &Call) {
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: shop\r\nX-Request: {}\r\nAccept: b\r\nAccept: a\r\nCookie: a=1; b=2\r\n\
        TE: trailers\r\nConnection: TE\r\nWeft-Http: 1.0\r\n",
        call.method,
        path_of(call),
        call.id
    )
    .into_bytes();
    let framing = framing(&call.up);
    announce(&mut text, framing, &call.up.body);
    text.extend_from_slice(b"\r\n");
    frame(&mut text, framing, &call.up.body, call.id);
    let _ = write(stream, text).await;
}

fn framing(flow: &Flow) -> Framing {
    match flow.exists {
        false => Framing::None,
        true if flow.length => Framing::Length,
        true => Framing::Chunked { chunk: flow.piece, trailers: flow.trailers },
    }
}

/// The reply, and whether another call may follow.
async fn receive(
    world: &World,
    path: Path,
    call: &Call,
    input: &mut Input<'_>,
) -> Result<(Outcome, bool), Cut> {
    let mut interim = 0;
    let head = loop {
        let head = input.head().await?.ok_or(Cut::Connection)?;
        if !head.line.starts_with("HTTP/1.1 1") {
            break head;
        }
        interim += usize::from(head.line.starts_with("HTTP/1.1 103 "));
    };
    let nonsense = |what: &str| Err(Cut::Nonsense(format!("{what}: {head:?}")));
    let stays = !head.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if head.fields.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("weft-")) {
        return nonsense("a field of the wire");
    }
    let status = head.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    if head.field("x-response").is_none() {
        if head.field("proxy-status").is_none() && path != Path::Outside {
            return nonsense("nobody's answer");
        }
        let Some(crate::wire::Length::Fixed(length)) = head.length()? else { return nonsense("no length") };
        if call.method != "HEAD" {
            input.skip(length).await?;
        }
        return Ok((Outcome::Failed(status), stays));
    }
    let cookies: Vec<_> =
        head.fields.iter().filter(|(name, _)| name == "set-cookie").map(|(_, v)| v.as_str()).collect();
    if status != call.reply.status
        || head.field("x-response") != Some(&call.id.to_string())
        || cookies != ["b=1", "a=2"]
    {
        return nonsense("another reply");
    }
    if interim != call.reply.interim && call.reply.refusals == 0 && world.mild && world.executions(call) == 1
    {
        return nonsense("interim responses");
    }
    if !call.reply.down.exists {
        return Ok((Outcome::Whole, stays));
    }
    let Some(length) = head.length()? else { return nonsense("no length") };
    let mut found = HeaderMap::new();
    for (name, value) in input.body(length, call.reply.down.body.bytes()).await? {
        let name = HeaderName::try_from(name).map_err(|_| Broken::Nonsense("a trailer's name".to_owned()))?;
        found.append(name, HeaderValue::try_from(value).expect("a value"));
    }
    Ok((end(call, 0, &found)?, stays))
}
