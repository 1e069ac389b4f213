//! Agents and their invitations.

use std::collections::BTreeSet;
use std::ops::Bound;

use postern_shared::ids::{AgentId, EnrolmentId, GroupId};
use postern_shared::time::Ttl;
use postern_shared::token::{Token, TokenKind};
use postern_shared::wire::v1::AgentGroup;

use super::answer::{AgentView, Answer, Invitation, Named, Page, Revealed};
use super::pair::gone;
use super::request::Reference;
use super::{Desk, OperatorError, Plane, find};
use crate::domain::{Agent, Command, Enrolment, Label, OrgRow, State};

/// Most receipts on one page of agents: an agent can have thousands.
const PAGE_RECEIPTS_MAX: usize = 4_096;

impl Desk<'_> {
    pub(super) async fn invite_agent(
        &self,
        name: Label,
        groups: &[Reference],
        lifetime: Ttl,
    ) -> Result<Answer, OperatorError> {
        let (ids, groups) = self.read(|state, org| {
            let ids = resolve(state, org, groups)?;
            Ok((ids.clone(), named(state, &ids)))
        })?;
        let chance = self.engine.chance();
        let id = EnrolmentId::from_random(chance.id());
        let (token, now) = (chance.token(TokenKind::Enrolment), self.now());
        let expires_at = now.saturating_add(lifetime.as_duration());
        self.submit(Command::InviteAgent(Enrolment {
            id,
            org: self.org,
            name: name.clone(),
            hash: token.hash(),
            groups: ids,
            created_at: now,
            expires_at,
            used_at: None,
        }))
        .await?;
        let invitation = Revealed::new(self.plane.invitation(&token));
        Ok(Answer::AgentInvited(Invitation { id, name, groups, expires_at, invitation }))
    }

    pub(super) fn list_agents(
        &self,
        all: bool,
        after: Option<AgentId>,
    ) -> Result<Answer, OperatorError> {
        let mut page = self.read(|state, org| {
            let after = after.map_or(Bound::Unbounded, Bound::Excluded);
            let agents = org.agents.range((after, Bound::Unbounded));
            let agents = agents.filter_map(|id| state.agent(*id));
            let shown = agents.filter(|agent| all || agent.revoked_at.is_none());
            Ok(Page::of(shown.map(|agent| view(state, agent)), |view| view.id))
        })?;
        self.add_reports(&mut page.items);
        shorten(&mut page);
        Ok(Answer::Agents(page))
    }

    pub(super) async fn set_agent_groups(
        &self,
        agent: &Reference,
        groups: &[Reference],
    ) -> Result<Answer, OperatorError> {
        let (agent, groups) = self.read(|state, org| {
            Ok((find::agent(state, org, agent)?, resolve(state, org, groups)?))
        })?;
        self.submit(Command::SetAgentGroups { org: self.org, agent, groups, expected: None })
            .await?;
        let mut view = self
            .read(|state, _| state.agent(agent).map(|agent| view(state, agent)).ok_or_else(gone))?;
        self.add_reports(std::slice::from_mut(&mut view));
        Ok(Answer::AgentGroupsSet(view))
    }

    pub(super) async fn revoke_agent(&self, agent: &Reference) -> Result<Answer, OperatorError> {
        let (id, name) = self.read(|state, org| {
            let id = find::agent(state, org, agent)?;
            Ok((id, state.agent(id).map(|agent| agent.name.clone())))
        })?;
        self.submit(Command::RevokeAgent { org: self.org, agent: id }).await?;
        Ok(Answer::Removed(Named::new(id, name.as_ref())))
    }

    /// Adds what the agents said. Not under the lock of the state: nobody holds both.
    fn add_reports(&self, views: &mut [AgentView]) {
        let board = self.engine.board();
        for view in views {
            let Some(report) = board.agent(view.id) else { continue };
            view.last_seen = Some(report.at);
            view.host = Some(report.host.clone());
            view.receipts = report.receipts.values().cloned().collect();
        }
    }
}

impl Plane {
    /// Writes what an agent needs to enrol: `URL#TOKEN`, and `.PIN` where there is one.
    pub(crate) fn invitation(&self, token: &Token) -> String {
        let pin = self.pin.as_ref().map(|pin| format!(".{pin}")).unwrap_or_default();
        format!("{}#{}{pin}", self.url, token.expose())
    }
}

fn resolve(
    state: &State,
    org: &OrgRow,
    groups: &[Reference],
) -> Result<BTreeSet<GroupId>, OperatorError> {
    groups.iter().map(|group| find::group(state, org, group)).collect()
}

fn view(state: &State, agent: &Agent) -> AgentView {
    AgentView {
        id: agent.id,
        name: agent.name.clone(),
        pair: agent.pair,
        groups: named(state, &agent.groups),
        enrolled_at: agent.enrolled_at,
        revoked_at: agent.revoked_at,
        last_seen: None,
        host: None,
        receipts: Vec::new(),
    }
}

fn named(state: &State, groups: &BTreeSet<GroupId>) -> Vec<AgentGroup> {
    let rows = groups.iter().filter_map(|id| state.group(*id));
    let group = rows.map(|row| AgentGroup {
        id: row.record.id,
        number: row.record.number,
        name: row.record.name.to_string(),
    });
    group.collect()
}

/// Ends a page before its receipts are too many; the first agent is always on it.
fn shorten(page: &mut Page<AgentView, AgentId>) {
    let mut receipts = 0;
    let mut fits = |agent: &AgentView| {
        receipts += agent.receipts.len();
        receipts <= PAGE_RECEIPTS_MAX
    };
    let kept = page.items.iter().take_while(|agent| fits(agent)).count().max(1);
    if kept < page.items.len() {
        page.items.truncate(kept);
        page.next = page.items.last().map(|agent| agent.id);
    }
}
