//! The `Identity` service: certificates for who holds a token, and the roots to trust.

use crate::{
    Control, cluster,
    connection::{Caller, WatchPermit},
    generated::identity_server::Identity as Service,
    issuer::requested_key,
};
use control_index::Account;
use policy::SpiffeId;
use proxy_wire::v1;
use rustls_pki_types::CertificateDer;
use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_stream::{Stream, wrappers::WatchStream};
use tonic::{Request, Response, Status};

/// Signs with control's authority.
#[derive(Clone)]
pub struct Identity(pub Arc<Control>);

/// The roots, as they are watched.
pub type Roots = Arc<Vec<CertificateDer<'static>>>;

/// The roots at once, at each change, and once each heartbeat.
pub struct TrustUpdates {
    roots: WatchStream<Roots>,
    beat: Interval,
    last: Option<Roots>,
    _permit: WatchPermit,
}

#[tonic::async_trait]
impl Service for Identity {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let source = request.extensions().get::<Caller>().and_then(|caller| caller.address);
        let request = request.into_inner();
        let account =
            self.account(&request.token, source).await.inspect_err(|_| self.0.metrics.refuse("token"))?;
        self.sign(&request, &account).map(Response::new)
    }

    type WatchTrustStream = TrustUpdates;

    async fn watch_trust(
        &self,
        request: Request<v1::TrustRequest>,
    ) -> Result<Response<TrustUpdates>, Status> {
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        let permit = caller.watches.permit().ok_or_else(|| {
            self.0.metrics.refuse("watches");
            Status::resource_exhausted(
                "this connection has as many watches as it may; drop some that are idle",
            )
        })?;
        let roots = self
            .0
            .roots()
            .ok_or_else(|| Status::unavailable("control is shutting down; ask again in a moment"))?;
        Ok(Response::new(TrustUpdates::new(roots, self.0.config.heartbeat, permit)))
    }
}

impl Identity {
    /// Whom a token speaks for: the API server says, or, without one, the tokens that control itself made.
    async fn account(&self, token: &str, source: Option<IpAddr>) -> Result<Account, Status> {
        let control = &self.0;
        if let Some(cluster) = &control.cluster {
            let claim = cluster.claim(token).await?;
            return cluster::judge(&claim, source, control.world().index());
        }
        control.tokens().account(token).cloned().ok_or_else(|| {
            Status::unauthenticated(
                "the token is none of a service account that is there now; read the token's file again, and look \
                 whether the Pod's serviceAccountName is in the manifests",
            )
        })
    }

    /// The account comes from the token and the key from the CSR: nothing else that a caller says counts.
    fn sign(&self, request: &v1::CertifyRequest, account: &Account) -> Result<v1::CertifyResponse, Status> {
        let control = &self.0;
        let key = requested_key(&request.csr).map_err(|error| {
            control.metrics.refuse("csr");
            Status::invalid_argument(format!("csr: {error}"))
        })?;
        let identity = SpiffeId::new(&control.config.trust_domain, &account.namespace, &account.name)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let lifetime = control.config.certificate_lifetime;
        let signed =
            control.authority().sign(&key, &identity, lifetime, SystemTime::now()).map_err(|error| {
                tracing::error!("a certificate for {identity} could not be signed: {error}");
                Status::internal("control could not sign; its log says why")
            })?;
        control.metrics.issued.inc();
        Ok(v1::CertifyResponse {
            chain: signed.chain.into_iter().map(|one| one.to_vec()).collect(),
            identity: identity.to_string(),
            not_after: signed.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        })
    }
}

impl TrustUpdates {
    fn new(roots: watch::Receiver<Roots>, heartbeat: Duration, permit: WatchPermit) -> Self {
        let mut beat = interval(heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        Self { roots: WatchStream::new(roots), beat, last: None, _permit: permit }
    }
}

impl Stream for TrustUpdates {
    type Item = Result<v1::TrustUpdate, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match Pin::new(&mut self.roots).poll_next(context) {
            Poll::Ready(Some(roots)) => {
                self.beat.reset();
                self.last = Some(roots);
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending if self.beat.poll_tick(context).is_pending() => return Poll::Pending,
            Poll::Pending => {}
        }
        let roots = self.last.iter().flat_map(|roots| roots.iter()).map(|root| root.to_vec()).collect();
        Poll::Ready(Some(Ok(v1::TrustUpdate { roots })))
    }
}
