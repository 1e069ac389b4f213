//! `init`: a data directory from nothing, whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postern_shared::ids::{Epoch, OrgId, UserId};
use postern_shared::time::Timestamp;
use rustix::fs::{FlockOperation, flock};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::arguments::Init;
use crate::audit::{AUDIT_KEY_BYTES, AuditKey};
use crate::chance::{Chance, OsChance};
use crate::clock::SteadyClock;
use crate::config::{Config, ConfigError, PublicUrl, TlsFiles};
use crate::data_dir::{DataDir, DataDirError, SEALING_KEY_BYTES, plane, read_audit_key};
use crate::domain::{Actor, Command, Order, Org, Role, User};
use crate::engine::{Engine, Refused, StartError};
use crate::operator::{
    MintedKey, OperatorError, Plane, UserLink, invite_first_admin, mint_first_key,
};
use crate::server::{CertificateError, self_signed};
use crate::store::{OpenError, Options, RedbStore};

/// What was made.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    pub(super) config: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) org: OrgId,
    pub(super) admin: UserId,
    /// What agents know the plane by, where it made its own certificate.
    pub(super) pin: Option<String>,
    pub(super) key: MintedKey,
    /// How the admin gets in.
    pub(super) invitation: UserLink,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error("{} holds a control plane already; `init` only makes new ones", .0.display())]
    Exists(PathBuf),
    #[error(
        "an empty store would take the place of a lost one; to begin anew, use another directory"
    )]
    Lost(#[source] DataDirError),
    #[error("{} exists already with other content; give it with --config", .0.display())]
    ConfigExists(PathBuf),
    #[error("{} cannot be written into a configuration; choose a path in UTF-8", .0.display())]
    NotText(PathBuf),
    #[error("another `init` works on {}", .0.display())]
    Busy(PathBuf),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot {step} {}", path.display())]
    File {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Plane(#[from] DataDirError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the first org cannot be made")]
    Org(#[from] Refused),
    #[error("the first key or the admin's invitation cannot be made")]
    First(#[from] OperatorError),
}

/// The directory, inside the data directory, in which everything is made before it is put in
/// place.
const UNFINISHED: &str = ".init";

/// Makes a control plane that does not exist yet.
///
/// Everything is made in a directory beside its place first. The store comes last and is what
/// makes a control plane of the rest: when this is ended half-way, the next run begins anew.
pub(super) async fn init(arguments: Init) -> Result<Made, InitError> {
    let (config_path, config_text, config) = configuration(&arguments)?;
    let data = DataDir::of(&config);
    let owner = prepare(data.path())?;
    let lock = File::open(data.path()).map_err(failed("open", data.path()))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| InitError::Busy(data.path().to_owned()))?;
    if data.store().exists() {
        return Err(InitError::Exists(data.path().to_owned()));
    }
    data.refuse_lost().map_err(InitError::Lost)?;
    let workshop = Workshop::open(data.path(), owner)?;
    if let Some(text) = config_text {
        workshop.put(&config_path, text.as_bytes())?;
    }
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let credentials = credentials.as_deref();
    make_secret::<SEALING_KEY_BYTES>(&workshop, &data.sealing_key(credentials))?;
    let audit_key = data.audit_key(credentials);
    make_secret::<AUDIT_KEY_BYTES>(&workshop, &audit_key)?;
    let own = data.own_certificate(&config);
    make_certificate(&workshop, own.as_ref(), &config.public_url)?;
    let plane = plane(&config)?;
    let signing = read_audit_key(&audit_key)?;
    let First { org, admin, key, invitation } =
        make_store(&workshop, &data, &plane, signing, arguments).await?;
    let (config, data_dir, pin) = (config_path, config.data_dir, plane.pin);
    Ok(Made { config, data_dir, org, admin, pin, key, invitation })
}

/// Finds the configuration: the one that is there, or the text of the one to be written.
fn configuration(arguments: &Init) -> Result<(PathBuf, Option<String>, Config), InitError> {
    let Some(data_dir) = &arguments.data_dir else {
        let config = Config::load(&arguments.config)?;
        return Ok((arguments.config.clone(), None, config));
    };
    let data_dir = std::path::absolute(data_dir).map_err(failed("find", data_dir))?;
    let path = data_dir.join("controlplane.yaml");
    let text = config_text(&data_dir, &arguments.public_url)
        .ok_or_else(|| InitError::NotText(data_dir.clone()))?;
    let config = Config::parse(&text, &data_dir)
        .map_err(|mistakes| ConfigError::Mistakes { path: path.clone(), mistakes })?;
    match fs::read_to_string(&path) {
        // Of an `init` that was ended half-way.
        Ok(found) if found == text => Ok((path, None, config)),
        Ok(_) => Err(InitError::ConfigExists(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((path, Some(text), config)),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

/// Writes a configuration for a plane in `data_dir` that is reached under `url`. `None` where the
/// path is no text.
fn config_text(data_dir: &Path, url: &PublicUrl) -> Option<String> {
    let address = if url.is_here() { "127.0.0.1" } else { "[::]" };
    // A JSON string is a YAML string, whatever is in it.
    let quoted = |path: &Path| path.to_str().map(|path| serde_json::Value::from(path).to_string());
    let directory = quoted(data_dir)?;
    let (certificate, key) =
        (quoted(&data_dir.join("tls.crt"))?, quoted(&data_dir.join("tls.key"))?);
    Some(format!(
        "# Written by `postern-controlplane init`; examples/controlplane.yaml explains every key.\n\
         data_dir: {directory}\n\
         public_url: {url}\n\
         listen:\n\
         \x20 - address: \"{address}:{port}\"\n\
         \x20   tls:\n\
         \x20     # Made by `init`; agents know it by its pin, which stands in their invitation.\n\
         \x20     certificate: {certificate}\n\
         \x20     key: {key}\n",
        port = url.port(),
    ))
}

/// Makes the data directory, or takes one that is there; answers to whom it belongs.
fn prepare(path: &Path) -> Result<(u32, u32), InitError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("make", path))?;
    let metadata = fs::metadata(path).map_err(failed("look at", path))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let closed = fs::set_permissions(path, Permissions::from_mode(0o700));
        closed.map_err(failed("close", path))?;
    }
    Ok((metadata.uid(), metadata.gid()))
}

/// Makes a secret of `N` bytes, unless it is there.
fn make_secret<const N: usize>(workshop: &Workshop, path: &Path) -> Result<(), InitError> {
    if path.exists() {
        return Ok(());
    }
    let mut secret = [0; N];
    OsChance.fill(&mut secret);
    workshop.put(path, &secret)
}

/// Makes the plane's own certificate, unless the configuration names another or it is there.
fn make_certificate(
    workshop: &Workshop,
    own: Option<&TlsFiles>,
    url: &PublicUrl,
) -> Result<(), InitError> {
    let Some(own) = own.filter(|own| !own.certificate.exists()) else { return Ok(()) };
    let made = self_signed(&[url.host().to_owned()])?;
    workshop.put(&own.key, made.key_pem.expose_secret().as_bytes())?;
    workshop.put(&own.certificate, made.certificate_pem.as_bytes())
}

/// What a new store begins with.
struct First {
    org: OrgId,
    admin: UserId,
    key: MintedKey,
    invitation: UserLink,
}

/// Makes the store with the first org, its admin and its first key, and puts it in place.
async fn make_store(
    workshop: &Workshop,
    data: &DataDir,
    plane: &Plane,
    signing: AuditKey,
    arguments: Init,
) -> Result<First, InitError> {
    let chance: &dyn Chance = &OsChance;
    let unfinished = workshop.path.join("store");
    let epoch = Epoch::from_random(chance.id());
    let store = RedbStore::create(&unfinished, epoch, Options::default())?;
    let clock = Arc::new(SteadyClock::start(Timestamp::EPOCH));
    let (engine, writer) =
        Engine::start_signing(Box::new(store), clock, Arc::new(OsChance), signing)?;
    let made = first_records(&engine, plane, arguments).await;
    engine.stop().await;
    // The store is closed when the writer is gone; a panic of it was printed.
    drop(tokio::task::spawn_blocking(move || writer.join()).await);
    let made = made?;
    workshop.install(&unfinished, &data.store())?;
    Ok(made)
}

async fn first_records(
    engine: &Engine,
    plane: &Plane,
    arguments: Init,
) -> Result<First, InitError> {
    let now = engine.now();
    let org = OrgId::from_random(engine.chance().id());
    let admin = UserId::from_random(engine.chance().id());
    let email = arguments.admin;
    let command = Command::CreateOrg {
        org: Org {
            id: org,
            name: arguments.org,
            created_at: now,
            pairs_numbered: 0,
            groups_numbered: 0,
        },
        admin: User { id: admin, org, email: email.clone(), role: Role::Admin, created_at: now },
    };
    engine.submit(Order { actor: Actor::Operator, source: None, command }).await?;
    let key = mint_first_key(engine, plane, org, arguments.origins).await?;
    let invitation = invite_first_admin(engine, plane, org, email).await?;
    Ok(First { org, admin, key, invitation })
}

/// A directory for what is not finished; gone when dropped.
#[derive(Debug)]
struct Workshop {
    path: PathBuf,
    owner: (u32, u32),
}

impl Workshop {
    fn open(data_dir: &Path, owner: (u32, u32)) -> Result<Workshop, InitError> {
        let path = data_dir.join(UNFINISHED);
        match fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("clean up", &path)(error)),
        }
        DirBuilder::new().mode(0o700).create(&path).map_err(failed("make", &path))?;
        Ok(Workshop { path, owner })
    }

    /// Writes a file of mode 0600 that appears whole at `target`.
    fn put(&self, target: &Path, content: &[u8]) -> Result<(), InitError> {
        let unfinished = self.path.join("file");
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&unfinished);
        let mut file = file.map_err(failed("make", &unfinished))?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(failed("write", &unfinished))?;
        self.install(&unfinished, target)
    }

    /// Gives a finished file its place, where there must be none.
    fn install(&self, unfinished: &Path, target: &Path) -> Result<(), InitError> {
        let (uid, gid) = self.owner;
        if rustix::process::geteuid().is_root() {
            let given = std::os::unix::fs::chown(unfinished, Some(uid), Some(gid));
            given.map_err(failed("give away", unfinished))?;
        }
        fs::hard_link(unfinished, target).map_err(failed("make", target))?;
        fs::remove_file(unfinished).map_err(failed("clean up", unfinished))?;
        let folder = target.parent().unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(failed("write", folder))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "could not clean up");
        }
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InitError {
    move |source| InitError::File { step, path: path.to_owned(), source }
}
