//! The near end of the kernel: one table, read and changed through the socket's thread.

use std::future::pending;
use std::time::Duration;

use postern_shared::time::Timestamp;

use super::link::Link;
use super::read::{self, Found, FoundSet, FoundTable};
use super::seat::{self, Seat};
use super::socket::{CommitError, Connection, Listener};
use super::steps::{Encoding, Step};
use super::sys::{self, Batch, MESSAGE_ELEMENTS_MAX, NewSet, Removal, Sealed};
use super::{NftOptions, refusal};
use crate::target::TargetError;

/// One table of the kernel's ruleset.
#[derive(Debug)]
pub(super) struct Kernel {
    link: Link,
    family: u8,
    table: String,
    owner: bool,
    removal: Removal,
    /// Keeps a second agent away where the kernel does not.
    _seat: Option<Seat>,
    /// Hears of changes by others, where the table is not ours alone.
    listener: Option<Listener>,
    /// The generation of the ruleset that was last read or made.
    generation: u32,
    news: News,
}

/// Whether the table was changed by somebody else since it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    Fresh,
    /// `disturbed` has told it once; saying it again and again would keep the caller spinning.
    Told,
}

impl Kernel {
    /// Opens the sockets and finds out what the kernel can. Changes nothing.
    pub(super) async fn open(
        family: u8,
        table: &str,
        options: NftOptions,
        wants_owner: bool,
    ) -> Result<Kernel, TargetError> {
        const STEP: &str = "opening a netlink socket";
        let buffers = options.buffers();
        let link = Link::open(buffers).map_err(|error| refusal::of_request(STEP, error))?;
        let (owner, destroy) = call(&link, |connection| {
            let owner = refusal::rehearse(connection, owner_probe())?.is_empty();
            let destroy = refusal::rehearse(connection, destroy_probe())?.is_empty();
            Ok((owner, destroy))
        })
        .await?
        .map_err(refusal::of_commit)?;
        let owner = owner && wants_owner && !options.no_owner;
        let seat = if wants_owner && !owner { seat::take(table)? } else { None };
        let listener = match owner {
            true => None,
            false => {
                Some(Listener::open(buffers).map_err(|error| refusal::of_request(STEP, error))?)
            }
        };
        let destroy = destroy && !options.no_destroy;
        let removal = if destroy { Removal::Destroy } else { Removal::Delete };
        let (table, news) = (table.to_owned(), News::None);
        Ok(Kernel {
            link,
            family,
            table,
            owner,
            removal,
            _seat: seat,
            listener,
            generation: 0,
            news,
        })
    }

    /// The table is made ours alone.
    pub(super) fn owner(&self) -> bool {
        self.owner
    }

    /// The number that the kernel knows our socket by.
    pub(super) fn port(&self) -> u32 {
        self.link.port()
    }

    /// How removals of elements are asked for.
    pub(super) fn removal(&self) -> Removal {
        self.removal
    }

    /// How the table is kept, for `status`.
    pub(super) fn strategy(&self) -> String {
        let guard = if self.owner {
            "the table is owned by this process and outlives it"
        } else {
            "the table is open to others and repaired after them"
        };
        let removal = match self.removal {
            Removal::Destroy => "entries are destroyed",
            Removal::Delete => "entries are deleted one by one where one is gone",
        };
        let bytes = self.link.send_bytes_max();
        format!("{guard}; {removal}; up to {} KiB a transaction", bytes / 1024)
    }

    /// Reads the table, and the elements of the sets that `wants` picks.
    pub(super) async fn read(
        &mut self,
        now: Timestamp,
        wants: impl Fn(&FoundSet) -> bool + Send + 'static,
    ) -> Result<Found, TargetError> {
        self.listen()?;
        let (family, table) = (self.family, self.table.clone());
        let read = move |connection: &mut _| read::read(connection, family, &table, now, wants);
        let found = call(&self.link, read)
            .await?
            .map_err(|error| refusal::of_request("reading the table", error))?;
        self.generation = found.generation;
        self.news = News::None;
        self.hear();
        Ok(found)
    }

    /// Reads only whether there is a table, and whose it is.
    pub(super) async fn read_table(&self) -> Result<Option<FoundTable>, TargetError> {
        let (family, table) = (self.family, self.table.clone());
        call(&self.link, move |connection| read::read_table(connection, family, &table))
            .await?
            .map_err(|error| refusal::of_request("reading the table", error))
    }

    /// Says whether the table is certainly as it was last read or made.
    pub(super) async fn is_unchanged(&mut self) -> Result<bool, TargetError> {
        self.hear();
        if self.news != News::None {
            return Ok(false);
        }
        let generation = call(&self.link, |connection| connection.generation())
            .await?
            .map_err(|error| refusal::of_request("asking for the generation", error))?;
        if generation == self.generation {
            return Ok(true);
        }
        // Somebody changed some table. Ours they could not, as long as it is ours.
        if !self.owner {
            return Ok(false);
        }
        let table = self.read_table().await?;
        let ours = table.is_some_and(|table| table.owner == Some(self.port()));
        if ours {
            self.generation = generation;
        }
        Ok(ours)
    }

    /// Carries out `commit` in one transaction; `prepare` goes with it, or ahead of it in several
    /// where one would be too long for the socket.
    pub(super) async fn commit(
        &mut self,
        prepare: &[Step],
        commit: &[Step],
        encoding: Encoding,
    ) -> Result<(), CommitError> {
        let batches = self.batches(prepare, commit, encoding)?;
        self.hear();
        // Our own changes would only fill the listener's queue. That nobody else came between is
        // told by the generation.
        let unheard = self.ignore();
        let count = u32::try_from(batches.len()).unwrap_or(u32::MAX);
        let done = self
            .link
            .call(move |connection| {
                let before = connection.generation();
                let result = batches.iter().try_for_each(|batch| connection.commit(batch));
                (before, result, connection.generation())
            })
            .await
            .map_err(CommitError::Unknown)?;
        let heard_again = self.listen();
        let (before, result, after) = done;
        result?;
        let alone = before.is_ok_and(|before| before == self.generation)
            && after.as_ref().is_ok_and(|after| *after == self.generation.wrapping_add(count))
            && unheard.is_ok()
            && heard_again.is_ok();
        if self.listener.is_some() && !alone {
            self.news = News::Fresh;
        }
        self.generation = after.unwrap_or(self.generation);
        Ok(())
    }

    /// Runs `job` on the thread of the socket.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> std::io::Result<R> + Send + 'static,
    ) -> std::io::Result<R> {
        self.link.call(job).await?
    }

    /// Resolves when somebody else may have changed the table.
    pub(super) async fn disturbed(&mut self) {
        while self.news != News::Fresh {
            match &self.listener {
                Some(listener) => listener.wait().await,
                None => pending().await,
            }
            self.hear();
        }
        self.news = News::Told;
    }

    fn batches(
        &self,
        prepare: &[Step],
        commit: &[Step],
        encoding: Encoding,
    ) -> Result<Vec<Sealed>, CommitError> {
        let encoding = self.fitting(encoding);
        let mut whole = self.batch();
        prepare.iter().chain(commit).for_each(|step| step.encode(&mut whole, encoding));
        if whole.is_empty() {
            return Ok(Vec::new());
        }
        let whole = whole.seal();
        if whole.bytes.len() <= self.link.send_bytes_max() {
            return Ok(vec![whole]);
        }
        drop(whole);
        let mut batches = Vec::new();
        let mut batch = self.batch();
        for part in prepare.iter().flat_map(|step| step.parts(encoding.elements_per_message)) {
            // Half the room: one message more always fits.
            if self.link.send_bytes_max() / 2 < batch.len() {
                batches.push(std::mem::replace(&mut batch, self.batch()).seal());
            }
            part.encode(&mut batch, encoding);
        }
        let mut last = self.batch();
        commit.iter().for_each(|step| step.encode(&mut last, encoding));
        let rest = [batch, last].into_iter().filter(|batch| !batch.is_empty());
        batches.extend(rest.map(Batch::seal));
        let fits = |batch: &Sealed| batch.bytes.len() <= self.link.send_bytes_max();
        if batches.iter().all(fits) { Ok(batches) } else { Err(CommitError::TooLong) }
    }

    fn batch(&self) -> Batch {
        Batch::new(self.family, &self.table)
    }

    /// Makes messages small enough for a small send buffer.
    fn fitting(&self, encoding: Encoding) -> Encoding {
        const ELEMENT_BYTES_MAX: usize = 48;
        let fit = self.link.send_bytes_max() / 4 / ELEMENT_BYTES_MAX;
        let fit = fit.clamp(1, MESSAGE_ELEMENTS_MAX);
        Encoding {
            elements_per_message: encoding.elements_per_message.min(fit),
            removals_per_message: encoding.removals_per_message.min(fit),
            ..encoding
        }
    }

    fn listen(&self) -> Result<(), TargetError> {
        self.listener.as_ref().map_or(Ok(()), |listener| {
            listener.listen().map_err(|error| refusal::of_request("subscribing to changes", error))
        })
    }

    fn ignore(&self) -> std::io::Result<()> {
        self.listener.as_ref().map_or(Ok(()), Listener::ignore)
    }

    /// Takes in what the listener heard.
    fn hear(&mut self) {
        let Some(listener) = &mut self.listener else { return };
        let heard = listener.drain(self.family, &self.table);
        let newest = heard.generation.unwrap_or(self.generation);
        // What was heard of a generation that was read already is known.
        let is_new =
            heard.generation.is_none() || 0 < newest.wrapping_sub(self.generation).cast_signed();
        if heard.ours && is_new {
            self.news = News::Fresh;
        }
        if is_new {
            self.generation = newest;
        }
    }
}

/// Longest wait for a change that nobody tells of: how often an idle caller should look.
pub(super) const AUDIT_EVERY: Duration = Duration::from_secs(3600);

async fn call<R: Send + 'static>(
    link: &Link,
    job: impl FnOnce(&mut Connection) -> R + Send + 'static,
) -> Result<R, TargetError> {
    let gone = |source| TargetError::Unreachable { step: "using the socket".to_owned(), source };
    link.call(job).await.map_err(gone)
}

const PROBE: &str = "postern-probe";

fn owner_probe() -> Batch {
    let mut batch = Batch::new(super::FAMILY_INET, PROBE);
    batch.add_table(sys::TABLE_OWNER | sys::TABLE_PERSIST, "");
    batch
}

fn destroy_probe() -> Batch {
    let mut batch = Batch::new(super::FAMILY_INET, PROBE);
    batch.add_table(0, "");
    batch.add_set(&NewSet {
        name: PROBE,
        key_type: sys::TYPE_IPV4,
        key_bytes: 4,
        flags: sys::SET_TIMEOUT,
        size: 1,
        comment: "",
    });
    let element = sys::Element { key: &[0; 4], flags: 0, timeout_ms: None };
    batch.remove_elements(Removal::Destroy, PROBE, &[element]);
    batch
}
