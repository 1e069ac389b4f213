//! Every example is a configuration that the program itself finds good.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Examples of the agent begin with this, those of the control plane with its own name.
const NAME: &str = "agent";
const OTHER: &str = "controlplane";

#[test]
fn every_example_is_checked_by_the_program_that_it_is_for() {
    let examples = examples();

    let (own, others): (Vec<PathBuf>, Vec<PathBuf>) =
        examples.into_iter().partition(|path| begins_with(path, NAME));

    assert!(!own.is_empty());
    for path in own {
        let (is_good, said) = check(&path);
        assert!(is_good, "{}: {said}", path.display());
    }
    for path in others {
        assert!(begins_with(&path, OTHER), "no program checks {}", path.display());
    }
}

#[test]
fn an_example_with_a_mistake_would_be_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yaml");
    let text = fs::read_to_string(folder_of_examples().join("agent.yaml")).unwrap();
    fs::write(&path, text.replace("\npolicy:", "\npolcy:")).unwrap();

    let (is_good, said) = check(&path);

    assert!(!is_good);
    assert!(said.contains("agent.yaml:") && said.contains("polcy"), "{said}");
}

/// Whether the program finds a file good, and what it says of it.
fn check(path: &Path) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_postern-agent");
    let output = Command::new(program).arg("check").arg(path).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder_of_examples()).unwrap();
    // A folder holds scripts, which `controlplane/tests/netns_feeds` runs.
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn folder_of_examples() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"))
}

fn begins_with(path: &Path, name: &str) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with(name)
}
