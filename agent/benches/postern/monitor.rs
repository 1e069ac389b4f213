//! `nft monitor`, the witness of what is in the kernel.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use anyhow::Context;

use crate::daemon::PATIENCE;

/// `nft monitor`: what the kernel says of new elements, with the time at which it said so.
pub(crate) struct Monitor {
    child: Child,
    pub(crate) said: Receiver<(Instant, String)>,
}

impl Monitor {
    pub(crate) fn start() -> anyhow::Result<Monitor> {
        let mut child = Command::new("stdbuf")
            .args(["-oL", "nft", "monitor", "new", "elements"])
            .stdout(Stdio::piped())
            .spawn()
            .context("nft (package nftables) and stdbuf (package coreutils) are needed")?;
        let lines = BufReader::new(child.stdout.take().context("standard output is a pipe")?);
        let (say, said) = channel();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if say.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Monitor { child, said })
    }

    /// Waits until the kernel has an element with this address; answers when it said so.
    pub(crate) fn wait_for(&self, address: &str) -> anyhow::Result<Instant> {
        loop {
            let (at, line) = self.said.recv_timeout(PATIENCE).context("the kernel says nothing")?;
            if line.split(' ').any(|word| word == address) {
                return Ok(at);
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
