//! Calls of gRPC: what their outcome is when a policy has to do with it.

use crate::world::{World, address, ms, set, smooth, without_endpoints};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use policy::{
    BackendSettings, Protocol, Settings,
    filter::Share,
    settings::{Abort, Fault, Retry, Timeouts},
};
use proxy_transport::Stream;
use std::{cell::RefCell, rc::Rc};

/// What a server says to each call: this status at once, or nothing.
pub type Script = Rc<RefCell<Vec<Option<u16>>>>;

/// Serves calls at the only endpoint; what each was told of its time.
pub fn serve(world: &World, script: Script) -> Rc<RefCell<Vec<String>>> {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let mut connections = world.network.listen(address(7));
    world.endpoints(&[address(7)]);
    let came = calls.clone();
    tokio::task::spawn_local(async move {
        while let Some(connection) = connections.recv().await {
            let (script, came) = (script.clone(), came.clone());
            tokio::task::spawn_local(async move {
                let mut connection =
                    h2::server::handshake(Stream::from(connection)).await.expect("a preface");
                let mut held = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let nth = came.borrow().len();
                    let told = request.headers().get("grpc-timeout").map(|value| value.to_str());
                    came.borrow_mut().push(told.unwrap_or(Ok("nothing")).expect("ASCII").to_owned());
                    let status = script.borrow().get(nth).copied().unwrap_or(Some(0));
                    match status {
                        Some(status) => {
                            let response = Response::builder()
                                .header("content-type", "application/grpc")
                                .header("grpc-status", status.to_string());
                            respond
                                .send_response(response.body(()).expect("a response"), true)
                                .expect("a client");
                        }
                        None => held.push(respond),
                    }
                }
            });
        }
    });
    calls
}

/// The status and the message of a call's outcome.
async fn call(world: &World, timeout: Option<&str>) -> (u16, String) {
    let (mut sender, connection) = h2::client::handshake(world.connect()).await.expect("a preface");
    tokio::task::spawn_local(connection);
    let mut request = Request::post("http://web/cart.Cart/Add").header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let (response, mut send) =
        sender.send_request(request.body(()).expect("a request"), false).expect("a stream");
    send.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), true).expect("a stream");
    let response = response.await.expect("an outcome");
    assert_eq!(response.status(), 200);
    let mut fields = response.headers().clone();
    if !fields.contains_key("grpc-status") {
        fields = response.into_body().trailers().await.expect("an end").unwrap_or_else(HeaderMap::new);
    }
    let text = |name| fields.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let status = text("grpc-status").and_then(|status| status.parse().ok()).expect("a status");
    (status, text("grpc-message").unwrap_or_default())
}

fn calls(settings: Settings, script: Vec<Option<u16>>, expected: u16, count: usize) {
    without_endpoints(smooth(), |world| async move {
        world.declare_as(Protocol::Grpc, settings, BackendSettings::default());
        let came = serve(&world, Rc::new(RefCell::new(script)));
        let (status, message) = call(&world, None).await;
        assert_eq!((status, came.borrow().len()), (expected, count), "{message}");
        if expected == 4 || expected == 10 {
            assert!(message.contains("TrafficPolicy shop/mine"), "{message}");
        }
    });
}

#[test]
fn outcomes_that_a_rule_names_are_hidden_from_the_caller() {
    let retry = |codes: &[u16]| Settings {
        retry: Retry { grpc_codes: set(codes.to_vec()), attempts: set(2), ..Retry::default() },
        ..Settings::default()
    };
    calls(retry(&[14]), vec![Some(14), Some(14)], 0, 3);
    calls(retry(&[14]), vec![Some(14), Some(14), Some(14)], 14, 3);
    calls(retry(&[14]), vec![Some(8)], 8, 1);
    calls(retry(&[8, 14]), vec![Some(8), Some(14)], 0, 3);
    calls(Settings::default(), vec![Some(14)], 14, 1);
}

#[test]
fn a_limit_is_a_deadline_that_was_exceeded() {
    let timeouts = Timeouts { request: set(ms(100)), ..Timeouts::default() };
    calls(Settings { timeouts, ..Settings::default() }, vec![None], 4, 1);
}

/// Its caller's, or a policy's that is less, of which each attempt is told what is left.
#[test]
fn the_server_of_a_call_is_told_how_much_time_it_has() {
    let limited = |limit| Settings {
        timeouts: Timeouts { request: set(ms(limit)), ..Timeouts::default() },
        retry: Retry {
            grpc_codes: set(vec![14]),
            backoff_base: set(ms(10)),
            backoff_max: set(ms(10)),
            ..Retry::default()
        },
        ..Settings::default()
    };
    let table = [
        (None, Settings::default(), ["nothing"].as_slice()),
        (Some("50m"), Settings::default(), &["50m"]),
        (Some("50m"), limited(100), &["50m", "40000000n"]),
        (Some("1S"), limited(100), &["100000u", "90000000n"]),
        (None, limited(100), &["100000u", "90000000n"]),
    ];
    for (timeout, settings, told) in table {
        without_endpoints(smooth(), |world| async move {
            world.declare_as(Protocol::Grpc, settings, BackendSettings::default());
            let came = serve(&world, Rc::new(RefCell::new(vec![Some(14), Some(0)])));
            call(&world, timeout).await;
            assert_eq!(*came.borrow(), told, "{timeout:?}");
        });
    }
}

#[test]
fn a_fault_has_the_outcome_that_it_is_given() {
    let fault = Fault { abort: Some((Abort::Grpc(10), Share::ALL)), ..Fault::default() };
    calls(Settings { fault: set(fault), ..Settings::default() }, vec![], 10, 0);
}
