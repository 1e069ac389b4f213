//! The operator's commands, with the daemon and without it.

use std::fs;
use std::process::Output;

use postern_controlplane::domain::{Actor, Event};
use serde_json::{Value, json};

use crate::audit;
use crate::plane::{Plane, program};

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn every_command_leaves_one_record_and_an_unbroken_chain() {
    let plane = Plane::make();
    plane.json(&["group", "add", "ssh", "--ttl", "12h"]);
    plane.json(&["pair", "add", "laptop", "--email", "zoe@example.org"]);
    plane.json(&["group", "add-member", "ssh", "--pair", "laptop"]);
    let daemon = plane.start();
    let office = ["--network", "203.0.113.0/24", "--note", "office"];
    plane.json(&[&["group", "add-member", "1"][..], &office, &["--expires", "8h"]].concat());
    let origin = ["--origin", "pair:laptop", "--origin", "192.0.2.0/24"];
    plane.json(&[&["key", "mint", "--name", "ci", "--scope", "groups.read"][..], &origin].concat());
    plane.json(&["agent", "invite", "web-1", "--group", "ssh"]);
    plane.json(&["key", "narrow", "ci", "--origin", "192.0.2.0/25"]);
    plane.json(&["key", "revoke", "ci"]);
    plane.json(&["pair", "rotate-bookmark", "laptop"]);
    daemon.kill();
    plane.json(&["pair", "rotate-server-key", "laptop"]);
    plane.json(&["key", "mint", "--name", "rover", "--scope", "pairs.read", "--with-bookmark"]);
    plane.json(&["group", "remove-member", "ssh", "203.0.113.0/24"]);
    plane.json(&["group", "remove-member", "ssh", "laptop"]);
    plane.json(&["pair", "remove", "1"]);
    plane.json(&["group", "remove", "ssh"]);
    // Neither reading nor failing is a change.
    plane.json(&["pair", "list"]);
    assert!(!plane.run(&["pair", "remove", "laptop"]).status.success());

    let records = audit::walk(&plane.data());

    assert!(records.iter().all(|record| record.actor == Actor::Operator));
    let told: Vec<String> = records.iter().map(|record| tell(&record.event)).collect();
    assert_eq!(
        told,
        [
            "org Example",
            "key first",
            "user admin@example.org",
            "group ssh",
            "pair laptop",
            "member laptop",
            "member office",
            "key ci",
            "agent web-1",
            "less of key ci",
            "no key ci",
            "other bookmark laptop",
            "other server key laptop",
            "pair rover",
            "key rover",
            "no member office",
            "no member laptop",
            "no pair laptop",
            "no group ssh",
        ]
    );
}

#[test]
fn a_key_is_narrowed_on_the_host_and_gains_nothing() {
    let plane = Plane::make();
    let mint = ["key", "mint", "--name", "ci", "--scope", "groups.write", "--scope", "pairs.read"];
    plane.json(&[&mint[..], &["--origin", "192.0.2.0/24"]].concat());

    let told = plane.json(&["key", "narrow", "ci", "--scope", "groups.read"]);
    assert_eq!(told["scopes"], json!(["groups.read"]));
    let text = stdout(&plane.run(&["key", "narrow", "ci", "--origin", "192.0.2.7"]));
    assert!(text.ends_with("may do groups.read, and works from 192.0.2.7.\n"), "{text}");

    for wider in [["--scope", "groups.write"], ["--origin", "192.0.2.0/24"]] {
        let refused = plane.run(&[&["key", "narrow", "ci"], &wider[..]].concat());
        assert!(stderr(&refused).contains("mint another key for more"), "{refused:?}");
    }
    assert!(!plane.run(&["key", "narrow", "ci"]).status.success(), "it says what is kept");
    let keys = plane.json(&["key", "list"]);
    let kept = keys.as_array().unwrap().iter().find(|key| key["name"] == "ci").unwrap();
    assert_eq!(kept["scopes"], json!(["groups.read"]));
}

#[test]
fn the_audit_is_listed_by_who_did_it_and_by_group() {
    let plane = Plane::make();
    plane.json(&["group", "add", "ssh"]);
    plane.json(&["group", "add", "web"]);
    let gone = plane.json(&["group", "list"])[1]["id"].as_str().unwrap().to_owned();
    plane.json(&["group", "remove", "web"]);
    let kinds = |rest: &[&str]| {
        let records = plane.json(&[&["audit", "list"], rest].concat());
        let kinds = records.as_array().unwrap().iter().map(|it| it["kind"].clone());
        kinds.collect::<Vec<Value>>()
    };

    assert_eq!(kinds(&["--group", "ssh"]), ["group_created"]);
    assert_eq!(kinds(&["--group", &gone]), ["group_deleted", "group_created"]);
    assert_eq!(kinds(&["--actor", "operator"]), kinds(&[]));
    assert!(kinds(&["--actor", "user"]).is_empty());
    assert!(!plane.run(&["audit", "list", "--group", "web"]).status.success());
    assert!(!plane.run(&["audit", "list", "--actor", "nobody"]).status.success());
}

fn tell(event: &Event) -> String {
    match event {
        Event::OrgCreated { name, .. } => format!("org {name}"),
        Event::KeyMinted { name, .. } => format!("key {name}"),
        Event::KeyRevoked { name, .. } => format!("no key {name}"),
        Event::KeyNarrowed { name, .. } => format!("less of key {name}"),
        Event::PairCreated { name, .. } => format!("pair {name}"),
        Event::PairDeleted { name, .. } => format!("no pair {name}"),
        Event::GroupCreated { name, .. } => format!("group {name}"),
        Event::GroupDeleted { name, .. } => format!("no group {name}"),
        Event::MemberAdded { name, .. } => format!("member {name}"),
        Event::MemberRemoved { name, .. } => format!("no member {}", name.as_ref().unwrap()),
        Event::AgentInvited { name, .. } => format!("agent {name}"),
        Event::BookmarkRotated { name, .. } => format!("other bookmark {name}"),
        Event::ServerKeyRotated { name, .. } => format!("other server key {name}"),
        Event::UserInvited { email, .. } => format!("user {email}"),
        other @ (Event::PairEdited { .. }
        | Event::PairReported { .. }
        | Event::GroupEdited { .. }
        | Event::AgentEnrolled { .. }
        | Event::AgentRegrouped { .. }
        | Event::AgentRevoked { .. }
        | Event::ReceiptFailed { .. }
        | Event::RequestsRefused { .. }
        | Event::UserAccepted { .. }
        | Event::SignInTried { .. }
        | Event::SignedIn { .. }
        | Event::SignedOut { .. }
        | Event::PasswordSet { .. }
        | Event::ResetRequested { .. }
        | Event::RecoveryIssued { .. }
        | Event::AuthenticatorReplaced { .. }
        | Event::RecoveryCodesReplaced { .. }
        | Event::UserRoleSet { .. }
        | Event::UserRemoved { .. }
        | Event::AddressesClosed { .. }
        | Event::BookmarkMailed { .. }) => panic!("nobody asked for {other:?}"),
    }
}

#[test]
fn the_daemon_answers_as_the_command_itself_does() {
    let plane = Plane::make();
    plane.json(&["group", "add", "ssh"]);
    plane.json(&["pair", "add", "laptop", "--ttl", "90m"]);
    plane.json(&["group", "add-member", "ssh", "--pair", "laptop"]);
    let office = ["--network", "203.0.113.0/24", "--note", "office"];
    plane.json(&[&["group", "add-member", "ssh"][..], &office].concat());
    let questions: [&[&str]; 6] = [
        &["user", "list"],
        &["key", "list", "--all"],
        &["pair", "list"],
        &["group", "list"],
        &["group", "show", "ssh"],
        &["agent", "list"],
    ];
    let ask = || {
        questions.map(|question| {
            let mut answer = plane.json(question);
            if let Some(shown) = answer.as_object_mut() {
                // After a load every list has the loaded revision.
                shown.retain(|name, _| name != "as_of" && name != "revision");
            }
            answer
        })
    };

    let alone = ask();
    let daemon = plane.start();
    let served = ask();

    assert_eq!(alone, served);
    assert_eq!(served[4]["entries"][0]["cidr"], "203.0.113.0/24");
    assert_eq!(served[4]["entries"][0]["sources"][0]["name"], "office");
    assert_eq!(served[4]["members"].as_array().unwrap().len(), 2);
    drop(daemon);
}

#[test]
fn a_reported_address_is_listed_with_the_time_left_until_it_is_closed() {
    let plane = Plane::make();
    let daemon = plane.start();
    plane.json(&["group", "add", "ssh"]);
    let pair = plane.json(&["pair", "add", "laptop"]);
    plane.json(&["group", "add-member", "ssh", "--pair", "laptop"]);
    let bookmark = text(&pair["bookmark"]).rsplit_once('/').unwrap().1;
    report(&daemon.address.to_string(), bookmark, "198.51.100.7");

    let shown = stdout(&plane.run(&["group", "show", "ssh"]));

    let line = shown.lines().find(|line| line.starts_with("198.51.100.7 ")).unwrap();
    assert!(line.contains(" (in 23 h)") && line.ends_with("laptop"), "{shown}");
    let closed = stdout(&plane.run(&["pair", "close", "laptop"]));
    assert!(closed.starts_with("Pair 1, laptop (") && closed.contains("until it reports again"));
    let shown = stdout(&plane.run(&["group", "show", "ssh"]));
    assert!(!shown.contains("198.51.100.7"), "{shown}");
    assert!(!plane.run(&["pair", "close", "tablet"]).status.success());
}

fn report(plane: &str, bookmark: &str, address: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sent = runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let report = http.post(format!("http://{plane}/b/{bookmark}"));
        report.header("x-forwarded-for", address).send().await.unwrap().status()
    });
    assert!(sent.is_success(), "{sent}");
}

#[test]
fn a_key_with_a_bookmark_works_from_where_that_reports_and_nowhere_else() {
    let plane = Plane::make();
    let mint = ["key", "mint", "--name", "rover", "--scope", "pairs.read", "--with-bookmark"];
    let minted = plane.json(&mint);
    assert_eq!(minted["origins"][0]["pair"]["name"], "rover");
    let bookmark = text(&minted["bookmark"]).rsplit_once('/').unwrap().1;
    let daemon = plane.start();
    let address = daemon.address.to_string();
    let ask = |from: &str| get(&address, "/api/v1/pairs", text(&minted["secret"]), from);

    assert_eq!(ask("198.51.100.7"), 403);
    report(&address, bookmark, "198.51.100.7");
    assert_eq!((ask("198.51.100.7"), ask("198.51.100.8")), (200, 403));
    let listed = plane.json(&["pair", "list"]).to_string();
    assert!(!listed.contains(bookmark), "told once: {listed}");

    let with_origin = [&mint[..], &["--origin", "192.0.2.0/24"]].concat();
    assert_eq!(plane.run(&with_origin).status.code(), Some(2), "no way around the lock");
    let shown = stdout(&plane.run(&["pair", "rotate-bookmark", "rover", "--qr"]));
    assert!(shown.contains("/b/pob_") && shown.contains('\u{2588}'), "{shown}");
    assert_eq!(ask("198.51.100.7"), 403, "what the old bookmark reported is closed");
    let shown = stdout(&plane.run(&["pair", "rotate-server-key", "rover"]));
    assert!(shown.contains("    pos_"), "{shown}");
}

fn get(plane: &str, path: &str, secret: &str, address: &str) -> u16 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = http.get(format!("http://{plane}{path}")).bearer_auth(secret);
        request.header("x-forwarded-for", address).send().await.unwrap().status().as_u16()
    })
}

#[test]
fn an_ambiguous_name_is_refused_with_the_candidates() {
    let plane = Plane::make();
    let first = plane.json(&["pair", "add", "laptop"]);
    plane.json(&["pair", "add", "laptop"]);

    let output = plane.run(&["pair", "remove", "laptop"]);

    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("number 1") && said.contains("number 2"), "{said}");
    assert!(said.contains(text(&first["id"])), "{said}");
    plane.json(&["pair", "remove", text(&first["id"])]);
    plane.json(&["pair", "remove", "laptop"]);
}

#[test]
fn a_name_that_is_the_number_of_another_is_ambiguous() {
    let plane = Plane::make();
    plane.json(&["group", "add", "ssh"]);
    plane.json(&["group", "add", "1"]);

    assert_eq!(plane.run(&["group", "remove", "1"]).status.code(), Some(3));
    plane.json(&["group", "remove", "2"]);
    plane.json(&["group", "remove", "1"]);
}

#[test]
fn what_is_not_there_is_told_with_what_can_name_it() {
    let plane = Plane::make();
    plane.json(&["group", "add", "ssh"]);

    for (arguments, told) in [
        (&["key", "revoke", "7"][..], "no key `7`; give its name or UUID"),
        (&["agent", "revoke", "7"], "no agent `7`; give its name or UUID"),
        (&["user", "remove", "7"], "no user `7`; give the mail address or UUID"),
        (&["pair", "list", "--org", "7"], "no org `7`; give its name or UUID"),
        (&["pair", "remove", "7"], "no pair `7`; give its name, running number or UUID"),
        (&["group", "show", "7"], "no group `7`; give its name, running number or UUID"),
        (
            &["group", "remove-member", "ssh", "192.0.2.7"],
            "give its pair, its network, or the UUID",
        ),
    ] {
        let output = plane.run(arguments);

        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.contains(told), "{arguments:?}: {said}");
    }
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let plane = Plane::make();
    let code = |arguments: &[&str]| plane.run(arguments).status.code();

    assert_eq!(code(&["pair", "remove", "nobody"]), Some(3));
    assert_eq!(code(&["--org", "Example", "pair", "list"]), Some(2));
    assert_eq!(code(&["pair", "list", "--org", "Elsewhere"]), Some(3));
    assert_eq!(code(&["pair", "list", "--org", "Example"]), Some(0));
    assert_eq!(code(&["pair", "add"]), Some(2));
    let loopback = ["group", "add-member", "g", "--network", "127.0.0.1", "--note", "self"];
    plane.json(&["group", "add", "g"]);
    assert_eq!(code(&loopback), Some(3));
    fs::remove_file(plane.data().join("postern.redb")).unwrap();
    assert_eq!(code(&["pair", "list"]), Some(4));
    assert_eq!(code(&["serve"]), Some(1));
    fs::remove_file(plane.config()).unwrap();
    assert_eq!(code(&["pair", "list"]), Some(1));
}

#[test]
fn a_daemon_with_another_socket_is_told_from_no_daemon() {
    let plane = Plane::make();
    let daemon = plane.start();
    let other = plane.data().join("other.yaml");
    let config = fs::read_to_string(plane.config()).unwrap();
    let config = config.replace("data_dir: data", "data_dir: .\ncontrol_socket: other.sock");
    fs::write(&other, config).unwrap();

    let output = program(&["pair", "list", "--config"]).arg(&other).output().unwrap();

    assert_eq!(output.status.code(), Some(4));
    let said = stderr(&output);
    assert!(said.contains("other.sock") && said.contains("--config"), "{said}");
    drop(daemon);
}

#[test]
fn secrets_are_told_once_and_never_again() {
    let plane = Plane::make();
    let daemon = plane.start();
    let pair = plane.json(&["pair", "add", "laptop"]);
    plane.json(&["group", "add", "ssh"]);
    let mint = ["key", "mint", "--name", "ci", "--scope", "pairs.read", "--origin", "10.0.0.0/8"];
    let key = plane.json(&mint);
    let invited = plane.json(&["agent", "invite", "web-1", "--group", "ssh"]);
    let user = plane.json(&["user", "invite", "zoe@example.org"]);
    let way_back = plane.json(&["recover", "--user", "admin@example.org"]);
    let secrets = [
        text(&user["link"]).rsplit_once('/').unwrap().1.to_owned(),
        text(&way_back["link"]).rsplit_once('/').unwrap().1.to_owned(),
        text(&pair["bookmark"]).rsplit_once('/').unwrap().1.to_owned(),
        text(&pair["server_key"]).to_owned(),
        text(&key["secret"]).to_owned(),
        text(&invited["invitation"]).rsplit_once('#').unwrap().1.to_owned(),
    ];

    let mut later = String::new();
    for list in
        [["pair", "list"], ["key", "list"], ["agent", "list"], ["group", "list"], ["user", "list"]]
    {
        later.push_str(&plane.json(&list).to_string());
        later.push_str(&stdout(&plane.run(&list)));
    }
    rustix::process::kill_process(daemon.pid(), rustix::process::Signal::TERM).unwrap();
    let (_, log) = daemon.end();
    let store = fs::read(plane.data().join("postern.redb")).unwrap();

    for secret in secrets {
        assert!(!later.contains(&secret) && !log.contains(&secret));
        assert!(!store.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}

#[test]
fn mistakes_in_a_configuration_are_all_told_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("controlplane.yaml");
    fs::write(&file, "public_url: http://plane.example.org\nlissen:\n  - address: nowhere\n")
        .unwrap();

    let output = program(&["check"]).arg(&file).output().unwrap();
    let json = program(&["check", "--json"]).arg(&file).output().unwrap();

    assert_eq!((output.status.code(), json.status.code()), (Some(1), Some(1)));
    let said = stderr(&output);
    let lines: Vec<&str> = said.lines().collect();
    let place = |line: &str| format!("{}:{line}", file.display());
    assert!(lines.iter().any(|line| line.starts_with(&place("1:13: public_url: "))), "{said}");
    assert!(lines.iter().any(|line| line.starts_with(&place("2:1: lissen: "))), "{said}");
    let json: Value = serde_json::from_slice(&json.stderr).unwrap();
    assert_eq!(json["mistakes"].as_array().unwrap().len(), lines.len());
    assert_eq!(json["mistakes"][0]["line"], 1);
}

#[test]
fn what_others_wrote_cannot_act_on_the_terminal() {
    let plane = Plane::make();

    let output = plane.run(&["pair", "remove", "a\u{1b}[2Jb"]);

    assert_eq!(output.status.code(), Some(3));
    assert!(!output.stderr.contains(&0x1b), "{output:?}");
    assert_eq!(plane.run(&["pair", "add", "a\u{1b}[2Jb"]).status.code(), Some(2));
}

#[test]
fn lists_longer_than_a_page_are_whole() {
    let plane = Plane::make();
    plane.json(&["group", "add", "ssh"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let daemon = plane.start();
    runtime.block_on(async {
        let mut socket = plane.connect().await;
        for number in 0..1_005_u32 {
            let [_, _, c, d] = number.to_be_bytes();
            let network = format!("10.0.{c}.{d}").parse().unwrap();
            socket.add_network("ssh", network).await;
        }
    });

    let shown = plane.json(&["group", "show", "ssh"]);

    assert_eq!(shown["entries"].as_array().unwrap().len(), 1_005);
    assert_eq!(shown["members"].as_array().unwrap().len(), 1_005);
    drop(daemon);
}
