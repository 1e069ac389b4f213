//! Cutting off connections whose source is on no list any more (`on_expiry: cut`).
//!
//! Only connections of sources that were listed and left are touched: who was connected before the
//! gate came stays. After a restart, connections of sources that left meanwhile end by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::Observed;
use postern_shared::time::Timestamp;

use super::config::{GateConfig, Ports};
use super::sets::{SetKey, SetState};
use crate::target::nft::conntrack::Flow;

/// How long after its deadline an entry counts as gone. The kernel counts from when it got the
/// entry, so it may be that much later than us, and a connection that is cut too early comes back.
pub(super) const LAG: Duration = Duration::from_millis(500);

/// Makes the question whether a connection goes to a protected port and comes from one of
/// `networks`.
pub(super) fn concerns(
    networks: BTreeSet<Network>,
    ports: Vec<Ports>,
) -> impl Fn(&Flow) -> bool + Send + 'static {
    let prefixes: BTreeSet<u8> = networks.iter().map(|network| network.prefix()).collect();
    move |flow| {
        ports.iter().any(|ports| includes(*ports, flow))
            && prefixes.iter().any(|prefix| {
                let network = Network::containing(flow.source, *prefix);
                network.is_some_and(|network| networks.contains(&network))
            })
    }
}

/// Says whether the gate would let `flow` in as a new connection.
pub(super) fn is_allowed(
    flow: &Flow,
    config: &GateConfig,
    sets: &BTreeMap<SetKey, SetState>,
    observed: &BTreeMap<GroupId, Observed>,
    now: Timestamp,
) -> bool {
    if config.failsafe.iter().any(|network| network.contains(flow.source)) {
        return true;
    }
    config
        .services
        .iter()
        .filter(|service| service.ports.iter().any(|ports| includes(*ports, flow)))
        .flat_map(|service| &service.groups)
        .any(|group| {
            sets.keys().filter(|key| key.group == *group).any(|key| {
                let network = Network::containing(flow.source, key.prefix);
                let expiry = network
                    .filter(|network| SetKey::of(*group, *network) == *key)
                    .and_then(|network| observed.get(group)?.get(&network));
                expiry.is_some_and(|expiry| expiry.is_live_at(now))
            })
        })
}

fn includes(ports: Ports, flow: &Flow) -> bool {
    ports.protocol.number() == flow.protocol && (ports.first..=ports.last).contains(&flow.port)
}

/// The earliest deadline of all entries.
pub(super) fn next_deadline(observed: &BTreeMap<GroupId, Observed>) -> Option<Timestamp> {
    observed.values().flatten().filter_map(|(_, expiry)| expiry.deadline()).min()
}
