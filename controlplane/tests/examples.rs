//! Every example is a configuration that the program itself finds good.
//!
//! `agent/tests/examples.rs` makes sure that there is no example for neither program.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

#[test]
fn every_example_is_checked_by_the_program_that_it_is_for() {
    let entries = fs::read_dir(EXAMPLES).unwrap().map(|entry| entry.unwrap().path());
    let is_own =
        |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("controlplane");
    let own: Vec<PathBuf> = entries.filter(is_own).collect();

    assert!(!own.is_empty());
    for path in own {
        let (is_good, said) = check(&path);
        assert!(is_good, "{}: {said}", path.display());
    }
}

#[test]
fn an_example_with_a_mistake_would_be_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controlplane.yaml");
    let text = fs::read_to_string(Path::new(EXAMPLES).join("controlplane.yaml")).unwrap();
    fs::write(&path, text.replace("\npublic_url:", "\npublic_ulr:")).unwrap();

    let (is_good, said) = check(&path);

    assert!(!is_good);
    assert!(said.contains("controlplane.yaml:") && said.contains("public_ulr"), "{said}");
}

/// Whether the program finds a file good, and what it says of it.
fn check(path: &Path) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_postern-controlplane");
    let output = Command::new(program).arg("check").arg(path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}
