//! Lists by asking for them, where streams do not get through.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use postern_shared::backoff::share;
use postern_shared::ids::GroupId;
use postern_shared::wire::v1::{StreamEvent, Withdrawn};

use super::{Broken, Source};
use crate::client::{Plane, PlaneError, Polled};
use crate::clock::Clock;

/// After a list: the next change may follow at once.
const PAUSE_AFTER_LIST: Duration = Duration::from_millis(200);
/// From one request to the next where there was nothing new, or nothing at all. A plane that
/// holds the request has waited longer already.
const PAUSE: Duration = Duration::from_secs(5);

impl<P: Plane, C: Clock> Source<P, C> {
    /// Asks for each group's list again and again, until any of the requests fails.
    pub(super) async fn poll(&self) -> Broken {
        let groups = self.lists.groups();
        let mut polls: FuturesUnordered<_> =
            groups.into_iter().map(|group| self.poll_group(group)).collect();
        match polls.next().await {
            Some(broken) => broken,
            None => std::future::pending().await,
        }
    }

    async fn poll_group(&self, group: GroupId) -> Broken {
        let mut etag: Option<String> = None;
        loop {
            let sent_at = self.clock.now();
            let mut pause = PAUSE;
            match self.plane.poll(group, etag.as_deref()).await {
                Ok(Polled::Unchanged) => self.lists.heard(Some(group), self.clock.now()),
                Ok(Polled::List { snapshot, etag: newer }) => {
                    // An answer that was held back says nothing about the clocks.
                    let sent_at = etag.is_none().then_some(sent_at);
                    let received = self.lists.receive(
                        StreamEvent::Snapshot(*snapshot),
                        sent_at,
                        self.clock.now(),
                    );
                    if let Err(rejected) = received {
                        return Broken::Rejected(rejected);
                    }
                    etag = newer;
                    if etag.is_some() {
                        pause = PAUSE_AFTER_LIST;
                    }
                }
                Err(PlaneError::Refused { status: 404, .. }) => {
                    let withdrawn = StreamEvent::Withdrawn(Withdrawn { group });
                    if let Err(rejected) = self.lists.receive(withdrawn, None, self.clock.now()) {
                        return Broken::Rejected(rejected);
                    }
                    etag = None;
                }
                Err(error) => {
                    if error.wants_beacon() {
                        self.beacon_wanted.notify_one();
                    }
                    return error.into();
                }
            }
            self.heard();
            let left = pause.saturating_sub(self.clock.now().since(sent_at));
            tokio::time::sleep(left + share(pause, (self.chance)())).await;
        }
    }
}
