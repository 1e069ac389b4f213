//! `init`: whole or not at all, once, and private.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use postern_shared::token::{Token, TokenKind};
use tempfile::TempDir;

use crate::plane::{Daemon, Plane, program};

fn init(data: &Path, url: &str) -> Output {
    let mut command = program(&["init", "--json", "--org", "Example", "--admin", "a@example.org"]);
    command.arg("--data-dir").arg(data).args(["--public-url", url]).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn what_init_makes_is_private_and_complete() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");

    let output = init(&data, "https://localhost:8443");

    assert!(output.status.success(), "{output:?}");
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let link = made["invitation"]["link"].as_str().unwrap();
    let ticket = link.strip_prefix("https://localhost:8443/welcome/").unwrap();
    assert_eq!(ticket.parse::<Token>().unwrap().kind(), TokenKind::Ticket);
    assert_eq!(made["invitation"]["email"], "a@example.org");
    made["key"]["secret"].as_str().unwrap().parse::<Token>().unwrap();
    assert_eq!(made["pin"].as_str().unwrap().len(), 43);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&data), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        ["audit-key", "controlplane.yaml", "postern.redb", "sealing-key", "tls.crt", "tls.key"]
    );
    assert_eq!(fs::read(data.join("sealing-key")).unwrap().len(), 32);
    let config = data.join("controlplane.yaml");
    let checked = program(&["check"]).arg(&config).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn a_second_init_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    init(&data, "https://localhost:8443");
    let (store, key) =
        (fs::read(data.join("postern.redb")).unwrap(), fs::read(data.join("tls.key")).unwrap());

    let again = init(&data, "https://localhost:8443");

    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("holds a control plane already"), "{again:?}");
    assert_eq!(fs::read(data.join("postern.redb")).unwrap(), store);
    assert_eq!(fs::read(data.join("tls.key")).unwrap(), key);
}

#[test]
fn an_init_that_was_killed_half_way_is_finished_by_the_next() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    init(&data, "https://localhost:8443");
    let sealing_key = fs::read(data.join("sealing-key")).unwrap();
    // As it is when the last step, the store, was not reached.
    fs::remove_file(data.join("postern.redb")).unwrap();
    fs::create_dir(data.join(".init")).unwrap();
    fs::write(data.join(".init/store"), "half a store").unwrap();

    let again = init(&data, "https://localhost:8443");

    assert!(again.status.success(), "{again:?}");
    assert_eq!(fs::read(data.join("sealing-key")).unwrap(), sealing_key);
    assert!(data.join("postern.redb").exists() && !data.join(".init").exists());
}

#[test]
fn a_store_that_is_lost_is_to_be_restored_and_not_made_anew() {
    let plane = Plane::make();
    let keys_only = TempDir::new().unwrap();
    plane.start().kill();
    fs::remove_file(plane.data().join("postern.redb")).unwrap();

    let served = plane.run(&["serve"]);
    let asked = plane.run(&["pair", "list"]);
    let made = plane.run(&["init", "--org", "Example", "--admin", "a@example.org"]);

    for refused in [&served, &asked, &made] {
        assert!(!refused.status.success(), "{refused:?}");
        let said = said(refused);
        assert!(said.contains("postern.redb is missing"), "{said}");
        assert!(said.contains("restore it from a backup"), "{said}");
    }
    assert!(said(&made).contains("use another directory"), "{made:?}");
    assert!(!plane.data().join("postern.redb").exists(), "nothing is in its place");
    // As it is when nobody has used the store yet, or `init` was ended half-way.
    init(keys_only.path(), "https://localhost:8443");
    fs::remove_file(keys_only.path().join("postern.redb")).unwrap();
    let config = keys_only.path().join("controlplane.yaml");
    let served = program(&["serve", "--config"]).arg(config).output().unwrap();
    assert!(said(&served).contains("run `postern-controlplane init` again"), "{served:?}");
    assert!(said(&served).contains("restore it from a backup"), "{served:?}");
}

#[test]
fn an_init_that_fails_leaves_no_control_plane() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    // A key without its certificate: the certificate cannot be made beside it.
    fs::write(data.join("tls.key"), "precious").unwrap();

    let output = init(&data, "https://localhost:8443");

    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("tls.key"), "{output:?}");
    assert_eq!(fs::read_to_string(data.join("tls.key")).unwrap(), "precious");
    assert!(!data.join("postern.redb").exists() && !data.join(".init").exists());
}

#[test]
fn another_configuration_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("controlplane.yaml"), "data_dir: /precious\n").unwrap();

    let output = init(&data, "https://localhost:8443");

    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("give it with --config"), "{output:?}");
}

#[test]
fn a_sealing_key_of_the_service_manager_is_used() {
    let folder = TempDir::new().unwrap();
    let (data, credentials) = (folder.path().join("data"), folder.path().join("credentials"));
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("sealing-key"), [7; 32]).unwrap();
    let mut command = program(&["init", "--org", "Example", "--admin", "a@example.org"]);
    command.arg("--data-dir").arg(&data).env("CREDENTIALS_DIRECTORY", &credentials);

    assert!(command.status().unwrap().success());

    assert!(!data.join("sealing-key").exists());
}

#[test]
fn the_first_secrets_are_nowhere_but_in_the_output() {
    let plane = Plane::make();

    for entry in fs::read_dir(plane.data()).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        for prefix in [b"pok_", b"pot_"] {
            assert!(!content.windows(4).any(|window| window == prefix), "{}", path.display());
        }
    }
}

#[test]
fn invitations_carry_the_pin_of_the_certificate_that_init_made() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let made = init(&data, "https://localhost:8443");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let config = data.join("controlplane.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("127.0.0.1:8443", "127.0.0.1:0") + "log: {format: json}\n")
        .unwrap();
    let command = |arguments: &[&str]| {
        let mut command = program(arguments);
        command.arg("--config").arg(&config);
        command
    };
    assert!(command(&["group", "add", "ssh"]).status().unwrap().success());
    let invite = || {
        let output = command(&["agent", "invite", "web-1", "--group", "ssh", "--json"]).output();
        let told: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        told["invitation"].as_str().unwrap().to_owned()
    };

    let alone = invite();
    let daemon = Daemon::ready(command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap());
    let served = invite();

    for invitation in [alone, served] {
        let (url, rest) = invitation.split_once('#').unwrap();
        let (token, pin) = rest.split_once('.').unwrap();
        token.parse::<Token>().unwrap();
        assert_eq!((url, pin), ("https://localhost:8443", made["pin"].as_str().unwrap()));
    }
    drop(daemon);
}
