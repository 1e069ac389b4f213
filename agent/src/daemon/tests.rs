use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use postern_shared::ids::GroupId;
use postern_shared::plan::{Observed, Plan};
use postern_shared::policy::LocalPolicy;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::AgentGroup;
use tokio::task::JoinHandle;

use super::*;
use crate::config::SweepFuture;
use crate::control::ask;
use crate::control::protocol::{Answer, Flushed, Planned, Reloaded, Request, Why};
use crate::credential::tests::credential;
use crate::firewalls::HostFirewalls;
use crate::status::{Link, Status};
use crate::target::{Refresh, Target, TargetError, TargetInfo};
use crate::testing::group;

/// A firewall that is none, for tests: it takes everything and does nothing.
#[derive(Debug, Clone, Copy)]
struct NoFirewalls;

#[derive(Debug)]
struct NoFirewall {
    info: TargetInfo,
    observed: BTreeMap<GroupId, Observed>,
}

impl Firewalls for NoFirewalls {
    type Target = NoFirewall;

    fn open(
        &self,
        config: &TargetConfig,
        _policy: &LocalPolicy,
        _directory: &Directory,
    ) -> Result<NoFirewall, String> {
        let info = TargetInfo { name: config.name.clone(), kind: "none", strategy: String::new() };
        Ok(NoFirewall { info, observed: BTreeMap::new() })
    }

    fn sweep(&self, config: &TargetConfig, now: Timestamp) -> Option<SweepFuture> {
        HostFirewalls.sweep(config, now)
    }
}

impl Target for NoFirewall {
    fn info(&self) -> &TargetInfo {
        &self.info
    }

    async fn refresh(&mut self, _now: Timestamp) -> Result<Refresh, TargetError> {
        Ok(Refresh::Unchanged)
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        &self.observed
    }

    fn is_settled(&self) -> bool {
        true
    }

    fn preview(&self, _plans: &BTreeMap<GroupId, Plan>) -> String {
        String::new()
    }

    async fn apply(
        &mut self,
        _plans: &BTreeMap<GroupId, Plan>,
        _now: Timestamp,
    ) -> Result<(), TargetError> {
        Ok(())
    }

    async fn disturbed(&mut self) {
        std::future::pending().await
    }

    fn earliest_deadline(&self) -> Option<Timestamp> {
        None
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        Ok(())
    }
}

/// A host on which a daemon runs whose control plane nobody answers for.
struct Host {
    directory: tempfile::TempDir,
    daemon: JoinHandle<Result<(), DaemonError>>,
}

const GROUP: &str = "01010101-0101-4101-8101-010101010101";

fn target(name: &str) -> String {
    format!(
        "  - name: {name}\n    type: nftables\n    gate:\n      table: {name}\n      services:\n        \
         - {{ name: ssh, ports: [22/tcp], groups: [{GROUP}] }}\n"
    )
}

impl Host {
    async fn new() -> Host {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let directory = tempfile::tempdir().unwrap();
        let host = Host { daemon: tokio::spawn(async { Ok(()) }), directory };
        host.configure(&target("door"));
        credential("http://127.0.0.1:9").store(&host.path("agent-credential")).unwrap();
        let daemon = tokio::spawn(run(host.path("agent.yaml"), NoFirewalls));
        let host = Host { daemon, ..host };
        host.until("the socket is there", |_| true).await;
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn configure(&self, targets: &str) {
        let directory = self.directory.path().display();
        let text =
            format!("state_dir: {directory}\ncontrol: {directory}/control\ntargets:\n{targets}");
        fs::write(self.path("agent.yaml"), text).unwrap();
    }

    async fn ask<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        request: Request,
    ) -> Result<T, crate::control::AskError> {
        let path = self.path("control");
        tokio::task::spawn_blocking(move || ask(&path, &request)).await.unwrap()
    }

    /// Asks for the status until it is so.
    async fn until(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        const TURNS_MAX: usize = 500;
        for _ in 0..TURNS_MAX {
            if let Ok(status) = self.ask::<Status>(Request::Status).await
                && is_so(&status)
            {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it never came to this: {what}");
    }
}

fn has_trouble(status: &Status, word: &str) -> bool {
    status.troubles.iter().any(|trouble| trouble.contains(word))
}

#[tokio::test]
async fn what_is_overdue_goes_before_anybody_has_said_which_group_is_meant() {
    let host = Host::new().await;
    let path = host.path("list");
    fs::write(
        &path,
        "# postern list 2026-01-01T00:00:00Z 1 kept\n\
         # 10.1.2.4/32 postern list 01010101=2026-01-01T00:00:00Z\n10.1.2.4\n",
    )
    .unwrap();

    host.configure(&format!(
        "  - {{ name: list, type: file, path: {}, format: haproxy, groups: [nobody-knows] }}\n",
        path.display()
    ));

    host.until("it is gone", |status| {
        has_trouble(status, "nobody-knows")
            && !fs::read_to_string(&path).unwrap().contains("10.1.2.4")
    })
    .await;
}

#[tokio::test]
async fn a_bad_reload_keeps_the_old_configuration_and_says_so() {
    let host = Host::new().await;
    let status = host.until("it has tried the plane", |status| {
        has_trouble(status, "control plane: the control plane cannot be reached")
    });
    let status = status.await;
    assert_eq!(status.plane.link, Link::Down);
    assert!(has_trouble(&status, "no list has come yet"), "{:?}", status.troubles);

    // By the change of the file alone.
    host.configure("  - name: other\n    type: pf\n");
    let status =
        host.until("it was noticed", |status| has_trouble(status, "the old one stays in force"));
    let status = status.await;
    assert!(has_trouble(&status, "write nftables"), "{:?}", status.troubles);
    assert_eq!(status.targets[0].name, "door");

    // By an operator's word.
    let error = host.ask::<Reloaded>(Request::Reload).await.unwrap_err();
    assert!(error.to_string().contains("agent.yaml:5:11"), "{error}");

    host.configure(&(target("door") + &target("gate")));
    let reloaded: Reloaded = host.ask(Request::Reload).await.unwrap();
    assert_eq!(reloaded, Reloaded { targets: 2 });
    let status = host.until("both are there", |status| status.targets.len() == 2).await;
    assert!(!has_trouble(&status, "configuration"), "{:?}", status.troubles);
    host.daemon.abort();
}

#[tokio::test]
async fn a_group_that_was_renamed_or_taken_away_stays_followed_and_its_target_kept() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let host =
        Host { directory: tempfile::tempdir().unwrap(), daemon: tokio::spawn(async { Ok(()) }) };
    let named = |name: &str| target("door").replace(GROUP, name);
    host.configure(&named("ops"));
    credential("http://127.0.0.1:9").store(&host.path("agent-credential")).unwrap();
    let known = |id, name: &str| AgentGroup { id: group(id), number: id.into(), name: name.into() };
    let start = || {
        let config = Config::load(&host.path("agent.yaml")).unwrap();
        Daemon::start(host.path("agent.yaml"), config, NoFirewalls).unwrap()
    };
    let mut daemon = start();
    daemon.learn(Directory(vec![known(1, "ops")])).await;

    daemon.learn(Directory(vec![known(2, "web")])).await;
    assert_eq!(daemon.parts.lists.groups(), [group(1)]);
    daemon.session.tasks.shutdown().await;
    let lists = host.path("lists");
    let (followed, old) = ([1, 2].map(|id| lists.join(format!("{}.list", group(id))))).into();
    for path in [&followed, &old] {
        fs::write(path, "").unwrap();
    }
    let mut daemon = start();
    assert!(!old.exists(), "what nobody follows leaves the disk");
    assert_eq!(daemon.parts.lists.groups(), [group(1)], "also after a restart");
    assert!(daemon.session.orders.contains_key("door"));

    host.configure(&named("nobody"));
    let refused = daemon.reload(Cause::Asked).await.unwrap_err();
    assert!(refused.contains("`nobody` is not among"), "{refused}");
    assert_eq!(daemon.parts.lists.groups(), [group(1)], "the old configuration stays");
}

#[tokio::test]
async fn what_was_flushed_stays_so_until_an_operator_reloads() {
    let host = Host::new().await;
    let flushed: Vec<Flushed> = host.ask(Request::Flush).await.unwrap();
    assert_eq!(flushed, [Flushed { target: "door".to_owned(), error: None }]);
    let names = || fs::read_to_string(host.path("flushed.json")).unwrap();
    assert_eq!(names(), r#"["door"]"#);

    host.configure(&(target("door") + &target("gate")));
    host.until("the change was noticed", |status| status.targets.len() == 2).await;
    assert_eq!(names(), r#"["door"]"#);

    let _: Reloaded = host.ask(Request::Reload).await.unwrap();
    assert_eq!(names(), "[]");
    host.daemon.abort();
}

#[tokio::test]
async fn an_operator_hears_that_nothing_is_closed_yet() {
    let host = Host::new().await;
    host.until("it was looked at", |status| status.targets[0].passed_at.is_some()).await;

    let address = "192.0.2.1".parse().unwrap();
    let why: Why = host.ask(Request::Why { address, port: Some(22) }).await.unwrap();
    let elsewhere: Why = host.ask(Request::Why { address, port: Some(80) }).await.unwrap();
    let planned: Vec<Planned> = host.ask(Request::Plan).await.unwrap();

    assert_eq!(why.verdicts[0].is_open, Some(true));
    assert!(why.verdicts[0].note.as_ref().unwrap().contains("nothing is closed"), "{why:?}");
    assert_eq!(elsewhere.verdicts, []);
    assert!(planned[0].error.as_ref().unwrap().contains("list"), "{planned:?}");
    let unknown = host.ask::<crate::control::protocol::Confirmed>(Request::Accept {
        group: Some("nobody".to_owned()),
    });
    assert!(unknown.await.unwrap_err().to_string().contains("nobody"));
    host.daemon.abort();
}

#[tokio::test]
async fn the_control_socket_is_private_and_bears_nonsense() {
    let host = Host::new().await;
    let path = host.path("control");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    for question in [b"\n".to_vec(), b"{\"do\":\"dance\"}\n".to_vec(), vec![b'x'; 10_000]] {
        let path = path.clone();
        let answer = tokio::task::spawn_blocking(move || say(&path, &question)).await.unwrap();

        assert!(matches!(answer, Answer::Error(_)), "{answer:?}");
    }
    host.until("it still answers", |_| true).await;
    host.daemon.abort();
}

fn say(path: &Path, question: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(path).unwrap();
    // The daemon stops reading at its limit.
    drop(stream.write_all(question));
    let mut text = String::new();
    // What was sent beyond the limit may reset the connection behind the answer.
    drop(stream.read_to_string(&mut text));
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn a_second_agent_of_the_same_state_directory_does_not_start() {
    let host = Host::new().await;

    let second = run(host.path("agent.yaml"), NoFirewalls).await;

    assert!(matches!(second, Err(DaemonError::Lock(LockError::Held { .. }))), "{second:?}");
    host.until("the first one still answers", |_| true).await;
    host.daemon.abort();
}

#[tokio::test]
async fn without_a_credential_it_says_what_to_do() {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let host =
        Host { directory: tempfile::tempdir().unwrap(), daemon: tokio::spawn(async { Ok(()) }) };
    host.configure(&target("door"));

    let error = run(host.path("agent.yaml"), NoFirewalls).await.unwrap_err();

    assert!(error.to_string().contains("postern-agent enroll"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_service_manager_hears_ready_when_every_target_was_looked_at() {
    let board = Board::new("https://plane.example".to_owned(), Timestamp::EPOCH);
    let note = |name: &str, change: fn(&mut TargetNotes)| {
        board.write(|notes| {
            let target = notes.targets.entry(name.to_owned());
            change(target.or_insert_with(|| TargetNotes::new(name, "none", Vec::new())));
        });
    };
    note("gate", |_| {});
    note("sets", |_| {});
    let is_ready = || async { timeout(Duration::from_secs(1), first_passes(&board)).await.is_ok() };

    assert!(!is_ready().await);
    note("gate", |target| target.status.passed_at = Some(Timestamp::EPOCH));
    assert!(!is_ready().await);
    note("sets", |target| target.status.state = TargetState::Failing);
    assert!(is_ready().await);
}
