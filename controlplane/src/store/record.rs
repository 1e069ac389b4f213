//! Keys, values and conditional changes of them.

use std::fmt;
use std::ops::Bound;

use postern_shared::position::Revision;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $tag:literal, $text:literal;)*) => {
        /// A kind of record. The tag is part of the durable form and never given to another.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Table {
            $($(#[$doc])* $name = $tag,)*
        }

        impl Table {
            /// Every table, in the order of the tags.
            pub const ALL: &[Table] = &[$(Table::$name,)*];

            /// The name of the table in the file and in messages.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Table::$name => $text,)*
                }
            }
        }
    };
}

tables! {
    /// Tenants.
    Orgs = 1, "orgs";
    /// People.
    Users = 2, "users";
    /// API keys.
    Keys = 3, "keys";
    /// Roving persons, devices and servers.
    Pairs = 4, "pairs";
    /// What each pair last reported: apart from the pair, since it changes often.
    Reports = 5, "reports";
    /// Named sets of members.
    Groups = 6, "groups";
    /// Members of groups.
    Members = 7, "members";
    /// Daemons on hosts.
    Agents = 8, "agents";
    /// Invitations for agents.
    Enrolments = 9, "enrolments";
    /// Counts and running numbers, so that quotas and numbers are no race.
    Counters = 10, "counters";
    /// Values that may be taken only once.
    Unique = 11, "unique";
    /// The audit log; not held in memory.
    Audit = 12, "audit";
    /// The links of the audit log's hash chains; not held in memory.
    Chain = 13, "chain";
    /// Settings of the whole plane.
    Settings = 14, "settings";
    /// What people sign in with: apart from the users, since it changes with every sign-in.
    Accounts = 15, "accounts";
    /// Browsers in which people are signed in.
    Logins = 16, "logins";
    /// Single-use secrets of links that let people in.
    Tickets = 17, "tickets";
    /// Answers to requests that have a name, to be given again.
    Replays = 20, "replays";
}

impl Table {
    /// The durable form of the table's name, for backends with one space of keys.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// Says whether [`Store::load`](super::Store::load) hands out the table; the others are read by
    /// [`Store::scan`](super::Store::scan).
    pub const fn is_resident(self) -> bool {
        !matches!(self, Table::Audit | Table::Chain)
    }
}

/// Names one record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind of record.
    pub table: Table,
    /// Which one; a scan returns ids in the order of their bytes.
    pub id: Vec<u8>,
}

/// What must be true of the state before the batch for an item to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such record.
    Absent(Key),
    /// There is such a record.
    Exists(Key),
    /// There is such a record, and the commit of that revision was the last to write it.
    AtRevision(Key, Revision),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes the record, whether or not there is one.
    Put(Key, Vec<u8>),
    /// Takes the record away; when there is none, nothing happens.
    Delete(Key),
}

/// Changes that belong together: carried out whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// All of them must hold.
    pub preconditions: Vec<Precondition>,
    /// At most one for each key.
    pub operations: Vec<Operation>,
}

/// A record as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub key: Key,
    /// The revision of the commit that last wrote it.
    pub revision: Revision,
    /// What was written.
    pub value: Vec<u8>,
}

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the smallest id up.
    Ascending,
    /// From the largest id down.
    Descending,
}

/// A part of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The table.
    pub table: Table,
    /// The lower bound of the ids.
    pub from: Bound<&'a [u8]>,
    /// The upper bound of the ids; below the lower one, the scan finds nothing.
    pub to: Bound<&'a [u8]>,
    /// Which records come first, where there are more than `limit`.
    pub order: Order,
    /// Most records to return; [`SCAN_RECORDS_MAX`](super::SCAN_RECORDS_MAX) where it is larger.
    pub limit: usize,
}

impl Key {
    /// Makes a key.
    pub fn new(table: Table, id: impl Into<Vec<u8>>) -> Key {
        Key { table, id: id.into() }
    }
}

impl fmt::Display for Key {
    /// Shows the id in hexadecimal digits: it may be a hash, and is no text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.table.name())?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Precondition {
    /// The record that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Precondition::Absent(key)
            | Precondition::Exists(key)
            | Precondition::AtRevision(key, _) => key,
        }
    }

    /// Says whether it holds for a record that was last written at `found`, if there is one.
    pub(super) fn holds(&self, found: Option<Revision>) -> bool {
        match self {
            Precondition::Absent(_) => found.is_none(),
            Precondition::Exists(_) => found.is_some(),
            Precondition::AtRevision(_, revision) => found == Some(*revision),
        }
    }
}

impl fmt::Display for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Precondition::Absent(key) => write!(f, "`{key} is absent`"),
            Precondition::Exists(key) => write!(f, "`{key} exists`"),
            Precondition::AtRevision(key, revision) => write!(f, "`{key} is at {revision}`"),
        }
    }
}

impl Operation {
    /// The record that it changes.
    pub fn key(&self) -> &Key {
        match self {
            Operation::Put(key, _) | Operation::Delete(key) => key,
        }
    }

    /// The bytes of key and value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Operation::Put(key, value) => key.id.len() + value.len(),
            Operation::Delete(key) => key.id.len(),
        }
    }
}

impl Scan<'_> {
    /// Says whether the bounds exclude each other, which ordered maps take for a defect.
    pub(super) fn is_empty(&self) -> bool {
        match (self.from, self.to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
            | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        }
    }

    /// The limit that applies.
    pub(super) fn records_max(&self) -> usize {
        self.limit.min(super::SCAN_RECORDS_MAX)
    }
}
