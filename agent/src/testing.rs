//! What the tests of several modules need: events as a control plane would send them.

use std::sync::Arc;
use std::time::Duration;

use postern_shared::allowlist::Allowlist;
use postern_shared::ids::{Epoch, GroupId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::{Delta, Entry, Snapshot, StreamEvent};

use crate::clock::test::TokioClock;

/// A group; the same for the same number.
pub(crate) fn group(number: u8) -> GroupId {
    GroupId::from_random([number; 16])
}

/// The n-th host of a private network.
pub(crate) fn host(n: u32) -> Network {
    Network::host(std::net::Ipv4Addr::from(0x0a00_0000 + n).into())
}

/// A control plane's word on one group, kept consistent: a fake, whose clock is the tests'.
#[derive(Debug, Clone)]
pub(crate) struct FakeList {
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    pub(crate) list: Allowlist,
}

impl FakeList {
    pub(crate) fn new(group: GroupId) -> FakeList {
        let epoch = Epoch::from_random([9; 16]);
        FakeList { group, epoch, revision: Revision(1), list: Allowlist::new() }
    }

    /// Allows hosts for an hour from the start of the test.
    pub(crate) fn with_hosts(mut self, hosts: std::ops::Range<u32>) -> FakeList {
        for n in hosts {
            self.list.set(host(n), Expiry::At(hour()));
        }
        self
    }

    pub(crate) fn snapshot(&self, as_of: Timestamp) -> StreamEvent {
        let entry = |(cidr, expires_at)| Entry { cidr, expires_at };
        StreamEvent::Snapshot(Snapshot {
            group: self.group,
            epoch: self.epoch,
            revision: self.revision,
            as_of,
            digest: self.list.digest_at(as_of),
            entries: self.list.live_at(as_of).map(entry).collect(),
        })
    }

    /// Changes the list, and tells of it.
    pub(crate) fn change(
        &mut self,
        add: &[(Network, Expiry)],
        remove: &[Network],
        as_of: Timestamp,
    ) -> StreamEvent {
        let (from, base) = (self.revision, self.list.digest_at(as_of));
        for (network, expiry) in add {
            self.list.set(*network, *expiry);
        }
        for network in remove {
            self.list.remove(*network);
        }
        self.revision = Revision(from.0 + 1);
        StreamEvent::Delta(Delta {
            group: self.group,
            epoch: self.epoch,
            from,
            base,
            revision: self.revision,
            as_of,
            digest: self.list.digest_at(as_of),
            add: add.iter().map(|(cidr, at)| Entry { cidr: *cidr, expires_at: *at }).collect(),
            remove: remove.to_vec(),
        })
    }
}

/// An hour after a test began.
pub(crate) fn hour() -> Timestamp {
    let start = Timestamp::from_unix_ms(TokioClock::START_MS).unwrap();
    start.saturating_add(Duration::from_secs(3_600))
}

pub(crate) fn clock() -> Arc<TokioClock> {
    Arc::new(TokioClock::start())
}

/// Waits, in paused time, until `is_so`; panics when it never is.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    const TURNS_MAX: usize = 100_000;
    for _ in 0..TURNS_MAX {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to this: {what}");
}
