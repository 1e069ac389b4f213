//! What lies in the data directory, and what is read from it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretBox};

use crate::audit::{AUDIT_KEY_BYTES, AuditKey};
use crate::chance::Chance;
use crate::config::{Config, TlsFiles};
use crate::operator::Plane;
use crate::server::{CertificateError, Pin, pin};
use crate::store::RedbStore;

/// Bytes of the key under which secrets are sealed that must be read back.
pub const SEALING_KEY_BYTES: usize = 32;

/// The name of the sealing key, in the data directory and in `$CREDENTIALS_DIRECTORY`.
const SEALING_KEY: &str = "sealing-key";

/// The name of the key that signs the audit, in the same places.
const AUDIT_KEY: &str = "audit-key";
/// The name of the one before, while there are values that it has sealed.
const PREVIOUS_SEALING_KEY: &str = "sealing-key.previous";

/// The directory that holds all that the control plane must not lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir(PathBuf);

/// The key under which secrets are sealed that must be read back.
pub type SealingKey = SecretBox<[u8; SEALING_KEY_BYTES]>;

/// Why a file of the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// There is no control plane yet.
    #[error("there is no control plane in {}; `postern-controlplane init` makes one", .0.display())]
    Nothing(PathBuf),
    /// The store of a control plane that was at work here is gone.
    #[error(
        "the store {} is missing, but what belongs to its control plane is there; restore it from a \
         backup", .0.display()
    )]
    StoreLost(PathBuf),
    /// There are keys and no store: it is gone, or there never was one.
    #[error(
        "the store {} is missing, but the keys of its control plane are there; restore it from a \
         backup, or run `postern-controlplane init` again if that was ended half-way", .0.display()
    )]
    KeysOnly(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The sealing key has another length.
    #[error("{} is not {SEALING_KEY_BYTES} bytes long; restore the sealing key", .0.display())]
    SealingKey(PathBuf),
    /// The key that signs the audit has another length.
    #[error("{} is not {AUDIT_KEY_BYTES} bytes long; restore the audit key", .0.display())]
    AuditKey(PathBuf),
    /// The key that signs the audit cannot be made.
    #[error("cannot make the audit key {}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be read.
    #[error("{} holds no certificate in PEM form", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate has no public key that can be pinned.
    #[error("the key of {} cannot be pinned", path.display())]
    Pin {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        #[source]
        source: CertificateError,
    },
}

impl DataDir {
    /// The directory of a configuration.
    pub fn of(config: &Config) -> DataDir {
        DataDir(config.data_dir.clone())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Refuses a directory in which there is no control plane, or only what is left of one.
    pub fn require(&self) -> Result<(), DataDirError> {
        let store = self.store();
        if store.exists() {
            return Ok(());
        }
        self.refuse_lost()?;
        if [SEALING_KEY, AUDIT_KEY].iter().any(|key| self.0.join(key).exists()) {
            return Err(DataDirError::KeysOnly(store));
        }
        Err(DataDirError::Nothing(self.0.clone()))
    }

    /// Refuses a directory in which a control plane was at work whose store is gone.
    pub fn refuse_lost(&self) -> Result<(), DataDirError> {
        let store = self.store();
        if RedbStore::is_lost(&store) { Err(DataDirError::StoreLost(store)) } else { Ok(()) }
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.0.join("postern.redb")
    }

    /// The certificate that `init` makes, for a plane that has no other.
    pub fn certificate(&self) -> PathBuf {
        self.0.join("tls.crt")
    }

    /// The key of that certificate.
    pub fn certificate_key(&self) -> PathBuf {
        self.0.join("tls.key")
    }

    /// The sealing key: that of the service manager where it has one, else the directory's own.
    pub fn sealing_key(&self, credentials: Option<&OsStr>) -> PathBuf {
        self.secret(SEALING_KEY, credentials)
    }

    /// The sealing key before the present one; it need not be there.
    pub fn previous_sealing_key(&self, credentials: Option<&OsStr>) -> PathBuf {
        self.secret(PREVIOUS_SEALING_KEY, credentials)
    }

    /// The key that signs the audit, found as the sealing key is.
    pub fn audit_key(&self, credentials: Option<&OsStr>) -> PathBuf {
        self.secret(AUDIT_KEY, credentials)
    }

    fn secret(&self, name: &str, credentials: Option<&OsStr>) -> PathBuf {
        let given = credentials.map(|directory| Path::new(directory).join(name));
        given.filter(|path| path.exists()).unwrap_or_else(|| self.0.join(name))
    }

    /// The certificate and its key, where the configuration has the plane show them.
    pub fn own_certificate(&self, config: &Config) -> Option<TlsFiles> {
        let own = TlsFiles { certificate: self.certificate(), key: self.certificate_key() };
        let is_own = |files: &TlsFiles| {
            absolute(&files.certificate) == absolute(&own.certificate)
                && absolute(&files.key) == absolute(&own.key)
        };
        let mut shown = config.listen.iter().filter_map(|listen| listen.tls.as_ref());
        shown.any(is_own).then_some(own)
    }
}

/// The path from the root, so that two ways to write it are equal.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// How the plane is reached: with the pin of its certificate where it is the one that `init` made,
/// since nobody else vouches for that.
pub fn plane(config: &Config) -> Result<Plane, DataDirError> {
    let own = DataDir::of(config).own_certificate(config);
    let pin = own.map(|own| read_pin(own.certificate)).transpose()?;
    Ok(Plane { url: config.public_url.to_string(), pin, ttl: config.ttl })
}

fn read_pin(path: PathBuf) -> Result<String, DataDirError> {
    let pem =
        std::fs::read(&path).map_err(|source| DataDirError::Read { path: path.clone(), source })?;
    let certificate = CertificateDer::from_pem_slice(&pem)
        .map_err(|source| DataDirError::Pem { path: path.clone(), source })?;
    pin(&certificate)
        .map(|pin| invited_pin(&pin))
        .map_err(|source| DataDirError::Pin { path, source })
}

/// Writes a pin as it stands in invitations.
pub(crate) fn invited_pin(pin: &Pin) -> String {
    URL_SAFE_NO_PAD.encode(pin.as_bytes())
}

/// Reads a sealing key; one of another length is refused.
pub fn read_sealing_key(path: &Path) -> Result<SealingKey, DataDirError> {
    read_secret(path)?.ok_or_else(|| DataDirError::SealingKey(path.to_owned()))
}

/// Reads the key that signs the audit; one of another length is refused.
pub fn read_audit_key(path: &Path) -> Result<AuditKey, DataDirError> {
    let seed = read_secret::<AUDIT_KEY_BYTES>(path)?;
    let key = seed.and_then(|seed| AuditKey::from_seed(seed.expose_secret()).ok());
    key.ok_or_else(|| DataDirError::AuditKey(path.to_owned()))
}

/// Reads the key that signs the audit, or makes one where there is none: a directory of an older
/// version has none yet.
pub fn ensure_audit_key(path: &Path, chance: &dyn Chance) -> Result<AuditKey, DataDirError> {
    if !path.exists() {
        let mut seed = SecretBox::new(Box::new([0; AUDIT_KEY_BYTES]));
        chance.fill(seed.expose_secret_mut());
        let made = make_secret(path, seed.expose_secret());
        made.map_err(|source| DataDirError::Make { path: path.to_owned(), source })?;
        tracing::info!(path = %path.display(), "made the key that signs the audit");
        return read_audit_key(path).map(AuditKey::as_new);
    }
    read_audit_key(path)
}

/// Writes a file of mode 0600 that appears whole.
fn make_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a secret of `N` bytes; `None` where the file has another length.
fn read_secret<const N: usize>(path: &Path) -> Result<Option<SecretBox<[u8; N]>>, DataDirError> {
    let failed = |source| DataDirError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut key = SecretBox::new(Box::new([0; N]));
    let read = file.read_exact(key.expose_secret_mut());
    match read.and_then(|()| file.read(&mut [0])) {
        Ok(0) => Ok(Some(key)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
