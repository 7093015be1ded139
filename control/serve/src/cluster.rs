//! What control does in a cluster besides reading its objects: who a proxy is, the issuer's Secret that all replicas
//! share, and what one of them alone writes (the roots' ConfigMaps, Events, statuses). Objects come from `source::kubernetes`.

pub mod duties;
mod events;
mod judgement;
mod meshes;
pub mod secret;
mod statuses;
mod trust_roots;

use crate::issuer::random;
pub use judgement::{Claim, judge};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, Config, api::PostParams};
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::Semaphore, time::timeout};
use tonic::Status;

/// Wait for the API server's answer to one request.
pub const REQUEST_WAIT: Duration = Duration::from_secs(30);
/// Wait for a review: the proxy that waits for it gives up soon.
const REVIEW_WAIT: Duration = Duration::from_secs(5);
/// Reviews at once.
const REVIEWS: usize = 64;
/// The first pause after a fault, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The name that control writes under (server-side apply), and its labels.
pub const FIELD_MANAGER: &str = "weft-control";

/// Control's place in a cluster.
pub struct Cluster {
    pub client: Client,
    /// Its own namespace.
    pub namespace: String,
    audience: String,
    reviews: Semaphore,
}

/// Pauses between attempts: twice as long each time, each a random part of it, so that replicas do not act as one.
#[derive(Debug)]
pub struct Backoff(Duration);

/// The cluster cannot be reached at all, as far as can be told before a request.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "there is neither a kubeconfig (KUBECONFIG, ~/.kube/config) nor the service account of a Pod to reach the API \
         server with"
    )]
    Config(#[from] kube::config::InferConfigError),
    #[error("the API server cannot be reached with the configuration found")]
    Client(#[from] kube::Error),
}

impl Cluster {
    /// By KUBECONFIG, `~/.kube/config`, or the service account of the Pod, the first of them that is there.
    pub async fn connect(namespace: String, audience: String) -> Result<Self, ClusterError> {
        let client = Client::try_from(Config::infer().await?)?;
        Ok(Self { client, namespace, audience, reviews: Semaphore::new(REVIEWS) })
    }

    /// Asks the API server whose token it is.
    pub async fn claim(&self, token: &str) -> Result<Claim, Status> {
        let _permit = self.reviews.acquire().await;
        let spec = TokenReviewSpec {
            audiences: Some(vec![self.audience.clone()]),
            token: Some(token.trim().to_owned()),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let parameters = PostParams::default();
        let reviewed = match timeout(REVIEW_WAIT, api.create(&parameters, &review)).await {
            Ok(Ok(review)) => review.status.unwrap_or_default(),
            Ok(Err(error)) => {
                tracing::warn!("a token could not be reviewed: {}", explain(&error));
                return Err(Status::unavailable(
                    "control could not ask the API server whose token it is; its log says why",
                ));
            }
            Err(_) => {
                return Err(Status::unavailable(
                    "the API server did not answer whose token it is; ask again",
                ));
            }
        };
        Claim::read(reviewed, &self.audience).map_err(Status::unauthenticated)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    /// The next pause: between a half and all of what it may be by now.
    pub fn next(&mut self) -> Duration {
        let mut bytes = [0; 2];
        random(&mut bytes);
        let part = 0.5 + f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX) / 2.0;
        let pause = self.0.mul_f64(part);
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// The labels of what control makes.
fn labels() -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "weft"),
        ("app.kubernetes.io/part-of", "weft"),
        ("app.kubernetes.io/component", "control"),
        ("app.kubernetes.io/managed-by", "weft"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into()
}

/// An error of the API server in its own words, and what to do where that is known.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "{}; grant it in the ClusterRole or Role of control's service account (the chart does)",
            status.message
        ),
        kube::Error::Api(status) if status.code == 401 => format!(
            "the API server does not know control's own token ({}); is its service account still there?",
            status.message
        ),
        kube::Error::Api(status) => format!("the API server refused: {} ({})", status.message, status.code),
        kube::Error::Service(error) => {
            format!("the API server cannot be reached: {}", crate::chain(&**error))
        }
        kube::Error::HyperError(error) => {
            format!("the API server cannot be reached: {}", crate::chain(error))
        }
        error => crate::chain(error),
    }
}
