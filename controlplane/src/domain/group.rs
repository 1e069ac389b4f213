//! Groups and their members.

use postern_shared::ids::{GroupId, MemberId, OrgId, PairId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::wire::v1::{Source, SourceKind};
use serde::{Deserialize, Serialize};

use super::audit::Whereabouts;
use super::command::Decision;
use super::rejection::{Rejection, check_unchanged};
use super::state::{GroupRow, State};
use super::text::Label;
use super::{Change, Event};

/// A named set of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The group.
    pub id: GroupId,
    /// Its org.
    pub org: OrgId,
    /// Its running number in the org.
    pub number: u64,
    /// Its name.
    pub name: Label,
    /// How long a reported address counts here; of pair and group the shorter wins.
    pub ttl: Option<Ttl>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The membership.
    pub id: MemberId,
    /// The org.
    pub org: OrgId,
    /// The group.
    pub group: GroupId,
    /// Who or what is a member.
    pub kind: MemberKind,
    /// When the membership ends.
    pub expires: Expiry,
    /// When it was added.
    pub added_at: Timestamp,
}

/// Who or what can be a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberKind {
    /// Wherever a pair is.
    Pair(PairId),
    /// A fixed network.
    Network {
        /// The network.
        network: Network,
        /// What it is, in words.
        note: Label,
    },
}

/// What to change of a group; `None` leaves as is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupEdit {
    /// A new name.
    pub name: Option<Label>,
    /// A new lifetime, or none any more.
    pub ttl: Option<Option<Ttl>>,
}

/// Most groups that an org may have.
const GROUPS_MAX: usize = 10_000;
/// Most members that a group may have.
const MEMBERS_MAX: usize = 100_000;
/// Most groups that a pair may be a member of.
const MEMBERSHIPS_MAX: usize = 256;

impl State {
    /// The name of the pair, or the note of a fixed network.
    pub fn member_name<'a>(&'a self, kind: &'a MemberKind) -> Option<&'a Label> {
        match kind {
            MemberKind::Pair(pair) => self.pair(*pair).map(|row| &row.record.name),
            MemberKind::Network { note, .. } => Some(note),
        }
    }

    /// Where a pair is that is to be a member; a fixed network is where it says.
    fn whereabouts(&self, kind: &MemberKind) -> Option<Whereabouts> {
        let MemberKind::Pair(pair) = kind else { return None };
        let row = self.pair(*pair)?;
        let (ipv4, ipv6) = row.report.map_or((None, None), |report| (report.ipv4, report.ipv6));
        Some(Whereabouts { ttl: row.record.ttl, ipv4, ipv6 })
    }

    /// The members that a network of a group's list comes from, in the order of their ids.
    pub fn sources(&self, group: &GroupRow, network: Network) -> Vec<Source> {
        let members = group.sources.get(&network).into_iter().flatten();
        let source = |id: &MemberId| {
            let member = &group.members.get(id)?.record;
            let (kind, id) = match &member.kind {
                MemberKind::Pair(pair) => (SourceKind::Pair, pair.to_string()),
                MemberKind::Network { .. } => (SourceKind::Network, member.id.to_string()),
            };
            Some(Source { kind, id, name: self.member_name(&member.kind)?.to_string() })
        };
        members.filter_map(source).collect()
    }
}

pub(super) fn create(state: &State, group: &Group) -> Result<Decision, Rejection> {
    let org = state.org_row(group.org)?;
    if GROUPS_MAX <= org.groups.len() {
        return Err(Rejection::Limit { what: "groups of an org", max: GROUPS_MAX });
    }
    let number = org.record.groups_numbered + 1;
    let numbered = Group { number, ..group.clone() };
    let counted = super::Org { groups_numbered: number, ..org.record.clone() };
    let event =
        Event::GroupCreated { group: group.id, number, name: group.name.clone(), ttl: group.ttl };
    Ok(Decision::new(event, [Change::PutOrg(counted), Change::PutGroup(numbered)]))
}

pub(super) fn edit(
    state: &State,
    org: OrgId,
    id: GroupId,
    edit: &GroupEdit,
    expected: Option<Revision>,
) -> Result<Decision, Rejection> {
    let row = state.group_of(org, id)?;
    check_unchanged(expected, row.revision)?;
    let mut group = row.record.clone();
    if let Some(name) = &edit.name {
        group.name = name.clone();
    }
    group.ttl = edit.ttl.unwrap_or(group.ttl);
    if group == row.record {
        return Ok(Decision::nothing());
    }
    let event = Event::GroupEdited { group: id, name: group.name.clone(), ttl: group.ttl };
    Ok(Decision::new(event, [Change::PutGroup(group)]))
}

/// Members go with their group, without a change of their own; agents may keep the id of a group
/// that is gone, since ids are never given again.
pub(super) fn delete(
    state: &State,
    org: OrgId,
    id: GroupId,
    expected: Option<Revision>,
) -> Result<Decision, Rejection> {
    let row = state.group_of(org, id)?;
    check_unchanged(expected, row.revision)?;
    let event = Event::GroupDeleted { group: id, name: row.record.name.clone() };
    Ok(Decision::new(event, [Change::DeleteGroup(id)]))
}

pub(super) fn add_member(state: &State, member: &Member) -> Result<Decision, Rejection> {
    let row = state.group_of(member.org, member.group)?;
    if MEMBERS_MAX <= row.members.len() {
        return Err(Rejection::Limit { what: "members of a group", max: MEMBERS_MAX });
    }
    let name = match &member.kind {
        MemberKind::Pair(pair) => {
            let pair_row = state.live_pair(member.org, *pair)?;
            if MEMBERSHIPS_MAX <= pair_row.memberships.len() {
                return Err(Rejection::Limit { what: "groups of a pair", max: MEMBERSHIPS_MAX });
            }
            if pair_row.memberships.contains_key(&member.group) {
                return Err(Rejection::Conflict("the pair is a member of the group already"));
            }
            pair_row.record.name.clone()
        }
        MemberKind::Network { network, note } => {
            if let Some(why) = network.ungrantable() {
                let reason = format!("{network} holds {why}, which may never be granted");
                return Err(Rejection::Invalid { field: "cidr", reason });
            }
            if row.has_fixed(*network) {
                return Err(Rejection::Conflict("the network is a member of the group already"));
            }
            note.clone()
        }
    };
    let event = Event::MemberAdded {
        group: member.group,
        member: member.id,
        name,
        kind: member.kind.clone(),
        expires: member.expires,
        whereabouts: state.whereabouts(&member.kind),
    };
    Ok(Decision::new(event, [Change::PutMember(member.clone())]))
}

pub(super) fn remove_member(
    state: &State,
    org: OrgId,
    group: GroupId,
    member: MemberId,
) -> Result<Decision, Rejection> {
    let row = state.group_of(org, group)?;
    let record = &row.members.get(&member).ok_or(Rejection::NotFound)?.record;
    let name = state.member_name(&record.kind).cloned();
    let event = Event::MemberRemoved { group, member, name, kind: record.kind.clone() };
    Ok(Decision::new(event, [Change::DeleteMember(group, member)]))
}
