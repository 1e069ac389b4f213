//! The rules of a group as we last saw them, and as we have changed them since.
//!
//! EC2 shows a change to every reader only after some seconds. So what we wrote ourselves is written
//! into each read that may not show it yet; else a read that is behind would hide a rule of ours just
//! when it is to be withdrawn.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::rules::Rule;

/// How far a read may be behind.
const BEHIND_MAX: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct Mirror {
    rules: BTreeMap<String, Rule>,
    written: VecDeque<(Instant, Written)>,
}

/// One change of ours that EC2 has confirmed.
#[derive(Debug, Clone)]
pub(super) enum Written {
    Added(Rule),
    Described { id: String, description: String },
    Gone { id: String },
}

impl Mirror {
    pub(super) fn rules(&self) -> &BTreeMap<String, Rule> {
        &self.rules
    }

    /// Takes what was read, as of about now.
    pub(super) fn take(&mut self, read: BTreeMap<String, Rule>) {
        let now = Instant::now();
        while self.written.front().is_some_and(|(at, _)| *at + BEHIND_MAX < now) {
            self.written.pop_front();
        }
        self.rules = read;
        for (_, written) in &self.written {
            written.write_into(&mut self.rules);
        }
    }

    /// Takes what EC2 says it has done.
    pub(super) fn note(&mut self, written: Written) {
        written.write_into(&mut self.rules);
        self.written.push_back((Instant::now(), written));
    }
}

impl Written {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::aws::rules::Source;

    fn rule(id: &str) -> Rule {
        let (description, owner) = ("postern edge ".to_owned(), Some("edge".to_owned()));
        Rule { id: id.to_owned(), opening: None, source: Source::V4, description, owner }
    }

    fn read(ids: &[&str]) -> BTreeMap<String, Rule> {
        ids.iter().map(|id| ((*id).to_owned(), rule(id))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_is_behind_undoes_nothing_that_we_wrote() {
        let mut mirror = Mirror::default();
        mirror.take(read(&["old", "kept"]));
        mirror.note(Written::Added(rule("new")));
        mirror.note(Written::Gone { id: "old".to_owned() });
        let description = "postern edge later".to_owned();
        mirror.note(Written::Described { id: "kept".to_owned(), description });

        tokio::time::advance(Duration::from_secs(10)).await;
        mirror.take(read(&["old", "kept"]));
        let behind = mirror.rules().clone();
        tokio::time::advance(Duration::from_secs(10)).await;
        mirror.take(read(&["old", "kept"]));

        assert_eq!(behind.keys().collect::<Vec<_>>(), ["kept", "new"]);
        assert_eq!(behind["kept"].description, "postern edge later");
        assert_eq!(mirror.rules(), &read(&["old", "kept"]), "by now it is what others did");
    }
}
