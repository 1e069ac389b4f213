//! The server over real sockets: clients that are slow, greedy, broken or many, while an
//! ordinary client is served all the time.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

mod connections;
mod http2;
mod slow;
mod stopping;
mod support;
mod tls;
mod unix;
