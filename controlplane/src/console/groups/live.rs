//! What of a group is alive: whom it lets in now, and on which hosts.

use std::time::Duration;

use askama::Template;
use postern_shared::format::flat;
use postern_shared::ids::{AgentId, GroupId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::time::{Expiry, Timestamp};

use crate::app::App;
use crate::console::condition::Reach;
use crate::console::show::{Left, When};
use crate::domain::{GroupRow, Member, MemberKind, State as Orgs};

/// Most entries that are shown; the others are counted.
const ENTRIES_SHOWN_MAX: usize = 500;
/// Most firewalls that are shown; the others are counted.
const TARGETS_SHOWN_MAX: usize = 100;

/// A group at one moment.
#[derive(Template)]
#[template(path = "console/group/live.html")]
pub(super) struct Live {
    as_of: Timestamp,
    /// When the next entry expires.
    next_expiry: Option<Timestamp>,
    entries: Vec<Entry>,
    entries_more: usize,
    targets: Vec<Target>,
    targets_more: usize,
    hosts: usize,
    /// Of the hosts, those on which all firewalls have the newest list in force.
    hosts_open: usize,
}

/// A network that is let in.
struct Entry {
    network: String,
    sources: Vec<Source>,
    until: Option<Left>,
}

/// Who is behind an entry.
struct Source {
    name: String,
    /// The page of the pair.
    path: Option<String>,
    /// When the pair was last reported there, or the network was added.
    since: When,
}

/// A firewall that the list is meant for.
struct Target {
    host: String,
    path: String,
    /// Its name; none where the host has none for this group.
    name: Option<String>,
    word: &'static str,
    is_well: bool,
}

/// A host that may follow the list.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Host {
    name: String,
    id: AgentId,
}

impl Target {
    fn of(host: &Host, name: Option<&String>, word: &'static str, is_well: bool) -> Target {
        let path = format!("/console/agents/{}", host.id);
        Target { host: host.name.clone(), path, name: name.cloned(), word, is_well }
    }
}

impl Live {
    /// Looks at a group; none where it is gone.
    pub(super) fn of(app: &App, group: GroupId) -> Option<Live> {
        let now = app.engine().now();
        let (mut live, mut hosts, revision) = {
            let state = app.engine().state();
            let row = state.group(group)?;
            let agents = state.agents_of(row.record.org);
            let follows = agents.filter(|it| it.revoked_at.is_none() && it.groups.contains(&group));
            let hosts = follows.map(|it| Host { name: it.name.to_string(), id: it.id });
            (Live::entries_of(&state, row, now), hosts.collect::<Vec<Host>>(), row.list_revision)
        };
        hosts.sort();
        live.look_at(app, &hosts, group, revision);
        Some(live)
    }

    fn entries_of(state: &Orgs, row: &GroupRow, now: Timestamp) -> Live {
        let shown = row.list.live_at(now).take(ENTRIES_SHOWN_MAX);
        let entries = shown.map(|(network, expiry)| Entry {
            network: flat(network),
            sources: sources(state, row, network, now),
            until: Left::until(expiry, now),
        });
        let entries: Vec<Entry> = entries.collect();
        Live {
            as_of: now,
            next_expiry: row.list.next_deadline_after(now),
            entries_more: row.list.len_at(now) - entries.len(),
            entries,
            targets: Vec::new(),
            targets_more: 0,
            hosts: 0,
            hosts_open: 0,
        }
    }

    /// Looks at the firewalls of the hosts; those that are not well stand first.
    fn look_at(&mut self, app: &App, hosts: &[Host], group: GroupId, revision: Revision) {
        let (epoch, board) = (app.engine().epoch(), app.engine().board());
        let mut ill = Vec::new();
        let mut well = Vec::new();
        let mut count = 0;
        for host in hosts {
            let mut add = |name: Option<&String>, word, is_well| {
                count += 1;
                let part = if is_well { &mut well } else { &mut ill };
                if part.len() < TARGETS_SHOWN_MAX {
                    part.push(Target::of(host, name, word, is_well));
                }
                is_well
            };
            let Some(report) = board.agent(host.id) else {
                add(None, "has not said what it protects", false);
                continue;
            };
            let follows = report.host.targets.iter().filter(|it| it.groups.contains(&group));
            let reaches = follows.map(|it| {
                let reach = Reach::of(&board, host.id, (it, group), epoch, revision);
                add(Some(&it.name), reach.word(), reach == Reach::Live)
            });
            let (of, open) =
                reaches.fold((0, 0), |(of, open), is_well| (of + 1, open + usize::from(is_well)));
            if of == 0 {
                add(None, "keeps no firewall to this list", false);
            }
            self.hosts_open += usize::from(0 < of && open == of);
        }
        self.hosts = hosts.len();
        self.targets = ill.into_iter().chain(well).take(TARGETS_SHOWN_MAX).collect();
        self.targets_more = count - self.targets.len();
    }

    /// The same for a script, which counts down by itself: it is no other text every second.
    pub(super) fn for_script(mut self) -> Live {
        for entry in &mut self.entries {
            entry.until = entry.until.take().map(Left::uncounted);
        }
        self
    }

    /// The plane's time of what is shown.
    pub(super) fn as_of(&self) -> Timestamp {
        self.as_of
    }

    /// How long nothing expires.
    pub(super) fn expires_in(&self) -> Option<Duration> {
        self.next_expiry.map(|at| at.since(self.as_of))
    }

    /// How many networks are let in.
    fn count(&self) -> usize {
        self.entries.len() + self.entries_more
    }
}

/// The members that a network of the list comes from, without those whose time is over.
fn sources(state: &Orgs, row: &GroupRow, network: Network, now: Timestamp) -> Vec<Source> {
    let members = row.sources.get(&network).into_iter().flatten();
    let members = members.filter_map(|id| row.members.get(id)).map(|row| &row.record);
    let live = members.filter(|member| member.expires.is_live_at(now));
    live.filter_map(|member| source(state, member, network, now)).collect()
}

fn source(state: &Orgs, member: &Member, network: Network, now: Timestamp) -> Option<Source> {
    let name = state.member_name(&member.kind)?.to_string();
    match &member.kind {
        MemberKind::Pair(id) => {
            let pair = state.pair(*id)?;
            let reported_at = pair.report?.reported_at(network.address())?;
            let stale_at = Expiry::from(pair.stale_at(network.address()));
            let path = Some(crate::console::pairs::path(pair.record.number));
            let source = Source { name, path, since: When(reported_at) };
            stale_at.is_live_at(now).then_some(source)
        }
        MemberKind::Network { .. } => {
            Some(Source { name, path: None, since: When(member.added_at) })
        }
    }
}
