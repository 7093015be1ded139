//! The plan in the words of nf_tables: netlink messages, their comparison with what the kernel holds, and text in the
//! syntax of `nft` for people.
//!
//! Pure. The socket is in `netlink.rs`. There is a table `weft` per family, as with iptables, rather than one of
//! family `inet`: nat in `inet` wants a newer kernel, and one batch commits several tables together anyway.

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions,
    Hook as HookAttribute, Immediate, InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage,
    Operator, Payload, Register, RuleAttribute, RuleMessage, TableAttribute, TableMessage, Verdict as Code,
    VerdictAttribute,
};

use crate::plan::{Chain, Family, Hook, Match, Plan, Rule, Verdict};

/// Our table, one in each family.
pub const TABLE: &str = "weft";

/// Priority of destination nat in both hooks, the one iptables uses (`NF_IP_PRI_NAT_DST`).
const PRIORITY: i32 = -100;
/// `NF_ACCEPT`: what no rule decides goes on.
const ACCEPT: u32 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Bytes of an interface name in the kernel's registers (`IFNAMSIZ`).
const INTERFACE_NAME_SIZE: usize = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
const TRANSPORT_HEADER: u32 = 2;
/// Offset of the destination port in a TCP header, in bytes (RFC 9293 §3.1).
const DESTINATION_PORT_OFFSET: u32 = 2;
/// `NFTA_REDIR_REG_PROTO_MIN`: the register that holds the port to redirect to.
const REDIRECT_PORT_REGISTER: u16 = 1;

/// One step of a batch: the message and what it does, for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub family: Family,
    pub message: NfTablesMessage,
    pub does: String,
    /// The kernel module that is missing when the kernel answers `ENOENT`.
    pub module: &'static str,
}

/// The expressions of a rule as the netlink library holds them.
pub type RuleExpressions = Vec<ListAttribute<ExpressionAttribute>>;

/// Steps that put the plan in force for one family, whatever was in our table before.
pub fn apply_steps(plan: &Plan, family: Family) -> Vec<Step> {
    // Deleting a table that is not there fails the batch; making one that is there does not.
    let mut steps = vec![make_table(family), delete_table(family), make_table(family)];
    for chain in plan.chains(family) {
        steps.push(make_chain(&chain, family));
        steps.extend(chain.rules.iter().map(|rule| make_rule(&chain, rule, family)));
    }
    steps
}

/// The step that takes our table out; it must exist.
pub fn delete_table(family: Family) -> Step {
    let message = NfTablesMessage::DeleteTable(TableMessage { attributes: table_attributes() });
    Step { family, message, does: format!("delete table {}", table_name(family)), module: "nf_tables" }
}

/// Asks for all tables of a family.
pub fn list_tables() -> NfTablesMessage {
    NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() })
}

/// Asks for the rules of one of our chains.
pub fn list_rules(chain: &Chain) -> NfTablesMessage {
    NfTablesMessage::GetRule(RuleMessage { attributes: rule_attributes(chain) })
}

/// Whether the message describes our table.
pub fn is_our_table(message: &NfTablesMessage) -> bool {
    matches!(message, NfTablesMessage::NewTable(table) if table.attributes.contains(&TableAttribute::Name(TABLE.to_owned())))
}

/// What differs between a chain of the plan and the rules that the kernel listed for it, a sentence each.
pub fn differences(chain: &Chain, family: Family, listed: &[RuleMessage]) -> Vec<String> {
    let name = chain_name(chain);
    let mut differences = Vec::new();
    if chain.rules.len() != listed.len() {
        differences.push(format!(
            "chain {name} holds {} rules instead of {}",
            listed.len(),
            chain.rules.len()
        ));
    }
    for (rule, listed) in chain.rules.iter().zip(listed) {
        let held = listed.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Expressions(held) => Some(held.as_slice()),
            _ => None,
        });
        if !held.is_some_and(|held| is_held(&expressions(rule, family), held)) {
            differences.push(format!("chain {name} holds another rule in place of: {}", rule_text(rule)));
        }
    }
    differences
}

/// Whether each expression we send is listed, with each of its attributes; the kernel adds attributes of its own.
fn is_held(sent: &[ListAttribute<ExpressionAttribute>], held: &[ListAttribute<ExpressionAttribute>]) -> bool {
    sent.len() == held.len() && sent.iter().zip(held).all(|pair| is_same_expression(pair.0, pair.1))
}

fn is_same_expression(
    sent: &ListAttribute<ExpressionAttribute>,
    held: &ListAttribute<ExpressionAttribute>,
) -> bool {
    fn within<T: PartialEq>(sent: &[T], held: &[T]) -> bool {
        sent.iter().all(|attribute| held.contains(attribute))
    }
    let (Some(sent), Some(held)) = (data_of(sent), data_of(held)) else { return false };
    match (sent, held) {
        (Expressions::Bitwise(sent), Expressions::Bitwise(held)) => within(sent, held),
        (Expressions::Cmp(sent), Expressions::Cmp(held)) => within(sent, held),
        (Expressions::Immediate(sent), Expressions::Immediate(held)) => within(sent, held),
        (Expressions::Meta(sent), Expressions::Meta(held)) => within(sent, held),
        (Expressions::Payload(sent), Expressions::Payload(held)) => within(sent, held),
        (
            Expressions::Other { expression_type: sent_type, attributes: sent },
            Expressions::Other { expression_type: held_type, attributes: held },
        ) => sent_type == held_type && within(sent, held),
        _ => false,
    }
}

fn data_of(element: &ListAttribute<ExpressionAttribute>) -> Option<&Expressions> {
    let ListAttribute::Element(attributes) = element else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(data) => Some(data),
        _ => None,
    })
}

fn make_table(family: Family) -> Step {
    let message = NfTablesMessage::NewTable(TableMessage { attributes: table_attributes() });
    Step { family, message, does: format!("make table {}", table_name(family)), module: "nf_tables" }
}

fn make_chain(chain: &Chain, family: Family) -> Step {
    let hook = match chain.hook {
        Hook::Output => InetHookNumber::LocalOut,
        Hook::Prerouting => InetHookNumber::PreRouting,
    };
    let attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(chain_name(chain).to_owned()),
        ChainAttribute::Hook(vec![
            HookAttribute::Number(hook.into()),
            HookAttribute::Priority(PRIORITY.cast_unsigned()),
        ]),
        ChainAttribute::Policy(ACCEPT),
        ChainAttribute::Type("nat".to_owned()),
    ];
    let message = NfTablesMessage::NewChain(ChainMessage { attributes });
    let does = format!("make chain {} in table {}", chain_name(chain), table_name(family));
    Step { family, message, does, module: "nft_chain_nat (with nf_nat)" }
}

fn make_rule(chain: &Chain, rule: &Rule, family: Family) -> Step {
    let mut attributes = rule_attributes(chain);
    attributes.push(RuleAttribute::Expressions(expressions(rule, family)));
    let message = NfTablesMessage::NewRule(RuleMessage { attributes });
    // All other expressions are part of nf_tables itself.
    let module = "nft_redir (with nf_nat)";
    Step { family, message, does: format!("add rule `{}`", rule_text(rule)), module }
}

fn table_attributes() -> Vec<TableAttribute> {
    vec![TableAttribute::Name(TABLE.to_owned())]
}

fn rule_attributes(chain: &Chain) -> Vec<RuleAttribute> {
    vec![RuleAttribute::Table(TABLE.to_owned()), RuleAttribute::Chain(chain_name(chain).to_owned())]
}

fn chain_name(chain: &Chain) -> &'static str {
    match chain.hook {
        Hook::Output => "output",
        Hook::Prerouting => "prerouting",
    }
}

/// A rule as the kernel's expressions: each loads a register, compares it, and goes on only when it fits.
fn expressions(rule: &Rule, family: Family) -> RuleExpressions {
    let mut list = Vec::new();
    list.push(load_meta(MetaKey::L4Proto));
    list.push(compare(Operator::Equal, vec![TCP]));
    for condition in &rule.matches {
        push_match(&mut list, *condition, family);
    }
    match rule.verdict {
        Verdict::Return => list.push(Expressions::Immediate(vec![
            Immediate::DestinationRegister(Register::Verdict),
            Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(Code::Return)])),
        ])),
        Verdict::Redirect(port) => {
            list.push(Expressions::Immediate(vec![
                Immediate::DestinationRegister(Register::Reg1),
                Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
            ]));
            let register = u32::from(Register::Reg1).to_be_bytes().to_vec();
            list.push(Expressions::Other {
                expression_type: "redir".to_owned(),
                attributes: vec![DefaultNla::new(REDIRECT_PORT_REGISTER, register)],
            });
        }
    }
    list.into_iter().map(ListAttribute::from).collect()
}

fn push_match(list: &mut Vec<Expressions>, condition: Match, family: Family) {
    let mut equal = |load: Expressions, value: Vec<u8>| list.extend([load, compare(Operator::Equal, value)]);
    match condition {
        Match::OutInterface(name) => equal(load_meta(MetaKey::Oifname), interface_bytes(name)),
        Match::InInterface(name) => equal(load_meta(MetaKey::Iifname), interface_bytes(name)),
        Match::Uid(uid) => equal(load_meta(MetaKey::SocketUserId), uid.to_ne_bytes().to_vec()),
        Match::Mark(mark) => equal(load_meta(MetaKey::Mark), mark.to_ne_bytes().to_vec()),
        Match::Destination(net) => push_destination(list, net, family),
        Match::Port(ports) => {
            list.push(load_payload(TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2));
            if ports.first() == ports.last() {
                list.push(compare(Operator::Equal, ports.first().to_be_bytes().to_vec()));
            } else {
                list.push(compare(Operator::GreatherThanEqual, ports.first().to_be_bytes().to_vec()));
                list.push(compare(Operator::LessThanEqual, ports.last().to_be_bytes().to_vec()));
            }
        }
    }
}

fn push_destination(list: &mut Vec<Expressions>, net: IpNet, family: Family) {
    // Where the destination address stands in its header: RFC 791 §3.1, RFC 8200 §3.
    let (offset, length) = match family {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    };
    list.push(load_payload(NETWORK_HEADER, offset, length));
    if net.prefix_len() < net.max_prefix_len() {
        let mask = address_bytes(net.netmask());
        list.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(length),
            Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
            Bitwise::Mask(DataAttribute::Value(mask)),
        ]));
    }
    list.push(compare(Operator::Equal, address_bytes(net.network())));
}

fn load_meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

fn load_payload(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn interface_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_SIZE, 0);
    bytes
}

fn address_bytes(address: std::net::IpAddr) -> Vec<u8> {
    match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The rules of one family as `nft list table` would write them.
pub fn text(plan: &Plan, family: Family) -> String {
    let mut text = format!("table {} {{\n", table_name(family));
    for chain in plan.chains(family) {
        let name = chain_name(&chain);
        text.push_str(&format!(
            "\tchain {name} {{\n\t\ttype nat hook {name} priority {PRIORITY}; policy accept;\n"
        ));
        for rule in &chain.rules {
            text.push_str(&format!("\t\t{}\n", rule_text(rule)));
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

fn table_name(family: Family) -> String {
    match family {
        Family::V4 => format!("ip {TABLE}"),
        Family::V6 => format!("ip6 {TABLE}"),
    }
}

fn rule_text(rule: &Rule) -> String {
    let mut text = String::from("meta l4proto tcp ");
    for condition in &rule.matches {
        match condition {
            Match::OutInterface(name) => text.push_str(&format!("oifname \"{name}\" ")),
            Match::InInterface(name) => text.push_str(&format!("iifname \"{name}\" ")),
            Match::Uid(uid) => text.push_str(&format!("meta skuid {uid} ")),
            Match::Mark(mark) => text.push_str(&format!("meta mark {mark:#010x} ")),
            Match::Destination(IpNet::V4(net)) => text.push_str(&format!("ip daddr {net} ")),
            Match::Destination(IpNet::V6(net)) => text.push_str(&format!("ip6 daddr {net} ")),
            Match::Port(ports) => text.push_str(&format!("tcp dport {ports} ")),
        }
    }
    match rule.verdict {
        Verdict::Return => text.push_str("return"),
        Verdict::Redirect(port) => text.push_str(&format!("redirect to :{port}")),
    }
    text
}
