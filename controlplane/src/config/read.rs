//! From the file's text to what the operator decided: all mistakes are found.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use lettre::message::Mailbox;
use postern_shared::document::{Reader, Scalar, boolean, number_in, span, text};
use postern_shared::network::Network;
use postern_shared::time::Ttl;

use super::url::is_here;
use super::{Config, FamilyUrls, Listen, Log, LogLevel, PublicUrl, TlsFiles, WebOrigin};
use crate::http::limit::{Budget, RateLimits};
use crate::mail::{MailConfig, MailTls, SmtpLogin};
use crate::server::{ForwardHeader, Limits, TrustedProxies};

/// Where the state is unless the file says otherwise.
pub(super) const DATA_DIR: &str = "/var/lib/postern-controlplane";

/// The control socket in the data directory unless the file says otherwise.
pub(super) const CONTROL_SOCKET: &str = "control.sock";

/// Longest path of a Unix socket, in bytes.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Most connections that can be configured: each costs a file descriptor.
const CONNECTIONS_MAX: usize = 1_000_000;

/// The port on which mail servers take mail from those who log in.
const SUBMISSION_PORT: u16 = 587;

/// Most requests, or moves, that a budget can be configured to.
const BUDGET_MAX: u32 = 1_000_000;

/// Most web pages that may call the API.
const CORS_ORIGINS_MAX: usize = 64;

pub(super) fn read(reader: &mut Reader<'_>, folder: &Path) -> Option<Config> {
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
    let mut count = |key| reader.optional(key, number_in(1..=BUDGET_MAX)).and_then(NonZeroU32::new);
    let moves = count("moves_per_hour").map_or(rates.moves, Budget::per_hour);
    let mut budget = |key, default| count(key).map_or(default, Budget::per_minute);
    let rates = RateLimits {
        reads: budget("reads_per_minute", rates.reads),
        writes: budget("writes_per_minute", rates.writes),
        failures: budget("failures_per_minute", rates.failures),
        failures_of_all: budget("failures_of_all_per_minute", rates.failures_of_all),
        moves,
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
