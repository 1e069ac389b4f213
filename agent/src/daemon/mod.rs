//! The daemon: starts the tasks of a configuration, and others when it changes.

mod answer;
mod session;
#[cfg(test)]
mod tests;
mod verdict;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postern_shared::error::chain;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub(crate) use self::answer::{Office, shown};
pub(crate) use self::session::followed;
use self::session::{Parts, Session};
use crate::cache::{Cache, Witness};
use crate::chance;
use crate::client::{Client, PlaneError};
use crate::clock::{SteadyClock, suspended};
use crate::config::{Config, ConfigError, GroupRef, TargetConfig};
use crate::control;
use crate::credential::{Credential, CredentialError, Place};
use crate::directory::Directory;
use crate::disk;
use crate::firewalls::Firewalls;
use crate::flushed::FlushedTargets;
use crate::lists::Lists;
use crate::lock::{self, LockError};
use crate::metrics;
use crate::status::{Board, TargetNotes, TargetState};

/// How often the daemon looks after itself where no watchdog asks for more.
const TICK: Duration = Duration::from_secs(10);
/// A pass that takes this long hangs: the watchdog is told no more.
const PASS_MAX: Duration = Duration::from_secs(180);
/// A gap of this much between the clocks means that the machine was suspended.
const SUSPENDED_MIN: Duration = Duration::from_secs(1);
/// How long the start of the machine may be held up by first passes; less than the service
/// manager's patience.
const FIRST_PASSES_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether they are done.
const FIRST_PASSES_LOOK: Duration = Duration::from_millis(5);
/// Reloads that wait; an operator who asks more often is told to wait.
const RELOADS_MAX: usize = 4;

/// Why the daemon cannot start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("could not prepare the connection to the control plane")]
    Client(#[source] PlaneError),
    #[error("could not use the state directory {path}")]
    StateDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not listen at the control socket {path}")]
    Control {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Groups(String),
    #[error("could not catch signals")]
    Signals(#[source] io::Error),
    #[error("a task of the agent ended")]
    TaskEnded,
}

/// An operator's wish for a reload, and where to say how it went.
pub(crate) type ReloadAsked = oneshot::Sender<Result<usize, String>>;

/// Why the configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The operator said so at the socket: what was flushed is filled again.
    Asked,
    /// The operator or the service manager said so by SIGHUP: the same.
    Signalled,
    /// The file changed.
    Noticed,
}

impl Cause {
    const fn word(self) -> &'static str {
        match self {
            Cause::Asked => "the operator asked",
            Cause::Signalled => "SIGHUP",
            Cause::Noticed => "the file changed",
        }
    }
}

/// Runs until a signal ends it.
pub(crate) async fn run<F: Firewalls>(
    config_path: PathBuf,
    firewalls: F,
) -> Result<(), DaemonError> {
    let config = Config::load(&config_path)?;
    crate::log::start(&config.log);
    let state_dir = config.state_dir.clone();
    let ensured = disk::ensure_directory(&state_dir);
    ensured.map_err(|source| DaemonError::StateDir { path: state_dir.clone(), source })?;
    let _lock = lock::acquire(&state_dir)?;
    let (reload_asked, mut reloads) = mpsc::channel(RELOADS_MAX);
    let mut daemon = Daemon::start(config_path, config, firewalls)?;
    let listener = control::listen(&daemon.config.control)
        .map_err(|source| DaemonError::Control { path: daemon.config.control.clone(), source })?;
    let office = Arc::clone(&daemon.office);
    let mut control = tokio::spawn(control::serve(listener, office, reload_asked));
    let (mut watcher, mut changes) = watch::configuration(&daemon.config_path);
    let mut groups = daemon.parts.groups.subscribe();
    let caught = |kind| signal(kind).map_err(DaemonError::Signals);
    let (mut hangup, mut terminate) =
        (caught(SignalKind::hangup())?, caught(SignalKind::terminate())?);
    let mut interrupt = caught(SignalKind::interrupt())?;
    let mut tick = tokio::time::interval(
        sd_notify::watchdog_enabled().map_or(TICK, |limit| (limit / 2).min(TICK)),
    );
    let board = Arc::clone(&daemon.parts.board);
    let mut ready = std::pin::pin!(timeout(FIRST_PASSES_MAX, first_passes(&board)));
    let mut is_ready = false;
    loop {
        tokio::select! {
            _ = &mut ready, if !is_ready => {
                is_ready = true;
                tell_manager(&[NotifyState::Ready]);
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => drop(daemon.reload(Cause::Signalled).await),
            Some(()) = changes.recv() => {
                // A directory that was replaced has to be watched anew.
                (watcher, changes) = watch::configuration(&daemon.config_path);
                drop(daemon.reload(Cause::Noticed).await);
            }
            Some(asked) = reloads.recv() => {
                let asked: ReloadAsked = asked;
                // Whoever asked may have gone.
                drop(asked.send(daemon.reload(Cause::Asked).await));
            }
            Ok(()) = groups.changed() => {
                let known = groups.borrow_and_update().clone();
                daemon.learn(Directory(known)).await;
            }
            _ = tick.tick() => daemon.look_after_itself().await,
            _ = daemon.session.tasks.join_next() => return Err(DaemonError::TaskEnded),
            _ = &mut control => return Err(DaemonError::TaskEnded),
        }
    }
    drop(watcher);
    tell_manager(&[NotifyState::Stopping]);
    tracing::info!("stopping; what is open stays open until its deadline");
    Ok(())
}

/// Waits until every target was looked at once: what is on the disk is then in the kernel, and the
/// network may come up.
async fn first_passes(board: &Board) {
    let is_done = |notes: &TargetNotes| {
        notes.status.passed_at.is_some() || notes.status.state == TargetState::Failing
    };
    while !board.read().targets.values().all(is_done) {
        tokio::time::sleep(FIRST_PASSES_LOOK).await;
    }
}

struct Daemon<F> {
    config_path: PathBuf,
    config: Config,
    firewalls: F,
    directory: Directory,
    client: Arc<Client>,
    parts: Parts<SteadyClock>,
    office: Arc<Office>,
    session: Session,
    suspended: Duration,
}

impl<F: Firewalls> Daemon<F> {
    fn start(config_path: PathBuf, config: Config, firewalls: F) -> Result<Daemon<F>, DaemonError> {
        let credential = credential(&config)?;
        let client = Arc::new(Client::new(&credential).map_err(DaemonError::Client)?);
        let clock = Arc::new(SteadyClock::start());
        let now = crate::clock::Clock::now(&*clock);
        let board = Arc::new(Board::new(credential.plane.to_string(), now));
        let witness = Arc::new(Witness::of_this_boot());
        let cache = match Cache::open(&config.state_dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let text = format!("there is none, a restart will need the control plane: {error}");
                tracing::error!(error = %text, "lists are kept in memory only");
                board.trouble("cache", Some(text));
                None
            }
        };
        let known = cache.as_ref().map(Cache::load_groups).unwrap_or_default();
        let directory = Directory(known.clone());
        let lists = Lists::new(&followed(&config, &directory), config.policy.clone(), now);
        let parts = Parts {
            clock,
            chance: chance::system,
            board,
            lists: Arc::new(lists),
            cache,
            witness,
            flushed: Arc::new(FlushedTargets::load(&config.state_dir)),
            groups: tokio::sync::watch::Sender::new(known),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        parts.forget_others(&config, &directory);
        parts.restore();
        let session = Session::start(&parts, &config, &directory, &client, &firewalls);
        let office = Arc::new(Office::new(&parts, now));
        office.renew(&config, &directory, &session);
        let suspended = suspended();
        tracing::info!(
            agent = %credential.agent, plane = %credential.plane, targets = config.targets.len(),
            "started"
        );
        Ok(Daemon {
            config_path,
            config,
            firewalls,
            directory,
            client,
            parts,
            office,
            session,
            suspended,
        })
    }

    /// Reads the configuration again; keeps the old one where the new one is wrong. Answers how
    /// many targets there are now, or all mistakes.
    async fn reload(&mut self, cause: Cause) -> Result<usize, String> {
        let monotonic = NotifyState::monotonic_usec_now();
        tell_manager(
            &[Some(NotifyState::Reloading), monotonic.ok()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>(),
        );
        let result = self.try_reload(cause).await.map_err(|error| chain(&error));
        tell_manager(&[NotifyState::Ready]);
        let word = cause.word();
        match &result {
            Ok(targets) => tracing::info!(targets, cause = word, "the configuration was reloaded"),
            Err(error) => tracing::error!(
                cause = word,
                error,
                "the configuration was not reloaded, the old one stays in force"
            ),
        }
        self.parts.board.trouble(
            "configuration",
            result.as_ref().err().map(|error| format!("the old one stays in force: {error}")),
        );
        result
    }

    async fn try_reload(&mut self, cause: Cause) -> Result<usize, DaemonError> {
        let config = Config::load(&self.config_path)?;
        // Before the plane was reached once nothing can be found: that is no mistake.
        if !self.directory.0.is_empty() {
            self.directory.resolve_all(named(&config)).map_err(DaemonError::Groups)?;
        }
        let credential = credential(&config)?;
        self.client = Arc::new(Client::new(&credential).map_err(DaemonError::Client)?);
        if config.state_dir != self.config.state_dir || config.control != self.config.control {
            tracing::warn!("`state_dir` and `control` are taken at the next start");
        }
        if config.log != self.config.log {
            tracing::warn!("`log` is taken at the next start");
        }
        self.config = config;
        match cause {
            Cause::Asked | Cause::Signalled => self.parts.flushed.clear(),
            Cause::Noticed => {}
        }
        self.restart().await;
        Ok(self.config.targets.len())
    }

    /// Takes what the plane told of the groups.
    async fn learn(&mut self, newest: Directory) {
        let directory = self.directory.learn(newest, named(&self.config));
        if directory == self.directory {
            return;
        }
        if let Some(cache) = &self.parts.cache
            && let Err(error) = cache.save_groups(&directory.0)
        {
            tracing::warn!(%error, "the names of the groups could not be saved");
        }
        let concerns_us = self.resolve(&directory) != self.resolve(&self.directory);
        self.directory = directory;
        if concerns_us {
            self.restart().await;
        } else {
            self.office.renew(&self.config, &self.directory, &self.session);
        }
    }

    fn resolve(&self, directory: &Directory) -> Vec<Result<postern_shared::ids::GroupId, String>> {
        named(&self.config).map(|group| directory.resolve(group)).collect()
    }

    /// Ends the tasks and starts others. What is in force stays so: targets are adopted.
    async fn restart(&mut self) {
        // The old targets have to let go of their firewalls before new ones reach for them.
        self.session.tasks.shutdown().await;
        self.parts.lists.lost();
        let now = crate::clock::Clock::now(&*self.parts.clock);
        let groups = followed(&self.config, &self.directory);
        self.parts.lists.reconfigure(&groups, self.config.policy.clone(), now);
        self.parts.forget_others(&self.config, &self.directory);
        self.parts.restore();
        let (parts, config, directory) = (&self.parts, &self.config, &self.directory);
        self.session = Session::start(parts, config, directory, &self.client, &self.firewalls);
        self.office.renew(config, directory, &self.session);
    }

    async fn look_after_itself(&mut self) {
        let suspended = suspended();
        if self.suspended + SUSPENDED_MIN <= suspended {
            tracing::info!("the machine was suspended; everything is looked at again");
            self.suspended = suspended;
            // The connection died in its sleep, and so did timers.
            self.restart().await;
        }
        self.write_metrics();
        let now = crate::clock::Clock::now(&*self.parts.clock);
        let notes = self.parts.board.read();
        let hanging = notes
            .targets
            .values()
            .find(|target| target.busy_since.is_some_and(|since| PASS_MAX < now.since(since)));
        if let Some(target) = hanging {
            tracing::error!(target_name = %target.status.name, "a pass hangs");
            return;
        }
        let status = self.office.summary();
        tell_manager(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }

    /// A small file, where the operator wants one: no reason for a thread.
    fn write_metrics(&self) {
        let Some(path) = &self.config.metrics_file else { return };
        let written = metrics::write(path, &self.office.status());
        let trouble = written.err().map(|error| format!("{}: {error}", path.display()));
        self.parts.board.trouble("metrics_file", trouble);
    }
}

impl Parts<SteadyClock> {
    /// Removes lists that the configuration has no use for; where it names groups that nobody
    /// knows yet, any list may be theirs.
    fn forget_others(&self, config: &Config, directory: &Directory) {
        if let Some(cache) = &self.cache
            && let Ok(groups) = directory.resolve_all(named(config))
        {
            cache.keep_only(&groups);
        }
    }

    /// Gives lists that have none what is on the disk.
    fn restore(&self) {
        if let Some(cache) = &self.cache {
            cache.restore(&self.lists, &self.witness, &*self.clock);
        }
    }
}

/// The groups that a configuration names.
fn named(config: &Config) -> impl Iterator<Item = &GroupRef> {
    config.targets.iter().flat_map(TargetConfig::groups)
}

/// Reads the credential; the configuration may name another address of the same plane.
pub(crate) fn credential(config: &Config) -> Result<Credential, CredentialError> {
    let credential = Credential::load(&place(config))?;
    let plane = config.plane.url.clone().unwrap_or_else(|| credential.plane.clone());
    Ok(Credential { plane, ..credential })
}

/// Where the credential is.
pub(crate) fn place(config: &Config) -> Place {
    let given = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Place::find(config.plane.credential.as_deref(), given.as_deref(), &config.state_dir)
}

fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}
