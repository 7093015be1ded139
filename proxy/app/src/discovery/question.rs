//! The three questions that a proxy asks control, each with its gRPC method and how its answers are read.

use crate::{
    control::{Connection, MESSAGE_BYTES},
    generated::{
        endpoints_client::EndpointsClient, inbound_client::InboundClient, outbound_client::OutboundClient,
    },
};
use policy::{Endpoint, Inbound, Outbound, ServicePort, Target, WorkloadName};
use proxy_wire::{Malformed, checksum, v1};
use serde_json::{Value, json};
use std::{fmt, future::Future, hash::Hash, net::SocketAddr};
use tonic::{Status, Streaming};

/// A question that control answers as long as it is asked.
pub(super) trait Question: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static {
    type Answer: PartialEq + Send + Sync + 'static;
    type Update: Send + 'static;

    fn ask(
        &self,
        connection: Connection,
        workload: &WorkloadName,
    ) -> impl Future<Output = Result<Streaming<Self::Update>, Status>> + Send;

    fn read(&self, update: &Self::Update) -> Word<Self::Answer>;

    /// Whether it is what a control says that knows nothing.
    fn is_nothing(answer: &Self::Answer) -> bool;

    /// The answer for people.
    fn describe(answer: &Self::Answer) -> Value;
}

/// One message of control.
pub(super) struct Word<T> {
    pub version: u64,
    /// The run of control that says it; 0 where it does not tell.
    pub instance: u64,
    pub kind: Kind<T>,
}

pub(super) enum Kind<T> {
    /// The answer, and the checksum that heartbeats carry while it holds.
    Content { answer: T, checksum: u64 },
    /// An answer that means nothing, and why.
    Nonsense(String),
    /// Nothing has changed, if what is held has this checksum.
    Heartbeat { checksum: u64 },
}

impl<T> Word<T> {
    /// The parts of an update: its content as it was read, with its own checksum. A `said` checksum is believed before
    /// that (a newer control may sum up fields that are unknown here); one of zero was not said.
    fn new((version, instance): (u64, u64), content: Option<(Result<T, Malformed>, u64)>, said: u64) -> Self {
        let kind = match content {
            None => Kind::Heartbeat { checksum: said },
            Some((Ok(answer), own)) => Kind::Content { answer, checksum: if said == 0 { own } else { said } },
            Some((Err(malformed), _)) => Kind::Nonsense(malformed.to_string()),
        };
        Self { version, instance, kind }
    }
}

/// What is behind an address that the application dialled?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Destination(pub SocketAddr);

/// Which endpoints does a backend have?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Backend(pub ServicePort);

/// What holds for a port of our own?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Port(pub u16);

impl Question for Destination {
    type Answer = Outbound;
    type Update = v1::OutboundUpdate;

    async fn ask(
        &self,
        connection: Connection,
        workload: &WorkloadName,
    ) -> Result<Streaming<Self::Update>, Status> {
        let mut client = OutboundClient::with_origin(connection, Connection::origin())
            .max_decoding_message_size(MESSAGE_BYTES);
        Ok(client.watch(v1::OutboundTarget::new(self.0, workload)).await?.into_inner())
    }

    fn read(&self, update: &Self::Update) -> Word<Outbound> {
        let content = update.policy.as_ref().map(|policy| (policy.try_into(), checksum(policy)));
        let mut word = Word::new((update.version, update.instance), content, update.checksum);
        // A pod is what has the address that was dialled: another one is the answer to another question.
        if let Kind::Content { answer: Outbound { target: Target::Workload(pod), .. }, .. } = &word.kind
            && pod.address != self.0
        {
            word.kind = Kind::Nonsense(format!("target.workload.address: {} was not asked", pod.address));
        }
        word
    }

    fn is_nothing(answer: &Outbound) -> bool {
        answer.target == Target::External
    }

    fn describe(answer: &Outbound) -> Value {
        let target = match &answer.target {
            Target::Service(service) => json!({ "service": service.to_string() }),
            Target::Workload(endpoint) => json!({ "workload": describe_endpoint(endpoint) }),
            Target::External => json!("external"),
        };
        json!({
        "target": target,
        "protocol": answer.protocol.as_str(),
        })
    }
}

impl Question for Backend {
    type Answer = Vec<Endpoint>;
    type Update = v1::EndpointsUpdate;

    async fn ask(
        &self,
        connection: Connection,
        workload: &WorkloadName,
    ) -> Result<Streaming<Self::Update>, Status> {
        let mut client = EndpointsClient::with_origin(connection, Connection::origin())
            .max_decoding_message_size(MESSAGE_BYTES);
        Ok(client.watch(v1::EndpointsTarget::new(&self.0, workload)).await?.into_inner())
    }

    fn read(&self, update: &Self::Update) -> Word<Vec<Endpoint>> {
        let content = update.endpoints.as_ref().map(|endpoints| (endpoints.try_into(), checksum(endpoints)));
        Word::new((update.version, update.instance), content, update.checksum)
    }

    fn is_nothing(answer: &Vec<Endpoint>) -> bool {
        answer.is_empty()
    }

    fn describe(answer: &Vec<Endpoint>) -> Value {
        answer.iter().map(describe_endpoint).collect()
    }
}

impl Question for Port {
    type Answer = Inbound;
    type Update = v1::InboundUpdate;

    async fn ask(
        &self,
        connection: Connection,
        workload: &WorkloadName,
    ) -> Result<Streaming<Self::Update>, Status> {
        let mut client = InboundClient::with_origin(connection, Connection::origin())
            .max_decoding_message_size(MESSAGE_BYTES);
        Ok(client.watch(v1::InboundPort::new(workload, self.0)).await?.into_inner())
    }

    fn read(&self, update: &Self::Update) -> Word<Inbound> {
        let content = update.policy.as_ref().map(|policy| (policy.try_into(), checksum(policy)));
        Word::new((update.version, update.instance), content, update.checksum)
    }

    fn is_nothing(answer: &Inbound) -> bool {
        *answer == Inbound::default()
    }

    fn describe(answer: &Inbound) -> Value {
        json!({
            "protocol": answer.protocol.as_str(),
            "service": answer.service.as_ref().map(ToString::to_string),
        })
    }
}

fn describe_endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "identity": endpoint.identity.as_ref().map(ToString::to_string),
        "workload": endpoint.workload.as_ref().map(ToString::to_string),
    })
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
