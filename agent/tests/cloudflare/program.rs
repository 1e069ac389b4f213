//! The program itself against the fake behind a socket, with a token as the host gives it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use postern_shared::network::Network;

use crate::fake::{FakeCloudflare, Temper};
use crate::scene::{self, ACCOUNT, LIST, Provider, ZONE};
use crate::server::{self, TOKEN};
use crate::somebody::somebody;

/// The program, a configuration, and nothing else that speaks to Cloudflare.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new(base: &str, token_line: &str) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let (path, group) = (folder.path().display(), scene::group());
        let token_line = token_line.replace("HERE", &path.to_string());
        let text = format!(
            "state_dir: {path}\ncontrol: {path}/control\ntargets:\n\
             - name: edge\n  type: cloudflare_list\n  account_id: {ACCOUNT}\n  list_id: {LIST}\n  \
             endpoint: {base}\n  {token_line}\n  groups: [{group}]\n\
             - name: zone\n  type: cloudflare_access_rule\n  zone_id: {ZONE}\n  owner: edge\n  \
             endpoint: {base}\n  {token_line}\n  groups: [{group}]\n"
        );
        fs::write(folder.path().join("agent.yaml"), text).unwrap();
        Program { folder }
    }

    /// Writes the token as an operator does.
    fn give(&self, name: &str, token: &str, mode: u32) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("{token}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn run(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    fn command(&self, command: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_postern-agent"));
        program.args([command, "--config"]).arg(self.folder.path().join("agent.yaml"));
        program.env_clear();
        program
    }
}

fn said(output: &Output) -> String {
    let said = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    assert!(!said.contains(TOKEN), "{said}");
    said
}

/// An entry as an agent left it that has been gone for long, and one of somebody else.
fn leave_entries(fake: &FakeCloudflare) {
    scene::furnish(fake);
    let (overdue, office): (Network, Network) =
        ("198.51.100.7/32".parse().unwrap(), "203.0.113.9/32".parse().unwrap());
    for kind in [Provider::List, Provider::ZoneRules] {
        scene::meddle(kind, fake, overdue, "postern edge 07070707=2026-01-01T00:00:00Z");
        scene::meddle(kind, fake, office, "office");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_shows_quotas_and_what_is_overdue_and_flush_takes_ours_only() {
    let fake = FakeCloudflare::new(1, Temper::default());
    leave_entries(&fake);
    let base = server::serve(&fake).await;
    let program = Program::new(&base, "token_file: HERE/token");
    program.give("token", TOKEN, 0o600);

    let plan = said(&program.run("plan"));
    let before = fake.state().lists[LIST].items.len();
    let flushed = program.run("flush");

    assert!(plan.contains("items now 2; all lists of the account now 3, then 2"), "{plan}");
    assert!(plan.contains("limit 10000") && plan.contains("delete 198.51.100.7/32"), "{plan}");
    assert!(plan.contains(&format!("zones/{ZONE}: rules now 4; then 3; limit 50000")), "{plan}");
    assert_eq!(before, 2, "a plan changes nothing");
    assert!(flushed.status.success(), "{}", said(&flushed));
    for kind in [Provider::List, Provider::ZoneRules] {
        assert!(scene::ours(kind, &fake).is_empty());
        assert_eq!(scene::foreign(kind, &fake)[&"203.0.113.9/32".parse().unwrap()], "office");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_gives_a_token_too() {
    let fake = FakeCloudflare::new(1, Temper::default());
    leave_entries(&fake);
    let base = server::serve(&fake).await;
    let program = Program::new(&base, "");
    // Its files have an access list, which shows as bits of the group.
    program.give("cloudflare-token", TOKEN, 0o440);

    let given =
        program.command("plan").env("CREDENTIALS_DIRECTORY", program.folder.path()).output();
    let without = said(&program.run("plan"));

    assert!(said(&given.unwrap()).contains("items now 2"));
    assert!(without.contains("there is no token for Cloudflare: name its file"), "{without}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_no_good_is_told_and_never_shown() {
    let fake = FakeCloudflare::new(1, Temper::default());
    leave_entries(&fake);
    let base = server::serve(&fake).await;
    let program = Program::new(&base, "token_file: HERE/token");

    let missing = said(&program.run("plan"));
    fs::create_dir(program.folder.path().join("token")).unwrap();
    let mode = fs::Permissions::from_mode(0o700);
    fs::set_permissions(program.folder.path().join("token"), mode).unwrap();
    let unreadable = said(&program.run("plan"));
    fs::remove_dir(program.folder.path().join("token")).unwrap();
    program.give("token", TOKEN, 0o644);
    let exposed = said(&program.run("plan"));
    program.give("token", &format!("Bearer {TOKEN}"), 0o600);
    let two_words = said(&program.run("plan"));
    program.give("token", &TOKEN[1..], 0o600);
    let wrong = said(&program.run("plan"));

    assert!(missing.contains("there is no token for Cloudflare in"), "{missing}");
    for word in ["/token cannot be read by user ", "Is a directory", "chown it"] {
        assert!(unreadable.contains(word) && !unreadable.contains("expired"), "{unreadable}");
    }
    assert!(!missing.contains("expired") && !exposed.contains("expired"), "{missing}\n{exposed}");
    assert!(exposed.contains("may be read by others (mode 644)"), "{exposed}");
    assert!(two_words.contains("holds no token, which is one word alone"), "{two_words}");
    assert!(wrong.contains("expired, revoked or wrong") && !wrong.contains(&TOKEN[1..]), "{wrong}");
}

#[test]
fn whoever_answers_in_place_of_cloudflare_is_not_believed() {
    for (answer, expected) in [
        ("200 OK\r\ncontent-length: 400\r\n\r\n{\"success\":true,\"result\":[", "could not read"),
        ("200 OK\r\ncontent-length: 9\r\n\r\n<!DOCTYPE", "HTTP 200 without an answer"),
        ("302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n", "HTTP 302"),
        ("200 OK\r\ncontent-length: 99999999\r\n\r\n", "could not read"),
    ] {
        let base = somebody(answer) + "/client/v4";
        let program = Program::new(&base, "token_file: HERE/token");
        program.give("token", TOKEN, 0o600);

        let plan = said(&program.run("plan"));

        assert!(plan.contains(expected), "{answer}: {plan}");
    }
}
