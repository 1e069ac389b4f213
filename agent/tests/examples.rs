//! Every example is a configuration that the program itself finds good, and all keys that there are stand
//! in one.

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
        if !cfg!(feature = "aws") && begins_with(&path, "agent-aws") {
            assert!(
                said.contains("targets[0].type: this agent was built without the targets"),
                "{said}"
            );
            assert!(!is_good && said.contains("agent-aws.yaml:14:11: "), "{said}");
            continue;
        }
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

#[test]
fn every_key_stands_in_an_example_of_its_kind() {
    let examples: Vec<String> = examples()
        .iter()
        .filter(|path| begins_with(path, NAME))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();

    let root = Mapping { before: "{".to_owned(), behind: "}".to_owned(), words: Vec::new() };
    let mut mappings = root.with_keys();
    mappings.extend(kinds().iter().flat_map(|kind| root.target_of(kind).with_keys()));

    assert!(50 < mappings.iter().map(|(_, keys)| keys.len()).sum::<usize>(), "{mappings:?}");
    for (mapping, keys) in mappings {
        let of_it = |text: &&String| mapping.words.iter().all(|word| has(text, word));
        let texts: Vec<&String> = examples.iter().filter(of_it).collect();
        for key in keys {
            let is_there = texts.iter().any(|text| has(text, &format!("{key}:")));
            assert!(is_there, "no example with {:?} has `{key}:`", mapping.words);
        }
    }
}

/// A place where a configuration may have keys.
#[derive(Debug, Clone)]
struct Mapping {
    /// What stands before and behind them, in a document that has nothing else.
    before: String,
    behind: String,
    /// What an example has in which this mapping is.
    words: Vec<String>,
}

impl Mapping {
    fn within(&self, before: &str, behind: &str, word: String) -> Mapping {
        Mapping {
            before: format!("{}{before}", self.before),
            behind: format!("{behind}{}", self.behind),
            words: self.words.iter().cloned().chain([word]).collect(),
        }
    }

    fn target_of(&self, kind: &str) -> Mapping {
        let kind = format!("type: {kind}");
        self.within(&format!("targets: [{{{kind}, "), "}]", kind)
    }

    /// This mapping and those within it, each with the keys that the program knows there: it names them
    /// to whoever writes one that it does not know.
    fn with_keys(&self) -> Vec<(Mapping, Vec<String>)> {
        let said = check_text(&format!("{}zzzzzzzz: 1{}", self.before, self.behind));
        let Some((_, known)) = said.split_once("zzzzzzzz: is not known here; known are ") else {
            return Vec::new();
        };
        let known = known.lines().next().unwrap_or_default().split(", ");
        let keys: Vec<String> = known.map(|key| key.trim_matches('`').to_owned()).collect();
        let mut found = vec![(self.clone(), keys.clone())];
        // Those of a target are other ones for each kind.
        for key in keys.iter().filter(|key| *key != "targets") {
            for (open, close) in [("{", "}"), ("[{", "}]")] {
                let word = format!("{key}:");
                found.extend(self.within(&format!("{word} {open}"), close, word).with_keys());
            }
        }
        found
    }
}

/// The kinds of target, which the program names to whoever writes none of them.
fn kinds() -> Vec<String> {
    let said = check_text("{targets: [{type: zzzzzzzz}]}");
    let (_, kinds) = said.split_once("is `zzzzzzzz`; write ").unwrap();
    kinds.trim().split(" or ").map(str::to_owned).collect()
}

fn check_text(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yaml");
    fs::write(&path, text).unwrap();
    check(&path).1
}

/// Whether a text has a word that is not the end of another.
fn has(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
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
