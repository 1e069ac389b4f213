//! Users, as the operator sees to them, and the mail that goes to them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use postern_controlplane::domain::{Actor, Event};
use postern_controlplane::server::self_signed;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::audit;
use crate::plane::{Daemon, Plane};

fn emails(users: &Value) -> Vec<(String, String, String)> {
    let text = |user: &Value, name: &str| user[name].as_str().unwrap().to_owned();
    let users = users.as_array().unwrap().iter();
    let mut users: Vec<_> =
        users.map(|user| (text(user, "email"), text(user, "role"), text(user, "state"))).collect();
    users.sort();
    users
}

fn said(plane: &Plane, arguments: &[&str]) -> (Option<i32>, String) {
    let output = plane.run(arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The status of a page of the daemon.
fn status(daemon: &Daemon, link: &str) -> u16 {
    let path = link.strip_prefix("http://127.0.0.1:1").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let page = http.get(format!("http://{}{path}", daemon.address));
        page.header("x-forwarded-for", "198.51.100.7").send().await.unwrap().status().as_u16()
    })
}

#[test]
fn users_are_invited_given_roles_and_removed_with_the_daemon_and_without_it() {
    let plane = Plane::make();
    let zoe = plane.json(&["user", "invite", "zoe@example.org"]);
    let daemon = plane.start();
    let max = plane.json(&["user", "invite", "max@example.org", "--role", "admin"]);
    let link = |user: &Value| user["link"].as_str().unwrap().to_owned();
    assert_eq!(status(&daemon, &link(&zoe)), 200);
    assert_eq!(status(&daemon, &link(&max)), 200);

    let again = plane.json(&["user", "invite", "zoe@example.org", "--role", "admin"]);
    assert_eq!(again["id"], zoe["id"]);
    assert_eq!(status(&daemon, &link(&zoe)), 404, "the newest link counts");
    plane.json(&["user", "role", "max@example.org", "member"]);
    let row = |email: &str, role: &str| (email.to_owned(), role.to_owned(), "invited".to_owned());
    assert_eq!(
        emails(&plane.json(&["user", "list"])),
        [
            row("admin@example.org", "admin"),
            row("max@example.org", "member"),
            row("zoe@example.org", "admin"),
        ]
    );
    daemon.kill();
    plane.json(&["user", "remove", max["id"].as_str().unwrap()]);
    plane.json(&["user", "remove", "zoe@example.org"]);
    assert_eq!(emails(&plane.json(&["user", "list"])), [row("admin@example.org", "admin")]);
    let (code, told) = said(&plane, &["user", "remove", "admin@example.org"]);
    assert_eq!(code, Some(3));
    assert!(told.contains("the last admin"), "{told}");
    assert_eq!(said(&plane, &["user", "role", "zoe@example.org", "admin"]).0, Some(3));
    assert_eq!(said(&plane, &["user", "invite", "nobody"]).0, Some(2));
}

#[test]
fn recover_prints_a_way_back_in_and_leaves_a_record() {
    let plane = Plane::make();

    let alone = plane.json(&["recover", "--user", "admin@example.org"]);
    let daemon = plane.start();
    let served = plane.json(&["recover", "--user", "admin@example.org"]);

    let link = |user: &Value| user["link"].as_str().unwrap().to_owned();
    assert!(link(&served).contains("/welcome/pot_"), "{served}");
    assert_eq!((status(&daemon, &link(&alone)), status(&daemon, &link(&served))), (404, 200));
    let (code, _) = said(&plane, &["recover", "--user", "nobody@example.org"]);
    assert_eq!(code, Some(3));
    daemon.kill();
    let records = audit::walk(&plane.data());
    let issued = records.iter().filter(|record| {
        record.actor == Actor::Operator && matches!(record.event, Event::RecoveryIssued { .. })
    });
    assert_eq!(issued.count(), 2);
}

#[test]
fn an_invitation_is_mailed_only_where_mail_goes_out() {
    let plane = Plane::make();
    let invite = ["user", "invite", "zoe@example.org", "--mail"];

    let (code, alone) = said(&plane, &invite);
    assert!(code == Some(3) && alone.contains("the daemon does not run"), "{alone}");
    let daemon = plane.start();
    let (code, served) = said(&plane, &invite);
    assert!(code == Some(3) && served.contains("under `mail`"), "{served}");
    assert_eq!(emails(&plane.json(&["user", "list"])).len(), 1, "nobody was invited");
    drop(daemon);
}

/// A mail server that asks for STARTTLS and a login; ended when dropped.
struct Sink {
    program: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Sink {
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

#[test]
fn mail_goes_out_encrypted_and_with_the_configured_login() {
    let plane = Plane::make();
    let folder = plane.data();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let made = self_signed(&["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("mail.crt"), &made.certificate_pem).unwrap();
    fs::write(path("mail.key"), made.key_pem.expose_secret()).unwrap();
    fs::write(path("mail-password"), "a secret of the mail server\n").unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smtp_sink.py");
    let login = ["postern", "a secret of the mail server"];
    let mut program = Command::new("/usr/bin/python3")
        .args([script, &path("mail.crt"), &path("mail.key"), login[0], login[1]])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there: run `make test`, which installs what is missing");
    let lines = BufReader::new(program.stdout.take().unwrap());
    let mut sink = Sink { program, lines };
    let port = sink.line()["port"].as_u64().unwrap();
    let config = fs::read_to_string(plane.config()).unwrap();
    let mail = format!(
        "mail:\n  from: Postern <postern@plane.example>\n  smtp:\n    host: 127.0.0.1\n    port: \
         {port}\n    username: postern\n    password_file: data/mail-password\n"
    );
    fs::write(plane.config(), config + &mail).unwrap();
    let mut command = plane.program(&["serve"]);
    command.env("SSL_CERT_FILE", path("mail.crt")).stderr(Stdio::piped());
    let daemon = Daemon::ready(command.spawn().unwrap());

    let invited = plane.json(&["user", "invite", "zoe@example.org", "--mail"]);
    let mail = sink.line();

    assert_eq!((&mail["is_encrypted"], &mail["login"]), (&json!(true), &json!("postern")));
    assert_eq!(mail["to"], json!(["zoe@example.org"]));
    assert!(mail["text"].as_str().unwrap().contains(invited["link"].as_str().unwrap()), "{mail}");
    let sent = || {
        let users = plane.json(&["user", "list"]);
        let zoe = users.as_array().unwrap().iter().find(|user| user["email"] == "zoe@example.org");
        zoe.unwrap()["mail"]["state"].clone()
    };
    // The server has the mail a moment before the daemon has its answer.
    let mut states = std::iter::repeat_with(sent).take(1_000);
    assert!(states.any(|state| state == "sent"));
    rustix::process::kill_process(daemon.pid(), rustix::process::Signal::TERM).unwrap();
    let (_, log) = daemon.end();
    let ticket = invited["link"].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
    for secret in [&*ticket, login[1]] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(log.contains("sent a mail"), "{log}");
}
