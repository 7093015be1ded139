//! What each role answers, and what the roles share: a request as they see it, calls to other services, the words
//! of the shop. No sockets here; `server` is below, `client` beside.

mod auth;
mod cart;
mod customer;
mod order;
mod product;
mod review;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::args::{Role, Upstreams};
use crate::client::{Client, Target};
use crate::fault::{Fault, proxy_error};
#[cfg(test)]
pub use product::CATALOGUE;

/// One service of the shop: its role, with what that role remembers and whom it calls.
pub struct Service {
    role: Kind,
    served_by: HeaderValue,
    /// Percent of the requests that are answered with 503, and how many there were.
    failing: u8,
    asked: AtomicU64,
}

enum Kind {
    Customer(customer::Customer),
    Product(product::Product),
    Cart(cart::Cart),
    Order(order::Order),
    Auth,
    Review,
}

impl Service {
    /// Fails if an upstream that the role calls has no URL, or if `version` cannot stand in a header.
    pub fn new(role: Role, version: &str, upstreams: Upstreams) -> anyhow::Result<Self> {
        let Upstreams { product_url, cart_url, order_url, auth_url, review_url } = upstreams;
        let product = || Upstream::new("product", product_url);
        let cart = || Upstream::new("cart", cart_url);
        let order = || Upstream::new("order", order_url);
        let auth = || Upstream::new("auth", auth_url);
        let review = || Upstream::new("review", review_url);
        let (name, role) = match role {
            Role::Customer => {
                let role =
                    customer::Customer { product: product()?, cart: cart()?, order: order()?, auth: auth()? };
                ("customer", Kind::Customer(role))
            }
            Role::Product => ("product", Kind::Product(product::Product::new(version, review()?))),
            Role::Cart => ("cart", Kind::Cart(cart::Cart::new(product()?, auth()?))),
            Role::Order => ("order", Kind::Order(order::Order::new(product()?, cart()?, auth()?))),
            Role::Auth => ("auth", Kind::Auth),
            Role::Review => ("review", Kind::Review),
            Role::Visitor => anyhow::bail!("the visitor serves nothing"),
        };
        let served_by = HeaderValue::from_str(&format!("{name}-{version}"))
            .with_context(|| format!("version {version:?} is not a word"))?;
        Ok(Self { role, served_by, failing: 0, asked: AtomicU64::new(0) })
    }

    /// The same, of which so many percent of the answers are 503.
    pub fn failing(self, percent: u8) -> Self {
        Self { failing: percent, ..self }
    }

    /// `role-version`, sent with every answer.
    pub fn served_by(&self) -> &HeaderValue {
        &self.served_by
    }

    pub async fn answer(&self, asked: &Asked) -> Result<Answer, Fault> {
        if self.fails() {
            return Err(Fault::Flaky);
        }
        match &self.role {
            Kind::Customer(customer) => customer.answer(asked).await,
            Kind::Product(product) => product.answer(asked).await,
            Kind::Cart(cart) => cart.answer(asked).await,
            Kind::Order(order) => order.answer(asked).await,
            Kind::Auth => auth::answer(asked),
            Kind::Review => review::answer(asked),
        }
    }
}

impl Service {
    /// Whether this request is one of those that fail: spread as evenly as can be.
    fn fails(&self) -> bool {
        if self.failing == 0 {
            return false;
        }
        let before = self.asked.fetch_add(1, Ordering::Relaxed);
        let failed = |requests: u64| requests * u64::from(self.failing) / 100;
        failed(before + 1) > failed(before)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.served_by.to_str().unwrap_or("?"))
    }
}

/// A request as a role sees it.
pub struct Asked {
    method: Method,
    path: String,
    body: Bytes,
    /// Goes along with every call made on behalf of this request.
    carried: HeaderMap,
}

/// Who is asking and by what, and the trace that the request belongs to (W3C Trace Context).
const CARRIED: [HeaderName; 6] = [
    AUTHORIZATION,
    USER_AGENT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("x-request-id"),
];

impl Asked {
    pub fn new(head: &Parts, body: Bytes) -> Self {
        // The server leaves the body of an answer to HEAD away by itself.
        let method = if head.method == Method::HEAD { Method::GET } else { head.method.clone() };
        let mut carried = HeaderMap::new();
        for name in CARRIED {
            for value in head.headers.get_all(&name) {
                carried.append(name.clone(), value.clone());
            }
        }
        Self { method, path: head.uri.path().to_owned(), body, carried }
    }

    /// Method and path segments, to be matched on.
    fn route(&self) -> (&str, Vec<&str>) {
        (self.method.as_str(), self.path.split('/').filter(|segment| !segment.is_empty()).collect())
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body).map_err(|error| Fault::BadRequest(format!("the body: {error}")))
    }

    fn unknown(&self) -> Fault {
        Fault::NotFound(format!("{} {}", self.method, self.path))
    }
}

/// What a role gives back when all is well (200).
pub struct Answer {
    pub media: &'static str,
    pub body: Bytes,
}

impl Answer {
    fn json(value: &impl Serialize) -> Self {
        let body =
            serde_json::to_vec(value).expect("the shop's own types have string keys and no failing parts");
        Self { media: "application/json", body: body.into() }
    }
}

/// Another service, by the name under which a failure will blame it.
struct Upstream {
    name: &'static str,
    client: Client,
}

impl Upstream {
    fn new(name: &'static str, target: Option<Target>) -> anyhow::Result<Self> {
        let target = target.with_context(|| {
            format!("this role calls {name}: set {}_URL or --{name}-url", name.to_uppercase())
        })?;
        Ok(Self { name, client: Client::new(target) })
    }

    /// Calls on behalf of `asked` and returns the body of a 2xx answer. `path` is one that this program made.
    async fn call(&self, asked: &Asked, method: Method, path: &str, body: Bytes) -> Result<Bytes, Fault> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| Fault::BadRequest(format!("{path}: {error}")))?;
        *request.headers_mut() = asked.carried.clone();
        if !body.is_empty() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let sent = self.client.send(request).await;
        let response = sent.map_err(|failure| Fault::Unreachable { upstream: self.name, failure })?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        if head.status.is_client_error() {
            let content_type = head.headers.get(CONTENT_TYPE).cloned();
            return Err(Fault::Refused { status: head.status, content_type, body });
        }
        let proxy = head.headers.get("proxy-status").and_then(proxy_error).map(str::to_owned);
        let reason = proxy.unwrap_or_else(|| format!("status_{}", head.status.as_str()));
        Err(self.failed(head.status, reason, &body))
    }

    /// `call` with GET, the answer parsed.
    async fn fetch<T: DeserializeOwned>(&self, asked: &Asked, path: &str) -> Result<T, Fault> {
        let body = self.call(asked, Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&body)
            .map_err(|_| self.failed(StatusCode::OK, "answer_unreadable".into(), &[]))
    }

    fn failed(&self, status: StatusCode, reason: String, body: &[u8]) -> Fault {
        Fault::Failed { upstream: self.name, status, reason, cause: serde_json::from_slice(body).ok() }
    }
}

/// A short lower-case word, as goods and visitors are called. It is safe in a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Word(String);

impl TryFrom<String> for Word {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text))
        } else {
            Err("a word is 1 to 32 of a-z, 0-9 and -")
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So many of something: what a cart holds and an order lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub sku: Word,
    /// 1 to 99.
    pub quantity: Quantity,
}

/// 1 to 99.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct Quantity(u32);

impl Quantity {
    const MAX: u32 = 99;

    fn plus(self, more: Self) -> Self {
        Self((self.0 + more.0).min(Self::MAX))
    }
}

impl TryFrom<u32> for Quantity {
    type Error = &'static str;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        if (1..=Self::MAX).contains(&number) { Ok(Self(number)) } else { Err("a quantity is 1 to 99") }
    }
}

/// The lines of a cart, on the wire between cart and order.
#[derive(Debug, Serialize, Deserialize)]
struct Lines {
    lines: Vec<Line>,
}

/// Most lines in a cart or an order.
const LINES_LIMIT: usize = 20;

/// What `auth` says of a token.
#[derive(Serialize, Deserialize)]
struct Session {
    visitor: Word,
}

/// What `product` says of a price.
#[derive(Serialize, Deserialize)]
struct Price {
    sku: Word,
    price_cents: u64,
}

/// Asks `auth` who is behind the request.
async fn identify(auth: &Upstream, asked: &Asked) -> Result<Word, Fault> {
    Ok(auth.fetch::<Session>(asked, "/sessions/current").await?.visitor)
}

/// Asks `product` for a price.
async fn price(product: &Upstream, asked: &Asked, sku: &Word) -> Result<u64, Fault> {
    Ok(product.fetch::<Price>(asked, &format!("/products/{sku}/price")).await?.price_cents)
}
