//! The two targets as tests use them, alike where they are alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postern_agent::target::TargetError;
use postern_agent::target::aws::{
    AwsAccess, Ec2, PrefixLists, PrefixListsConfig, SecurityGroup, SecurityGroupConfig,
};
use postern_agent::target::marked::Marked;
use postern_agent::target::nft::{Ports, Protocol};
use postern_shared::allowlist::Allowlist;
use postern_shared::network::{Family, Network};
use postern_shared::time::Expiry;

use crate::fake::{FakeEc2, List, Rule};
pub(crate) use crate::provider::{Clock, OWNER, group, wanted};
use crate::provider::{Either, deadline};
use crate::transport::{self, Hostility};

pub(crate) const GROUP: &str = "sg-0000000000000000a";
pub(crate) const V4_LIST: &str = "pl-0000000000000004a";
pub(crate) const V6_LIST: &str = "pl-0000000000000006a";
const HOUR: Duration = Duration::from_secs(3600);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    SecurityGroup,
    PrefixList,
}

impl Provider {
    pub(crate) const ALL: [Provider; 2] = [Provider::SecurityGroup, Provider::PrefixList];
}

/// Either target, behind one set of methods.
pub(crate) type Kept = Either<Marked<SecurityGroup>, Marked<PrefixLists>>;

/// Puts a group and two lists into the fake.
pub(crate) fn furnish(fake: &FakeEc2) {
    let mut state = fake.state();
    state.groups.insert(GROUP.to_owned(), Default::default());
    state.lists.insert(V4_LIST.to_owned(), List::new(Family::V4, 60));
    state.lists.insert(V6_LIST.to_owned(), List::new(Family::V6, 60));
}

/// Makes the target as a fresh process would.
pub(crate) fn start(kind: Provider, ec2: Ec2) -> Kept {
    match kind {
        Provider::SecurityGroup => Either::One(security_group(ec2)),
        Provider::PrefixList => Either::Other(prefix_lists(ec2)),
    }
}

pub(crate) fn security_group(ec2: Ec2) -> Marked<SecurityGroup> {
    security_group_of(ec2, 120)
}

/// The same, where AWS lets it have so many rules of each family.
pub(crate) fn security_group_of(ec2: Ec2, rules_max: usize) -> Marked<SecurityGroup> {
    let ports = vec![Ports { protocol: Protocol::Tcp, first: 22, last: 22 }];
    let config = SecurityGroupConfig { group: GROUP.to_owned(), ports, rules_max };
    let provider = SecurityGroup::new(ec2, config, OWNER);
    Marked::new("edge", OWNER, BTreeSet::from([group()]), provider)
}

pub(crate) fn prefix_lists(ec2: Ec2) -> Marked<PrefixLists> {
    let (v4, v6) = (Some(V4_LIST.to_owned()), Some(V6_LIST.to_owned()));
    let config = PrefixListsConfig { v4, v6, grow_to: None };
    let provider = PrefixLists::new(ec2, config, OWNER);
    Marked::new("edge", OWNER, BTreeSet::from([group()]), provider)
}

/// What is in force at the fake with our mark, and until when.
pub(crate) fn ours(kind: Provider, fake: &FakeEc2) -> BTreeMap<Network, Expiry> {
    entries(kind, fake)
        .into_iter()
        .filter_map(|(network, text)| Some((network, deadline(&text)?)))
        .collect()
}

/// What is in force at the fake that is not ours.
pub(crate) fn foreign(kind: Provider, fake: &FakeEc2) -> BTreeMap<Network, String> {
    let mut entries = entries(kind, fake);
    entries.retain(|_, text| deadline(text).is_none());
    entries
}

fn entries(kind: Provider, fake: &FakeEc2) -> BTreeMap<Network, String> {
    let state = fake.state();
    match kind {
        Provider::SecurityGroup => {
            let rules = state.groups[GROUP].rules.values();
            let shown = |rule: &Rule| match rule.tags.contains_key("postern:owner") {
                true => rule.description.clone(),
                false => format!("untagged {}", rule.description),
            };
            rules.map(|rule| (rule.network, shown(rule))).collect()
        }
        Provider::PrefixList => {
            let lists = state.lists.values().flat_map(|list| list.entries());
            lists.map(|(network, text)| (*network, text.clone())).collect()
        }
    }
}

/// Adds an entry as somebody else would.
pub(crate) fn meddle(kind: Provider, fake: &FakeEc2, network: Network, text: &str) {
    let mut state = fake.state();
    match kind {
        Provider::SecurityGroup => {
            let (protocol, ports) = ("tcp".to_owned(), (22, 22));
            let (description, tags) = (text.to_owned(), BTreeMap::new());
            state.put_rule(GROUP, Rule { protocol, ports, network, description, tags });
        }
        Provider::PrefixList => {
            let id = match network.family() {
                Family::V4 => V4_LIST,
                Family::V6 => V6_LIST,
            };
            let list = state.lists.get_mut(id).unwrap();
            list.edit(|entries| drop(entries.insert(network, text.to_owned())));
        }
    }
}

/// Takes an entry away as somebody else would.
pub(crate) fn take_away(kind: Provider, fake: &FakeEc2, network: Network) {
    let mut state = fake.state();
    match kind {
        Provider::SecurityGroup => {
            let rules = &state.groups[GROUP].rules;
            let found = rules.iter().find(|(_, rule)| rule.network == network);
            let id = found.map(|(id, _)| id.clone()).unwrap();
            state.drop_rule(GROUP, &id);
        }
        Provider::PrefixList => {
            for list in state.lists.values_mut() {
                if list.entries().contains_key(&network) {
                    list.edit(|entries| drop(entries.remove(&network)));
                }
            }
        }
    }
}

/// All that a target ever does: reads, counts lists that others refer to, adds, renews, takes away.
pub(crate) async fn everything(kind: Provider, fake: &FakeEc2) -> Result<(), TargetError> {
    furnish(fake);
    let referring = ("sgr-list".to_owned(), V4_LIST.to_owned());
    fake.state().groups.get_mut(GROUP).unwrap().lists.extend([referring]);
    fake.state().temper.rules_max = 120;
    let clock = Clock::start();
    let (ec2, _) = transport::client(fake, 1, Hostility::NONE, AwsAccess::CALLS_PER_MINUTE);
    let mut target = start(kind, ec2);

    target.pass(&wanted(clock, &["198.51.100.7/32", "2001:db8::/64"], HOUR), clock).await?;
    target.pass(&wanted(clock, &["198.51.100.7/32"], HOUR / 2), clock).await?;
    target.pass(&Allowlist::new(), clock).await?;
    Ok(())
}
