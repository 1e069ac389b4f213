//! How many hosts have confirmed that a reported address is open.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_shared::ids::{AgentId, GroupId};
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::Confirmation;
use tokio::time::{Instant, timeout_at};

use super::report::Reported;
use crate::app::App;
use crate::server::Drain;

/// Most counts that are kept.
const COUNTED_MAX: usize = 1_024;
/// Up to so many targets are counted again at every change; a count of more may be as old as
/// [`COUNTED_AGE_MAX`].
const TARGETS_FEW: u32 = 64;
/// How old a count of many targets may be.
const COUNTED_AGE_MAX: Duration = Duration::from_secs(1);

/// What was counted lately: the answer to a heartbeat must not cost a walk over all hosts of an
/// org, and thousands of heartbeats ask about the same lists.
#[derive(Debug, Default)]
pub(crate) struct Confirmations(Mutex<BTreeMap<Lists, Counted>>);

/// The revisions that are to be confirmed.
type Lists = BTreeMap<GroupId, Revision>;

#[derive(Debug)]
struct Counted {
    confirmation: Confirmation,
    version: (u64, u64),
    at: Timestamp,
}

impl Reported {
    /// Counts the targets that have the address in force; with `wait`, when all of them have or
    /// hold it back, or then, or when the server wants to stop. What has failed is tried again, and
    /// so waited for.
    pub(super) async fn confirmation(
        &self,
        app: &App,
        wait: Option<Duration>,
        drain: Option<&mut Drain>,
    ) -> Confirmation {
        let Some(wait) = wait else {
            return app.confirmations().recall(app, &self.lists, || self.count(app));
        };
        let until = Instant::now() + wait;
        let told_to_stop = async {
            match drain {
                Some(drain) => drain.requested().await,
                None => std::future::pending().await,
            }
        };
        let mut told_to_stop = std::pin::pin!(told_to_stop);
        // Watched before it is counted: no receipt falls between.
        let mut board = app.engine().watch_board();
        let mut confirmation = self.count(app);
        while 0 < confirmation.outstanding() + confirmation.failed {
            let changed = tokio::select! {
                changed = timeout_at(until, board.changed()) => matches!(changed, Ok(Ok(()))),
                () = told_to_stop.as_mut() => false,
            };
            confirmation = self.count(app);
            if !changed {
                break;
            }
        }
        confirmation
    }

    fn count(&self, app: &App) -> Confirmation {
        let followers: Vec<AgentId> = {
            let state = app.engine().state();
            let agents = state.agents_of(self.org).filter(|agent| agent.revoked_at.is_none());
            let follows =
                agents.filter(|agent| self.lists.keys().any(|group| agent.groups.contains(group)));
            follows.map(|agent| agent.id).collect()
        };
        app.engine().board().confirmation(self.epoch, &self.lists, followers.into_iter())
    }
}

impl Confirmations {
    /// Answers with a count that still holds, or counts.
    fn recall(
        &self,
        app: &App,
        lists: &Lists,
        count: impl FnOnce() -> Confirmation,
    ) -> Confirmation {
        if lists.is_empty() {
            return Confirmation::default();
        }
        let (version, now) = (app.engine().board_version(), app.engine().now());
        let holds = |counted: &&Counted| {
            let is_recent = now.since(counted.at) < COUNTED_AGE_MAX;
            counted.version == version || (TARGETS_FEW < counted.confirmation.of && is_recent)
        };
        if let Some(counted) = self.lock().get(lists).filter(holds) {
            return counted.confirmation.clone();
        }
        let confirmation = count();
        let mut kept = self.lock();
        if COUNTED_MAX <= kept.len() && !kept.contains_key(lists) {
            kept.clear();
        }
        let counted = Counted { confirmation: confirmation.clone(), version, at: now };
        kept.insert(lists.clone(), counted);
        confirmation
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lists, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
