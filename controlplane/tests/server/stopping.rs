//! How the server stops: nothing that runs is cut short, nothing can hold it up.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use postern_controlplane::server::Limits;

use crate::support::{LATE, PATIENCE, SHORT, rest, start, timed, until};

#[tokio::test]
async fn a_request_that_runs_is_finished() {
    let mut server = start(SHORT).await;
    let mut asking = server.connect().await;
    asking.write_all(b"GET /held HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    server.begun.recv().await.unwrap();

    server.stop.send_replace(true);
    server.release.add_permits(1);

    assert!(rest(&mut asking).await.starts_with("HTTP/1.1 200 OK"));
    timeout(PATIENCE, server.served).await.expect("the server stops").unwrap();
    TcpStream::connect(server.address).await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn a_request_without_end_does_not_keep_the_server() {
    let mut server = start(SHORT).await;
    let mut asking = server.connect().await;
    asking.write_all(b"GET /held HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    server.begun.recv().await.unwrap();

    server.stop.send_replace(true);
    let (took, stopped) = timed(timeout(PATIENCE, server.served)).await;

    stopped.expect("the server stops").unwrap();
    assert!(SHORT.drain / 2 < took && took < SHORT.drain + LATE, "{took:?}");
    assert_eq!(rest(&mut asking).await, "");
}

#[tokio::test]
async fn a_stream_is_told_to_go_and_ends_in_order() {
    let mut server = start(SHORT).await;
    let mut following = server.connect().await;
    following.write_all(b"GET /stream HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    server.begun.recv().await.unwrap();
    until(&mut following, "begin;").await;

    server.stop.send_replace(true);

    let answer = rest(&mut following).await;
    assert!(answer.contains("told to go;"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "the stream ends in order: {answer:?}");
    timeout(PATIENCE, server.served).await.expect("the server stops").unwrap();
}

#[tokio::test]
async fn a_stream_is_told_to_go_at_the_age_of_its_connection() {
    let limits = Limits { age: SHORT.idle, ..SHORT };
    let mut server = start(limits).await;
    let mut following = server.connect().await;
    following.write_all(b"GET /stream HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    server.begun.recv().await.unwrap();

    let answer = rest(&mut following).await;

    assert!(answer.contains("told to go;"), "{answer}");
    server.serves_others().await;
}

#[tokio::test]
async fn connections_that_rest_are_closed_at_once() {
    let never = PATIENCE * 2;
    let patient = Limits { first_byte: never, idle: never, drain: never, ..SHORT };
    let server = start(patient).await;
    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /hello HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    until(&mut idle, "\"timestamp\"").await;

    server.stop.send_replace(true);

    rest(&mut silent).await;
    rest(&mut idle).await;
    timeout(PATIENCE, server.served).await.expect("the server stops").unwrap();
}
