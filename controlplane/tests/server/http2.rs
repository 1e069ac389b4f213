//! HTTP/2 at its limits, with frames written by hand.

use postern_controlplane::server::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{LATE, PATIENCE, Running, SHORT, rest, start, timed};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const METHOD_GET: u8 = 0x82;
const METHOD_POST: u8 = 0x83;

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct Client(TcpStream);

impl Client {
    /// Speaks the preface with one setting of its own.
    async fn connect(server: &Running, window: u32) -> Client {
        let mut socket = server.connect().await;
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
        let mut client = Client(socket);
        client.send(SETTINGS, 0, 0, &setting).await;
        client
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        // The server may have closed already: what it said before is what counts.
        drop(self.0.write_all(&frame(kind, flags, stream, payload)).await);
    }

    async fn get(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &head(path)).await;
    }

    /// Begins a request whose body is to come.
    async fn post(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, END_HEADERS, stream, &head_of(METHOD_POST, path)).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        timeout(PATIENCE, self.0.read_exact(&mut head)).await.expect("the server speaks").ok()?;
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s, t, u, v]), payload })
    }

    /// Reads to the end of the answer on a stream; what came until then, in order.
    async fn answer(&mut self, stream: u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.expect("the answer has an end");
            let is_last = frame.stream == stream && frame.flags & END_STREAM != 0;
            frames.push(frame);
            if is_last {
                return frames;
            }
        }
    }

    /// Reads on to the first frame of a kind; `None` when the server closes before.
    async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind && !(kind == SETTINGS && frame.flags & ACK != 0) {
                return Some(frame);
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET path`, as HPACK has it without compression.
fn head(path: &str) -> Vec<u8> {
    head_of(METHOD_GET, path)
}

fn head_of(method: u8, path: &str) -> Vec<u8> {
    let literal = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let (scheme_http, path_is, authority_is) = (0x86, 0x04, 0x01);
    [&[method, scheme_http, path_is][..], &literal(path), &[authority_is], &literal("plane")]
        .concat()
}

#[tokio::test]
async fn the_limits_are_announced() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 65_535).await;

    let settings = client.next_of(SETTINGS).await.unwrap().payload;

    let value = |wanted: u16| {
        let mut pairs = settings.chunks(6).filter(|pair| pair[..2] == wanted.to_be_bytes());
        pairs.next().map(|pair| u32::from_be_bytes(pair[2..].try_into().unwrap()))
    };
    assert_eq!(value(MAX_CONCURRENT_STREAMS), Some(SHORT.streams));
    assert_eq!(value(MAX_HEADER_LIST_SIZE), u32::try_from(SHORT.head_bytes).ok());
}

#[tokio::test]
async fn a_stream_too_many_is_reset_and_the_others_go_on() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 65_535).await;
    client.next_of(SETTINGS).await.unwrap();
    client.send(SETTINGS, ACK, 0, &[]).await;
    for number in 0..=SHORT.streams {
        client.get(1 + 2 * number, "/held").await;
    }

    let reset = client.next_of(RST_STREAM).await.unwrap();

    assert_eq!(reset.stream, 1 + 2 * SHORT.streams);
    server.release.add_permits(1);
    assert!(client.next_of(HEADERS).await.is_some());
    server.serves_others().await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_in_a_rush_end_the_connection() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 65_535).await;
    let cancel = 8_u32.to_be_bytes();
    let rush: Vec<u8> = (0..u32::try_from(3 * SHORT.resets).unwrap())
        .flat_map(|number| {
            let stream = 1 + 2 * number;
            let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("/held"));
            [open, frame(RST_STREAM, 0, stream, &cancel)].concat()
        })
        .collect();
    drop(client.0.write_all(&rush).await);

    let goodbye = client.next_of(GO_AWAY).await.expect("the server says why");

    let enhance_your_calm = 11_u32.to_be_bytes();
    assert_eq!(goodbye.payload[4..8], enhance_your_calm);
    server.serves_others().await;
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 65_535).await;
    client.send(HEADERS, END_STREAM, 1, &head("/hello")).await;
    let fragment = [&[0x40, 1, b'a', 120][..], &[b'x'; 120]].concat().repeat(100);
    for _ in 0..100 {
        client.send(CONTINUATION, 0, 1, &fragment).await;
    }

    rest(&mut client.0).await;

    server.serves_others().await;
}

#[tokio::test]
async fn half_a_head_is_closed() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 65_535).await;
    client.send(HEADERS, END_STREAM, 1, &head("/hello")).await;

    let (took, _) = timed(rest(&mut client.0)).await;

    assert!(took < SHORT.head + LATE, "{took:?}");
}

#[tokio::test]
async fn who_opens_no_window_is_closed() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 0).await;
    client.get(1, "/hello").await;
    assert!(client.next_of(HEADERS).await.is_some());

    let (took, data) = timed(client.next_of(DATA)).await;

    assert!(data.is_none(), "no window, no data");
    assert!(SHORT.write / 2 < took && took < SHORT.write + LATE, "{took:?}");
    server.serves_others().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408() {
    let server = start(SHORT).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let body = reqwest::Body::wrap_stream(never);

    let response =
        client.post(format!("http://{}/echo", server.address)).body(body).send().await.unwrap();

    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(response.status(), 408);
}

#[tokio::test]
async fn an_answer_without_a_body_says_no_length() {
    let server = start(SHORT).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for (path, status) in [("unchanged", 304), ("empty", 204)] {
        let url = format!("http://{}/{path}", server.address);

        let response = client.get(url).send().await.unwrap();

        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().get("content-length"), None, "{path}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_wait_for_the_body_arrives_and_nothing_is_reset() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 65_535).await;
    let chunk = vec![b'x'; 16 * 1024];
    // The first is refused unread, the second for its length.
    for (stream, path, chunks) in [(1, "/hello", 0), (3, "/echo", 1)] {
        client.post(stream, path).await;
        for _ in 0..chunks {
            client.send(DATA, 0, stream, &chunk).await;
        }

        let answer = client.answer(stream).await;

        let head = answer.iter().find(|frame| frame.kind == HEADERS).expect("there is a head");
        assert_eq!(head.stream, stream);
        assert!(answer.iter().all(|frame| frame.kind != RST_STREAM), "{path} is answered first");
        client.send(DATA, 0, stream, &chunk).await;
        client.send(DATA, END_STREAM, stream, b"the end").await;
    }
    // Whatever was to be said of the others has been said before this.
    client.get(5, "/hello").await;
    let later = client.answer(5).await;
    assert!(later.iter().all(|frame| frame.kind != RST_STREAM), "a whole body is not refused");
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_not_waited_for_longer_than_one_that_is_read() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 65_535).await;

    let (took, reset) = timed(async {
        client.post(1, "/hello").await;
        assert!(client.next_of(HEADERS).await.is_some(), "the answer waits for nothing");
        client.next_of(RST_STREAM).await.expect("the stream is given up")
    })
    .await;

    let no_error = 0_u32.to_be_bytes();
    assert_eq!((reset.stream, &reset.payload[..]), (1, &no_error[..]));
    assert!(SHORT.body / 2 < took && took < SHORT.body + LATE, "{took:?}");
}

#[tokio::test]
async fn a_body_that_nobody_reads_and_that_has_no_end_is_given_up() {
    let server =
        start(Limits { body: 2 * PATIENCE, write: PATIENCE, idle: PATIENCE, ..SHORT }).await;
    let mut client = Client::connect(&server, 65_535).await;
    client.next_of(SETTINGS).await.unwrap();
    client.send(SETTINGS, ACK, 0, &[]).await;
    client.post(1, "/hello").await;
    client.answer(1).await;
    let chunk = vec![b'x'; 16 * 1024];
    // More than is thrown away, and no more than the windows allow.
    for _ in 0..63 {
        client.send(DATA, 0, 1, &chunk).await;
    }
    let reset = async {
        loop {
            let window = client.next().await.expect("the server speaks");
            if window.kind == RST_STREAM {
                return window;
            }
            client.send(DATA, 0, 1, &chunk).await;
        }
    };

    let reset = timeout(PATIENCE, reset).await.expect("it ends");

    assert_eq!(reset.stream, 1);
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let server = start(SHORT).await;
    let mut client = Client::connect(&server, 65_535).await;
    client.get(1, "/hello").await;

    let goodbye = client.next_of(GO_AWAY).await.expect("the server says goodbye");

    assert_eq!(goodbye.payload[4..8], [0; 4], "no error");
    rest(&mut client.0).await;
}

#[tokio::test]
async fn who_does_not_answer_pings_is_closed() {
    let limits = Limits { ping: SHORT.idle / 2, pong: SHORT.idle / 2, ..SHORT };
    let mut server = start(limits).await;
    let mut client = Client::connect(&server, 65_535).await;
    client.send(SETTINGS, ACK, 0, &[]).await;
    client.get(1, "/stream").await;
    server.begun.recv().await.unwrap();

    let (took, _) = timed(rest(&mut client.0)).await;

    assert!(took < PATIENCE, "{took:?}");
}
