use std::sync::Arc;

use postern_shared::digest::Digest;
use postern_shared::ids::Epoch;
use postern_shared::network::Network;
use postern_shared::policy::LocalPolicy;
use postern_shared::position::Revision;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::token::TokenKind;
use postern_shared::wire::v1::{GroupIps, ListedEntry, Receipt, ReceiptState};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::credential::tests::{credential, token};
use crate::testing::group;

/// Something that listens where a control plane should, for tests: reads a request, answers it
/// with exactly these bytes and hangs up. Gives the request.
async fn served_once<S>(mut stream: S, answer: &[u8]) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    // The client may have hung up, which is what some tests are about.
    drop(stream.write_all(answer).await);
    drop(stream.shutdown().await);
    String::from_utf8_lossy(&request).into_owned()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| length.parse::<usize>().unwrap() <= body.len())
}

/// Starts a fake that answers one request so, and a client that was enrolled there.
async fn fake(answer: impl Into<Vec<u8>>) -> (Client, tokio::task::JoinHandle<String>) {
    provide();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.into();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        served_once(stream, &answer).await
    });
    (Client::new(&credential(&plane)).unwrap(), served)
}

fn provide() {
    // Whichever test of the process came first has done it.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

const JSON_HEADER: &str = "content-type: application/json\r\n";

fn enveloped(data: &str) -> String {
    format!(r#"{{"data":{data},"meta":{{"request_id":"r","timestamp":"2026-01-31T12:00:00Z"}}}}"#)
}

#[tokio::test]
async fn a_beacon_carries_the_bookmark_and_no_credential() {
    let body = include_str!("../../../shared/tests/golden/beacon_answer.json");
    let (client, served) = fake(answer("200 OK", JSON_HEADER, &enveloped(body))).await;

    let beacon = client.beacon().await.unwrap();

    assert_eq!(beacon.next, 300);
    let request = served.await.unwrap();
    let bookmark = token(TokenKind::Bookmark);
    assert!(request.starts_with(&format!("POST /b/{} HTTP/1.1", bookmark.expose())), "{request}");
    assert!(!request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn a_stream_names_what_there_is_and_gives_bytes_as_they_come() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let chunks = "6\r\nevent:\r\n7\r\n same\nd\r\n0\r\n\r\n";
    let (client, served) = fake(format!("{head}{chunks}")).await;

    let follow = Follow { group: group(1), have: None };
    let mut events = client.stream(&[follow]).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = events.chunk().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }

    assert_eq!(bytes, b"event: same\nd");
    let request = served.await.unwrap();
    assert!(request.starts_with(&format!("GET /api/v1/stream?group={} ", group(1))), "{request}");
    let bearer = format!("authorization: Bearer {}\r\n", token(TokenKind::Agent).expose());
    assert!(request.contains(&bearer), "{request}");
    assert!(request.contains("accept: text/event-stream\r\n"), "{request}");
}

#[tokio::test]
async fn a_stream_that_breaks_off_in_a_chunk_is_an_error_and_no_end() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let (client, _served) = fake(format!("{head}ff\r\nevent: same\n")).await;

    let mut events = client.stream(&[]).await.unwrap();
    let error = loop {
        match events.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a broken stream looks like one that ended"),
            Err(error) => break error,
        }
    };

    assert!(error.doubts_connection(), "{error:?}");
}

fn problem(slug: &str) -> String {
    format!(r#"{{"type":"{slug}","title":"t","status":0,"detail":"d","request_id":"r"}}"#)
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (status, slug, header) in [
        ("401 Unauthorized", "other", ""),
        ("403 Forbidden", "forbidden_origin", ""),
        ("404 Not Found", "not_found", ""),
        ("429 Too Many Requests", "rate_limited", "retry-after: 17\r\n"),
        ("503 Service Unavailable", "unavailable", "retry-after: 3\r\n"),
    ] {
        let headers = format!("content-type: application/problem+json\r\n{header}");
        let (client, _served) = fake(answer(status, &headers, &problem(slug))).await;

        let error = client.poll(group(1), None).await.unwrap_err();

        let PlaneError::Refused { status: found, kind, detail, retry_after } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((found.to_string().as_str(), kind.as_str()), (&status[..3], slug));
        assert_eq!(detail.as_deref(), Some("d"));
        assert_eq!(retry_after.is_some(), !header.is_empty());
        assert_eq!(error.wants_beacon(), slug == "forbidden_origin");
    }
}

#[tokio::test]
async fn a_credential_that_is_not_in_force_is_named_as_such() {
    let headers = "content-type: application/problem+json\r\n";
    let unauthorized = answer("401 Unauthorized", headers, &problem("unauthorized"));
    let (client, _served) = fake(unauthorized).await;
    let refused = client.poll(group(1), None).await.unwrap_err();
    let (client, _served) = fake(answer("404 Not Found", headers, &problem("not_found"))).await;
    let unknown = client.beacon().await.unwrap_err();
    let (client, _served) = fake(answer("404 Not Found", "", "")).await;
    let elsewhere = client.beacon().await.unwrap_err();

    for error in [refused, unknown] {
        assert!(error.to_string().contains("enrol again with a new invitation"), "{error}");
    }
    assert!(elsewhere.to_string().contains("answered 404"), "{elsewhere}");
}

#[tokio::test]
async fn answers_that_no_control_plane_gives_are_named_as_such() {
    let html = "<html>welcome to the airport</html>";
    for (bytes, word) in [
        (answer("200 OK", "content-type: text/html\r\n", html), "text/html"),
        (answer("200 OK", "", html), "nothing"),
        (answer("200 OK", JSON_HEADER, "{\"data\": 7"), "line 1"),
        (answer("200 OK", JSON_HEADER, "[]"), "line 1"),
        (answer("302 Found", "location: http://127.0.0.1:9/\r\n", ""), "302"),
        (answer("502 Bad Gateway", "content-type: text/html\r\n", html), "502"),
    ] {
        let (client, _served) = fake(bytes).await;

        let error = client.beacon().await.unwrap_err();

        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_at_its_limit() {
    let length = BODY_BYTES_MAX + 1;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{JSON_HEADER}\r\n");
    let (client, _served) = fake(head + &" ".repeat(length)).await;

    let error = client.beacon().await.unwrap_err();

    assert!(matches!(&error, PlaneError::Malformed(why) if why.contains("larger")), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n{JSON_HEADER}\r\n{{");
    let (client, _served) = fake(head).await;

    let error = client.beacon().await.unwrap_err();

    assert!(matches!(error, PlaneError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn no_error_shows_a_secret() {
    provide();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let client = Client::new(&credential(&plane)).unwrap();

    let error = client.beacon().await.unwrap_err();

    let bookmark = token(TokenKind::Bookmark);
    for shown in [chain(&error), format!("{error:?}"), format!("{client:?}")] {
        assert!(!shown.contains(bookmark.expose()), "{shown}");
        assert!(!shown.contains(token(TokenKind::Agent).expose()), "{shown}");
    }
}

#[tokio::test]
async fn a_poll_holds_and_names_what_it_has() {
    let (client, served) = fake(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()).await;

    let polled = client.poll(group(1), Some("\"7\"")).await.unwrap();

    assert!(matches!(polled, Polled::Unchanged));
    let request = served.await.unwrap();
    assert!(request.contains("if-none-match: \"7\"\r\n"), "{request}");
    assert!(request.contains("prefer: wait=30\r\n"), "{request}");
}

#[tokio::test]
async fn receipts_are_posted() {
    let (client, served) = fake(answer("200 OK", JSON_HEADER, &enveloped("{}"))).await;
    let receipt = Receipt {
        target: "door".to_owned(),
        group: group(1),
        epoch: postern_shared::ids::Epoch::from_random([2; 16]),
        revision: postern_shared::position::Revision(7),
        digest: postern_shared::digest::Digest::EMPTY,
        state: ReceiptState::Applied,
        entries: 3,
        detail: None,
    };

    client.report(&Receipts { receipts: vec![receipt] }).await.unwrap();

    let request = served.await.unwrap();
    assert!(request.starts_with("POST /api/v1/agents/self/receipts HTTP/1.1"), "{request}");
    assert!(request.contains(r#""state":"applied""#), "{request}");
}

/// A fake with a certificate of its own, which answers one beacon.
async fn fake_tls() -> (String, Pin) {
    provide();
    let made = rcgen::generate_simple_self_signed(vec!["another.example".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let pin = Pin::of(&certificate).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plane = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let body = include_str!("../../../shared/tests/golden/beacon_answer.json");
        let (stream, _) = listener.accept().await.unwrap();
        // A client that does not trust the key hangs up.
        if let Ok(stream) = acceptor.accept(stream).await {
            served_once(stream, &answer("200 OK", JSON_HEADER, &enveloped(body))).await;
        }
    });
    (plane, pin)
}

#[tokio::test]
async fn the_key_that_was_pinned_is_trusted_whatever_its_certificate_says() {
    let (plane, pin) = fake_tls().await;

    let client = Client::new(&Credential { pin: Some(pin), ..credential(&plane) }).unwrap();

    client.beacon().await.unwrap();
}

#[tokio::test]
async fn another_key_is_refused_and_named_as_such() {
    let (plane, _) = fake_tls().await;
    let other = "A".repeat(43).parse().unwrap();

    let client = Client::new(&Credential { pin: Some(other), ..credential(&plane) }).unwrap();
    let error = client.beacon().await.unwrap_err();

    assert!(matches!(error, PlaneError::WrongKey), "{error:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_without_a_pin() {
    let (plane, _) = fake_tls().await;

    let client = Client::new(&credential(&plane)).unwrap();
    let error = client.beacon().await.unwrap_err();

    assert!(matches!(error, PlaneError::Unreachable(_)), "{error:?}");
}

mod enrolling {
    use super::*;
    use crate::enroll::{EnrolError, Invitation, enrol};

    async fn invited(bytes: Vec<u8>) -> (Invitation, tokio::task::JoinHandle<String>) {
        provide();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plane = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            served_once(stream, &bytes).await
        });
        let invitation = format!("{plane}#{}", token(TokenKind::Enrolment).expose());
        (invitation.parse().unwrap(), served)
    }

    #[tokio::test]
    async fn an_invitation_becomes_a_credential() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new").join("agent-credential");
        let body = format!(
            r#"{{"agent":"03030303-0303-4303-8303-030303030303","name":"web-1",
            "token":"{}","bookmark":"{}","groups":[]}}"#,
            token(TokenKind::Agent).expose(),
            token(TokenKind::Bookmark).expose(),
        );
        let (invitation, served) =
            invited(answer("201 Created", JSON_HEADER, &enveloped(&body))).await;

        let enrolled = enrol(&invitation, "web-1".to_owned(), &path, false).await.unwrap();

        assert_eq!(enrolled.name, "web-1");
        let stored = Credential::load(&crate::credential::Place::File(path.clone())).unwrap();
        assert_eq!(stored.token.expose(), token(TokenKind::Agent).expose());
        let request = served.await.unwrap();
        assert!(request.contains(r#""host":"web-1""#), "{request}");
        let again = enrol(&invitation, "web-1".to_owned(), &path, false).await.unwrap_err();
        assert!(matches!(again, EnrolError::Enrolled(_)), "{again:?}");
    }

    #[tokio::test]
    async fn an_enrolment_whose_answer_was_lost_is_asked_for_again_by_its_name() {
        provide();
        let directory = tempfile::tempdir().unwrap();
        let body = format!(
            r#"{{"agent":"03030303-0303-4303-8303-030303030303","name":"web-1",
            "token":"{}","bookmark":"{}","groups":[]}}"#,
            token(TokenKind::Agent).expose(),
            token(TokenKind::Bookmark).expose(),
        );
        let whole = answer("201 Created", JSON_HEADER, &enveloped(&body));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let invitation = format!(
            "http://{}#{}",
            listener.local_addr().unwrap(),
            token(TokenKind::Enrolment).expose()
        );
        let served = tokio::spawn(async move {
            let mut requests = Vec::new();
            for bytes in [&b""[..], &whole[..whole.len() / 2], &whole] {
                let (stream, _) = listener.accept().await.unwrap();
                requests.push(served_once(stream, bytes).await);
            }
            requests
        });

        let path = directory.path().join("agent-credential");
        let invitation: Invitation = invitation.parse().unwrap();
        let enrolled = enrol(&invitation, "web-1".to_owned(), &path, false).await.unwrap();

        assert_eq!(enrolled.name, "web-1");
        let names: Vec<String> = served
            .await
            .unwrap()
            .iter()
            .map(|request| {
                let line = request.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
                line.unwrap_or_else(|| panic!("{request}")).to_owned()
            })
            .collect();
        assert_eq!(names[0].len(), 36);
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    }

    #[tokio::test]
    async fn a_spent_invitation_is_named_as_such_and_stores_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent-credential");
        let (invitation, _served) = invited(answer("401 Unauthorized", JSON_HEADER, "{}")).await;

        let error = enrol(&invitation, "web-1".to_owned(), &path, false).await.unwrap_err();

        assert!(matches!(error, EnrolError::Spent(_)), "{error:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_invitation_is_not_used_where_its_credential_could_not_be_stored() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let (invitation, served) = invited(Vec::new()).await;

        let path = file.join("agent-credential");
        let error = enrol(&invitation, "web-1".to_owned(), &path, false).await.unwrap_err();

        assert!(matches!(error, EnrolError::Directory { .. }), "{error:?}");
        assert!(!served.is_finished(), "nobody called");
    }
}

#[test]
fn the_largest_list_that_is_taken_fits_in_an_answer() {
    let listed = |n: u128| ListedEntry {
        cidr: Network::host(
            std::net::Ipv6Addr::from(0x2a01_ffff_ffff_ffff << 64 | n << 40 | n).into(),
        ),
        family: 6,
        expires_at: Expiry::At(Timestamp::from_unix_ms(1_700_000_000_000).unwrap()),
        sources: Vec::new(),
    };
    let entries: Vec<ListedEntry> = (1..=LocalPolicy::ENTRIES_MAX as u128).map(listed).collect();
    let ips = GroupIps {
        group: GroupId::from_random([1; 16]),
        ips: entries.iter().map(|entry| entry.cidr.to_string()).collect(),
        entries,
        as_of: Timestamp::EPOCH,
        epoch: Epoch::from_random([2; 16]),
        revision: Revision(7),
        digest: Digest::default(),
    };

    let body = serde_json::to_vec(&serde_json::json!({
        "data": ips,
        "meta": { "request_id": "r", "timestamp": Timestamp::EPOCH },
    }))
    .unwrap();

    assert!(body.len() < LIST_BYTES_MAX, "{} bytes", body.len());
    let list: Envelope<Snapshot> = serde_json::from_slice(&body).unwrap();
    assert_eq!(list.data.entries.len(), LocalPolicy::ENTRIES_MAX);
}
