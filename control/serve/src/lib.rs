//! weft-control: Kubernetes' objects in, from a cluster or from manifests; discovery and identity out.
//!
//! A batch of changes goes `source` -> `world` (index, translation) -> `answers` -> the `updates` of each stream that
//! watches one of them. `identity` signs certificates with the `issuer` for who holds one of the `tokens`, or a token that
//! the `cluster` vouches for. All of it runs on one thread; only directories are watched by another. Here is no policy:
//! `control-translate` makes it.

mod answers;
mod cluster;
mod config;
mod connection;
mod discovery;
mod file;
mod front;
#[rustfmt::skip]
mod generated;
mod identity;
mod issuer;
pub mod limits;
mod metrics;
mod problems;
mod readiness;
mod server;
mod serving;
mod source;
mod state;
mod succession;
mod tokens;
mod updates;
mod world;

pub use config::{Config, Objects};
pub use issuer::AuthorityError;
pub use problems::Problem;
pub use server::{Control, Server, StartError};

/// An error and its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
