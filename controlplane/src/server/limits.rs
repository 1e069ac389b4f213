//! The limits of a listener, all in one place.

use std::time::Duration;

/// What one client can take of the server at most. Nothing here is about meaning: that is
/// decided behind the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From accepting a connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// To the first byte on a connection without TLS.
    pub first_byte: Duration,
    /// To the end of a request's head: from the start of the connection for the first request,
    /// from its own first byte for later ones.
    pub head: Duration,
    /// From the end of a request's head to the end of its body.
    pub body: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For the client to take at least [`WRITE_PROGRESS_BYTES`](super::WRITE_PROGRESS_BYTES) of
    /// what waits to be sent.
    pub write: Duration,
    /// From the call to stop to the end of the last request.
    pub drain: Duration,
    /// Of a connection, about; afterwards its requests are finished and its streams told to go.
    pub age: Duration,
    /// Request line and header fields together, in bytes; at least 8 KiB.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub fields: usize,
    /// A request's body, in bytes.
    pub body_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// HTTP/2 streams that a client may open and reset before the server has seen them.
    pub resets: usize,
    /// Between two pings on an HTTP/2 connection.
    pub ping: Duration,
    /// For the answer to a ping.
    pub pong: Duration,
    /// Connections altogether.
    pub connections: usize,
    /// Connections of one IPv4 address or IPv6 /64; trusted proxies are not counted.
    pub connections_by_peer: usize,
}

impl Limits {
    /// For a public listener: ten thousand agents, and room for those who only knock.
    pub const PUBLIC: Limits = Limits {
        handshake: Duration::from_secs(5),
        first_byte: Duration::from_secs(5),
        head: Duration::from_secs(10),
        body: Duration::from_secs(30),
        idle: Duration::from_secs(60),
        write: Duration::from_secs(20),
        drain: Duration::from_secs(10),
        age: Duration::from_secs(4 * 60 * 60),
        head_bytes: 16 * 1024,
        fields: 64,
        body_bytes: 64 * 1024,
        streams: 64,
        resets: 20,
        ping: Duration::from_secs(20),
        pong: Duration::from_secs(20),
        connections: 16 * 1024,
        connections_by_peer: 1024,
    };

    /// For a listener that only the operator's own programs reach.
    pub const OPERATOR: Limits = Limits {
        connections: 64,
        connections_by_peer: 64,
        body_bytes: 1024 * 1024,
        ..Limits::PUBLIC
    };
}
