//! Between changes and stored records.

use std::collections::BTreeMap;
use std::ops::Bound;

use postern_shared::ids::{GroupId, MemberId, OrgId};
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::audit::{ChainLink, LANE, Linked, Place, record_hash, record_key};
use crate::domain::{
    Account, Agent, Change, Enrolment, Group, Key as ApiKey, Login, Member, Org, Pair, Replay,
    ReplayId, Report, State, Ticket, Touched, User,
};
use crate::store::{
    CodecError, Item, Key, Operation, Order, Precondition, Record, Scan, Store, StoreError, Table,
    Versioned, decode, encode,
};

/// A stored record that does not fit its table.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its bytes cannot be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It lies in a table that this version does not know what to do with.
    #[error("nothing is known of records in the table `{}`", .0.name())]
    Table(Table),
}

macro_rules! versioned {
    ($($record:ty)*) => {$(
        impl Versioned for $record {
            const VERSION: u8 = 1;
        }
    )*};
}

versioned!(Org User ApiKey Pair Report Group Member Agent Enrolment Replay);
versioned!(Account Login Ticket);

/// Loads every record; answers the state, the records that nobody needs any more (members whose
/// group is gone, answers whose time is over), and the chain's end.
pub(super) fn load(
    store: &dyn Store,
    now: Timestamp,
) -> Result<(State, Vec<Key>, Option<ChainLink>), StoreError> {
    let mut loaded: BTreeMap<Table, Vec<Record>> = BTreeMap::new();
    let revision = store.load(&mut |record| {
        loaded.entry(record.key.table).or_default().push(record);
        Ok(())
    })?;
    let (mut state, mut orphans, mut touched) = (State::new(), Vec::new(), Touched::default());
    for table in ORDER {
        for record in loaded.remove(table).unwrap_or_default() {
            let change = read(&record).map_err(|source| unreadable(record.key.clone(), source))?;
            let is_orphan = if let Change::PutMember(member) = &change {
                state.group(member.group).is_none()
            } else if let Change::PutReplay(replay) = &change {
                replay.ends_at <= now
            } else {
                false
            };
            if is_orphan {
                orphans.push(record.key);
            } else {
                state.apply(&change, record.revision, &mut touched);
            }
        }
    }
    state.resolve(touched, revision, now);
    state.loaded_at(revision);
    Ok((state, orphans, last_link(store)?))
}

/// The tables in the order in which their records build on one another.
const ORDER: &[Table] = &[
    Table::Orgs,
    Table::Users,
    Table::Accounts,
    Table::Logins,
    Table::Tickets,
    Table::Groups,
    Table::Pairs,
    Table::Reports,
    Table::Members,
    Table::Keys,
    Table::Agents,
    Table::Enrolments,
    Table::Replays,
];

fn unreadable(key: Key, source: RecordError) -> StoreError {
    StoreError::Unreadable { key, source: Box::new(source) }
}

fn last_link(store: &dyn Store) -> Result<Option<ChainLink>, StoreError> {
    let newest = store.scan(Scan {
        table: Table::Chain,
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        order: Order::Descending,
        limit: 1,
    })?;
    let read = |record: Record| {
        decode(&record.value).map_err(|source| unreadable(record.key, RecordError::Codec(source)))
    };
    newest.into_iter().next().map(read).transpose()
}

fn read(record: &Record) -> Result<Change, RecordError> {
    let bytes = &record.value;
    Ok(match record.key.table {
        Table::Orgs => Change::PutOrg(decode(bytes)?),
        Table::Users => Change::PutUser(decode(bytes)?),
        Table::Keys => Change::PutKey(decode(bytes)?),
        Table::Pairs => Change::PutPair(decode(bytes)?),
        Table::Reports => Change::PutReport(decode(bytes)?),
        Table::Groups => Change::PutGroup(decode(bytes)?),
        Table::Members => Change::PutMember(decode(bytes)?),
        Table::Agents => Change::PutAgent(decode(bytes)?),
        Table::Enrolments => Change::PutEnrolment(decode(bytes)?),
        Table::Replays => Change::PutReplay(decode(bytes)?),
        Table::Accounts => Change::PutAccount(decode(bytes)?),
        Table::Logins => Change::PutLogin(decode(bytes)?),
        Table::Tickets => Change::PutTicket(decode(bytes)?),
        other @ (Table::Counters
        | Table::Unique
        | Table::Audit
        | Table::Chain
        | Table::Settings) => return Err(RecordError::Table(other)),
    })
}

/// Turns the changes of one order into one item: each record with the revision that it was
/// decided on, so that another writer's change in between is noticed. Audit records get their
/// place in the link `number` of the chain, and are added to `linked`.
pub(super) fn item(
    state: &State,
    changes: &[Change],
    number: u64,
    linked: &mut Vec<Linked>,
) -> Item {
    let mut item = Item::default();
    for change in changes {
        if let Change::FreeEmail(org, email) = change {
            // Whoever frees an address writes the user's records, too: those have preconditions.
            item.operations.push(Operation::Delete(email_key(*org, email)));
            continue;
        }
        let (operation, revision) = if let Change::Record(record) = change {
            let value = encode(record);
            let index = u32::try_from(linked.len()).expect("a commit has fewer records");
            linked.push(Linked { org: record.org, hash: record_hash(&value) });
            let place = Place { lane: LANE, number, index };
            (Operation::Put(record_key(record.org, place), value), None)
        } else {
            operation(state, change)
        };
        let key = operation.key().clone();
        item.preconditions.push(match revision {
            Some(revision) => Precondition::AtRevision(key, revision),
            None => Precondition::Absent(key),
        });
        item.operations.push(operation);
    }
    item
}

/// The operation of a change, with the revision of the record that it replaces.
fn operation(state: &State, change: &Change) -> (Operation, Option<Revision>) {
    let put = |table, id: &[u8; 16], value| Operation::Put(Key::new(table, *id), value);
    match change {
        Change::PutOrg(org) => (
            put(Table::Orgs, org.id.as_bytes(), encode(org)),
            state.org(org.id).map(|row| row.revision),
        ),
        Change::PutUser(user) => (
            put(Table::Users, user.id.as_bytes(), encode(user)),
            state.user_row(user.id).map(|row| row.revision),
        ),
        Change::PutAccount(account) => {
            let row = state.user_row(account.user).filter(|row| row.account.is_some());
            let revision = row.map(|row| row.account_revision);
            (put(Table::Accounts, account.user.as_bytes(), encode(account)), revision)
        }
        Change::PutLogin(login) => (
            Operation::Put(Key::new(Table::Logins, *login.hash.as_bytes()), encode(login)),
            state.login_row(&login.hash).map(|row| row.revision),
        ),
        Change::DeleteLogin(hash) => (
            Operation::Delete(Key::new(Table::Logins, *hash.as_bytes())),
            state.login_row(hash).map(|row| row.revision),
        ),
        Change::PutTicket(ticket) => (
            Operation::Put(Key::new(Table::Tickets, *ticket.hash.as_bytes()), encode(ticket)),
            state.ticket_row(&ticket.hash).map(|row| row.revision),
        ),
        Change::DeleteTicket(hash) => (
            Operation::Delete(Key::new(Table::Tickets, *hash.as_bytes())),
            state.ticket_row(hash).map(|row| row.revision),
        ),
        Change::TakeEmail(org, email, user) => {
            (Operation::Put(email_key(*org, email), user.as_bytes().to_vec()), None)
        }
        Change::PutKey(key) => (
            put(Table::Keys, key.id.as_bytes(), encode(key)),
            state.key_row(key.id).map(|row| row.revision),
        ),
        Change::PutPair(pair) => (
            put(Table::Pairs, pair.id.as_bytes(), encode(pair)),
            state.pair(pair.id).map(|row| row.revision),
        ),
        Change::PutReport(report) => {
            let row = state.pair(report.pair).filter(|row| row.report.is_some());
            let revision = row.map(|row| row.report_revision);
            (put(Table::Reports, report.pair.as_bytes(), encode(report)), revision)
        }
        Change::PutGroup(group) => (
            put(Table::Groups, group.id.as_bytes(), encode(group)),
            state.group(group.id).map(|row| row.record_revision),
        ),
        Change::DeleteGroup(id) => (
            Operation::Delete(Key::new(Table::Groups, *id.as_bytes())),
            state.group(*id).map(|row| row.record_revision),
        ),
        Change::PutMember(member) => (
            Operation::Put(member_key(member.group, member.id), encode(member)),
            member_revision(state, member.group, member.id),
        ),
        Change::DeleteMember(group, member) => (
            Operation::Delete(member_key(*group, *member)),
            member_revision(state, *group, *member),
        ),
        Change::PutAgent(agent) => (
            put(Table::Agents, agent.id.as_bytes(), encode(agent)),
            state.agent_row(agent.id).map(|row| row.revision),
        ),
        Change::PutEnrolment(enrolment) => (
            put(Table::Enrolments, enrolment.id.as_bytes(), encode(enrolment)),
            state.enrolment_row(enrolment.id).map(|row| row.revision),
        ),
        Change::DeleteReport(pair) => (
            Operation::Delete(Key::new(Table::Reports, *pair.as_bytes())),
            state.pair(*pair).filter(|row| row.report.is_some()).map(|row| row.report_revision),
        ),
        Change::PutReplay(replay) => (
            Operation::Put(replay_key(replay.id), encode(replay)),
            state.replay_row(replay.id).map(|row| row.revision),
        ),
        Change::DeleteReplay(id) => {
            (Operation::Delete(replay_key(*id)), state.replay_row(*id).map(|row| row.revision))
        }
        Change::Record(_) | Change::FreeEmail(..) => {
            unreachable!("`item` sees to audit records and to addresses that are freed")
        }
    }
}

pub(super) fn replay_key(id: ReplayId) -> Key {
    Key::new(Table::Replays, id.0)
}

fn member_revision(state: &State, group: GroupId, member: MemberId) -> Option<Revision> {
    state.group(group)?.members.get(&member).map(|row| row.revision)
}

/// The key that a mail address takes in an org. Hashed, since an address may be longer than a key.
fn email_key(org: OrgId, email: &str) -> Key {
    let hash: [u8; 32] = Sha256::digest(email).into();
    Key::new(Table::Unique, [&b"email"[..], org.as_bytes(), &hash].concat())
}

/// Members lie together by group, so that those of a group that is gone can be found.
pub(super) fn member_key(group: GroupId, member: MemberId) -> Key {
    Key::new(Table::Members, [&group.as_bytes()[..], member.as_bytes()].concat())
}
