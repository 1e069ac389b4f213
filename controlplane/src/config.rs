//! The daemon's configuration: a YAML file, read strictly, all mistakes told at once.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::{Authority, Scheme};
use lettre::message::Mailbox;
use postern_shared::document::{
    self, DOCUMENT_BYTES_MAX, Mistake, Reader, Scalar, boolean, number_in, span, text,
};
use postern_shared::network::Network;
use postern_shared::time::Ttl;

use crate::http::limit::{Budget, RateLimits};
use crate::mail::{MailConfig, MailTls, SmtpLogin};
use crate::server::{ForwardHeader, Limits, TrustedProxies};

/// Where the state is unless the file says otherwise.
const DATA_DIR: &str = "/var/lib/postern-controlplane";

/// The control socket in the data directory unless the file says otherwise.
const CONTROL_SOCKET: &str = "control.sock";

/// Longest path of a Unix socket, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Most connections that can be configured: each costs a file descriptor.
const CONNECTIONS_MAX: usize = 1_000_000;

/// The port on which mail servers take mail from those who log in.
const SUBMISSION_PORT: u16 = 587;

/// Most requests a minute that can be configured.
const PER_MINUTE_MAX: u32 = 1_000_000;

/// Most web pages that may call the API.
const CORS_ORIGINS_MAX: usize = 64;

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

/// Scheme, host and port of the plane as its clients see it, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    scheme: Scheme,
    authority: Authority,
}

/// Names of the plane that have addresses of one family only: through them the page of a bookmark
/// reports both addresses of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyUrls {
    /// The name that has IPv4 addresses only.
    pub ipv4: Option<PublicUrl>,
    /// The name that has IPv6 addresses only.
    pub ipv6: Option<PublicUrl>,
}

/// Scheme, host and port of a web page, as browsers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(String);

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least important messages that are logged.
    pub level: LogLevel,
    /// Whether each message is a JSON object in place of a line for people.
    pub json: bool,
}

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody has to act.
    Error,
    /// Somebody should look.
    Warn,
    /// What an operator wants to know.
    Info,
    /// Every request.
    Debug,
    /// Everything.
    Trace,
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

fn read(reader: &mut Reader<'_>, folder: &Path) -> Option<Config> {
    let data_dir = reader.optional("data_dir", path_from(folder));
    let data_dir = data_dir.unwrap_or_else(|| DATA_DIR.into());
    let public_url = reader.required("public_url", text::<PublicUrl>);
    let family_urls = FamilyUrls {
        ipv4: reader.optional("ipv4_url", text::<PublicUrl>),
        ipv6: reader.optional("ipv6_url", text::<PublicUrl>),
    };
    let mut has_proxies = false;
    let proxies = reader.optional_mapping("trusted_proxies", |proxies| {
        has_proxies = true;
        trusted_proxies(proxies)
    });
    let proxies = proxies.unwrap_or(TrustedProxies::NONE);
    let listen = read_listen(reader, folder, has_proxies);
    let metrics = reader.optional("metrics", text::<SocketAddr>);
    if metrics.is_some_and(|metrics| listen.iter().any(|listen| listen.address == metrics)) {
        reader.reject("metrics", "needs an address of its own");
    }
    let control_socket = reader.optional("control_socket", path_from(folder));
    let control_socket = control_socket.unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    if control_socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let message = format!(
            "{} is too long for a socket; choose one of at most {SOCKET_PATH_BYTES_MAX} bytes",
            control_socket.display()
        );
        reader.reject("control_socket", message);
    }
    let cors_origins = reader.list("cors_origins", text::<WebOrigin>);
    if CORS_ORIGINS_MAX < cors_origins.len() {
        reader.reject("cors_origins", format!("has more than {CORS_ORIGINS_MAX}"));
    }
    let limits = reader.optional_mapping("limits", |limits| Some(read_limits(limits)));
    let (limits, rates) = limits.unwrap_or((Limits::PUBLIC, RateLimits::DEFAULT));
    let audit_keep = reader.optional_mapping("audit", |audit| audit.optional("keep", span));
    Some(Config {
        audit_keep,
        ttl: reader.optional("ttl", span).unwrap_or(Ttl::DEFAULT),
        allow_private: reader.optional("allow_private", boolean).unwrap_or(true),
        log: reader.optional_mapping("log", |log| Some(read_log(log))).unwrap_or(Log::DEFAULT),
        cors_origins,
        mail: reader.optional_mapping("mail", |mail| read_mail(mail, folder)),
        public_url: public_url?,
        family_urls,
        data_dir,
        listen,
        proxies,
        metrics,
        control_socket,
        limits,
        rates,
    })
}

fn trusted_proxies(reader: &mut Reader<'_>) -> Option<TrustedProxies> {
    let count = Cell::new(0_usize);
    let networks = reader.list("networks", |scalar| {
        count.set(count.get() + 1);
        let network: Network = text(scalar)?;
        match network.prefix() {
            0 => Err("trusts everybody; name the networks of your proxies".to_owned()),
            _ => Ok(network),
        }
    });
    if count.get() == 0 {
        reader.reject("networks", "names no network");
    }
    let header = reader.required("header", |scalar| {
        let name: String = text(scalar)?;
        let is_named = |header: &&ForwardHeader| header.name().eq_ignore_ascii_case(&name);
        ForwardHeader::ALL.iter().find(is_named).copied().ok_or_else(|| {
            let names = ForwardHeader::ALL.map(ForwardHeader::name).join(", ");
            format!("is `{name}`; write one of {names}")
        })
    });
    Some(TrustedProxies { networks, header: header? })
}

fn read_listen(reader: &mut Reader<'_>, folder: &Path, has_proxies: bool) -> Vec<Listen> {
    let (mut seen, mut count) = (BTreeSet::new(), 0_usize);
    let listen = reader.mappings("listen", |item| {
        count += 1;
        let address = item.required("address", text::<SocketAddr>);
        let mut has_tls = false;
        let tls = item.optional_mapping("tls", |tls| {
            has_tls = true;
            let certificate = tls.required("certificate", path_from(folder));
            let key = tls.required("key", path_from(folder));
            Some(TlsFiles { certificate: certificate?, key: key? })
        });
        let address = address?;
        // Port 0 is another port each time.
        if address.port() != 0 && !seen.insert(address) {
            item.reject("address", "is listened on already");
        }
        if !has_tls && !address.ip().is_loopback() && !has_proxies {
            let message = "can be reached from other machines; add `tls`, or name the proxies in \
                           front of it under `trusted_proxies`";
            item.reject("tls", message);
        }
        Some(Listen { address, tls })
    });
    if count == 0 {
        reader.reject("listen", "names no address");
    }
    listen
}

fn read_limits(reader: &mut Reader<'_>) -> (Limits, RateLimits) {
    let (limits, rates) = (Limits::PUBLIC, RateLimits::DEFAULT);
    let mut connections = |key| reader.optional(key, number_in(1..=CONNECTIONS_MAX));
    let limits = Limits {
        connections: connections("connections").unwrap_or(limits.connections),
        connections_by_peer: connections("connections_by_peer")
            .unwrap_or(limits.connections_by_peer),
        ..limits
    };
    let mut budget = |key, default| {
        let per_minute = reader.optional(key, number_in(1..=PER_MINUTE_MAX));
        per_minute.and_then(NonZeroU32::new).map_or(default, Budget::per_minute)
    };
    let rates = RateLimits {
        reads: budget("reads_per_minute", rates.reads),
        writes: budget("writes_per_minute", rates.writes),
        failures: budget("failures_per_minute", rates.failures),
        failures_of_all: budget("failures_of_all_per_minute", rates.failures_of_all),
    };
    (limits, rates)
}

fn read_mail(reader: &mut Reader<'_>, folder: &Path) -> Option<MailConfig> {
    let from = reader.required("from", text::<Mailbox>);
    let server = reader.mapping("smtp", |smtp| {
        let host = smtp.required("host", text::<String>);
        let port = smtp.optional("port", number_in(1..=u16::MAX)).unwrap_or(SUBMISSION_PORT);
        let tls = smtp.optional("tls", |scalar| match text::<String>(scalar)?.as_str() {
            "required" => Ok(MailTls::Required),
            "opportunistic" => Ok(MailTls::Opportunistic),
            "none" => Ok(MailTls::None),
            other => Err(format!("is `{other}`; write required, opportunistic or none")),
        });
        let tls = tls.unwrap_or(MailTls::Required);
        let username = smtp.optional("username", text::<String>);
        let password_file = smtp.optional("password_file", path_from(folder));
        let host = host?;
        if tls == MailTls::None && !is_here(&host) {
            smtp.reject("tls", "is for this machine only; write required, links are secrets");
        }
        let login = match (username, password_file) {
            (Some(username), Some(password_file)) => Some(SmtpLogin { username, password_file }),
            (None, None) => None,
            (Some(_), None) => {
                smtp.reject("password_file", "is missing; `username` needs it");
                None
            }
            (None, Some(_)) => {
                smtp.reject("username", "is missing; `password_file` needs it");
                None
            }
        };
        if login.is_some() && tls == MailTls::Opportunistic {
            smtp.reject("tls", "would send the password in the clear; write required");
        }
        Some((host, port, tls, login))
    });
    let (host, port, tls, login) = server?;
    Some(MailConfig { host, port, tls, login, from: from? })
}

fn read_log(reader: &mut Reader<'_>) -> Log {
    let level = reader.optional("level", text::<LogLevel>);
    let json = reader.optional("format", |scalar| match text::<String>(scalar)?.as_str() {
        "json" => Ok(true),
        "text" => Ok(false),
        other => Err(format!("is `{other}`; write json or text")),
    });
    let default = Log::DEFAULT;
    Log { level: level.unwrap_or(default.level), json: json.unwrap_or(default.json) }
}

/// Makes a reader of paths, which begin at `folder` unless they are absolute.
fn path_from(folder: &Path) -> impl Fn(Scalar<'_>) -> Result<PathBuf, String> {
    move |scalar| match text::<String>(scalar)? {
        path if path.is_empty() => Err("is empty; write a path".to_owned()),
        path => Ok(folder.join(path)),
    }
}

impl Log {
    /// What an operator wants to know, as lines.
    pub const DEFAULT: Log = Log { level: LogLevel::Info, json: false };
}

impl LogLevel {
    const ALL: [LogLevel; 5] =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// The level's name, as `tracing` has it.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<LogLevel, String> {
        let level = LogLevel::ALL.into_iter().find(|level| level.name() == text);
        level.ok_or_else(|| {
            format!("is `{text}`; write {}", LogLevel::ALL.map(LogLevel::name).join(", "))
        })
    }
}

impl WebOrigin {
    /// The text, as a browser sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<WebOrigin, String> {
        let url: PublicUrl = text.parse().map_err(|_| {
            format!(
                "is `{text}`; write each page's scheme, host and port, such as https://example.org"
            )
        })?;
        Ok(url.origin())
    }
}

impl PublicUrl {
    /// The host, a name or an address (of IPv6 without brackets).
    pub fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The same as browsers name the origin of a page: in lower case, without a port that is the
    /// scheme's own, and without a slash at the end.
    pub fn origin(&self) -> WebOrigin {
        let own = if self.scheme == Scheme::HTTPS { ":443" } else { ":80" };
        let written = self.to_string().to_lowercase();
        WebOrigin(written.strip_suffix(own).unwrap_or(&written).to_owned())
    }

    /// The port, also where it is the scheme's own.
    pub fn port(&self) -> u16 {
        let own = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(own)
    }
}

impl FamilyUrls {
    /// Where the address of the family that `address` is not of can be seen.
    pub fn other_than(&self, address: IpAddr) -> Option<&PublicUrl> {
        if address.is_ipv4() { self.ipv6.as_ref() } else { self.ipv4.as_ref() }
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.ipv4.is_some() || self.ipv6.is_some()
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<PublicUrl, String> {
        let not_a_url = || {
            format!("is `{text}`; write scheme, host and port, such as https://plane.example.org")
        };
        let uri: Uri = text.parse().map_err(|_| not_a_url())?;
        let has_rest = uri.path_and_query().is_some_and(|rest| rest.as_str() != "/");
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(not_a_url());
        };
        let is_web = scheme == Scheme::HTTPS || scheme == Scheme::HTTP;
        let is_bare = !has_rest && !authority.as_str().contains('@');
        if !is_web || !is_bare || authority.host().is_empty() {
            return Err(not_a_url());
        }
        let url = PublicUrl { scheme, authority };
        if url.scheme == Scheme::HTTP && !url.is_here() {
            return Err("begins with http; write https, since bookmarks are secrets".to_owned());
        }
        Ok(url)
    }
}

impl PublicUrl {
    /// Says whether it names this machine for itself: nobody else can reach it.
    pub fn is_here(&self) -> bool {
        is_here(self.host())
    }
}

/// Says whether a host is this machine, as it calls itself.
fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback())
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

fn told(path: &Path, mistakes: &[Mistake]) -> String {
    let lines = mistakes.iter().map(|mistake| format!("{}:{mistake}", path.display()));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
