//! Whether an address gets in: by what stands in the target, which is not always what its lists say.

use std::net::IpAddr;

use postern_shared::policy::{Match, Standing};
use postern_shared::time::Timestamp;

use crate::config::{Door, GroupRef, TargetConfig};
use crate::control::protocol::{Found, Verdict};
use crate::directory::Directory;
use crate::lists::Lists;
use crate::status::{ListState, TargetState, TargetStatus};

/// What decides about a packet that comes to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// Its lists.
    Lists,
    /// The fail-safe networks alone.
    FailSafe,
    /// Nothing is closed.
    Nothing,
    /// What an earlier pass or run left there, if anything; and why nothing newer is there.
    Unknown(String),
}

/// A question about one target.
pub(super) struct Asked<'a> {
    pub(super) address: IpAddr,
    pub(super) now: Timestamp,
    pub(super) target: &'a TargetConfig,
    pub(super) rule: Rule,
    pub(super) directory: &'a Directory,
    pub(super) lists: &'a Lists,
}

impl Rule {
    /// `status` is what the target's task noted last; an emptied target is noted as such only
    /// with the pass that follows.
    pub(super) fn of(
        target: &TargetConfig,
        status: Option<&TargetStatus>,
        is_flushed: bool,
    ) -> Rule {
        let unlooked = || Rule::Unknown("it was not looked at yet; ask again".to_owned());
        let Some(status) = status else { return unlooked() };
        match status.state {
            TargetState::Failing => {
                let why = status.detail.as_deref().unwrap_or("no detail");
                Rule::Unknown(format!("what stands there is not known, since a pass failed: {why}"))
            }
            TargetState::Flushed => Rule::FailSafe,
            TargetState::InSync if is_flushed => Rule::FailSafe,
            TargetState::InSync => Rule::Lists,
            TargetState::Waiting if status.passed_at.is_none() => unlooked(),
            TargetState::Waiting => match target.kind.as_kind().before_first_list() {
                None => Rule::Nothing,
                Some(there) => {
                    Rule::Unknown(format!("it waits for its first list; until then {there}"))
                }
            },
        }
    }
}

impl Asked<'_> {
    /// What those have to say who are let in by one door.
    pub(super) fn verdict(&self, door: &Door<'_>) -> Verdict {
        let groups = door.groups;
        let entries = self.found(groups);
        let open = entries.iter().filter(|entry| entry.is_open);
        let until = open.clone().filter_map(|entry| entry.expires_at.deadline()).max();
        let is_listed = open.count() != 0;
        let (is_open, until, note) = match &self.rule {
            Rule::Lists => match self.without_list(groups) {
                Some(note) => (is_listed.then_some(true), until, Some(note)),
                None => (Some(is_listed), until, None),
            },
            Rule::FailSafe => {
                let note = "flushed by the operator; `postern-agent reload` fills it again";
                (Some(is_listed), until, Some(note.to_owned()))
            }
            Rule::Nothing => {
                let note = "it waits for its first list; until then nothing is closed, to nobody";
                (Some(true), None, Some(note.to_owned()))
            }
            Rule::Unknown(why) => (None, None, Some(why.clone())),
        };
        let (target, service) = (self.target.name.clone(), door.service.map(str::to_owned));
        let ports = door.ports.iter().map(ToString::to_string).collect();
        Verdict { target, service, ports, is_open, until, entries, note }
    }

    fn found(&self, groups: &[GroupRef]) -> Vec<Found> {
        let known = groups.iter().filter_map(|group| self.directory.resolve(group).ok());
        let matches = known.flat_map(|group| {
            let found = self.lists.why(group, self.address, self.now);
            found.into_iter().map(move |found| (group, found))
        });
        matches
            .map(|(group, Match { network, expiry, standing })| {
                let (is_open, standing) = self.told(standing);
                Found {
                    group: self.directory.label(group),
                    network: network.to_string(),
                    expires_at: expiry,
                    is_open,
                    standing,
                }
            })
            .collect()
    }

    fn told(&self, standing: Standing) -> (bool, String) {
        let is_flushed = self.rule == Rule::FailSafe;
        match standing {
            Standing::FailSafe => (true, "fail-safe, always open".to_owned()),
            Standing::Listed | Standing::Leased | Standing::Held if is_flushed => {
                (false, "not open: the target was flushed".to_owned())
            }
            Standing::Listed => (true, "listed".to_owned()),
            Standing::Leased => (true, "prolonged while the control plane is followed".to_owned()),
            Standing::Held => (true, "left out by a new list that nobody confirmed".to_owned()),
            Standing::Withheld => (false, "not opened: see the findings of its group".to_owned()),
            Standing::Refused(reason) => (false, format!("not opened: it {reason}")),
        }
    }

    /// Names a group that no list has come of: a target that stands all the same holds what an
    /// earlier run put there.
    fn without_list(&self, groups: &[GroupRef]) -> Option<String> {
        let known: Vec<_> =
            groups.iter().filter_map(|group| self.directory.resolve(group).ok()).collect();
        let standings = self.lists.standings(&known, self.now);
        let missing = standings.iter().find(|(_, found)| found.list == ListState::Missing)?.0;
        let label = self.directory.label(*missing);
        Some(format!("no list of {label} has come yet: whom an earlier run let in gets in still"))
    }
}
