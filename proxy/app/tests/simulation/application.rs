//! The applications: they answer what is planned, and hold what arrives against it.

use crate::{
    plan::{Framing, Kind, Request},
    wire::{Broken, End, Head, Input, Length, announce, converse, frame, write},
    world::World,
};
use bytes::Bytes;
use proxy_transport::Stream;
use std::rc::Rc;

/// What a TLS handshake begins with, and nothing that is planned. One that came too late or not whole reaches the application
/// as any bytes would; the proxy that sent it has given it up.
const HANDSHAKE: u8 = 0x16;

/// The far end of a connection of bytes.
pub async fn serve_bytes(world: Rc<World>, number: usize, stream: Stream) {
    let Kind::Tcp(tcp) = &world.plan.conversations[number].kind else {
        unreachable!("it has a port of its own")
    };
    let mut input = Input::new(&stream);
    let heard = converse(&mut input, &tcp.down, &tcp.up).await;
    if input.first() == Some(HANDSHAKE) {
        return;
    }
    let what = format!("the server of connection {number}");
    let whole = heard.bytes == tcp.up.body.len;
    match &heard.end {
        End::Nonsense(why) => world.wrong(format!("{what}: {why}")),
        // Made while it was not known yet what the client speaks, and not needed. `World::judge` wants another one.
        End::Ended if heard.bytes == 0 && tcp.up.body.len > 0 => return,
        End::Reset if heard.bytes == 0 => return,
        End::Ended if !whole || tcp.up.reset => {
            world.wrong(format!("{what}: {heard:?} ends as if it were whole"))
        }
        End::Reset if world.mild && !tcp.up.reset => world.wrong(format!("{what}: {heard:?}")),
        _ => {}
    }
    if heard.bytes > 0 || whole {
        world.heard(number, heard.bytes);
    }
}

/// An HTTP/1.1 server.
pub async fn serve_http(world: Rc<World>, stream: Stream) {
    let mut input = Input::new(&stream);
    loop {
        match serve_one(&world, &stream, &mut input).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(Broken::Nonsense(why)) => {
                world.wrong(format!("at the application: {why}"));
                break;
            }
            Err(_) => break,
        }
    }
}

/// One request and its answer; true when another may follow.
async fn serve_one(world: &World, stream: &Stream, input: &mut Input<'_>) -> Result<bool, Broken> {
    let head = match input.head().await {
        Ok(Some(head)) => head,
        Err(Broken::Nonsense(_)) if input.first() == Some(HANDSHAKE) => return Ok(false),
        other => return other.map(|_| false),
    };
    let request = judge(world, &head)?;
    world.seen(request.id);
    let upgrade = request.upgrade.as_ref();
    if let Some(Some(tcp)) = upgrade {
        answer(stream, &request, &answer_head(&request)).await?;
        let heard = converse(input, &tcp.down, &tcp.up).await;
        let whole = heard.bytes == tcp.up.body.len;
        match heard.end {
            End::Nonsense(why) => world.wrong(format!("in the tunnel of request {}: {why}", request.id)),
            End::Ended if !whole || tcp.up.reset => {
                world.wrong(format!("the tunnel of request {} ends as if it were whole", request.id));
            }
            End::Reset if world.mild && !tcp.up.reset => {
                world.wrong(format!("the tunnel of request {} was reset", request.id));
            }
            _ => {}
        }
        return Ok(false);
    }
    if request.response.early {
        respond(stream, &request).await?;
        if request.response.close {
            // What still comes is not wanted (RFC 9112 §9.6).
            stream.shutdown_write();
            input.drain().await?;
            return Ok(false);
        }
    }
    if request.expects && head.field("expect").is_some() {
        answer(stream, &request, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let trailers = match head.length()? {
        None => input.body(Length::Fixed(0), request.body.bytes()).await?,
        Some(length) => input.body(length, request.body.bytes()).await?,
    };
    let expected = matches!(request.framing, Framing::Chunked { trailers: true, .. });
    if (trailers.len() == 1) != expected || request.abort.is_some() || request.garbled {
        return Err(Broken::Nonsense(format!("a whole request with trailers {trailers:?}: {request:?}")));
    }
    world.done(request.id);
    if !request.response.early {
        respond(stream, &request).await?;
    }
    let closes = request.response.close || request.old || request.response.sulk;
    Ok(!closes)
}

/// Finds the plan of a request, and looks whether it is what the client sent.
fn judge(world: &World, head: &Head) -> Result<Rc<Request>, Broken> {
    let wrong = |what: &str| Err(Broken::Nonsense(format!("{what}: {head:?}")));
    let Some(request) =
        head.fields.iter().find(|(name, _)| name == "x-REQuest").and_then(|(_, id)| world.request(id))
    else {
        return wrong("a request that nobody sent");
    };
    let target =
        if request.method == "CONNECT" { "shop:1".to_owned() } else { format!("/{}?a=%20b", request.id) };
    let version = if request.old { "HTTP/1.0" } else { "HTTP/1.1" };
    if head.line != format!("{} {target} {version}", request.method) {
        return wrong("another request line");
    }
    let accepted: Vec<_> =
        head.fields.iter().filter(|(name, _)| name == "Accept").map(|(_, value)| value).collect();
    if accepted != ["b", "a"] || head.field("host") != Some("shop") {
        return wrong("other fields");
    }
    if head.fields.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("weft-")) {
        return wrong("a field of the wire");
    }
    Ok(request)
}

async fn respond(stream: &Stream, request: &Request) -> Result<(), Broken> {
    let response = &request.response;
    let mut message = Vec::new();
    for _ in 0..response.interim {
        message.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    }
    message.extend_from_slice(&answer_head(request));
    if request.method != "HEAD" && !matches!(response.status, 204 | 304) {
        frame(&mut message, response.framing, &response.body, request.id);
    }
    answer(stream, request, &message).await
}

fn answer_head(request: &Request) -> Vec<u8> {
    let response = &request.response;
    let line = match &request.upgrade {
        Some(Some(_)) if request.method == "CONNECT" => "200 OK".to_owned(),
        Some(Some(_)) => "101 Switching Protocols".to_owned(),
        _ => format!("{} As Planned", response.status),
    };
    let mut text =
        format!("HTTP/1.1 {line}\r\nx-ReSPonse: {}\r\nSet-Cookie: b=1\r\n", request.id).into_bytes();
    match &request.upgrade {
        Some(Some(_)) if request.method != "CONNECT" => {
            text.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: other\r\n");
        }
        Some(Some(_)) => {}
        _ => {
            if response.close {
                text.extend_from_slice(b"Connection: close\r\n");
            }
            announce(&mut text, response.framing, &response.body);
        }
    }
    text.extend_from_slice(b"Set-Cookie: a=2\r\nWeft-Upgrade: x\r\n\r\n");
    text
}

/// Writes, unless the application is to fail before the end of it.
async fn answer(stream: &Stream, request: &Request, message: &[u8]) -> Result<(), Broken> {
    let message = Bytes::copy_from_slice(message);
    match request.response.crash {
        Some((after, reset)) if after < message.len() => {
            let _ = write(stream, message.slice(..after)).await;
            if reset {
                stream.reset_on_drop();
            }
            Err(Broken::Ended)
        }
        _ => write(stream, message).await.map_err(|_| Broken::Reset),
    }
}
