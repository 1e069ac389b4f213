//! What an API key may do.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One right. Written `resource.access`; `write` implies the `read` of the same resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[expect(missing_docs, reason = "each variant is its text")]
pub enum Scope {
    #[serde(rename = "account.read")]
    AccountRead,
    #[serde(rename = "account.write")]
    AccountWrite,
    #[serde(rename = "pairs.read")]
    PairsRead,
    #[serde(rename = "pairs.write")]
    PairsWrite,
    #[serde(rename = "groups.read")]
    GroupsRead,
    #[serde(rename = "groups.write")]
    GroupsWrite,
}

/// The rights of a key, as they were given: what they imply is for [`ScopeSet::allows`] to say.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(from = "BTreeSet<Scope>", into = "BTreeSet<Scope>")]
pub struct ScopeSet(u8);

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a scope; there are account.read, account.write, pairs.read, pairs.write, groups.read and groups.write"
)]
pub struct ScopeError(String);

impl Scope {
    /// All scopes.
    pub const ALL: [Scope; 6] = [
        Scope::AccountRead,
        Scope::AccountWrite,
        Scope::PairsRead,
        Scope::PairsWrite,
        Scope::GroupsRead,
        Scope::GroupsWrite,
    ];

    /// The scope's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::AccountRead => "account.read",
            Scope::AccountWrite => "account.write",
            Scope::PairsRead => "pairs.read",
            Scope::PairsWrite => "pairs.write",
            Scope::GroupsRead => "groups.read",
            Scope::GroupsWrite => "groups.write",
        }
    }

    /// The scopes that contain this one.
    const fn granted_by(self) -> u8 {
        match self {
            Scope::AccountRead => Scope::AccountRead.bit() | Scope::AccountWrite.bit(),
            Scope::PairsRead => Scope::PairsRead.bit() | Scope::PairsWrite.bit(),
            Scope::GroupsRead => Scope::GroupsRead.bit() | Scope::GroupsWrite.bit(),
            Scope::AccountWrite | Scope::PairsWrite | Scope::GroupsWrite => self.bit(),
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl ScopeSet {
    /// Every right there is.
    pub const ALL: ScopeSet = ScopeSet(0b11_1111);

    /// Says whether the rights contain `scope`.
    pub const fn allows(self, scope: Scope) -> bool {
        self.0 & scope.granted_by() != 0
    }

    /// The scopes as they were given.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// Says whether there is no right at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> ScopeSet {
        ScopeSet(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

impl From<BTreeSet<Scope>> for ScopeSet {
    fn from(scopes: BTreeSet<Scope>) -> ScopeSet {
        scopes.into_iter().collect()
    }
}

impl From<ScopeSet> for BTreeSet<Scope> {
    fn from(scopes: ScopeSet) -> BTreeSet<Scope> {
        scopes.iter().collect()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Scope, ScopeError> {
        let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| ScopeError(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_implies_the_read_of_the_same_resource_and_nothing_else() {
        let set: ScopeSet = [Scope::PairsWrite].into_iter().collect();
        let allowed: Vec<Scope> = Scope::ALL.into_iter().filter(|s| set.allows(*s)).collect();

        assert_eq!(allowed, [Scope::PairsRead, Scope::PairsWrite]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Scope::PairsWrite]);
    }

    #[test]
    fn no_scope_allows_nothing_and_all_allow_everything() {
        assert!(Scope::ALL.into_iter().all(|scope| !ScopeSet::default().allows(scope)));
        assert!(Scope::ALL.into_iter().all(|scope| ScopeSet::ALL.allows(scope)));
        assert_eq!(Scope::ALL.into_iter().collect::<ScopeSet>(), ScopeSet::ALL);
    }

    #[test]
    fn texts_read_back_and_others_are_refused_with_the_list() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
            assert_eq!(serde_json::to_string(&scope).unwrap(), format!("\"{scope}\""));
        }
        let error = "pairs.admin".parse::<Scope>().unwrap_err();
        assert!(error.to_string().contains("pairs.write"), "{error}");
    }
}
