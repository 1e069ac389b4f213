//! What a group allowed at a time, worked out from the audit alone.

use std::collections::BTreeMap;

use postern_shared::ids::{GroupId, MemberId, PairId};
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::wire::v1::{Source, SourceKind};

use super::audit::{AuditRecord, Event, Whereabouts};
use super::group::MemberKind;
use super::resolve::deadline;
use super::text::Label;

/// A replay of an org's records that follows one group up to a time. Everything in it comes from
/// the records; it takes as much memory as the group has members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    group: GroupId,
    at: Timestamp,
    found: Option<Found>,
    is_partial: bool,
    pairs: BTreeMap<PairId, Tracked>,
}

/// The group as far as it was replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    name: Label,
    ttl: Option<Ttl>,
    members: BTreeMap<MemberId, Membership>,
    is_deleted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Membership {
    kind: MemberKind,
    name: Label,
    expires: Expiry,
}

/// A pair that is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tracked {
    name: Label,
    member: MemberId,
    whereabouts: Whereabouts,
}

/// What a group was at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Its name then.
    pub name: Label,
    /// Whether it was deleted by then.
    pub is_deleted: bool,
    /// What it allowed, in the order of the networks.
    pub entries: Vec<PastEntry>,
}

/// A network that was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastEntry {
    /// The network.
    pub network: Network,
    /// Until when it was allowed, as things stood.
    pub expires: Expiry,
    /// The members that it came from, in the order of their ids.
    pub sources: Vec<Source>,
}

impl History {
    /// Begins to follow `group`, up to and including `at`.
    pub fn new(group: GroupId, at: Timestamp) -> History {
        History { group, at, found: None, is_partial: false, pairs: BTreeMap::new() }
    }

    /// Takes the org's next record; answers whether later ones can still matter.
    pub fn take(&mut self, record: &AuditRecord) -> bool {
        if self.at < record.at {
            return false;
        }
        self.is_partial |= self.found.is_none() && self.is_of_the_group(&record.event);
        self.apply(&record.event);
        !self.found.as_ref().is_some_and(|found| found.is_deleted)
    }

    /// Says whether there were records of the group, but none of how it began: they were pruned, and
    /// what the group allowed cannot be told.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// What the group was at the time; `None` where no record had told of it by then.
    pub fn finish(self) -> Option<Past> {
        let found = self.found?;
        let mut allowed: BTreeMap<Network, (Option<Expiry>, Vec<Source>)> = BTreeMap::new();
        for (id, member) in &found.members {
            let pair = match &member.kind {
                MemberKind::Pair(pair) => self.pairs.get(pair),
                MemberKind::Network { .. } => None,
            };
            for (network, expiry) in member.networks(pair, found.ttl) {
                let (latest, sources) = allowed.entry(network).or_default();
                *latest = (*latest).max(Some(expiry));
                sources.push(member.source(*id, pair));
            }
        }
        let live = allowed.into_iter().filter_map(|(network, (expires, sources))| {
            let expires = expires.filter(|expires| expires.is_live_at(self.at))?;
            Some(PastEntry { network, expires, sources })
        });
        Some(Past { name: found.name, is_deleted: found.is_deleted, entries: live.collect() })
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::GroupCreated { group, name, ttl, .. } if *group == self.group => {
                let members = BTreeMap::new();
                self.found =
                    Some(Found { name: name.clone(), ttl: *ttl, members, is_deleted: false });
            }
            Event::GroupEdited { group, name, ttl } if *group == self.group => {
                if let Some(found) = &mut self.found {
                    found.name = name.clone();
                    found.ttl = *ttl;
                }
            }
            Event::GroupDeleted { group, .. } if *group == self.group => {
                if let Some(found) = &mut self.found {
                    found.is_deleted = true;
                    found.members.clear();
                }
            }
            Event::MemberAdded { group, member, name, kind, expires, whereabouts }
                if *group == self.group =>
            {
                if let (MemberKind::Pair(pair), Some(whereabouts)) = (kind, whereabouts) {
                    let tracked =
                        Tracked { name: name.clone(), member: *member, whereabouts: *whereabouts };
                    self.pairs.insert(*pair, tracked);
                }
                let (kind, name) = (kind.clone(), name.clone());
                let membership = Membership { kind, name, expires: *expires };
                self.with_members(|members| drop(members.insert(*member, membership)));
            }
            Event::MemberRemoved { group, member, kind, .. } if *group == self.group => {
                if let MemberKind::Pair(pair) = kind {
                    self.pairs.remove(pair);
                }
                self.with_members(|members| drop(members.remove(member)));
            }
            Event::PairEdited { pair, name, ttl, .. } => {
                if let Some(tracked) = self.pairs.get_mut(pair) {
                    tracked.name = name.clone();
                    tracked.whereabouts.ttl = *ttl;
                }
            }
            Event::PairReported { pair, ipv4, ipv6, .. } => {
                if let Some(Tracked { whereabouts, .. }) = self.pairs.get_mut(pair) {
                    *whereabouts = Whereabouts { ipv4: *ipv4, ipv6: *ipv6, ..*whereabouts };
                }
            }
            // What the old bookmark reported closed with it.
            Event::BookmarkRotated { pair, .. } | Event::AddressesClosed { pair, .. } => {
                if let Some(Tracked { whereabouts, .. }) = self.pairs.get_mut(pair) {
                    *whereabouts = Whereabouts { ipv4: None, ipv6: None, ..*whereabouts };
                }
            }
            // Memberships go with their pair.
            Event::PairDeleted { pair, .. } | Event::AgentRevoked { pair, .. } => {
                if let Some(Tracked { member, .. }) = self.pairs.remove(pair) {
                    self.with_members(|members| drop(members.remove(&member)));
                }
            }
            Event::GroupCreated { .. }
            | Event::GroupEdited { .. }
            | Event::GroupDeleted { .. }
            | Event::MemberAdded { .. }
            | Event::MemberRemoved { .. }
            | Event::OrgCreated { .. }
            | Event::KeyMinted { .. }
            | Event::KeyRevoked { .. }
            | Event::KeyNarrowed { .. }
            | Event::PairCreated { .. }
            | Event::AgentInvited { .. }
            | Event::AgentEnrolled { .. }
            | Event::AgentRegrouped { .. }
            | Event::ReceiptFailed { .. }
            | Event::ServerKeyRotated { .. }
            | Event::RequestsRefused { .. }
            | Event::UserInvited { .. }
            | Event::UserAccepted { .. }
            | Event::SignInTried { .. }
            | Event::SignedIn { .. }
            | Event::SignedOut { .. }
            | Event::PasswordSet { .. }
            | Event::ResetRequested { .. }
            | Event::RecoveryIssued { .. }
            | Event::AuthenticatorReplaced { .. }
            | Event::RecoveryCodesReplaced { .. }
            | Event::UserRoleSet { .. }
            | Event::UserRemoved { .. }
            | Event::BookmarkMailed { .. } => {}
        }
    }

    /// Says whether something happened to the group that it must have been there for.
    fn is_of_the_group(&self, event: &Event) -> bool {
        match event {
            Event::GroupEdited { group, .. }
            | Event::GroupDeleted { group, .. }
            | Event::MemberAdded { group, .. }
            | Event::MemberRemoved { group, .. } => *group == self.group,
            Event::OrgCreated { .. }
            | Event::KeyMinted { .. }
            | Event::KeyRevoked { .. }
            | Event::KeyNarrowed { .. }
            | Event::PairCreated { .. }
            | Event::PairEdited { .. }
            | Event::PairDeleted { .. }
            | Event::PairReported { .. }
            | Event::GroupCreated { .. }
            | Event::AgentInvited { .. }
            | Event::AgentEnrolled { .. }
            | Event::AgentRegrouped { .. }
            | Event::AgentRevoked { .. }
            | Event::ReceiptFailed { .. }
            | Event::BookmarkRotated { .. }
            | Event::ServerKeyRotated { .. }
            | Event::RequestsRefused { .. }
            | Event::UserInvited { .. }
            | Event::UserAccepted { .. }
            | Event::SignInTried { .. }
            | Event::SignedIn { .. }
            | Event::SignedOut { .. }
            | Event::PasswordSet { .. }
            | Event::ResetRequested { .. }
            | Event::RecoveryIssued { .. }
            | Event::AuthenticatorReplaced { .. }
            | Event::RecoveryCodesReplaced { .. }
            | Event::UserRoleSet { .. }
            | Event::UserRemoved { .. }
            | Event::AddressesClosed { .. }
            | Event::BookmarkMailed { .. } => false,
        }
    }

    fn with_members(&mut self, change: impl FnOnce(&mut BTreeMap<MemberId, Membership>)) {
        if let Some(found) = &mut self.found {
            change(&mut found.members);
        }
    }
}

impl Membership {
    /// The networks that come from the member, each with its expiry.
    fn networks(&self, pair: Option<&Tracked>, ttl: Option<Ttl>) -> Vec<(Network, Expiry)> {
        match &self.kind {
            MemberKind::Network { network, .. } => vec![(*network, self.expires)],
            MemberKind::Pair(_) => {
                let spots = pair.map(|pair| pair.whereabouts).into_iter();
                let spots = spots.flat_map(|whereabouts| {
                    let until = move |at| deadline(at, whereabouts.ttl, ttl);
                    whereabouts.networks().map(move |(network, at)| (network, until(at)))
                });
                spots
                    .map(|(network, until)| (network, Expiry::At(until).min(self.expires)))
                    .collect()
            }
        }
    }

    fn source(&self, id: MemberId, pair: Option<&Tracked>) -> Source {
        match &self.kind {
            MemberKind::Pair(of) => Source {
                kind: SourceKind::Pair,
                id: of.to_string(),
                name: pair.map_or(&self.name, |pair| &pair.name).to_string(),
            },
            MemberKind::Network { .. } => Source {
                kind: SourceKind::Network,
                id: id.to_string(),
                name: self.name.to_string(),
            },
        }
    }
}
