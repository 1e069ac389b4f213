//! A transaction as a value: its steps, as `nft` text for people and as messages for the kernel.

use std::fmt;
use std::net::IpAddr;

use postern_shared::cover::Range;
use postern_shared::network::{Family, Network};
use postern_shared::time::{Expiry, Timestamp};

use super::rules::Expr;
use super::sets::content::after;
use super::sys::{self, Batch, Element, Hook, MESSAGE_ELEMENTS_MAX, NewSet, Removal};

/// One step of a transaction on one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes the table, or takes it over with these flags.
    AddTable {
        flags: u32,
    },
    DeleteTable,
    AddSet {
        name: String,
        family: Family,
        size: u32,
    },
    DeleteSet(String),
    FlushSet(String),
    AddElements {
        set: String,
        elements: Vec<(Network, Expiry)>,
    },
    RemoveElements {
        set: String,
        networks: Vec<Network>,
    },
    /// Adds elements to a set with intervals.
    AddRanges {
        set: String,
        ranges: Vec<Range>,
    },
    AddChain {
        name: String,
        hook: Option<Hook>,
    },
    DeleteChain(String),
    /// All rules of one chain, or of the table.
    FlushRules(Option<String>),
    AddRule {
        chain: String,
        rule: Rule,
    },
}

/// A rule, as text and as what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) expressions: Vec<Expr>,
    pub(super) comment: &'static str,
}

/// Comment of the table, for whoever lists it.
const TABLE_COMMENT: &str = "kept by postern-agent; change its configuration, not this table";
const SET_COMMENT: &str = "kept by postern-agent";

/// How steps become messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoding {
    pub(super) now: Timestamp,
    pub(super) removal: Removal,
    /// One in each message makes the kernel name every one that fails.
    pub(super) removals_per_message: usize,
    pub(super) elements_per_message: usize,
}

impl Encoding {
    /// As many elements in a message as fit.
    pub(super) fn usual(removal: Removal, now: Timestamp) -> Encoding {
        let most = MESSAGE_ELEMENTS_MAX;
        Encoding { now, removal, removals_per_message: most, elements_per_message: most }
    }
}

impl Step {
    /// Appends the messages of the step. Elements whose time is up are left out.
    pub(super) fn encode(&self, batch: &mut Batch, encoding: Encoding) {
        match self {
            Step::AddTable { flags } => batch.add_table(*flags, TABLE_COMMENT),
            Step::DeleteTable => batch.delete_table(),
            Step::AddSet { name, family, size } => batch.add_set(&new_set(name, *family, *size)),
            Step::DeleteSet(name) => batch.delete_set(name),
            Step::FlushSet(name) => batch.flush_set(name),
            Step::AddElements { set, elements } => {
                for chunk in elements.chunks(encoding.elements_per_message) {
                    encode_chunk(chunk, encoding.now, |elements| {
                        batch.add_elements(set, elements);
                    });
                }
            }
            Step::RemoveElements { set, networks } => {
                for chunk in networks.chunks(encoding.removals_per_message) {
                    let keys: Vec<Key> = chunk.iter().map(|network| Key::of(*network)).collect();
                    let elements: Vec<Element<'_>> = keys
                        .iter()
                        .map(|key| Element { key: key.bytes(), flags: 0, timeout_ms: None })
                        .collect();
                    batch.remove_elements(encoding.removal, set, &elements);
                }
            }
            Step::AddRanges { set, ranges } => {
                for chunk in ranges.chunks(encoding.elements_per_message.div_ceil(2)) {
                    encode_ranges(chunk, encoding.now, |elements| {
                        batch.add_elements(set, elements);
                    });
                }
            }
            Step::AddChain { name, hook } => batch.add_chain(name, hook.as_ref()),
            Step::DeleteChain(name) => batch.delete_chain(name),
            Step::FlushRules(chain) => batch.flush_rules(chain.as_deref()),
            Step::AddRule { chain, rule } => {
                batch.add_rule(chain, &rule.expressions, rule.comment);
            }
        }
    }

    /// Writes the step as `nft` would be told it. `table` is the family and the name.
    pub(super) fn write(&self, out: &mut impl fmt::Write, table: &str) -> fmt::Result {
        match self {
            Step::AddTable { flags } if flags & sys::TABLE_OWNER != 0 => {
                writeln!(out, "add table {table} {{ flags owner, persist; }}")
            }
            Step::AddTable { .. } => writeln!(out, "add table {table}"),
            Step::DeleteTable => writeln!(out, "delete table {table}"),
            Step::AddSet { name, family, size } => {
                let kind = match family {
                    Family::V4 => "ipv4_addr",
                    Family::V6 => "ipv6_addr",
                };
                writeln!(
                    out,
                    "add set {table} {name} {{ type {kind}; size {size}; flags timeout; }}"
                )
            }
            Step::DeleteSet(name) => writeln!(out, "delete set {table} {name}"),
            Step::FlushSet(name) => writeln!(out, "flush set {table} {name}"),
            Step::AddElements { set, elements } => elements.iter().try_for_each(|(net, expiry)| {
                let address = net.address();
                writeln!(out, "add element {table} {set} {{ {address} }} # {net} until {expiry}")
            }),
            Step::RemoveElements { set, networks } => networks.iter().try_for_each(|net| {
                writeln!(out, "delete element {table} {set} {{ {} }} # {net}", net.address())
            }),
            Step::AddRanges { set, ranges } => {
                ranges.iter().try_for_each(|Range { first, last, expiry }| match first == last {
                    true => {
                        writeln!(out, "add element {table} {set} {{ {first} }} # until {expiry}")
                    }
                    false => writeln!(
                        out,
                        "add element {table} {set} {{ {first}-{last} }} # until {expiry}"
                    ),
                })
            }
            Step::AddChain { name, hook: None } => writeln!(out, "add chain {table} {name}"),
            Step::AddChain { name, hook: Some(hook) } => writeln!(
                out,
                "add chain {table} {name} {{ type {} hook prerouting priority {}; policy accept; }}",
                hook.kind, hook.priority
            ),
            Step::DeleteChain(name) => writeln!(out, "delete chain {table} {name}"),
            Step::FlushRules(Some(chain)) => writeln!(out, "flush chain {table} {chain}"),
            Step::FlushRules(None) => writeln!(out, "flush table {table}"),
            Step::AddRule { chain, rule } => {
                writeln!(out, "add rule {table} {chain} {}", rule.text)
            }
        }
    }

    /// Cuts a step that adds elements into steps of one message each.
    pub(super) fn parts(&self, elements_per_message: usize) -> Vec<Step> {
        let Step::AddElements { set, elements } = self else { return vec![self.clone()] };
        let chunks = elements.chunks(elements_per_message);
        chunks
            .map(|chunk| Step::AddElements { set: set.clone(), elements: chunk.to_vec() })
            .collect()
    }
}

/// Encodes one message full of elements that are still allowed at `now`.
fn encode_chunk(chunk: &[(Network, Expiry)], now: Timestamp, add: impl FnOnce(&[Element<'_>])) {
    let live: Vec<(Key, Option<u64>)> = chunk
        .iter()
        .filter(|(_, expiry)| expiry.is_live_at(now))
        .map(|(network, expiry)| (Key::of(*network), timeout_ms(*expiry, now)))
        .collect();
    let elements: Vec<Element<'_>> = live
        .iter()
        .map(|(key, timeout_ms)| Element { key: key.bytes(), flags: 0, timeout_ms: *timeout_ms })
        .collect();
    if !elements.is_empty() {
        add(&elements);
    }
}

/// Encodes one message full of ranges that are still allowed at `now`: an element begins each, and
/// one behind its last address ends it.
fn encode_ranges(chunk: &[Range], now: Timestamp, add: impl FnOnce(&[Element<'_>])) {
    let live: Vec<(Key, Key, Option<u64>)> = chunk
        .iter()
        .filter(|range| range.expiry.is_live_at(now))
        .map(|range| {
            let timeout_ms = timeout_ms(range.expiry, now);
            (Key::at(range.first), Key::at(after(range.last)), timeout_ms)
        })
        .collect();
    let elements: Vec<Element<'_>> = live
        .iter()
        .flat_map(|(first, end, timeout_ms)| {
            let start = Element { key: first.bytes(), flags: 0, timeout_ms: *timeout_ms };
            let flags = sys::ELEMENT_INTERVAL_END;
            [start, Element { key: end.bytes(), flags, timeout_ms: None }]
        })
        .collect();
    if !elements.is_empty() {
        add(&elements);
    }
}

/// Milliseconds until `expiry`; at least one for what is live.
pub(super) fn timeout_ms(expiry: Expiry, now: Timestamp) -> Option<u64> {
    let left = expiry.left_at(now)?;
    Some(u64::try_from(left.as_millis()).expect("times end in the year 9999"))
}

fn new_set(name: &str, family: Family, size: u32) -> NewSet<'_> {
    let (key_type, key_bytes) = key_shape(family);
    NewSet { name, key_type, key_bytes, flags: sys::SET_TIMEOUT, size, comment: SET_COMMENT }
}

/// The kernel's type and length of a set's key.
pub(super) fn key_shape(family: Family) -> (u32, u32) {
    match family {
        Family::V4 => (sys::TYPE_IPV4, 4),
        Family::V6 => (sys::TYPE_IPV6, 16),
    }
}

/// The key of an element: the network's first address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Key {
    pub(super) fn of(network: Network) -> Key {
        Key::at(network.address())
    }

    fn at(address: IpAddr) -> Key {
        match address {
            IpAddr::V4(address) => Key::V4(address.octets()),
            IpAddr::V6(address) => Key::V6(address.octets()),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Key::V4(bytes) => bytes,
            Key::V6(bytes) => bytes,
        }
    }
}
