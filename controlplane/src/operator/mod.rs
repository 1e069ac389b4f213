//! What the operator does on the control plane's host: the same operations whether they come
//! over the daemon's Unix socket or, while it does not run, from the command line itself.

mod agent;
mod answer;
mod audit;
mod find;
mod group;
mod key;
mod pair;
mod request;
pub mod route;
mod sought;
mod user;

use postern_shared::ids::OrgId;
use postern_shared::network::Network;
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Timestamp, Ttl};

pub use self::answer::{
    AddedPair, AddressView, AgentView, Answer, AuditOpened, AuditStray, GroupList, GroupView,
    Invitation, KeyView, LockedKey, MemberKindView, MemberView, MintedKey, Named, NewBookmark,
    NewServerKey, OriginView, Page, PairName, PairView, Reply, Revealed, UserLink, UserState,
    UserView,
};
pub use self::request::{
    MemberAsked, MemberEnd, Operation, OriginAsked, Reference, ReferenceError, Request,
};
pub use self::sought::Sought;
use crate::audit::{AuditError, Filter};
use crate::domain::{Actor, Command, Email, Order, OrgRow, Role, State};
use crate::engine::{Done, Engine, Refused};

/// Most items of one page of an answer.
pub const PAGE_ITEMS_MAX: usize = 1_000;

/// How the plane is reached from outside, for the texts that are handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    /// Its URL, without a slash at the end.
    pub url: String,
    /// What stands behind the token of an invitation: the SHA-256 of the public key, base64url,
    /// where the certificate is the plane's own and nobody else vouches for it.
    pub pin: Option<String>,
    /// How long the address of a new pair counts, where nobody says.
    pub ttl: Ttl,
}

/// Why an operation was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Nothing has this name.
    #[error("there is no {what} `{reference}`; give {}", .what.goes_by())]
    Unknown {
        /// What was looked for.
        what: Sought,
        /// What was written.
        reference: Reference,
    },
    /// Several records have this name.
    #[error("`{reference}` may be any of these; give the UUID of the {what}: {candidates}")]
    Ambiguous {
        /// What was looked for.
        what: Sought,
        /// What was written.
        reference: Reference,
        /// The records that may be meant.
        candidates: String,
    },
    /// Mail was asked for where none goes out.
    #[error("{0}")]
    NoMail(&'static str),
    /// There is more than one org.
    #[error("there is more than one org; name one of them with --org: {orgs}")]
    WhichOrg {
        /// The orgs.
        orgs: String,
    },
    /// There is no org at all.
    #[error("there is no org; `postern-controlplane init` makes the first one")]
    NoOrg,
    /// The engine refused the order.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The audit cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// Carries out what an operator asks for, and answers when it is durable.
pub async fn carry_out(
    engine: &Engine,
    plane: &Plane,
    request: Request,
) -> Result<Reply, OperatorError> {
    if let Some(answer) = audit::of_the_plane(engine, &request).await? {
        return Ok(Reply { as_of: engine.now(), answer });
    }
    let org = find::org(&engine.state(), request.org.as_ref())?.record.id;
    let desk = Desk { engine, plane, org };
    let answer = desk.carry_out(request.operation).await?;
    Ok(Reply { as_of: engine.now(), answer })
}

/// Mints the first key of a new org, with all rights.
pub(crate) async fn mint_first_key(
    engine: &Engine,
    plane: &Plane,
    org: OrgId,
    origins: Vec<Network>,
) -> Result<MintedKey, OperatorError> {
    let name = "first".parse().expect("the word is a label");
    let origins = origins.into_iter().map(OriginAsked::Network).collect();
    Desk { engine, plane, org }.mint_key(name, ScopeSet::ALL, origins, None).await
}

/// Makes the link with which the first admin of a new org gets in.
pub(crate) async fn invite_first_admin(
    engine: &Engine,
    plane: &Plane,
    org: OrgId,
    email: Email,
) -> Result<UserLink, OperatorError> {
    Desk { engine, plane, org }.invite_user(email, Role::Admin).await
}

/// Where the operations of one org are carried out.
struct Desk<'a> {
    engine: &'a Engine,
    plane: &'a Plane,
    org: OrgId,
}

impl Desk<'_> {
    async fn carry_out(&self, operation: Operation) -> Result<Answer, OperatorError> {
        match operation {
            Operation::MintKey { name, scopes, origins, lifetime } => {
                let minted = self.mint_key(name, scopes, origins, lifetime).await?;
                Ok(Answer::KeyMinted(minted))
            }
            Operation::ListKeys { all, after } => self.list_keys(all, after),
            Operation::RevokeKey { key } => self.revoke_key(&key).await,
            Operation::AddPair { name, email, ttl, reports_by_get } => {
                self.add_pair(name, email, ttl, reports_by_get).await
            }
            Operation::ListPairs { after } => self.list_pairs(after),
            Operation::RemovePair { pair } => self.remove_pair(&pair).await,
            Operation::AddGroup { name, ttl } => self.add_group(name, ttl).await,
            Operation::ListGroups { after } => self.list_groups(after),
            Operation::ShowGroup { group, after } => self.show_group(&group, after),
            Operation::ListMembers { group, after } => self.list_members(&group, after),
            Operation::RemoveGroup { group } => self.remove_group(&group).await,
            Operation::AddMember { group, member, expires } => {
                self.add_member(&group, member, expires).await
            }
            Operation::RemoveMember { group, member } => self.remove_member(&group, &member).await,
            Operation::InviteAgent { name, groups, lifetime } => {
                self.invite_agent(name, &groups, lifetime).await
            }
            Operation::ListAgents { all, after } => self.list_agents(all, after),
            Operation::SetAgentGroups { agent, groups } => {
                self.set_agent_groups(&agent, &groups).await
            }
            Operation::RevokeAgent { agent } => self.revoke_agent(&agent).await,
            Operation::ClosePair { pair } => self.close_pair(&pair).await,
            Operation::NarrowKey { key, scopes, origins } => {
                self.narrow_key(&key, scopes, origins).await
            }
            Operation::RotateBookmark { pair } => self.rotate_bookmark(&pair).await,
            Operation::RotateServerKey { pair } => self.rotate_server_key(&pair).await,
            Operation::MintLockedKey { name, scopes, lifetime } => {
                self.mint_locked_key(name, scopes, lifetime).await
            }
            Operation::ListAudit { filter, group, limit, after, .. } => {
                let find = |group| self.read(|state, org| find::known_group(state, org, &group));
                let group = group.map(find).transpose()?;
                let filter = Filter { group: group.or(filter.group), ..filter };
                audit::list(self.engine, self.org, (filter, limit), after).await
            }
            Operation::OpenAudit { .. }
            | Operation::ReadAudit { .. }
            | Operation::FindStray { .. } => {
                unreachable!(
                    "what is about the whole plane is answered before an org is looked for"
                )
            }
            Operation::InviteUser { email, role, mail: _ } => {
                Ok(Answer::UserInvited(self.invite_user(email, role).await?))
            }
            Operation::ListUsers { after } => self.list_users(after),
            Operation::SetUserRole { user, role } => self.set_user_role(&user, role).await,
            Operation::RemoveUser { user } => self.remove_user(&user).await,
            Operation::RecoverUser { user } => self.recover_user(&user).await,
        }
    }

    async fn submit(&self, command: Command) -> Result<Done, OperatorError> {
        let order = Order { actor: Actor::Operator, source: None, command };
        Ok(self.engine.submit(order).await?)
    }

    /// Reads the state and the org. What is looked up is still there when it is asked for under
    /// the same lock.
    fn read<T>(
        &self,
        look: impl FnOnce(&State, &OrgRow) -> Result<T, OperatorError>,
    ) -> Result<T, OperatorError> {
        let state = self.engine.state();
        let org = state.org(self.org).ok_or(OperatorError::NoOrg)?;
        look(&state, org)
    }

    fn now(&self) -> Timestamp {
        self.engine.now()
    }
}

impl<T, C> Page<T, C> {
    /// Takes a page of the items, whose cursor `cursor` tells.
    fn of(mut items: impl Iterator<Item = T>, cursor: impl Fn(&T) -> C) -> Page<T, C> {
        let page: Vec<T> = items.by_ref().take(PAGE_ITEMS_MAX).collect();
        let next = match items.next() {
            Some(_) => page.last().map(cursor),
            None => None,
        };
        Page { items: page, next }
    }
}
