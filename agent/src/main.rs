//! `postern-agent`: see [`postern_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    installed.expect("nothing installs a provider before the first line");
    postern_agent::cli::main()
}
