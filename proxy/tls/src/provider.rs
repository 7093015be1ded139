//! The cryptography that the mesh uses, by aws-lc: its choice and its order.

use rustls::crypto::{
    CryptoProvider,
    aws_lc_rs::{self, cipher_suite, kx_group},
};
use std::sync::{Arc, OnceLock};

/// X25519MLKEM768 before X25519; AES-128-GCM first, as it is the cheapest where AES is in hardware, which servers have.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        Arc::new(CryptoProvider {
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..aws_lc_rs::default_provider()
        })
    };
    Arc::clone(PROVIDER.get_or_init(make))
}
