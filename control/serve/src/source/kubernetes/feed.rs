//! The API server's lists and watches, read into objects of the index. What is decided by them is in the parent module.

use crate::cluster::{self, REQUEST_WAIT};
use control_index::{Key, Kind, Object, manifest::ObjectMeta};
use futures_util::{Stream, StreamExt, io::AsyncBufReadExt};
use http::{
    Request,
    header::{ACCEPT, ACCEPT_ENCODING},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, io, time::Duration};
use tokio::time::timeout;

/// Objects of one page of a list: as many are held whole at once.
const PAGE: usize = 500;
/// The same of those that may be 1 MiB each.
const PAGE_OF_LARGE: usize = 50;
/// Events that came together and are taken together, so that what they change together is told once.
const TOGETHER: usize = 256;
/// The server ends a watch after this many seconds; the next one goes on where it stood.
const WATCH_SECONDS: u32 = 290;
/// Bookmarks come once a minute: a watch that is silent for longer hangs.
const SILENCE: Duration = Duration::from_secs(100);

/// Some objects of a list.
pub struct Page {
    pub items: Vec<Item>,
    /// Where the list stands.
    pub version: String,
    /// Where the next page begins; `None`: this was the last one.
    pub after: Option<String>,
}

/// One object, or why it could not be read.
pub struct Item {
    pub key: Key,
    pub object: Result<Object, String>,
}

/// What a watch says, each with the version after it.
pub enum Event {
    Applied(String, Item),
    Deleted(String, Key),
    Bookmark(String),
}

/// Why a list or a watch ended early.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the version to go on from is too old")]
    Gone,
    /// Its CustomResourceDefinition is not there, or not in this version.
    #[error("the API server does not know them")]
    Unknown,
    #[error("{}; it is tried again, and what was read before stays", cluster::explain(.0))]
    Request(#[source] kube::Error),
    #[error(
        "the connection to the API server was cut: {0}; it is tried again, and what was read before stays"
    )]
    Cut(#[source] io::Error),
    #[error("the API server did not answer for {} s; it is tried again, and what was read before stays", .0.as_secs())]
    Silent(Duration),
    #[error("the API server's answer cannot be read: {0}; it is tried again, and what was read before stays")]
    Malformed(String),
}

/// As much of an object as says which one it is, in which version.
#[derive(Deserialize)]
struct Stub {
    metadata: StubMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StubMeta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: String,
}

#[derive(Deserialize)]
struct List<'a> {
    metadata: ListMeta,
    /// `null` when it is empty.
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    after: Option<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// One page of the list of a kind, in one of its versions.
pub async fn page(
    client: &kube::Client,
    kind: Kind,
    api_version: &str,
    after: Option<&str>,
) -> Result<Page, Fault> {
    let after = after.map(|after| format!("&continue={}", escape(after))).unwrap_or_default();
    let limit = if kind == Kind::ConfigMap { PAGE_OF_LARGE } else { PAGE };
    let request = request(kind, api_version, "List", &format!("limit={limit}{after}"));
    let text = timeout(REQUEST_WAIT, client.request_text(request));
    let text = text.await.map_err(|_| Fault::Silent(REQUEST_WAIT))?;
    let text = text.map_err(|error| Fault::of(kind, error))?;
    let list: List<'_> = serde_json::from_str(&text).map_err(|error| Fault::Malformed(error.to_string()))?;
    let items = list.items.unwrap_or_default().into_iter();
    Ok(Page {
        items: items.map(|raw| Ok(item(kind, raw)?.1)).collect::<Result<_, Fault>>()?,
        version: list.metadata.resource_version,
        after: list.metadata.after.filter(|after| !after.is_empty()),
    })
}

/// The watch of a kind, in one of its versions, from where a list stood on, as lines of events that came together.
pub async fn watch(
    client: &kube::Client,
    kind: Kind,
    api_version: &str,
    version: &str,
) -> Result<impl Stream<Item = Vec<Result<String, Fault>>> + use<>, Fault> {
    let version = escape(version);
    let query = format!(
        "watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}"
    );
    let request = request(kind, api_version, "", &query);
    let stream = timeout(REQUEST_WAIT, client.request_stream(request));
    let stream = stream.await.map_err(|_| Fault::Silent(REQUEST_WAIT))?;
    let stream = stream.map_err(|error| Fault::of(kind, error))?;
    Ok(stream.lines().map(|line| line.map_err(Fault::Cut)).ready_chunks(TOGETHER))
}

/// The next lines; `None` when the server ended the watch.
pub async fn next<S>(lines: &mut S) -> Result<Option<S::Item>, Fault>
where
    S: Stream + Unpin,
{
    timeout(SILENCE, lines.next()).await.map_err(|_| Fault::Silent(SILENCE))
}

impl Event {
    pub fn read(kind: Kind, line: &str) -> Result<Self, Fault> {
        let malformed = |error: serde_json::Error| Fault::Malformed(error.to_string());
        let Line { kind: event, object } = serde_json::from_str(line).map_err(malformed)?;
        match &*event {
            "ADDED" | "MODIFIED" => item(kind, object).map(|(version, item)| Self::Applied(version, item)),
            "DELETED" => {
                let stub: Stub = serde_json::from_str(object.get()).map_err(malformed)?;
                let key = stub.key(kind)?;
                Ok(Self::Deleted(stub.metadata.resource_version, key))
            }
            "BOOKMARK" => {
                let stub: Stub = serde_json::from_str(object.get()).map_err(malformed)?;
                Ok(Self::Bookmark(stub.metadata.resource_version))
            }
            "ERROR" => {
                let status: kube::core::Status = serde_json::from_str(object.get()).map_err(malformed)?;
                Err(Fault::of(kind, kube::Error::Api(Box::new(status))))
            }
            other => Err(Fault::Malformed(format!("{other:?} is no event"))),
        }
    }
}

impl Fault {
    fn of(kind: Kind, error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 410 => Self::Gone,
            kube::Error::Api(status) if status.code == 404 && !kind.is_built_in() => Self::Unknown,
            _ => Self::Request(error),
        }
    }
}

impl Stub {
    fn key(&self, kind: Kind) -> Result<Key, Fault> {
        let StubMeta { name, namespace, .. } = &self.metadata;
        let metadata =
            ObjectMeta { name: name.clone(), namespace: namespace.clone(), ..ObjectMeta::default() };
        Key::read(kind, &metadata).map_err(|error| Fault::Malformed(error.to_string()))
    }
}

fn item(kind: Kind, raw: &RawValue) -> Result<(String, Item), Fault> {
    let stub: Stub = serde_json::from_str(raw.get()).map_err(|error| Fault::Malformed(error.to_string()))?;
    let object = kind.read(&mut serde_json::Deserializer::from_str(raw.get()));
    let item = Item { key: stub.key(kind)?, object: object.map_err(|error| error.to_string()) };
    Ok((stub.metadata.resource_version, item))
}

/// Of what is read for its labels alone, only the metadata is asked for.
fn request(kind: Kind, version: &str, list: &str, query: &str) -> Request<Vec<u8>> {
    let group = match kind.group() {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    let accept = match kind {
        Kind::Namespace | Kind::Node | Kind::ServiceAccount => {
            format!("application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1,application/json")
        }
        _ => "application/json".into(),
    };
    let running = match kind {
        Kind::Pod => "&fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed",
        _ => "",
    };
    Request::get(format!("{group}/{}?{query}{running}", kind.plural()))
        .header(ACCEPT, accept)
        // Compressed watches would come as one member an event, which few readers take.
        .header(ACCEPT_ENCODING, "identity")
        .body(Vec::new())
        .expect("its parts are plain or escaped")
}

/// What may stand in a query (RFC 3986 §2.3).
fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().fold(String::new(), |escaped, byte| match plain(&byte) {
        true => escaped + &char::from(byte).to_string(),
        false => escaped + &format!("%{byte:02X}"),
    })
}
