//! Agreement: what `weft explain` says of manifests is what a proxy decides that has learned of them from control.
//!
//! Ten thousand random sets of objects, sensible ones and nonsense, and a request each: objects → index → policy → route on one side;
//! the same policy written to the wire, read as a proxy reads it, and asked as `/why` is asked on the other. The seed of a case that
//! fails is in its message.

mod random;

use control_index::{Index, Kind};
use control_translate::{Detected, Mesh, problems};
use explain::{About, Ask, Question, Verdict};
use policy::{Endpoint, Outbound, ServicePort, TrustDomain};
use prost::Message;
use proxy_wire::v1;
use random::Random;
use serde_json::Value;
use std::collections::BTreeMap;

const CASES: u64 = 10_000;

#[test]
fn weft_explain_and_a_proxy_decide_alike() {
    let trust_domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let mut actions: BTreeMap<String, u32> = BTreeMap::new();
    let mut rejected: BTreeMap<String, String> = BTreeMap::new();
    let mut complaints = 0;
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let objects = random.objects();
        let index = indexed(&objects);
        complaints += objects.iter().map(|object| problems_of(&index, object)).sum::<usize>();
        let mesh = Mesh { index: &index, detected: &Detected::default(), trust_domain: &trust_domain };
        let (to, namespace) = random.ends();
        let held = mesh.outbound(to, namespace);
        let learned = match learned(&held) {
            Ok(learned) => learned,
            Err(error) => {
                rejected.entry(error.problem.to_string()).or_insert(format!("seed {seed}: {error}"));
                continue;
            }
        };
        let endpoints = |backend: &ServicePort| Some(mesh.endpoints(backend, None));
        let query = random.query(to);
        let question = Question::of_query(&query).expect("a good question");
        assert_eq!(question.to, to);
        let told = match &question.about {
            About::Request(_) => explain::request(&held, &written(&query), &endpoints),
            About::Connection { sni } => explain::connection(&held, sni.as_deref(), &endpoints),
        };
        let decided = decide(&learned, &question.about, &endpoints);
        assert_eq!(told, decided, "seed {seed}: {query}");
        *actions.entry(told.outcome.action.to_owned()).or_default() += 1;
    }
    assert!(rejected.is_empty(), "a proxy rejects what control says: {rejected:#?}");
    // The cases are of all kinds, or they would say little.
    for action in ["forward", "redirect", "preflight", "respond", "refuse"] {
        assert!(
            actions.get(action).is_some_and(|count| *count > CASES as u32 / 500),
            "{action}: {actions:?}"
        );
    }
    assert!(complaints > CASES as usize / 10, "{complaints} problems");
}

fn decide(policy: &Outbound, about: &About, endpoints: explain::Endpoints<'_>) -> Verdict {
    match about {
        About::Request(ask) => explain::request(policy, ask, endpoints),
        About::Connection { sni } => explain::connection(policy, sni.as_deref(), endpoints),
    }
}

/// The request as `weft explain request` makes it of its options.
fn written(query: &str) -> Ask {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let values = |wanted: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let of: Vec<_> = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| decoded(value)).collect();
        of
    };
    let mut ask = match values("grpc").first() {
        Some(call) => Ask::grpc(call).expect("a call"),
        None => Ask::new(&values("method")[0], &values("path")[0]),
    };
    values("header").iter().for_each(|header| ask.field(header).expect("a header"));
    ask
}

/// What a proxy holds that has been told.
fn learned(policy: &Outbound) -> Result<Outbound, proxy_wire::Malformed> {
    let bytes = v1::OutboundPolicy::from(policy).encode_to_vec();
    Outbound::try_from(v1::OutboundPolicy::decode(bytes.as_slice()).expect("own encoding"))
}

fn indexed(objects: &[Value]) -> Index {
    let mut index = Index::default();
    for object in objects {
        // What cannot be read at all is left out by control, too.
        if let Ok(object) = kind(object).read(object.clone()) {
            index.apply(&object);
        }
    }
    index
}

fn problems_of(index: &Index, object: &Value) -> usize {
    kind(object).read(object.clone()).map_or(0, |object| problems(index, object.key()).len())
}

fn kind(object: &Value) -> Kind {
    let text = |field: &str| object[field].as_str().expect("each object has one");
    Kind::named(text("apiVersion"), text("kind")).expect("a kind that is read")
}

/// That the endpoints differ shows that they are asked for.
#[test]
fn a_difference_would_be_seen() {
    let service: ServicePort = "a.shop:80".parse().expect("a port");
    let policy = Outbound::new(policy::Target::Service(service), policy::Protocol::Auto);
    let ask = Ask::new("GET", "/");
    let none = |_: &ServicePort| Some(Vec::<Endpoint>::new());
    assert_ne!(explain::request(&policy, &ask, &none), explain::request(&policy, &ask, &|_| None));
}
