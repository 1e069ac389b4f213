//! The socket of the operator.

use std::net::{Ipv4Addr, SocketAddr};

use postern_controlplane::server::{Listener, TrustedProxies};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::support::{SHORT, rest, start_with};

#[tokio::test]
async fn the_kernel_says_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = Listener::unix(&path).unwrap();
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let _server = start_with(SHORT, TrustedProxies::NONE, listener, nowhere).await;
    let ask = async |path_and_fields: &str| {
        let mut socket = UnixStream::connect(&path).await.unwrap();
        let request = format!("GET {path_and_fields}\r\nhost: plane\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        rest(&mut socket).await
    };

    let answer = ask("/peer HTTP/1.1").await;

    let uid = rustix::process::geteuid().as_raw();
    let expected = format!("Unix {{ uid: {uid}, pid: Some({}) }}", std::process::id());
    assert!(answer.ends_with(&expected), "{answer}");
    let without_address = ask("/me HTTP/1.1\r\nx-forwarded-for: 203.0.113.7").await;
    assert!(without_address.starts_with("HTTP/1.1 500 "), "{without_address}");
    assert!(!without_address.contains("203.0.113.7"));
}
