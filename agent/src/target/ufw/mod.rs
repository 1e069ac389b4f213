//! Rules of `ufw`, for hosts that have it: an address that is allowed is a rule for each protocol of
//! the target's ports.
//!
//! A rule is ours when our mark is its comment; so an agent that forgot everything knows its rules and
//! their deadlines again. What else is there is somebody else's. `ufw` makes one rule of two that match
//! the same, and deletes by what a rule matches: where somebody else has one that matches what ours
//! would, whatever it does, there is none of ours.
//!
//! Rules are read by `ufw show added`, which prints them as the commands that make them: it is ufw's
//! own word, the same wherever a distribution keeps its files, and tells rules that are kept from those
//! that merely run. They are read once more before each change, by whoever has the rights.

mod rules;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use postern_shared::network::Network;
use serde::{Deserialize, Serialize};

use self::rules::{Rule, Said};
use super::TargetError;
use super::marked::{Edits, Held, Provider, first_words};
use super::nft::Ports;
use tokio::sync::Mutex;

use crate::commands::{CommandError, Commands, Deed, Program, Trade};

const UFW: &str = "/usr/sbin/ufw";
/// A single call takes a third of a second, on a busy machine many times that.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// From when on no further rule is changed at once: the rest is for the next pass.
const WRITE_MAX: Duration = Duration::from_secs(25);
/// What ufw takes in one rule; a range counts twice.
const PORTS_MAX: usize = 15;

/// What the rules of a target say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UfwConfig {
    /// Which ports open.
    pub ports: Vec<Ports>,
    /// How our comments name the target.
    pub owner: String,
}

/// How rules are to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Networks whose rules go.
    pub remove: Vec<Network>,
    /// Networks to allow, with the marks of their rules.
    pub put: Vec<(Network, String)>,
}

/// The rules of ufw, as a provider of entries.
#[derive(Debug)]
pub struct Ufw {
    name: String,
    config: UfwConfig,
    commands: Commands,
    /// Everybody's rules of the form that ours have.
    rules: BTreeMap<Rule, Said>,
}

/// One write at a time: ufw reads all of its rules before it locks them, so that of two that run at
/// once one undoes the other.
static TURN: Mutex<()> = Mutex::const_new(());

impl UfwConfig {
    /// Says what ufw would not take.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (protocol, ports) in rules::by_protocol(&self.ports) {
            let count = ports.split([',', ':']).count();
            if PORTS_MAX < count {
                return Err(format!(
                    "holds {count} of {protocol}, ranges counted twice; ufw takes {PORTS_MAX} in a rule"
                ));
            }
        }
        Ok(())
    }

    /// The rules that make one entry.
    fn rules(&self, network: Network) -> Vec<Rule> {
        let ports = rules::by_protocol(&self.ports);
        ports.into_iter().map(|(protocol, ports)| Rule { network, ports, protocol }).collect()
    }

    /// Says whether the rule is one of those that make an entry, by the ports as they are now.
    fn wants(&self, rule: &Rule) -> bool {
        self.rules(rule.network).contains(rule)
    }

    fn is_ours(&self, said: &Said) -> bool {
        said.is_plain_allow && said.comment.starts_with(&first_words(&self.owner))
    }

    /// Prints the rules.
    pub(crate) async fn read(&self) -> Result<String, CommandError> {
        ufw(vec!["show".to_owned(), "added".to_owned()]).await
    }

    /// Changes rules of ours, those that go first, for as long as one write may take.
    pub(crate) async fn write(&self, change: &Change) -> Result<String, CommandError> {
        let _turn = TURN.lock().await;
        let started = Instant::now();
        for words in self.steps(change, &rules::read(&self.read().await?))? {
            if WRITE_MAX < started.elapsed() {
                return Err(CommandError::Unfinished);
            }
            ufw(words).await?;
        }
        Ok(String::new())
    }

    /// The commands that carry a change out, given the rules that there are.
    fn steps(
        &self,
        change: &Change,
        there: &BTreeMap<Rule, Said>,
    ) -> Result<Vec<Vec<String>>, CommandError> {
        let ours = |rule: &Rule| there.get(rule).is_some_and(|said| self.is_ours(said));
        let puts = |network| change.put.iter().any(|(put, _)| *put == network);
        // With whatever ports: there may have been others when the rule was made.
        let goes = |rule: &&Rule| {
            change.remove.contains(&rule.network) || puts(rule.network) && !self.wants(rule)
        };
        let gone = there.keys().filter(|rule| ours(rule)).filter(goes);
        let mut steps: Vec<Vec<String>> = gone.map(Rule::delete).collect();
        for (network, mark) in &change.put {
            let is_mark = mark.starts_with(&first_words(&self.owner))
                && mark
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || " -_/=.,:".contains(char));
            if !is_mark {
                return Err(CommandError::Refused(format!("`{mark}` is no mark of this target")));
            }
            if network.prefix() == 0 {
                let why = format!("ufw has no rule for {network} alone; name its halves");
                return Err(CommandError::Refused(why));
            }
            let rules = self.rules(*network).into_iter();
            let free = rules.filter(|rule| !there.contains_key(rule) || ours(rule));
            let other =
                free.filter(|rule| there.get(rule).is_none_or(|said| said.comment != *mark));
            steps.extend(other.map(|rule| rule.allow(mark)));
        }
        Ok(steps)
    }
}

async fn ufw(words: Vec<String>) -> Result<String, CommandError> {
    let argv = [vec![UFW.to_owned()], words].concat();
    Ok(Program { argv, limit: CALL_LIMIT }.run("").await?)
}

impl Ufw {
    /// Makes the target; nothing is asked yet.
    pub fn new(name: &str, config: UfwConfig, commands: Commands) -> Ufw {
        Ufw { name: name.to_owned(), config, commands, rules: BTreeMap::new() }
    }

    async fn carry_out(&self, deed: Deed) -> Result<String, CommandError> {
        self.commands.carry_out(&self.name, &Trade::Ufw(self.config.clone()), &deed).await
    }
}

impl Provider for Ufw {
    const KIND: &'static str = "ufw";

    /// Each renewal has ufw write all its rules anew.
    const RENEW_PART: u32 = 2;

    async fn read(&mut self) -> Result<(), TargetError> {
        self.rules = rules::read(&self.carry_out(Deed::UfwRead {}).await?);
        Ok(())
    }

    /// A rule of somebody else counts as a piece that is there: ours cannot be.
    fn held(&self) -> BTreeMap<Network, Held> {
        let is_there = |network: Network| {
            let mut wanted = self.config.rules(network).into_iter();
            wanted.all(|rule| self.rules.contains_key(&rule))
        };
        let mut held: BTreeMap<Network, Held> = BTreeMap::new();
        for (rule, said) in self.rules.iter().filter(|(_, said)| self.config.is_ours(said)) {
            let whole = || Held { is_whole: is_there(rule.network), ..Held::default() };
            let entry = held.entry(rule.network).or_insert_with(whole);
            entry.descriptions.insert(said.comment.clone());
            // With one too many it is no entry as it should be either.
            entry.is_whole &= self.config.wants(rule);
        }
        held
    }

    fn is_taken(&self, network: Network) -> bool {
        let foreign =
            |rule: &Rule| self.rules.get(rule).is_some_and(|said| !self.config.is_ours(said));
        self.config.rules(network).iter().all(foreign)
    }

    fn preview(&self, edits: &Edits) -> String {
        match self.config.steps(&change(edits), &self.rules) {
            Ok(steps) => steps.iter().fold(String::new(), |mut text, words| {
                writeln!(text, "ufw {}", words.join(" ")).expect("a string takes any text");
                text
            }),
            Err(error) => format!("# {error}\n"),
        }
    }

    async fn write(&mut self, edits: &Edits) -> Result<(), TargetError> {
        self.carry_out(Deed::UfwWrite { change: change(edits) }).await?;
        Ok(())
    }
}

fn change(edits: &Edits) -> Change {
    Change {
        remove: edits.remove.iter().copied().collect(),
        put: edits.put.iter().map(|(network, mark)| (*network, mark.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::nft::Protocol;

    fn config() -> UfwConfig {
        let tcp = Ports { protocol: Protocol::Tcp, first: 22, last: 22 };
        let udp = Ports { protocol: Protocol::Udp, first: 60_000, last: 61_000 };
        UfwConfig { ports: vec![tcp, udp], owner: "web".to_owned() }
    }

    fn steps(remove: &[&str], put: &[(&str, &str)], shown: &str) -> Vec<String> {
        let change = Change {
            remove: remove.iter().map(|network| network.parse().unwrap()).collect(),
            put: put
                .iter()
                .map(|(network, mark)| (network.parse().unwrap(), (*mark).to_owned()))
                .collect(),
        };
        let steps = config().steps(&change, &rules::read(shown)).unwrap();
        steps.into_iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn what_matches_the_same_and_is_somebody_elses_is_left_alone() {
        let shown = "\
            ufw deny from 10.0.0.1 to any port 22 proto tcp comment 'postern web x'\n\
            ufw allow from 10.0.0.2 to any port 22 proto tcp comment 'office'\n\
            ufw allow from 10.0.0.2 to any port 60000:61000 proto udp comment 'postern web a=never'\n";
        let mark = "postern web a=never";

        assert_eq!(
            steps(&["10.0.0.1", "10.0.0.2"], &[], shown),
            ["delete allow proto udp from 10.0.0.2 to any port 60000:61000"]
        );
        assert_eq!(
            steps(&[], &[("10.0.0.1", mark), ("10.0.0.2", mark)], shown),
            [format!("allow proto udp from 10.0.0.1 to any port 60000:61000 comment {mark}")]
        );
    }

    #[test]
    fn rules_of_ours_with_other_ports_than_now_go() {
        let shown = "\
            ufw allow from 10.0.0.1 to any port 443 proto tcp comment 'postern web a=never'\n\
            ufw allow from 10.0.0.1 to any port 22 proto tcp comment 'postern web a=never'\n\
            ufw allow from 10.0.0.1 to any port 80 proto tcp comment 'office'\n";
        let mark = "postern web a=never";

        assert_eq!(
            steps(&[], &[("10.0.0.1", mark)], shown),
            [
                "delete allow proto tcp from 10.0.0.1 to any port 443".to_owned(),
                format!("allow proto udp from 10.0.0.1 to any port 60000:61000 comment {mark}")
            ]
        );
        assert_eq!(
            steps(&["10.0.0.1"], &[], shown),
            ["22", "443"]
                .map(|port| format!("delete allow proto tcp from 10.0.0.1 to any port {port}"))
        );
    }

    #[test]
    fn nothing_that_is_no_mark_becomes_a_comment() {
        for mark in ["office", "postern other a=never", "postern web x'; reboot"] {
            let change = Change {
                remove: Vec::new(),
                put: vec![("10.0.0.1".parse().unwrap(), mark.to_owned())],
            };
            config().steps(&change, &BTreeMap::new()).unwrap_err();
        }
    }

    #[test]
    fn more_ports_than_a_rule_holds_are_refused() {
        let range = |first| Ports { protocol: Protocol::Tcp, first, last: first + 1 };
        let ports = (0..8).map(|n| range(100 + 10 * n)).collect();

        let why = UfwConfig { ports, owner: "web".to_owned() }.check().unwrap_err();

        assert!(why.contains("16 of tcp"), "{why}");
        config().check().unwrap();
    }
}
