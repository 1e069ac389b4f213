//! The line of state: all systems live, or precisely what is not.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_shared::ids::{AgentId, Epoch, GroupId};
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::{Receipt, ReceiptState, TargetStatus};

use super::gate::Viewer;
use super::show::When;
use crate::app::App;
use crate::beacon::frozen_until;
use crate::domain::{Board, Credential, PairRow};
use crate::health::Health;

/// Most faults that are told one by one; the others are counted.
const FAULTS_MAX: usize = 50;
/// An agent that has no stream open is away when it was heard this long ago: one that polls asks
/// at least twice a minute.
const AWAY_AFTER: Duration = Duration::from_secs(3 * 60);

/// How the systems are that an org depends on.
pub(super) struct Condition {
    /// What is not live, the worst first.
    pub(super) faults: Vec<Fault>,
    /// How many there are beside those.
    pub(super) more: usize,
    /// How many hosts there are.
    pub(super) hosts: usize,
    /// How many lists are in force at how many targets.
    pub(super) confirmed: usize,
}

/// Something that is not live.
pub(super) struct Fault {
    /// What it is, in words.
    pub(super) text: String,
    /// Since when, where that is known.
    pub(super) since: Option<When>,
    /// The page that tells more.
    pub(super) path: String,
}

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Presence {
    /// Whether it follows its lists now.
    pub(super) is_here: bool,
    /// When it was last heard of, since the plane's start.
    pub(super) heard_at: Option<Timestamp>,
}

/// How far the newest list of a group got at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is in force.
    Live,
    /// The host has not confirmed it yet.
    Outstanding,
    /// The host's own policy holds part of it back.
    Held,
    /// The target refused it.
    Failed,
}

impl Condition {
    /// Looks at everything that the viewer's org depends on.
    pub(super) fn of(viewer: &Viewer) -> Condition {
        let app = &viewer.app;
        let mut faults: Vec<Fault> = Vec::new();
        match viewer.health {
            Health::Well => {}
            Health::DiskFull => faults.push(Fault::of_plane(
                "the control plane's disk is almost full: only revocations are taken",
            )),
            Health::Stuck => faults.push(Fault::of_plane(
                "the control plane's store does not answer: nothing can be reported or changed",
            )),
        }
        if let Some(since) = app.people().outbox().and_then(|outbox| outbox.failing_since()) {
            let since = Some(When(since));
            faults.push(Fault { since, ..Fault::of_plane("mail does not go out") });
        }
        let (agents, newest) = {
            let state = app.engine().state();
            let live = state.agents_of(viewer.org()).filter(|agent| agent.revoked_at.is_none());
            let agents: Vec<(AgentId, String)> =
                live.map(|agent| (agent.id, agent.name.to_string())).collect();
            let groups = state.org(viewer.org()).into_iter().flat_map(|org| org.groups.values());
            let groups = groups.filter_map(|id| state.group(*id));
            let newest: BTreeMap<GroupId, Revision> =
                groups.map(|row| (row.record.id, row.list_revision)).collect();
            (agents, newest)
        };
        faults.extend(frozen(viewer));
        let mut condition = Condition { faults, more: 0, hosts: agents.len(), confirmed: 0 };
        for (id, name) in &agents {
            let presence = Presence::of(app, Credential::Agent(viewer.org(), *id));
            condition.look_at(app, (*id, name), presence, &newest);
        }
        condition.more = condition.faults.len().saturating_sub(FAULTS_MAX);
        condition.faults.truncate(FAULTS_MAX);
        condition
    }

    /// Whether everything is as it should be.
    pub(super) fn is_live(&self) -> bool {
        self.faults.is_empty()
    }

    fn look_at(
        &mut self,
        app: &App,
        (id, name): (AgentId, &str),
        presence: Presence,
        newest: &BTreeMap<GroupId, Revision>,
    ) {
        let path = format!("/console/agents/{id}");
        let mut fault = |text: String, since: Option<Timestamp>| {
            self.faults.push(Fault { text, since: since.map(When), path: path.clone() });
        };
        if !presence.is_here {
            let text = format!("{name} is away");
            return fault(text, presence.heard_at);
        }
        let epoch = app.engine().epoch();
        let board = app.engine().board();
        let Some(report) = board.agent(id) else {
            return fault(format!("{name} has not said what it protects"), None);
        };
        for target in &report.host.targets {
            let lists = target.groups.iter().filter_map(|id| newest.get_key_value(id));
            let reaches = lists
                .map(|(group, revision)| Reach::of(&board, id, (target, *group), epoch, *revision));
            let reaches: Vec<Reach> = reaches.collect();
            self.confirmed += reaches.iter().filter(|reach| **reach == Reach::Live).count();
            if target.groups.iter().any(|group| !newest.contains_key(group)) {
                fault(format!("{} on {name} follows a group that is gone", target.name), None);
            }
            let worst = reaches.iter().max_by_key(|reach| reach.rank());
            if let Some(what) = worst.and_then(|worst| worst.fault()) {
                fault(format!("{} on {name} {what}", target.name), None);
            }
        }
    }
}

/// The pairs that have moved too often: each is worth a look. Only whose address was put on file within
/// the hour can be one.
fn frozen(viewer: &Viewer) -> Vec<Fault> {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let (app, now) = (&viewer.app, viewer.now());
    let state = app.engine().state();
    let pairs = state.org(viewer.org()).into_iter().flat_map(|org| org.pairs.values());
    let pairs = pairs.filter_map(|id| state.pair(*id)).filter(|row| row.is_live());
    let is_recent = |at: Timestamp| now.since(at) < HOUR;
    let moved = pairs.filter(|row| {
        row.report.is_some_and(|report| report.networks().any(|(_, at)| is_recent(at)))
    });
    let fault = |row: &PairRow| {
        frozen_until(app, row, now)?;
        let text = format!("the bookmark of {}, which moves too often", row.record.name);
        Some(Fault { text, since: None, path: super::pairs::path(row.record.number) })
    };
    moved.filter_map(fault).collect()
}

impl Fault {
    fn of_plane(text: &str) -> Fault {
        Fault { text: text.to_owned(), since: None, path: crate::people::HOME.to_owned() }
    }
}

impl Presence {
    /// Finds out whether an agent is there.
    pub(super) fn of(app: &App, agent: Credential) -> Presence {
        let heard_at = app.last_used().at(agent);
        let now = app.engine().now();
        let was_heard = heard_at.is_some_and(|at| now.since(at) < AWAY_AFTER);
        Presence { is_here: was_heard || app.seats().is_taken_by(agent), heard_at }
    }
}

impl Reach {
    /// Finds out how far the list of a group at `revision` got at a target.
    pub(super) fn of(
        board: &Board,
        agent: AgentId,
        (target, group): (&TargetStatus, GroupId),
        epoch: Epoch,
        revision: Revision,
    ) -> Reach {
        let report = board.agent(agent);
        let receipt = report.and_then(|it| it.receipts.get(&(target.name.clone(), group)));
        let is_of_it = |receipt: &&Receipt| receipt.epoch == epoch && revision <= receipt.revision;
        match receipt.filter(is_of_it).map(|receipt| receipt.state) {
            Some(ReceiptState::Applied) => Reach::Live,
            Some(ReceiptState::Held) => Reach::Held,
            Some(ReceiptState::Failed) => Reach::Failed,
            None => Reach::Outstanding,
        }
    }

    /// How it stands, to be read behind the name of a firewall.
    pub(super) fn word(self) -> &'static str {
        self.fault().unwrap_or("is in force")
    }

    pub(super) fn is_live(self) -> bool {
        self == Reach::Live
    }

    /// How far it got, in few words.
    pub(super) fn short(self) -> &'static str {
        match self {
            Reach::Live => "in force",
            Reach::Outstanding => "not confirmed yet",
            Reach::Held => "held back in part",
            Reach::Failed => "failed",
        }
    }

    fn rank(self) -> u8 {
        match self {
            Reach::Live => 0,
            Reach::Outstanding => 1,
            Reach::Held => 2,
            Reach::Failed => 3,
        }
    }

    /// What is wrong, to stand behind the target's name.
    fn fault(self) -> Option<&'static str> {
        match self {
            Reach::Live => None,
            Reach::Outstanding => Some("has not confirmed the newest list yet"),
            Reach::Held => Some("holds part of a list back, by the host's own policy"),
            Reach::Failed => Some("could not put a list in force"),
        }
    }
}
