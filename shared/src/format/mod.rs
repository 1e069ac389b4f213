//! The forms in which a list is written for programs that are not ours.
//!
//! | form | what it is | overlapping entries | deadlines | empty list |
//! | --- | --- | --- | --- | --- |
//! | `text` | a network a line, a host without its prefix length | as they are | none | no line |
//! | `csv` | `cidr,family,expires_at` | as they are | each | the header line |
//! | `nft` | a script for `nft -f`: the sets `NAME_v4` and `NAME_v6` | as their disjoint cover | seconds left | flushes the sets |
//! | `ipset` | a script for `ipset restore`: the same sets | as they are | seconds left | swaps in empty sets |
//! | `nginx` | a `geo` block that sets `$NAME` to 1, and to 0 for others | as they are | none | 0 for everybody |
//! | `apache` | a `<RequireAny>` container | as they are | none | denies everybody |
//! | `haproxy` | a file of patterns for `src -f` | as they are | none | matches nobody |
//!
//! Each names exactly the addresses of the list. What a program loads with rules in it says itself
//! that nobody else gets in, and is no valid file when its end is missing: so an empty list denies
//! everybody, and one that was cut off is refused. `text`, `csv` and `haproxy` are read line by
//! line: who needs to know that nothing is missing counts the lines.
//!
//! `nft` and `ipset` replace the whole of their sets in one step; a failure leaves the old ones. They
//! carry the seconds that are left, and so are right only at the time at which they were written.

mod lines;
mod servers;
mod sets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

pub use self::sets::ipset_elements;

use serde::Deserialize;

use crate::network::{Family, Network};
use crate::time::{Expiry, Timestamp};

/// A form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// One address or network a line.
    Text,
    /// Networks with their deadlines.
    Csv,
    /// For `nft -f`.
    Nft,
    /// For `ipset restore`.
    Ipset,
    /// For nginx's `include`, at the level `http`.
    Nginx,
    /// For Apache's `Include`, where access is decided.
    Apache,
    /// For HAProxy's `src -f`.
    Haproxy,
}

/// A name for something in the configuration of another program: letters, digits and `_`, a letter
/// first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// A text cannot be a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: write 1 to {NAME_BYTES_MAX} letters, digits and `_`, a letter first")]
pub struct NameError(String);

/// Longest name in bytes: `ipset` takes 31, of which four tell its sets apart. A group would need a
/// number of twenty digits to have one that is longer.
pub const NAME_BYTES_MAX: usize = 27;

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    /// The form.
    pub format: Format,
    /// What sets and variables are called.
    pub name: Name,
    /// The nftables table of family `inet` that the sets are in.
    pub table: Name,
    /// The only family that is written; both where there is none. Sets of the other family are left
    /// as they are.
    pub family: Option<Family>,
}

impl Format {
    /// The media type of the form.
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Text
            | Format::Nft
            | Format::Ipset
            | Format::Nginx
            | Format::Apache
            | Format::Haproxy => "text/plain; charset=utf-8",
        }
    }

    /// Whether the form calls something by a [`Name`].
    pub const fn has_name(self) -> bool {
        match self {
            Format::Nft | Format::Ipset | Format::Nginx => true,
            Format::Text | Format::Csv | Format::Apache | Format::Haproxy => false,
        }
    }

    /// The longest time left that the form can say, in seconds; none where it says none. An entry
    /// with more is cut down to that, and has to be loaded again before it ends.
    pub const fn left_secs_max(self) -> Option<u64> {
        match self {
            Format::Nft => Some(sets::NFT_LEFT_SECS_MAX),
            Format::Ipset => Some(sets::IPSET_LEFT_SECS_MAX),
            Format::Text | Format::Csv | Format::Nginx | Format::Apache | Format::Haproxy => None,
        }
    }
}

impl Name {
    /// What belongs to the group of this number, where nobody says what to call it.
    pub fn numbered(group: u64) -> Name {
        Name(format!("postern_{group}"))
    }

    /// The table that Debian's `/etc/nftables.conf` begins with.
    pub fn filter() -> Name {
        Name("filter".to_owned())
    }

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        let is_named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_good = text.len() <= NAME_BYTES_MAX
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.bytes().all(is_named);
        if is_good { Ok(Name(text.to_owned())) } else { Err(NameError(text.to_owned())) }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Name, NameError> {
        text.parse()
    }
}

impl Rendering {
    /// Writes what of `entries` is allowed at `now`, in their order.
    pub fn write(
        &self,
        entries: impl IntoIterator<Item = (Network, Expiry)>,
        now: Timestamp,
    ) -> String {
        let wanted = |network: Network| self.family.is_none_or(|only| network.family() == only);
        let live = entries
            .into_iter()
            .filter(|(network, expiry)| wanted(*network) && expiry.is_live_at(now));
        match self.format {
            Format::Text => lines::text(live),
            Format::Csv => lines::csv(live),
            Format::Haproxy => lines::haproxy(live),
            Format::Nft => sets::nft(self, live, now),
            Format::Ipset => sets::ipset(self, live, now),
            Format::Nginx => servers::nginx(&self.name, live),
            Format::Apache => servers::apache(live),
        }
    }

    /// The families that are written.
    fn families(&self) -> impl Iterator<Item = Family> {
        let only = self.family;
        [Family::V4, Family::V6]
            .into_iter()
            .filter(move |family| only.is_none_or(|only| *family == only))
    }
}

/// A network as most programs want it: a host without its prefix length.
pub fn flat(network: Network) -> String {
    if network.is_host() { network.address().to_string() } else { network.to_string() }
}
