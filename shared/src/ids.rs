//! Identifiers of records: random UUIDs (version 4), a type for each kind of record.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not a UUID in its hyphenated form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is a UUID, such as 6f1c9a52-6a0f-4f0e-9d2b-0d6f0f6f3f10")]
pub struct IdError;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The smallest id there is, for the start of a range.
            pub const FIRST: $name = $name(Uuid::nil());

            /// Makes an id of 16 random bytes.
            pub fn from_random(bytes: [u8; 16]) -> $name {
                $name(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// The id with exactly these bytes, of one that is known already.
            pub const fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of the id.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                const HYPHENATED_LEN: usize = 36;
                if text.len() != HYPHENATED_LEN {
                    return Err(IdError);
                }
                Uuid::try_parse(text).map($name).map_err(|_| IdError)
            }
        }
    )*};
}

ids! {
    /// A tenant.
    OrgId
    /// A person in an org.
    UserId
    /// An API key.
    KeyId
    /// A roving person, device or server.
    PairId
    /// A named set of members.
    GroupId
    /// One member of one group.
    MemberId
    /// The daemon on a host.
    AgentId
    /// A single-use invitation for an agent.
    EnrolmentId
    /// What changes when the store was restored or replaced: revisions count up within it.
    Epoch
}
