//! TLS with a certificate from files, which may change while the daemon runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher as _};
use postern_shared::error::chain;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::server::certificate::{Pin, pin};

/// Longest certificate or key file, in bytes.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Certificate and key are two files: for this long they may not fit each other.
const SETTLE: Duration = Duration::from_secs(1);

/// How often the files are read again even though nothing was seen to change: they may be links
/// into folders that are not watched.
const REREAD: Duration = Duration::from_secs(10 * 60);

/// A certificate with its key, in use and replaced when its files change.
#[derive(Debug)]
pub struct Certificates {
    certificate_path: PathBuf,
    key_path: PathBuf,
    provider: Arc<CryptoProvider>,
    in_use: Arc<InUse>,
    config: Arc<ServerConfig>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no certificate or key in the file.
    #[error("{} holds no {what} in PEM form", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What the reader says.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate cannot be used with the key.
    #[error("the key in {} does not fit the certificate in {}", key.display(), certificate.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// The TLS versions cannot be had.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
    /// The folder of a file cannot be watched.
    #[error("cannot watch {}", path.display())]
    Watch {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: notify::Error,
    },
}

#[derive(Debug)]
struct InUse(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for InUse {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl InUse {
    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().expect("nothing panics while it holds this lock"))
    }

    fn replace(&self, new: Arc<CertifiedKey>) {
        *self.0.write().expect("nothing panics while it holds this lock") = new;
    }
}

impl Certificates {
    /// Reads a certificate chain and its key, both PEM. Clients may speak TLS 1.2 or 1.3, and
    /// HTTP/2 or HTTP/1.1 inside.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Certificates>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let loaded = read(certificate, key, &provider)?;
        let in_use = Arc::new(InUse(RwLock::new(Arc::new(loaded))));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&in_use) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(Certificates {
            certificate_path: certificate.to_owned(),
            key_path: key.to_owned(),
            provider,
            in_use,
            config: Arc::new(config),
        }))
    }

    /// The pin of the certificate in use.
    pub fn pin(&self) -> Option<Pin> {
        pin(self.in_use.get().cert.first()?).ok()
    }

    /// Reads the files again. Returns whether they hold another certificate than before, which
    /// then is in use; after an error the old one stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let loaded = read(&self.certificate_path, &self.key_path, &self.provider)?;
        if loaded.cert == self.in_use.get().cert {
            return Ok(false);
        }
        self.in_use.replace(Arc::new(loaded));
        Ok(true)
    }

    /// Reloads whenever the files change, until `stop` turns true. An error is logged once.
    ///
    /// Returns early only with [`TlsError::Watch`].
    pub async fn follow_files(
        self: Arc<Self>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), TlsError> {
        let (changed, mut changes) = mpsc::channel(1);
        let _watcher = self.watch_folders(changed)?;
        let mut logged: Option<String> = None;
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                // Changed, or long enough ago: read in both cases.
                _ = timeout(REREAD, changes.recv()) => {}
            }
            let mut outcome = self.reload_elsewhere().await;
            if outcome.is_err() {
                sleep(SETTLE).await;
                outcome = self.reload_elsewhere().await;
            }
            logged = match outcome {
                Ok(is_new) => {
                    if is_new {
                        tracing::info!("took the new certificate into use");
                    }
                    None
                }
                Err(error) => {
                    let text = chain(&error);
                    if logged.as_ref() != Some(&text) {
                        tracing::error!(error = text, "keep the old certificate");
                    }
                    Some(text)
                }
            };
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Reloads on a blocking thread of the runtime, since it reads files.
    async fn reload_elsewhere(self: &Arc<Self>) -> Result<bool, TlsError> {
        let this = Arc::clone(self);
        let reloaded = tokio::task::spawn_blocking(move || this.reload()).await;
        reloaded.expect("reading a certificate does not panic")
    }

    /// Watches the folders, not the files: a watch on a file dies when another takes its name.
    fn watch_folders(
        &self,
        changed: mpsc::Sender<()>,
    ) -> Result<notify::RecommendedWatcher, TlsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Watch { path, source }
        };
        let on_event = move |event: notify::Result<notify::Event>| {
            // Our own reading is an event too. A full queue already says what there is to say.
            if event.is_ok_and(|event| is_change(event.kind)) {
                changed.try_send(()).unwrap_or_default();
            }
        };
        let mut folders: Vec<&Path> =
            [&self.certificate_path, &self.key_path].map(|path| folder_of(path)).to_vec();
        folders.dedup();
        let mut watcher = notify::recommended_watcher(on_event).map_err(failed(folders[0]))?;
        for folder in folders {
            watcher.watch(folder, RecursiveMode::NonRecursive).map_err(failed(folder))?;
        }
        Ok(watcher)
    }
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

fn read(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let in_pem = |path: &Path, what| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, what, source }
    };
    let chain = CertificateDer::pem_slice_iter(&read_bounded(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| match chain.is_empty() {
            true => Err(rustls_pki_types::pem::Error::NoItemsFound),
            false => Ok(chain),
        })
        .map_err(in_pem(certificate, "certificate"))?;
    let secret =
        PrivateKeyDer::from_pem_slice(&read_bounded(key)?).map_err(in_pem(key, "private key"))?;
    CertifiedKey::from_der(chain, secret, provider).map_err(|source| TlsError::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(failed(io::Error::other(format!("longer than {PEM_BYTES_MAX} bytes"))));
    }
    Ok(bytes)
}
