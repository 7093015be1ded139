//! The services that answer proxies' questions: `Outbound`, `Endpoints`, `Inbound`, and `Report`.

use crate::{
    Control,
    answers::{Answer, Question, Watched},
    connection::Caller,
    generated::{
        endpoints_server::Endpoints, inbound_server::Inbound, outbound_server::Outbound,
        report_server::Report,
    },
    updates::{Content, Lease, Updates},
};
use control_translate::Mesh;
use policy::{Protocol, ServicePort, WorkloadName};
use proxy_wire::{Malformed, v1};
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// Answers from what control knows.
#[derive(Clone)]
pub struct Discovery(pub Arc<Control>);

#[tonic::async_trait]
impl Outbound for Discovery {
    type WatchStream = Updates<v1::OutboundPolicy>;

    async fn watch(
        &self,
        request: Request<v1::OutboundTarget>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (target, asking): (SocketAddr, WorkloadName) =
            request.get_ref().try_into().map_err(|error| self.malformed(error))?;
        let target = SocketAddr::new(target.ip().to_canonical(), target.port());
        let question = Question::Outbound(target, Arc::clone(&asking.namespace));
        self.watch(&request, question, |watched, mesh| watched.watch_outbound(mesh, target, asking.namespace))
    }
}

#[tonic::async_trait]
impl Endpoints for Discovery {
    type WatchStream = Updates<v1::EndpointSet>;

    async fn watch(
        &self,
        request: Request<v1::EndpointsTarget>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (backend, asking): (ServicePort, Option<WorkloadName>) =
            request.get_ref().try_into().map_err(|error| self.malformed(error))?;
        let zone =
            asking.and_then(|asking| self.0.world().index().zone(&asking).cloned()).unwrap_or_default();
        let question = Question::Endpoints(backend.clone(), Arc::clone(&zone));
        self.watch(&request, question, |watched, mesh| watched.watch_endpoints(mesh, backend, zone))
    }
}

#[tonic::async_trait]
impl Inbound for Discovery {
    type WatchStream = Updates<v1::InboundPolicy>;

    async fn watch(&self, request: Request<v1::InboundPort>) -> Result<Response<Self::WatchStream>, Status> {
        let (workload, port): (WorkloadName, u16) =
            request.get_ref().try_into().map_err(|error| self.malformed(error))?;
        self.watch(&request, Question::Inbound(workload.clone(), port), |watched, mesh| {
            watched.watch_inbound(mesh, workload, port)
        })
    }
}

#[tonic::async_trait]
impl Report for Discovery {
    async fn detected(
        &self,
        request: Request<v1::DetectedRequest>,
    ) -> Result<Response<v1::DetectedResponse>, Status> {
        let (backend, protocol): (ServicePort, Protocol) =
            request.get_ref().try_into().map_err(|error| self.malformed(error))?;
        self.0.world().report(&backend, protocol);
        Ok(Response::new(v1::DetectedResponse {}))
    }
}

impl Discovery {
    fn watch<P: Content, T>(
        &self,
        request: &Request<T>,
        question: Question,
        watch: impl FnOnce(&mut Watched, &Mesh<'_>) -> watch::Receiver<Arc<Answer<P>>>,
    ) -> Result<Response<Updates<P>>, Status> {
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        let permit = caller.watches.permit().ok_or_else(|| {
            self.0.metrics.refuse("watches");
            Status::resource_exhausted(
                "this connection has as many watches as it may; drop some that are idle",
            )
        })?;
        let answers = {
            let mut world = self.0.world();
            let (watched, mesh) = world
                .watched()
                .ok_or_else(|| Status::unavailable("control is shutting down; ask again in a moment"))?;
            watch(watched, &mesh)
        };
        let lease = Lease::new(Arc::clone(&self.0), question, permit);
        Ok(Response::new(Updates::new(answers, lease, self.0.config.heartbeat)))
    }

    fn malformed(&self, error: Malformed) -> Status {
        self.0.metrics.refuse("malformed");
        Status::invalid_argument(format!("{error}; is this proxy of a version that fits this control's?"))
    }
}
