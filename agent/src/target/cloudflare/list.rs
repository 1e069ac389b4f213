//! One IP list of an account: an address that is allowed is an item.
//!
//! An item is ours when our mark is its comment; an agent that forgot everything reads the marks, and so
//! knows its items and their deadlines again. An item of somebody else that lets the same in stays as it
//! is, and leaves us nothing to do. Cloudflare adds no item only if it is not there: adding gives an
//! item that is there another comment. So what is there is read just before it is changed.
//!
//! A change is an operation that goes on after the answer, and an account has one at a time. While one
//! is under way, whosever it is, Cloudflare refuses the next, so an agent that was killed in the middle
//! of one has only to ask again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use postern_shared::network::Network;
use postern_shared::policy::LocalPolicy;
use tokio::time::Instant;

use super::client::Cloudflare;
use super::config::ListConfig;
use super::error::CloudflareError;
use super::items::{self, BATCH_MAX, Heads, Item, Written};
use crate::target::TargetError;
use crate::target::marked::mirror::Mirror;
use crate::target::marked::{Edits, Held, Provider, Room, Shape, first_words};

const V4: &[RangeInclusive<u8>] = &[8..=32];
const V6: &[RangeInclusive<u8>] = &[12..=64];
/// How long a write may go on: what is due later waits until then.
const WRITE_MAX: Duration = Duration::from_secs(45);
/// How much of it goes to what is to be taken away where there is something to add.
const GONE_MAX: Duration = Duration::from_secs(30);
/// What was read is good for a change for so long.
const FRESH: Duration = Duration::from_secs(2);
/// How often a change is made anew that came to a bad end.
const TRIES_MAX: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LATER_PAUSE_MAX: Duration = Duration::from_secs(4);
/// How long the sizes of the account's lists are taken for true.
const HEADS_EVERY: Duration = Duration::from_secs(600);

/// The list as it was last read.
#[derive(Debug)]
pub struct IpList {
    cloudflare: Cloudflare,
    config: ListConfig,
    /// How our comments begin.
    mark: String,
    mirror: Mirror<Written>,
    read_at: Option<Instant>,
    heads: Option<(Instant, Heads)>,
}

/// What is to be done with a change that was not made.
#[derive(Debug)]
struct Patience {
    until: Instant,
    tries: u32,
    pause: Duration,
}

impl IpList {
    /// Makes the target; nothing is asked yet. `owner` is whose marks are ours.
    pub fn new(cloudflare: Cloudflare, config: ListConfig, owner: &str) -> IpList {
        let (mark, mirror) = (first_words(owner), Mirror::new());
        IpList { cloudflare, config, mark, mirror, read_at: None, heads: None }
    }

    /// What a list takes.
    pub const fn shape(widen_within: Option<LocalPolicy>) -> Shape {
        Shape { v4: V4, v6: V6, widen_within }
    }

    /// How many items of ours the account has room for, as far as its lists were read.
    pub fn room(&self) -> Room {
        let foreign = self.mirror.entries().values().filter(|item| !self.is_ours(item)).count();
        let others = self.heads.as_ref().map_or(0, |(_, heads)| heads.others);
        Room::Together(self.config.items_max.saturating_sub(others + foreign))
    }

    async fn read_items(&mut self) -> Result<(), CloudflareError> {
        self.mirror.take(items::read(&self.cloudflare, &self.config).await?);
        self.read_at = Some(Instant::now());
        Ok(())
    }

    async fn read_if_old(&mut self) -> Result<(), CloudflareError> {
        if self.read_at.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(());
        }
        self.read_items().await
    }

    async fn read_heads(&mut self) -> Result<(), CloudflareError> {
        if self.heads.as_ref().is_none_or(|(at, _)| HEADS_EVERY < at.elapsed()) {
            let heads = items::heads(&self.cloudflare, &self.config).await?;
            self.heads = Some((Instant::now(), heads));
        }
        Ok(())
    }

    /// Adds and describes anew, in as many operations as it takes. What does not fit is refused as a
    /// whole before anything of it is sent.
    async fn put(&mut self, edits: &Edits, until: Instant) -> Result<(), TargetError> {
        let mut patience = Patience::new(until);
        self.read_if_old().await?;
        loop {
            let mut batch = self.to_put(edits);
            if batch.is_empty() {
                return Ok(());
            }
            self.read_heads().await?;
            let (wanted, capacity) = (self.count_after(&batch, 0), self.config.items_max);
            if capacity < wanted && self.adds(&batch) {
                return Err(TargetError::Full { wanted, capacity });
            }
            batch.truncate(BATCH_MAX);
            match self.create(&batch, until).await {
                Ok(()) => {
                    for (network, comment) in batch {
                        self.mirror.note(Written::Put { network, comment });
                    }
                    patience = Patience::new(until);
                }
                Err(error) => {
                    patience.wait(error).await?;
                    self.read_items().await?;
                }
            }
        }
    }

    /// Takes away, in as many operations as it takes. Reads may not show the newest of our items yet:
    /// without its id none can be named.
    async fn remove(&mut self, edits: &Edits, until: Instant) -> Result<(), TargetError> {
        let mut patience = Patience::new(until);
        self.read_if_old().await?;
        loop {
            let ours = self.to_remove(edits);
            if ours.is_empty() {
                return Ok(());
            }
            let known = ours.iter().filter_map(|(network, id)| Some((*network, id.clone()?)));
            let batch: Vec<(Network, String)> = known.take(BATCH_MAX).collect();
            if batch.is_empty() {
                patience.wait_on().await?;
                self.read_items().await?;
                continue;
            }
            match self.delete(&batch, until).await {
                Ok(()) => {
                    for (network, id) in batch {
                        self.mirror.note(Written::Gone { network, id });
                    }
                    patience = Patience::new(until);
                }
                Err(error) => {
                    patience.wait(error).await?;
                    self.read_items().await?;
                }
            }
        }
    }

    async fn create(
        &self,
        batch: &[(Network, String)],
        until: Instant,
    ) -> Result<(), CloudflareError> {
        let operation = items::create(&self.cloudflare, &self.config, batch).await?;
        items::follow(&self.cloudflare, &self.config, &operation, until).await
    }

    async fn delete(
        &self,
        batch: &[(Network, String)],
        until: Instant,
    ) -> Result<(), CloudflareError> {
        let ids = batch.iter().map(|(_, id)| id);
        let operation = items::delete(&self.cloudflare, &self.config, ids).await?;
        items::follow(&self.cloudflare, &self.config, &operation, until).await
    }

    fn to_put(&self, edits: &Edits) -> Vec<(Network, String)> {
        let items = self.mirror.entries();
        let is_due = |(network, comment): &(&Network, &String)| match items.get(*network) {
            Some(item) => self.is_ours(item) && item.comment != **comment,
            None => true,
        };
        let due = edits.put.iter().filter(is_due);
        due.map(|(network, comment)| (*network, comment.clone())).collect()
    }

    fn to_remove(&self, edits: &Edits) -> Vec<(Network, Option<String>)> {
        let there = |network: &Network| {
            let item = self.mirror.entries().get(network).filter(|item| self.is_ours(item))?;
            Some((*network, item.id.clone()))
        };
        edits.remove.iter().filter_map(there).collect()
    }

    fn adds(&self, batch: &[(Network, String)]) -> bool {
        batch.iter().any(|(network, _)| !self.mirror.entries().contains_key(network))
    }

    /// How many items all lists of the account hold once these are put and so many taken away.
    fn count_after(&self, put: &[(Network, String)], removed: usize) -> usize {
        let items = self.mirror.entries();
        let new = put.iter().filter(|(network, _)| !items.contains_key(network)).count();
        let others = self.heads.as_ref().map_or(0, |(_, heads)| heads.others);
        (others + items.len() + new).saturating_sub(removed)
    }

    fn is_ours(&self, item: &Item) -> bool {
        item.comment.starts_with(&self.mark)
    }
}

impl Patience {
    fn new(until: Instant) -> Patience {
        Patience { until, tries: 0, pause: FIRST_PAUSE }
    }

    /// Waits, if the same may succeed afterwards and there is time; else answers the error.
    async fn wait(&mut self, error: CloudflareError) -> Result<(), TargetError> {
        // Another change is under way, or there were too many calls: nobody says which.
        let asked =
            if let CloudflareError::Throttled { wait, .. } = &error { Some(*wait) } else { None };
        let pause = asked.unwrap_or(self.pause);
        let is_hopeless = asked.is_none() && (!error.may_pass() || TRIES_MAX <= self.tries + 1);
        if is_hopeless || self.until <= Instant::now() + pause {
            return Err(error.into());
        }
        self.tries += u32::from(asked.is_none());
        tokio::time::sleep(pause).await;
        self.pause *= 2;
        Ok(())
    }

    /// Waits for what has to come by itself.
    async fn wait_on(&mut self) -> Result<(), TargetError> {
        if self.until <= Instant::now() + self.pause {
            return Err(TargetError::Changed);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = LATER_PAUSE_MAX.min(2 * self.pause);
        Ok(())
    }
}

impl Provider for IpList {
    const KIND: &'static str = "cloudflare_list";
    const RENEW_PART: u32 = 2;
    const LINGERS: bool = true;

    async fn read(&mut self) -> Result<(), TargetError> {
        // The sizes of lists do not change what is done, but that ours is there does.
        if self.heads.is_none() {
            self.read_heads().await?;
        }
        Ok(self.read_items().await?)
    }

    fn held(&self) -> BTreeMap<Network, Held> {
        let ours = self.mirror.entries().iter().filter(|(_, item)| self.is_ours(item));
        let held =
            |item: &Item| Held { descriptions: [item.comment.clone()].into(), is_whole: true };
        ours.map(|(network, item)| (*network, held(item))).collect()
    }

    fn is_taken(&self, network: Network) -> bool {
        self.mirror.entries().get(&network).is_some_and(|item| !self.is_ours(item))
    }

    fn preview(&self, edits: &Edits) -> String {
        let (put, remove) = (self.to_put(edits), self.to_remove(edits));
        let (now, most) = (self.mirror.entries().len(), self.config.items_max);
        let (before, after) = (self.count_after(&[], 0), self.count_after(&put, remove.len()));
        let mut text = match &self.heads {
            None => "the list was not read yet\n".to_owned(),
            Some((_, Heads { name, .. })) => format!(
                "{name}: items now {now}; all lists of the account now {before}, then {after}; \
                 limit {most}\n"
            ),
        };
        if most < after && self.adds(&put) {
            let _ = writeln!(text, "this does not fit, and nothing would be added");
        }
        for (network, _) in &remove {
            let _ = writeln!(text, "delete {network}");
        }
        for (network, comment) in &put {
            let verb = if self.mirror.entries().contains_key(network) { "describe" } else { "add" };
            let _ = writeln!(text, "{verb} {network} as {comment}");
        }
        text
    }

    /// What goes comes first: an account has one operation at a time, which may take long, and what
    /// is overdue must not wait for one that opens.
    async fn write(&mut self, edits: &Edits) -> Result<(), TargetError> {
        let until = Instant::now() + WRITE_MAX;
        let gone_until = if edits.put.is_empty() { until } else { Instant::now() + GONE_MAX };
        let gone = self.remove(edits, gone_until).await;
        gone.and(self.put(edits, until).await)
    }
}
