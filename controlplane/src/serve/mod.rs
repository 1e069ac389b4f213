//! The daemon's life: everything put together, kept going, and taken apart in order.
//!
//! | state | ends when | goes to |
//! | --- | --- | --- |
//! | starting: configuration, store, sockets | all of it is there | serving; the process ends when not |
//! | serving | SIGTERM or SIGINT | draining |
//! | serving | SIGHUP | serving, with what can be reloaded |
//! | serving | the store fails | the process ends at once: start-up is recovery |
//! | draining: requests finish, then the writer | all is done, or the limit is reached | the end |

mod log;
mod service_manager;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use postern_shared::error::chain;
use postern_shared::time::Ttl;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::timeout;

use self::log::LogControl;
use self::service_manager::ServiceManager;
use crate::app::{self, App, Settings};
use crate::audit::AuditKey;
use crate::chance::{Chance, OsChance};
use crate::clock::SteadyClock;
use crate::config::{Config, ConfigError, Log, TlsFiles};
use crate::data_dir::{DataDir, DataDirError, ensure_audit_key};
use crate::engine::{Engine, StartError, Stopped};
use crate::http::Border;
use crate::http::border::finish;
use crate::mail::{MailError, Outbox, Patience, Transport};
use crate::metrics::{Metrics, MetricsError};
use crate::operator::route::{self, AskPlane};
use crate::people::People;
use crate::seal::Sealer;
use crate::server::{
    Certificates, Limits, ListenError, Listener, Server, TlsError, TrustedProxies,
};
use crate::store::{OpenError, Options, RedbStore, Store as _, free_bytes};

/// On top of the drain limit of the connections, for the writer and the way out.
const WAY_OUT: Duration = Duration::from_secs(5);

/// Why the daemon did not start, or ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system refused threads or signal handlers.
    #[error("cannot start")]
    System(#[from] io::Error),
    /// The metrics cannot be collected.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be loaded.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A file of the data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Mail cannot be sent.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store failed. What was acknowledged is durable; starting again is recovery.
    #[error("the store failed; start again, start-up is recovery")]
    StoreFailed,
}

/// Runs the daemon until it is asked to stop.
pub fn serve(config_path: &Path) -> Result<(), ServeError> {
    let config = Config::load(config_path)?;
    let log = LogControl::install(config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(live(config_path, config, log));
    leave(runtime);
    ended
}

/// Waits for nothing: what was acknowledged is durable, and what was not was never promised.
fn leave(runtime: Runtime) {
    runtime.shutdown_background();
}

async fn live(config_path: &Path, config: Config, log: LogControl) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut daemon = Daemon::start(config, log).await?;
    let manager = ServiceManager::ready(&daemon.engine);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    loop {
        tokio::select! {
            biased;
            () = daemon.writer_ended() => return Err(ServeError::StoreFailed),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                manager.reloading();
                daemon.reload(config_path).await;
                manager.reloaded();
            }
        }
    }
    manager.stopping();
    daemon.drain().await
}

/// Everything that runs.
struct Daemon {
    config: Config,
    log: LogControl,
    engine: Engine,
    app: App,
    writer: JoinHandle<thread::Result<()>>,
    certificates: Vec<(TlsFiles, Arc<Certificates>)>,
    /// How long the audit is kept; for ever when none.
    keep: watch::Sender<Option<Ttl>>,
    /// Servers and what keeps them going; all end when `stop` turns true.
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Daemon {
    /// Starts in the order in which one thing needs the other: files, store, sockets.
    async fn start(config: Config, log: LogControl) -> Result<Daemon, ServeError> {
        let metrics = Metrics::install()?;
        let data = DataDir::of(&config);
        data.require()?;
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
        // Missing or damaged, it is to be known now, not when something has to be unsealed.
        let sealer = Sealer::load(&data, credentials.as_deref())?;
        let audit_key = ensure_audit_key(&data.audit_key(credentials.as_deref()), &OsChance)?;
        let mail = config.mail.as_ref();
        let mail = mail.map(|mail| Transport::new(mail, config.public_url.host())).transpose()?;
        let certificates = load_certificates(&config)?;
        let (engine, writer, clock) = start_engine(data.store(), audit_key).await?;
        let outbox = mail
            .map(|mail| Outbox::start(mail, Patience::USUAL, engine.clone(), Arc::new(OsChance)));
        let people = People::new(sealer, outbox.clone());
        let app = App::new(engine.clone(), settings(&config), people);
        let own = data.own_certificate(&config);
        let mut daemon = Daemon {
            writer: spawn_blocking(move || writer.join()),
            engine: engine.clone(),
            app: app.clone(),
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
            keep: watch::Sender::new(config.audit_keep),
            certificates,
            log,
            config,
        };
        let own = own.and_then(|own| daemon.certificates_of(&own));
        let border = Border::new(TrustedProxies::NONE, clock.clone(), &OsChance);
        let public = app::router(app.clone());
        if let Some(own) = own {
            app.pin_to(own);
        }
        let ask_plane: AskPlane = Arc::new(move || app.plane());
        let control = finish(route::router(engine, ask_plane, outbox), border);
        daemon.open(public, control, &metrics)?;
        daemon.keep_going(metrics, clock);
        Ok(daemon)
    }

    /// Opens all sockets, then serves them: no request is taken unless everything is there.
    fn open(
        &mut self,
        public: Router,
        control: Router,
        metrics: &Metrics,
    ) -> Result<(), ServeError> {
        let config = &self.config;
        let (limits, proxies) = (config.limits.clone(), config.proxies.clone());
        let public = Server::new(public, limits, proxies.clone());
        let control = Server::new(control, Limits::OPERATOR, TrustedProxies::NONE);
        let mut serving = vec![(control, Listener::unix(&config.control_socket)?)];
        for listen in &config.listen {
            let certificates = listen.tls.as_ref().and_then(|tls| self.certificates_of(tls));
            serving.push((public.clone(), Listener::tcp(listen.address, certificates)?));
        }
        if let Some(address) = config.metrics {
            let figures = Server::new(metrics.router(address), Limits::OPERATOR, proxies);
            serving.push((figures, Listener::tcp(address, None)?));
        }
        for (server, listener) in serving {
            if let Some(address) = listener.local_address() {
                tracing::info!(%address, "listening");
            }
            let stop = self.stop.subscribe();
            self.tasks.spawn(async move { server.serve(listener, stop).await });
        }
        Ok(())
    }

    fn certificates_of(&self, files: &TlsFiles) -> Option<Arc<Certificates>> {
        let found = self.certificates.iter().find(|(of, _)| of == files);
        found.map(|(_, certificates)| Arc::clone(certificates))
    }

    /// Starts what runs beside the servers.
    fn keep_going(&mut self, metrics: Metrics, clock: Arc<SteadyClock>) {
        for (_, certificates) in &self.certificates {
            let (certificates, stop) = (Arc::clone(certificates), self.stop.subscribe());
            self.tasks.spawn(async move {
                if let Err(error) = certificates.follow_files(stop).await {
                    let error = chain(&error);
                    tracing::error!(error, "certificates are reloaded on SIGHUP only");
                }
            });
        }
        self.tasks.spawn(metrics.upkeep(self.stop.subscribe()));
        let (engine, data) = (self.engine.clone(), DataDir::of(&self.config).store());
        self.tasks.spawn(show_state(engine, clock, data, self.stop.subscribe()));
        self.tasks.spawn(keep_audit(
            self.app.clone(),
            self.keep.subscribe(),
            self.stop.subscribe(),
        ));
    }

    /// Resolves when the writer has ended, which it does only after a failure.
    async fn writer_ended(&mut self) {
        // Whether it panicked or said so makes no difference: nothing can be committed any more.
        drop((&mut self.writer).await);
    }

    /// Takes over from the file what can change while the daemon runs. A bad file changes nothing.
    async fn reload(&mut self, config_path: &Path) {
        let path = config_path.to_owned();
        let loaded = spawn_blocking(move || Config::load(&path)).await;
        match loaded.expect("reading a configuration does not panic") {
            Ok(new) => {
                self.log.set(new.log);
                self.app.reload(settings(&new));
                if !self.take_over(new) {
                    tracing::warn!("some of what has changed needs a restart");
                }
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "kept the old configuration");
            }
        }
        for (files, certificates) in &self.certificates {
            let certificates = Arc::clone(certificates);
            let reloaded = spawn_blocking(move || certificates.reload()).await;
            match reloaded.expect("reading a certificate does not panic") {
                Ok(true) => {
                    let path = files.certificate.display();
                    tracing::info!(%path, "took the new certificate into use");
                }
                Ok(false) => {}
                Err(error) => tracing::error!(error = chain(&error), "kept the old certificate"),
            }
        }
        tracing::info!("reloaded");
    }

    /// Notes the configuration in force; says whether that is all of the new one.
    fn take_over(&mut self, new: Config) -> bool {
        let json = self.config.log.json;
        let in_force = Config {
            public_url: new.public_url.clone(),
            family_urls: new.family_urls.clone(),
            ttl: new.ttl,
            allow_private: new.allow_private,
            rates: new.rates,
            cors_origins: new.cors_origins.clone(),
            log: Log { json, ..new.log },
            audit_keep: new.audit_keep,
            ..self.config.clone()
        };
        let is_all = in_force == new;
        self.keep.send_replace(new.audit_keep);
        self.config = in_force;
        is_all
    }

    /// Lets requests finish, then has the writer end after everything that waits for it.
    async fn drain(mut self) -> Result<(), ServeError> {
        tracing::info!("stopping");
        self.stop.send_replace(true);
        let limit = self.config.limits.drain + WAY_OUT;
        let drained = timeout(limit, async { while self.tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!("some requests did not finish in time");
        }
        self.app.record_refusals().await;
        self.engine.stop().await;
        self.writer_ended().await;
        match *self.engine.watch_stopped().borrow() {
            Some(Stopped::Asked) => {
                tracing::info!("stopped");
                Ok(())
            }
            Some(Stopped::StoreFailed) | None => Err(ServeError::StoreFailed),
        }
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        public_url: config.public_url.clone(),
        family_urls: config.family_urls.clone(),
        ttl: config.ttl,
        allow_private: config.allow_private,
        proxies: config.proxies.clone(),
        rates: config.rates,
        cors_origins: config.cors_origins.clone(),
    }
}

fn load_certificates(config: &Config) -> Result<Vec<(TlsFiles, Arc<Certificates>)>, TlsError> {
    let mut certificates: Vec<(TlsFiles, Arc<Certificates>)> = Vec::new();
    for files in config.listen.iter().filter_map(|listen| listen.tls.as_ref()) {
        if certificates.iter().all(|(loaded, _)| loaded != files) {
            certificates.push((files.clone(), Certificates::load(&files.certificate, &files.key)?));
        }
    }
    Ok(certificates)
}

/// Opens the store and starts the writer; on a thread that may block, since all of the file is
/// checked.
async fn start_engine(
    path: PathBuf,
    audit_key: AuditKey,
) -> Result<(Engine, thread::JoinHandle<()>, Arc<SteadyClock>), ServeError> {
    let started = spawn_blocking(move || {
        let store = RedbStore::open(&path, Options::default())?;
        let clock = Arc::new(SteadyClock::start(store.high_water()));
        let chance: Arc<dyn Chance> = Arc::new(OsChance);
        let (engine, writer) =
            Engine::start_signing(Box::new(store), clock.clone(), chance, audit_key)?;
        Ok((engine, writer, clock))
    });
    started.await.expect("opening the store does not panic")
}

/// Once a minute: records the refusals, signs what commits have left unsigned, prunes what is
/// older than it has to be.
async fn keep_audit(app: App, keep: watch::Receiver<Option<Ttl>>, mut stop: watch::Receiver<bool>) {
    const EVERY: Duration = Duration::from_secs(60);
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        app.record_refusals().await;
        app.engine().sign_audit().await;
        let keep = *keep.borrow();
        if let Some(keep) = keep {
            app.engine().prune_audit(keep.as_duration()).await;
        }
    }
}

/// Shows in the figures what no request tells: how much there is, how much room is left on the
/// disk, and how far the wall clock has moved since the start.
async fn show_state(
    engine: Engine,
    clock: Arc<SteadyClock>,
    store: PathBuf,
    mut stop: watch::Receiver<bool>,
) {
    const EVERY: Duration = Duration::from_secs(15);
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        metrics::gauge!("postern_clock_skew_seconds").set(clock.skew());
        let counts = engine.state().counts();
        for (what, count) in counts {
            metrics::gauge!("postern_records", "kind" => what).set(count as f64);
        }
        let store = store.clone();
        match spawn_blocking(move || free_bytes(&store)).await {
            Ok(Ok(free)) => metrics::gauge!("postern_store_free_bytes").set(free as f64),
            Ok(Err(error)) => tracing::debug!(%error, "nobody knows how full the disk is"),
            Err(error) => tracing::debug!(%error, "nobody looked how full the disk is"),
        }
    }
}
