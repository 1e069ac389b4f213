//! Entries that have expired or were taken away: they are forgotten, and where the operator says
//! so (`on_expiry: cut`), the connections of their sources are cut off.
//!
//! Only connections of sources that were listed and left are touched: who was connected before the
//! gate came stays. After a restart, connections of sources that left meanwhile end by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::Observed;
use postern_shared::time::Timestamp;

use super::GateTarget;
use super::config::{GateConfig, OnExpiry, Ports};
use super::sets::{SetKey, SetState};
use crate::target::nft::conntrack::{self, FLOWS_MAX, Flow};

/// How long after its deadline an entry counts as gone. The kernel counts from when it got the
/// entry, so it may be that much later than us, and a connection that is cut too early comes back.
pub(super) const LAG: Duration = Duration::from_millis(500);

/// Where nothing is cut off, expired entries are forgotten when the oldest is this old.
const FORGET_EVERY: Duration = Duration::from_secs(60);

impl GateTarget {
    pub(super) fn cuts(&self) -> bool {
        self.config.on_expiry == OnExpiry::Cut
    }

    /// Lets go of entries that have expired, and of the count of them. Where connections are cut
    /// off, this is when their sources have left.
    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        let cuts = self.cuts();
        let lag = if cuts { LAG } else { FORGET_EVERY };
        let expired_at = now.saturating_sub(lag);
        if now < self.forget_at(lag) {
            return;
        }
        self.forgotten_at = now;
        for (group, entries) in &mut self.observed {
            let (sets, leavers) = (&mut self.standing.sets, &mut self.leavers);
            entries.retain(|network, expiry| {
                let stays = expiry.is_live_at(expired_at);
                if let Some(set) = sets.get_mut(&SetKey::of(*group, *network)).filter(|_| !stays) {
                    set.len = set.len.saturating_sub(1);
                }
                if cuts && !stays {
                    leavers.insert(*network);
                }
                stays
            });
        }
        self.next_deadline = next_deadline(&self.observed);
    }

    /// When the entries are next to be looked through, which takes a while when there are many.
    fn forget_at(&self, lag: Duration) -> Timestamp {
        let due = self.next_deadline.unwrap_or(Timestamp::MAX).max(self.forgotten_at);
        due.saturating_add(lag)
    }

    /// Cuts off the connections of those who left. What cannot be done now is done at the next
    /// call.
    pub(super) async fn cut_off_leavers(&mut self, now: Timestamp) {
        let Some(kernel) = self.kernel.as_ref().filter(|_| !self.leavers.is_empty()) else {
            return;
        };
        let concerns = concerns(self.leavers.clone(), self.config.all_ports());
        let result = async {
            let mut flows =
                kernel.run(move |connection| conntrack::find(connection, concerns)).await?;
            let all = flows.len() < FLOWS_MAX;
            let Self { config, standing, observed, .. } = self;
            flows.retain(|flow| !is_allowed(flow, config, &standing.sets, observed, now));
            kernel.run(move |connection| conntrack::cut(connection, &flows)).await?;
            Ok::<bool, std::io::Error>(all)
        }
        .await;
        match result {
            Ok(true) => self.leavers.clear(),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                target = self.info.name,
                error = &error as &dyn std::error::Error,
                "connections of sources that left the list could not be cut off"
            ),
        }
    }

    /// How long until connections are to be cut off.
    pub(super) fn cut_due(&self) -> Option<Duration> {
        let (now, at) = self.clock.filter(|_| self.cuts() && self.next_deadline.is_some())?;
        let due = self.forget_at(LAG).since(now);
        Some(due.saturating_sub(at.elapsed()))
    }
}

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
