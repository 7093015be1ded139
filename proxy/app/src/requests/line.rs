//! A request's line in the access log.

use super::{Ended, Exchange, Stopped};
use crate::{
    destination::Chosen,
    logged::{Origin, Parties},
    telemetry::{
        Direction,
        access::{Entry, Request, Traffic, Verdict},
    },
    worker::Worker,
};
use proxy_http::exchange::Answered;

/// One line for a request, however often it was sent.
pub fn log(worker: &Worker, direction: Direction, origin: &Origin, ended: &Result<Ended, Stopped>) {
    let (exchange, answered, failed) = match ended {
        Ok((exchange, answered)) => (exchange, *answered, exchange.failed.as_ref()),
        Err((exchange, failed)) => (exchange, Answered::default(), Some(failed)),
    };
    let reason = failed.map(|failed| failed.reason);
    let verdict = Verdict { reason, status: answered.status, grpc_status: answered.grpc_status };
    let access = worker.telemetry.access();
    if !access.wants(verdict) {
        return;
    }
    let Exchange { client, routed, chosen, attempts, begun, .. } = &**exchange;
    let hop = chosen.as_ref().map(|chosen| &*chosen.hop);
    access.write(&Entry {
        traffic: Traffic::Request(Request {
            version: match client.version() {
                http::Version::HTTP_10 => "1.0",
                http::Version::HTTP_2 => "2",
                _ => "1.1",
            },
            method: client.method(),
            target: client.target(),
            authority: client.authority(),
            status: answered.status,
            grpc_status: answered.grpc_status,
        }),
        first_byte: chosen.as_ref().and_then(Chosen::answered_at).map(|at| at - *begun),
        service: routed.service.as_deref().unwrap_or_default(),
        attempts: attempts + usize::from(hop.is_some()),
        out_of_budget: exchange.is_out_of_budget(),
        from_client: answered.request_bytes,
        to_client: answered.response_bytes,
        failure: failed.map(|failed| (failed.reason, &*failed.detail)),
        ..Parties::of(worker, direction, origin, hop).entry(begun.elapsed())
    });
}
