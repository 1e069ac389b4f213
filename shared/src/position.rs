//! Where a follower stands in the life of a group's allowlist.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{Epoch, GroupId};

/// A count of commits. Grows within an epoch, with gaps.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// One exact state of one allowlist. Shown as `epoch.revision.digest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The life of the store that the revision belongs to.
    pub epoch: Epoch,
    /// The store revision of the last commit that changed the allowlist.
    pub revision: Revision,
    /// The digest of the entries later than the moment at which the position was taken.
    pub digest: Digest,
}

/// What a follower asks for: a group, and what it already has of it. Shown as `id` or
/// `id@epoch.revision.digest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Follow {
    /// The group.
    pub group: GroupId,
    /// What the follower has, if anything.
    pub have: Option<Position>,
}

/// A text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a position is written `epoch.revision.digest`")]
pub struct PositionError;

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.revision, self.digest)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Position, PositionError> {
        let parts: Vec<&str> = text.split('.').collect();
        let [epoch, revision, digest] = parts[..] else { return Err(PositionError) };
        if !revision.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PositionError);
        }
        Ok(Position {
            epoch: epoch.parse().map_err(|_| PositionError)?,
            revision: Revision(revision.parse().map_err(|_| PositionError)?),
            digest: digest.parse().map_err(|_| PositionError)?,
        })
    }
}

impl fmt::Display for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.have {
            Some(position) => write!(f, "{}@{position}", self.group),
            None => self.group.fmt(f),
        }
    }
}

impl Follow {
    /// Takes the text of one apart: how the group is called, which is for the plane to read, and what the
    /// follower has.
    pub fn split(text: &str) -> Result<(&str, Option<Position>), PositionError> {
        match text.split_once('@') {
            Some((group, have)) => Ok((group, Some(have.parse()?))),
            None => Ok((text, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let group = GroupId::from_random([7; 16]);
        let have = Position {
            epoch: Epoch::from_random([9; 16]),
            revision: Revision(42),
            digest: Digest::EMPTY,
        };

        for follow in [Follow { group, have: None }, Follow { group, have: Some(have) }] {
            let text = follow.to_string();
            assert_eq!(Follow::split(&text), Ok((&*group.to_string(), follow.have)));
        }
    }

    #[test]
    fn texts_that_are_no_positions_are_refused() {
        for text in ["7@", "7@x", "7@..", "7@1.2.3", "7@@", "7@+1.2.3.4"] {
            Follow::split(text).expect_err(text);
        }
    }
}
