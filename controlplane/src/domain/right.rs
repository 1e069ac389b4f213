//! Who may give which command: one place, whatever page or route sends it.

use postern_shared::ids::{AgentId, EnrolmentId, OrgId, PairId, UserId};

use super::audit::Actor;
use super::command::{Command, Order};
use super::org::Role;
use super::rejection::Rejection;
use super::state::State;

/// Who may give a command beside the operator on the host, who may give every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Giver {
    /// Nobody.
    Operator,
    /// An admin of the org.
    Admin,
    /// An admin of the org, with a second factor: whoever holds no more than a login could else make
    /// an admin with an authenticator of its own, and so mint keys.
    AdminWithFactor,
    /// An admin of the org, or a key of it. The key's scopes are for the route to ask for.
    AdminOrKey,
    /// The user whose way in it is about: no admin gets into the place of another user.
    Oneself(Option<UserId>),
    /// The same, or somebody who is not signed in yet.
    OneselfOrUnknown(Option<UserId>),
    /// The pair.
    Pair(PairId),
    /// The agent.
    Agent(AgentId),
    /// Whoever holds the invitation.
    Enrolment(EnrolmentId),
    /// The control plane, in the name of whoever was refused; users are not counted.
    Plane,
}

/// Refuses an order that is not for its actor to give. A member hears that it takes an admin; what is
/// not for the actor at all is, for that actor, not there.
pub(super) fn check(state: &State, order: &Order, org: OrgId) -> Result<(), Rejection> {
    let actor = order.actor;
    if actor == Actor::Operator {
        return Ok(());
    }
    if let Command::WithFactor { user, command, .. } = &order.command {
        // A factor proves its own user, and for what an admin does.
        let is_for_admins = matches!(giver(state, command), Giver::Admin | Giver::AdminWithFactor);
        if actor != Actor::User(*user) || !is_for_admins {
            return Err(Rejection::NotFound);
        }
        return check_admin(state, actor, org);
    }
    let is_right = match giver(state, &order.command) {
        Giver::Operator => false,
        Giver::Admin => return check_admin(state, actor, org),
        Giver::AdminWithFactor => {
            check_admin(state, actor, org)?;
            return Err(Rejection::Conflict("to make somebody an admin, show a second factor"));
        }
        Giver::AdminOrKey => {
            let Actor::Key(key) = actor else { return check_admin(state, actor, org) };
            state.key(key).is_some_and(|key| key.org == org && key.revoked_at.is_none())
        }
        Giver::Oneself(user) => user.is_some_and(|user| actor == Actor::User(user)),
        Giver::OneselfOrUnknown(user) => {
            actor == Actor::Unknown || user.is_some_and(|user| actor == Actor::User(user))
        }
        Giver::Pair(pair) => actor == Actor::Pair(pair),
        Giver::Agent(agent) => actor == Actor::Agent(agent),
        Giver::Enrolment(enrolment) => actor == Actor::Enrolment(enrolment),
        Giver::Plane => !matches!(actor, Actor::User(_)),
    };
    is_right.then_some(()).ok_or(Rejection::NotFound)
}

fn check_admin(state: &State, actor: Actor, org: OrgId) -> Result<(), Rejection> {
    let Actor::User(user) = actor else { return Err(Rejection::NotFound) };
    match state.live_user(org, user)?.role {
        Role::Admin => Ok(()),
        Role::Member => Err(Rejection::AdminsOnly),
    }
}

fn giver(state: &State, command: &Command) -> Giver {
    match command {
        Command::CreateOrg { .. }
        | Command::MintKey(_)
        | Command::MintLockedKey { .. }
        | Command::Recover(_) => Giver::Operator,
        Command::InviteAgent(_)
        | Command::SetAgentGroups { .. }
        | Command::RevokeAgent { .. }
        | Command::NoteBookmarkMailed { .. }
        | Command::RemoveUser { .. } => Giver::Admin,
        Command::InviteUser { user, .. } => giver_of_role(user.role),
        Command::SetRole { role, .. } => giver_of_role(*role),
        Command::RevokeKey { .. }
        | Command::NarrowKey { .. }
        | Command::CreatePair(_)
        | Command::EditPair { .. }
        | Command::DeletePair { .. }
        | Command::CreateGroup(_)
        | Command::EditGroup { .. }
        | Command::DeleteGroup { .. }
        | Command::AddMember(_)
        | Command::RemoveMember { .. }
        | Command::RotateBookmark { .. }
        | Command::RotateServerKey { .. }
        | Command::CloseAddresses { .. } => Giver::AdminOrKey,
        // That the user of the factor is an admin is asked where it is used up.
        Command::MintKeyAs { user, .. } | Command::WithFactor { user, .. } => {
            Giver::Oneself(Some(*user))
        }
        Command::AcceptInvitation { .. }
        | Command::SignIn { .. }
        | Command::RenewLogin { .. }
        | Command::SignOut { .. }
        | Command::SignOutEverywhere { .. }
        | Command::SetPassword { .. }
        | Command::FinishReset { .. }
        | Command::ReplaceAuthenticator { .. }
        | Command::ReplaceRecoveryCodes { .. } => Giver::Oneself(state.user_of(command)),
        Command::CountTry { .. } | Command::RequestReset(_) => {
            Giver::OneselfOrUnknown(state.user_of(command))
        }
        Command::Report { pair, .. } => Giver::Pair(*pair),
        Command::NoteFailedReceipt { agent, .. } => Giver::Agent(*agent),
        Command::Enrol { enrolment, .. } => Giver::Enrolment(*enrolment),
        Command::NoteRefusals { .. } => Giver::Plane,
    }
}

fn giver_of_role(role: Role) -> Giver {
    match role {
        Role::Admin => Giver::AdminWithFactor,
        Role::Member => Giver::Admin,
    }
}
