//! Changes that break at each of their steps in turn, with packets as the witness.
//!
//! Fail-points belong to the whole process: every test runs in one of its own (`make test`).

use std::net::Ipv4Addr;
use std::ops::Range;

use fail::FailScenario;
use postern_agent::target::nft::{GateTarget, NftOptions, Ownership};
use postern_agent::target::{Refresh, Target, TargetError};
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;
use postern_shared::plan::{Scope, plan};

use crate::gate::config;
use crate::netns::{Lab, Prober, group, kernel_entries, now, plans, secs, within};

const PORT: u16 = 443;
/// More steps than any change here has.
const STEPS_MAX: usize = 40;

const BEFORE: Range<u32> = 0..6_000;
const AFTER: Range<u32> = 3_000..9_000;
const BEFORE_ONLY: &str = "10.0.0.7";
const ALWAYS: &str = "10.0.15.7";
const AFTER_ONLY: &str = "10.0.30.7";
const NEVER: &str = "10.0.40.7";

fn list(hosts: Range<u32>) -> Allowlist {
    let host = |number| Network::host(Ipv4Addr::from(0x0a00_0000 + number).into());
    hosts.map(|number| (host(number), within(secs(3600)))).collect()
}

async fn change(gate: &mut GateTarget, wanted: &Allowlist) -> Result<(), TargetError> {
    let now = now();
    let plan = plan(wanted, &gate.observed()[&group(1)], Scope::All, secs(2), now);
    gate.apply(&plans(group(1), plan), now).await
}

/// Breaks a change of most of a list at its first step, its second, and so on until it has no
/// further one; answers how many it had.
async fn break_each(place: &str, options: NftOptions) -> usize {
    let scenario = FailScenario::setup();
    let lab = Lab::new();
    let (before, after) = (list(BEFORE), list(AFTER));
    for step in 0..STEPS_MAX {
        let mut gate = GateTarget::new("gate", config(Ownership::Auto), options).unwrap();
        gate.refresh(now()).await.unwrap();
        change(&mut gate, &before).await.unwrap();
        let prober = Prober::start(&lab, ALWAYS, PORT);

        fail::cfg(place, &format!("{step}*off->1*return")).unwrap();
        let broken = change(&mut gate, &after).await;
        fail::remove(place);

        nothing_was_lost(prober, step);
        let opened = [BEFORE_ONLY, AFTER_ONLY].map(|source| lab.reaches(source, PORT));
        assert!(opened == [true, false] || opened == [false, true], "step {step}: {opened:?}");
        assert!(!lab.reaches(NEVER, PORT), "step {step}");
        if broken.is_err() {
            let blind = change(&mut gate, &after).await.unwrap_err();
            assert!(matches!(blind, TargetError::Changed), "nothing without a look: {blind}");
            assert!(matches!(gate.refresh(now()).await.unwrap(), Refresh::Reread { .. }));
            let prober = Prober::start(&lab, ALWAYS, PORT);
            change(&mut gate, &after).await.unwrap();
            nothing_was_lost(prober, step);
        }
        assert!(!lab.reaches(BEFORE_ONLY, PORT) && lab.reaches(AFTER_ONLY, PORT), "step {step}");
        assert_eq!(kernel_entries(group(1)).len(), after.len(), "nothing else is left");
        gate.purge().await.unwrap();
        if broken.is_ok() {
            scenario.teardown();
            return step;
        }
    }
    panic!("the change still breaks after {STEPS_MAX} steps");
}

fn nothing_was_lost(prober: Prober, step: usize) {
    let (sent, lost) = prober.stop();
    assert_eq!(lost, 0, "of {sent} at step {step}");
}

#[tokio::test]
async fn a_change_that_is_not_sent_leaves_the_old_list() {
    let steps = break_each("nft::before_send", NftOptions::default()).await;

    assert_eq!(steps, 1, "one transaction");
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_found_to_be_in_force() {
    let steps = break_each("nft::after_send", NftOptions::default()).await;

    assert_eq!(steps, 1, "one transaction");
}

#[tokio::test]
async fn a_change_in_many_steps_breaks_at_none_of_them_into_half_a_list() {
    let options = NftOptions { send_bytes: Some(32 * 1024), ..NftOptions::default() };

    let steps = break_each("nft::before_send", options).await;

    assert!(3 <= steps, "{steps}: the send buffer was to be too small for one transaction");
}

#[tokio::test]
async fn a_change_in_many_steps_survives_the_loss_of_any_answer() {
    let options = NftOptions { send_bytes: Some(32 * 1024), ..NftOptions::default() };

    let steps = break_each("nft::after_send", options).await;

    assert!(3 <= steps, "{steps}: the send buffer was to be too small for one transaction");
}
