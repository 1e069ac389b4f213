//! A list in a file, for a program that reads one.
//!
//! The file is replaced as a whole: written beside the old one, made durable, renamed over it. Then
//! the operator's command has the program read it.
//!
//! **How it is known to be ours.** Where the form has comments the file begins with them: the first
//! line names the owner, and each further one the mark of an entry, which has its deadline. Forms
//! without comments (`text`, `csv`, `json`, templates that name none) have the same lines beside the
//! file, in `.NAME.postern`, which is written first. The text below is what those entries make, letter
//! for letter; where it is not, somebody else was at it, and it is written anew. A file that says
//! nothing of us is somebody else's and never touched, unless it is empty.
//!
//! **When the command fails**, the file gets back what it said before, so that the program does not
//! trip over it at its next start, and the command is run once more. But taking away is not taken
//! back: what has ended or was withdrawn meanwhile does not return, and a deadline that was made
//! earlier stays so. As long as the command has not succeeded the program may still hold what has
//! ended, so it is run again until it does; and once by every agent that starts, which cannot know
//! what the program has read.

mod form;
mod head;
mod place;
mod template;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use postern_shared::error::chain;
use postern_shared::network::Network;
use postern_shared::time::Timestamp;
use tokio::time::Instant;

pub use self::form::Form;
pub use self::place::Who;
pub use self::template::{Line, Template};

use self::head::{Head, Reading};
use self::place::{Found, Seen, Watch};
use super::TargetError;
use super::marked::{Edits, Held, Provider, latest_deadline};
use crate::commands::{Commands, Deed, Program, Trade};
use crate::disk;

/// What was to be done with the file, and what that needs.
const READ: (&str, &str) = ("read", "needs to read it, to find what is ours");
const WRITTEN: (&str, &str) = ("written", "needs to write in its folder");

/// Where a list is written, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// The file.
    pub path: PathBuf,
    /// What is written.
    pub form: Form,
    /// Who may read it.
    pub mode: u32,
    /// Whose it is, where it is not the agent's.
    pub user: Option<Who>,
    /// The same of its group.
    pub group: Option<Who>,
    /// What has the program read it; nothing where it looks by itself.
    pub reload: Option<Program>,
}

impl FileConfig {
    /// For whom the file is where nobody says otherwise: addresses are people's.
    pub const MODE: u32 = 0o640;
}

/// A file, as a provider of entries.
#[derive(Debug)]
pub struct File {
    config: FileConfig,
    owner: String,
    commands: Commands,
    /// What it says of itself; `None` where there is no file.
    head: Option<Head>,
    /// What is below says the same.
    is_true: bool,
    /// The program has not read it, as far as is known.
    is_owed: bool,
    /// What says so to the next process was there.
    was_owed: bool,
    seen: Option<Seen>,
    watch: Option<Watch>,
    now: (Timestamp, Instant),
}

impl File {
    /// Makes the target `owner`; nothing is looked at yet.
    pub fn new(config: FileConfig, owner: &str, commands: Commands) -> File {
        File {
            is_owed: config.reload.is_some(),
            config,
            owner: owner.to_owned(),
            commands,
            head: None,
            is_true: false,
            was_owed: false,
            seen: None,
            watch: None,
            now: (Timestamp::EPOCH, Instant::now()),
        }
    }

    fn now(&self) -> Timestamp {
        self.now.0.saturating_add(self.now.1.elapsed())
    }

    /// Where the head stands in a form without comments.
    fn sidecar(&self) -> Option<PathBuf> {
        self.config.form.comment().is_none().then(|| self.beside("postern"))
    }

    /// What is there from a write until the program has read what was written.
    fn owing(&self) -> PathBuf {
        self.beside("owed")
    }

    fn beside(&self, what: &str) -> PathBuf {
        let name = self.config.path.file_name().unwrap_or_default().to_string_lossy();
        self.config.path.with_file_name(format!(".{name}.{what}"))
    }

    fn body(&self, head: &Head) -> String {
        self.config.form.write(head.deadlines(&self.owner), head.written_at)
    }

    /// Takes what was found, beside the file or in it.
    fn take(&mut self, file: &Found, beside: Option<&Found>) -> Result<(), TargetError> {
        let comment = self.config.form.comment();
        let path = self.config.path.display();
        let (body, reading) = match (file, beside) {
            (Found::Strange(what), _) | (_, Some(Found::Strange(what))) => {
                return Err(rejected(format!("{path} is {what}")));
            }
            (Found::Nothing, None | Some(Found::Nothing)) => (None, None),
            (Found::File { text }, None) => (None, Some(Head::read(text, &self.owner, comment))),
            (Found::Nothing, Some(Found::File { text: head })) => {
                (None, Some(Head::read(head, &self.owner, None)))
            }
            (Found::File { text }, Some(Found::File { text: head })) => {
                (Some(text.as_str()), Some(Head::read(head, &self.owner, None)))
            }
            (Found::File { text }, Some(Found::Nothing)) => {
                (None, (!text.is_empty()).then_some(Reading::Foreign))
            }
        };
        let is_empty = matches!(file, Found::File { text } if text.is_empty());
        (self.head, self.is_true) = match reading {
            Some(Reading::Foreign) if !is_empty || beside.is_some() => {
                return Err(rejected(format!(
                    "{path} is not this target's: {}; move it away, or name another path",
                    match comment {
                        Some(start) =>
                            format!("it does not begin with `{start} postern {} `", self.owner),
                        None => "nothing beside it says so".to_owned(),
                    }
                )));
            }
            None | Some(Reading::Foreign) => (None, false),
            Some(Reading::Broken) => {
                (Some(Head { written_at: Timestamp::EPOCH, entries: BTreeMap::new() }), false)
            }
            Some(Reading::Ours(head, behind)) => {
                let is_true = match beside {
                    None => self.body(&head) == behind,
                    Some(_) => body.is_some_and(|body| self.body(&head) == body),
                };
                (Some(head), is_true)
            }
        };
        Ok(())
    }

    /// Puts a file there that holds these entries.
    async fn put(&mut self, entries: BTreeMap<Network, String>) -> Result<(), TargetError> {
        let head = Head { written_at: self.now(), entries };
        let comment = self.config.form.comment();
        let (above, below) = (head.write(&self.owner, comment), self.body(&head));
        self.is_true = false;
        self.is_owed = self.config.reload.is_some();
        let owing = self.is_owed.then(|| self.owing());
        let (sidecar, config) = (self.sidecar(), self.config.clone());
        let written = on_disk(move || {
            let put = |path: &Path, text: &str| {
                place::put(path, text, config.mode, config.user.as_ref(), config.group.as_ref())
            };
            if let Some(owing) = &owing {
                put(owing, "")?;
            }
            match &sidecar {
                Some(sidecar) => {
                    put(sidecar, &above)?;
                    put(&config.path, &below)?;
                }
                None => put(&config.path, &(above + &below))?,
            }
            Ok(place::see(&config.path))
        });
        self.seen =
            written.await.map_err(|source| unreachable(&self.config.path, WRITTEN, source))?;
        (self.head, self.is_true) = (Some(head), true);
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), String> {
        if let Some(program) = self.config.reload.clone().filter(|_| self.is_owed) {
            let trade = Trade::Reload(program);
            let done = self.commands.carry_out(&self.owner, &trade, &Deed::Reload {}).await;
            done.map_err(|error| chain(&error))?;
            (self.is_owed, self.was_owed) = (false, false);
            let owing = self.owing();
            match on_disk(move || fs::remove_file(owing)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // The next process has the program read it once more, which harms nothing.
                    tracing::warn!(%error, target_name = %self.owner, "a file's mark stays");
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether what is left of the time is written anew, or the text is.
    fn is_written(&self) -> bool {
        let is_old = |head: &Head| {
            let age = self.now().since(head.written_at);
            self.config.form.good_for().is_some_and(|good_for| good_for < age)
        };
        self.is_true && self.head.as_ref().is_some_and(|head| !is_old(head))
    }
}

impl Provider for File {
    const KIND: &'static str = "file";

    /// Each write runs the command.
    const RENEW_PART: u32 = 2;

    fn tell_time(&mut self, now: Timestamp) {
        self.now = (now, Instant::now());
    }

    async fn read(&mut self) -> Result<(), TargetError> {
        self.is_true = false;
        let path = self.config.path.clone();
        if self.watch.is_none() {
            self.watch = Some(Watch::on(&path));
        }
        let (sidecar, owing) = (self.sidecar(), self.owing());
        let looked = on_disk(move || {
            let (file, seen) = place::look(&path)?;
            let beside = sidecar.map(|sidecar| place::look(&sidecar)).transpose()?;
            Ok((file, beside.map(|(beside, _)| beside), seen, owing.try_exists()?))
        });
        let (file, beside, seen, was_owed) =
            looked.await.map_err(|source| unreachable(&self.config.path, READ, source))?;
        (self.seen, self.was_owed) = (seen, was_owed);
        self.take(&file, beside.as_ref())
    }

    fn held(&self) -> BTreeMap<Network, Held> {
        let entries = self.head.iter().flat_map(|head| &head.entries);
        let held = |mark: &String| Held { descriptions: [mark.clone()].into(), is_whole: true };
        entries.map(|(network, mark)| (*network, held(mark))).collect()
    }

    fn is_taken(&self, _network: Network) -> bool {
        false
    }

    fn is_settled(&self) -> bool {
        self.is_written() && !self.is_owed
    }

    fn doubt(&self) -> Option<String> {
        let path = self.config.path.display();
        (self.head.is_some() && !self.is_true).then(|| {
            format!(
                "{path} was changed by somebody or is damaged: what is overdue in it is not known"
            )
        })
    }

    fn is_unfinished(&self) -> bool {
        self.was_owed && self.config.reload.is_some()
    }

    fn preview(&self, edits: &Edits) -> String {
        let mut text = format!("# {}\n", self.config.path.display());
        let lines = edits.remove.iter().map(|network| format!("- {network}"));
        let lines =
            lines.chain(edits.put.iter().map(|(network, mark)| format!("+ {network} {mark}")));
        text.extend(lines.map(|line| line + "\n"));
        if let Some(program) = &self.config.reload {
            writeln!(text, "# then: {}", program.argv.join(" ")).expect("a string takes any text");
        }
        text
    }

    async fn write(&mut self, edits: &Edits) -> Result<(), TargetError> {
        let before = self.head.as_ref().map(|head| head.entries.clone()).unwrap_or_default();
        let mut after = before.clone();
        after.retain(|network, _| !edits.remove.contains(network));
        after.extend(edits.put.iter().map(|(network, mark)| (*network, mark.clone())));
        // What says how much time is left is read only when it was just written.
        let is_timed = self.is_owed && self.config.form.good_for().is_some();
        if before != after || is_timed || !self.is_written() {
            self.put(after.clone()).await?;
        }
        let Err(why) = self.reload().await else { return Ok(()) };
        let rolled_back = rolled_back(before, edits, &self.owner, self.now());
        if rolled_back == after {
            return Err(rejected(why));
        }
        self.put(rolled_back).await?;
        let again = match self.reload().await {
            Ok(()) => "as it was before",
            Err(_) => "as it was before, and the program may not have read that either",
        };
        Err(rejected(format!("{why}; {} is {again}", self.config.path.display())))
    }

    async fn disturbed(&mut self) {
        match &self.watch {
            Some(watch) => loop {
                watch.noticed().await;
                if place::see(&self.config.path) != self.seen {
                    return;
                }
            },
            None => std::future::pending().await,
        }
    }
}

/// What a file is to say when the program refused to read what `edits` made of it: what it said
/// before, without what has been taken away since. Expiry and withdrawal win.
fn rolled_back(
    mut entries: BTreeMap<Network, String>,
    edits: &Edits,
    owner: &str,
    now: Timestamp,
) -> BTreeMap<Network, String> {
    entries.retain(|network, mark| {
        if let Some(other) = edits.put.get(network)
            && latest_deadline(other, owner) < latest_deadline(mark, owner)
        {
            mark.clone_from(other);
        }
        let is_live = latest_deadline(mark, owner).is_some_and(|expiry| expiry.is_live_at(now));
        is_live && !edits.remove.contains(network)
    });
    entries
}

fn unreachable(path: &Path, (what, need): (&str, &str), source: io::Error) -> TargetError {
    let refusals = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
    let hint = match refusals.contains(&source.kind()) {
        true => format!("; user {}, as whom this runs, {need}; see README.md", disk::own_user()),
        false => String::new(),
    };
    TargetError::Unreachable {
        step: format!("{} could not be {what}{hint}", path.display()),
        source,
    }
}

fn rejected(reason: String) -> TargetError {
    TargetError::Rejected { reason }
}

/// Disks may be slow: a thread of its own waits for them.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_to_do_what_is_told_with_what_was_refused() {
        let told = |step, kind: io::ErrorKind| {
            unreachable(Path::new("/a/b"), step, kind.into()).to_string()
        };

        let unread = told(READ, io::ErrorKind::PermissionDenied);
        let unwritten = told(WRITTEN, io::ErrorKind::ReadOnlyFilesystem);
        let full = told(WRITTEN, io::ErrorKind::StorageFull);

        let user = format!("user {}, as whom this runs, needs to", disk::own_user());
        assert!(unread.contains(&format!("/a/b could not be read; {user} read it")), "{unread}");
        assert!(unwritten.contains(&format!("written; {user} write in its folder")), "{unwritten}");
        assert!(full.ends_with("/a/b could not be written"), "{full}");
    }
}
