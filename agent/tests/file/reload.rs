//! The operator's command: when it is run, and what its failure comes to.

use std::fs;
use std::time::Duration;

use postern_agent::target::Target;
use postern_shared::format::Format;

use crate::contract::feed;
use crate::scene::{Scene, nets, now, pass};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A scene whose program notes each run in the file `runs`, and then does this with the list at `$f`.
fn scene(script: &str) -> Scene {
    let scene = Scene::new(feed(Format::Haproxy));
    let (folder, file) = (scene.folder.path().display().to_string(), scene.path());
    let script = format!("d={folder}; f={}; echo run >>$d/runs; {script}", file.display());
    scene.with_reload(&script)
}

fn runs(scene: &Scene) -> usize {
    let runs = fs::read_to_string(scene.folder.path().join("runs"));
    runs.unwrap_or_default().lines().count()
}

#[tokio::test]
async fn the_command_runs_once_a_change_and_once_a_start() {
    let scene = scene("exit 0");
    let mut target = scene.start();
    pass(&mut target, &[("10.1.2.3", HOUR)], &[]).await.unwrap();
    assert_eq!(runs(&scene), 1);

    pass(&mut target, &[], &[]).await.unwrap();
    assert_eq!(runs(&scene), 1, "nothing has changed");

    let mut fresh = scene.start();
    fresh.refresh(now()).await.unwrap();
    assert!(!fresh.is_settled(), "it cannot know what the program has read");
    pass(&mut fresh, &[], &[]).await.unwrap();
    assert_eq!(runs(&scene), 2);
    assert!(fresh.is_settled());
}

#[tokio::test]
async fn a_failure_rolls_the_file_back_and_is_told_with_the_last_words() {
    let refuses = "if grep -q 10.6.6.6 $f; then echo 'line 7: unexpected' >&2; exit 1; fi";
    let scene = scene(refuses);
    let mut target = scene.start();
    pass(&mut target, &[("10.1.2.3", HOUR)], &[]).await.unwrap();

    let error = pass(&mut target, &[("10.6.6.6", HOUR)], &[]).await.unwrap_err().to_string();

    assert!(error.contains("line 7: unexpected") && error.contains("as it was before"), "{error}");
    assert_eq!(scene.networks(), nets(&["10.1.2.3"]));
    assert_eq!(runs(&scene), 3, "the program reads what stands there again");
    pass(&mut target, &[("10.1.2.4", HOUR)], &[]).await.unwrap();
    assert_eq!(scene.networks(), nets(&["10.1.2.3", "10.1.2.4"]));
}

#[tokio::test]
async fn expiry_and_withdrawal_win_over_rolling_back() {
    // The entry ends while the program takes its time to fail.
    let scene = scene("if grep -q 10.6.6.6 $f; then sleep 2; exit 1; fi");
    let mut target = scene.start();
    let short = Duration::from_millis(1_500);
    let entries = [("10.1.2.3", HOUR), ("10.1.2.4", short), ("10.1.2.5", HOUR)];
    pass(&mut target, &entries, &[]).await.unwrap();
    assert_eq!(scene.networks().len(), 3);

    let put = [("10.6.6.6", HOUR), ("10.1.2.3", MINUTE)];
    pass(&mut target, &put, &["10.1.2.5"]).await.unwrap_err();

    assert_eq!(scene.networks(), nets(&["10.1.2.3"]));
    let left = scene.deadlines()[&"10.1.2.3".parse().unwrap()].since(now());
    assert!(left <= MINUTE, "a deadline that was made earlier stays so: {left:?}");
}

#[tokio::test]
async fn what_was_taken_away_is_told_to_the_program_until_it_has_read_it() {
    let scene = scene("test ! -e $d/broken");
    let mut target = scene.start();
    pass(&mut target, &[("10.1.2.3", HOUR), ("10.1.2.4", HOUR)], &[]).await.unwrap();
    fs::write(scene.folder.path().join("broken"), "").unwrap();

    pass(&mut target, &[], &["10.1.2.3"]).await.unwrap_err();
    assert_eq!(scene.networks(), nets(&["10.1.2.4"]), "taking away is not rolled back");
    assert!(!target.is_settled());
    pass(&mut target, &[], &[]).await.unwrap_err();
    assert!(!target.is_settled());

    fs::remove_file(scene.folder.path().join("broken")).unwrap();
    let before = runs(&scene);
    pass(&mut target, &[], &[]).await.unwrap();
    assert_eq!(runs(&scene), before + 1);
    assert!(target.is_settled());
}
