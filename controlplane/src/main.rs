//! Runs the control plane, and its operator's commands.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request is some hundred small allocations, and many end on another thread than they began on.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().expect("nothing has chosen a provider before the first line");
    postern_controlplane::cli::run(std::env::args_os())
}
