//! `weft explain`: what becomes of a request or a connection, and why; and what the reasons mean.
//!
//! Control's and the proxy's own code decides, over manifests or a cluster: objects → index → policy → route. Nothing
//! is sent to anybody.

mod answer;
mod ends;
mod reason;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use control_translate::{Detected, Mesh};
use explain::Ask;

use crate::objects::Source;
use crate::output::{self, Form};
use answer::Answer;
use ends::{Client, Place};

#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    about: About,
}

#[derive(Subcommand)]
enum About {
    /// Explain what becomes of a request
    ///
    /// Which route and rule it takes and why each other one lost, where it may go, and each filter, timeout, retry and
    /// limit with the object that set it. For example: weft explain request --from shop/cart --to product.shop:8080
    /// --path /p/7 -H 'x-user: beta' -f manifests/. Exit codes: 0 somebody takes it, 1 it is refused, 2 wrong usage or
    /// no such destination.
    Request(RequestOptions),
    /// Explain what becomes of a connection whose bytes nobody reads
    ///
    /// TLS of the application's own, or any protocol that is not HTTP. Exit codes as for a request.
    Connection(ConnectionOptions),
    /// Explain what a reason in an answer, a log or a metric means
    ///
    /// It stands in the field Proxy-Status, in the access log and in metrics. Without a word all are listed.
    Reason(reason::Options),
}

#[derive(Args)]
struct RequestOptions {
    #[command(flatten)]
    ends: Ends,
    /// Method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// Path, with a query if there is one
    #[arg(long, value_name = "PATH", default_value = "/", conflicts_with = "grpc")]
    path: String,
    /// A header; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A call of gRPC in the place of method and path
    #[arg(long, value_name = "SERVICE/METHOD", conflicts_with = "method")]
    grpc: Option<String>,
}

#[derive(Args)]
struct ConnectionOptions {
    #[command(flatten)]
    ends: Ends,
    /// It is TLS and asks for this name; an empty one: for none
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
}

#[derive(Args)]
struct Ends {
    /// Who asks: namespace/pod, namespace/ and what its Pod's name begins with, or a namespace alone [default: the
    /// destination's namespace]
    #[arg(long, value_name = "NAMESPACE[/POD]")]
    from: Option<String>,
    /// Where to: a Service as name.namespace:port (the namespace is that of --from, if left out), or address:port
    #[arg(long, value_name = "SERVICE|ADDRESS")]
    to: String,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    #[command(flatten)]
    source: Source,
}

pub async fn run(options: &Options) -> Result<ExitCode> {
    let answered = match &options.about {
        About::Request(options) => request(options).await,
        About::Connection(options) => {
            let sni = options.sni.as_deref();
            explained(&options.ends, |policy, endpoints| explain::connection(policy, sni, endpoints)).await
        }
        About::Reason(options) => return reason::run(options),
    };
    answered.or_else(|error| {
        eprintln!("weft explain: {error:#}");
        Ok(ExitCode::from(2))
    })
}

async fn request(options: &RequestOptions) -> Result<ExitCode> {
    let mut ask = match &options.grpc {
        Some(call) => Ask::grpc(call)?,
        None => Ask::new(&options.method, &options.path),
    };
    options.headers.iter().try_for_each(|header| ask.field(header))?;
    explained(&options.ends, |policy, endpoints| explain::request(policy, &ask, endpoints)).await
}

async fn explained(
    ends: &Ends,
    decide: impl FnOnce(&policy::Outbound, explain::Endpoints<'_>) -> explain::Verdict,
) -> Result<ExitCode> {
    let objects = ends.source.read().await?;
    let mesh = Mesh {
        index: &objects.index,
        detected: &Detected::default(),
        trust_domain: &ends.source.trust_domain,
    };
    let named = ends.from.as_deref().and_then(|from| from.split('/').next());
    let place = Place::find(&objects, &ends.to, named)?;
    let client = match &ends.from {
        Some(from) => Client::find(&objects, from)?,
        None => Client::of_namespace(place.namespace().unwrap_or("default")),
    };
    let answer = Answer::new(&objects, &mesh, &client, &place, decide);
    output::print(ends.output, &answer, || answer.to_string())?;
    Ok(if answer.verdict.is_served() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
