//! The ingress rules of one security group, as EC2 tells and takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::builders::IpPermissionBuilder;
use aws_sdk_ec2::types::{
    Filter, IpPermission, IpRange, Ipv6Range, ResourceType, SecurityGroupRule,
    SecurityGroupRuleDescription, Tag, TagSpecification,
};
use postern_shared::network::{Family, Network};

use super::action::Action;
use super::client::Ec2;
use super::error::AwsError;
use crate::target::marked::mirror::{self, Mirror};

/// The tag of our rules; its value is the agent's name. What has it not is not ours, whatever its
/// description says.
pub const OWNER_TAG: &str = "postern:owner";
/// Most rules in a call.
const BATCH_MAX: usize = 100;
const PAGE_MAX: i32 = 1000;
/// More than any quota allows: pages beyond these never end.
const PAGES_MAX: usize = 20;
/// Before each new look at what a batch was refused for.
const CATCH_UP_WAITS: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(6)];

/// What a rule lets in: two rules of a group never have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Opening {
    /// `tcp` or `udp`, as EC2 spells it.
    pub(super) protocol: &'static str,
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) network: Network,
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opening { protocol, first, last, network } = self;
        match first == last {
            true => write!(f, "{network} {first}/{protocol}"),
            false => write!(f, "{network} {first}-{last}/{protocol}"),
        }
    }
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) id: String,
    /// What it lets in, where that is something we would write.
    pub(super) opening: Option<Opening>,
    pub(super) source: Source,
    pub(super) description: String,
    /// The value of our tag.
    pub(super) owner: Option<String>,
}

/// From where a rule lets in, as far as the quota counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    V4,
    V6,
    /// Counts as many rules as the list may hold, in the list's family.
    List(String),
    /// Another group: counts in both families.
    Other,
}

/// Reads all ingress rules, by their ids: a page that comes twice, or in another order, changes
/// nothing.
pub(super) async fn read(ec2: &mut Ec2, group: &str) -> Result<BTreeMap<String, Rule>, AwsError> {
    let action = Action::DescribeSecurityGroupRules;
    let mut rules = BTreeMap::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        let filter = Filter::builder().name("group-id").values(group).build();
        let call = |client: Client| {
            client
                .describe_security_group_rules()
                .filters(filter)
                .max_results(PAGE_MAX)
                .set_next_token(token.take())
                .send()
        };
        let page = ec2.call(action, call).await?;
        let ingress =
            page.security_group_rules().iter().filter(|rule| rule.is_egress() == Some(false));
        rules.extend(
            ingress
                .filter_map(|rule| Some((rule.security_group_rule_id()?.to_owned(), shown(rule)))),
        );
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(rules);
        }
    }
    Err(AwsError::Unclear { action, message: format!("more than {PAGES_MAX} pages of rules") })
}

/// One change of ours that EC2 has confirmed.
#[derive(Debug, Clone)]
pub(super) enum Written {
    Added(Rule),
    Described { id: String, description: String },
    Gone { id: String },
}

/// Changes to a group of one kind. EC2 takes each as a whole or refuses it as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Adds rules, with their descriptions and our tag.
    Authorize(Vec<(Opening, String)>),
    /// Takes rules away, by their ids.
    Revoke(Vec<String>),
    /// Gives rules, by their ids, another description.
    Describe(Vec<(String, String)>),
}

/// Carries a change out, in batches.
///
/// A rule that is to be added and is there already, as ours or anybody's, is left as it is; one that
/// is to change and is gone stays gone. EC2 refuses a batch for one such rule, and does not say for
/// which; what is there then says it, as soon as reads have caught up with our last writes.
pub(super) async fn carry_out(
    ec2: &mut Ec2,
    group: &str,
    owner: &str,
    change: Change,
    mirror: &mut Mirror<Written>,
) -> Result<(), AwsError> {
    let mut batches = change.batches();
    while let Some(mut batch) = batches.pop() {
        let mut waits = CATCH_UP_WAITS.iter();
        loop {
            match batch.send(ec2, group, owner).await {
                Ok(written) => {
                    written.into_iter().for_each(|written| mirror.note(written));
                    break;
                }
                Err(AwsError::Duplicate { .. } | AwsError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            let Some(wait) = waits.next() else {
                batches.extend(batch.halves());
                break;
            };
            tokio::time::sleep(*wait).await;
            mirror.take(read(ec2, group).await?);
            batch.keep_undone(mirror.entries());
            if batch.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

impl Change {
    fn is_empty(&self) -> bool {
        match self {
            Change::Authorize(rules) => rules.is_empty(),
            Change::Revoke(ids) => ids.is_empty(),
            Change::Describe(rules) => rules.is_empty(),
        }
    }

    /// The last batch first.
    fn batches(self) -> Vec<Change> {
        fn split<T: Clone>(items: &[T], make: impl Fn(Vec<T>) -> Change) -> Vec<Change> {
            items.chunks(BATCH_MAX).rev().map(|batch| make(batch.to_vec())).collect()
        }
        match self {
            Change::Authorize(rules) => split(&rules, Change::Authorize),
            Change::Revoke(ids) => split(&ids, Change::Revoke),
            Change::Describe(rules) => split(&rules, Change::Describe),
        }
    }

    /// Nothing of a rule that is alone and was refused.
    fn halves(self) -> Vec<Change> {
        fn split<T>(mut items: Vec<T>, make: impl Fn(Vec<T>) -> Change) -> Vec<Change> {
            if items.len() < 2 {
                return Vec::new();
            }
            let second = items.split_off(items.len() / 2);
            vec![make(second), make(items)]
        }
        match self {
            Change::Authorize(rules) => split(rules, Change::Authorize),
            Change::Revoke(ids) => split(ids, Change::Revoke),
            Change::Describe(rules) => split(rules, Change::Describe),
        }
    }

    fn keep_undone(&mut self, rules: &BTreeMap<String, Rule>) {
        match self {
            Change::Authorize(wanted) => {
                let there: BTreeSet<&Opening> =
                    rules.values().filter_map(|rule| rule.opening.as_ref()).collect();
                wanted.retain(|(opening, _)| !there.contains(opening));
            }
            Change::Revoke(ids) => ids.retain(|id| rules.contains_key(id)),
            Change::Describe(wanted) => wanted.retain(|(id, _)| rules.contains_key(id)),
        }
    }

    /// Makes the one call; answers what it has done.
    async fn send(
        &self,
        ec2: &mut Ec2,
        group: &str,
        owner: &str,
    ) -> Result<Vec<Written>, AwsError> {
        match self {
            Change::Authorize(rules) => authorize(ec2, group, owner, rules).await,
            Change::Revoke(ids) => revoke(ec2, group, ids).await,
            Change::Describe(rules) => describe(ec2, group, rules).await,
        }
    }
}

impl mirror::Written for Written {
    type Key = String;
    type Entry = Rule;

    fn write_into(&self, rules: &mut BTreeMap<String, Rule>) {
        match self {
            Written::Added(rule) => drop(rules.insert(rule.id.clone(), rule.clone())),
            Written::Described { id, description } => {
                if let Some(rule) = rules.get_mut(id) {
                    rule.description.clone_from(description);
                }
            }
            Written::Gone { id } => drop(rules.remove(id)),
        }
    }
}

async fn authorize(
    ec2: &mut Ec2,
    group: &str,
    owner: &str,
    rules: &[(Opening, String)],
) -> Result<Vec<Written>, AwsError> {
    let tag = Tag::builder().key(OWNER_TAG).value(owner).build();
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::SecurityGroupRule)
        .tags(tag)
        .build();
    let call = |client: Client| {
        client
            .authorize_security_group_ingress()
            .group_id(group)
            .set_ip_permissions(Some(permissions(rules)))
            .tag_specifications(tags)
            .send()
    };
    let answer = ec2.call(Action::AuthorizeSecurityGroupIngress, call).await?;
    let added = answer.security_group_rules().iter().map(shown);
    // Whatever of it the answer shows; we know what we asked for.
    let ours = |rule: Rule| Written::Added(Rule { owner: Some(owner.to_owned()), ..rule });
    Ok(added.map(ours).collect())
}

async fn revoke(ec2: &mut Ec2, group: &str, ids: &[String]) -> Result<Vec<Written>, AwsError> {
    let call = |client: Client| {
        client
            .revoke_security_group_ingress()
            .group_id(group)
            .set_security_group_rule_ids(Some(ids.to_vec()))
            .send()
    };
    ec2.call(Action::RevokeSecurityGroupIngress, call).await?;
    Ok(ids.iter().map(|id| Written::Gone { id: id.clone() }).collect())
}

async fn describe(
    ec2: &mut Ec2,
    group: &str,
    rules: &[(String, String)],
) -> Result<Vec<Written>, AwsError> {
    let described = rules.iter().map(|(id, description)| {
        SecurityGroupRuleDescription::builder()
            .security_group_rule_id(id)
            .description(description)
            .build()
    });
    let call = |client: Client| {
        client
            .update_security_group_rule_descriptions_ingress()
            .group_id(group)
            .set_security_group_rule_descriptions(Some(described.collect()))
            .send()
    };
    ec2.call(Action::UpdateSecurityGroupRuleDescriptionsIngress, call).await?;
    let written = |(id, description): &(String, String)| Written::Described {
        id: id.clone(),
        description: description.clone(),
    };
    Ok(rules.iter().map(written).collect())
}

/// One permission for each protocol and ports.
fn permissions(rules: &[(Opening, String)]) -> Vec<IpPermission> {
    let mut by_ports: BTreeMap<(&str, u16, u16), IpPermissionBuilder> = BTreeMap::new();
    for (Opening { protocol, first, last, network }, description) in rules {
        let permission = by_ports.remove(&(*protocol, *first, *last)).unwrap_or_else(|| {
            IpPermission::builder()
                .ip_protocol(*protocol)
                .from_port((*first).into())
                .to_port((*last).into())
        });
        let cidr = network.to_string();
        let permission = match network.family() {
            Family::V4 => permission
                .ip_ranges(IpRange::builder().cidr_ip(cidr).description(description).build()),
            Family::V6 => permission
                .ipv6_ranges(Ipv6Range::builder().cidr_ipv6(cidr).description(description).build()),
        };
        by_ports.insert((*protocol, *first, *last), permission);
    }
    by_ports.into_values().map(IpPermissionBuilder::build).collect()
}

fn shown(rule: &SecurityGroupRule) -> Rule {
    let cidr = rule.cidr_ipv4().or(rule.cidr_ipv6());
    let source = match (rule.cidr_ipv4(), rule.cidr_ipv6(), rule.prefix_list_id()) {
        (Some(_), _, _) => Source::V4,
        (None, Some(_), _) => Source::V6,
        (None, None, Some(list)) => Source::List(list.to_owned()),
        (None, None, None) => Source::Other,
    };
    let tag = rule.tags().iter().find(|tag| tag.key() == Some(OWNER_TAG));
    Rule {
        id: rule.security_group_rule_id().unwrap_or_default().to_owned(),
        opening: cidr.and_then(|cidr| opening(rule, cidr)),
        source,
        description: rule.description().unwrap_or_default().to_owned(),
        owner: tag.and_then(Tag::value).map(str::to_owned),
    }
}

fn opening(rule: &SecurityGroupRule, cidr: &str) -> Option<Opening> {
    let protocol = ["tcp", "udp"].into_iter().find(|known| rule.ip_protocol() == Some(known))?;
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
    let (first, last) = (port(rule.from_port())?, port(rule.to_port())?);
    Some(Opening { protocol, first, last, network: cidr.parse().ok()? })
}
