//! Whoever answers in a provider's place, over a real socket.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

/// Answers the same to everybody, and hangs up; says where.
pub(crate) fn somebody(answer: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, answer) = (listener.local_addr().unwrap(), format!("HTTP/1.1 {answer}"));
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            // Whatever it asked: a request of this size comes in one piece.
            drop(stream.read(&mut asked));
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    format!("http://{address}")
}
