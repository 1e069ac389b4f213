//! All orgs in memory, as ordered maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use postern_shared::allowlist::Allowlist;
use postern_shared::ids::{AgentId, EnrolmentId, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::time::{Timestamp, Ttl};
use postern_shared::token::TokenHash;

use super::account::Account;
use super::agent::{Agent, Enrolment};
use super::group::{Group, Member, MemberKind};
use super::key::Key;
use super::login::Login;
use super::org::{Org, User};
use super::pair::{Pair, Report};
use super::rejection::Rejection;
use super::replay::{Replay, ReplayId};
use super::text::Email;
use super::ticket::Ticket;

/// The state of all orgs. The store is its durable form.
#[derive(Debug, Default)]
pub struct State {
    pub(super) orgs: BTreeMap<OrgId, OrgRow>,
    pub(super) users: BTreeMap<UserId, UserRow>,
    pub(super) keys: BTreeMap<KeyId, Row<Key>>,
    pub(super) pairs: BTreeMap<PairId, PairRow>,
    pub(super) groups: BTreeMap<GroupId, GroupRow>,
    pub(super) agents: BTreeMap<AgentId, AgentRow>,
    pub(super) enrolments: BTreeMap<EnrolmentId, Row<Enrolment>>,
    pub(super) secrets: BTreeMap<TokenHash, Secret>,
    pub(super) replays: BTreeMap<ReplayId, Row<Replay>>,
    pub(super) replays_by_end: BTreeSet<(Timestamp, ReplayId)>,
    pub(super) logins: BTreeMap<TokenHash, LoginRow>,
    pub(super) tickets: BTreeMap<TokenHash, Row<Ticket>>,
    /// The users of all orgs with a mail address, folded; removed ones are not among them.
    pub(super) emails: BTreeMap<String, BTreeSet<UserId>>,
}

/// A record with the revision of the commit that last wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T> {
    /// The record.
    pub record: T,
    /// The commit that last wrote it.
    pub revision: Revision,
}

/// An org, and what belongs to it.
#[derive(Debug)]
pub struct OrgRow {
    /// The record.
    pub record: Org,
    /// The commit that last wrote it.
    pub revision: Revision,
    /// Its people, without those who were removed.
    pub users: BTreeSet<UserId>,
    /// Its keys, revoked ones included.
    pub keys: BTreeSet<KeyId>,
    /// Its pairs by their running numbers, deleted ones included.
    pub pairs: BTreeMap<u64, PairId>,
    /// How many of its pairs are not deleted.
    pub pairs_live: usize,
    /// Its groups by their running numbers.
    pub groups: BTreeMap<u64, GroupId>,
    /// Its agents, revoked ones included.
    pub agents: BTreeSet<AgentId>,
    /// Its invitations, used ones included.
    pub enrolments: BTreeSet<EnrolmentId>,
    /// How many answers to requests are kept for it.
    pub replays: usize,
}

/// A person, and how that person gets in.
#[derive(Debug)]
pub struct UserRow {
    /// The record.
    pub record: User,
    /// The commit that last wrote the record.
    pub revision: Revision,
    /// What the person signs in with.
    pub account: Option<Account>,
    /// The commit that last wrote the account.
    pub account_revision: Revision,
    /// The person's logins, ended ones included.
    pub logins: BTreeSet<TokenHash>,
    /// The person's tickets, ended ones included.
    pub tickets: BTreeSet<TokenHash>,
}

/// One browser in which a user is signed in.
#[derive(Debug)]
pub struct LoginRow {
    /// The record.
    pub record: Login,
    /// The commit that last wrote it.
    pub revision: Revision,
    /// When it was last used, in Unix milliseconds; 0 for never since the start. Not durable.
    pub(super) seen_at: AtomicU64,
}

/// A pair, where it is, and what it belongs to.
#[derive(Debug)]
pub struct PairRow {
    /// The record.
    pub record: Pair,
    /// The commit that last wrote the record.
    pub revision: Revision,
    /// Where it is, as published.
    pub report: Option<Report>,
    /// The commit that last wrote the report.
    pub report_revision: Revision,
    /// The groups that it is a member of.
    pub memberships: BTreeMap<GroupId, MemberId>,
    /// Keys and agents that work only from where this pair is.
    pub locks: usize,
    /// When it was last heard of, in Unix milliseconds; 0 for never since the start. Not durable.
    pub(super) last_seen: AtomicU64,
}

/// A group, its members and its resolved allowlist.
#[derive(Debug)]
pub struct GroupRow {
    /// The record.
    pub record: Group,
    /// The commit that last wrote the record or a member.
    pub revision: Revision,
    /// The commit that last wrote the record itself.
    pub record_revision: Revision,
    /// Its members.
    pub members: BTreeMap<MemberId, Row<Member>>,
    /// What it allows.
    pub list: Allowlist,
    /// The commit that last changed the list.
    pub list_revision: Revision,
    /// The members that each network of the list comes from.
    pub sources: BTreeMap<Network, BTreeSet<MemberId>>,
}

/// An agent.
#[derive(Debug)]
pub struct AgentRow {
    /// The record.
    pub record: Agent,
    /// The commit that last wrote it.
    pub revision: Revision,
}

/// Whom a secret belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Secret {
    /// An API key.
    Key(KeyId),
    /// A pair's bookmark.
    Bookmark(PairId),
    /// A pair's server key.
    Server(PairId),
    /// An invitation for an agent.
    Enrolment(EnrolmentId),
    /// An agent's credential.
    Agent(AgentId),
}

impl State {
    /// Makes a state without any org.
    pub fn new() -> State {
        State::default()
    }

    /// All orgs.
    pub fn orgs(&self) -> impl Iterator<Item = &OrgRow> {
        self.orgs.values()
    }

    /// An org.
    pub fn org(&self, id: OrgId) -> Option<&OrgRow> {
        self.orgs.get(&id)
    }

    /// A person, removed or not.
    pub fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id).map(|row| &row.record)
    }

    /// A person with all that goes with it, removed or not.
    pub fn user_row(&self, id: UserId) -> Option<&UserRow> {
        self.users.get(&id)
    }

    /// What a person signs in with.
    pub fn account(&self, id: UserId) -> Option<&Account> {
        self.users.get(&id)?.account.as_ref()
    }

    /// A person of an org who was not removed.
    pub fn live_user(&self, org: OrgId, id: UserId) -> Result<&User, Rejection> {
        let is_live = |row: &&UserRow| {
            let removed_at = row.account.as_ref().and_then(|account| account.removed_at);
            row.record.org == org && removed_at.is_none()
        };
        let row = self.users.get(&id).filter(is_live);
        row.map(|row| &row.record).ok_or(Rejection::NotFound)
    }

    /// The people with a mail address, at most one in each org.
    pub fn users_by_email(&self, email: &Email) -> impl Iterator<Item = &User> {
        let ids = self.emails.get(&fold(email)).into_iter().flatten();
        ids.filter_map(|id| self.user(*id))
    }

    /// The person of an org with a mail address.
    pub fn user_by_email(&self, org: OrgId, email: &Email) -> Option<&User> {
        self.users_by_email(email).find(|user| user.org == org)
    }

    /// A login with its revision, ended or not.
    pub fn login_row(&self, hash: &TokenHash) -> Option<&LoginRow> {
        self.logins.get(hash)
    }

    /// A ticket with its revision, good or not.
    pub fn ticket_row(&self, hash: &TokenHash) -> Option<&Row<Ticket>> {
        self.tickets.get(hash)
    }

    /// A key, revoked or not.
    pub fn key(&self, id: KeyId) -> Option<&Key> {
        self.keys.get(&id).map(|row| &row.record)
    }

    /// A key with its revision, revoked or not.
    pub fn key_row(&self, id: KeyId) -> Option<&Row<Key>> {
        self.keys.get(&id)
    }

    /// A pair, deleted or not.
    pub fn pair(&self, id: PairId) -> Option<&PairRow> {
        self.pairs.get(&id)
    }

    /// A group.
    pub fn group(&self, id: GroupId) -> Option<&GroupRow> {
        self.groups.get(&id)
    }

    /// An agent, revoked or not.
    pub fn agent(&self, id: AgentId) -> Option<&Agent> {
        self.agents.get(&id).map(|row| &row.record)
    }

    /// An agent with its revision, revoked or not.
    pub fn agent_row(&self, id: AgentId) -> Option<&AgentRow> {
        self.agents.get(&id)
    }

    /// An invitation, used or not.
    pub fn enrolment(&self, id: EnrolmentId) -> Option<&Enrolment> {
        self.enrolments.get(&id).map(|row| &row.record)
    }

    /// An invitation with its revision, used or not.
    pub fn enrolment_row(&self, id: EnrolmentId) -> Option<&Row<Enrolment>> {
        self.enrolments.get(&id)
    }

    /// How many records of each kind are in force.
    pub fn counts(&self) -> [(&'static str, usize); 5] {
        let keys = self.keys.values().filter(|row| row.record.revoked_at.is_none());
        let agents = self.agents.values().filter(|row| row.record.revoked_at.is_none());
        [
            ("org", self.orgs.len()),
            ("key", keys.count()),
            ("pair", self.orgs.values().map(|row| row.pairs_live).sum()),
            ("group", self.groups.len()),
            ("agent", agents.count()),
        ]
    }

    /// Whom a secret belongs to. Dead secrets of deleted pairs and revoked keys are found, too:
    /// ask the record whether it lives.
    pub fn secret(&self, hash: &TokenHash) -> Option<Secret> {
        self.secrets.get(hash).copied()
    }

    /// The agents of an org, revoked ones included.
    pub fn agents_of(&self, org: OrgId) -> impl Iterator<Item = &Agent> {
        let ids = self.orgs.get(&org).into_iter().flat_map(|row| &row.agents);
        ids.filter_map(|id| self.agent(*id))
    }

    /// A group of an org.
    pub fn group_of(&self, org: OrgId, id: GroupId) -> Result<&GroupRow, Rejection> {
        self.groups.get(&id).filter(|row| row.record.org == org).ok_or(Rejection::NotFound)
    }

    /// A pair of an org that is not deleted.
    pub fn live_pair(&self, org: OrgId, id: PairId) -> Result<&PairRow, Rejection> {
        let row = self.pairs.get(&id).filter(|row| row.record.org == org && row.is_live());
        row.ok_or(Rejection::NotFound)
    }

    /// The shortest lifetime that an address of the pair has anywhere.
    pub fn shortest_ttl(&self, row: &PairRow) -> Ttl {
        let groups = row.memberships.keys().filter_map(|group| self.groups.get(group));
        let ttls = groups.filter_map(|group| group.record.ttl);
        ttls.chain([row.record.ttl]).min().expect("the pair's own lifetime is in the chain")
    }

    pub(super) fn org_row(&self, id: OrgId) -> Result<&OrgRow, Rejection> {
        self.orgs.get(&id).ok_or(Rejection::NotFound)
    }
}

/// The form of a mail address in which two that reach the same person are equal: nobody who types
/// one thinks of capital letters.
pub(super) fn fold(email: &Email) -> String {
    email.as_str().to_lowercase()
}

impl LoginRow {
    /// When it was last used.
    pub fn used_at(&self) -> Timestamp {
        let seen = Timestamp::from_unix_ms(self.seen_at.load(Ordering::Relaxed));
        self.record.used_at.max(seen.unwrap_or(Timestamp::EPOCH))
    }

    /// Notes a use: in memory, beside all readers.
    pub fn seen(&self, now: Timestamp) {
        self.seen_at.fetch_max(now.unix_ms(), Ordering::Relaxed);
    }
}

impl PairRow {
    /// Says whether the pair is not deleted.
    pub fn is_live(&self) -> bool {
        self.record.deleted_at.is_none()
    }

    /// When `address` goes stale as the pair's; `None` where it is none of its addresses or the
    /// pair is deleted.
    pub fn stale_at(&self, address: IpAddr) -> Option<Timestamp> {
        let report = self.report.filter(|_| self.is_live())?;
        let at = report.reported_at(address)?;
        Some(at.saturating_add(self.record.ttl.as_duration()))
    }

    /// When the pair was last heard of since the start of this process, or reported durably.
    pub fn last_seen(&self) -> Option<Timestamp> {
        let published = self.report.and_then(|report| report.networks().map(|(_, at)| at).max());
        let heard = Timestamp::from_unix_ms(self.last_seen.load(Ordering::Relaxed)).ok();
        published.max(heard.filter(|heard| *heard != Timestamp::EPOCH))
    }

    /// Notes a heartbeat: in memory, beside all readers.
    pub fn heard_at(&self, now: Timestamp) {
        self.last_seen.fetch_max(now.unix_ms(), Ordering::Relaxed);
    }
}

impl GroupRow {
    /// Says whether `network` is a fixed member.
    pub fn has_fixed(&self, network: Network) -> bool {
        let sources = self.sources.get(&network).into_iter().flatten();
        sources.filter_map(|member| self.members.get(member)).any(|row| match row.record.kind {
            MemberKind::Network { .. } => true,
            MemberKind::Pair(_) => false,
        })
    }
}
