//! Handing a letter to the mail server that the operator names.

use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::ExposeSecret as _;

use super::Letter;
use crate::chance::Chance;

/// Longest wait for each answer of the server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest password file, in bytes.
const PASSWORD_BYTES_MAX: u64 = 1_024;
/// The port on which TLS begins at once.
const SUBMISSIONS_PORT: u16 = 465;

/// What the operator decided about mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailConfig {
    /// The mail server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the way there is encrypted.
    pub tls: MailTls,
    /// With what to log in there.
    pub login: Option<SmtpLogin>,
    /// From whom mails are.
    pub from: Mailbox,
}

/// Whether the way to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// Always; to port 465 from the start, to others by STARTTLS.
    Required,
    /// By STARTTLS where the server offers it.
    Opportunistic,
    /// Never; on this machine only.
    None,
}

/// With what to log in at the mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpLogin {
    /// The name.
    pub username: String,
    /// Where the password is.
    pub password_file: PathBuf,
}

/// A way to the mail server.
pub struct Transport {
    smtp: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    plane: String,
}

/// Why a letter was not handed over, or cannot be.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The file with the password cannot be used.
    #[error("cannot read the password of the mail server from {}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS to the mail server")]
    Tls(#[source] lettre::transport::smtp::Error),
    /// The address is none that can be written to.
    #[error("the mail address cannot be written to")]
    Address(#[source] lettre::address::AddressError),
    /// The letter cannot be written.
    #[error("the mail cannot be written")]
    Letter(#[source] lettre::error::Error),
    /// The server did not take it.
    #[error("the mail server did not take it")]
    Refused(#[source] lettre::transport::smtp::Error),
}

impl MailError {
    /// Says whether another try would end the same.
    pub fn is_final(&self) -> bool {
        match self {
            MailError::Password { .. } | MailError::Tls(_) => false,
            MailError::Address(_) | MailError::Letter(_) => true,
            MailError::Refused(error) => error.is_permanent(),
        }
    }
}

impl Transport {
    /// Makes a way to the configured server; `plane` is the name under which the plane greets it.
    /// Blocks while it reads files.
    pub fn new(config: &MailConfig, plane: &str) -> Result<Transport, MailError> {
        let parameters = || TlsParameters::new(config.host.clone()).map_err(MailError::Tls);
        let tls = match config.tls {
            MailTls::Required if config.port == SUBMISSIONS_PORT => Tls::Wrapper(parameters()?),
            MailTls::Required => Tls::Required(parameters()?),
            MailTls::Opportunistic => Tls::Opportunistic(parameters()?),
            MailTls::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(config.port)
            .tls(tls)
            .timeout(Some(ANSWER_TIMEOUT))
            .hello_name(greeting(plane));
        if let Some(login) = &config.login {
            let password = read_password(login)?;
            builder = builder.credentials(Credentials::new(login.username.clone(), password));
        }
        Ok(Transport { smtp: builder.build(), from: config.from.clone(), plane: plane.to_owned() })
    }

    /// Hands a letter over.
    pub(super) async fn deliver(
        &self,
        letter: &Letter,
        chance: &dyn Chance,
    ) -> Result<(), MailError> {
        let to: Address = letter.to.as_str().parse().map_err(MailError::Address)?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&letter.subject)
            .message_id(Some(format!("<{:016x}@{}>", chance.number(), self.plane)))
            .header(ContentType::TEXT_PLAIN)
            .body(letter.body.expose_secret().to_owned())
            .map_err(MailError::Letter)?;
        self.smtp.send(message).await.map(drop).map_err(MailError::Refused)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("from", &self.from).finish_non_exhaustive()
    }
}

fn greeting(plane: &str) -> ClientId {
    match plane.parse() {
        Ok(std::net::IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(std::net::IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::Domain(plane.to_owned()),
    }
}

/// Reads a password; a line end behind it is none of it.
fn read_password(login: &SmtpLogin) -> Result<String, MailError> {
    let path = &login.password_file;
    let failed = |source| MailError::Password { path: path.clone(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(PASSWORD_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    let password = text.trim_end_matches(['\n', '\r']);
    if password.is_empty() || PASSWORD_BYTES_MAX < text.len() as u64 {
        let message = format!("it is empty or longer than {PASSWORD_BYTES_MAX} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    Ok(password.to_owned())
}
