//! The audit as it is stored: hash-chained, signed, read beside the writer, exported, verified.
//!
//! What happened and who did it is the domain's ([`AuditRecord`](crate::domain::AuditRecord)); the
//! writer puts the records and their link into the transaction of the change. Here is what makes
//! them evidence.

mod bytes;
mod chain;
mod export;
mod filter;
mod key;
mod kind;
mod read;
mod refusals;
mod stored;
mod verify;
mod view;

pub use self::bytes::{Hash, Hex, HexError, from_hex, to_hex};
pub use self::chain::{
    BareLink, ChainLink, LANE, Lane, Linked, Place, PlaceError, SignedBegin, SignedHead, Tagged,
    Tip, record_hash, tag,
};
pub use self::export::{Exported, Line, Opening, Part};
pub use self::filter::{Actors, ActorsError, Filter};
pub use self::key::{AUDIT_KEY_BYTES, AuditKey, SeedError};
pub use self::kind::{Kind, KindError};
pub use self::read::{AuditError, AuditPage, AuditView, Entry, StrayRecord};
pub use self::refusals::NO_ORG;
pub(crate) use self::refusals::Refusals;
pub use self::stored::{
    begin_key, head_key, head_operation, head_prefix, link_item, link_key, record_key, record_place,
};
pub use self::verify::{Broken, Locator, Verified, Verifier, What};
pub use self::view::{ActorView, RecordView};
