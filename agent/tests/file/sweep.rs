//! `postern-agent sweep`, as a program: on a machine that has nothing but the configuration.

use std::fs;
use std::process::Command;
use std::time::Duration;

use postern_agent::target::Target;
use postern_shared::format::Format;
use serde_json::Value;

use crate::contract::{feed, template};
use crate::scene::{Scene, nets, now, pass};

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(50);

/// Writes a configuration for this scene, with what a file is beside its path; answers what the
/// program says, and its exit code.
fn sweep(scene: &Scene, keys: &str) -> (Option<i32>, Value) {
    let path = scene.folder.path().join("agent.yaml");
    let nftables =
        "{name: fw, type: nftables, sets: {family: inet, table: t, v4_set: s, groups: [a]}}";
    let text = format!(
        "commands: here\nstate_dir: /nowhere\ntargets: [{nftables}, \
         {{name: web, type: file, path: {}, groups: [nobody-knows], {keys}}}]\n",
        scene.path().display()
    );
    fs::write(&path, text).unwrap();
    let program = env!("CARGO_BIN_EXE_postern-agent");
    let output =
        Command::new(program).args(["sweep", "--json", "--config"]).arg(&path).output().unwrap();
    let said = serde_json::from_slice(&output.stdout);
    (output.status.code(), said.unwrap_or_else(|_| panic!("{output:?}")))
}

/// A file with one entry that is overdue and one that is not.
async fn overdue(scene: &Scene) {
    let mut target = scene.start();
    pass(&mut target, &[("10.1.2.3", HOUR), ("10.1.2.4", SOON)], &[]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), target.disturbed()).await.unwrap();
    assert_eq!(scene.networks().len(), 2);
    assert!(target.earliest_deadline().unwrap() <= now(), "it is told for how long it is open");
}

#[tokio::test]
async fn what_is_overdue_goes_by_the_marks_alone() {
    let forms = [(feed(Format::Haproxy), "format: haproxy"), (feed(Format::Text), "format: text")];
    for (form, keys) in forms {
        let scene = Scene::new(form);
        overdue(&scene).await;

        let (code, said) = sweep(&scene, keys);

        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said[0]["target"], "web", "{said}");
        assert_eq!(said[0]["removed"], serde_json::json!(["10.1.2.4/32"]));
        assert_eq!(said.as_array().unwrap().len(), 1, "the kernel sweeps itself");
        assert_eq!(scene.networks(), nets(&["10.1.2.3"]));
        let (code, said) = sweep(&scene, keys);
        assert_eq!((code, said[0]["removed"].as_array().unwrap().len()), (Some(0), 0));
    }
}

#[tokio::test]
async fn what_could_not_be_taken_away_is_told_by_the_exit_code() {
    let scene = Scene::new(feed(Format::Haproxy));
    overdue(&scene).await;
    let (code, said) =
        sweep(&scene, "format: haproxy, reload: [/bin/sh, -c, 'echo gone >&2; exit 1']");
    assert_eq!(code, Some(1), "{said}");
    assert!(said[0]["error"].as_str().unwrap().contains("gone"), "{said}");
    assert_eq!(scene.networks(), nets(&["10.1.2.3"]));

    // The program holds it still: as long as it has not read the file, each sweep says so.
    let (code, said) = sweep(&scene, "format: haproxy, reload: [/bin/sh, -c, 'exit 1']");
    assert_eq!(code, Some(1), "{said}");
    let read = scene.folder.path().join("read");
    let reload = format!("format: haproxy, reload: [/bin/sh, -c, 'echo >>{}']", read.display());
    assert_eq!(sweep(&scene, &reload).0, Some(0));
    assert_eq!(sweep(&scene, &reload).0, Some(0));
    assert_eq!(fs::read_to_string(&read).unwrap(), "\n", "it is read once");

    let scene = Scene::new(template(Some("#")));
    fs::write(scene.path(), "theirs\n").unwrap();
    let (code, said) = sweep(&scene, "template: {line: '{network}', comment: '#'}");
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(scene.text(), "theirs\n");
}

#[tokio::test]
async fn what_somebody_changed_is_not_said_to_be_in_order() {
    let scene = Scene::new(feed(Format::Haproxy));
    let damages: [fn(&str) -> String; 2] =
        [|text| text.to_owned() + "10.9.9.9\n", |text| text.replacen(" 1 kept", " 9 kept", 1)];
    for damage in damages {
        let mut target = scene.start();
        pass(&mut target, &[("10.1.2.3", HOUR)], &[]).await.unwrap();
        assert_eq!(sweep(&scene, "format: haproxy").0, Some(0));
        fs::write(scene.path(), damage(&scene.text())).unwrap();

        let (code, said) = sweep(&scene, "format: haproxy");

        assert_eq!(code, Some(1), "{said}");
        assert!(said[0]["error"].as_str().unwrap().contains("is not known"), "{said}");
    }
}

#[tokio::test]
async fn how_long_an_entry_is_open_past_its_time_is_told_until_the_program_has_let_go() {
    let scene = Scene::new(feed(Format::Haproxy));
    let script = format!("test ! -e {}/broken", scene.folder.path().display());
    let scene = scene.with_reload(&script);
    let mut target = scene.start();
    pass(&mut target, &[("10.1.2.3", HOUR), ("10.1.2.4", SOON)], &[]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), target.disturbed()).await.unwrap();
    fs::write(scene.folder.path().join("broken"), "").unwrap();

    pass(&mut target, &[], &[]).await.unwrap_err();
    assert_eq!(scene.networks(), nets(&["10.1.2.3"]));
    assert!(target.earliest_deadline().unwrap() <= now(), "the program may still hold it");
    pass(&mut target, &[], &[]).await.unwrap_err();
    assert!(target.earliest_deadline().unwrap() <= now());

    fs::remove_file(scene.folder.path().join("broken")).unwrap();
    pass(&mut target, &[], &[]).await.unwrap();
    assert!(now() < target.earliest_deadline().unwrap());
}
