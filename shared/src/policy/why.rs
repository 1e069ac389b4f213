//! Where the entries of a list stand on this host, for people who ask.

use std::net::IpAddr;

use super::{Accepted, Findings, Reason, Refusal};
use crate::network::Network;
use crate::time::{Expiry, Timestamp};

/// An entry that an address falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The entry.
    pub network: Network,
    /// Until when it is open; where it is not, until when it was offered.
    pub expiry: Expiry,
    /// Where it stands.
    pub standing: Standing,
}

/// Where an entry stands on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Open for as long as the list says.
    Listed,
    /// Open, and prolonged for as long as the control plane is followed and lists it.
    Leased,
    /// Open always, by the local policy.
    FailSafe,
    /// Open until its deadline, though a new list left it out: the brake holds it.
    Held,
    /// Not open, for the sake of other entries of its list or because its lease ran out.
    Withheld,
    /// Not open: the local policy refuses it.
    Refused(Reason),
}

impl Accepted {
    /// What is not as the control plane said.
    pub fn findings(&self) -> Findings {
        let refusal =
            |(network, _)| self.policy.judge(network).map(|reason| Refusal { network, reason });
        Findings {
            refused: self.refused.iter().filter_map(refusal).take(Findings::SHOWN_MAX).collect(),
            refused_count: self.refused.len(),
            too_many: Some(self.offered_count()).filter(|count| self.policy.entries_max < *count),
            withheld_count: self.withheld.len(),
            held: self.held.iter().take(Findings::SHOWN_MAX).copied().collect(),
            held_count: self.held.len(),
        }
    }

    /// All entries that `address` falls into at `now`, the longest prefix first. The address gets
    /// in as long as any of them is open.
    pub fn why(&self, address: IpAddr, now: Timestamp) -> Vec<Match> {
        let host = Network::host(address);
        let networks = (0..=host.prefix())
            .rev()
            .filter_map(|prefix| Network::containing(host.address(), prefix));
        let matches = networks.filter_map(|network| {
            let lists = [&self.granted, &self.withheld, &self.refused];
            let expiry = lists.iter().find_map(|list| list.get(network))?;
            Some(Match { network, expiry, standing: self.standing(network) })
        });
        matches.filter(|found| found.expiry.is_live_at(now)).collect()
    }

    fn standing(&self, network: Network) -> Standing {
        if self.policy.is_failsafe(network) {
            Standing::FailSafe
        } else if self.held.contains(&network) {
            Standing::Held
        } else if self.leased.contains_key(&network) {
            Standing::Leased
        } else if self.withheld.get(network).is_some() {
            Standing::Withheld
        } else if let Some(reason) = self.policy.judge(network) {
            Standing::Refused(reason)
        } else {
            Standing::Listed
        }
    }
}
