//! What is at a provider as we last saw it, and as we have changed it since.
//!
//! A provider may show a change to every reader only after some seconds. So what we wrote ourselves is
//! written into each read that may not show it yet; else a read that is behind would hide an entry of
//! ours just when it is to be withdrawn.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How far a read may be behind.
const BEHIND_MAX: Duration = Duration::from_secs(15);

/// One change of ours that the provider has confirmed.
pub(crate) trait Written {
    /// By what the provider tells entries apart.
    type Key: Ord;
    /// What the provider shows of one.
    type Entry;

    /// Makes what was read what it is after the change.
    fn write_into(&self, entries: &mut BTreeMap<Self::Key, Self::Entry>);
}

/// What was read, with what was written since.
#[derive(Debug)]
pub(crate) struct Mirror<W: Written> {
    entries: BTreeMap<W::Key, W::Entry>,
    written: VecDeque<(Instant, W)>,
}

impl<W: Written> Mirror<W> {
    pub(crate) fn new() -> Mirror<W> {
        Mirror { entries: BTreeMap::new(), written: VecDeque::new() }
    }

    pub(crate) fn entries(&self) -> &BTreeMap<W::Key, W::Entry> {
        &self.entries
    }

    /// Takes what was read, as of about now.
    pub(crate) fn take(&mut self, read: BTreeMap<W::Key, W::Entry>) {
        let now = Instant::now();
        while self.written.front().is_some_and(|(at, _)| *at + BEHIND_MAX < now) {
            self.written.pop_front();
        }
        self.entries = read;
        for (_, written) in &self.written {
            written.write_into(&mut self.entries);
        }
    }

    /// Takes what the provider says it has done.
    pub(crate) fn note(&mut self, written: W) {
        written.write_into(&mut self.entries);
        self.written.push_back((Instant::now(), written));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    enum Change {
        Put(&'static str, u8),
        Gone(&'static str),
    }

    impl Written for Change {
        type Key = &'static str;
        type Entry = u8;

        fn write_into(&self, entries: &mut BTreeMap<&'static str, u8>) {
            match self {
                Change::Put(key, value) => drop(entries.insert(key, *value)),
                Change::Gone(key) => drop(entries.remove(key)),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_is_behind_undoes_nothing_that_we_wrote() {
        let mut mirror = Mirror::new();
        let before = BTreeMap::from([("old", 1), ("kept", 1)]);
        mirror.take(before.clone());
        mirror.note(Change::Put("new", 2));
        mirror.note(Change::Gone("old"));
        mirror.note(Change::Put("kept", 2));

        tokio::time::advance(Duration::from_secs(10)).await;
        mirror.take(before.clone());
        let behind = mirror.entries().clone();
        tokio::time::advance(Duration::from_secs(10)).await;
        mirror.take(before.clone());

        assert_eq!(behind, BTreeMap::from([("kept", 2), ("new", 2)]));
        assert_eq!(mirror.entries(), &before, "by now it is what others did");
    }
}
