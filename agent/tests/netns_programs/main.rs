//! Targets that other programs carry out or read: ipset with iptables, ufw, nginx, HAProxy. Packets,
//! requests and the programs themselves are the witnesses.
//!
//! Needs a network namespace per process: run with `make test`. ufw and its files are in a mount
//! namespace of their own, so that the machine's are never touched.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod commands;
mod ipset;
#[expect(dead_code, reason = "the tests of nftables use the rest")]
#[path = "../netns/mod.rs"]
mod netns;
#[path = "../contract/mod.rs"]
mod promises;
mod servers;
mod ufw;

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::{Target, TargetError};
use postern_shared::plan::Plan;

use crate::netns::{group, net, now, plans, within};

const HOUR: Duration = Duration::from_secs(3600);

/// One pass that adds and removes these, as the agent would make it.
async fn pass(
    target: &mut impl Target,
    add: &[(&str, Duration)],
    remove: &[&str],
) -> Result<(), TargetError> {
    let add: BTreeMap<_, _> = add.iter().map(|(text, left)| (net(text), within(*left))).collect();
    let remove = remove.iter().map(|text| (net(text), within(Duration::ZERO))).collect();
    let plan = Plan { add, remove, ..Plan::default() };
    target.refresh(now()).await?;
    target.apply(&plans(group(1), plan), now()).await
}
