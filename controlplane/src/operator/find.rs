//! From what somebody wrote to the one record that is meant.

use std::fmt::Display;
use std::str::FromStr;

use postern_shared::ids::{AgentId, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use postern_shared::network::Network;

use super::request::Reference;
use super::{OperatorError, Sought};
use crate::domain::{MemberKind, OrgRow, State};

/// Most records that an error about an ambiguous name lists.
const CANDIDATES_MAX: usize = 10;

/// A record that may be meant.
struct Candidate<'a, I> {
    id: I,
    number: Option<u64>,
    name: &'a str,
}

/// Finds the org; without a reference it is the only one.
pub(super) fn org<'a>(
    state: &'a State,
    reference: Option<&Reference>,
) -> Result<&'a OrgRow, OperatorError> {
    let id = match reference {
        Some(reference) => {
            let orgs = state.orgs().map(|row| Candidate {
                id: row.record.id,
                number: None,
                name: row.record.name.as_str(),
            });
            one::<OrgId>(Sought::Org, reference, orgs)?
        }
        None => {
            let mut orgs = state.orgs();
            match (orgs.next(), orgs.next()) {
                (Some(only), None) => only.record.id,
                (None, _) => return Err(OperatorError::NoOrg),
                (Some(_), Some(_)) => {
                    let names = state.orgs().map(|row| row.record.name.to_string());
                    return Err(OperatorError::WhichOrg { orgs: listed(names) });
                }
            }
        }
    };
    state.org(id).ok_or(OperatorError::NoOrg)
}

/// Finds a pair of the org that is not deleted.
///
/// A name is looked for among all pairs: this is for people, who can wait for it.
pub(super) fn pair(
    state: &State,
    org: &OrgRow,
    reference: &Reference,
) -> Result<PairId, OperatorError> {
    let rows = org.pairs.values().filter_map(|id| state.pair(*id)).filter(|row| row.is_live());
    let pairs = rows.map(|row| Candidate {
        id: row.record.id,
        number: Some(row.record.number),
        name: row.record.name.as_str(),
    });
    one(Sought::Pair, reference, pairs)
}

/// Finds a group of the org.
pub(super) fn group(
    state: &State,
    org: &OrgRow,
    reference: &Reference,
) -> Result<GroupId, OperatorError> {
    let groups = org.groups.values().filter_map(|id| state.group(*id)).map(|row| Candidate {
        id: row.record.id,
        number: Some(row.record.number),
        name: row.record.name.as_str(),
    });
    one(Sought::Group, reference, groups)
}

/// Finds a key of the org that is not revoked.
pub(super) fn key(
    state: &State,
    org: &OrgRow,
    reference: &Reference,
) -> Result<KeyId, OperatorError> {
    let live = org.keys.iter().filter_map(|id| state.key(*id));
    let live = live.filter(|key| key.revoked_at.is_none());
    let keys = live.map(|key| Candidate { id: key.id, number: None, name: key.name.as_str() });
    one(Sought::Key, reference, keys)
}

/// Finds an agent of the org that is not revoked.
pub(super) fn agent(
    state: &State,
    org: &OrgRow,
    reference: &Reference,
) -> Result<AgentId, OperatorError> {
    let live = state.agents_of(org.record.id).filter(|agent| agent.revoked_at.is_none());
    let agents =
        live.map(|agent| Candidate { id: agent.id, number: None, name: agent.name.as_str() });
    one(Sought::Agent, reference, agents)
}

/// Finds a user of the org who was not removed.
pub(super) fn user(
    state: &State,
    org: &OrgRow,
    reference: &Reference,
) -> Result<UserId, OperatorError> {
    let users = org.users.iter().filter_map(|id| state.user(*id));
    let users =
        users.map(|user| Candidate { id: user.id, number: None, name: user.email.as_str() });
    one(Sought::User, reference, users)
}

/// Finds a group of the org, or one that may be gone by its id.
pub(super) fn known_group(
    state: &State,
    org: &OrgRow,
    reference: &Reference,
) -> Result<GroupId, OperatorError> {
    reference.as_str().parse().or_else(|_| group(state, org, reference))
}

/// Finds a member of a group: by the id of the membership, by its fixed network, or by its pair.
pub(super) fn member(
    state: &State,
    org: &OrgRow,
    group: GroupId,
    reference: &Reference,
) -> Result<MemberId, OperatorError> {
    let row =
        state.group_of(org.record.id, group).map_err(|_| unknown(Sought::Group, reference))?;
    let text = reference.as_str();
    if let Ok(id) = text.parse::<MemberId>()
        && row.members.contains_key(&id)
    {
        return Ok(id);
    }
    if let Ok(network) = text.parse::<Network>() {
        let is_meant = |kind: &MemberKind| match kind {
            MemberKind::Network { network: fixed, .. } => *fixed == network,
            MemberKind::Pair(_) => false,
        };
        let fixed = row.members.iter().find(|(_, member)| is_meant(&member.record.kind));
        return fixed.map(|(id, _)| *id).ok_or_else(|| unknown(Sought::Member, reference));
    }
    let pair = pair(state, org, reference)?;
    let membership = state.pair(pair).and_then(|row| row.memberships.get(&group));
    membership.copied().ok_or_else(|| unknown(Sought::Member, reference))
}

/// Finds the one record that has the id, the running number or the name.
fn one<'a, I: FromStr + Copy + PartialEq + Display>(
    what: Sought,
    reference: &Reference,
    candidates: impl Iterator<Item = Candidate<'a, I>>,
) -> Result<I, OperatorError> {
    let text = reference.as_str();
    let (id, number) = (text.parse::<I>().ok(), text.parse::<u64>().ok());
    let is_meant = |candidate: &Candidate<'_, I>| {
        id == Some(candidate.id)
            || (number.is_some() && number == candidate.number)
            || candidate.name == text
    };
    let mut meant = candidates.filter(is_meant);
    let first = meant.next().ok_or_else(|| unknown(what, reference))?;
    let Some(second) = meant.next() else { return Ok(first.id) };
    let candidates = [first, second].into_iter().chain(meant).map(|candidate| {
        let number = candidate.number.map(|number| format!("number {number}, "));
        format!("{} ({}{})", candidate.name, number.unwrap_or_default(), candidate.id)
    });
    Err(OperatorError::Ambiguous {
        what,
        reference: reference.clone(),
        candidates: listed(candidates),
    })
}

fn unknown(what: Sought, reference: &Reference) -> OperatorError {
    OperatorError::Unknown { what, reference: reference.clone() }
}

/// Joins the first few texts and says how many are left out.
fn listed(mut texts: impl Iterator<Item = String>) -> String {
    let shown: Vec<String> = texts.by_ref().take(CANDIDATES_MAX).collect();
    match texts.count() {
        0 => shown.join("; "),
        left_out => format!("{}; and {left_out} more", shown.join("; ")),
    }
}
