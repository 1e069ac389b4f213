//! A control plane with one group, and a host without an agent that follows it by script.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::plane::{Daemon, Plane};

/// A wait longer than this means that what is waited for will not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The group that the host follows.
pub(crate) const GROUP: &str = "admins";

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

/// Panics unless this process has a network namespace of its own; then brings up its loopback.
pub(crate) fn require() {
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap();
    let names: Vec<&str> =
        devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    assert_eq!(names, ["lo"], "not in a network namespace of its own; run `make test`");
    run("ip", &["link", "set", "lo", "up"]);
}

/// Runs a program that must succeed; answers what it prints.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A script of `examples/`.
pub(crate) fn script(path: &str) -> PathBuf {
    Path::new(EXAMPLES).join(path)
}

/// The control plane and the secret with which the host reads.
pub(crate) struct Admins {
    pub(crate) plane: Plane,
    daemon: Option<Daemon>,
    url: String,
    pub(crate) key: String,
}

impl Admins {
    pub(crate) fn start() -> Admins {
        require();
        let plane = Plane::make();
        plane.json(&["group", "add", GROUP]);
        let mint = ["key", "mint", "--name", "feed", "--scope", "groups.read"];
        let minted = plane.json(&[&mint[..], &["--origin", "127.0.0.0/8"]].concat());
        let key = minted["secret"].as_str().unwrap().to_owned();
        let daemon = plane.start();
        let url = format!("http://{}", daemon.address);
        Admins { plane, daemon: Some(daemon), url, key }
    }

    /// Adds a pair to the group; answers where it reports.
    pub(crate) fn pair(&self, name: &str, ttl: &str) -> String {
        let made = self.plane.json(&["pair", "add", name, "--ttl", ttl]);
        self.plane.json(&["group", "add-member", GROUP, "--pair", name]);
        let bookmark = made["bookmark"].as_str().unwrap();
        format!("{}/b/{}", self.url, bookmark.rsplit_once('/').unwrap().1)
    }

    pub(crate) fn network(&self, cidr: &str) {
        let network = ["group", "add-member", GROUP, "--network", cidr, "--note", cidr];
        self.plane.json(&network);
    }

    pub(crate) fn revoke(&self, member: &str) {
        self.plane.json(&["group", "remove-member", GROUP, member]);
    }

    /// Reports one visit at all of `addresses`.
    pub(crate) fn report(&self, bookmark: &str, addresses: &[&str]) {
        let mut visit = Value::Null;
        for address in addresses {
            let body = serde_json::json!({"visit": visit}).to_string();
            let body = if visit.is_null() { "{}" } else { &body };
            let from = format!("X-Forwarded-For: {address}");
            let json = ["-H", "Accept: application/json", "-H", "Content-Type: application/json"];
            let said = ["-H", &from, "--data", body, bookmark];
            let quiet = ["--noproxy", "*", "-fsS", "--max-time", "20"];
            let answer = run("curl", &[&quiet[..], &json, &said].concat());
            let answer: Value = serde_json::from_str(&answer).unwrap();
            visit = answer["data"]["visit"].clone();
            assert!(visit.is_string(), "{answer}");
        }
    }

    /// What the API answers for a form of the list.
    pub(crate) fn list(&self, query: &str) -> String {
        let bearer = format!("Authorization: Bearer {}", self.key);
        let url = format!("{}?{query}", self.list_url());
        run("curl", &["--noproxy", "*", "-fsS", "--max-time", "20", "-H", &bearer, &url])
    }

    fn list_url(&self) -> String {
        format!("{}/api/v1/groups/1/ips", self.url)
    }

    /// A host that follows the group.
    pub(crate) fn host(&self) -> Host {
        let url = format!("{}?format=csv", self.list_url());
        Host::following(&url, &self.key)
    }

    /// Ends the control plane, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.daemon.take().unwrap().kill();
    }
}

/// A host that runs `postern-feed`.
pub(crate) struct Host(TempDir);

impl Host {
    pub(crate) fn following(url: &str, key: &str) -> Host {
        let host = Host(tempfile::tempdir().unwrap());
        fs::create_dir(host.config("")).unwrap();
        let curl =
            format!("url = \"{url}\"\nheader = \"Authorization: Bearer {key}\"\nnoproxy = \"*\"\n");
        fs::write(host.config("feed.curl"), curl).unwrap();
        fs::set_permissions(host.config("feed.curl"), fs::Permissions::from_mode(0o600)).unwrap();
        host.set("");
        host
    }

    pub(crate) fn config(&self, name: &str) -> PathBuf {
        self.0.path().join("config").join(name)
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.0.path().join("state").join(name)
    }

    /// Writes the settings, with which no run waits for a change.
    pub(crate) fn set(&self, settings: &str) {
        fs::write(self.config("settings"), format!("wait_secs=0\n{settings}\n")).unwrap();
    }

    /// Runs the script once.
    pub(crate) fn try_run(&self) -> Output {
        self.command().output().unwrap()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(script("noc/postern-feed"));
        command.arg(self.config("")).arg(self.state("")).env_remove("CREDENTIALS_DIRECTORY");
        command
    }

    /// Runs the script once, which must work.
    pub(crate) fn run(&self) {
        let output = self.try_run();
        assert!(output.status.success(), "{output:?}");
    }

    /// Runs the script once, which must complain; answers of what.
    pub(crate) fn fail(&self) -> String {
        let output = self.try_run();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The lines of the list.
    pub(crate) fn list(&self) -> Vec<String> {
        let text = fs::read_to_string(self.state("list")).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Runs `step` again and again until it answers yes; panics when that takes too long.
pub(crate) fn eventually(what: &str, mut step: impl FnMut() -> bool) {
    let started = Instant::now();
    while !step() {
        assert!(started.elapsed() < PATIENCE, "{what}");
    }
}

/// A server that answers every request with the same bytes.
pub(crate) fn answering(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            // The script may have seen enough.
            drop(stream.write_all(&answer));
        }
    });
    url
}
