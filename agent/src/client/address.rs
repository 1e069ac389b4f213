//! Where the control plane is, and by which key it is known.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

/// The address of a control plane: `https://host[:port]`, or `http://` on this very host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlaneUrl(Url);

/// Why a text is not the address of a control plane. Never repeats the text, since a secret may
/// have been put into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaneUrlError {
    /// Not a URL at all.
    #[error("the control plane's address is a URL such as https://plane.example:8443")]
    NotAUrl,
    /// Secrets would cross a network in the clear.
    #[error("the control plane is reached by https; plain http only on 127.0.0.1 or [::1]")]
    NotEncrypted,
    /// More than scheme, host and port.
    #[error(
        "the control plane's address has no path, no user, no query; write https://host[:port]"
    )]
    MoreThanAHost,
}

/// SHA-256 of a certificate's public key (SPKI), written in base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin([u8; 32]);

/// A text that is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pin has 43 characters of base64url")]
pub(crate) struct PinError;

impl PlaneUrl {
    /// The URL of `path` on the plane; `path` begins with a slash.
    pub(crate) fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }

    /// Says whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl FromStr for PlaneUrl {
    type Err = PlaneUrlError;

    fn from_str(text: &str) -> Result<PlaneUrl, PlaneUrlError> {
        let url = Url::parse(text).map_err(|_| PlaneUrlError::NotAUrl)?;
        let host = url.host_str().ok_or(PlaneUrlError::NotAUrl)?;
        let is_loopback =
            host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            _ => return Err(PlaneUrlError::NotEncrypted),
        }
        let is_bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if is_bare { Ok(PlaneUrl(url)) } else { Err(PlaneUrlError::MoreThanAHost) }
    }
}

impl fmt::Display for PlaneUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Pin {
    /// The pin of a certificate; `None` where it is none.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Pin> {
        let parsed = rustls::server::ParsedCertificate::try_from(certificate).ok()?;
        Some(Pin(Sha256::digest(&*parsed.subject_public_key_info()).into()))
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Pin, PinError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| PinError)?;
        bytes.try_into().map(Pin).map_err(|_| PinError)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_reached_encrypted_or_on_this_host() {
        for text in ["https://plane.example", "https://[2001:db8::1]:8443", "http://127.0.0.1:8080"]
        {
            assert_eq!(text.parse::<PlaneUrl>().unwrap().to_string(), text);
        }
        for text in ["http://plane.example", "http://192.0.2.1", "ftp://127.0.0.1"] {
            assert_eq!(text.parse::<PlaneUrl>(), Err(PlaneUrlError::NotEncrypted), "{text}");
        }
        for text in ["https://u:p@plane.example", "https://p.example/x", "https://p.example/?x"] {
            assert_eq!(text.parse::<PlaneUrl>(), Err(PlaneUrlError::MoreThanAHost), "{text}");
        }
        for text in ["", "plane.example", "https://", "//"] {
            assert_eq!(text.parse::<PlaneUrl>(), Err(PlaneUrlError::NotAUrl), "{text}");
        }
    }

    #[test]
    fn a_pin_reads_back() {
        let pin = Pin([0xa5; 32]);

        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!("abc".parse::<Pin>(), Err(PinError));
        assert_eq!(format!("{pin}=").parse::<Pin>(), Err(PinError));
    }
}
