//! The daemon's configuration: a YAML file, read strictly, all mistakes told at once.

mod log;
mod read;
mod url;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use postern_shared::document::{self, DOCUMENT_BYTES_MAX, Mistake};
use postern_shared::time::Ttl;

pub use self::log::{Log, LogLevel};
pub use self::url::{FamilyUrls, PublicUrl, WebOrigin};

use self::read::read;
use crate::http::limit::RateLimits;
use crate::mail::MailConfig;
use crate::server::{Limits, TrustedProxies};

/// What the operator decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the store is.
    pub data_dir: PathBuf,
    /// Under which address clients reach the plane.
    pub public_url: PublicUrl,
    /// The names that lead to it by one address family alone.
    pub family_urls: FamilyUrls,
    /// Where it listens; at least one.
    pub listen: Vec<Listen>,
    /// The proxies in front of it.
    pub proxies: TrustedProxies,
    /// Where Prometheus finds its figures, if it does.
    pub metrics: Option<SocketAddr>,
    /// The socket on which the operator's commands reach the daemon.
    pub control_socket: PathBuf,
    /// How long an address stays allowed after its last report, where nobody says.
    pub ttl: Ttl,
    /// Whether private addresses may be reported: LANs and VPNs are real, so they may by default.
    pub allow_private: bool,
    /// Limits of the public listeners.
    pub limits: Limits,
    /// Budgets of callers.
    pub rates: RateLimits,
    /// What is logged.
    pub log: Log,
    /// How long the audit is kept; for ever when none.
    pub audit_keep: Option<Ttl>,
    /// The web pages that may call the API: `scheme://host` or `scheme://host:port`.
    pub cors_origins: Vec<WebOrigin>,
    /// How mail goes out, if it does.
    pub mail: Option<MailConfig>,
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// Certificate and key; without them this is plain HTTP, for this machine or for proxies.
    pub tls: Option<TlsFiles>,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There are mistakes in it.
    #[error("{}", told(path, mistakes))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them, in the order of their places.
        mistakes: Vec<Mistake>,
    },
}

impl Config {
    /// Reads a file. Paths in it that are not absolute begin at the file's own folder.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        // One byte more than is taken, so that the reader sees a file that is too long.
        let limit = u64::try_from(DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        let file = File::open(path).map_err(failed)?;
        file.take(limit).read_to_string(&mut text).map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Config::parse(&text, folder)
            .map_err(|mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes })
    }

    /// Reads a text. Paths in it that are not absolute begin at `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Config, Vec<Mistake>> {
        document::read(text, |reader| read(reader, folder))
    }
}

fn told(path: &Path, mistakes: &[Mistake]) -> String {
    let lines = mistakes.iter().map(|mistake| format!("{}:{mistake}", path.display()));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
