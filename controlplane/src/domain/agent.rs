//! Agents and how they get in.

use std::collections::BTreeSet;

use postern_shared::ids::{AgentId, EnrolmentId, GroupId, OrgId, PairId};
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;
use serde::{Deserialize, Serialize};

use super::command::Decision;
use super::pair::{self, Pair};
use super::rejection::{Rejection, check_unchanged};
use super::state::State;
use super::text::Label;
use super::{Change, Event};

/// The daemon on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The agent.
    pub id: AgentId,
    /// Its org.
    pub org: OrgId,
    /// Its name.
    pub name: Label,
    /// Its own pair: its credential works only from where this pair is.
    pub pair: PairId,
    /// The hash of its credential.
    pub token: TokenHash,
    /// The groups that it may follow.
    pub groups: BTreeSet<GroupId>,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// An invitation for one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The invitation.
    pub id: EnrolmentId,
    /// The org.
    pub org: OrgId,
    /// The name that the agent will have.
    pub name: Label,
    /// The hash of the token.
    pub hash: TokenHash,
    /// The groups that the agent will follow.
    pub groups: BTreeSet<GroupId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used.
    pub used_at: Option<Timestamp>,
}

/// Most agents that an org may have, revoked ones not counted.
const AGENTS_MAX: usize = 10_000;
/// Most invitations that an org may have open.
const INVITATIONS_MAX: usize = 1_000;
/// Most groups that one agent may follow.
const AGENT_GROUPS_MAX: usize = 256;

pub(super) fn invite(
    state: &State,
    enrolment: &Enrolment,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let org = state.org_row(enrolment.org)?;
    check_groups(state, enrolment.org, &enrolment.groups)?;
    check_room(state, enrolment.org)?;
    let open = org.enrolments.iter().filter_map(|id| state.enrolment(*id));
    let is_open = |open: &&Enrolment| open.used_at.is_none() && now < open.expires_at;
    if INVITATIONS_MAX <= open.filter(is_open).count() {
        return Err(Rejection::Limit { what: "open invitations of an org", max: INVITATIONS_MAX });
    }
    let event = Event::AgentInvited {
        enrolment: enrolment.id,
        name: enrolment.name.clone(),
        groups: enrolment.groups.clone(),
        expires_at: enrolment.expires_at,
    };
    Ok(Decision::new(event, [Change::PutEnrolment(enrolment.clone())]))
}

/// Uses an invitation up. `pair` becomes the agent's own; its number and name are filled in.
pub(super) fn enrol(
    state: &State,
    enrolment: EnrolmentId,
    agent: AgentId,
    token: TokenHash,
    own: &Pair,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let invitation = state.enrolment(enrolment).ok_or(Rejection::NotFound)?;
    if invitation.used_at.is_some() || invitation.expires_at <= now {
        return Err(Rejection::NotFound);
    }
    check_room(state, invitation.org)?;
    let own = Pair { org: invitation.org, name: invitation.name.clone(), ..own.clone() };
    let created = pair::create(state, &own)?;
    let groups = invitation.groups.iter().copied();
    let enrolled = Agent {
        id: agent,
        org: invitation.org,
        name: invitation.name.clone(),
        pair: own.id,
        token,
        groups: groups.filter(|group| state.group(*group).is_some()).collect(),
        enrolled_at: now,
        revoked_at: None,
    };
    let event = Event::AgentEnrolled {
        agent,
        pair: own.id,
        name: invitation.name.clone(),
        groups: enrolled.groups.clone(),
    };
    let mut changes = created.changes;
    changes.push(Change::PutEnrolment(Enrolment { used_at: Some(now), ..invitation.clone() }));
    changes.push(Change::PutAgent(enrolled));
    Ok(Decision::new(event, changes))
}

pub(super) fn set_groups(
    state: &State,
    org: OrgId,
    id: AgentId,
    groups: &BTreeSet<GroupId>,
    expected: Option<Revision>,
) -> Result<Decision, Rejection> {
    let agent = live(state, org, id)?;
    check_unchanged(expected, state.agent_row(id).ok_or(Rejection::NotFound)?.revision)?;
    check_groups(state, org, groups)?;
    if agent.groups == *groups {
        return Ok(Decision::nothing());
    }
    let event = Event::AgentRegrouped { agent: id, groups: groups.clone() };
    Ok(Decision::new(event, [Change::PutAgent(Agent { groups: groups.clone(), ..agent.clone() })]))
}

pub(super) fn revoke(
    state: &State,
    org: OrgId,
    id: AgentId,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let agent = live(state, org, id)?;
    let mut changes = pair::delete_changes(state, agent.pair, now);
    changes.push(Change::PutAgent(Agent { revoked_at: Some(now), ..agent.clone() }));
    let event = Event::AgentRevoked { agent: id, name: agent.name.clone(), pair: agent.pair };
    Ok(Decision::new(event, changes))
}

fn live(state: &State, org: OrgId, id: AgentId) -> Result<&Agent, Rejection> {
    let agent = state.agent(id).filter(|agent| agent.org == org && agent.revoked_at.is_none());
    agent.ok_or(Rejection::NotFound)
}

fn check_room(state: &State, org: OrgId) -> Result<(), Rejection> {
    let live = state.agents_of(org).filter(|agent| agent.revoked_at.is_none());
    if AGENTS_MAX <= live.count() {
        return Err(Rejection::Limit { what: "agents of an org", max: AGENTS_MAX });
    }
    Ok(())
}

fn check_groups(state: &State, org: OrgId, groups: &BTreeSet<GroupId>) -> Result<(), Rejection> {
    if AGENT_GROUPS_MAX < groups.len() {
        return Err(Rejection::Limit { what: "groups of an agent", max: AGENT_GROUPS_MAX });
    }
    groups.iter().try_for_each(|group| state.group_of(org, *group).map(drop))
}
