//! mTLS between proxies, and from a proxy to control: rustls configurations, SPIFFE verification, keys and their
//! rotation. The only maker of [`Verified`].
//!
//! Here is no socket and no task: who connects takes [`Credentials::client`] or [`Credentials::server`], shakes hands,
//! and then asks [`Credentials::connected`] or [`Credentials::accepted`] who the peer is. Here is no authority either:
//! control signs.

mod backend;
mod certificate;
mod control;
mod credentials;
mod error;
mod memory;
mod pem;
mod provider;
mod trust;
mod validity;
mod verified;
mod verifier;

pub use backend::{BackendClient, Within};
pub use certificate::{Certificate, Request, renew_at};
pub use control::{control_client, control_identity, control_server};
pub use credentials::Credentials;
pub use error::{Error, Fault, Refusal, detail, reason, tls_error};
pub use trust::{CLOCK_SKEW, Trust};
pub use verified::Verified;

/// The ALPN of the wire between proxies.
pub const ALPN: &[u8] = b"weft/1";

/// What to write into the SNI to reach `identity`; the verifier reads back from it whom to expect.
/// An error where DNS has no room for the name (a service account of some 200 letters).
pub fn server_name(identity: &policy::SpiffeId) -> Result<rustls_pki_types::ServerName<'static>, Error> {
    rustls_pki_types::ServerName::try_from(identity.server_name())
        .map_err(|_| Error::Unnameable(identity.clone()))
}
