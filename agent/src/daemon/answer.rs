//! Answers operators from what the running daemon knows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use postern_shared::ids::GroupId;
use postern_shared::time::{Expiry, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::session::{Parts, Session};
use super::verdict::{Asked, Rule};
use crate::clock::Clock;
use crate::config::{Config, GroupRef, TargetConfig};
use crate::control::protocol::{Confirmed, Flushed, Planned, Why};
use crate::directory::Directory;
use crate::flushed::FlushedTargets;
use crate::lists::Lists;
use crate::reconcile::Order;
use crate::status::{Board, GroupStatus, Link, ListState, Status, TargetState};

/// What there is to be asked, kept up to date over reloads.
pub(crate) struct Office {
    lists: Arc<Lists>,
    board: Arc<Board>,
    flushed: Arc<FlushedTargets>,
    clock: Arc<dyn Clock>,
    started_at: Timestamp,
    desk: Mutex<Desk>,
}

/// What a reload changes.
#[derive(Clone, Default)]
struct Desk {
    targets: Vec<TargetConfig>,
    directory: Directory,
    orders: BTreeMap<String, mpsc::Sender<Order>>,
}

impl Office {
    pub(super) fn new<C: Clock>(parts: &Parts<C>, now: Timestamp) -> Office {
        let clock: Arc<dyn Clock> = Arc::<C>::clone(&parts.clock);
        Office {
            lists: Arc::clone(&parts.lists),
            board: Arc::clone(&parts.board),
            flushed: Arc::clone(&parts.flushed),
            clock,
            started_at: now,
            desk: Mutex::default(),
        }
    }

    pub(super) fn renew(&self, config: &Config, directory: &Directory, session: &Session) {
        *self.desk.lock().expect("no code panics while it holds the lock") = Desk {
            targets: config.targets.clone(),
            directory: directory.clone(),
            orders: session.orders.clone(),
        };
    }

    fn desk(&self) -> Desk {
        self.desk.lock().expect("no code panics while it holds the lock").clone()
    }

    /// How everything is.
    pub(crate) fn status(&self) -> Status {
        let (now, desk) = (self.clock.now(), self.desk());
        let notes = self.board.read();
        let standings = self.lists.standings(&self.lists.groups(), now);
        let groups = standings.into_iter().map(|(id, standing)| {
            let known = desk.directory.get(id);
            GroupStatus {
                id,
                number: known.map(|known| known.number),
                name: known.map(|known| known.name.clone()),
                list: standing.list,
                epoch: standing.position.map(|position| position.epoch),
                revision: standing.position.map(|position| position.revision),
                entries: standing.entries,
                findings: standing.held,
                held: standing.held_count,
            }
        });
        let groups: Vec<GroupStatus> = groups.collect();
        let mut troubles = notes.all_troubles_at(now);
        for group in &groups {
            let name = group.name.clone().unwrap_or_else(|| group.id.to_string());
            match group.list {
                ListState::Missing => troubles.push(format!("group {name}: no list has come yet")),
                ListState::Withdrawn => {
                    troubles.push(format!("group {name}: the control plane took it away"));
                }
                ListState::Cached | ListState::Followed => {}
            }
            troubles.extend(group.findings.iter().map(|found| format!("group {name}: {found}")));
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            as_of: now,
            troubles,
            targets: notes.targets_at(now),
            plane: notes.plane,
            groups,
        }
    }

    /// All of it in one line.
    pub(super) fn summary(&self) -> String {
        let notes = self.board.read();
        let link = match notes.plane.link {
            Link::Down => "not following the control plane",
            Link::Stream => "following",
            Link::Polling => "following by polling",
        };
        let in_sync =
            notes.targets.values().filter(|note| note.status.state == TargetState::InSync).count();
        format!("{link}; {in_sync} of {} targets in sync", notes.targets.len())
    }

    /// Whether an address gets in, and why.
    pub(crate) fn why(&self, address: IpAddr, port: Option<u16>) -> Why {
        let (now, desk) = (self.clock.now(), self.desk());
        let notes = self.board.read();
        let mut verdicts = Vec::new();
        for target in &desk.targets {
            let status = notes.targets.get(&target.name).map(|notes| &notes.status);
            let asked = Asked {
                address,
                now,
                target,
                rule: Rule::of(target, status, self.flushed.contains(&target.name)),
                directory: &desk.directory,
                lists: &self.lists,
            };
            let doors = target.kind.as_kind().doors();
            let concerned = doors.iter().filter(|door| {
                let is_there = |port| door.ports.iter().any(|ports| ports.holds(port));
                door.ports.is_empty() || port.is_none_or(is_there)
            });
            verdicts.extend(concerned.map(|door| asked.verdict(door)));
        }
        Why { address, as_of: now, verdicts }
    }

    /// What a pass over each target would do.
    pub(crate) async fn plan(&self) -> Vec<Planned> {
        let mut planned = Vec::new();
        for (target, answer) in self.order_all(Order::Preview).await {
            planned.push(match answer {
                Ok(preview) => {
                    Planned { target, changes: preview.changes, text: preview.text, error: None }
                }
                Err(error) => {
                    Planned { target, changes: 0, text: String::new(), error: Some(error) }
                }
            });
        }
        planned
    }

    /// Empties all targets.
    pub(crate) async fn flush(&self) -> Vec<Flushed> {
        let answers = self.order_all(Order::Flush).await;
        answers
            .into_iter()
            .map(|(target, answer)| Flushed { target, error: answer.err() })
            .collect()
    }

    /// Withdraws what the brake holds, of one group or of all.
    pub(crate) fn accept(&self, group: Option<&str>) -> Result<Confirmed, String> {
        let only: Option<GroupId> = match group {
            Some(text) => {
                let Ok(named) = text.parse::<GroupRef>();
                Some(self.desk().directory.resolve(&named)?)
            }
            None => None,
        };
        let withdrawn = self.lists.confirm(only, self.clock.now());
        let of = only.map_or_else(|| "all".to_owned(), |group| group.to_string());
        tracing::info!(group = of, withdrawn, "the operator accepted what new lists left out");
        Ok(Confirmed { withdrawn })
    }

    /// Gives every target an order and collects the answers; a target that is not kept says why.
    async fn order_all<T>(
        &self,
        order: impl Fn(oneshot::Sender<Result<T, String>>) -> Order,
    ) -> Vec<(String, Result<T, String>)> {
        let desk = self.desk();
        let mut answers = Vec::new();
        for target in &desk.targets {
            let answer = match desk.orders.get(&target.name) {
                Some(orders) => {
                    let (sender, answer) = oneshot::channel();
                    match orders.send(order(sender)).await {
                        Ok(()) => answer.await.unwrap_or_else(|_| Err(RELOADED.to_owned())),
                        Err(_) => Err(RELOADED.to_owned()),
                    }
                }
                None => {
                    let found = desk.directory.resolve_all(target.groups());
                    Err(found.err().unwrap_or_else(|| "it could not be opened, see status".into()))
                }
            };
            answers.push((target.name.clone(), answer));
        }
        answers
    }
}

const RELOADED: &str = "the agent was reloaded meanwhile, ask again";

/// An expiry in words.
pub(crate) fn shown(expiry: Expiry) -> String {
    match expiry {
        Expiry::At(at) => at.to_string(),
        Expiry::Never => "without end".to_owned(),
    }
}
