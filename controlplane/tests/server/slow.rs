//! Clients that take their time, in every phase, and those that send too much.

use std::time::Duration;

use futures_util::future::join_all;
use postern_controlplane::server::Limits;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{LATE, PATIENCE, SHORT, rest, start, timed, until};

/// What a slow client sends of its request, and then no more; nothing is also a way.
const HALVES: [&str; 5] = [
    "",
    "GET /hello HTTP/1.1\r\nhost: pl",
    "POST /echo HTTP/1.1\r\nhost: plane\r\ncontent-length: 4000\r\n\r\nhalf of it",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET /big HTTP/1.1\r\nhost: plane\r\n\r\n",
];

#[tokio::test]
async fn who_connects_and_says_nothing_is_closed() {
    let server = start(SHORT).await;
    let mut silent = server.connect().await;
    server.serves_others().await;

    let (took, answer) = timed(rest(&mut silent)).await;

    assert_eq!(answer, "");
    assert!(took < SHORT.first_byte + LATE, "{took:?}");
    server.serves_others().await;
}

#[tokio::test]
async fn half_a_head_is_closed_also_where_the_protocol_is_not_clear_yet() {
    let server = start(SHORT).await;
    for part in ["G", "P", "PRI * HTTP/2.0\r\n\r\n", "GET /hello HTTP/1.1\r\nhost: pl"] {
        let mut slow = server.connect().await;
        slow.write_all(part.as_bytes()).await.unwrap();
        server.serves_others().await;

        let (took, answer) = timed(rest(&mut slow)).await;

        assert_eq!(answer, "", "{part:?}");
        assert!(SHORT.head / 2 < took && took < SHORT.head + LATE, "{part:?} {took:?}");
    }
}

#[tokio::test]
async fn bytes_that_drip_in_do_not_prolong_the_time_of_a_head() {
    let server = start(SHORT).await;
    let mut slow = server.connect().await;

    // The clock of the drip is the ordinary client: one byte for each of its requests.
    let dripping = async {
        for byte in "GET /hello HTTP/1.1\r\nx-drip: ".bytes().chain(std::iter::repeat(b'x')) {
            if slow.write_all(&[byte]).await.is_err() {
                break;
            }
            server.serves_others().await;
        }
    };
    let (took, closed) = timed(timeout(PATIENCE, dripping)).await;

    closed.expect("the server closes the connection");
    assert!(SHORT.head / 2 < took && took < SHORT.head + LATE, "{took:?}");
}

#[tokio::test]
async fn half_of_a_later_head_is_closed() {
    let server = start(SHORT).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /hello HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    until(&mut slow, "\"timestamp\"").await;
    slow.write_all(b"GET /hel").await.unwrap();

    let answer = timed(rest(&mut slow)).await;

    assert!(!answer.1.contains("HTTP/1.1"), "{answer:?}");
    server.serves_others().await;
}

#[tokio::test]
async fn a_kept_connection_that_is_not_used_is_closed() {
    let server = start(SHORT).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /hello HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    until(&mut idle, "\"timestamp\"").await;

    let (took, _) = timed(rest(&mut idle)).await;

    assert!(SHORT.idle / 2 < took && took < SHORT.idle + LATE, "{took:?}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408() {
    let server = start(SHORT).await;
    for head in ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let mut slow = server.connect().await;
        let request = format!("POST /echo HTTP/1.1\r\nhost: plane\r\n{head}");
        slow.write_all(request.as_bytes()).await.unwrap();
        server.serves_others().await;

        let answer = rest(&mut slow).await;

        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains("\"request_timeout\""), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_no_request() {
    let server = start(SHORT).await;
    let mut half = server.connect().await;
    half.write_all(b"POST /echo HTTP/1.1\r\nhost: plane\r\ncontent-length: 10\r\n\r\nabc")
        .await
        .unwrap();
    half.shutdown().await.unwrap();

    let answer = rest(&mut half).await;

    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.serves_others().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_413_before_it_is_sent() {
    let server = start(SHORT).await;
    let too_long = SHORT.body_bytes + 1;
    let announced = format!("content-length: {too_long}\r\nexpect: 100-continue\r\n\r\n");
    let chunked = format!(
        "transfer-encoding: chunked\r\n\r\n{too_long:x}\r\n{}\r\n0\r\n\r\n",
        "x".repeat(too_long)
    );
    for head in [announced, chunked] {
        let mut greedy = server.connect().await;
        let request = format!("POST /echo HTTP/1.1\r\nhost: plane\r\n{head}");
        greedy.write_all(request.as_bytes()).await.unwrap();

        let answer = until(&mut greedy, "\r\n\r\n").await;

        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    let fits = "x".repeat(SHORT.body_bytes);
    let mut modest = server.connect().await;
    let request = format!(
        "POST /echo HTTP/1.1\r\nhost: plane\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{fits}",
        fits.len()
    );
    modest.write_all(request.as_bytes()).await.unwrap();
    assert!(rest(&mut modest).await.ends_with(&fits));
}

#[tokio::test]
async fn a_head_over_the_limit_is_answered_431() {
    let server = start(SHORT).await;
    let long_field = format!("GET /hello HTTP/1.1\r\nx-long: {}", "x".repeat(SHORT.head_bytes));
    let many_fields = format!("GET /hello HTTP/1.1{}", "\r\nx-a: b".repeat(SHORT.fields + 1));

    for head in [long_field, many_fields] {
        let answer = server.ask(&head).await;

        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let long_path = format!("GET /{} HTTP/1.1", "x".repeat(SHORT.head_bytes));
    let answer = server.ask(&long_path).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    server.serves_others().await;
}

#[tokio::test]
async fn who_asks_for_much_and_reads_nothing_is_closed() {
    let mut server = start(SHORT).await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /big HTTP/1.1\r\nhost: plane\r\n\r\n").await.unwrap();
    server.serves_others().await;

    let (took, given_up) = timed(timeout(PATIENCE, server.dropped.recv())).await;

    given_up.expect("the answer is given up").unwrap();
    assert!(SHORT.write / 2 < took, "{took:?}");
    server.serves_others().await;
}

#[tokio::test]
async fn what_is_not_http_ends_the_connection_and_nothing_else() {
    let server = start(SHORT).await;
    let long = "A".repeat(100_000);
    for garbage in [
        "\r\n\r\n\r\n\r\n",
        "\0\0\0\0",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nbad\u{1}name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
        "GET /\u{7f} HTTP/1.1\r\n\r\n",
        "POST /echo HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "POST /echo HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "POST /echo HTTP/1.1\r\ntransfer-encoding: gzip, chunked, identity\r\n\r\n0\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u{ff}\u{ff}\u{ff}garbage frames here",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        &long,
    ] {
        let mut broken = server.connect().await;
        drop(broken.write_all(garbage.as_bytes()).await);

        let answer = rest(&mut broken).await;

        assert!(!answer.starts_with("HTTP/1.1 2"), "{garbage:?} got {answer:?}");
        assert!(!answer.starts_with("HTTP/1.1 5"), "{garbage:?} got {answer:?}");
    }
    server.serves_others().await;
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_one_after_the_other() {
    let server = start(SHORT).await;
    let mut eager = server.connect().await;
    let one = "GET /hello HTTP/1.1\r\nhost: plane\r\n\r\n";
    let missing = "GET /nothing HTTP/1.1\r\nhost: plane\r\n\r\n";
    let last = "GET /hello HTTP/1.1\r\nhost: plane\r\nconnection: close\r\n\r\n";
    eager.write_all(format!("{one}{missing}{last}").as_bytes()).await.unwrap();

    let answer = rest(&mut eager).await;

    let statuses: Vec<&str> =
        answer.split("HTTP/1.1 ").skip(1).map(|part| part.get(..3).unwrap()).collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

#[tokio::test]
async fn two_thousand_slow_clients_keep_nobody_else_waiting_and_are_all_closed() {
    // Long enough that all of them are there at once.
    let patient = Duration::from_secs(4);
    let limits = Limits {
        first_byte: patient,
        head: patient,
        body: patient,
        idle: patient,
        write: patient,
        ..Limits::PUBLIC
    };
    let mut server = start(limits).await;
    let mut slow = Vec::new();
    for source in 2..6 {
        for number in 0..500 {
            let mut client = server.connect_from([127, 0, 0, source]).await;
            client.write_all(HALVES[number % HALVES.len()].as_bytes()).await.unwrap();
            slow.push(client);
        }
    }
    let (took, ()) = timed(server.serves_others()).await;
    assert!(took < patient, "an ordinary client waited {took:?}, as long as the slow ones may");

    // Who reads nothing is told apart by the answer that is given up; the others read the end.
    let mut given_up = std::mem::replace(&mut server.dropped, mpsc::channel(1).1);
    let is_deaf = |half: &str| half.contains("/big");
    let (mut deaf, mut others) = (Vec::new(), Vec::new());
    for (number, client) in slow.into_iter().enumerate() {
        let is_deaf = is_deaf(HALVES[number % HALVES.len()]);
        if is_deaf { deaf.push(client) } else { others.push(client) }
    }
    let mut closed = std::pin::pin!(async {
        join_all(others.iter_mut().map(rest)).await;
        for _ in &deaf {
            timeout(PATIENCE, given_up.recv()).await.expect("given up").unwrap();
        }
    });
    let mut served = 0;
    loop {
        tokio::select! {
            () = &mut closed => break,
            () = server.serves_others() => served += 1,
        }
    }
    assert!(0 < served, "others are served all the while");
}
