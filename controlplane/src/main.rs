//! Runs the control plane, and its operator's commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().expect("nothing has chosen a provider before the first line");
    postern_controlplane::cli::run(std::env::args_os())
}
