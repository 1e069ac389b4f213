//! What the operator says about sets of his own, and whether they are as they must be.

use std::collections::BTreeMap;
use std::fmt;

use postern_shared::ids::GroupId;
use postern_shared::network::Family;

use crate::target::TargetError;
use crate::target::nft::gate::config::{ConfigError, check_name};
use crate::target::nft::read::{Found, FoundSet};
use crate::target::nft::steps::key_shape;
use crate::target::nft::sys;

/// Sets that the operator declares and uses in his own rules, and whose elements are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetsConfig {
    /// Family of the operator's table.
    pub family: TableFamily,
    /// Name of the operator's table.
    pub table: String,
    /// Name of the set for IPv4; without it, entries of IPv4 are left out.
    pub v4_set: Option<String>,
    /// Name of the set for IPv6; without it, entries of IPv6 are left out.
    pub v6_set: Option<String>,
    /// Whose addresses go in.
    pub groups: Vec<GroupId>,
}

/// Families of tables that can hold sets of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFamily {
    /// Rules for both.
    Inet,
    /// Rules for IPv4.
    Ip,
    /// Rules for IPv6.
    Ip6,
}

/// A set as the operator declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) name: String,
    /// It takes ranges, and none that overlap.
    pub(super) interval: bool,
    /// How many elements it takes; `None` where it says no limit.
    pub(super) size: Option<usize>,
}

impl TableFamily {
    pub(super) fn number(self) -> u8 {
        match self {
            TableFamily::Inet => 1,
            TableFamily::Ip => 2,
            TableFamily::Ip6 => 10,
        }
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
        })
    }
}

impl SetsConfig {
    /// Finds the first mistake.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.table, "table")?;
        let sets = [&self.v4_set, &self.v6_set];
        sets.into_iter().flatten().try_for_each(|set| check_name(set, "set"))?;
        if self.groups.is_empty() {
            return Err(ConfigError::NoGroups(self.table.clone()));
        }
        if sets.into_iter().all(Option::is_none) {
            return Err(ConfigError::NoSets(self.table.clone()));
        }
        Ok(())
    }

    /// The sets by the family of their addresses.
    pub(super) fn sets(&self) -> impl Iterator<Item = (Family, &String)> {
        let v4 = self.v4_set.iter().map(|set| (Family::V4, set));
        v4.chain(self.v6_set.iter().map(|set| (Family::V6, set)))
    }

    /// The table as `nft` calls it.
    pub(super) fn table_text(&self) -> String {
        format!("{} {}", self.family, self.table)
    }

    /// The sets as they should be declared, for as long as nobody has looked.
    pub(super) fn supposed(&self) -> BTreeMap<Family, Shape> {
        let shape = |name: &String| Shape { name: name.clone(), interval: true, size: None };
        self.sets().map(|(family, name)| (family, shape(name))).collect()
    }

    /// Checks the sets against what we can keep.
    pub(super) fn shapes(&self, found: &Found) -> Result<BTreeMap<Family, Shape>, TargetError> {
        let table = self.table_text();
        if found.table.is_none() {
            let reason = format!("there is no table {table}; declare it, with its sets");
            return Err(TargetError::Rejected { reason });
        }
        let shape = |(family, name): (Family, &String)| {
            let set = found.sets.iter().find(|set| set.name == *name);
            let fault = set.map_or(Some("does not exist"), |set| fault(set, family));
            match (set, fault) {
                (Some(set), None) => Ok((family, shape_of(set))),
                (Some(_) | None, fault) => Err(TargetError::Rejected {
                    reason: format!(
                        "set {name} of table {table} {}; declare it: add set {table} {name} \
                         {{ type {}; flags interval, timeout; }}",
                        fault.unwrap_or("does not exist"),
                        type_name(family),
                    ),
                }),
            }
        };
        self.sets().map(shape).collect()
    }
}

fn shape_of(set: &FoundSet) -> Shape {
    let size = set.size.and_then(|size| usize::try_from(size).ok());
    Shape { name: set.name.clone(), interval: set.flags & sys::SET_INTERVAL != 0, size }
}

/// What is wrong with a set, if anything.
fn fault(set: &FoundSet, family: Family) -> Option<&'static str> {
    if (set.key_type, set.key_bytes) != key_shape(family) {
        return Some(match family {
            Family::V4 => "does not hold IPv4 addresses",
            Family::V6 => "does not hold IPv6 addresses",
        });
    }
    if set.flags & sys::SET_TIMEOUT == 0 {
        return Some("has no timeouts, so that its entries could not end");
    }
    let known = sys::SET_TIMEOUT | sys::SET_INTERVAL | sys::SET_EVAL;
    (set.flags & !known != 0).then_some("is a map or cannot be changed")
}

fn type_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}
