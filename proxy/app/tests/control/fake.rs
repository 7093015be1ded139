//! A control made of wishes: it speaks the real protocol over memory, and each call that reaches it is handed to the
//! test, which answers as it likes, or never.

use crate::server::{
    endpoints_server::{Endpoints, EndpointsServer},
    identity_server::{Identity, IdentityServer},
    inbound_server::{Inbound, InboundServer},
    outbound_server::{Outbound, OutboundServer},
    report_server::{Report, ReportServer},
};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy_app::control::{Dial, Stream};
use proxy_tls::{Certificate, Trust, control_identity, control_server};
use proxy_wire::v1;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa,
    KeyPair, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait, service::Routes};

pub const DOMAIN: &str = "cluster.local";

/// A watch that a proxy has opened: what was asked, and where to say the answers.
pub struct Call<Q, U> {
    pub question: Q,
    answers: mpsc::Sender<Result<U, Status>>,
}

impl<Q, U> Call<Q, U> {
    pub async fn say(&self, update: U) {
        self.answers.send(Ok(update)).await.expect("the proxy listens");
    }

    pub async fn fail(self, status: Status) {
        self.answers.send(Err(status)).await.expect("the proxy listens");
    }

    /// Until the proxy wants no more answers.
    pub async fn closed(&self) {
        self.answers.closed().await;
    }
}

/// A call with one answer.
pub struct Single<Q, A> {
    pub question: Q,
    answer: oneshot::Sender<Result<A, Status>>,
}

impl<Q, A> Single<Q, A> {
    pub fn answer(self, answer: Result<A, Status>) {
        // The proxy may have given up on it, which is what some tests are about.
        let _ = self.answer.send(answer);
    }
}

/// The calls that reach control, each kind in order of arrival.
pub struct Calls {
    pub outbound: mpsc::UnboundedReceiver<Call<v1::OutboundTarget, v1::OutboundUpdate>>,
    pub endpoints: mpsc::UnboundedReceiver<Call<v1::EndpointsTarget, v1::EndpointsUpdate>>,
    pub inbound: mpsc::UnboundedReceiver<Call<v1::InboundPort, v1::InboundUpdate>>,
    pub trust: mpsc::UnboundedReceiver<Call<v1::TrustRequest, v1::TrustUpdate>>,
    pub certify: mpsc::UnboundedReceiver<Single<v1::CertifyRequest, v1::CertifyResponse>>,
    pub detected: mpsc::UnboundedReceiver<Single<v1::DetectedRequest, v1::DetectedResponse>>,
}

/// The next of them, within 30 s.
pub async fn next<T>(calls: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), calls.recv()).await.expect("a call").expect("open")
}

#[derive(Clone)]
pub struct Fake(Arc<Shared>);

struct Shared {
    routes: Routes,
    certificate: Mutex<Certificate>,
    mode: watch::Sender<Mode>,
    connections: Mutex<JoinSet<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Serves,
    /// Connections are refused.
    Gone,
    /// Connections stand, nothing is read from them.
    Frozen,
}

impl Fake {
    /// Control as `authority` would certify it.
    pub fn new(authority: &Authority) -> (Self, Calls) {
        Self::with_certificate(authority.control())
    }

    pub fn with_certificate(certificate: Certificate) -> (Self, Calls) {
        let (outbound, outbound_calls) = mpsc::unbounded_channel();
        let (endpoints, endpoints_calls) = mpsc::unbounded_channel();
        let (inbound, inbound_calls) = mpsc::unbounded_channel();
        let (trust, trust_calls) = mpsc::unbounded_channel();
        let (certify, certify_calls) = mpsc::unbounded_channel();
        let (detected, detected_calls) = mpsc::unbounded_channel();
        let doors = Arc::new(Doors { outbound, endpoints, inbound, trust, certify, detected });
        let mut routes = Routes::new(OutboundServer::from_arc(Arc::clone(&doors)))
            .add_service(EndpointsServer::from_arc(Arc::clone(&doors)))
            .add_service(InboundServer::from_arc(Arc::clone(&doors)))
            .add_service(IdentityServer::from_arc(Arc::clone(&doors)));
        routes = routes.add_service(ReportServer::from_arc(doors)).prepare();
        let fake = Self(Arc::new(Shared {
            routes,
            certificate: Mutex::new(certificate),
            mode: watch::Sender::new(Mode::Serves),
            connections: Mutex::default(),
        }));
        let calls = Calls {
            outbound: outbound_calls,
            endpoints: endpoints_calls,
            inbound: inbound_calls,
            trust: trust_calls,
            certify: certify_calls,
            detected: detected_calls,
        };
        (fake, calls)
    }

    /// How a proxy connects to it.
    pub fn dial(&self) -> Dial {
        let fake = self.clone();
        Box::new(move || {
            let fake = fake.clone();
            Box::pin(async move { fake.accept() })
        })
    }

    /// Another certificate for the connections to come.
    pub fn certificate(&self, certificate: Certificate) {
        *self.0.certificate.lock().expect("no panic") = certificate;
    }

    /// All connections end, at once.
    pub fn cut(&self) {
        self.0.connections.lock().expect("no panic").abort_all();
    }

    pub fn go(&self) {
        self.0.mode.send_replace(Mode::Gone);
        self.cut();
    }

    pub fn come_back(&self) {
        self.0.mode.send_replace(Mode::Serves);
    }

    /// Neither reads nor writes any more, as a stopped process does.
    pub fn freeze(&self) {
        self.0.mode.send_replace(Mode::Frozen);
    }

    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        if *self.0.mode.borrow() == Mode::Gone {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let mut mode = self.0.mode.subscribe();
        let serving = self.clone().serve(ours);
        self.0.connections.lock().expect("no panic").spawn(async move {
            tokio::pin!(serving);
            loop {
                let frozen = *mode.borrow_and_update() == Mode::Frozen;
                tokio::select! {
                    () = &mut serving, if !frozen => return,
                    changed = mode.changed() => changed.expect("the fake lives"),
                }
            }
        });
        Ok(Box::new(theirs))
    }

    async fn serve(self, stream: DuplexStream) {
        let config = control_server(&self.0.certificate.lock().expect("no panic")).expect("a configuration");
        let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else { return };
        let service = service_fn(|request| {
            let mut routes = self.0.routes.clone();
            async move { tower::Service::call(&mut routes, request).await }
        });
        // Broken connections are what tests make.
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}

/// Where calls arrive.
struct Doors {
    outbound: mpsc::UnboundedSender<Call<v1::OutboundTarget, v1::OutboundUpdate>>,
    endpoints: mpsc::UnboundedSender<Call<v1::EndpointsTarget, v1::EndpointsUpdate>>,
    inbound: mpsc::UnboundedSender<Call<v1::InboundPort, v1::InboundUpdate>>,
    trust: mpsc::UnboundedSender<Call<v1::TrustRequest, v1::TrustUpdate>>,
    certify: mpsc::UnboundedSender<Single<v1::CertifyRequest, v1::CertifyResponse>>,
    detected: mpsc::UnboundedSender<Single<v1::DetectedRequest, v1::DetectedResponse>>,
}

type Answers<U> = ReceiverStream<Result<U, Status>>;

fn open<Q, U>(
    door: &mpsc::UnboundedSender<Call<Q, U>>,
    request: Request<Q>,
) -> Result<Response<Answers<U>>, Status> {
    let (answers, stream) = mpsc::channel(64);
    door.send(Call { question: request.into_inner(), answers })
        .map_err(|_| Status::unavailable("the test is over"))?;
    Ok(Response::new(ReceiverStream::new(stream)))
}

async fn ask<Q, A>(
    door: &mpsc::UnboundedSender<Single<Q, A>>,
    request: Request<Q>,
) -> Result<Response<A>, Status> {
    let (answer, answered) = oneshot::channel();
    door.send(Single { question: request.into_inner(), answer })
        .map_err(|_| Status::unavailable("the test is over"))?;
    answered.await.map_err(|_| Status::unavailable("the test does not care"))?.map(Response::new)
}

#[async_trait]
impl Outbound for Doors {
    type WatchStream = Answers<v1::OutboundUpdate>;

    async fn watch(
        &self,
        request: Request<v1::OutboundTarget>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        open(&self.outbound, request)
    }
}

#[async_trait]
impl Endpoints for Doors {
    type WatchStream = Answers<v1::EndpointsUpdate>;

    async fn watch(
        &self,
        request: Request<v1::EndpointsTarget>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        open(&self.endpoints, request)
    }
}

#[async_trait]
impl Inbound for Doors {
    type WatchStream = Answers<v1::InboundUpdate>;

    async fn watch(&self, request: Request<v1::InboundPort>) -> Result<Response<Self::WatchStream>, Status> {
        open(&self.inbound, request)
    }
}

#[async_trait]
impl Identity for Doors {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        ask(&self.certify, request).await
    }

    type WatchTrustStream = Answers<v1::TrustUpdate>;

    async fn watch_trust(
        &self,
        request: Request<v1::TrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        open(&self.trust, request)
    }
}

#[async_trait]
impl Report for Doors {
    async fn detected(
        &self,
        request: Request<v1::DetectedRequest>,
    ) -> Result<Response<v1::DetectedResponse>, Status> {
        ask(&self.detected, request).await
    }
}

/// Signs for the tests.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(parameters, key).expect("a root") }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub fn trust(&self) -> Trust {
        Trust::new(DOMAIN.parse().expect("a trust domain"), [self.root()]).expect("a root")
    }

    /// What control shows.
    pub fn control(&self) -> Certificate {
        self.certificate(&control_identity(&DOMAIN.parse().expect("a trust domain")).to_string())
    }

    pub fn certificate(&self, identity: &str) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let leaf = self.leaf(identity, HOUR, &key);
        Certificate::new(vec![leaf], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .expect("a certificate")
    }

    /// The answer to a request, for so long from now.
    pub fn certify(
        &self,
        request: &v1::CertifyRequest,
        identity: &str,
        lifetime: Duration,
    ) -> v1::CertifyResponse {
        let csr = CertificateSigningRequestDer::from(request.csr.clone());
        let parameters = CertificateSigningRequestParams::from_der(&csr).expect("a signed request");
        let leaf = self.leaf(identity, lifetime, &parameters.public_key);
        v1::CertifyResponse { chain: vec![leaf.to_vec()], identity: identity.into(), not_after: 0 }
    }

    fn leaf(&self, identity: &str, lifetime: Duration, key: &impl PublicKeyData) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![SanType::URI(identity.try_into().expect("ASCII"))];
        parameters.not_before = (SystemTime::now() - HOUR).into();
        parameters.not_after = (SystemTime::now() + lifetime).into();
        parameters.signed_by(key, &self.issuer).expect("a leaf").der().clone()
    }
}

pub const HOUR: Duration = Duration::from_secs(3600);
