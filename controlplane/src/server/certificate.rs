//! Certificates: the one that `init` makes, and the pin by which agents know the plane.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a certificate's public key (its SubjectPublicKeyInfo in DER).
///
/// It stays the same when a certificate is renewed for the same key. Written `sha256//…` with
/// base64 behind it, as `curl --pinnedpubkey` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// A certificate signed with its own key, and the key, both as PEM.
#[derive(Debug)]
pub struct SelfSigned {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key (PKCS #8).
    pub key_pem: SecretString,
    /// The pin of the certificate.
    pub pin: Pin,
}

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A name is no DNS name and no IP address, or the key could not be made.
    #[error("cannot make a certificate for {names}")]
    Make {
        /// The names that were asked for.
        names: String,
        /// What went wrong.
        #[source]
        source: rcgen::Error,
    },
    /// Not an X.509 certificate.
    #[error("cannot read the certificate")]
    Read(#[source] rustls::Error),
    /// Not a pin.
    #[error("`{0}` is not a pin; write sha256// and 44 characters of base64")]
    Pin(String),
}

const PIN_PREFIX: &str = "sha256//";

/// Makes a certificate for `names`, DNS names and IP addresses.
///
/// It has no end that matters: agents trust the key by its pin, and nobody else trusts it.
pub fn self_signed(names: &[String]) -> Result<SelfSigned, CertificateError> {
    let failed = |source| CertificateError::Make { names: names.join(", "), source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Postern");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(SelfSigned {
        pin: pin(certificate.der())?,
        certificate_pem: certificate.pem(),
        key_pem: SecretString::from(key.serialize_pem()),
    })
}

/// Computes the pin of a certificate.
pub fn pin(certificate: &CertificateDer<'_>) -> Result<Pin, CertificateError> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(CertificateError::Read)?;
    Ok(Pin(Sha256::digest(parsed.subject_public_key_info()).into()))
}

impl Pin {
    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PIN_PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl FromStr for Pin {
    type Err = CertificateError;

    fn from_str(text: &str) -> Result<Pin, CertificateError> {
        let bytes = text.strip_prefix(PIN_PREFIX).and_then(|base64| STANDARD.decode(base64).ok());
        let hash = bytes.and_then(|bytes| bytes.try_into().ok());
        hash.map(Pin).ok_or_else(|| CertificateError::Pin(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use secrecy::ExposeSecret as _;

    use super::*;

    /// Asks OpenSSL, not our own reader.
    fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn the_pin_is_what_openssl_computes() {
        let made = self_signed(&["plane.example.org".into(), "203.0.113.7".into()]).unwrap();

        let certificate = made.certificate_pem.as_bytes();
        let public = openssl(&["x509", "-noout", "-pubkey"], certificate);
        let der = openssl(&["pkey", "-pubin", "-outform", "der"], &public);
        let own_key = openssl(&["pkey", "-pubout"], made.key_pem.expose_secret().as_bytes());

        let expected = format!("sha256//{}", STANDARD.encode(Sha256::digest(&der)));
        assert_eq!(made.pin.to_string(), expected);
        assert_eq!(own_key, public);
        let names = openssl(&["x509", "-noout", "-ext", "subjectAltName"], certificate);
        let names = String::from_utf8(names).unwrap();
        assert!(names.contains("DNS:plane.example.org, IP Address:203.0.113.7"), "{names}");
    }

    #[test]
    fn pins_read_back_the_same_and_others_are_refused() {
        let pin = Pin([7; 32]);

        assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
        for text in ["", "sha256//", "sha256//AAAA", "sha1//AAAA", &pin.to_string()[8..]] {
            text.parse::<Pin>().expect_err(text);
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_pin() {
        pin(&CertificateDer::from(b"no certificate".as_slice())).unwrap_err();
    }
}
