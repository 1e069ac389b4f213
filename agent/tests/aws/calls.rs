//! What changes cost in calls, beside what they cost who replaces the whole list each time.

use std::time::Duration;

use postern_agent::target::aws::AwsAccess;
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;

use crate::alike::costs;
use crate::fake::{FakeEc2, Temper};
use crate::scene::{self, Clock, GROUP, Provider, V4_LIST};
use crate::transport::{self, Hostility};

/// The rows of README's table: 1 address in, 1 out, 100 at once, an hour in which nothing happens.
#[tokio::test(start_paused = true)]
async fn calls_are_as_few_as_the_readme_says() {
    let ours_for_rules = ours(Provider::SecurityGroup).await;
    let ours_for_lists = ours(Provider::PrefixList).await;

    assert_eq!(ours_for_rules, [1, 1, 1, 60], "a security group");
    assert_eq!(ours_for_lists, [3, 3, 3, 60], "a prefix list");
    assert_eq!(replaced(Provider::SecurityGroup).await, [3, 3, 4, 300], "replaced");
    assert_eq!(replaced(Provider::PrefixList).await, [8, 8, 11, 840], "replaced");
}

async fn ours(kind: Provider) -> [usize; 4] {
    let (fake, clock) = (fake(), Clock::start());
    let (ec2, _) = transport::client(&fake, 1, Hostility::NONE, AwsAccess::CALLS_PER_MINUTE);
    let mut target = scene::start(kind, ec2);
    let make = async |wanted: &Allowlist| {
        target.pass(wanted, clock).await.unwrap();
    };
    costs(clock, || count(&fake), make).await
}

/// The same for a program that knows no difference: it reads, takes all away, and puts all there.
/// Every minute, since it cannot know whether that is still needed.
async fn replaced(kind: Provider) -> [usize; 4] {
    let fake = fake();
    costs(Clock::start(), || count(&fake), async |wanted| replace(kind, &fake, wanted).await).await
}

async fn replace(kind: Provider, fake: &FakeEc2, wanted: &Allowlist) {
    let networks: Vec<Network> = wanted.iter().map(|(network, _)| network).collect();
    match kind {
        Provider::SecurityGroup => {
            let filter = [("Filter.1.Name", "group-id"), ("Filter.1.Value.1", GROUP)];
            ask(fake, "DescribeSecurityGroupRules", &filter);
            let ids: Vec<String> = fake.state().groups[GROUP].rules.keys().cloned().collect();
            for ids in ids.chunks(100) {
                let named = numbered("SecurityGroupRuleId", ids.iter().cloned());
                ask_all(fake, "RevokeSecurityGroupIngress", &[("GroupId", GROUP)], named);
            }
            for networks in networks.chunks(100) {
                let permission = [
                    ("GroupId", GROUP),
                    ("IpPermissions.1.IpProtocol", "tcp"),
                    ("IpPermissions.1.FromPort", "22"),
                    ("IpPermissions.1.ToPort", "22"),
                ];
                let ranges = networks.iter().enumerate().map(|(at, network)| {
                    (format!("IpPermissions.1.IpRanges.{}.CidrIp", at + 1), network.to_string())
                });
                ask_all(fake, "AuthorizeSecurityGroupIngress", &permission, ranges.collect());
            }
        }
        Provider::PrefixList => {
            ask(fake, "DescribeManagedPrefixLists", &[("PrefixListId.1", V4_LIST)]);
            ask(fake, "GetManagedPrefixListEntries", &[("PrefixListId", V4_LIST)]);
            let there: Vec<Network> =
                fake.state().lists[V4_LIST].entries().keys().copied().collect();
            // No call takes the same address away and puts it there.
            for (name, networks) in [("RemoveEntry", there), ("AddEntry", networks)] {
                for networks in networks.chunks(100) {
                    modify(fake, name, networks).await;
                }
            }
        }
    }
}

async fn modify(fake: &FakeEc2, name: &str, networks: &[Network]) {
    let version = fake.state().lists[V4_LIST].versions.len().to_string();
    let list = [("PrefixListId", V4_LIST), ("CurrentVersion", &version)];
    let entries = networks.iter().enumerate();
    let entries = entries.map(|(at, net)| (format!("{name}.{}.Cidr", at + 1), net.to_string()));
    ask_all(fake, "ModifyManagedPrefixList", &list, entries.collect());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let told = ask(fake, "DescribeManagedPrefixLists", &[("PrefixListId.1", V4_LIST)]);
        if told.contains("modify-complete") {
            return;
        }
    }
}

fn ask(fake: &FakeEc2, action: &str, parameters: &[(&str, &str)]) -> String {
    ask_all(fake, action, parameters, Vec::new())
}

fn ask_all(
    fake: &FakeEc2,
    action: &str,
    parameters: &[(&str, &str)],
    more: Vec<(String, String)>,
) -> String {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.append_pair("Action", action).extend_pairs(parameters).extend_pairs(more);
    let (status, answer) = fake.answer(body.finish().as_bytes());
    assert_eq!(status, 200, "{answer}");
    answer
}

fn numbered(name: &str, values: impl Iterator<Item = String>) -> Vec<(String, String)> {
    values.enumerate().map(|(at, value)| (format!("{name}.{}", at + 1), value)).collect()
}

fn fake() -> FakeEc2 {
    let fake = FakeEc2::new(1, Temper { rules_max: 120, ..Temper::default() });
    scene::furnish(&fake);
    fake.state().lists.get_mut(V4_LIST).unwrap().entries_max = 120;
    fake
}

fn count(fake: &FakeEc2) -> usize {
    fake.take_calls().values().sum()
}
