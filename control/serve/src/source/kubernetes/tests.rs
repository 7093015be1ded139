//! A watch of one kind against an API server that does what it is told: the faults themselves are what is tried here.

use super::*;
use bytes::Bytes;
use control_index::Index;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use std::{convert::Infallible, io, sync::Mutex};
use tokio::{sync::mpsc, task::JoinHandle};

/// What the server is asked, and how it is told to answer.
struct Asked {
    uri: String,
    accept: String,
    answer: tokio::sync::oneshot::Sender<Response<UnsyncBoxBody<Bytes, io::Error>>>,
}

/// A watch that the test writes to; dropping it ends the watch.
struct Lines(mpsc::UnboundedSender<Result<String, io::Error>>);

struct World {
    asked: mpsc::UnboundedReceiver<Asked>,
    readiness: Arc<Readiness>,
    seen: Arc<Mutex<Seen>>,
    _task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    index: Index,
    problems: BTreeSet<Problem>,
}

fn world(kind: Kind) -> World {
    let (calls, asked) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let accept = request.headers()[http::header::ACCEPT].to_str().expect("text").to_owned();
        let sent = calls.send(Asked { uri: request.uri().to_string(), accept, answer });
        async move {
            sent.map_err(|_| io::Error::other("the test is over"))?;
            answered.await.map_err(io::Error::other)
        }
    });
    let client = kube::Client::new(service, "default");
    let (readiness, seen) = (Arc::new(Readiness::default()), Arc::new(Mutex::new(Seen::default())));
    readiness.wait_for(kind.plural());
    let into = Arc::clone(&seen);
    let take = move |batch: Batch| {
        let mut seen = into.lock().expect("the test goes on");
        for change in batch.changes {
            match change {
                Change::Apply { object, .. } => drop(seen.index.apply(&object)),
                Change::Delete(key) => drop(seen.index.delete(&key)),
            }
        }
        seen.problems = batch.problems;
    };
    let task = tokio::spawn(follow(kind, client, Arc::clone(&readiness), take));
    World { asked, readiness, seen, _task: task }
}

impl World {
    async fn asked(&mut self) -> Asked {
        self.asked.recv().await.expect("a request")
    }

    /// The next request must be a list, and is answered with these.
    async fn list(&mut self, version: u32, names: &[&str]) {
        let asked = self.asked().await;
        assert!(!asked.uri.contains("watch=true"), "{}", asked.uri);
        asked.page(version, names, "");
    }

    /// The next request must be a watch from a version on.
    async fn watch(&mut self, version: u32) -> Lines {
        let asked = self.asked().await;
        let from = format!("resourceVersion={version}");
        assert!(asked.uri.contains("watch=true") && asked.uri.ends_with(&from), "{}", asked.uri);
        asked.watch()
    }

    /// Waits until these are known.
    async fn knows(&self, names: &[&str]) {
        self.until(|seen| {
            let found = ["a", "b", "c", "d"]
                .into_iter()
                .filter(|name| seen.index.service(&policy::ServiceName::new("shop", name)).is_some());
            found.eq(names.iter().copied())
        })
        .await;
    }

    async fn problem(&self, part: &str) {
        self.until(|seen| match part {
            "" => seen.problems.is_empty(),
            part => seen.problems.iter().any(|problem| problem.to_string().contains(part)),
        })
        .await;
    }

    /// Within virtual time, which passes only while nobody has anything to do.
    async fn until(&self, holds: impl Fn(&Seen) -> bool) {
        for _ in 0..10_000 {
            if holds(&self.seen.lock().expect("the watch goes on")) {
                return;
            }
            tokio::task::yield_now().await;
        }
        let seen = self.seen.lock().expect("the watch goes on");
        panic!("{} objects, problems {:?}", seen.index.count(Kind::Service), seen.problems);
    }
}

impl Asked {
    fn respond(self, status: u16, body: impl Into<String>) {
        let body =
            http_body_util::Full::new(Bytes::from(body.into())).map_err(|never: Infallible| match never {});
        let response = Response::builder().status(status).body(body.boxed_unsync()).expect("a response");
        let _ = self.answer.send(response);
    }

    fn page(self, version: u32, names: &[&str], after: &str) {
        let items: Vec<String> = names.iter().map(|name| service(name, version)).collect();
        self.items(version, &items, after);
    }

    fn items(self, version: u32, items: &[String], after: &str) {
        self.respond(
            200,
            format!(
                r#"{{"kind":"List","metadata":{{"resourceVersion":"{version}","continue":"{after}"}},"items":[{}]}}"#,
                items.join(",")
            ),
        );
    }

    fn fail(self, code: u16, message: &str) {
        self.respond(code, status(code, message));
    }

    fn watch(self) -> Lines {
        let (lines, heard) = mpsc::unbounded_channel::<Result<String, io::Error>>();
        let frames = stream::unfold(heard, |mut heard| async move {
            let line = heard.recv().await?;
            Some((line.map(|line| Frame::data(Bytes::from(line + "\n"))), heard))
        });
        let _ = self.answer.send(Response::new(StreamBody::new(Box::pin(frames)).boxed_unsync()));
        Lines(lines)
    }
}

impl Lines {
    fn say(&self, kind: &str, object: &str) {
        self.0.send(Ok(format!(r#"{{"type":"{kind}","object":{object}}}"#))).expect("a watch");
    }

    fn bookmark(&self, version: u32) {
        self.say(
            "BOOKMARK",
            &format!(r#"{{"kind":"Service","metadata":{{"resourceVersion":"{version}"}}}}"#),
        );
    }
}

fn service(name: &str, version: u32) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"{version}"}},"spec":{{"clusterIP":"10.96.0.1","ports":[{{"port":80}}]}}}}"#
    )
}

fn status(code: u16, message: &str) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"{message}","reason":"X","code":{code}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn pages_are_read_one_after_the_other_and_then_watched() {
    let mut world = world(Kind::Service);
    let first = world.asked().await;
    assert!(first.uri.contains("/api/v1/services?limit=500"), "{}", first.uri);
    first.page(7, &["a", "b"], "more/of it");
    let second = world.asked().await;
    assert!(second.uri.contains("continue=more%2Fof%20it"), "{}", second.uri);
    assert!(world.readiness.text().is_some_and(|text| text.contains("services")));
    second.page(7, &["c"], "");
    let lines = world.watch(7).await;
    world.knows(&["a", "b", "c"]).await;
    world.readiness.settled().await;
    lines.say("DELETED", &service("a", 8));
    lines.say("ADDED", &service("d", 9));
    world.knows(&["b", "c", "d"]).await;
    lines.bookmark(20);
    drop(lines);
    world.watch(20).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_while_nobody_watched_is_found_by_the_next_list() {
    // However the server says that a version is too old.
    for way in ["event", "answer", "page"] {
        let mut world = world(Kind::Service);
        world.list(5, &["a", "b"]).await;
        match way {
            "event" => {
                let lines = world.watch(5).await;
                lines.say("ERROR", &status(410, "too old resource version"));
            }
            "answer" => world.asked().await.fail(410, "too old resource version"),
            _ => {
                let lines = world.watch(5).await;
                lines.say("ERROR", &status(410, "Expired"));
                world.asked().await.page(8, &["a"], "then");
                world.asked().await.fail(410, "the continue token is too old");
            }
        }
        world.list(9, &["b", "c"]).await;
        let lines = world.watch(9).await;
        world.knows(&["b", "c"]).await;
        world.problem("").await;
        drop(lines);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_goes_on_where_it_stood() {
    let mut world = world(Kind::Service);
    world.list(5, &["a"]).await;
    let lines = world.watch(5).await;
    lines.say("ADDED", &service("b", 6));
    lines.0.send(Err(io::Error::from(io::ErrorKind::ConnectionReset))).expect("a watch");
    world.problem("was cut").await;
    world.knows(&["a", "b"]).await;
    let lines = world.watch(6).await;
    world.problem("").await;
    // Half an event: the one before it counts, and the rest is asked for again.
    lines.say("ADDED", &service("c", 7));
    lines.0.send(Ok(r#"{"type":"ADDED","object":{"metadata":{"na"#.into())).expect("a watch");
    world.problem("cannot be read").await;
    world.watch(7).await;
    world.knows(&["a", "b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_begun_anew_and_one_with_bookmarks_is_not() {
    let mut world = world(Kind::Service);
    world.list(5, &["a"]).await;
    let lines = world.watch(5).await;
    for version in 6..10 {
        sleep(Duration::from_secs(60)).await;
        lines.bookmark(version);
    }
    assert!(world.asked.try_recv().is_err(), "it heard bookmarks");
    let begun = Instant::now();
    world.watch(9).await;
    assert!(begun.elapsed() >= Duration::from_secs(99), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_listed_is_named_until_it_may() {
    let mut world = world(Kind::Service);
    let message = "services is forbidden: User control cannot list resource services in API group";
    world.asked().await.fail(403, message);
    world.problem("cannot list resource services").await;
    world.problem("ClusterRole").await;
    assert!(world.readiness.text().is_some_and(|text| text.contains("cannot list resource services")));
    world.asked().await.fail(500, "etcd is away");
    world.problem("etcd is away").await;
    world.list(5, &["a"]).await;
    let _lines = world.watch(5).await;
    world.readiness.settled().await;
    world.problem("").await;
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_while_a_fault_lasts() {
    let mut world = world(Kind::Service);
    let begun = Instant::now();
    for _ in 0..12 {
        world.asked().await.fail(500, "no");
    }
    // The pauses are random between a half and all of 0.25 s, 0.5 s, 1 s … 16 s, 30 s, 30 s, ….
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(70) && took < Duration::from_secs(153), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_keeps_what_it_said() {
    let mut world = world(Kind::Service);
    world.list(5, &["a"]).await;
    let lines = world.watch(5).await;
    world.knows(&["a"]).await;
    lines.say(
        "MODIFIED",
        r#"{"metadata":{"name":"a","namespace":"shop","resourceVersion":"6"},"spec":{"ports":"none"}}"#,
    );
    world.problem("Service shop/a").await;
    world.knows(&["a"]).await;
    lines.say("MODIFIED", &service("a", 7));
    world.problem("").await;
    lines.say("DELETED", &service("a", 8));
    world.knows(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn only_metadata_is_asked_for_where_nothing_else_is_read() {
    for (kind, metadata) in
        [(Kind::Node, true), (Kind::Namespace, true), (Kind::ServiceAccount, true), (Kind::Pod, false)]
    {
        let mut world = world(kind);
        let asked = world.asked().await;
        assert_eq!(asked.accept.contains("PartialObjectMetadataList"), metadata, "{kind}");
        assert_eq!(asked.uri.contains("fieldSelector=status.phase"), kind == Kind::Pod, "{kind}");
    }
}

fn config_map(name: &str, version: u32, data: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"{version}"}},"data":{data}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn of_config_maps_those_with_certificates_are_held() {
    const CA: &str = r#"{"ca.crt":"one"}"#;
    let mut world = world(Kind::ConfigMap);
    let asked = world.asked().await;
    assert!(asked.uri.starts_with("/api/v1/configmaps?") && asked.uri.contains("limit=50"), "{}", asked.uri);
    asked.items(
        5,
        &[config_map("a", 1, CA), config_map("b", 2, r#"{"colour":"blue"}"#), config_map("c", 3, "null")],
        "",
    );
    let lines = world.watch(5).await;
    held(&world, Kind::ConfigMap, 1).await;
    lines.say("MODIFIED", &config_map("b", 6, CA));
    held(&world, Kind::ConfigMap, 2).await;
    lines.say("MODIFIED", &config_map("a", 7, r#"{"colour":"blue"}"#));
    held(&world, Kind::ConfigMap, 1).await;
    assert!(world.seen.lock().expect("the watch goes on").index.authorities("shop", "b").is_some());
    lines.say("DELETED", &config_map("b", 8, CA));
    held(&world, Kind::ConfigMap, 0).await;
}

/// Waits in virtual time until as many are held.
async fn held(world: &World, kind: Kind, count: usize) {
    world.until(|seen| seen.index.count(kind) == count).await;
}

fn route(name: &str, version: u32) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"shop","resourceVersion":"{version}"}},"spec":{{"parentRefs":[{{"group":"","kind":"Service","name":"cart"}}]}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_there_is_looked_for_and_nothing_is_wrong() {
    let mut world = world(Kind::TlsRoute);
    for version in ["v1", "v1alpha3", "v1alpha2"] {
        let asked = world.asked().await;
        let path = format!("/apis/gateway.networking.k8s.io/{version}/tlsroutes?limit");
        assert!(asked.uri.starts_with(&path), "{}", asked.uri);
        asked.fail(404, "the server could not find the requested resource");
    }
    world.readiness.settled().await;
    world.problem("").await;
    let begun = Instant::now();
    let asked = world.asked().await;
    assert!((1..8).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    asked.fail(404, "not yet");
    // An older installation: the version that it has is the one that is watched.
    let asked = world.asked().await;
    asked.respond(200, format!(r#"{{"metadata":{{"resourceVersion":"5"}},"items":[{}]}}"#, route("a", 5)));
    let asked = world.asked().await;
    assert!(asked.uri.contains("/v1alpha3/tlsroutes?watch=true"), "{}", asked.uri);
    let lines = asked.watch();
    held(&world, Kind::TlsRoute, 1).await;
    lines.say("ADDED", &route("b", 6));
    held(&world, Kind::TlsRoute, 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_read_goes_when_its_kind_is_missed_twice() {
    let mut world = world(Kind::HttpRoute);
    let list =
        |version| format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[{}]}}"#, route("a", 5));
    world.asked().await.respond(200, list(5));
    drop(world.watch(5).await);
    held(&world, Kind::HttpRoute, 1).await;
    // An API server that has just started.
    world.asked().await.fail(404, "not yet");
    world.asked().await.respond(200, list(6));
    drop(world.watch(6).await);
    held(&world, Kind::HttpRoute, 1).await;
    world.asked().await.fail(404, "it is gone");
    for _ in Kind::HttpRoute.versions() {
        world.asked().await.fail(404, "it is gone");
    }
    held(&world, Kind::HttpRoute, 0).await;
    world.problem("").await;
}
