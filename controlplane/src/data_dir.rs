//! What lies in the data directory, and what is read from it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecretMut as _, SecretBox};

use crate::config::{Config, TlsFiles};
use crate::operator::Plane;
use crate::server::{CertificateError, Pin, pin};

/// Bytes of the key under which secrets are sealed that must be read back.
pub const SEALING_KEY_BYTES: usize = 32;

/// The name of the sealing key, in the data directory and in `$CREDENTIALS_DIRECTORY`.
const SEALING_KEY: &str = "sealing-key";

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

    /// Refuses a directory in which there is no control plane.
    pub fn require(&self) -> Result<(), DataDirError> {
        if self.store().exists() { Ok(()) } else { Err(DataDirError::Nothing(self.0.clone())) }
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
        let given = credentials.map(|directory| Path::new(directory).join(SEALING_KEY));
        given.filter(|path| path.exists()).unwrap_or_else(|| self.0.join(SEALING_KEY))
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
    let failed = |source| DataDirError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut key = SealingKey::new(Box::new([0; SEALING_KEY_BYTES]));
    let read = file.read_exact(key.expose_secret_mut());
    match read.and_then(|()| file.read(&mut [0])) {
        Ok(0) => Ok(key),
        Ok(_) => Err(DataDirError::SealingKey(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(DataDirError::SealingKey(path.to_owned()))
        }
        Err(error) => Err(failed(error)),
    }
}
