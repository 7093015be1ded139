//! The nf_tables socket: sends a batch that the kernel commits whole or not at all, and lists what it holds.
//!
//! Not here: what the messages say (`nftables.rs`).

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleMessage};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;

use crate::error::Error;
use crate::nftables::{Step, differences, is_our_table, list_rules, list_tables};
use crate::plan::{Chain, Family};

/// `NFNL_SUBSYS_NFTABLES`, which a batch names in its first and last message.
const SUBSYSTEM: u16 = 10;
/// Longest wait for an answer. The kernel answers while it takes the message; this only bounds a kernel bug.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A socket to nf_tables of the calling thread's network namespace.
pub struct Nftables {
    socket: Socket,
}

impl Nftables {
    pub fn open() -> Result<Nftables, Error> {
        let opened = Socket::new(NETLINK_NETFILTER).and_then(|mut socket| {
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            SockRef::from(&socket).set_read_timeout(Some(ANSWER_WAIT))?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => Ok(Nftables { socket }),
            Err(error) if is_errno(&error, &[libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT]) => {
                Err(missing("nfnetlink (with nf_tables)", "the netlink socket", &error))
            }
            Err(source) => Err(Error::Netlink { step: "open a socket".to_owned(), source }),
        }
    }

    /// Carries out the steps together: all of them, or none and an error.
    pub fn commit(&self, steps: &[Step]) -> Result<(), Error> {
        let mut batch = Vec::new();
        push_batch_mark(&mut batch, ControlMessage::BatchBegin, 0);
        for (index, step) in steps.iter().enumerate() {
            let is_last = index + 1 == steps.len();
            // Only the last is acknowledged: errors are reported anyway, and first.
            let flags =
                if is_last { create_flags(&step.message) | NLM_F_ACK } else { create_flags(&step.message) };
            push(&mut batch, message(step.family, step.message.clone()), flags, sequence(index));
        }
        push_batch_mark(&mut batch, ControlMessage::BatchEnd, sequence(steps.len()));
        let failed = |index: Option<usize>, source: io::Error| {
            explain(index.and_then(|index| steps.get(index)), source)
        };
        self.socket.send(&batch, 0).map_err(|source| failed(None, source))?;
        loop {
            for (number, payload) in self.receive().map_err(|source| failed(None, source))? {
                let NetlinkPayload::Error(answer) = payload else { continue };
                // Sequence 0 is the batch itself: refused for want of a capability, or at its commit.
                let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
                if answer.code.is_some() {
                    return Err(failed(index, answer.to_io()));
                }
                if index.is_some_and(|index| index + 1 == steps.len()) {
                    return Ok(());
                }
            }
        }
    }

    /// The families in which our table exists.
    pub fn tables(&self) -> Result<Vec<Family>, Error> {
        let mut found = Vec::new();
        for (protocol, message) in self.list(NetfilterProtoFamily::Unspec, list_tables(), "list tables")? {
            match protocol {
                NetfilterProtoFamily::IPv4 if is_our_table(&message) => found.push(Family::V4),
                NetfilterProtoFamily::IPv6 if is_our_table(&message) => found.push(Family::V6),
                _ => {}
            }
        }
        Ok(found)
    }

    /// What differs between a chain of the plan and what the kernel holds for it, a sentence each.
    pub fn differences(&self, chain: &Chain, family: Family) -> Result<Vec<String>, Error> {
        let listed = self.list(protocol(family), list_rules(chain), "list rules")?;
        let rules: Vec<RuleMessage> =
            listed.into_iter().filter_map(|(_, message)| rule_of(message)).collect();
        Ok(differences(chain, family, &rules))
    }

    /// Everything the kernel lists in answer to one question.
    fn list(
        &self,
        family: NetfilterProtoFamily,
        question: NfTablesMessage,
        does: &str,
    ) -> Result<Vec<(NetfilterProtoFamily, NfTablesMessage)>, Error> {
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPERM) => Error::MissingCapability,
            _ => Error::Netlink { step: does.to_owned(), source },
        };
        let mut request = Vec::new();
        let question = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), question);
        push(&mut request, question, NLM_F_REQUEST | NLM_F_DUMP, sequence(0));
        self.socket.send(&request, 0).map_err(failed)?;
        let mut found = Vec::new();
        loop {
            for (_, payload) in self.receive().map_err(failed)? {
                match payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(answer) if answer.raw_code() == -libc::ENOENT => {
                        return Ok(Vec::new());
                    }
                    NetlinkPayload::Error(answer) => return Err(failed(answer.to_io())),
                    NetlinkPayload::InnerMessage(NetfilterMessage {
                        header,
                        inner: NetfilterMessageInner::NfTables(message),
                        ..
                    }) => found.push((header.family, message)),
                    _ => {}
                }
            }
        }
    }

    /// The messages of the next datagram, each with its sequence number.
    fn receive(&self) -> io::Result<Vec<(u32, NetlinkPayload<NetfilterMessage>)>> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut messages = Vec::new();
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            messages.push((message.header.sequence_number, message.payload));
            // A message is padded to a multiple of four bytes.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

fn rule_of(message: NfTablesMessage) -> Option<RuleMessage> {
    match message {
        NfTablesMessage::NewRule(rule) => Some(rule),
        _ => None,
    }
}

/// The sequence number of a batch's step; 0 is its beginning.
fn sequence(index: usize) -> u32 {
    u32::try_from(index + 1).expect("a batch that fits a socket buffer has fewer messages")
}

fn create_flags(message: &NfTablesMessage) -> u16 {
    match message {
        NfTablesMessage::DeleteTable(_) => NLM_F_REQUEST,
        // Without NLM_F_APPEND a rule would be put before the ones that are there.
        NfTablesMessage::NewRule(_) => NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND,
        _ => NLM_F_REQUEST | NLM_F_CREATE,
    }
}

fn protocol(family: Family) -> NetfilterProtoFamily {
    match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    }
}

fn message(family: Family, inner: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(protocol(family), 0, 0), inner)
}

fn push_batch_mark(batch: &mut Vec<u8>, mark: ControlMessage, number: u32) {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
    push(batch, NetfilterMessage::new(header, mark), NLM_F_REQUEST, number);
}

fn push(batch: &mut Vec<u8>, message: NetfilterMessage, flags: u16, number: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = batch.len();
    batch.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut batch[start..]);
}

/// Says what the kernel's refusal of a step means.
fn explain(step: Option<&Step>, source: io::Error) -> Error {
    if is_errno(&source, &[libc::EPERM, libc::EACCES]) {
        return Error::MissingCapability;
    }
    let Some(step) = step else {
        // The subsystem is unknown to nfnetlink, and could not be loaded.
        if is_errno(&source, &[libc::EOPNOTSUPP, libc::EINVAL]) {
            return missing("nf_tables", "all rules", &source);
        }
        return Error::Netlink { step: "commit the rules".to_owned(), source };
    };
    if is_errno(&source, &[libc::ENOENT, libc::EOPNOTSUPP, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT]) {
        let module = step.module;
        return missing(module, "to carry out a step of the redirection", &source);
    }
    Error::Netlink { step: step.does.clone(), source }
}

fn missing(modules: &str, needed_for: &'static str, answer: &io::Error) -> Error {
    Error::MissingModule { modules: modules.to_owned(), needed_for, answer: answer.to_string() }
}

fn is_errno(error: &io::Error, numbers: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|number| numbers.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::apply_steps;
    use crate::plan::Plan;

    #[test]
    fn refusals_name_what_is_missing() {
        let steps = apply_steps(&Plan::default(), Family::V4);
        let step = |does: &str| steps.iter().find(|step| step.does.starts_with(does));
        let table = [
            (None, libc::EPERM, "CAP_NET_ADMIN"),
            (step("make table"), libc::EPERM, "CAP_NET_ADMIN"),
            (None, libc::EOPNOTSUPP, "nf_tables is missing"),
            (step("make table"), libc::EAFNOSUPPORT, "nf_tables is missing"),
            (step("make chain"), libc::ENOENT, "nft_chain_nat"),
            (step("add rule"), libc::ENOENT, "nft_redir"),
            (step("add rule"), libc::EINVAL, "refused to add rule `meta l4proto tcp meta skuid 2140 return`"),
            (None, libc::ENOBUFS, "refused to commit the rules"),
        ];
        for (step, errno, part) in table {
            let said = explain(step, io::Error::from_raw_os_error(errno)).to_string();
            assert!(said.contains(part), "errno {errno} at {step:?} became {said:?}");
        }
    }
}
