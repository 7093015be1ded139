//! What was decided about one request or connection: where it may go, and what its rule asks for. The decision is `policy`'s; here it
//! is held for as long as the request lasts.

use crate::{
    allowance::Allowance,
    destination::{Chosen, Hops, Resolved},
    hop::Hop,
    session::{self, Session},
    worker::Worker,
};
use http::{HeaderName, HeaderValue};
use policy::{
    Action, BackendRef, BackendSettings, Cors, Facts, Fields, Filter, Forward, Found, PathMatch, Protocol,
    Reason, Redirect, Routes, Rule, ServicePort, Settings,
    limits::LOCAL_CONNECT_WAIT,
    rule::pick,
    settings::{DirectResponse, RetryBudget, Set},
};
use proxy_http::{client::Client, failed::Failed};
use std::{borrow::Cow, net::SocketAddr, rc::Rc, time::Duration};

/// Where one request may go.
pub struct Routed {
    pub hops: Hops,
    /// What the owner of the port says that it speaks.
    pub protocol: Protocol,
    /// The service that was asked for: a label of refusals.
    pub service: Option<Rc<str>>,
    /// None for what arrives: the side that sent it has decided.
    ruled: Option<Ruled>,
}

/// What the policy of the destination says.
struct Ruled {
    resolved: Rc<Resolved>,
    found: Option<Found>,
    /// Of the rule's backends.
    backend: Option<usize>,
    verdict: Verdict,
    /// That the request is of.
    session: Option<Session>,
}

/// Whether the request is sent anywhere.
#[derive(Clone)]
enum Verdict {
    Forward,
    Redirect,
    Preflight,
    Respond,
    Refuse(Failed),
}

/// An answer that a rule gives in the place of a backend.
pub enum Own<'a> {
    Redirect(&'a Redirect),
    Preflight(&'a Cors),
    Respond(&'a DirectResponse),
    Refuse(&'a Failed),
}

/// A request's head as `policy` asks about it.
struct Head<'a>(&'a Client);

impl Fields for Head<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.0.values(name)
    }
}

impl Routed {
    /// To one place, by nobody's policy.
    pub fn to(hops: Hops, protocol: Protocol, service: Option<Rc<str>>) -> Self {
        Self { hops, protocol, service, ruled: None }
    }

    /// A request, by the policy of its destination.
    pub fn request(worker: &Rc<Worker>, resolved: Rc<Resolved>, client: &Client) -> Self {
        let path = client.path();
        let facts =
            Facts { method: client.method(), target: &path, fields: &Head(client), grpc: client.is_grpc() };
        let decision = policy::route(&resolved.policy, &facts, &mut ());
        let (found, action) = (decision.found, decision.action);
        let session = match action {
            Action::Forward(forward) => session_of(forward, client),
            _ => None,
        };
        // A session goes before the weights (GEP-1619).
        let (verdict, backend) = match session {
            Some((_, at)) => (Verdict::Forward, at),
            None => verdict(worker, action),
        };
        let session = session.map(|(session, _)| session);
        Self::new(worker, resolved.clone(), found, backend, verdict, session)
    }

    /// A connection of bytes; `sni`: what a TLS client asks for.
    pub fn connection(worker: &Rc<Worker>, resolved: Rc<Resolved>, sni: Option<Option<&str>>) -> Self {
        let decision = policy::route_connection(&resolved.policy, sni, &mut ());
        let (found, action) = (decision.found, decision.action);
        let (verdict, backend) = verdict(worker, action);
        Self::new(worker, resolved.clone(), found, backend, verdict, None)
    }

    fn new(
        worker: &Rc<Worker>,
        resolved: Rc<Resolved>,
        found: Option<Found>,
        backend: Option<usize>,
        verdict: Verdict,
        session: Option<Session>,
    ) -> Self {
        let hops = match found.zip(backend) {
            Some((found, backend)) => resolved.backend(worker, found, backend),
            None => None,
        };
        Self {
            hops: hops.unwrap_or_else(|| resolved.target()),
            protocol: resolved.policy.protocol,
            service: resolved.label.clone(),
            ruled: Some(Ruled { resolved, found, backend, verdict, session }),
        }
    }

    /// A hop, another one than those that were tried if there is one; that of the session, if it is still there.
    pub async fn choose(&self, worker: &Worker, tried: &[Rc<Hop>]) -> Result<Chosen, Failed> {
        let accrual = self.backend().and_then(|backend| backend.accrual.as_ref());
        if let (Some(session), []) = (self.ruled.as_ref().and_then(|ruled| ruled.session), tried)
            && let Some(chosen) = Box::pin(self.hops.keyed(worker, session.endpoint, accrual)).await
        {
            return Ok(chosen);
        }
        self.hops.choose(worker, tried, accrual).await
    }

    /// By which a response of this hop tells its client the session, where it is a new one or was renewed.
    pub fn session_field(&self, hop: &Hop) -> Option<(HeaderName, HeaderValue)> {
        let settings = &self.backend()?.session.as_ref()?.value;
        let ruled = self.ruled.as_ref()?;
        let service = match (self.rule(), ruled.backend) {
            (Some(rule), Some(at)) => match &rule.backends.get(at)?.backend {
                BackendRef::Service(service) => service,
                BackendRef::Unresolved(_) => return None,
            },
            _ => ruled.resolved.service.as_ref()?,
        };
        let now = session::now();
        let session = match ruled.session.filter(|session| session.endpoint == hop.key) {
            Some(session) => session.renewed(settings, now)?,
            None => Session::new(service, hop.key, now),
        };
        session.field(settings, self.path(), now)
    }

    /// The path for which the rule is there that holds.
    fn path(&self) -> &str {
        let ruled = self.ruled.as_ref();
        let found = ruled.and_then(|ruled| Some((&ruled.resolved.policy.routes, ruled.found?.by?)));
        match found {
            Some((Routes::Http(table) | Routes::Grpc(table), by)) => match &table.matches()[by].0.path {
                PathMatch::Exact(path) | PathMatch::Prefix(path) => path,
                PathMatch::Regex(_) | PathMatch::Rpc { .. } => "/",
            },
            _ => "/",
        }
    }

    /// TLS is routed by the name that its client asks for.
    pub fn is_named(&self) -> bool {
        self.ruled.as_ref().is_some_and(|ruled| matches!(ruled.resolved.policy.routes, Routes::Tls(_)))
    }

    /// The rule that holds.
    pub fn rule(&self) -> Option<&Rule> {
        let ruled = self.ruled.as_ref()?;
        ruled.resolved.policy.routes.rule(ruled.found?)
    }

    /// How it is to be carried.
    pub fn settings(&self) -> &Settings {
        match (self.rule(), &self.ruled) {
            (Some(rule), _) => &rule.settings,
            (None, Some(ruled)) => &ruled.resolved.policy.settings,
            (None, None) => Settings::DEFAULT,
        }
    }

    /// How long one attempt to connect may take.
    pub fn connect_wait(&self) -> Duration {
        match &self.ruled {
            Some(_) => self.settings().timeouts.connect(),
            None => LOCAL_CONNECT_WAIT,
        }
    }

    /// What holds for the backend.
    pub fn backend(&self) -> Option<&BackendSettings> {
        let ruled = self.ruled.as_ref()?;
        match (self.rule(), ruled.backend) {
            (Some(rule), Some(at)) => rule.backends.get(at).map(|one| &one.settings),
            _ => Some(&ruled.resolved.policy.backend),
        }
    }

    /// What may be done to the backend.
    pub fn allowance(&self) -> Option<&Allowance> {
        let ruled = self.ruled.as_ref()?;
        Some(self.hops.allowance().unwrap_or(&ruled.resolved.allowance))
    }

    /// What repetitions may add to its load.
    pub fn budget(&self) -> Option<&Set<RetryBudget>> {
        self.backend()?.budget.as_ref()
    }

    /// The filters of the rule, then those of the backend.
    pub fn filters(&self) -> impl Iterator<Item = &Filter> {
        let rule = self.rule();
        let backend = rule.and_then(|rule| rule.backends.get(self.ruled.as_ref()?.backend?));
        let of_backend = backend.map(|backend| backend.filters.iter()).unwrap_or_default();
        rule.map(|rule| rule.filters.iter()).unwrap_or_default().chain(of_backend)
    }

    /// What the application dialled.
    pub fn dialled(&self) -> Option<SocketAddr> {
        self.ruled.as_ref().map(|ruled| ruled.resolved.address)
    }

    /// The path prefix that the rule was found by.
    pub fn prefix(&self) -> Option<&str> {
        let ruled = self.ruled.as_ref()?;
        ruled.resolved.policy.routes.prefix(ruled.found?)
    }

    /// The answer that is given without asking a backend.
    pub fn own(&self) -> Option<Own<'_>> {
        let filters = || self.rule().map(|rule| rule.filters.iter()).unwrap_or_default();
        match &self.ruled.as_ref()?.verdict {
            Verdict::Forward => None,
            Verdict::Redirect => filters().find_map(|filter| match filter {
                Filter::Redirect(redirect) => Some(Own::Redirect(redirect)),
                _ => None,
            }),
            Verdict::Preflight => filters().find_map(|filter| match filter {
                Filter::Cors(cors) => Some(Own::Preflight(cors)),
                _ => None,
            }),
            Verdict::Respond => self.settings().direct_response.as_ref().map(|set| Own::Respond(&set.value)),
            Verdict::Refuse(failed) => Some(Own::Refuse(failed)),
        }
    }
}

/// The session that a request is of, and its backend.
fn session_of(forward: Forward<'_>, client: &Client) -> Option<(Session, Option<usize>)> {
    let of = |settings: &BackendSettings, service: &ServicePort| {
        let settings = &settings.session.as_ref()?.value;
        Session::of_request(settings, client, service, session::now())
    };
    match forward {
        Forward::Split(backends) => backends.iter().enumerate().find_map(|(at, one)| match &one.backend {
            BackendRef::Service(service) => Some((of(&one.settings, service)?, Some(at))),
            BackendRef::Unresolved(_) => None,
        }),
        Forward::Balanced(service, settings) => Some((of(settings, service)?, None)),
        Forward::Endpoint(_) | Forward::Original => None,
    }
}

/// What is to be done, and the backend that chance picks.
fn verdict(worker: &Worker, action: Action<'_>) -> (Verdict, Option<usize>) {
    match action {
        Action::Forward(Forward::Split(backends)) => {
            let at = match backends.len() {
                1 => Some(0),
                _ => pick(backends, worker.rng.borrow_mut().bits()),
            };
            match at.map(|at| &backends[at].backend) {
                Some(BackendRef::Service(_)) => (Verdict::Forward, at),
                Some(BackendRef::Unresolved(why)) => {
                    (refuse(Reason::ProxyConfigurationError, why.to_string()), at)
                }
                None => {
                    (refuse(Reason::ProxyConfigurationError, "no backend of the rule has a weight"), None)
                }
            }
        }
        Action::Forward(_) => (Verdict::Forward, None),
        Action::Redirect(_) => (Verdict::Redirect, None),
        Action::Preflight(_) => (Verdict::Preflight, None),
        Action::Respond(_) => (Verdict::Respond, None),
        Action::Refuse(Reason::DestinationNotFound) => {
            (refuse(Reason::DestinationNotFound, "no rule of its routes matches the request"), None)
        }
        Action::Refuse(reason) => (refuse(reason, "the rule has no backend that takes requests"), None),
    }
}

fn refuse(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Verdict {
    Verdict::Refuse(Failed::new(reason, detail))
}
