//! What every target promises, asked of a witness that is not the target.
#![expect(unreachable_pub, reason = "a module of test binaries")]

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::{Refresh, Target, TargetError};
use postern_shared::allowlist::Allowlist;
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::{Plan, Scope, plan};
use postern_shared::time::{Expiry, Timestamp};

/// One kind of target, for the contract to try.
pub trait Subject {
    type Target: Target;

    /// The one group that the target keeps.
    fn group(&self) -> GroupId;

    /// Makes the target as a fresh process would.
    fn start(&self) -> Self::Target;

    /// The networks that are in force, and the time that each has left, by an outside witness.
    fn in_force(&self) -> BTreeMap<Network, Duration>;

    /// Adds an entry as somebody else would, where the target lets others in.
    fn meddle(&self) -> bool;

    fn now(&self) -> Timestamp;

    /// Whether a later deadline is written only in time, not at once.
    fn renews_late(&self) -> bool {
        false
    }

    /// A network of IPv6 that the target holds as it is.
    fn v6(&self) -> &'static str {
        "2001:db8:1::7/128"
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// Witnesses round to seconds, and tests take their time.
const SLACK: Duration = Duration::from_secs(10);

/// Holds a target to all of it. The firewall must be as nobody has touched it.
pub async fn holds<S: Subject>(subject: &S) {
    reading_comes_first_and_writes_nothing(subject).await;
    what_is_applied_is_in_force(subject).await;
    a_second_pass_has_nothing_to_do(subject).await;
    a_fresh_start_keeps_what_is_wanted(subject).await;
    withdrawals_and_renewals_take_effect(subject).await;
    what_others_changed_is_put_right(subject).await;
    flush_empties_and_a_pass_fills(subject).await;
}

async fn reading_comes_first_and_writes_nothing<S: Subject>(subject: &S) {
    let mut target = subject.start();
    let some = subject_plans(subject, adding(subject, &["10.1.2.3/32"]));

    let preview = target.preview(&some);
    let early = target.apply(&some, subject.now()).await;
    let first = target.refresh(subject.now()).await.unwrap();

    assert!(preview.contains("10.1.2.3"), "{preview}");
    assert!(matches!(early, Err(TargetError::Changed)), "{early:?}");
    assert_eq!(first, Refresh::Reread { drift: 0 });
    assert_eq!(target.observed().keys().collect::<Vec<_>>(), [&subject.group()]);
    assert!(!target.is_settled());
    assert!(subject.in_force().is_empty());
}

async fn what_is_applied_is_in_force<S: Subject>(subject: &S) {
    let mut target = subject.start();
    let mut wanted = list(subject, &["10.1.2.3/32", "10.1.2.5/32", subject.v6()]);
    wanted.set("10.1.2.9/32".parse().unwrap(), Expiry::At(subject.now()));

    pass(subject, &mut target, &wanted).await;

    assert_in_force(subject, &wanted);
    assert!(target.is_settled());
    let observed = &target.observed()[&subject.group()];
    assert_eq!(observed.len(), 3, "what has no time left is left out");
}

async fn a_second_pass_has_nothing_to_do<S: Subject>(subject: &S) {
    let mut target = subject.start();
    let wanted = list(subject, &["10.1.2.3/32", "10.1.2.5/32", subject.v6()]);
    pass(subject, &mut target, &wanted).await;

    let again = target.refresh(subject.now()).await.unwrap();
    let plan = plan_for(subject, &target, &wanted);

    assert_eq!(again, Refresh::Unchanged);
    assert!(plan.is_empty() && target.is_settled(), "{plan:?}");
}

async fn a_fresh_start_keeps_what_is_wanted<S: Subject>(subject: &S) {
    let before = subject.in_force();

    let mut target = subject.start();
    target.refresh(subject.now()).await.unwrap();

    assert_eq!(subject.in_force().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    let wanted = list(subject, &["10.1.2.3/32", subject.v6()]);
    pass(subject, &mut target, &wanted).await;
    assert_in_force(subject, &wanted);
}

async fn withdrawals_and_renewals_take_effect<S: Subject>(subject: &S) {
    let mut target = subject.start();
    pass(subject, &mut target, &list(subject, &["10.1.2.3/32", "10.1.2.7/32"])).await;
    let mut wanted = list(subject, &["10.1.2.6/32"]);
    let later = subject.now().saturating_add(3 * HOUR);
    wanted.set("10.1.2.3/32".parse().unwrap(), Expiry::At(later));

    pass(subject, &mut target, &wanted).await;
    assert_in_force(subject, &wanted);

    let sooner = list(subject, &["10.1.2.3/32"]);
    pass(subject, &mut target, &sooner).await;
    assert_in_force(subject, &sooner);
}

async fn what_others_changed_is_put_right<S: Subject>(subject: &S) {
    let mut target = subject.start();
    let wanted = list(subject, &["10.1.2.3/32"]);
    pass(subject, &mut target, &wanted).await;

    if subject.meddle() {
        tokio::time::timeout(SLACK, target.disturbed()).await.unwrap();
    }
    pass(subject, &mut target, &wanted).await;

    assert_in_force(subject, &wanted);
}

async fn flush_empties_and_a_pass_fills<S: Subject>(subject: &S) {
    let mut target = subject.start();
    let wanted = list(subject, &["10.1.2.3/32", "10.1.2.7/32"]);
    pass(subject, &mut target, &wanted).await;

    target.flush().await.unwrap();
    assert!(subject.in_force().is_empty());

    pass(subject, &mut target, &wanted).await;
    assert_in_force(subject, &wanted);
}

/// One pass, as the agent makes it.
async fn pass<S: Subject>(subject: &S, target: &mut S::Target, wanted: &Allowlist) {
    target.refresh(subject.now()).await.unwrap();
    let plan = plan_for(subject, target, wanted);
    if !plan.is_empty() || !target.is_settled() {
        target.apply(&subject_plans(subject, plan), subject.now()).await.unwrap();
    }
}

fn plan_for<S: Subject>(subject: &S, target: &S::Target, wanted: &Allowlist) -> Plan {
    let observed = &target.observed()[&subject.group()];
    plan(wanted, observed, Scope::All, Duration::from_secs(2), subject.now())
}

fn assert_in_force<S: Subject>(subject: &S, wanted: &Allowlist) {
    let now = subject.now();
    let in_force = subject.in_force();
    let live: BTreeMap<Network, Expiry> = wanted.live_at(now).collect();
    assert_eq!(in_force.keys().collect::<Vec<_>>(), live.keys().collect::<Vec<_>>());
    for (network, left) in in_force {
        let should = live[&network].left_at(now).unwrap();
        let is_early = subject.renews_late() && left < should;
        assert!(is_early || left.abs_diff(should) < SLACK, "{network}: {left:?}, not {should:?}");
    }
}

fn list<S: Subject>(subject: &S, networks: &[&str]) -> Allowlist {
    let expiry = Expiry::At(subject.now().saturating_add(HOUR));
    networks.iter().map(|text| (text.parse().unwrap(), expiry)).collect()
}

fn adding<S: Subject>(subject: &S, networks: &[&str]) -> Plan {
    Plan { add: list(subject, networks).iter().collect(), ..Plan::default() }
}

fn subject_plans<S: Subject>(subject: &S, plan: Plan) -> BTreeMap<GroupId, Plan> {
    BTreeMap::from([(subject.group(), plan)])
}
