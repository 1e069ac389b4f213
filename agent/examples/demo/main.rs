//! The main job on a real kernel: closed, reported, open, roved, killed, closed on time, restarted.
//!
//! Runs the real daemons in network namespaces of its own, and asks packets whether it is true.
//! Call it by `make demo`; it refuses to run where it could touch the machine's own network. It
//! is the first process of its process namespace and keeps its files in a mount of its own, so
//! that whatever ends it, nothing is left behind.

#![expect(clippy::print_stdout, reason = "what it shows is what it is for")]

mod beacon;
mod daemon;
mod hosts;
mod network;
mod story;
mod witness;

use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n FAILED  {error:#}");
            if let [_programs] = words[..] {
                println!("\n{}", hosts::last_words());
            }
            ExitCode::FAILURE
        }
    }
}

/// Tells the story with the daemons in a folder, or plays one of the parts in it: the story
/// starts this program again in other network namespaces.
fn run(words: &[&str]) -> Result<()> {
    match words {
        ["witness", source, host] => witness::knock(source.parse()?, host.parse()?),
        ["service", address] => witness::serve(address.parse()?),
        ["beacon", source, certificate] => beacon::report(source.parse()?, Path::new(certificate)),
        [programs] => {
            network::require_private_namespaces()?;
            end_on_signals()?;
            story::tell(&Path::new(programs).canonicalize().context("find the daemons")?)
        }
        _ => anyhow::bail!("call this by `make demo`"),
    }
}

/// Ends everything on Ctrl-C: the kernel delivers no signal to the first process of a process
/// namespace that does not ask for it.
fn end_on_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        println!("\n stopped; nothing is left behind");
        std::process::exit(130);
    });
    Ok(())
}
