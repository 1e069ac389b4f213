//! Security groups and their rules.

use std::collections::BTreeMap;

use postern_shared::network::{Family, Network};
use tokio::time::Instant;

use super::request::Request;
use super::{Refusal, State, check_description, escaped, refused};

/// A rule of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) protocol: String,
    pub(crate) ports: (u16, u16),
    pub(crate) network: Network,
    pub(crate) description: String,
    pub(crate) tags: BTreeMap<String, String>,
}

/// A group: its rules by their ids, and what they were.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) rules: BTreeMap<String, Rule>,
    /// Prefix lists that rules of others refer to, by the ids of these rules.
    pub(crate) lists: BTreeMap<String, String>,
    past: Vec<(Instant, BTreeMap<String, Rule>)>,
}

impl Group {
    /// Remembers what was, for readers that are behind.
    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, Rule>)) {
        self.past.push((Instant::now(), self.rules.clone()));
        change(&mut self.rules);
    }

    fn at(&self, instant: Instant) -> &BTreeMap<String, Rule> {
        let later = self.past.iter().find(|(changed, _)| instant < *changed);
        later.map_or(&self.rules, |(_, before)| before)
    }

    fn count(&self, family: Family) -> usize {
        self.rules.values().filter(|rule| rule.network.family() == family).count()
    }
}

impl State {
    /// Adds a rule past the API, as another admin does in the console.
    pub(crate) fn put_rule(&mut self, group: &str, rule: Rule) -> String {
        let id = self.id("sgr");
        let added = id.clone();
        self.groups
            .entry(group.to_owned())
            .or_default()
            .change(|rules| drop(rules.insert(added, rule)));
        id
    }

    /// Takes a rule away past the API.
    pub(crate) fn drop_rule(&mut self, group: &str, id: &str) {
        self.groups.get_mut(group).unwrap().change(|rules| drop(rules.remove(id)));
    }

    fn group(&mut self, request: &Request) -> Result<&mut Group, Refusal> {
        let id = request.get("GroupId").unwrap_or_default();
        self.groups.get_mut(id).ok_or_else(|| {
            refused("InvalidGroup.NotFound", format!("The security group '{id}' does not exist"))
        })
    }

    pub(super) fn describe_rules(&mut self, request: &Request) -> Result<String, Refusal> {
        let is_by_group = request.get("Filter.1.Name") == Some("group-id");
        let id = request.get("Filter.1.Value.1").filter(|_| is_by_group);
        let id =
            id.ok_or_else(|| refused("InvalidParameterValue", "a filter by group-id"))?.to_owned();
        let seen = self.behind();
        // A filter that matches nothing is no error.
        let Some(group) = self.groups.get(&id) else {
            return Ok("<securityGroupRuleSet/>".to_owned());
        };
        let mut items: Vec<String> =
            group.at(seen).iter().map(|(rule_id, rule)| shown(&id, rule_id, rule)).collect();
        items.extend(group.lists.iter().map(|(rule_id, list)| {
            format!(
                "<securityGroupRuleId>{rule_id}</securityGroupRuleId><groupId>{id}</groupId>\
                 <isEgress>false</isEgress><ipProtocol>tcp</ipProtocol><fromPort>443</fromPort>\
                 <toPort>443</toPort><prefixListId>{list}</prefixListId>"
            )
        }));
        items.push(format!(
            "<securityGroupRuleId>sgr-egress</securityGroupRuleId><groupId>{id}</groupId>\
             <isEgress>true</isEgress><ipProtocol>-1</ipProtocol><fromPort>-1</fromPort>\
             <toPort>-1</toPort><cidrIpv4>0.0.0.0/0</cidrIpv4>"
        ));
        let (items, token) = self.page(request, &items)?;
        Ok(format!("<securityGroupRuleSet>{items}</securityGroupRuleSet>{token}"))
    }

    /// All or nothing.
    pub(super) fn authorize(&mut self, request: &Request) -> Result<String, Refusal> {
        let rules_max = self.temper.rules_max;
        let tags = tags(request);
        let asked = rules(request, &tags)?;
        let ids: Vec<String> = asked.iter().map(|_| self.id("sgr")).collect();
        let weight = |state: &State, group: &Group, family| -> usize {
            let lists = group.lists.values().filter_map(|list| state.lists.get(list));
            lists.filter(|list| list.family == family).map(|list| list.entries_max).sum()
        };
        let group_id = request.get("GroupId").unwrap_or_default();
        let weights = self.groups.get(group_id).map_or((0, 0), |group| {
            (weight(self, group, Family::V4), weight(self, group, Family::V6))
        });
        let group = self.group(request)?;
        for (at, rule) in asked.iter().enumerate() {
            let is_same = |other: &Rule| {
                other.protocol == rule.protocol
                    && other.ports == rule.ports
                    && other.network == rule.network
            };
            if group.rules.values().any(is_same) || asked[..at].iter().any(is_same) {
                let message =
                    format!("the specified rule \"peer: {}, ALLOW\" already exists", rule.network);
                return Err(refused("InvalidPermission.Duplicate", message));
            }
        }
        for (family, weight) in [(Family::V4, weights.0), (Family::V6, weights.1)] {
            let more = asked.iter().filter(|rule| rule.network.family() == family).count();
            if 0 < more && rules_max < group.count(family) + weight + more {
                let message = "The maximum number of rules per security group has been reached.";
                return Err(refused("RulesPerSecurityGroupLimitExceeded", message));
            }
        }
        let added: BTreeMap<String, Rule> = ids.into_iter().zip(asked).collect();
        let shown: String = added
            .iter()
            .map(|(id, rule)| format!("<item>{}</item>", shown(group_id, id, rule)))
            .collect();
        group.change(|rules| rules.extend(added));
        Ok(format!("<return>true</return><securityGroupRuleSet>{shown}</securityGroupRuleSet>"))
    }

    /// All or nothing.
    pub(super) fn revoke(&mut self, request: &Request) -> Result<String, Refusal> {
        let names: Vec<String> = request.numbered("SecurityGroupRuleId").collect();
        let ids: Vec<&str> = names.iter().filter_map(|name| request.get(name)).collect();
        let group = self.group(request)?;
        for id in &ids {
            check_rule(group, id)?;
        }
        group.change(|rules| rules.retain(|id, _| !ids.contains(&id.as_str())));
        Ok("<return>true</return>".to_owned())
    }

    /// All or nothing.
    pub(super) fn describe(&mut self, request: &Request) -> Result<String, Refusal> {
        let mut descriptions = BTreeMap::new();
        for item in request.numbered("SecurityGroupRuleDescription") {
            let id = request.get(&format!("{item}.SecurityGroupRuleId")).unwrap_or_default();
            let description = request.get(&format!("{item}.Description")).unwrap_or_default();
            check_description(description)?;
            descriptions.insert(id.to_owned(), description.to_owned());
        }
        let group = self.group(request)?;
        for id in descriptions.keys() {
            check_rule(group, id)?;
        }
        group.change(|rules| {
            for (id, description) in descriptions {
                rules.get_mut(&id).unwrap().description = description;
            }
        });
        Ok("<return>true</return>".to_owned())
    }
}

fn check_rule(group: &Group, id: &str) -> Result<(), Refusal> {
    if group.rules.contains_key(id) {
        return Ok(());
    }
    let message = format!("The security group rule ID '{id}' does not exist");
    Err(refused("InvalidSecurityGroupRuleId.NotFound", message))
}

fn tags(request: &Request) -> BTreeMap<String, String> {
    let tags = request.numbered("TagSpecification.1.Tag").filter_map(|tag| {
        let of = |name: &str| request.get(&format!("{tag}.{name}")).map(str::to_owned);
        Some((of("Key")?, of("Value")?))
    });
    tags.collect()
}

fn rules(request: &Request, tags: &BTreeMap<String, String>) -> Result<Vec<Rule>, Refusal> {
    let mut rules = Vec::new();
    for permission in request.numbered("IpPermissions") {
        let of = |name: &str| request.get(&format!("{permission}.{name}")).unwrap_or_default();
        let port =
            |name: &str| of(name).parse().map_err(|_| refused("InvalidParameterValue", name));
        let ports = (port("FromPort")?, port("ToPort")?);
        for (set, cidr) in [("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")] {
            for range in request.numbered(&format!("{permission}.{set}")) {
                let written = request.get(&format!("{range}.{cidr}")).unwrap_or_default();
                let network: Network = written.parse().map_err(|_| {
                    refused("InvalidParameterValue", format!("CIDR block {written} is malformed"))
                })?;
                let description = request.get(&format!("{range}.Description")).unwrap_or_default();
                check_description(description)?;
                rules.push(Rule {
                    protocol: of("IpProtocol").to_owned(),
                    ports,
                    network,
                    description: description.to_owned(),
                    tags: tags.clone(),
                });
            }
        }
    }
    Ok(rules)
}

fn shown(group: &str, id: &str, rule: &Rule) -> String {
    let Rule { protocol, ports: (first, last), network, description, tags } = rule;
    let cidr = match network.family() {
        Family::V4 => "cidrIpv4",
        Family::V6 => "cidrIpv6",
    };
    let tags: String = tags
        .iter()
        .map(|(key, value)| {
            format!("<item><key>{key}</key><value>{}</value></item>", escaped(value))
        })
        .collect();
    let description = escaped(description);
    format!(
        "<securityGroupRuleId>{id}</securityGroupRuleId><groupId>{group}</groupId>\
         <isEgress>false</isEgress><ipProtocol>{protocol}</ipProtocol><fromPort>{first}</fromPort>\
         <toPort>{last}</toPort><{cidr}>{network}</{cidr}><description>{description}</description>\
         <tagSet>{tags}</tagSet>"
    )
}
