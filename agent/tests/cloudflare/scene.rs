//! The targets as tests use them, alike where they are alike.

use std::collections::{BTreeMap, BTreeSet};

use postern_agent::target::cloudflare::{
    AccessRules, AccessRulesConfig, Cloudflare, IpList, ListConfig, Scope,
};
use postern_agent::target::marked::{Fitted, Marked};
use postern_shared::network::{Family, Network};
use postern_shared::time::Expiry;

use crate::fake::{FakeCloudflare, List, Rule};
pub(crate) use crate::provider::{Clock, OWNER, group, pass, wanted};
use crate::provider::{Either, deadline};

pub(crate) const ACCOUNT: &str = "0000000000000000000000000000acc0";
pub(crate) const ZONE: &str = "0000000000000000000000000000203e";
pub(crate) const LIST: &str = "0000000000000000000000000000115a";
pub(crate) const OTHER_LIST: &str = "0000000000000000000000000000115b";

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

/// Either target, behind one set of methods.
pub(crate) type Kept = Either<Fitted<Marked<IpList>>, Fitted<Marked<AccessRules>>>;

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
        Provider::List => Either::One(list(cloudflare)),
        Provider::AccountRules => Either::Other(account_rules(cloudflare)),
        Provider::ZoneRules => Either::Other(zone_rules(cloudflare)),
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
