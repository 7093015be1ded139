//! TLS to a program without a proxy, as a policy asks for: what a plain connection becomes before anything is said on it.

use crate::{failed::Failed, read_ahead::ReadAhead};
use bytes::BytesMut;
use policy::{BackendTls, Reason, limits};
use proxy_tls::{BackendClient, Within};
use proxy_transport::{Duplex, Layer, Stream};
use std::{cell::OnceCell, fmt, pin::Pin, sync::Arc};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Of one address.
pub(crate) struct Origination {
    policy: Arc<BackendTls>,
    /// Made for the first connection; why it could not be.
    client: OnceCell<Result<BackendClient, Failed>>,
}

impl Origination {
    pub fn new(policy: Arc<BackendTls>) -> Self {
        Self { policy, client: OnceCell::new() }
    }

    /// Shakes hands on a new connection.
    pub async fn begin(&self, stream: Stream, within: Within) -> Result<Stream, Failed> {
        let (config, name) = self.client()?.connection(within);
        let connect = TlsConnector::from(config).connect(name, ReadAhead::new(stream, BytesMut::new()));
        let tls = timeout(limits::HANDSHAKE_WAIT, connect)
            .await
            .map_err(|_| Failed::untouched(Reason::ConnectionTimeout, "the TLS handshake took too long"))
            .and_then(|made| made.map_err(|error| crate::tls_failed(&error)))
            .map_err(|failed| self.named(failed))?;
        let layer: Box<dyn Layer> = Box::new(Originated(tls));
        Ok(layer.into())
    }

    fn client(&self) -> Result<&BackendClient, Failed> {
        let make = || {
            BackendClient::new(&self.policy).map_err(|error| {
                self.named(Failed::untouched(Reason::TlsCertificateError, error.to_string()))
            })
        };
        self.client.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Says also whose wish the TLS is.
    fn named(&self, failed: Failed) -> Failed {
        let BackendTls { hostname, by, .. } = &*self.policy;
        let detail = format!("TLS to {hostname} ({}): {}", by.as_str(), failed.detail);
        Failed { detail: detail.into(), ..failed }
    }
}

struct Originated(TlsStream<ReadAhead>);

impl Layer for Originated {
    fn beneath(&self) -> &Stream {
        self.0.get_ref().0.stream()
    }

    fn within(&mut self) -> Pin<&mut dyn Duplex> {
        let tls: Pin<&mut TlsStream<ReadAhead>> = Pin::new(&mut self.0);
        tls
    }
}

impl fmt::Debug for Originated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS over {:?}", self.beneath())
    }
}
