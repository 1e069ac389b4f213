//! Who may connect, how often, and who it is taken to be.

use postern_controlplane::server::{ForwardHeader, Limits, TrustedProxies};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::support::{PATIENCE, Running, SHORT, rest, start, start_on, until};

const FEW: Limits = Limits { connections: 4, connections_by_peer: 2, ..SHORT };

fn loopback_proxies() -> TrustedProxies {
    let networks = vec!["127.0.0.1/32".parse().unwrap()];
    TrustedProxies { networks, header: ForwardHeader::XForwardedFor }
}

fn assert_refused(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 5\r\n"), "{answer}");
    assert!(answer.contains("\"type\":\"unavailable\""), "{answer}");
}

/// Asks again until there is a seat: the server hears of a closed connection a little later.
async fn served_at_last(server: &Running, source: [u8; 4]) {
    let asking = async {
        loop {
            let mut socket = server.connect_from(source).await;
            let request = b"GET /hello HTTP/1.1\r\nhost: plane\r\nconnection: close\r\n\r\n";
            drop(socket.write_all(request).await);
            if rest(&mut socket).await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("there is a seat again");
}

#[tokio::test]
async fn one_peer_has_its_share_and_others_are_served() {
    let server = start(FEW).await;
    let mut first = server.connect_from([127, 0, 0, 2]).await;
    first.write_all(b"GET /held HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    let mut second = server.connect_from([127, 0, 0, 2]).await;
    second.write_all(b"GET /held HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    let mut third = server.connect_from([127, 0, 0, 2]).await;

    assert_refused(&rest(&mut third).await);
    server.serves_others().await;
    drop(first);
    served_at_last(&server, [127, 0, 0, 2]).await;
}

#[tokio::test]
async fn the_total_is_limited_too() {
    let server = start(FEW).await;
    let mut held = Vec::new();
    for host in 2..6 {
        let mut socket = server.connect_from([127, 0, 0, host]).await;
        socket.write_all(b"GET /held HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
        held.push(socket);
    }
    let mut late = server.connect_from([127, 0, 0, 9]).await;

    assert_refused(&rest(&mut late).await);
    drop(held);
    served_at_last(&server, [127, 0, 0, 9]).await;
}

#[tokio::test]
async fn a_trusted_proxy_has_no_share_of_its_own() {
    let server = start_on(FEW, loopback_proxies(), None).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut socket = server.connect().await;
        socket.write_all(b"GET /hello HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
        assert!(until(&mut socket, "\r\n").await.starts_with("HTTP/1.1 200"));
        held.push(socket);
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed() {
    let forged = "GET /me HTTP/1.1\r\nconnection: close\r\nx-forwarded-for: 203.0.113.7\r\nforwarded: for=203.0.113.8\r\nx-real-ip: 203.0.113.9";

    let trusting = start_on(SHORT, loopback_proxies(), None).await;
    let plain = start(SHORT).await;

    assert!(trusting.ask(forged).await.ends_with("\"203.0.113.7\""));
    assert!(plain.ask(forged).await.ends_with("\"127.0.0.1\""));
    let mut other = trusting.connect_from([127, 0, 0, 2]).await;
    other.write_all(format!("{forged}\r\nhost: plane\r\n\r\n").as_bytes()).await.unwrap();
    assert!(rest(&mut other).await.ends_with("\"127.0.0.2\""));
    let malformed = "GET /me HTTP/1.1\r\nconnection: close\r\nx-forwarded-for: 203.0.113.7, x";
    let answer = trusting.ask(malformed).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("the proxy's header `x-forwarded-for` cannot be read"), "{answer}");
}
