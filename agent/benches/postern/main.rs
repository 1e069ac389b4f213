//! Measures the figures that the product is judged by, each beside what the same machine does
//! without us, and writes them to `target/bench.json`.
//!
//! Arguments name the sections to measure: `cargo bench --bench postern -- kernel chain`. Only a run
//! of all of them writes the file, so that its figures are of one run and none is missing.
//!
//! Runs in a network namespace of its own, which it makes. The figures of whole processes need
//! the release binaries in `target/bench`: `make bench` puts them there first.

#![expect(clippy::print_stdout, reason = "prints figures")]

mod chain;
#[path = "../../tests/rig/chance.rs"]
mod chance;
mod daemon;
#[expect(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "the tests use the rest, and may fail loudly"
)]
#[path = "../../tests/cloudflare/fake/mod.rs"]
mod fake;
mod fanout;
mod feeds;
mod figure;
mod floors;
mod kernel;
mod lab;
mod load;
mod monitor;
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use the rest, and may fail loudly")]
#[path = "../../tests/aws/moto.rs"]
mod moto;
mod plane;
mod raw_netlink;
#[expect(clippy::unwrap_used, reason = "a part of the tests, which may fail loudly")]
#[path = "../../tests/cloudflare/server.rs"]
mod server;
mod streams;
mod targets;
mod throughput;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use figure::Figure;
use mimalloc::MiMalloc;

/// As the control plane has it, which some sections run in this process.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Set in the process that runs in a namespace of its own.
const INSIDE: &str = "POSTERN_BENCH_INSIDE";

fn main() -> anyhow::Result<ExitCode> {
    if env::var_os(INSIDE).is_none() {
        return enter_namespace();
    }
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    if let Some(folder) = env::var_os(streams::PART) {
        return streams::serve_idle(&folder).map(|()| ExitCode::SUCCESS);
    }
    run("ip", &["link", "set", "lo", "up"])?;
    let target = target_folder()?;
    // On a real disk, not on a tmpfs: commits are what is measured.
    let folder = tempfile::tempdir_in(&target)?;
    let sections: [(&str, Section); 7] = [
        ("throughput", throughput::figures),
        ("feeds", feeds::figures),
        ("streams", streams::figures),
        ("fanout", fanout::figures),
        ("kernel", kernel::figures),
        ("chain", chain::figures),
        ("targets", targets::figures),
    ];
    let wanted: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let is_whole = sections.iter().all(|(name, _)| is_wanted(name));
    let mut all = Vec::new();
    for (name, section) in sections {
        if !is_wanted(name) {
            continue;
        }
        for figure in section(folder.path()).with_context(|| format!("measuring {name}"))? {
            println!("{figure}");
            all.push(figure);
        }
    }
    if is_whole {
        fs::write(target.join("bench.json"), serde_json::to_string_pretty(&all)? + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

type Section = fn(&Path) -> anyhow::Result<Vec<Figure>>;

/// Runs this program again where its firewall and its traffic concern nobody.
fn enter_namespace() -> anyhow::Result<ExitCode> {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let status = unshare
        .arg("--net")
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        // What moto takes from anybody.
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench")
        .status()
        .context("unshare (package util-linux) is needed")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The build's `target` folder: this program lies in `target/release/deps`.
fn target_folder() -> anyhow::Result<PathBuf> {
    let program = env::current_exe()?;
    let target = program.ancestors().nth(3).context("this program lies in target/release/deps")?;
    Ok(target.to_owned())
}

/// Runs a program to its end, which must be a success; answers what it printed.
fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {args:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}
