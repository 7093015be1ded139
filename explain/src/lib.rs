//! A decision of `policy` and its reasons, for people and for programs.
//!
//! `weft explain` asks it over manifests or a cluster, a proxy's `/why` over what it holds: the same decision, in the same words.
//! Here is nothing that decides, and nothing that knows where a policy came from.

mod ask;
mod settings;
mod text;
mod verdict;

pub use ask::{About, Ask, InvalidAsk, Question};
pub use settings::Setting;
pub use text::{part, table};
pub use verdict::{
    Backend, Considered, EndpointView, Endpoints, Outcome, Tls, Verdict, Vouching, Why, connection, request,
};
