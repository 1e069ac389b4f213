//! The targets as tests use them, alike where they are alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postern_agent::target::cloudflare::{
    AccessRules, AccessRulesConfig, Cloudflare, IpList, ListConfig, Scope,
};
use postern_agent::target::marked::{Fitted, Mark, Marked};
use postern_agent::target::{Target, TargetError};
use postern_shared::allowlist::Allowlist;
use postern_shared::ids::GroupId;
use postern_shared::network::{Family, Network};
use postern_shared::plan::{self, Plan, plan};
use postern_shared::time::{Expiry, Timestamp};
use tokio::time::Instant;

use crate::fake::{FakeCloudflare, List, Rule};

pub(crate) const ACCOUNT: &str = "0000000000000000000000000000acc0";
pub(crate) const ZONE: &str = "0000000000000000000000000000203e";
pub(crate) const LIST: &str = "0000000000000000000000000000115a";
pub(crate) const OTHER_LIST: &str = "0000000000000000000000000000115b";
pub(crate) const OWNER: &str = "edge";

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    List,
    AccountRules,
    ZoneRules,
}

impl Provider {
    pub(crate) const ALL: [Provider; 3] =
        [Provider::List, Provider::AccountRules, Provider::ZoneRules];

    /// The id of the account or zone whose rules are kept.
    fn scope(self) -> &'static str {
        match self {
            Provider::List | Provider::AccountRules => ACCOUNT,
            Provider::ZoneRules => ZONE,
        }
    }
}

/// Any of the targets, behind one set of methods.
pub(crate) enum Kept {
    List(Fitted<Marked<IpList>>),
    Rules(Fitted<Marked<AccessRules>>),
}

/// The one group that targets keep.
pub(crate) fn group() -> GroupId {
    GroupId::from_random([7; 16])
}

/// Our time, which follows tokio's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000).unwrap().saturating_add(self.0.elapsed())
    }
}

/// Puts two lists into the fake; the second is somebody else's.
pub(crate) fn furnish(fake: &FakeCloudflare) {
    let mut state = fake.state();
    state.lists.insert(LIST.to_owned(), List::new());
    state.lists.insert(OTHER_LIST.to_owned(), List::new());
    state.put_item(OTHER_LIST, "203.0.113.200/32".parse().unwrap(), "postern edge never ours");
    let country = |scope: &str| Rule {
        scope: scope.to_owned(),
        target: "country".to_owned(),
        value: "XX".to_owned(),
        mode: "block".to_owned(),
        notes: "postern edge never ours".to_owned(),
    };
    [ACCOUNT, ZONE].into_iter().for_each(|scope| state.put_rule(country(scope)));
}

/// Makes the target as a fresh process would.
pub(crate) fn start(kind: Provider, cloudflare: Cloudflare) -> Kept {
    match kind {
        Provider::List => Kept::List(list(cloudflare)),
        Provider::AccountRules => Kept::Rules(account_rules(cloudflare)),
        Provider::ZoneRules => Kept::Rules(zone_rules(cloudflare)),
    }
}

pub(crate) fn list(cloudflare: Cloudflare) -> Fitted<Marked<IpList>> {
    let provider = IpList::new(cloudflare, list_config(), OWNER);
    let marked = Marked::new("edge", OWNER, BTreeSet::from([group()]), provider);
    Fitted::new(marked, IpList::shape(None))
}

pub(crate) fn account_rules(cloudflare: Cloudflare) -> Fitted<Marked<AccessRules>> {
    access_rules(cloudflare, Scope::Account(ACCOUNT.to_owned()))
}

pub(crate) fn zone_rules(cloudflare: Cloudflare) -> Fitted<Marked<AccessRules>> {
    access_rules(cloudflare, Scope::Zone(ZONE.to_owned()))
}

fn access_rules(cloudflare: Cloudflare, scope: Scope) -> Fitted<Marked<AccessRules>> {
    let config = AccessRulesConfig { scope, rules_max: AccessRulesConfig::RULES_MAX };
    let provider = AccessRules::new(cloudflare, config, OWNER);
    let marked = Marked::new("edge", OWNER, BTreeSet::from([group()]), provider);
    Fitted::new(marked, AccessRules::shape(None))
}

pub(crate) fn list_config() -> ListConfig {
    ListConfig {
        account: ACCOUNT.to_owned(),
        list: LIST.to_owned(),
        items_max: ListConfig::ITEMS_MAX,
    }
}

impl Kept {
    /// One pass, as the agent makes it; answers how many entries it changed.
    pub(crate) async fn pass(
        &mut self,
        wanted: &Allowlist,
        clock: Clock,
    ) -> Result<usize, TargetError> {
        match self {
            Kept::List(target) => pass(target, wanted, clock).await,
            Kept::Rules(target) => pass(target, wanted, clock).await,
        }
    }

    /// What the agent does while a group has no list: nothing is planned, and yet applied.
    pub(crate) async fn sweep(&mut self, clock: Clock) -> Result<(), TargetError> {
        match self {
            Kept::List(target) => sweep(target, clock).await,
            Kept::Rules(target) => sweep(target, clock).await,
        }
    }

    pub(crate) async fn disturbed(&mut self) {
        match self {
            Kept::List(target) => target.disturbed().await,
            Kept::Rules(target) => target.disturbed().await,
        }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), TargetError> {
        match self {
            Kept::List(target) => target.flush().await,
            Kept::Rules(target) => target.flush().await,
        }
    }
}

pub(crate) async fn pass<T: Target>(
    target: &mut T,
    wanted: &Allowlist,
    clock: Clock,
) -> Result<usize, TargetError> {
    target.refresh(clock.now()).await?;
    let observed = &target.observed()[&group()];
    let plan = plan(wanted, observed, plan::Scope::All, Duration::from_millis(500), clock.now());
    let steps = plan.len();
    if steps != 0 || !target.is_settled() {
        let plans: BTreeMap<GroupId, Plan> = BTreeMap::from([(group(), plan)]);
        target.apply(&plans, clock.now()).await?;
    }
    Ok(steps)
}

async fn sweep<T: Target>(target: &mut T, clock: Clock) -> Result<(), TargetError> {
    target.refresh(clock.now()).await?;
    target.apply(&BTreeMap::new(), clock.now()).await
}

/// What is in force at the fake with our mark, and until when.
pub(crate) fn ours(kind: Provider, fake: &FakeCloudflare) -> BTreeMap<Network, Expiry> {
    entries(kind, fake)
        .into_iter()
        .filter_map(|(network, text)| Some((network, deadline(&text)?)))
        .collect()
}

/// What is in force at the fake that is not ours.
pub(crate) fn foreign(kind: Provider, fake: &FakeCloudflare) -> BTreeMap<Network, String> {
    let mut entries = entries(kind, fake);
    entries.retain(|_, text| deadline(text).is_none());
    let others = fake.state().lists[OTHER_LIST].items.clone();
    entries.extend(others.into_iter().map(|(network, item)| (network, item.comment)));
    // As if these were networks, so that they are compared as well.
    let countries = fake.state().rules.now.values().filter(|rule| rule.target == "country").count();
    entries.insert("192.0.2.0/24".parse().unwrap(), format!("{countries} countries"));
    entries
}

fn entries(kind: Provider, fake: &FakeCloudflare) -> BTreeMap<Network, String> {
    let state = fake.state();
    match kind {
        Provider::List => {
            let items = state.lists.get(LIST).map(|list| list.items.clone()).unwrap_or_default();
            items.into_iter().map(|(network, item)| (network, item.comment)).collect()
        }
        Provider::AccountRules | Provider::ZoneRules => {
            let rules = state.rules.now.values().filter(|rule| rule.scope == kind.scope());
            let open = rules.filter_map(|rule| Some((rule.network()?, rule)));
            let shown = |rule: &Rule| match rule.mode.as_str() {
                "whitelist" => rule.notes.clone(),
                mode => format!("{mode} {}", rule.notes),
            };
            open.map(|(network, rule)| (network, shown(rule))).collect()
        }
    }
}

fn deadline(text: &str) -> Option<Expiry> {
    Mark::read(text, OWNER, &BTreeSet::from([group()]))?.0.get(&group()).copied()
}

/// Adds an entry as somebody else would.
pub(crate) fn meddle(kind: Provider, fake: &FakeCloudflare, network: Network, text: &str) {
    match kind {
        Provider::List => fake.state().put_item(LIST, network, text),
        Provider::AccountRules | Provider::ZoneRules => {
            fake.state().put_rule(rule(kind, network, "whitelist", text));
        }
    }
}

/// A rule about a network.
pub(crate) fn rule(kind: Provider, network: Network, mode: &str, notes: &str) -> Rule {
    let (target, value) = match (network.is_host(), network.family()) {
        (true, Family::V4) => ("ip", network.address().to_string()),
        (true, Family::V6) => ("ip6", network.address().to_string()),
        (false, _) => ("ip_range", network.to_string()),
    };
    Rule {
        scope: kind.scope().to_owned(),
        target: target.to_owned(),
        value,
        mode: mode.to_owned(),
        notes: notes.to_owned(),
    }
}

/// Takes an entry away as somebody else would.
pub(crate) fn take_away(kind: Provider, fake: &FakeCloudflare, network: Network) {
    match kind {
        Provider::List => fake.state().drop_item(LIST, network),
        Provider::AccountRules | Provider::ZoneRules => {
            fake.state().drop_rule(kind.scope(), network);
        }
    }
}

pub(crate) fn wanted(clock: Clock, networks: &[&str], ttl: Duration) -> Allowlist {
    let expiry = Expiry::At(clock.now().saturating_add(ttl));
    networks.iter().map(|network| (network.parse().unwrap(), expiry)).collect()
}
