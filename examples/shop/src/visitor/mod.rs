//! Role visitor: a crowd that walks through the shop at a fixed rate over keep-alive connections, checks every
//! answer, and tells at the end what it saw. It never retries: what fails is counted.

mod journey;
mod pace;
mod tally;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::args::Visit;
use crate::client::Client;
use crate::fault::{blame, proxy_error};
use crate::say;
use journey::{Step, journey, purchase};
use pace::Pace;
pub use tally::Report;
use tally::Tally;

/// A request that starts this much after its turn counts as late.
const LATE: Duration = Duration::from_millis(100);
/// Between two tries of the purchase that opens the visit.
const TRY_PAUSE: Duration = Duration::from_millis(200);

/// What all visitors of one run share.
struct Crowd {
    client: Client,
    start: Instant,
    pace: Mutex<Pace>,
    tally: Mutex<Tally>,
    stopped: watch::Receiver<bool>,
}

/// Visits until the duration is over or `stop` comes; requests under way are finished and counted.
/// Fails only if the shop does not open within the wait.
pub async fn run(visit: &Visit, stop: impl Future<Output = ()>) -> anyhow::Result<Report> {
    let client = Client::new(visit.target.clone().context("the visitor needs --target or TARGET_URL")?);
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        opened = open(&client, visit.wait) => opened?,
        () = stop.as_mut() => return Ok(Tally::default().report(Duration::ZERO, 0)),
    }
    let (stopping, stopped) = watch::channel(false);
    let crowd = Arc::new(Crowd {
        client,
        start: Instant::now(),
        pace: Mutex::new(Pace::new(visit.rps, visit.duration)),
        tally: Mutex::default(),
        stopped,
    });
    say(&format!("visitor started, {} requests a second", visit.rps));
    let mut visitors: JoinSet<()> = (0..visit.crowd).map(|number| wander(crowd.clone(), number)).collect();
    let mut second = interval(Duration::from_secs(1));
    second.tick().await;
    let mut stopped = false;
    loop {
        tokio::select! {
            left = visitors.join_next() => match left {
                Some(left) => left.context("a visitor panicked")?,
                None => break,
            },
            _ = second.tick(), if visit.progress => {
                let line = crowd.tally().progress(crowd.start.elapsed());
                say(&line);
            }
            () = stop.as_mut(), if !stopped => {
                stopped = true;
                stopping.send_replace(true);
            }
        }
    }
    let skipped = crowd.pace().skipped();
    let report = crowd.tally().report(crowd.start.elapsed(), skipped);
    Ok(report)
}

/// Tries one purchase, uncounted, until all of it succeeds: then every service of the shop answers.
async fn open(client: &Client, wait: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + wait;
    while !wait.is_zero() {
        let Err(kind) = buy_once(client).await else { break };
        anyhow::ensure!(Instant::now() < deadline, "the shop did not open within {wait:?}: {kind}");
        sleep(TRY_PAUSE).await;
    }
    Ok(())
}

async fn buy_once(client: &Client) -> Result<(), String> {
    let mut token = None;
    for step in purchase(0) {
        if let Some(granted) = take(client, &step, "visitor-first", token.as_deref()).await? {
            token = Some(granted);
        }
    }
    Ok(())
}

/// One visitor: journey after journey, each request at the turn that the pace gives.
async fn wander(crowd: Arc<Crowd>, number: u32) {
    let name = format!("visitor-{number}");
    let mut stopped = crowd.stopped.clone();
    for round in 0.. {
        let mut token = None;
        for step in journey(u64::from(number), round) {
            let Some(turn) = crowd.pace().claim(crowd.start.elapsed()) else { return };
            tokio::select! {
                () = sleep_until(crowd.start + turn) => {}
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return,
            }
            let began = Instant::now();
            let result = take(&crowd.client, &step, &name, token.as_deref()).await;
            let late = began.duration_since(crowd.start + turn) > LATE;
            crowd.tally().count(step.name(), began.elapsed(), late, result.as_ref().err());
            match result {
                Ok(None) => {}
                Ok(granted) => token = granted,
                // The steps that follow build on this one.
                Err(_) => break,
            }
        }
    }
}

/// Takes one step and checks the answer. Returns the token if one was given, or the kind of the failure.
async fn take(
    client: &Client,
    step: &Step,
    name: &str,
    token: Option<&str>,
) -> Result<Option<String>, String> {
    let (method, path, body) = step.request(name);
    let posted = method == Method::POST;
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("steps have plain paths");
    if posted {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let group = if name.bytes().map(u32::from).sum::<u32>() % 2 == 0 {
        "weft-shop group-a"
    } else {
        "weft-shop group-b"
    };
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(group));
    if let Some(token) = token {
        let value =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "wrong_answer".to_owned())?;
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let response = client.send(request).await.map_err(|failure| failure.reason().to_owned())?;
    if !response.status().is_success() {
        return Err(kind(&response));
    }
    step.check(name, response.body()).ok_or_else(|| "wrong_answer".to_owned())
}

/// The name under which an unwanted answer is counted: its status, who is to blame, and why, as far as they are told.
fn kind(response: &Response<Bytes>) -> String {
    let status = response.status().as_u16();
    let told: Option<Value> = serde_json::from_slice(response.body()).ok();
    if let Some((upstream, reason)) = told.as_ref().and_then(blame) {
        return format!("status_{status} {upstream} {reason}");
    }
    match response.headers().get("proxy-status").and_then(proxy_error) {
        Some(reason) => format!("status_{status} {reason}"),
        None => format!("status_{status}"),
    }
}

impl Crowd {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
