//! What enrolment gave this host: whom to follow, and the secrets to do it with.

use std::io;
use std::path::{Path, PathBuf};

use postern_shared::ids::AgentId;
use postern_shared::token::{Token, TokenError, TokenKind};
use serde::{Deserialize, Serialize};

use crate::client::{Pin, PlaneUrl, PlaneUrlError};
use crate::disk::{self, SecretError};

/// The file's name in the state directory and in `$CREDENTIALS_DIRECTORY`.
pub(crate) const FILE_NAME: &str = "agent-credential";

/// A credential has less than 1 KiB.
const FILE_BYTES_MAX: u64 = 16 * 1024;

const VERSION: u32 = 1;

/// The agent's secrets and where they are good. Never shown: `Debug` prints no secret.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    /// The control plane.
    pub(crate) plane: PlaneUrl,
    /// The plane's public key, where it is not vouched for by a public authority.
    pub(crate) pin: Option<Pin>,
    /// Who this agent is.
    pub(crate) agent: AgentId,
    /// `poa_`, with which it reads.
    pub(crate) token: Token,
    /// `pob_`, with which it reports its own address.
    pub(crate) bookmark: Token,
}

/// Where a credential file was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Under the host's own care: owner and mode are checked.
    File(PathBuf),
    /// In `$CREDENTIALS_DIRECTORY`, which the service manager guards by other means than the mode.
    ServiceManager(PathBuf),
}

/// Why there is no usable credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// Not enrolled yet.
    #[error("there is no credential at {0}: run `postern-agent enroll` first")]
    Missing(PathBuf),
    /// Other users could have read the secrets.
    #[error(
        "{path} may be read by others (mode {mode:03o}): chmod 600 it, and enrol again if anybody could have read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user could have written it.
    #[error("{path} belongs to user {owner}: chown it to root or to the agent's own user")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Reading or writing failed.
    #[error("could not use the credential file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not what `enroll` writes.
    #[error("{path} is not a credential file of this version: {reason}; enrol again")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, without any of its content.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    plane: String,
    pin: Option<String>,
    agent: AgentId,
    token: String,
    bookmark: String,
}

impl Place {
    /// Where to look: the file that the configuration names, else the service manager's
    /// directory where it has the file, else the state directory.
    pub(crate) fn find(
        configured: Option<&Path>,
        credentials_directory: Option<&Path>,
        state_dir: &Path,
    ) -> Place {
        if let Some(path) = configured {
            return Place::File(path.to_owned());
        }
        let given = credentials_directory.map(|directory| directory.join(FILE_NAME));
        match given.filter(|path| path.exists()) {
            Some(path) => Place::ServiceManager(path),
            None => Place::File(state_dir.join(FILE_NAME)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Place::File(path) | Place::ServiceManager(path) => path,
        }
    }

    /// Reads a secret that is in a file of its own. Blocks on the disk.
    pub(crate) fn read(&self, bytes_max: u64) -> Result<Vec<u8>, SecretError> {
        disk::read_secret(self.path(), self.forbidden_mode(), bytes_max)
    }

    /// Bits of the mode that must be clear. The service manager's files carry an access list,
    /// which shows as group bits.
    const fn forbidden_mode(&self) -> u32 {
        match self {
            Place::File(_) => 0o077,
            Place::ServiceManager(_) => 0o007,
        }
    }
}

impl Credential {
    /// Reads the credential. Blocks on the disk.
    pub(crate) fn load(place: &Place) -> Result<Credential, CredentialError> {
        let path = place.path().to_owned();
        let content = match place.read(FILE_BYTES_MAX) {
            Ok(content) => content,
            Err(SecretError::Missing) => return Err(CredentialError::Missing(path)),
            Err(SecretError::Exposed { mode }) => {
                return Err(CredentialError::Exposed { path, mode });
            }
            Err(SecretError::Foreign { owner }) => {
                return Err(CredentialError::Foreign { path, owner });
            }
            Err(SecretError::Io(source)) => return Err(CredentialError::Io { path, source }),
        };
        Credential::parse(&content).map_err(|reason| CredentialError::Malformed { path, reason })
    }

    /// Reads the file's content. A reason repeats nothing of it.
    fn parse(content: &[u8]) -> Result<Credential, String> {
        let stored: Stored = serde_json::from_slice(content)
            .map_err(|error| format!("line {} column {}", error.line(), error.column()))?;
        if stored.version != VERSION {
            return Err(format!("it has version {}, not {VERSION}", stored.version));
        }
        let plane = stored.plane.parse().map_err(|error: PlaneUrlError| error.to_string())?;
        let pin = match stored.pin {
            Some(text) => Some(text.parse().map_err(|_| "its pin is none".to_owned())?),
            None => None,
        };
        let token = secret(&stored.token, TokenKind::Agent)?;
        let bookmark = secret(&stored.bookmark, TokenKind::Bookmark)?;
        Ok(Credential { plane, pin, agent: stored.agent, token, bookmark })
    }

    /// Writes the credential in place of an older one, for the owner's eyes only. Blocks on the
    /// disk.
    pub(crate) fn store(&self, path: &Path) -> Result<(), CredentialError> {
        let stored = Stored {
            version: VERSION,
            plane: self.plane.to_string(),
            pin: self.pin.as_ref().map(Pin::to_string),
            agent: self.agent,
            token: self.token.expose().to_owned(),
            bookmark: self.bookmark.expose().to_owned(),
        };
        let text = serde_json::to_string_pretty(&stored).expect("a credential has plain fields");
        disk::replace(path, format!("{text}\n").as_bytes())
            .map_err(|source| CredentialError::Io { path: path.to_owned(), source })
    }
}

/// Reads a token that must be of one kind.
pub(crate) fn secret(text: &str, kind: TokenKind) -> Result<Token, String> {
    let token: Token = text.parse().map_err(|error: TokenError| error.to_string())?;
    if token.kind() != kind {
        let (expected, found) = (kind.prefix(), token.kind().prefix());
        return Err(format!("a {expected} token belongs here, this is a {found} token"));
    }
    Ok(token)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Made of a fixed sequence: good for tests only.
    pub(crate) fn token(kind: TokenKind) -> Token {
        let mut next = 1u8;
        Token::generate(kind, |buffer| {
            for byte in buffer {
                *byte = next;
                next = next.wrapping_mul(5).wrapping_add(113);
            }
        })
    }

    pub(crate) fn credential(plane: &str) -> Credential {
        Credential {
            plane: plane.parse().unwrap(),
            pin: None,
            agent: AgentId::from_random([3; 16]),
            token: token(TokenKind::Agent),
            bookmark: token(TokenKind::Bookmark),
        }
    }

    #[test]
    fn what_is_stored_reads_back_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let stored = credential("https://plane.example:8443");

        stored.store(&path).unwrap();
        let loaded = Credential::load(&Place::File(path)).unwrap();

        assert_eq!(loaded.plane, stored.plane);
        assert_eq!(loaded.token.expose(), stored.token.expose());
        assert_eq!(loaded.bookmark.expose(), stored.bookmark.expose());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        credential("https://plane.example").store(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

        let by_owner = Credential::load(&Place::File(path.clone()));
        let by_manager = Credential::load(&Place::ServiceManager(path));

        assert!(matches!(by_owner, Err(CredentialError::Exposed { mode: 0o640, .. })));
        by_manager.unwrap();
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            // Without root there is nobody to give it to.
            return;
        }
        const OTHER: u32 = 4_711;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        credential("https://plane.example").store(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(OTHER), None).unwrap();

        let loaded = Credential::load(&Place::File(path));

        assert!(matches!(loaded, Err(CredentialError::Foreign { owner: OTHER, .. })));
    }

    #[test]
    fn no_error_and_no_debug_shows_a_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let stored = credential("https://plane.example");
        let secret = stored.token.expose().to_owned();
        // The tokens change places: both are well formed, neither is of the right kind.
        let text = format!(
            r#"{{"version":1,"plane":"https://p.example","pin":null,"agent":"{}",
            "token":"{}","bookmark":"{secret}"}}"#,
            stored.agent,
            stored.bookmark.expose(),
        );
        disk::replace(&path, text.as_bytes()).unwrap();

        let error = Credential::load(&Place::File(path)).unwrap_err();

        for shown in [error.to_string(), format!("{error:?}"), format!("{stored:?}")] {
            assert!(!shown.contains(&secret), "{shown}");
            assert!(!shown.contains(stored.bookmark.expose()), "{shown}");
        }
    }

    #[test]
    fn the_service_managers_file_comes_before_the_state_directorys() {
        let (managed, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let find = |configured| Place::find(configured, Some(managed.path()), state.path());

        assert_eq!(find(None), Place::File(state.path().join(FILE_NAME)));
        fs::write(managed.path().join(FILE_NAME), "{}").unwrap();
        assert_eq!(find(None), Place::ServiceManager(managed.path().join(FILE_NAME)));
        assert_eq!(find(Some(Path::new("/x"))), Place::File("/x".into()));
    }
}
