//! The unit that runs commands, as the program itself, in mounts of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use postern_agent::commands::Commands;
use tempfile::TempDir;

use crate::netns::{eventually, run, try_run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_postern-agent");

/// A running `postern-agent commands`, with ufw's files as they are installed; killed when dropped.
pub(crate) struct Unit {
    pub(crate) folder: TempDir,
    child: Child,
}

impl Unit {
    /// Starts it with these targets. Only there ufw sees its files.
    pub(crate) fn start(targets: &str) -> Unit {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().display().to_string();
        run("cp", &["-a", "/etc/ufw", &format!("{dir}/ufw")]);
        run("cp", &["-a", "/etc/default/ufw", &format!("{dir}/default")]);
        let config = folder.path().join("agent.yaml");
        fs::write(&config, format!("commands: {dir}/socket\ntargets:\n{targets}")).unwrap();
        let script = "mount --bind $0/ufw /etc/ufw; mount --bind $0/default /etc/default/ufw; \
                      mount -t tmpfs none /run; exec \"$@\"";
        let me = rustix::process::geteuid().as_raw().to_string();
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-ec", script, &dir, PROGRAM, "commands", "--for", &me])
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let unit = Unit { folder, child };
        eventually("the unit listens", || UnixStream::connect(unit.socket()).is_ok());
        unit
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn commands(&self) -> Commands {
        Commands::Unit(self.socket())
    }

    /// Runs a program where the unit runs its own.
    pub(crate) fn within(&self, program: &str, arguments: &[&str]) -> String {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.child.id());
        run("nsenter", &[&[namespace.as_str(), program], arguments].concat())
    }

    /// Asks what no agent asks; answers what is answered.
    fn ask(&self, question: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        stream.write_all(b"\n").unwrap();
        std::io::read_to_string(stream).unwrap()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const TARGETS: &str = "
  - { name: web, type: file, path: /nowhere/list, format: text, groups: [1], reload: [/bin/echo, x y] }
  - { name: quiet, type: file, path: /nowhere/other, format: text, groups: [1] }
  - { name: old, type: ipset, v4_set: friends, groups: [1] }
";

#[test]
fn only_what_the_configuration_names_is_run_for_a_target() {
    crate::netns::require();
    let unit = Unit::start(TARGETS);

    assert_eq!(unit.ask(r#"{"target":"web","deed":{"do":"reload"}}"#), r#"{"done":"x y\n"}"#);
    for (question, word) in [
        (r#"{"target":"none","deed":{"do":"reload"}}"#, "no target `none`"),
        (r#"{"target":"quiet","deed":{"do":"reload"}}"#, "runs nothing"),
        (r#"{"target":"old","deed":{"do":"reload"}}"#, "nothing that the target has done"),
        (r#"{"target":"old","deed":{"do":"ipset_read","family":6}}"#, "no set of this family"),
        (r#"{"target":"web","deed":{"do":"reload","argv":["/bin/sh"]}}"#, "not understood"),
        (r#"{"target":"web","argv":["/bin/sh"],"deed":{"do":"reload"}}"#, "not understood"),
        ("reboot", "not understood"),
    ] {
        let answer = unit.ask(question);
        assert!(answer.starts_with(r#"{"refused":"#) && answer.contains(word), "{answer}");
    }
}

#[test]
fn what_the_policy_forbids_is_not_opened_whoever_asks() {
    crate::netns::require();
    let unit = Unit::start(TARGETS);
    let write = |network: &str| {
        format!(
            r#"{{"target":"old","deed":{{"do":"ipset_write","changes":[{{"family":4,"replace":true,"elements_max":9,"remove":[],"put":[["{network}",60]]}}]}}}}"#
        )
    };

    let refused = unit.ask(&write("20.0.0.0/8"));
    let (exists, _) = try_run("ipset", &["list", "friends"]);
    let done = unit.ask(&write("10.0.0.1/32"));

    assert!(refused.contains("policy forbids it: 20.0.0.0/8"), "{refused}");
    assert!(!exists);
    assert_eq!(done, r#"{"done":""}"#);
    assert!(run("ipset", &["list", "friends"]).contains("10.0.0.1 timeout"));
}

#[test]
fn nobody_but_the_agent_and_root_gets_to_the_socket() {
    crate::netns::require();
    let unit = Unit::start(TARGETS);

    let mode = run("stat", &["-c", "%a", unit.socket().to_str().unwrap()]);

    assert_eq!(mode, "600\n");
}
