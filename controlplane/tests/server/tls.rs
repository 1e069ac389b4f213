//! TLS: slow handshakes, both protocols, certificates that change while the server runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use postern_controlplane::server::{
    Certificates, Pin, SelfSigned, TlsError, TrustedProxies, self_signed,
};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::{LATE, PATIENCE, SHORT, rest, start_on, timed};

struct Files {
    _folder: TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

fn made() -> SelfSigned {
    self_signed(&["127.0.0.1".to_owned()]).unwrap()
}

impl Files {
    fn with(made: &SelfSigned) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let files = Files { certificate: path("cert.pem"), key: path("key.pem"), _folder: folder };
        files.replace(made);
        files
    }

    /// As certbot does it: write beside, then rename over.
    fn replace(&self, made: &SelfSigned) {
        let put = |path: &Path, text: &str| {
            let beside = path.with_extension("new");
            fs::write(&beside, text).unwrap();
            fs::rename(&beside, path).unwrap();
        };
        put(&self.key, made.key_pem.expose_secret());
        put(&self.certificate, &made.certificate_pem);
    }

    fn load(&self) -> Arc<Certificates> {
        Certificates::load(&self.certificate, &self.key).unwrap()
    }
}

/// The certificate that OpenSSL is shown.
async fn shown(address: SocketAddr) -> String {
    let client = move || {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .expect("openssl is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = tokio::task::spawn_blocking(client).await.unwrap();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let body = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    body.map_or_else(String::new, |(body, _)| format!("{begin}{body}{end}\n"))
}

fn lines(pem: &str) -> Vec<&str> {
    pem.lines().collect()
}

#[tokio::test]
async fn both_protocols_are_served() {
    let made = made();
    let server = start_on(SHORT, TrustedProxies::NONE, Some(Files::with(&made).load())).await;
    let root = reqwest::Certificate::from_pem(made.certificate_pem.as_bytes()).unwrap();
    let builder = || reqwest::Client::builder().tls_certs_only([root.clone()]);
    let url = format!("https://{}/peer", server.address);

    for (client, version) in [
        (builder().build().unwrap(), reqwest::Version::HTTP_2),
        (builder().http1_only().build().unwrap(), reqwest::Version::HTTP_11),
    ] {
        let response = client.get(&url).send().await.unwrap();
        assert_eq!(response.version(), version);
        assert!(response.text().await.unwrap().contains("is_tls: true"));
    }
}

#[tokio::test]
async fn half_a_handshake_is_closed() {
    let server = start_on(SHORT, TrustedProxies::NONE, Some(Files::with(&made()).load())).await;
    for part in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut slow = server.connect().await;
        slow.write_all(part).await.unwrap();

        let (took, answer) = timed(rest(&mut slow)).await;

        assert!(!answer.contains("HTTP"), "{answer}");
        assert!(took < SHORT.handshake + LATE, "{took:?}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let (old, new) = (made(), made());
    let files = Files::with(&old);
    let certificates = files.load();
    let server = start_on(SHORT, TrustedProxies::NONE, Some(Arc::clone(&certificates))).await;
    let (_stop, stopped) = watch::channel(false);
    let following = tokio::spawn(Arc::clone(&certificates).follow_files(stopped));
    assert_eq!(lines(&shown(server.address).await), lines(&old.certificate_pem));

    fs::write(&files.certificate, "no certificate").unwrap();
    assert!(matches!(certificates.reload().unwrap_err(), TlsError::Pem { .. }));
    fs::write(&files.certificate, &new.certificate_pem).unwrap();
    assert!(matches!(certificates.reload().unwrap_err(), TlsError::Unusable { .. }));
    assert_eq!(lines(&shown(server.address).await), lines(&old.certificate_pem));

    let taken = async {
        files.replace(&new);
        while shown(server.address).await != new.certificate_pem.replace("\r\n", "\n") {}
    };
    timeout(PATIENCE, taken).await.expect("the new certificate is taken");
    assert_eq!(certificates.pin(), Some(new.pin));
    assert_ne!(old.pin, new.pin);
    following.abort();
}

#[tokio::test]
async fn what_stops_the_daemon_from_starting_names_its_file() {
    let (one, other) = (made(), made());
    let files = Files::with(&one);
    let load = || Certificates::load(&files.certificate, &files.key).unwrap_err().to_string();

    fs::write(&files.key, other.key_pem.expose_secret()).unwrap();
    assert!(load().contains("does not fit the certificate"), "{}", load());
    fs::write(&files.key, "-----BEGIN").unwrap();
    assert!(load().ends_with("key.pem holds no private key in PEM form"), "{}", load());
    fs::remove_file(&files.key).unwrap();
    assert!(load().starts_with("cannot read "), "{}", load());
}

#[tokio::test]
async fn the_pin_in_use_is_the_pin_of_the_file() {
    let made = made();

    let pin: Option<Pin> = Files::with(&made).load().pin();

    assert_eq!(pin, Some(made.pin));
}
