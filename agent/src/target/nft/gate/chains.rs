//! The gate's chains and rules, computed from its configuration and the sets in use.
//!
//! Ours are recognised by their names, and by being exactly these: a chain that the configuration
//! does not ask for goes, a rule that differs is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use postern_shared::ids::GroupId;
use postern_shared::network::{Family, Network};

use super::config::{GateConfig, OnExpiry, Ports, Protocol, merged};
use super::sets::{SetKey, SetState};
use crate::target::nft::read::Found;
use crate::target::nft::rules::{Comparison, Expr, Header, Meta, Verdict};
use crate::target::nft::steps::Rule;
use crate::target::nft::sys::Hook;

/// The base chain.
pub(super) const PREROUTING: &str = "prerouting";

/// A chain as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Rule>,
}

/// All chains; none jumps to a later one.
pub(super) fn chains(config: &GateConfig, sets: &BTreeMap<SetKey, SetState>) -> Vec<Chain> {
    let mut chains: Vec<Chain> = config
        .groups()
        .into_iter()
        .map(|group| Chain {
            name: group_chain(group),
            hook: None,
            rules: group_rules(group, sets),
        })
        .collect();
    chains.extend(config.services.iter().map(|service| Chain {
        name: service_chain(&service.name),
        hook: None,
        rules:
            service.groups.iter().map(|group| jump("", Vec::new(), group_chain(*group))).collect(),
    }));
    chains.push(Chain {
        name: PREROUTING.to_owned(),
        hook: Some(hook()),
        rules: prerouting_rules(config),
    });
    chains
}

/// Name of the chain that accepts a group's addresses.
pub(super) fn group_chain(group: GroupId) -> String {
    format!("allow-{group}")
}

fn service_chain(name: &str) -> String {
    format!("service-{name}")
}

/// Before the destination is rewritten (priority -100), so that published ports are still what the
/// client asked for; after connections are tracked (-200).
fn hook() -> Hook {
    const PREROUTING_HOOK: u32 = 0;
    const MANGLE: i32 = -150;
    const POLICY_ACCEPT: u32 = 1;
    Hook {
        kind: "filter".to_owned(),
        number: PREROUTING_HOOK,
        priority: MANGLE,
        policy: POLICY_ACCEPT,
    }
}

/// The rules that look a source up in the sets of one group.
pub(super) fn group_rules(group: GroupId, sets: &BTreeMap<SetKey, SetState>) -> Vec<Rule> {
    sets.iter()
        .filter(|(key, _)| key.group == group)
        .map(|(key, state)| lookup_rule(*key, &key.name(state.twin)))
        .collect()
}

fn prerouting_rules(config: &GateConfig) -> Vec<Rule> {
    const LOOPBACK: u16 = 772;
    const LOCAL: u32 = 2;
    let mut rules = vec![accept(
        "iiftype loopback",
        vec![
            Expr::Meta(Meta::InterfaceType),
            Expr::Compare(Comparison::Equal, LOOPBACK.to_ne_bytes().to_vec()),
        ],
        "",
    )];
    rules.extend(established_rules(config.on_expiry));
    rules.push(accept("fib daddr type != local", vec![Expr::FibDaddrType, is_not(LOCAL)], ""));
    rules.extend(config.failsafe.iter().map(|network| failsafe_rule(*network)));
    for service in &config.services {
        for ports in merged(service.ports.iter().copied()) {
            let (text, expressions) = match_ports(ports);
            rules.push(jump(&text, expressions, service_chain(&service.name)));
        }
    }
    rules.extend(config.all_ports().into_iter().map(|ports| {
        let (text, mut expressions) = match_ports(ports);
        expressions.extend([Expr::Counter, Expr::Verdict(Verdict::Drop)]);
        let comment = "not on a list";
        let text = format!("{text} counter drop comment \"{comment}\"");
        Rule { text, expressions, comment }
    }));
    rules
}

/// Lets connections go on. A connection that was cut off is seen again at the next packet of
/// either side; when it is the server's, what comes from the client is an answer. So where
/// connections are cut, answers to a protected port must be listed like new connections.
///
/// A packet that asks for a TCP connection must always be listed. The kernel takes it for one of
/// an established connection where an earlier one had the same ports and is not forgotten yet,
/// for seconds when it was closed and for days when nobody saw its end.
fn established_rules(on_expiry: OnExpiry) -> [Rule; 2] {
    const ESTABLISHED: u32 = 2;
    const ORIGINAL: u8 = 0;
    const FLAGS_AT: u32 = 13;
    const SYN: u8 = 0x02;
    const SYN_OR_ACK: u8 = 0x12;
    let tcp = Protocol::Tcp.number();
    let protocol = |how| [Expr::Meta(Meta::TransportProtocol), Expr::Compare(how, vec![tcp])];
    let flags = [
        Expr::Payload(Header::Transport, FLAGS_AT, 1),
        Expr::Mask(vec![SYN_OR_ACK]),
        Expr::Compare(Comparison::NotEqual, vec![SYN]),
    ];
    let rule = |what: &str, matches: Vec<Expr>| {
        let mut text = format!("ct state established {what}");
        let mut expressions =
            vec![Expr::CtState, Expr::Mask(ESTABLISHED.to_ne_bytes().to_vec()), is_not(0)];
        expressions.extend(matches);
        if on_expiry == OnExpiry::Cut {
            text += " ct direction original";
            expressions
                .extend([Expr::CtDirection, Expr::Compare(Comparison::Equal, vec![ORIGINAL])]);
        }
        accept(&text, expressions, "")
    };
    [
        rule("tcp flags & (syn | ack) != syn", [&protocol(Comparison::Equal)[..], &flags].concat()),
        rule("meta l4proto != tcp", protocol(Comparison::NotEqual).to_vec()),
    ]
}

fn is_not(number: u32) -> Expr {
    Expr::Compare(Comparison::NotEqual, number.to_ne_bytes().to_vec())
}

fn accept(text: &str, mut expressions: Vec<Expr>, comment: &'static str) -> Rule {
    expressions.push(Expr::Verdict(Verdict::Accept));
    let mut text = format!("{text} accept");
    if !comment.is_empty() {
        text = format!("{text} comment \"{comment}\"");
    }
    Rule { text, expressions, comment }
}

fn jump(text: &str, mut expressions: Vec<Expr>, chain: String) -> Rule {
    let text = format!("{text} jump {chain}").trim_start().to_owned();
    expressions.push(Expr::Verdict(Verdict::Jump(chain)));
    Rule { text, expressions, comment: "" }
}

fn match_ports(ports: Ports) -> (String, Vec<Expr>) {
    const DESTINATION_AT: u32 = 2;
    let Ports { protocol, first, last } = ports;
    let compare = |how, port: u16| Expr::Compare(how, port.to_be_bytes().to_vec());
    let mut expressions = vec![
        Expr::Meta(Meta::TransportProtocol),
        Expr::Compare(Comparison::Equal, vec![protocol.number()]),
        Expr::Payload(Header::Transport, DESTINATION_AT, 2),
    ];
    if first == last {
        expressions.push(compare(Comparison::Equal, first));
        return (format!("{} dport {first}", protocol.name()), expressions);
    }
    expressions.extend([compare(Comparison::AtLeast, first), compare(Comparison::AtMost, last)]);
    (format!("{} dport {first}-{last}", protocol.name()), expressions)
}

fn failsafe_rule(network: Network) -> Rule {
    let (_, mut expressions) = load_source(network.family(), network.prefix());
    expressions.push(Expr::Compare(Comparison::Equal, octets(network.address())));
    let text = format!("{} saddr {network}", family_name(network.family()));
    accept(&text, expressions, "failsafe")
}

fn lookup_rule(key: SetKey, set: &str) -> Rule {
    let (text, mut expressions) = load_source(key.family, key.prefix);
    expressions.push(Expr::Lookup(set.to_owned()));
    accept(&format!("{text} @{set}"), expressions, "")
}

/// Loads the source address, of which `prefix` bits count.
fn load_source(family: Family, prefix: u8) -> (String, Vec<Expr>) {
    let (protocol, offset, length) = match family {
        Family::V4 => (2, 12, 4),
        Family::V6 => (10, 8, 16),
    };
    let mut text = format!("{} saddr", family_name(family));
    let mut expressions = vec![
        Expr::Meta(Meta::NetworkProtocol),
        Expr::Compare(Comparison::Equal, vec![protocol]),
        Expr::Payload(Header::Network, offset, length),
    ];
    if prefix < family.bits() {
        let mask = mask(family, prefix);
        text = format!("{text} & {mask}");
        expressions.push(Expr::Mask(octets(mask)));
    }
    (text, expressions)
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn mask(family: Family, prefix: u8) -> IpAddr {
    let spare = u32::from(family.bits() - prefix);
    match family {
        Family::V4 => IpAddr::V4(u32::MAX.checked_shl(spare).unwrap_or(0).into()),
        Family::V6 => IpAddr::V6(u128::MAX.checked_shl(spare).unwrap_or(0).into()),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Says whether the chains and rules that were found are exactly these.
pub(super) fn are_right(desired: &[Chain], found: &Found) -> bool {
    desired.len() == found.chains.len()
        && desired.iter().all(|chain| {
            found.chains.get(&chain.name).is_some_and(|found| {
                found.hook == chain.hook
                    && found.rules.len() == chain.rules.len()
                    && found
                        .rules
                        .iter()
                        .zip(&chain.rules)
                        .all(|(found, rule)| found.as_ref() == Some(&rule.expressions))
            })
        })
}

/// The names of all sets that rules look into, as far as they are rules that can be read.
pub(super) fn sets_looked_into(found: &Found) -> BTreeSet<String> {
    let expressions =
        found.chains.values().flat_map(|chain| chain.rules.iter().flatten().flatten());
    expressions
        .filter_map(|expression| match expression {
            Expr::Lookup(set) => Some(set.clone()),
            Expr::Meta(_)
            | Expr::CtState
            | Expr::CtDirection
            | Expr::FibDaddrType
            | Expr::Payload(..)
            | Expr::Mask(_)
            | Expr::Compare(..)
            | Expr::Counter
            | Expr::Verdict(_) => None,
        })
        .collect()
}

/// Says whether every rule can be read: others may look into any set.
pub(super) fn can_all_be_read(found: &Found) -> bool {
    found.chains.values().flat_map(|chain| &chain.rules).all(Option::is_some)
}
