//! How each reason is forced, and what its client is told.

use crate::{
    authority,
    world::{
        OUTSIDE, OWN, POD, SERVICE, World, answering, at, forged, meshed, service, silent, with_one_stream,
    },
};
use http::{HeaderValue, Method, Request, Uri};
use policy::{
    BackendSettings, Protocol, Reason, Routes, Settings, Target,
    filter::Share,
    limits,
    settings::{Abort, FailureAccrual, Fault, Limits, Origin, Set, Timeouts},
};
use proxy_app::telemetry::Direction::{self, Inbound, Outbound};
use proxy_tls::Credentials;
use std::{io::ErrorKind, time::Duration};

/// One way to a reason.
pub struct Row {
    pub name: &'static str,
    pub reason: Reason,
    /// Whose proxy gives it.
    pub by: Direction,
    /// The proxy that the client's connection enters.
    pub through: Direction,
    /// The address that it dials.
    pub to: &'static str,
    pub says: Says,
    /// The outbound proxy's.
    pub credentials: fn() -> Credentials,
    /// Makes the world so.
    pub force: fn(&World),
    pub told: Told,
}

/// What the client says.
pub enum Says {
    Bytes(&'static [u8]),
    /// One request of HTTP/2 without a body.
    Http2(fn() -> Request<()>),
}

/// What the client is told.
#[derive(Debug)]
pub enum Told {
    /// This status, and the reason in `Proxy-Status`.
    Status(u16),
    /// This outcome of a gRPC call, and the reason in `Proxy-Status`.
    Grpc(u16),
    /// Bytes have no words for it.
    Reset,
}

const GET: Says = Says::Bytes(GET_BYTES);
const GET_BYTES: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";

/// What most rows have: a request to the Service that reaches its application.
const USUAL: Row = Row {
    name: "",
    reason: Reason::ConnectionRefused,
    by: Outbound,
    through: Outbound,
    to: SERVICE,
    says: GET,
    credentials: || authority::credentials().0,
    force: |_| {},
    told: Told::Status(502),
};

/// A call that its caller waits for as long as it takes.
const CALL: Says = Says::Http2(call);

fn call() -> Request<()> {
    let request = Request::post("http://shop/cart.Cart/Add").header("content-type", "application/grpc");
    request.body(()).expect("a request")
}

fn hurried_call() -> Request<()> {
    let mut request = call();
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("1S"));
    request
}

fn websocket() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::from_static("http://shop/chat");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request
}

/// What a policy sets.
fn set<T>(value: T) -> Option<Set<T>> {
    Some(Set::new(value, &Origin::new("TrafficPolicy", "shop", "mine")))
}

fn leads_nowhere() -> policy::Rule {
    let route = policy::RouteRef {
        created: 0,
        namespace: "shop".into(),
        name: "mine".into(),
        kind: "HTTPRoute".into(),
    };
    policy::Rule {
        source: policy::RuleRef { route, index: 0, name: None },
        filters: Vec::new(),
        backends: Vec::new(),
        settings: Settings::default(),
    }
}

pub const ROWS: &[Row] = &[
    Row {
        name: "no rule is for the request",
        reason: Reason::DestinationNotFound,
        force: |world| world.route(Routes::Http(policy::RuleTable::default())),
        told: Told::Status(404),
        ..USUAL
    },
    Row {
        name: "the rule for the request leads nowhere",
        reason: Reason::ProxyConfigurationError,
        force: |world| world.route(Routes::Http(policy::RuleTable::new([(Vec::new(), leads_nowhere())]))),
        told: Told::Status(500),
        ..USUAL
    },
    Row {
        name: "the only endpoint has failed too often",
        reason: Reason::CircuitOpen,
        force: |world| {
            world.application("HTTP/1.1 500 Mine\r\nContent-Length: 0\r\n\r\n");
            let accrual = FailureAccrual {
                max_failures: 1,
                min_penalty: Duration::from_secs(10),
                ..FailureAccrual::default()
            };
            let backend = BackendSettings { accrual: set(accrual), ..BackendSettings::default() };
            world.govern(Settings::default(), backend);
            world.busy(1, GET_BYTES);
        },
        told: Told::Status(503),
        ..USUAL
    },
    Row {
        name: "there are as many requests as may be",
        reason: Reason::RequestLimitReached,
        force: |world| {
            let limits = Limits { max_requests: set(0), ..Limits::default() };
            world.govern(Settings::default(), BackendSettings { limits, ..BackendSettings::default() });
        },
        told: Told::Status(503),
        ..USUAL
    },
    Row {
        name: "a fault on purpose",
        reason: Reason::FaultInjected,
        force: |world| {
            let fault = Fault { abort: Some((Abort::Http(500), Share::ALL)), ..Fault::default() };
            world.govern(Settings { fault: set(fault), ..Settings::default() }, BackendSettings::default());
        },
        told: Told::Status(500),
        ..USUAL
    },
    Row {
        name: "a fault on purpose, for a gRPC call",
        reason: Reason::FaultInjected,
        says: CALL,
        force: |world| {
            let fault = Fault { abort: Some((Abort::Grpc(8), Share::ALL)), ..Fault::default() };
            world.govern(Settings { fault: set(fault), ..Settings::default() }, BackendSettings::default());
        },
        told: Told::Grpc(8),
        ..USUAL
    },
    Row {
        name: "a request's body does not come",
        reason: Reason::ConnectionReadTimeout,
        to: OUTSIDE,
        says: Says::Bytes(b"POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nab"),
        force: |world| {
            world.at(OUTSIDE, silent);
            let timeouts = Timeouts { stream_idle: set(Duration::from_secs(1)), ..Timeouts::default() };
            let settings = Settings { timeouts, ..Settings::default() };
            world
                .outbound
                .script
                .outbound(at(OUTSIDE), policy::Outbound { settings, ..policy::Outbound::external() });
        },
        told: Told::Status(504),
        ..USUAL
    },
    Row { name: "nobody listens outside", to: OUTSIDE, ..USUAL },
    Row { name: "no application listens", by: Inbound, ..USUAL },
    Row {
        name: "nobody listens, for bytes",
        to: OUTSIDE,
        force: |world| world.declare(OUTSIDE, Target::External, Protocol::Opaque),
        told: Told::Reset,
        ..USUAL
    },
    Row {
        name: "no application listens, for bytes",
        by: Inbound,
        force: |world| world.declare(SERVICE, Target::Service(service()), Protocol::Opaque),
        told: Told::Reset,
        ..USUAL
    },
    Row {
        name: "a connection is not accepted in time",
        reason: Reason::ConnectionTimeout,
        to: OUTSIDE,
        force: |world| world.outbound.network.fail(at(OUTSIDE), ErrorKind::TimedOut),
        told: Told::Status(504),
        ..USUAL
    },
    Row {
        name: "a peer does not shake hands in time",
        reason: Reason::ConnectionTimeout,
        force: |world| world.at(POD, silent),
        told: Told::Status(504),
        ..USUAL
    },
    Row {
        name: "the application closes without an answer",
        reason: Reason::ConnectionTerminated,
        by: Inbound,
        force: |world| world.application(""),
        ..USUAL
    },
    Row {
        name: "too many wait for a stream to a peer",
        reason: Reason::ConnectionLimitReached,
        force: |world| {
            world.at(POD, with_one_stream);
            world.busy((limits::CONNECTIONS_PER_PEER + limits::PENDING_STREAMS) as u32, GET_BYTES);
        },
        told: Told::Status(503),
        ..USUAL
    },
    Row {
        name: "a proxy has as many streams as it may",
        reason: Reason::ConnectionLimitReached,
        by: Inbound,
        force: |world| {
            world.declare(SERVICE, Target::Service(service()), Protocol::Opaque);
            let counted = || world.inbound.worker.count(Inbound);
            world.crowd.borrow_mut().extend(std::iter::from_fn(counted).take(limits::CONNECTIONS));
        },
        told: Told::Reset,
        ..USUAL
    },
    Row {
        name: "a Service without endpoints",
        reason: Reason::DestinationUnavailable,
        force: |world| world.endpoints(Vec::new()),
        told: Told::Status(503),
        ..USUAL
    },
    Row {
        name: "a Service without endpoints, for bytes",
        reason: Reason::DestinationUnavailable,
        force: |world| {
            world.declare(SERVICE, Target::Service(service()), Protocol::Opaque);
            world.endpoints(Vec::new());
        },
        told: Told::Reset,
        ..USUAL
    },
    Row {
        name: "no route",
        reason: Reason::DestinationIpUnroutable,
        to: OUTSIDE,
        force: |world| world.outbound.network.fail(at(OUTSIDE), ErrorKind::NetworkUnreachable),
        ..USUAL
    },
    Row {
        name: "what answers the ClientHello speaks no TLS",
        reason: Reason::TlsProtocolError,
        force: |world| world.at(POD, answering("HTTP/1.1 400 Bad Request\r\n\r\n")),
        ..USUAL
    },
    Row {
        name: "the peer is another one",
        reason: Reason::TlsCertificateError,
        force: |world| world.endpoints(vec![meshed(authority::CLIENT)]),
        ..USUAL
    },
    Row {
        name: "the peer does not believe us",
        reason: Reason::TlsAlertReceived,
        credentials: forged,
        ..USUAL
    },
    Row {
        name: "a request without Host",
        reason: Reason::HttpRequestError,
        says: Says::Bytes(b"GET / HTTP/1.1\r\n\r\n"),
        told: Told::Status(400),
        ..USUAL
    },
    Row {
        name: "a request line that is too long",
        reason: Reason::HttpRequestError,
        says: Says::Bytes(&{
            let mut line = [b'a'; limits::HEADER_LIST_BYTES + 10];
            [line[0], line[1], line[2], line[3], line[4]] = *b"GET /";
            line
        }),
        told: Told::Status(414),
        ..USUAL
    },
    Row {
        name: "the application ends in its head",
        reason: Reason::HttpResponseIncomplete,
        by: Inbound,
        force: |world| world.application("HTTP/1.1 200 OK\r\nConte"),
        ..USUAL
    },
    Row {
        name: "the application's head is too large",
        reason: Reason::HttpResponseHeaderSectionSize,
        by: Inbound,
        force: |world| {
            let value = "a".repeat(limits::HEADER_LIST_BYTES);
            world.application(format!("HTTP/1.1 200 OK\r\nA: {value}\r\n\r\n"));
        },
        ..USUAL
    },
    Row {
        name: "what the application says is no HTTP",
        reason: Reason::HttpProtocolError,
        by: Inbound,
        force: |world| world.application("220 mail.shop ESMTP\r\n"),
        ..USUAL
    },
    Row {
        name: "what an unmeshed application says is no HTTP",
        reason: Reason::HttpProtocolError,
        to: OUTSIDE,
        force: |world| world.at(OUTSIDE, answering("220 mail.shop ESMTP\r\n")),
        ..USUAL
    },
    Row {
        name: "the host has run out of something",
        reason: Reason::ProxyInternalError,
        to: OUTSIDE,
        force: |world| world.outbound.network.fail(at(OUTSIDE), ErrorKind::OutOfMemory),
        told: Told::Status(500),
        ..USUAL
    },
    Row {
        name: "the outbound proxy itself is dialled",
        reason: Reason::ProxyLoopDetected,
        to: OWN,
        told: Told::Reset,
        ..USUAL
    },
    Row {
        name: "the inbound proxy itself is dialled",
        reason: Reason::ProxyLoopDetected,
        by: Inbound,
        through: Inbound,
        to: OWN,
        told: Told::Reset,
        ..USUAL
    },
    Row { name: "a gRPC call to nobody", to: OUTSIDE, says: CALL, told: Told::Grpc(14), ..USUAL },
    Row {
        name: "a gRPC call, and no application listens",
        by: Inbound,
        says: CALL,
        told: Told::Grpc(14),
        ..USUAL
    },
    Row {
        name: "a gRPC call to a Service without endpoints",
        reason: Reason::DestinationUnavailable,
        says: CALL,
        force: |world| world.endpoints(Vec::new()),
        told: Told::Grpc(14),
        ..USUAL
    },
    Row {
        name: "a gRPC call to what speaks no HTTP/2",
        reason: Reason::HttpProtocolError,
        by: Inbound,
        says: CALL,
        force: |world| world.application("220 mail.shop ESMTP\r\n"),
        told: Told::Grpc(13),
        ..USUAL
    },
    Row {
        name: "a gRPC caller's time is up",
        reason: Reason::HttpResponseTimeout,
        to: OUTSIDE,
        says: Says::Http2(hurried_call),
        force: |world| world.at(OUTSIDE, silent),
        told: Told::Grpc(4),
        ..USUAL
    },
    Row {
        name: "the application proves another WebSocket key",
        reason: Reason::HttpUpgradeFailed,
        by: Inbound,
        says: Says::Http2(websocket),
        force: |world| {
            world.program(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: none\r\n\r\n",
            );
        },
        ..USUAL
    },
];
