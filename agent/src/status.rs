//! What the agent says of itself: for `status`, and for whoever watches it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use postern_shared::ids::{Epoch, GroupId};
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

/// An entry that is open so much past its deadline is no trouble yet: a call takes its time.
const OVERDUE_SECS: u64 = 5;

/// All of it, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The agent's version.
    pub(crate) version: String,
    /// Its process.
    pub(crate) pid: u32,
    /// When it started.
    pub(crate) started_at: Timestamp,
    /// When this was said.
    pub(crate) as_of: Timestamp,
    /// What is not as it should be, in words; empty when all is well.
    pub(crate) troubles: Vec<String>,
    pub(crate) plane: PlaneStatus,
    pub(crate) groups: Vec<GroupStatus>,
    pub(crate) targets: Vec<TargetStatus>,
}

/// How the agent stands with the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaneStatus {
    pub(crate) url: String,
    pub(crate) link: Link,
    /// Since when the link is as it is.
    pub(crate) since: Timestamp,
    /// When the plane was last heard at all.
    pub(crate) heard_at: Option<Timestamp>,
    /// Why the last try failed; gone after a success.
    pub(crate) error: Option<String>,
    /// The address that the plane sees this host at.
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// Why the own address could not be reported; gone after a success.
    pub(crate) beacon_error: Option<String>,
}

/// How lists come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Link {
    /// They do not: entries run out at their deadlines.
    Down,
    /// By the stream, as they change.
    Stream,
    /// By asking again and again, because the stream does not get through.
    Polling,
}

/// One followed group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupStatus {
    pub(crate) id: GroupId,
    pub(crate) number: Option<u64>,
    pub(crate) name: Option<String>,
    pub(crate) list: ListState,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) revision: Option<Revision>,
    /// Entries open on this host, fail-safe networks included.
    pub(crate) entries: usize,
    /// What the local policy holds back, in words.
    pub(crate) findings: Option<String>,
    /// Entries that a new list left out and that stay until somebody confirms.
    pub(crate) held: usize,
}

/// Where the list of a group comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ListState {
    /// There is none yet: targets of the group are not touched.
    Missing,
    /// From the disk, not yet confirmed by the control plane.
    Cached,
    /// From the control plane.
    Followed,
    /// The control plane took the group away from this agent.
    Withdrawn,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetStatus {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// How it works on this host.
    pub(crate) strategy: String,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) state: TargetState,
    /// Why it is as it is, where that needs words.
    pub(crate) detail: Option<String>,
    /// When the last pass ended.
    pub(crate) passed_at: Option<Timestamp>,
    /// When a pass last changed something.
    pub(crate) changed_at: Option<Timestamp>,
    /// How often somebody else's change was found and mended.
    pub(crate) repairs: u64,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// How long the entry that is open the longest past its deadline is so: 0 where all is well, `None`
    /// where nobody has looked yet.
    pub(crate) grants_open_past_expiry_seconds: Option<u64>,
}

/// How far a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TargetState {
    /// Not every group has a list yet; nothing is touched.
    Waiting,
    /// Equal to its lists.
    InSync,
    /// The last pass failed; it is tried again.
    Failing,
    /// Emptied by the operator, until a reload.
    Flushed,
}

/// Where the parts of the agent write down how they are.
#[derive(Debug)]
pub(crate) struct Board {
    notes: Mutex<Notes>,
}

#[derive(Debug, Clone)]
pub(crate) struct Notes {
    pub(crate) plane: PlaneStatus,
    pub(crate) targets: BTreeMap<String, TargetNotes>,
    /// Troubles by what is in trouble, such as `configuration` or `cache`.
    pub(crate) troubles: BTreeMap<&'static str, String>,
}

/// What a target's task writes down.
#[derive(Debug, Clone)]
pub(crate) struct TargetNotes {
    pub(crate) status: TargetStatus,
    /// When the pass that is under way began.
    pub(crate) busy_since: Option<Timestamp>,
    /// Whether it is known what stands there.
    pub(crate) was_read: bool,
    /// The earliest deadline of what stands there and does not end by itself.
    pub(crate) earliest_deadline: Option<Timestamp>,
}

impl Board {
    pub(crate) fn new(url: String, now: Timestamp) -> Board {
        let plane = PlaneStatus {
            url,
            link: Link::Down,
            since: now,
            heard_at: None,
            error: None,
            ipv4: None,
            ipv6: None,
            beacon_error: None,
        };
        let (targets, troubles) = (BTreeMap::new(), BTreeMap::new());
        Board { notes: Mutex::new(Notes { plane, targets, troubles }) }
    }

    /// Changes what is written.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Notes) -> T) -> T {
        change(&mut self.notes.lock().expect("no code panics while it holds the lock"))
    }

    /// Notes trouble with `what`, or its end.
    pub(crate) fn trouble(&self, what: &'static str, trouble: Option<String>) {
        self.write(|notes| match trouble {
            Some(trouble) => drop(notes.troubles.insert(what, trouble)),
            None => drop(notes.troubles.remove(what)),
        });
    }

    /// Notes how lists come in from now on.
    pub(crate) fn link(&self, link: Link, now: Timestamp) {
        self.write(|notes| {
            if notes.plane.link != link {
                (notes.plane.link, notes.plane.since) = (link, now);
            }
        });
    }

    /// A copy of what is written.
    pub(crate) fn read(&self) -> Notes {
        self.write(|notes| notes.clone())
    }
}

impl TargetNotes {
    pub(crate) fn new(name: &str, kind: &str, groups: Vec<GroupId>) -> TargetNotes {
        TargetNotes {
            status: TargetStatus {
                name: name.to_owned(),
                kind: kind.to_owned(),
                strategy: String::new(),
                groups,
                state: TargetState::Waiting,
                detail: None,
                passed_at: None,
                changed_at: None,
                repairs: 0,
                failures: 0,
                grants_open_past_expiry_seconds: None,
            },
            busy_since: None,
            was_read: false,
            earliest_deadline: None,
        }
    }
}

impl Notes {
    /// The targets, with what time has made of them. It goes on while a pass hangs.
    pub(crate) fn targets_at(&self, now: Timestamp) -> Vec<TargetStatus> {
        let at = |notes: &TargetNotes| {
            let past = notes.earliest_deadline.map(|deadline| now.since(deadline).as_secs());
            TargetStatus {
                grants_open_past_expiry_seconds: past.or(notes.was_read.then_some(0)),
                ..notes.status.clone()
            }
        };
        self.targets.values().map(at).collect()
    }

    /// What is not as it should be, in words.
    pub(crate) fn all_troubles_at(&self, now: Timestamp) -> Vec<String> {
        let own = self.troubles.iter().map(|(what, trouble)| format!("{what}: {trouble}"));
        let plane = self.plane.error.iter().map(|error| format!("control plane: {error}"));
        let beacon = self.plane.beacon_error.iter().map(|error| format!("own address: {error}"));
        let targets = self.targets.values().filter_map(|notes| {
            let status = &notes.status;
            let is_trouble = matches!(status.state, TargetState::Failing | TargetState::Flushed);
            let detail = status.detail.as_deref().unwrap_or("no detail");
            is_trouble.then(|| format!("target {}: {detail}", status.name))
        });
        let overdue = self.targets_at(now).into_iter().filter_map(|target| {
            let secs = target.grants_open_past_expiry_seconds?;
            let words =
                || format!("target {}: an entry is open {secs} s past its deadline", target.name);
            (OVERDUE_SECS < secs).then(words)
        });
        own.chain(plane).chain(beacon).chain(targets).chain(overdue).collect()
    }
}
