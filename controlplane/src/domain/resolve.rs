//! From changes to allowlists: applying a change, and finding what it did to which list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;

use postern_shared::allowlist::Allowlist;
use postern_shared::digest::Digest;
use postern_shared::ids::{GroupId, MemberId, PairId, UserId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::time::{Expiry, Timestamp, Ttl};

use super::account::Account;
use super::agent::Agent;
use super::change::Change;
use super::group::{Member, MemberKind};
use super::key::{Key, Origin};
use super::login::Login;
use super::org::{Org, User};
use super::pair::{Pair, Report};
use super::state::{
    AgentRow, GroupRow, LoginRow, OrgRow, PairRow, Row, Secret, State, UserRow, fold,
};

/// What changes touched, and so must be looked at again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    networks: BTreeMap<GroupId, BTreeSet<Network>>,
    /// Groups that are gone.
    pub gone: BTreeSet<GroupId>,
    /// Whether anybody's rights may have changed: open streams must ask again.
    pub access: bool,
}

/// What a commit did to the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The lists that changed.
    pub lists: Vec<ListChange>,
    /// Groups that are gone.
    pub gone: BTreeSet<GroupId>,
    /// Whether anybody's rights may have changed.
    pub access: bool,
}

/// What a commit did to one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListChange {
    /// The group.
    pub group: GroupId,
    /// The revision before.
    pub from: Revision,
    /// The digest before, of what is allowed at the time of the commit.
    pub base: Digest,
    /// The revision since.
    pub revision: Revision,
    /// The digest since, of what is allowed at the time of the commit.
    pub digest: Digest,
    /// Networks allowed, or allowed until another time.
    pub add: Vec<(Network, Expiry)>,
    /// Networks allowed no longer.
    pub remove: Vec<Network>,
}

impl State {
    /// Carries out a change that the store holds under `revision`. The lists follow when
    /// [`State::resolve`] is called with what was touched.
    pub fn apply(&mut self, change: &Change, revision: Revision, touched: &mut Touched) {
        match change {
            Change::PutOrg(org) => self.put_org(org, revision),
            Change::PutUser(user) => {
                touched.access = true;
                self.put_user(user, revision);
            }
            Change::PutAccount(account) => self.put_account(account, revision, touched),
            Change::PutLogin(login) => self.put_login(login, revision),
            Change::DeleteLogin(hash) => {
                touched.access = true;
                if let Some(row) = self.logins.remove(hash) {
                    self.with_user(row.record.user, |user| user.logins.remove(hash));
                }
            }
            Change::PutTicket(ticket) => {
                self.with_user(ticket.user, |user| user.tickets.insert(ticket.hash));
                self.tickets.insert(ticket.hash, Row { record: ticket.clone(), revision });
            }
            Change::DeleteTicket(hash) => {
                if let Some(row) = self.tickets.remove(hash) {
                    self.with_user(row.record.user, |user| user.tickets.remove(hash));
                }
            }
            // Follows from the users; the store alone needs a record of it.
            Change::TakeEmail(..) | Change::FreeEmail(..) => {}
            Change::PutKey(key) => self.put_key(key, revision, touched),
            Change::PutPair(pair) => self.put_pair(pair, revision, touched),
            Change::PutReport(report) => self.put_report(report, revision, touched),
            Change::PutGroup(group) => self.put_group(group, revision, touched),
            Change::DeleteGroup(id) => self.delete_group(*id, touched),
            Change::PutMember(member) => self.put_member(member, revision, touched),
            Change::DeleteMember(group, member) => {
                self.delete_member(*group, *member, revision, touched);
            }
            Change::PutAgent(agent) => self.put_agent(agent, revision, touched),
            Change::PutEnrolment(enrolment) => {
                self.secrets.insert(enrolment.hash, Secret::Enrolment(enrolment.id));
                self.enrolments.insert(enrolment.id, Row { record: enrolment.clone(), revision });
                self.with_org(enrolment.org, |org| org.enrolments.insert(enrolment.id));
            }
            Change::Record(_) => {} // lives in the store alone
            Change::DeleteReport(pair) => self.delete_report(*pair, touched),
            Change::PutReplay(replay) => self.put_replay(replay, revision),
            Change::DeleteReplay(id) => self.delete_replay(*id),
        }
    }

    /// Brings the lists of all touched groups up to date and says what became of them at `now`.
    pub fn resolve(&mut self, touched: Touched, revision: Revision, now: Timestamp) -> Resolved {
        let Touched { networks, gone, access } = touched;
        let lists = networks.into_iter();
        let lists = lists.filter_map(|(group, networks)| {
            let wanted: Vec<(Network, Option<Expiry>)> = networks
                .into_iter()
                .map(|network| (network, self.expiry_in(group, network)))
                .collect();
            self.groups.get_mut(&group)?.bring_up_to_date(wanted, revision, now)
        });
        Resolved { lists: lists.collect(), gone, access }
    }

    /// Says that every list has been loaded at `revision`.
    pub fn loaded_at(&mut self, revision: Revision) {
        for group in self.groups.values_mut() {
            group.list_revision = revision;
        }
    }

    /// Until when the members of `group` allow `network`: the latest of their expiries.
    fn expiry_in(&self, group: GroupId, network: Network) -> Option<Expiry> {
        let row = self.groups.get(&group)?;
        let members = row.sources.get(&network)?.iter().filter_map(|id| row.members.get(id));
        members.filter_map(|member| self.member_expiry(row, &member.record, network)).max()
    }

    fn member_expiry(&self, group: &GroupRow, member: &Member, network: Network) -> Option<Expiry> {
        match &member.kind {
            MemberKind::Network { .. } => Some(member.expires),
            MemberKind::Pair(id) => {
                let pair = self.pairs.get(id).filter(|pair| pair.is_live())?;
                let reported = pair.report?.networks().find(|(spot, _)| *spot == network);
                let deadline = deadline(reported?.1, pair.record.ttl, group.record.ttl);
                Some(Expiry::At(deadline).min(member.expires))
            }
        }
    }

    fn with_org<R>(&mut self, id: postern_shared::ids::OrgId, f: impl FnOnce(&mut OrgRow) -> R) {
        if let Some(org) = self.orgs.get_mut(&id) {
            f(org);
        }
    }

    fn with_user<R>(&mut self, id: UserId, f: impl FnOnce(&mut UserRow) -> R) {
        if let Some(user) = self.users.get_mut(&id) {
            f(user);
        }
    }

    fn put_user(&mut self, user: &User, revision: Revision) {
        match self.users.get_mut(&user.id) {
            Some(row) => {
                row.record = user.clone();
                row.revision = revision;
            }
            None => {
                let row = UserRow {
                    record: user.clone(),
                    revision,
                    account: None,
                    account_revision: revision,
                    logins: BTreeSet::new(),
                    tickets: BTreeSet::new(),
                };
                self.users.insert(user.id, row);
                self.emails.entry(fold(&user.email)).or_default().insert(user.id);
                self.with_org(user.org, |org| org.users.insert(user.id));
            }
        }
    }

    fn put_account(&mut self, account: &Account, revision: Revision, touched: &mut Touched) {
        let Some(row) = self.users.get_mut(&account.user) else { return };
        row.account = Some(account.clone());
        row.account_revision = revision;
        if account.removed_at.is_some() {
            touched.access = true;
            let email = fold(&row.record.email);
            if let Some(users) = self.emails.get_mut(&email) {
                users.remove(&account.user);
                if users.is_empty() {
                    self.emails.remove(&email);
                }
            }
            self.with_org(account.org, |org| org.users.remove(&account.user));
        }
    }

    fn put_login(&mut self, login: &Login, revision: Revision) {
        let seen_at = self.logins.get(&login.hash).map_or(0, |row| row.used_at().unix_ms());
        let row = LoginRow { record: login.clone(), revision, seen_at: AtomicU64::new(seen_at) };
        self.logins.insert(login.hash, row);
        self.with_user(login.user, |user| user.logins.insert(login.hash));
    }

    fn put_org(&mut self, org: &Org, revision: Revision) {
        match self.orgs.get_mut(&org.id) {
            Some(row) => {
                row.record = org.clone();
                row.revision = revision;
            }
            None => {
                self.orgs.insert(org.id, OrgRow::new(org.clone(), revision));
            }
        }
    }

    fn put_key(&mut self, key: &Key, revision: Revision, touched: &mut Touched) {
        touched.access = true;
        if let Some(before) = self.keys.get(&key.id) {
            let origins = before.record.origins.clone();
            self.count_locks(&origins, |locks| locks.saturating_sub(1));
        }
        self.count_locks(&key.origins, |locks| locks + 1);
        self.secrets.insert(key.hash, Secret::Key(key.id));
        self.keys.insert(key.id, Row { record: key.clone(), revision });
        self.with_org(key.org, |org| org.keys.insert(key.id));
    }

    fn put_agent(&mut self, agent: &Agent, revision: Revision, touched: &mut Touched) {
        touched.access = true;
        if !self.agents.contains_key(&agent.id) {
            self.count_locks(&[Origin::Pair(agent.pair)], |locks| locks + 1);
        }
        self.secrets.insert(agent.token, Secret::Agent(agent.id));
        self.agents.insert(agent.id, AgentRow { record: agent.clone(), revision });
        self.with_org(agent.org, |org| org.agents.insert(agent.id));
    }

    fn count_locks(&mut self, origins: &[Origin], count: impl Fn(usize) -> usize) {
        for origin in origins {
            if let Origin::Pair(pair) = origin
                && let Some(row) = self.pairs.get_mut(pair)
            {
                row.locks = count(row.locks);
            }
        }
    }

    fn put_pair(&mut self, pair: &Pair, revision: Revision, touched: &mut Touched) {
        if let Some(before) = self.pairs.get(&pair.id).map(|row| &row.record) {
            self.secrets.remove(&before.bookmark);
            self.secrets.remove(&before.server_key);
        }
        self.secrets.insert(pair.bookmark, Secret::Bookmark(pair.id));
        self.secrets.insert(pair.server_key, Secret::Server(pair.id));
        let is_live = pair.deleted_at.is_none();
        let was_live = match self.pairs.get_mut(&pair.id) {
            Some(row) => {
                let was_live = row.is_live();
                touched.access |= 0 < row.locks;
                row.record = pair.clone();
                row.revision = revision;
                was_live
            }
            None => {
                self.pairs.insert(pair.id, PairRow::new(pair.clone(), revision));
                false
            }
        };
        self.touch_pair(pair.id, touched);
        self.with_org(pair.org, |org| {
            org.pairs.insert(pair.number, pair.id);
            org.pairs_live = org.pairs_live + usize::from(is_live) - usize::from(was_live);
        });
    }

    fn put_report(&mut self, report: &Report, revision: Revision, touched: &mut Touched) {
        self.touch_pair(report.pair, touched);
        let Some(row) = self.pairs.get_mut(&report.pair) else { return };
        let before = row.report.replace(*report);
        let addresses = |report: &Report| {
            (report.ipv4.map(|spot| spot.address), report.ipv6.map(|spot| spot.address))
        };
        let has_moved = before.as_ref().map(addresses) != Some(addresses(report));
        touched.access |= has_moved && 0 < row.locks;
        row.report_revision = revision;
        let memberships: Vec<(GroupId, MemberId)> =
            row.memberships.iter().map(|(group, member)| (*group, *member)).collect();
        for (group, member) in memberships {
            if let Some(group) = self.groups.get_mut(&group) {
                for (network, _) in before.iter().flat_map(Report::networks) {
                    group.unlink(network, member);
                }
                for (network, _) in report.networks() {
                    group.link(network, member);
                }
            }
        }
        self.touch_pair(report.pair, touched);
    }

    fn delete_report(&mut self, id: PairId, touched: &mut Touched) {
        self.touch_pair(id, touched);
        let Some(row) = self.pairs.get_mut(&id) else { return };
        touched.access |= 0 < row.locks;
        let Some(before) = row.report.take() else { return };
        for (group, member) in &row.memberships {
            if let Some(group) = self.groups.get_mut(group) {
                for (network, _) in before.networks() {
                    group.unlink(network, *member);
                }
            }
        }
    }

    fn put_group(&mut self, group: &super::Group, revision: Revision, touched: &mut Touched) {
        match self.groups.get_mut(&group.id) {
            Some(row) => {
                row.record = group.clone();
                row.revision = revision;
                row.record_revision = revision;
                let networks = row.sources.keys().copied();
                touched.networks.entry(group.id).or_default().extend(networks);
            }
            None => {
                self.groups.insert(group.id, GroupRow::new(group.clone(), revision));
                touched.access = true;
            }
        }
        self.with_org(group.org, |org| org.groups.insert(group.number, group.id));
    }

    fn delete_group(&mut self, id: GroupId, touched: &mut Touched) {
        if let Some(row) = self.groups.remove(&id) {
            self.with_org(row.record.org, |org| org.groups.remove(&row.record.number));
            for member in row.members.values() {
                if let MemberKind::Pair(pair) = &member.record.kind
                    && let Some(pair) = self.pairs.get_mut(pair)
                {
                    pair.memberships.remove(&id);
                }
            }
            touched.networks.remove(&id);
            touched.gone.insert(id);
            touched.access = true;
        }
    }

    fn put_member(&mut self, member: &Member, revision: Revision, touched: &mut Touched) {
        let networks: Vec<Network> = match &member.kind {
            MemberKind::Network { network, .. } => vec![*network],
            MemberKind::Pair(id) => {
                let Some(pair) = self.pairs.get_mut(id) else { return };
                pair.memberships.insert(member.group, member.id);
                pair.report.iter().flat_map(Report::networks).map(|(network, _)| network).collect()
            }
        };
        let Some(group) = self.groups.get_mut(&member.group) else { return };
        for network in &networks {
            group.link(*network, member.id);
        }
        touched.networks.entry(member.group).or_default().extend(networks);
        group.revision = revision;
        group.members.insert(member.id, Row { record: member.clone(), revision });
    }

    fn delete_member(
        &mut self,
        group: GroupId,
        member: MemberId,
        revision: Revision,
        touched: &mut Touched,
    ) {
        let Some(row) = self.groups.get_mut(&group) else { return };
        let Some(gone) = row.members.remove(&member) else { return };
        row.revision = revision;
        let networks: Vec<Network> = match gone.record.kind {
            MemberKind::Network { network, .. } => vec![network],
            MemberKind::Pair(id) => {
                let Some(pair) = self.pairs.get_mut(&id) else { return };
                pair.memberships.remove(&group);
                pair.report.iter().flat_map(Report::networks).map(|(network, _)| network).collect()
            }
        };
        for network in &networks {
            row.unlink(*network, member);
        }
        touched.networks.entry(group).or_default().extend(networks);
    }

    /// Marks the pair's present addresses in all its groups.
    fn touch_pair(&self, id: PairId, touched: &mut Touched) {
        let Some(row) = self.pairs.get(&id) else { return };
        let networks = || row.report.iter().flat_map(Report::networks).map(|(network, _)| network);
        for group in row.memberships.keys() {
            touched.networks.entry(*group).or_default().extend(networks());
        }
    }
}

/// Until when an address counts that was reported `at`: of pair and group the shorter lifetime
/// wins.
pub(super) fn deadline(at: Timestamp, pair: Ttl, group: Option<Ttl>) -> Timestamp {
    at.saturating_add(group.map_or(pair, |group| group.min(pair)).as_duration())
}

impl OrgRow {
    fn new(record: Org, revision: Revision) -> OrgRow {
        OrgRow {
            record,
            revision,
            users: BTreeSet::new(),
            keys: BTreeSet::new(),
            pairs: BTreeMap::new(),
            pairs_live: 0,
            groups: BTreeMap::new(),
            agents: BTreeSet::new(),
            enrolments: BTreeSet::new(),
            replays: 0,
        }
    }
}

impl PairRow {
    fn new(record: Pair, revision: Revision) -> PairRow {
        PairRow {
            record,
            revision,
            report: None,
            report_revision: Revision::default(),
            memberships: BTreeMap::new(),
            locks: 0,
            last_seen: AtomicU64::new(0),
        }
    }
}

impl GroupRow {
    fn new(record: super::Group, revision: Revision) -> GroupRow {
        GroupRow {
            record,
            revision,
            record_revision: revision,
            members: BTreeMap::new(),
            list: Allowlist::new(),
            list_revision: revision,
            sources: BTreeMap::new(),
        }
    }

    fn link(&mut self, network: Network, member: MemberId) {
        self.sources.entry(network).or_default().insert(member);
    }

    fn unlink(&mut self, network: Network, member: MemberId) {
        if let Some(members) = self.sources.get_mut(&network) {
            members.remove(&member);
            if members.is_empty() {
                self.sources.remove(&network);
            }
        }
    }

    /// Sets the list's entries for the given networks. Entries that have expired by `now` leave
    /// silently: both sides know of expiry without a word.
    fn bring_up_to_date(
        &mut self,
        wanted: Vec<(Network, Option<Expiry>)>,
        revision: Revision,
        now: Timestamp,
    ) -> Option<ListChange> {
        self.list.drop_expired(now);
        let base = self.list.digest_at(now);
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        for (network, expiry) in wanted {
            let live = expiry.filter(|expiry| expiry.is_live_at(now));
            match (live, self.list.get(network)) {
                (Some(expiry), before) if before != Some(expiry) => {
                    self.list.set(network, expiry);
                    add.push((network, expiry));
                }
                (None, Some(_)) => {
                    self.list.remove(network);
                    remove.push(network);
                }
                (Some(_), _) | (None, None) => {}
            }
        }
        if add.is_empty() && remove.is_empty() {
            return None;
        }
        let from = std::mem::replace(&mut self.list_revision, revision);
        let digest = self.list.digest_at(now);
        Some(ListChange { group: self.record.id, from, base, revision, digest, add, remove })
    }
}
