//! What every firewall must be able to do to be kept equal to allowlists.
//!
//! A target reports and changes exactly the objects that it recognises as its own, and still
//! recognises them after a restart that forgot everything. Each kind of object says in its doc
//! comment how. One task owns one target; nothing here is shared.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use postern_shared::ids::GroupId;
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::Timestamp;

pub mod aws;
pub mod cloudflare;
pub mod file;
pub mod ipset;
pub mod marked;
pub mod nft;
pub mod ufw;

/// A firewall that is kept equal to one or more groups.
///
/// The caller's pass is: `refresh`, plan against `observed`, `apply`. A pass that finds nothing to
/// do in the lists still calls `apply`, with empty plans, as long as `is_settled` says no.
pub trait Target: Send + 'static {
    /// Name from the configuration and kind, for logs, receipts and status.
    fn info(&self) -> &TargetInfo;

    /// Makes `observed` true again: reads from outside whatever may have changed since. Writes
    /// nothing.
    fn refresh(
        &mut self,
        now: Timestamp,
    ) -> impl Future<Output = Result<Refresh, TargetError>> + Send;

    /// What is in force per group, as of the last refresh or apply, in local time. Expired entries
    /// may still be listed; every group of the target is, from the first refresh on.
    fn observed(&self) -> &BTreeMap<GroupId, Observed>;

    /// Says whether everything of ours that is not an entry (table, chains, rules, sets) stands as
    /// it should, as of the last refresh or apply. Where it does not, the next `apply` mends it in
    /// the same transaction, even when the plans are empty.
    fn is_settled(&self) -> bool;

    /// Prints what `apply` would do, without doing it. Needs no rights.
    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String;

    /// Carries out the plans of all groups, in one transaction where the backend has them.
    ///
    /// The first call puts up the gate as well, in the transaction of its entries: it must not
    /// come before every group has an accepted list. Entries that have expired at `now` are left
    /// out. After an error, and after the returned future was dropped half-way, the state is
    /// unknown until `refresh`.
    fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Resolves when somebody else may have changed what is ours, or when the target has work of
    /// its own to do: the caller's answer is a pass. Dropping the future loses nothing.
    fn disturbed(&mut self) -> impl Future<Output = ()> + Send;

    /// The earliest deadline of what stands there and does not end by itself. Once it is over, an
    /// entry is open past its time.
    fn earliest_deadline(&self) -> Option<Timestamp>;

    /// Empties what is ours of entries; what drops packets stays.
    fn flush(&mut self) -> impl Future<Output = Result<(), TargetError>> + Send;
}

/// What is in force once `plans` are carried out, without what has expired by then.
fn carried_out(
    observed: &BTreeMap<GroupId, Observed>,
    plans: &BTreeMap<GroupId, Plan>,
    now: Timestamp,
) -> BTreeMap<GroupId, Observed> {
    let mut model = observed.clone();
    for (group, observed) in &mut model {
        if let Some(plan) = plans.get(group) {
            plan.carry_out(observed);
        }
        observed.retain(|_, expiry| expiry.is_live_at(now));
    }
    model
}

/// How a target is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetInfo {
    /// Name from the configuration.
    pub name: String,
    /// Kind of firewall, as the configuration spells it.
    pub kind: &'static str,
    /// How the target works on this host, in words for `status`; empty before the first refresh.
    pub strategy: String,
}

/// What a refresh found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Nothing can have changed since the last refresh or apply.
    Unchanged,
    /// The target was read.
    Reread {
        /// How many objects or entries were not as this process had left them; 0 for the first
        /// read of a process.
        drift: usize,
    },
}

/// Why a target did not do what it was asked. A variant for each way to go on.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Nobody answered, or nobody with the rights to: try again later.
    #[error("the target cannot be reached: {step}")]
    Unreachable {
        /// What was tried, and what to change where that is known.
        step: String,
        /// The failure below.
        #[source]
        source: std::io::Error,
    },
    /// The target has no room: later lists may fit. The caller then takes away and renews alone.
    #[error("{wanted} entries do not fit; there is room for {capacity}")]
    Full {
        /// How many entries the target was to hold.
        wanted: usize,
        /// How many it can hold.
        capacity: usize,
    },
    /// The target does not take the change, and will not take it the next time.
    #[error("the target refused the change: {reason}")]
    Rejected {
        /// Why, and what to change.
        reason: String,
    },
    /// Another agent keeps this firewall.
    #[error("the target belongs to {holder}; stop it, or give this agent a table of its own")]
    Busy {
        /// Who it is, as well as it can be told.
        holder: String,
    },
    /// Somebody changed the target meanwhile: refresh and plan again.
    #[error("the target was changed by somebody else meanwhile")]
    Changed,
    /// The target asks for patience.
    #[error("the target asks to wait {} s", wait.as_secs())]
    Throttled {
        /// How long.
        wait: Duration,
    },
}
