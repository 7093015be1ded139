//! A connection from another proxy: `weft/1`, server side.

use crate::{
    failed::Failed,
    gather::Gather,
    read_ahead::ReadAhead,
    served::{Served, peer_builder},
};
use bytes::BytesMut;
use policy::{Reason, SpiffeId, limits};
use proxy_tls::{Credentials, Verified};
use proxy_transport::Stream;
use tokio::time::timeout;
use tokio_rustls::{rustls::HandshakeKind, server::TlsStream};

/// A connection whose peer is verified.
pub struct Accepted {
    pub streams: Served<TlsStream<ReadAhead>>,
    peer: Verified<SpiffeId>,
    key_exchange: &'static str,
    resumed: bool,
}

impl Accepted {
    /// The TLS handshake, of which `read` is what came already, and HTTP/2's.
    pub async fn handshake(
        stream: Stream,
        read: BytesMut,
        credentials: &Credentials,
    ) -> Result<Self, Failed> {
        let stream = ReadAhead::new(stream, read);
        let tls = tokio_rustls::TlsAcceptor::from(credentials.server.clone()).accept(stream);
        let mut tls = timeout(limits::HANDSHAKE_WAIT, tls)
            .await
            .map_err(|_| Failed::new(Reason::ConnectionTimeout, "the TLS handshake took too long"))?
            .map_err(|error| crate::tls_failed(&error))?;
        let peer = credentials
            .accepted(tls.get_ref().1)
            .map_err(|error| Failed::new(error.reason(), error.to_string()))?;
        let group = tls.get_ref().1.negotiated_key_exchange_group();
        let key_exchange = group.map_or("", |group| group.name().as_str().unwrap_or_default());
        let resumed = tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        // `Gather` bounds what is written; what it writes is to become records at once.
        tls.get_mut().1.set_buffer_limit(None);
        let streams = Served::handshake(Gather::new(tls), &peer_builder(), Reason::TlsProtocolError).await?;
        Ok(Self { streams, peer, key_exchange, resumed })
    }

    pub fn peer(&self) -> &SpiffeId {
        &self.peer
    }

    /// The key exchange group of the handshake, as RFC 8446 §4.2.7 and its registry name it; empty when it was resumed without one.
    pub fn key_exchange(&self) -> &'static str {
        self.key_exchange
    }

    /// The handshake went on from an earlier one (RFC 8446 §2.2).
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }
}
