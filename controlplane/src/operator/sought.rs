//! What an operator can name, and by what each goes.

use std::fmt;

/// A kind of record that is looked for by what somebody wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the records' own names")]
pub enum Sought {
    Org,
    Pair,
    Group,
    Member,
    Key,
    Agent,
    User,
}

impl Sought {
    /// By what one can be named.
    pub(super) fn goes_by(self) -> &'static str {
        match self {
            Sought::Org | Sought::Key | Sought::Agent => "its name or UUID",
            Sought::Pair | Sought::Group => "its name, running number or UUID",
            Sought::Member => "its pair, its network, or the UUID of the membership",
            Sought::User => "the mail address or UUID",
        }
    }
}

impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sought::Org => "org",
            Sought::Pair => "pair",
            Sought::Group => "group",
            Sought::Member => "member",
            Sought::Key => "key",
            Sought::Agent => "agent",
            Sought::User => "user",
        })
    }
}
