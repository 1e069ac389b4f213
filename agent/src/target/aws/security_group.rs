//! One security group: an address that is allowed is a rule for each of the target's ports.
//!
//! A rule is ours when it has our tag and our mark is its description; a rule that lets the same in
//! and has not is somebody else's, stays as it is, and leaves us nothing to do. An agent that forgot
//! everything reads both, and so knows its rules and their deadlines again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use postern_shared::network::Network;

use super::client::Ec2;
use super::config::SecurityGroupConfig;
use super::error::AwsError;
use super::lists::{self, Head};
use super::quota::Usage;
use super::rules::{self, Change, Opening, Rule, Source, Written};
use crate::target::TargetError;
use crate::target::marked::mirror::Mirror;
use crate::target::marked::{Edits, Held, Provider, Room, first_words};
use crate::target::nft::Protocol;

/// The group as it was last read.
#[derive(Debug)]
pub struct SecurityGroup {
    ec2: Ec2,
    config: SecurityGroupConfig,
    owner: String,
    /// How our descriptions begin.
    mark: String,
    mirror: Mirror<Written>,
    /// The lists that rules of others refer to, for the quota; without a head where nobody shows it
    /// to us.
    lists: BTreeMap<String, Option<Head>>,
}

/// The steps of an edit, and what they come to.
#[derive(Debug)]
struct Steps {
    revoke: Vec<Rule>,
    describe: Vec<(String, String)>,
    authorize: Vec<(Opening, String)>,
    used: Usage,
    after: Usage,
}

impl SecurityGroup {
    /// Makes the target; nothing is asked yet. `owner` is the value of our tag.
    pub fn new(ec2: Ec2, config: SecurityGroupConfig, owner: &str) -> SecurityGroup {
        let (mark, owner) = (first_words(owner), owner.to_owned());
        let (mirror, lists) = (Mirror::new(), BTreeMap::new());
        SecurityGroup { ec2, config, owner, mark, mirror, lists }
    }

    /// How many networks of ours the group has room for, as far as it was read.
    pub fn room(&self) -> Room {
        let ours: BTreeSet<&String> = self.ours().map(|(_, rule)| &rule.id).collect();
        let rules = self.mirror.entries().values();
        let foreign = Usage::of(rules.filter(|rule| !ours.contains(&rule.id)), &self.lists);
        let networks =
            |foreign| self.config.rules_max.saturating_sub(foreign) / self.config.ports.len();
        Room::Each { v4: networks(foreign.v4), v6: networks(foreign.v6) }
    }

    async fn carry_out(&mut self, change: Change) -> Result<(), AwsError> {
        rules::carry_out(&mut self.ec2, &self.config.group, &self.owner, change, &mut self.mirror)
            .await
    }

    fn steps(&self, edits: &Edits) -> Steps {
        let ours: BTreeMap<&Opening, &Rule> = self.ours().collect();
        let there = self.there();
        let goes = |opening: &Opening| {
            edits.remove.contains(&opening.network)
                || edits.put.contains_key(&opening.network) && !self.is_ours_to_open(opening)
        };
        let gone: Vec<&Rule> =
            ours.iter().filter(|(opening, _)| goes(opening)).map(|(_, rule)| *rule).collect();
        let (mut describe, mut authorize) = (Vec::new(), Vec::new());
        for (network, description) in &edits.put {
            for opening in self.openings(*network) {
                match ours.get(&opening) {
                    Some(rule) if rule.description == *description => {}
                    Some(rule) => describe.push((rule.id.clone(), description.clone())),
                    None if there.contains(&opening) => {}
                    None => authorize.push((opening, description.clone())),
                }
            }
        }
        let used = Usage::of(self.mirror.entries().values(), &self.lists);
        let left = self
            .mirror
            .entries()
            .values()
            .filter(|rule| !gone.iter().any(|gone| gone.id == rule.id));
        let after = Usage::of(left, &self.lists) + Usage::count_all(&authorize);
        let revoke = gone.into_iter().cloned().collect();
        Steps { revoke, describe, authorize, used, after }
    }

    fn ours(&self) -> impl Iterator<Item = (&Opening, &Rule)> {
        let is_ours = |rule: &&Rule| {
            rule.owner.as_deref() == Some(&*self.owner) && rule.description.starts_with(&self.mark)
        };
        self.mirror
            .entries()
            .values()
            .filter(is_ours)
            .filter_map(|rule| Some((rule.opening.as_ref()?, rule)))
    }

    fn there(&self) -> BTreeSet<&Opening> {
        self.mirror.entries().values().filter_map(|rule| rule.opening.as_ref()).collect()
    }

    fn is_ours_to_open(&self, opening: &Opening) -> bool {
        self.openings(opening.network).any(|wanted| wanted == *opening)
    }

    fn openings(&self, network: Network) -> impl Iterator<Item = Opening> {
        self.config.ports.iter().map(move |ports| {
            let protocol = match ports.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            Opening { protocol, first: ports.first, last: ports.last, network }
        })
    }
}

impl Provider for SecurityGroup {
    const KIND: &'static str = "aws_security_group";
    const RENEW_PART: u32 = 2;

    async fn read(&mut self) -> Result<(), TargetError> {
        self.mirror.take(rules::read(&mut self.ec2, &self.config.group).await?);
        let referred: BTreeSet<String> =
            self.mirror.entries().values().filter_map(Rule::list).cloned().collect();
        for id in referred {
            if !self.lists.contains_key(&id) {
                let head = match lists::heads(&mut self.ec2, std::slice::from_ref(&id)).await {
                    Ok(mut heads) => heads.pop(),
                    Err(AwsError::Gone { .. }) => None,
                    Err(error) => return Err(error.into()),
                };
                self.lists.insert(id, head);
            }
        }
        Ok(())
    }

    fn held(&self) -> BTreeMap<Network, Held> {
        let there = self.there();
        let is_there = |network| self.openings(network).all(|opening| there.contains(&opening));
        let mut held: BTreeMap<Network, Held> = BTreeMap::new();
        for (opening, rule) in self.ours() {
            let whole = || Held { is_whole: is_there(opening.network), ..Held::default() };
            let entry = held.entry(opening.network).or_insert_with(whole);
            entry.descriptions.insert(rule.description.clone());
            // With one too many it is no entry as it should be either.
            entry.is_whole &= self.is_ours_to_open(opening);
        }
        held
    }

    fn is_taken(&self, network: Network) -> bool {
        let there = self.there();
        self.openings(network).all(|opening| there.contains(&opening))
    }

    fn preview(&self, edits: &Edits) -> String {
        let steps = self.steps(edits);
        let (group, most) = (&self.config.group, self.config.rules_max);
        let mut text =
            format!("{group}: rules now {}; then {}; limit {most} each\n", steps.used, steps.after);
        if most < steps.after.most() {
            let _ = writeln!(text, "{group}: this does not fit, and nothing would be added");
        }
        for rule in &steps.revoke {
            let _ = writeln!(text, "revoke {rule}");
        }
        for (id, description) in &steps.describe {
            let _ = writeln!(text, "describe {id} as {description}");
        }
        for (opening, description) in &steps.authorize {
            let _ = writeln!(text, "authorize {opening} as {description}");
        }
        text
    }

    /// What is described anew comes first, then what is new, then what goes; where both would not fit
    /// beside each other, what goes before what is new. What does not fit at all is refused as a
    /// whole before anything of it is sent.
    async fn write(&mut self, edits: &Edits) -> Result<(), TargetError> {
        let Steps { revoke, describe, authorize, used, after } = self.steps(edits);
        let revoke = revoke.into_iter().map(|rule| rule.id).collect();
        let most = self.config.rules_max;
        let fits = authorize.is_empty() || after.most() <= most;
        let fits_beside = (used + Usage::count_all(&authorize)).most() <= most;
        self.carry_out(Change::Describe(describe)).await?;
        if !fits {
            self.carry_out(Change::Revoke(revoke)).await?;
            return Err(TargetError::Full { wanted: after.most(), capacity: most });
        }
        let (revoke, authorize) = (Change::Revoke(revoke), Change::Authorize(authorize));
        let order = if fits_beside { [authorize, revoke] } else { [revoke, authorize] };
        for change in order {
            self.carry_out(change).await?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.opening {
            Some(opening) => write!(f, "{} {opening}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

impl Rule {
    fn list(&self) -> Option<&String> {
        match &self.source {
            Source::List(id) => Some(id),
            Source::V4 | Source::V6 | Source::Other => None,
        }
    }
}
