//! The tasks that run under one configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use postern_shared::error::chain;
use postern_shared::ids::GroupId;
use postern_shared::wire::v1::{AgentGroup, AgentUpdate, TargetStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cache::{self, Cache, Witness};
use crate::chance::Chance;
use crate::client::Plane;
use crate::clock::Clock;
use crate::config::{Config, GroupRef, TargetConfig};
use crate::directory::Directory;
use crate::firewalls::Firewalls;
use crate::flushed::FlushedTargets;
use crate::lists::{self, Lists};
use crate::reconcile::{self, Context, Inbox, Order};
use crate::report::{self, Outbox};
use crate::source::Source;
use crate::status::{Board, TargetNotes, TargetState};

/// Orders of operators that wait for a target; more of them wait at the socket.
const ORDERS_MAX: usize = 4;
/// How long after a sweep the next one begins, where nothing else is done for a target.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What outlives a reload.
pub(super) struct Parts<C> {
    pub(super) clock: Arc<C>,
    pub(super) chance: Chance,
    pub(super) board: Arc<Board>,
    pub(super) lists: Arc<Lists>,
    pub(super) cache: Option<Cache>,
    pub(super) witness: Arc<Witness>,
    pub(super) flushed: Arc<FlushedTargets>,
    pub(super) groups: watch::Sender<Vec<AgentGroup>>,
    pub(super) host: String,
}

/// Running tasks; they end when it is dropped.
pub(super) struct Session {
    pub(super) tasks: JoinSet<()>,
    /// The way to each target's task.
    pub(super) orders: BTreeMap<String, mpsc::Sender<Order>>,
}

/// The groups that the lists are to be followed of: those of all targets that can be found.
pub(crate) fn followed(config: &Config, directory: &Directory) -> BTreeSet<GroupId> {
    let all = config.targets.iter().flat_map(TargetConfig::groups);
    all.filter_map(|group: &GroupRef| directory.resolve(group).ok()).collect()
}

/// Keeps taking away what is overdue at a target that cannot be kept, such as where the control plane
/// has never said which group is meant.
async fn sweep_on<F: Firewalls, C: Clock>(firewalls: F, target: TargetConfig, clock: Arc<C>) {
    while let Some(sweep) = firewalls.sweep(&target, clock.now()) {
        match sweep.await {
            Ok(swept) => {
                for network in swept.removed {
                    tracing::info!(target_name = %target.name, %network, "swept what is overdue");
                }
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(target_name = %target.name, error, "a sweep failed");
            }
        }
        sleep(SWEEP_EVERY).await;
    }
}

impl Session {
    /// Starts the tasks. The lists know the configuration's groups already.
    pub(super) fn start<P: Plane, C: Clock, F: Firewalls>(
        parts: &Parts<C>,
        config: &Config,
        directory: &Directory,
        plane: &Arc<P>,
        firewalls: &F,
    ) -> Session {
        let outbox = Arc::new(Outbox::default());
        let beacon_wanted = Arc::new(Notify::new());
        let mut session = Session { tasks: JoinSet::new(), orders: BTreeMap::new() };
        parts.board.write(|notes| notes.targets.clear());
        let mut told = Vec::new();
        for target in &config.targets {
            let found = directory.resolve_all(target.groups());
            let groups: Vec<GroupId> =
                found.as_ref().map(|found| found.iter().copied().collect()).unwrap_or_default();
            told.push(TargetStatus {
                name: target.name.clone(),
                kind: target.kind.word().to_owned(),
                groups: groups.clone(),
            });
            let mut notes = TargetNotes::new(&target.name, target.kind.word(), groups.clone());
            let opened = found.and_then(|_| firewalls.open(target, &config.policy, directory));
            match opened {
                Ok(opened) => {
                    let inbox = Arc::new(Inbox::default());
                    parts.lists.subscribe(&groups, Arc::clone(&inbox));
                    let context = Context {
                        lists: Arc::clone(&parts.lists),
                        groups,
                        inbox,
                        outbox: Arc::clone(&outbox),
                        flushed: Arc::clone(&parts.flushed),
                        board: Arc::clone(&parts.board),
                        clock: Arc::clone(&parts.clock),
                        chance: parts.chance,
                    };
                    let (sender, orders) = mpsc::channel(ORDERS_MAX);
                    session.orders.insert(target.name.clone(), sender);
                    session.tasks.spawn(reconcile::keep(opened, context, orders));
                }
                Err(why) => {
                    tracing::error!(target_name = %target.name, why, "the target cannot be kept");
                    notes.status.state = TargetState::Failing;
                    notes.status.detail = Some(why);
                    let (target, clock) = (target.clone(), Arc::clone(&parts.clock));
                    session.tasks.spawn(sweep_on(firewalls.clone(), target, clock));
                }
            }
            parts.board.write(|board| board.targets.insert(target.name.clone(), notes));
        }
        let source = Source {
            plane: Arc::clone(plane),
            lists: Arc::clone(&parts.lists),
            clock: Arc::clone(&parts.clock),
            chance: parts.chance,
            board: Arc::clone(&parts.board),
            outbox: Arc::clone(&outbox),
            beacon_wanted: Arc::clone(&beacon_wanted),
            update: AgentUpdate {
                host: parts.host.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                targets: told,
            },
            groups: parts.groups.clone(),
        };
        let tell = report::tell(outbox, Arc::clone(plane), beacon_wanted, parts.chance);
        session.tasks.spawn(source.follow());
        session.tasks.spawn(tell);
        session.tasks.spawn(lists::tend(Arc::clone(&parts.lists), Arc::clone(&parts.clock)));
        if let Some(cache) = parts.cache.clone() {
            session.tasks.spawn(cache::keep(
                cache,
                Arc::clone(&parts.lists),
                Arc::clone(&parts.witness),
                Arc::clone(&parts.clock),
                Arc::clone(&parts.board),
            ));
        }
        session
    }
}
