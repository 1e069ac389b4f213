//! Version 1 of the API under `/api/v1`.
//!
//! These types are apart from the domain's: they change only by gaining fields. The golden
//! files in `shared/tests/golden` hold every one of them to its exact text.

mod agents;
mod beacon;
mod envelope;
mod list;
mod stream;

pub use agents::{
    AgentGroup, AgentSelf, AgentUpdate, EnrolAnswer, EnrolRequest, Receipt, ReceiptState, Receipts,
    TargetStatus,
};
pub use beacon::{BeaconAnswer, BeaconRequest, Confirmation};
pub use envelope::{Envelope, FieldError, Meta, Problem};
pub use list::{Entry, GroupIps, ListedEntry, Source, SourceKind};
pub use stream::{Delta, Same, Snapshot, StreamEvent, Withdrawn};
