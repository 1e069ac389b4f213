//! Trades an invitation for a credential.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use postern_shared::token::{Token, TokenKind};
use postern_shared::wire::v1::{AgentGroup, EnrolRequest};

use crate::client::{self, Pin, PinError, PlaneError, PlaneUrl, PlaneUrlError};
use crate::credential::{Credential, CredentialError, secret};
use crate::disk;

/// Longest invitation; ours have about 120 bytes.
pub(crate) const INVITATION_BYTES_MAX: u64 = 4_096;

/// What an operator of the control plane hands out for one agent:
/// `<URL of the plane>#<poe_ token>[.<pin>]`.
#[derive(Debug, Clone)]
pub(crate) struct Invitation {
    plane: PlaneUrl,
    token: Token,
    pin: Option<Pin>,
}

/// Why a text is no invitation. Never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvitationError {
    #[error("an invitation is one line, https://plane.example:8443#poe_…; this has no `#`")]
    Form,
    #[error("the address in the invitation is wrong")]
    Plane(#[source] PlaneUrlError),
    #[error("the token in the invitation is wrong: {0}")]
    Token(String),
    #[error("the pin in the invitation is wrong (cut off when copied?)")]
    Pin(#[source] PinError),
}

/// Why enrolment failed. The invitation was used up only where it says so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    #[error("this host is enrolled already ({0}); `--replace` puts a new credential in its place")]
    Enrolled(PathBuf),
    #[error("the credential could not be stored in {path}; the invitation was not used")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the invitation was used, has expired or was revoked: ask for a new one")]
    Spent(#[source] PlaneError),
    #[error(transparent)]
    Plane(PlaneError),
    #[error(
        "the control plane answered with a credential of no use: {0}; ask for a new invitation"
    )]
    Unusable(String),
    #[error("the invitation was used, but its credential was lost: ask for a new one")]
    Lost(#[source] CredentialError),
}

/// What enrolment led to.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) credential: Credential,
    pub(crate) name: String,
    pub(crate) groups: Vec<AgentGroup>,
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Invitation, InvitationError> {
        let (plane, rest) = text.trim().split_once('#').ok_or(InvitationError::Form)?;
        let (token, pin) = match rest.split_once('.') {
            Some((token, pin)) => (token, Some(pin)),
            None => (rest, None),
        };
        Ok(Invitation {
            plane: plane.parse().map_err(InvitationError::Plane)?,
            token: secret(token, TokenKind::Enrolment).map_err(InvitationError::Token)?,
            pin: pin.map(str::parse).transpose().map_err(InvitationError::Pin)?,
        })
    }
}

/// Enrols this host and stores the credential at `path`. An invitation is good once, so whether
/// the credential can be stored is found out before it is used.
pub(crate) async fn enrol(
    invitation: &Invitation,
    host: String,
    path: &std::path::Path,
    replace: bool,
) -> Result<Enrolled, EnrolError> {
    if !replace && path.exists() {
        return Err(EnrolError::Enrolled(path.to_owned()));
    }
    let directory = path.parent().unwrap_or(std::path::Path::new("."));
    let unwritable = |source| EnrolError::Directory { path: directory.to_owned(), source };
    disk::ensure_directory(directory).map_err(unwritable)?;
    disk::probe(path).map_err(unwritable)?;

    let version = env!("CARGO_PKG_VERSION").to_owned();
    let request = EnrolRequest { host, version };
    let Invitation { plane, token, pin } = invitation;
    let answer = client::enrol(plane, *pin, token, &request).await.map_err(|error| {
        let is_spent = matches!(error, PlaneError::Refused { status: 401 | 404 | 409 | 410, .. });
        if is_spent { EnrolError::Spent(error) } else { EnrolError::Plane(error) }
    })?;
    let credential = Credential {
        plane: plane.clone(),
        pin: *pin,
        agent: answer.agent,
        token: secret(&answer.token, TokenKind::Agent).map_err(EnrolError::Unusable)?,
        bookmark: secret(&answer.bookmark, TokenKind::Bookmark).map_err(EnrolError::Unusable)?,
    };
    credential.store(path).map_err(EnrolError::Lost)?;
    Ok(Enrolled { credential, name: answer.name, groups: answer.groups })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::tests::token;

    #[test]
    fn an_invitation_names_plane_token_and_pin() {
        let token = token(TokenKind::Enrolment);
        let pin = "A".repeat(43);

        let with_pin: Invitation =
            format!("  https://p.example:8443#{}.{pin}\n", token.expose()).parse().unwrap();
        let without: Invitation = format!("https://p.example#{}", token.expose()).parse().unwrap();

        assert_eq!(with_pin.plane.to_string(), "https://p.example:8443");
        assert_eq!(with_pin.pin.map(|pin| pin.to_string()), Some(pin));
        assert!(without.pin.is_none());
    }

    #[test]
    fn a_text_that_is_no_invitation_is_refused_without_repeating_it() {
        let good = token(TokenKind::Enrolment).expose().to_owned();
        let agent = token(TokenKind::Agent).expose().to_owned();
        for (text, is_expected) in [
            (good.clone(), (|error| matches!(error, InvitationError::Form)) as fn(&_) -> bool),
            (format!("http://p.example#{good}"), |error| {
                matches!(error, InvitationError::Plane(_))
            }),
            (format!("https://p.example#{agent}"), |error| {
                matches!(error, InvitationError::Token(_))
            }),
            (format!("https://p.example#{}", &good[..39]), |error| {
                matches!(error, InvitationError::Token(_))
            }),
            (format!("https://p.example#{good}.abc"), |error| {
                matches!(error, InvitationError::Pin(_))
            }),
        ] {
            let error = text.parse::<Invitation>().unwrap_err();

            assert!(is_expected(&error), "{error:?}");
            assert!(!format!("{error:?} {error}").contains(&good[4..30]));
        }
    }
}
