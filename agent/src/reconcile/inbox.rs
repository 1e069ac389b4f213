//! What waits for a target's next pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use tokio::sync::Notify;

/// Above this many touched networks the whole list is compared, which costs less than to keep
/// count.
const TOUCHED_MAX: usize = 4_096;

/// Collects what one target has to look at again; many changes before a pass become one.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pending: Mutex<Option<Pending>>,
    filled: Notify,
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pending {
    /// Everything.
    All,
    /// These networks of these groups. None at all means: only tell where the lists stand.
    Only(BTreeMap<GroupId, BTreeSet<Network>>),
}

impl Inbox {
    /// Asks for a pass over everything.
    pub(crate) fn touch_all(&self) {
        *self.lock() = Some(Pending::All);
        self.filled.notify_one();
    }

    /// Asks for a pass over what a change of `group` touched.
    pub(crate) fn touch(&self, group: GroupId, networks: &BTreeSet<Network>) {
        let mut pending = self.lock();
        if let Pending::Only(groups) = pending.get_or_insert_with(|| Pending::Only(BTreeMap::new()))
        {
            let touched = groups.entry(group).or_default();
            touched.extend(networks);
            if TOUCHED_MAX < groups.values().map(BTreeSet::len).sum() {
                *pending = Some(Pending::All);
            }
        }
        drop(pending);
        self.filled.notify_one();
    }

    /// Takes what is pending, as soon as there is anything.
    pub(crate) async fn take(&self) -> Pending {
        loop {
            if let Some(pending) = self.lock().take() {
                return pending;
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Pending>> {
        self.pending.lock().expect("no code panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(range: std::ops::Range<u32>) -> BTreeSet<Network> {
        range.map(|host| Network::host(std::net::Ipv4Addr::from(host).into())).collect()
    }

    #[tokio::test]
    async fn changes_before_a_pass_become_one() {
        let (inbox, group) = (Inbox::default(), GroupId::from_random([1; 16]));

        inbox.touch(group, &networks(0..2));
        inbox.touch(group, &networks(1..3));

        let expected = BTreeMap::from([(group, networks(0..3))]);
        assert_eq!(inbox.take().await, Pending::Only(expected));
        assert!(inbox.lock().is_none());
    }

    #[tokio::test]
    async fn too_many_changes_become_everything() {
        let (inbox, group) = (Inbox::default(), GroupId::from_random([1; 16]));

        inbox.touch(group, &networks(0..4_097));
        inbox.touch(group, &networks(0..1));

        assert_eq!(inbox.take().await, Pending::All);
    }
}
