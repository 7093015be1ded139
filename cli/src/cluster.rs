//! A Kubernetes cluster as the commands need it: which one, and reading, applying and deleting objects by their paths.
//!
//! Objects come in whatever trimmed shape the caller names. What an object is for, nobody knows here.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::{Method, Request, header};
use k8s_openapi::api::core::v1::Pod;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Api, Client, Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Who owns the fields that the commands apply (server-side apply's field manager).
pub const FIELD_MANAGER: &str = "weft";
/// Wait for a connection to the API server.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Wait for an answer of the API server. Its own limit for a request is a minute.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Objects a page, so that neither side holds a large cluster's at once.
const PAGE: usize = 500;
/// Wait for a page of a pod's admin port.
const POD_WAIT: Duration = Duration::from_secs(10);
/// Bytes of such a page.
const POD_PAGE_BYTES: u64 = 64 * 1024 * 1024;

/// Which cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connection {
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// File that says where the cluster is and who asks [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
}

/// A cluster that is spoken to.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// For people: what is spoken to.
    server: String,
}

/// Why the cluster did not do what was asked.
#[derive(Clone, Debug)]
pub enum Failure {
    /// There is no such object, or the cluster does not know its kind.
    Absent,
    /// Whoever asks may not. The API server's words.
    Forbidden(String),
    /// Another owns the fields that were to be applied: a sentence each.
    Conflict(Vec<String>),
    /// Everything else, for people.
    Other(String),
}

impl Connection {
    /// What to speak to. Nothing is sent yet.
    pub async fn open(&self) -> anyhow::Result<Cluster> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file)
                    .with_context(|| format!("--kubeconfig {} is of no use", file.display()))?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(anyhow::Error::from)
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(anyhow::Error::from)
            }
            None => Config::infer().await.map_err(anyhow::Error::from),
        };
        let mut config = config.map_err(|error| anyhow!("{error}")).with_context(|| self.tried())?;
        config.connect_timeout = Some(CONNECT_WAIT);
        config.read_timeout = Some(ANSWER_WAIT);
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("the credentials of the kubeconfig are of no use")?;
        Ok(Cluster { client, server })
    }

    fn tried(&self) -> String {
        let place = match (&self.kubeconfig, std::env::var_os("KUBECONFIG")) {
            (Some(file), _) => format!("in {}", file.display()),
            (None, Some(files)) => format!("in $KUBECONFIG ({})", files.display()),
            (None, None) => "in ~/.kube/config, and this is not a pod with a service account".to_owned(),
        };
        let context = self.context.as_ref().map(|name| format!(" named {name:?}")).unwrap_or_default();
        format!("no cluster{context} found {place}: name one by --kubeconfig FILE, and --context NAME in it")
    }
}

impl Cluster {
    /// The namespace of the context.
    pub fn default_namespace(&self) -> &str {
        self.client.default_namespace()
    }

    /// The object or document at a path.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, None).await
    }

    /// The object at a path, or that there is none.
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        match self.read(path).await {
            Ok(object) => Ok(Some(object)),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Text at a path, such as a log.
    pub async fn text(&self, path: &str) -> Result<String, Failure> {
        let request = build(Method::GET, path, None)?;
        self.client.request_text(request).await.map_err(|error| self.failure(error))
    }

    /// All objects of a collection that a label selector takes (an empty one takes all), page by page.
    pub async fn list<T: DeserializeOwned>(&self, path: &str, selector: &str) -> Result<Vec<T>, Failure> {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let selector = query_value(selector);
            let page: Page<T> =
                self.read(&format!("{path}?limit={PAGE}&labelSelector={selector}&continue={from}")).await?;
            found.extend(page.items.unwrap_or_default());
            match page.metadata.next {
                Some(next) if !next.is_empty() => from = query_value(&next),
                _ => return Ok(found),
            }
        }
    }

    /// Creates what is only asked, such as an access review, and returns the answer.
    pub async fn review<T: DeserializeOwned>(&self, path: &str, question: &Value) -> Result<T, Failure> {
        self.ask(Method::POST, path, Some(("application/json", question))).await
    }

    /// Server-side apply; `force` takes fields from whoever owns them.
    pub async fn apply(&self, path: &str, object: &Value, force: bool) -> Result<Value, Failure> {
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&force={force}");
        self.ask(Method::PATCH, &path, Some(("application/apply-patch+yaml", object))).await
    }

    /// Deletes, in the background what it owns; false if there is nothing.
    pub async fn delete(&self, path: &str) -> Result<bool, Failure> {
        match self.ask::<Value>(Method::DELETE, &format!("{path}?propagationPolicy=Background"), None).await {
            Ok(_) => Ok(true),
            Err(Failure::Absent) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// A page of an admin port inside a pod: status and body. It goes through the API server and the pod's node; no
    /// network path to the pod is needed, and no NetworkPolicy stands in the way.
    pub async fn page(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
    ) -> Result<(u16, String), Failure> {
        let failed = |what: &dyn fmt::Display| {
            Failure::Other(format!("port {port} of pod {namespace}/{pod} does not answer: {what}"))
        };
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let answer = async {
            let mut forward = pods.portforward(pod, &[port]).await.map_err(|error| self.failure(error))?;
            let mut stream = forward.take_stream(port).expect("the port was asked for");
            let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: weft\r\n\r\n");
            stream.write_all(request.as_bytes()).await.map_err(|error| failed(&error))?;
            let mut stream = stream.take(POD_PAGE_BYTES);
            let mut answer = Vec::new();
            // Not to its end: a node tells that a connection has ended a second late.
            while !is_whole(&answer) {
                if stream.read_buf(&mut answer).await.map_err(|error| failed(&error))? == 0 {
                    break;
                }
            }
            split(&String::from_utf8_lossy(&answer)).ok_or_else(|| failed(&"what it says is not HTTP"))
        };
        timeout(POD_WAIT, answer).await.unwrap_or_else(|_| Err(failed(&"no answer within 10 s")))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<T, Failure> {
        let request = build(method, path, body)?;
        self.client.request(request).await.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => Failure::of(&status),
            other => {
                let why = chain(&other);
                Failure::Other(format!("the API server {} does not answer: {why}", self.server))
            }
        }
    }
}

impl Failure {
    fn of(status: &Status) -> Self {
        match status.code {
            404 => Self::Absent,
            401 => Self::Forbidden(format!(
                "the cluster does not know who asks ({}): renew the credentials of the kubeconfig",
                status.message
            )),
            403 => Self::Forbidden(status.message.clone()),
            409 if status.details.as_ref().is_some_and(|details| !details.causes.is_empty()) => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                Self::Conflict(causes.map(|cause| format!("{} at {}", cause.message, cause.field)).collect())
            }
            _ => Self::Other(status.message.clone()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no such object"),
            Self::Forbidden(what) | Self::Other(what) => f.write_str(what),
            Self::Conflict(fields) => f.write_str(&fields.join("; ")),
        }
    }
}

impl std::error::Error for Failure {}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

fn build(method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Request<Vec<u8>>, Failure> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some((kind, _)) = body {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    let body = body.map(|(_, value)| value.to_string().into_bytes()).unwrap_or_default();
    request.body(body).map_err(|error| Failure::Other(format!("{path:?} is no path: {error}")))
}

/// Percent-encoded where a query's value needs it (RFC 3986 §3.4).
fn query_value(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Whether an answer has all the content that its head announces.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= end + 4 + length)
}

fn split(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// An error and its causes, without those that repeat what was said.
fn chain(error: &dyn std::error::Error) -> String {
    let (mut said, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        next = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_content() {
        for (answer, whole) in [
            ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nab", false),
            ("HTTP/1.0 200 OK\r\n\r\nabc", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ] {
            assert_eq!(is_whole(answer.as_bytes()), whole, "{answer:?}");
        }
        assert_eq!(split("HTTP/1.0 503 No\r\nx: y\r\n\r\nnot ready"), Some((503, "not ready".into())));
        assert_eq!(split("SSH-2.0-x\r\n\r\n"), None);
    }

    #[test]
    fn a_value_of_a_query_is_encoded() {
        assert_eq!(query_value("app in (a,b),!c"), "app%20in%20%28a%2Cb%29%2C%21c");
    }

    #[test]
    fn a_conflict_names_owner_and_field() {
        let status = serde_json::json!({
            "code": 409, "message": "Apply failed", "details": { "causes": [
                { "message": "conflict with \"kubectl-edit\" using apps/v1", "field": ".spec.replicas" },
            ] },
        });
        let failure = Failure::of(&serde_json::from_value(status).unwrap());
        assert_eq!(failure.to_string(), "conflict with \"kubectl-edit\" using apps/v1 at .spec.replicas");
    }
}
