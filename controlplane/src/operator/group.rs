//! Groups, their members and what they allow.

use std::ops::Bound;

use postern_shared::ids::{GroupId, MemberId};
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::wire::v1::{Entry, ListedEntry};

use super::answer::{Answer, GroupList, GroupView, MemberKindView, MemberView, Named, Page};
use super::pair::{gone, pair_name};
use super::request::{MemberAsked, MemberEnd, Reference};
use super::{Desk, OperatorError, find};
use crate::domain::{Command, Group, GroupRow, Label, Member, MemberKind, State};

impl Desk<'_> {
    pub(super) async fn add_group(
        &self,
        name: Label,
        ttl: Option<Ttl>,
    ) -> Result<Answer, OperatorError> {
        let id = GroupId::from_random(self.engine.chance().id());
        self.submit(Command::CreateGroup(Group {
            id,
            org: self.org,
            number: 0, // given by the decision
            name,
            ttl,
            created_at: self.now(),
        }))
        .await?;
        let now = self.now();
        let group =
            self.read(|state, _| state.group(id).map(|row| view(row, now)).ok_or_else(gone))?;
        Ok(Answer::GroupAdded(group))
    }

    pub(super) fn list_groups(&self, after: Option<u64>) -> Result<Answer, OperatorError> {
        let now = self.now();
        self.read(|state, org| {
            let after = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = org.groups.range((after, Bound::Unbounded));
            let rows = rows.filter_map(|(_, id)| state.group(*id));
            Ok(Answer::Groups(Page::of(rows.map(|row| view(row, now)), |view| view.number)))
        })
    }

    pub(super) fn show_group(
        &self,
        group: &Reference,
        after: Option<Network>,
    ) -> Result<Answer, OperatorError> {
        let now = self.now();
        self.read(|state, org| {
            let id = find::group(state, org, group)?;
            let row = state.group(id).ok_or_else(gone)?;
            let live = row.list.live_at(now);
            let live = live.skip_while(|(network, _)| after.is_some_and(|after| *network <= after));
            let listed = live.map(|(cidr, expires_at)| {
                ListedEntry::new(Entry { cidr, expires_at }, state.sources(row, cidr))
            });
            Ok(Answer::Group(GroupList {
                group: view(row, now),
                epoch: self.engine.epoch(),
                revision: row.list_revision,
                digest: row.list.digest_at(now),
                allowed: Page::of(listed, |entry| entry.cidr),
            }))
        })
    }

    pub(super) fn list_members(
        &self,
        group: &Reference,
        after: Option<MemberId>,
    ) -> Result<Answer, OperatorError> {
        self.read(|state, org| {
            let id = find::group(state, org, group)?;
            let row = state.group(id).ok_or_else(gone)?;
            let after = after.map_or(Bound::Unbounded, Bound::Excluded);
            let members = row.members.range((after, Bound::Unbounded));
            let shown = members.filter_map(|(_, member)| member_view(state, &member.record));
            Ok(Answer::Members(Page::of(shown, |member| member.id)))
        })
    }

    pub(super) async fn remove_group(&self, group: &Reference) -> Result<Answer, OperatorError> {
        let (id, name) = self.read(|state, org| {
            let id = find::group(state, org, group)?;
            Ok((id, state.group(id).map(|row| row.record.name.clone())))
        })?;
        self.submit(Command::DeleteGroup { org: self.org, group: id, expected: None }).await?;
        Ok(Answer::Removed(Named::new(id, name.as_ref())))
    }

    pub(super) async fn add_member(
        &self,
        group: &Reference,
        asked: MemberAsked,
        end: MemberEnd,
    ) -> Result<Answer, OperatorError> {
        let now = self.now();
        let (group, kind) = self.read(|state, org| {
            let kind = match asked {
                MemberAsked::Pair(pair) => MemberKind::Pair(find::pair(state, org, &pair)?),
                MemberAsked::Network { network, note } => MemberKind::Network { network, note },
            };
            Ok((find::group(state, org, group)?, kind))
        })?;
        let member = Member {
            id: MemberId::from_random(self.engine.chance().id()),
            org: self.org,
            group,
            kind,
            expires: match end {
                MemberEnd::At(expiry) => expiry,
                MemberEnd::After(span) => Expiry::At(now.saturating_add(span.as_duration())),
            },
            added_at: now,
        };
        let view = self.read(|state, _| member_view(state, &member).ok_or_else(gone))?;
        self.submit(Command::AddMember(member)).await?;
        Ok(Answer::MemberAdded(view))
    }

    pub(super) async fn remove_member(
        &self,
        group: &Reference,
        member: &Reference,
    ) -> Result<Answer, OperatorError> {
        let (group, id, name) = self.read(|state, org| {
            let group = find::group(state, org, group)?;
            let id = find::member(state, org, group, member)?;
            let row = state.group(group).and_then(|row| row.members.get(&id));
            Ok((group, id, row.and_then(|row| state.member_name(&row.record.kind).cloned())))
        })?;
        self.submit(Command::RemoveMember { org: self.org, group, member: id }).await?;
        Ok(Answer::Removed(Named::new(id, name.as_ref())))
    }
}

fn view(row: &GroupRow, now: Timestamp) -> GroupView {
    GroupView {
        id: row.record.id,
        number: row.record.number,
        name: row.record.name.clone(),
        ttl: row.record.ttl,
        created_at: row.record.created_at,
        members: row.members.len(),
        entries: row.list.len_at(now),
    }
}

fn member_view(state: &State, member: &Member) -> Option<MemberView> {
    let kind = match &member.kind {
        MemberKind::Pair(pair) => MemberKindView::Pair(pair_name(&state.pair(*pair)?.record)),
        MemberKind::Network { network, note } => {
            MemberKindView::Network { network: *network, note: note.clone() }
        }
    };
    Some(MemberView { id: member.id, kind, expires_at: member.expires, added_at: member.added_at })
}
