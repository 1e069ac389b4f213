//! What can be asked for, and the one place where it is decided.

use std::collections::BTreeSet;
use std::net::IpAddr;

use postern_shared::ids::{AgentId, EnrolmentId, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use postern_shared::position::Revision;
use postern_shared::scope::ScopeSet;
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;

use super::account::{self, Authenticator, Credentials, Factor, PasswordHash, RecoveryHash};
use super::agent::{self, Enrolment};
use super::audit::{Actor, AuditRecord, Event, Refusal};
use super::beacon;
use super::change::Change;
use super::group::{self, Group, GroupEdit, Member, MemberKind};
use super::key::{self, Key, Origin};
use super::login::{self, Login};
use super::org::{self, Org, Role, User};
use super::pair::{self, Pair, PairEdit, Visit};
use super::rejection::Rejection;
use super::right;
use super::state::State;
use super::text::{Email, Label};
use super::ticket::{self, Ticket, Welcome};

/// A command with the word on who gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who gives it.
    pub actor: Actor,
    /// From which address, where there is one.
    pub source: Option<IpAddr>,
    /// What is asked for.
    pub command: Command,
}

/// What can be asked for. Ids and hashes were drawn by the caller: deciding takes no chance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the records' own, named as there")]
pub enum Command {
    /// Begins an org with its first admin.
    CreateOrg { org: Org, admin: User },
    /// Mints an API key.
    MintKey(Key),
    /// Revokes an API key; revoking twice is no error.
    RevokeKey { org: OrgId, key: KeyId },
    /// Takes rights and origins away from an API key, if it is still at `expected`.
    NarrowKey {
        org: OrgId,
        key: KeyId,
        scopes: ScopeSet,
        origins: Vec<Origin>,
        expected: Option<Revision>,
    },
    /// Makes a pair; its number is given here.
    CreatePair(Pair),
    /// Edits a pair, if it is still at `expected`.
    EditPair { org: OrgId, pair: PairId, edit: PairEdit, expected: Option<Revision> },
    /// Deletes a pair softly, if it is still at `expected`: its secrets die, its name stays.
    DeletePair { org: OrgId, pair: PairId, expected: Option<Revision> },
    /// Makes a group; its number is given here.
    CreateGroup(Group),
    /// Edits a group, if it is still at `expected`.
    EditGroup { org: OrgId, group: GroupId, edit: GroupEdit, expected: Option<Revision> },
    /// Deletes a group with its members, if it is still at `expected`.
    DeleteGroup { org: OrgId, group: GroupId, expected: Option<Revision> },
    /// Adds a member to a group.
    AddMember(Member),
    /// Takes a member out of a group.
    RemoveMember { org: OrgId, group: GroupId, member: MemberId },
    /// Invites an agent.
    InviteAgent(Enrolment),
    /// Turns an invitation into an agent with a pair of its own.
    Enrol { enrolment: EnrolmentId, agent: AgentId, token: TokenHash, pair: Box<Pair> },
    /// Gives an agent other groups, if it is still at `expected`.
    SetAgentGroups {
        org: OrgId,
        agent: AgentId,
        groups: BTreeSet<GroupId>,
        expected: Option<Revision>,
    },
    /// Revokes an agent and deletes its pair.
    RevokeAgent { org: OrgId, agent: AgentId },
    /// Reports where a pair is.
    /// Counts only while `bookmark` is still the pair's.
    Report { pair: PairId, bookmark: TokenHash, address: IpAddr, visit: Visit },
    /// Notes that a host could not bring a list in force.
    NoteFailedReceipt { agent: AgentId, target: Label, group: GroupId, detail: String },
    /// Gives a pair another bookmark, if it is still at `expected`: the old one dies, and what it
    /// reported closes.
    RotateBookmark { org: OrgId, pair: PairId, hash: TokenHash, expected: Option<Revision> },
    /// Gives a pair another server key, if it is still at `expected`: the old one dies.
    RotateServerKey { org: OrgId, pair: PairId, hash: TokenHash, expected: Option<Revision> },
    /// Forgets where a pair is, until it reports again.
    CloseAddresses { org: OrgId, pair: PairId },
    /// Notes that a pair's bookmark, if that is still it, is mailed to whoever is still its owner.
    NoteBookmarkMailed { org: OrgId, pair: PairId, bookmark: TokenHash, to: Email },
    /// Makes a pair, and mints an API key that works only from where that pair is.
    MintLockedKey { key: Box<Key>, pair: Box<Pair> },
    /// Notes how often requests were refused; those of nobody known are of no org.
    NoteRefusals { org: OrgId, refusal: Refusal, count: u32, since: Timestamp },
    /// Invites a user; one who has not accepted yet is invited anew.
    InviteUser { user: User, ticket: Ticket },
    /// Uses an invitation or a recovery up.
    AcceptInvitation { ticket: TokenHash, welcome: Box<Welcome> },
    /// Counts a try to sign in or to prove a second factor, before its outcome is known.
    CountTry { user: UserId, is_known: bool },
    /// Signs a user in with a new login, in the place of one that the browser had.
    SignIn { credentials: Box<Credentials>, login: Box<Login>, replaces: Option<TokenHash> },
    /// Makes the last use of a login durable.
    RenewLogin { login: TokenHash },
    /// Ends one login.
    SignOut { user: UserId, login: TokenHash },
    /// Ends all logins of a user.
    SignOutEverywhere { user: UserId },
    /// Sets another password; every login but `kept` ends.
    SetPassword {
        user: UserId,
        credentials: Box<Credentials>,
        password: PasswordHash,
        kept: TokenHash,
    },
    /// Makes a ticket that resets the password.
    RequestReset(Ticket),
    /// Uses a reset up.
    FinishReset { ticket: TokenHash, password: PasswordHash, factor: Factor, login: Box<Login> },
    /// Makes a ticket that resets password and authenticator; for the operator.
    Recover(Ticket),
    /// Enrols another authenticator, whose first code was shown.
    ReplaceAuthenticator { user: UserId, factor: Factor, authenticator: Authenticator },
    /// Replaces all recovery codes.
    ReplaceRecoveryCodes { user: UserId, factor: Factor, codes: Vec<RecoveryHash> },
    /// Gives a user another role.
    SetRole { org: OrgId, user: UserId, role: Role },
    /// Removes a user.
    RemoveUser { org: OrgId, user: UserId },
    /// Mints an API key for an admin who has just shown a code of the authenticator; with a pair,
    /// one that works only from where that pair is.
    MintKeyAs { user: UserId, factor: Factor, key: Box<Key>, pair: Option<Box<Pair>> },
    /// Carries out a command of a user that wants a second factor beside it, and uses that up.
    WithFactor { user: UserId, factor: Factor, command: Box<Command> },
}

/// What a command reads and writes. Two commands conflict when one writes what the other reads
/// or writes; conflicting commands never share a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// What must not change under the decision.
    pub reads: BTreeSet<RecordKey>,
    /// What the decision changes.
    pub writes: BTreeSet<RecordKey>,
}

/// What footprints are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// Everything in an org but the reports: its people, keys, pairs, groups, members, agents and
    /// counters. These change by hand, so one a batch is enough.
    Org(OrgId),
    /// A pair's own standing and its newest report.
    Pair(PairId),
    /// How a user gets in: account, logins and tickets.
    User(UserId),
}

/// Changes, with the events that they are recorded as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) events: Vec<Event>,
    pub(super) changes: Vec<Change>,
}

impl Decision {
    pub(super) fn new(event: Event, changes: impl IntoIterator<Item = Change>) -> Decision {
        Decision { events: vec![event], changes: changes.into_iter().collect() }
    }

    /// What was asked for is so already.
    pub(super) fn nothing() -> Decision {
        Decision { events: Vec::new(), changes: Vec::new() }
    }

    /// Both, this one first.
    pub(super) fn and(mut self, other: Decision) -> Decision {
        self.events.extend(other.events);
        self.changes.extend(other.changes);
        self
    }
}

/// Says what `order` changes at `now`, its audit records last; no changes at all when everything
/// is as asked for already.
pub fn decide(state: &State, order: &Order, now: Timestamp) -> Result<Vec<Change>, Rejection> {
    let org = state.org_of(&order.command).ok_or(Rejection::NotFound)?;
    right::check(state, order, org)?;
    let Decision { events, mut changes } = decide_command(state, &order.command, now)?;
    key::check_own_place(state, order, now)?;
    for event in events {
        let Order { actor, source, .. } = *order;
        changes.push(Change::Record(AuditRecord { org, at: now, actor, source, event }));
    }
    Ok(changes)
}

fn decide_command(state: &State, command: &Command, now: Timestamp) -> Result<Decision, Rejection> {
    match command {
        Command::CreateOrg { org, admin } => create_org(state, org, admin),
        Command::MintKey(key) => key::mint(state, key),
        Command::RevokeKey { org, key } => key::revoke(state, *org, *key, now),
        Command::NarrowKey { org, key, scopes, origins, expected } => {
            key::narrow(state, *org, *key, (*scopes, origins), *expected)
        }
        Command::CreatePair(pair) => pair::create(state, pair),
        Command::EditPair { org, pair, edit, expected } => {
            pair::edit(state, *org, *pair, edit, *expected)
        }
        Command::DeletePair { org, pair, expected } => {
            pair::delete(state, *org, *pair, *expected, now)
        }
        Command::CreateGroup(group) => group::create(state, group),
        Command::EditGroup { org, group, edit, expected } => {
            group::edit(state, *org, *group, edit, *expected)
        }
        Command::DeleteGroup { org, group, expected } => {
            group::delete(state, *org, *group, *expected)
        }
        Command::AddMember(member) => group::add_member(state, member),
        Command::RemoveMember { org, group, member } => {
            group::remove_member(state, *org, *group, *member)
        }
        Command::InviteAgent(enrolment) => agent::invite(state, enrolment, now),
        Command::Enrol { enrolment, agent, token, pair } => {
            agent::enrol(state, *enrolment, *agent, *token, pair, now)
        }
        Command::SetAgentGroups { org, agent, groups, expected } => {
            agent::set_groups(state, *org, *agent, groups, *expected)
        }
        Command::RevokeAgent { org, agent } => agent::revoke(state, *org, *agent, now),
        Command::Report { pair, bookmark, address, visit } => {
            beacon::report(state, *pair, *bookmark, (*address, *visit), now)
        }
        Command::NoteFailedReceipt { agent, target, group, detail } => Ok(Decision::new(
            Event::ReceiptFailed {
                agent: *agent,
                target: target.clone(),
                group: *group,
                detail: detail.clone(),
            },
            [],
        )),
        Command::RotateBookmark { org, pair, hash, expected } => {
            pair::rotate_bookmark(state, *org, *pair, *hash, *expected)
        }
        Command::RotateServerKey { org, pair, hash, expected } => {
            pair::rotate_server_key(state, *org, *pair, *hash, *expected)
        }
        Command::CloseAddresses { org, pair } => pair::close_addresses(state, *org, *pair),
        Command::NoteBookmarkMailed { org, pair, bookmark, to } => {
            pair::note_mailed(state, *org, *pair, *bookmark, to)
        }
        Command::MintLockedKey { key, pair } => key::mint_locked(state, key, pair),
        Command::NoteRefusals { refusal, count, since, .. } => Ok(Decision::new(
            Event::RequestsRefused { refusal: *refusal, count: *count, since: *since },
            [],
        )),
        Command::InviteUser { user, ticket } => ticket::invite(state, user, ticket),
        Command::AcceptInvitation { ticket, welcome } => {
            ticket::accept(state, *ticket, welcome, now)
        }
        Command::CountTry { user, is_known } => account::count_try(state, *user, *is_known, now),
        Command::SignIn { credentials, login, replaces } => {
            account::sign_in(state, credentials, login, *replaces, now)
        }
        Command::RenewLogin { login } => login::renew(state, *login, now),
        Command::SignOut { user, login } => Ok(login::sign_out(state, *user, *login)),
        Command::SignOutEverywhere { user } => Ok(login::sign_out_all(state, *user)),
        Command::SetPassword { user, credentials, password, kept } => {
            account::set_password(state, *user, credentials, password, *kept, now)
        }
        Command::RequestReset(ticket) => ticket::request_reset(state, ticket, now),
        Command::FinishReset { ticket, password, factor, login } => {
            ticket::finish_reset(state, *ticket, password, factor, login, now)
        }
        Command::Recover(ticket) => ticket::recover(state, ticket),
        Command::ReplaceAuthenticator { user, factor, authenticator } => {
            account::replace_authenticator(state, *user, factor, authenticator, now)
        }
        Command::ReplaceRecoveryCodes { user, factor, codes } => {
            account::replace_recovery_codes(state, *user, factor, codes, now)
        }
        Command::SetRole { org, user, role } => org::set_role(state, *org, *user, *role),
        Command::RemoveUser { org, user } => org::remove(state, *org, *user, now),
        Command::MintKeyAs { user, factor, key, pair } => {
            key::mint_as(state, *user, factor, (key, pair.as_deref()), now)
        }
        Command::WithFactor { user, factor, command } => {
            let account = account::active(state, *user)?;
            let account = account::consume_signed_in(account, factor, now)?;
            let mut decision = decide_command(state, command, now)?;
            decision.changes.push(Change::PutAccount(account));
            Ok(decision)
        }
    }
}

fn create_org(state: &State, org: &Org, admin: &User) -> Result<Decision, Rejection> {
    /// Most orgs in one store.
    const ORGS_MAX: usize = 10_000;
    if ORGS_MAX <= state.orgs().count() {
        return Err(Rejection::Limit { what: "orgs", max: ORGS_MAX });
    }
    let event = Event::OrgCreated {
        org: org.id,
        name: org.name.clone(),
        admin: admin.id,
        email: admin.email.clone(),
    };
    let mut changes = vec![Change::PutOrg(org.clone())];
    changes.extend(ticket::create(admin));
    Ok(Decision::new(event, changes))
}

impl State {
    /// The org whose records a command is about, as far as it exists.
    pub(crate) fn org_of(&self, command: &Command) -> Option<OrgId> {
        Some(match command {
            Command::CreateOrg { org, .. } => org.id,
            Command::MintKey(key) => key.org,
            Command::MintLockedKey { key, .. } => key.org,
            Command::CreatePair(pair) => pair.org,
            Command::CreateGroup(group) => group.org,
            Command::AddMember(member) => member.org,
            Command::InviteAgent(enrolment) => enrolment.org,
            Command::RevokeKey { org, .. }
            | Command::NarrowKey { org, .. }
            | Command::EditPair { org, .. }
            | Command::DeletePair { org, .. }
            | Command::EditGroup { org, .. }
            | Command::DeleteGroup { org, .. }
            | Command::RemoveMember { org, .. }
            | Command::SetAgentGroups { org, .. }
            | Command::RevokeAgent { org, .. }
            | Command::RotateBookmark { org, .. }
            | Command::RotateServerKey { org, .. }
            | Command::CloseAddresses { org, .. }
            | Command::NoteBookmarkMailed { org, .. }
            | Command::NoteRefusals { org, .. } => *org,
            Command::Enrol { enrolment, .. } => self.enrolment(*enrolment)?.org,
            Command::Report { pair, .. } => self.pair(*pair)?.record.org,
            Command::NoteFailedReceipt { agent, .. } => self.agent(*agent)?.org,
            Command::InviteUser { user, .. } => user.org,
            Command::RequestReset(ticket) | Command::Recover(ticket) => ticket.org,
            Command::SetRole { org, .. } | Command::RemoveUser { org, .. } => *org,
            Command::MintKeyAs { key, .. } => key.org,
            Command::WithFactor { command, .. } => self.org_of(command)?,
            Command::AcceptInvitation { .. }
            | Command::CountTry { .. }
            | Command::SignIn { .. }
            | Command::RenewLogin { .. }
            | Command::SignOut { .. }
            | Command::SignOutEverywhere { .. }
            | Command::SetPassword { .. }
            | Command::FinishReset { .. }
            | Command::ReplaceAuthenticator { .. }
            | Command::ReplaceRecoveryCodes { .. } => self.user(self.user_of(command)?)?.org,
        })
    }

    /// The user whose way in a command is about, as far as it is known.
    pub(super) fn user_of(&self, command: &Command) -> Option<UserId> {
        match command {
            Command::CountTry { user, .. }
            | Command::SignOut { user, .. }
            | Command::SignOutEverywhere { user }
            | Command::SetPassword { user, .. }
            | Command::ReplaceAuthenticator { user, .. }
            | Command::ReplaceRecoveryCodes { user, .. }
            | Command::SetRole { user, .. }
            | Command::RemoveUser { user, .. }
            | Command::MintKeyAs { user, .. } => Some(*user),
            Command::SignIn { login, .. } => Some(login.user),
            Command::RenewLogin { login } => self.login_row(login).map(|row| row.record.user),
            Command::AcceptInvitation { ticket, .. } | Command::FinishReset { ticket, .. } => {
                self.ticket_row(ticket).map(|row| row.record.user)
            }
            Command::RequestReset(ticket) | Command::Recover(ticket) => Some(ticket.user),
            Command::WithFactor { command, .. } => self.user_of(command),
            Command::InviteUser { user, .. } => {
                self.user_by_email(user.org, &user.email).map(|user| user.id)
            }
            Command::CreateOrg { .. }
            | Command::MintKey(_)
            | Command::RevokeKey { .. }
            | Command::NarrowKey { .. }
            | Command::CreatePair(_)
            | Command::EditPair { .. }
            | Command::DeletePair { .. }
            | Command::CreateGroup(_)
            | Command::EditGroup { .. }
            | Command::DeleteGroup { .. }
            | Command::AddMember(_)
            | Command::RemoveMember { .. }
            | Command::InviteAgent(_)
            | Command::Enrol { .. }
            | Command::SetAgentGroups { .. }
            | Command::RevokeAgent { .. }
            | Command::Report { .. }
            | Command::NoteFailedReceipt { .. }
            | Command::RotateBookmark { .. }
            | Command::RotateServerKey { .. }
            | Command::CloseAddresses { .. }
            | Command::NoteBookmarkMailed { .. }
            | Command::MintLockedKey { .. }
            | Command::NoteRefusals { .. } => None,
        }
    }

    /// Names what `command` reads and writes. A command whose records do not exist has no
    /// footprint: it will be refused.
    pub fn footprint(&self, command: &Command) -> Footprint {
        let Some(org) = self.org_of(command) else { return Footprint::default() };
        let mut footprint = Footprint::default();
        match command {
            Command::Report { pair, .. } => {
                footprint.writes.insert(RecordKey::Pair(*pair));
            }
            Command::NoteFailedReceipt { .. }
            | Command::NoteRefusals { .. }
            | Command::NoteBookmarkMailed { .. } => {
                footprint.reads.insert(RecordKey::Org(org));
            }
            Command::EditPair { pair, .. }
            | Command::DeletePair { pair, .. }
            | Command::RotateBookmark { pair, .. }
            | Command::RotateServerKey { pair, .. }
            | Command::CloseAddresses { org: _, pair } => {
                footprint.writes.extend([RecordKey::Org(org), RecordKey::Pair(*pair)]);
            }
            // The record of it says where the pair is.
            Command::AddMember(member) => {
                footprint.writes.insert(RecordKey::Org(org));
                if let MemberKind::Pair(pair) = member.kind {
                    footprint.reads.insert(RecordKey::Pair(pair));
                }
            }
            // Whether it leaves a key the place from which that asks depends on where its pairs are.
            Command::NarrowKey { origins, .. } => {
                footprint.writes.insert(RecordKey::Org(org));
                let pairs = origins.iter().filter_map(|origin| match origin {
                    Origin::Pair(pair) => Some(RecordKey::Pair(*pair)),
                    Origin::Network(_) => None,
                });
                footprint.reads.extend(pairs);
            }
            Command::RevokeAgent { agent, .. } => {
                footprint.writes.insert(RecordKey::Org(org));
                let own = self.agent(*agent).map(|agent| RecordKey::Pair(agent.pair));
                footprint.writes.extend(own);
            }
            Command::CreateOrg { .. }
            | Command::MintKey(_)
            | Command::RevokeKey { .. }
            | Command::CreatePair(_)
            | Command::CreateGroup(_)
            | Command::EditGroup { .. }
            | Command::DeleteGroup { .. }
            | Command::RemoveMember { .. }
            | Command::InviteAgent(_)
            | Command::Enrol { .. }
            | Command::SetAgentGroups { .. }
            | Command::MintLockedKey { .. } => {
                footprint.writes.insert(RecordKey::Org(org));
            }
            Command::InviteUser { .. }
            | Command::SetRole { .. }
            | Command::RemoveUser { .. }
            | Command::MintKeyAs { .. } => {
                footprint.writes.insert(RecordKey::Org(org));
                footprint.writes.extend(self.user_of(command).map(RecordKey::User));
            }
            Command::WithFactor { user, command, .. } => {
                footprint.join(self.footprint(command));
                footprint.writes.insert(RecordKey::User(*user));
            }
            Command::AcceptInvitation { .. }
            | Command::CountTry { .. }
            | Command::SignIn { .. }
            | Command::RenewLogin { .. }
            | Command::SignOut { .. }
            | Command::SignOutEverywhere { .. }
            | Command::SetPassword { .. }
            | Command::RequestReset(_)
            | Command::FinishReset { .. }
            | Command::Recover(_)
            | Command::ReplaceAuthenticator { .. }
            | Command::ReplaceRecoveryCodes { .. } => {
                footprint.writes.extend(self.user_of(command).map(RecordKey::User));
            }
        }
        footprint
    }
}

impl Command {
    /// Says whether the command takes rights away. Such commands go through when the disk is
    /// almost full: closing a door must not fail for want of room.
    pub fn closes(&self) -> bool {
        match self {
            Command::RevokeKey { .. }
            | Command::NarrowKey { .. }
            | Command::DeletePair { .. }
            | Command::DeleteGroup { .. }
            | Command::RemoveMember { .. }
            | Command::RevokeAgent { .. }
            | Command::RotateBookmark { .. }
            | Command::RotateServerKey { .. }
            | Command::CloseAddresses { .. }
            | Command::SignOut { .. }
            | Command::SignOutEverywhere { .. }
            | Command::SetRole { role: Role::Member, .. }
            | Command::RemoveUser { .. } => true,
            Command::CreateOrg { .. }
            | Command::MintKey(_)
            | Command::CreatePair(_)
            | Command::EditPair { .. }
            | Command::CreateGroup(_)
            | Command::EditGroup { .. }
            | Command::AddMember(_)
            | Command::InviteAgent(_)
            | Command::Enrol { .. }
            | Command::SetAgentGroups { .. }
            | Command::Report { .. }
            | Command::NoteFailedReceipt { .. }
            | Command::NoteBookmarkMailed { .. }
            | Command::MintLockedKey { .. }
            | Command::NoteRefusals { .. }
            | Command::InviteUser { .. }
            | Command::AcceptInvitation { .. }
            | Command::CountTry { .. }
            | Command::SignIn { .. }
            | Command::RenewLogin { .. }
            | Command::SetPassword { .. }
            | Command::RequestReset(_)
            | Command::FinishReset { .. }
            | Command::Recover(_)
            | Command::ReplaceAuthenticator { .. }
            | Command::ReplaceRecoveryCodes { .. }
            | Command::SetRole { role: Role::Admin, .. }
            | Command::MintKeyAs { .. }
            | Command::WithFactor { .. } => false,
        }
    }
}

impl Footprint {
    /// Says whether the two may not be decided on the same state.
    pub fn conflicts_with(&self, other: &Footprint) -> bool {
        !self.writes.is_disjoint(&other.writes)
            || !self.writes.is_disjoint(&other.reads)
            || !self.reads.is_disjoint(&other.writes)
    }

    /// Adds what `other` reads and writes.
    pub fn join(&mut self, other: Footprint) {
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
    }
}
