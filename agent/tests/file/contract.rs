//! What every target promises, held by files of every form.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use postern_agent::target::file::{File, Form, Line, Template};
use postern_agent::target::marked::Marked;
use postern_agent::target::{Target, TargetError};
use postern_shared::format::{Format, Rendering};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::time::Timestamp;

use crate::promises::{self, Subject};
use crate::scene::{Scene, group, net, nets, now, pass};

const HOUR: Duration = Duration::from_secs(3600);

impl Subject for Scene {
    type Target = Marked<File>;

    fn group(&self) -> GroupId {
        group()
    }

    fn start(&self) -> Marked<File> {
        Scene::start(self)
    }

    fn in_force(&self) -> BTreeMap<Network, Duration> {
        let deadlines = self.deadlines();
        let left = |network| deadlines.get(&network).map(|at| at.since(now())).unwrap_or_default();
        self.networks().into_iter().map(|network| (network, left(network))).collect()
    }

    fn meddle(&self) -> bool {
        let mut file = fs::OpenOptions::new().append(true).open(self.path()).unwrap();
        file.write_all(b"10.6.6.6\n").unwrap();
        true
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn renews_late(&self) -> bool {
        true
    }
}

pub(crate) fn feed(format: Format) -> Form {
    let (name, table) = ("office".parse().unwrap(), "filter".parse().unwrap());
    Form::Feed(Rendering { format, name, table, family: None })
}

pub(crate) fn template(comment: Option<&str>) -> Form {
    Form::Template(Template {
        header: "begin\n".to_owned(),
        line: Line::read("allow {network} until {expires}").unwrap(),
        footer: "end\n".to_owned(),
        comment: comment.map(str::to_owned),
    })
}

#[tokio::test]
async fn files_of_every_form_keep_the_contract() {
    let formats = [
        Format::Text,
        Format::Csv,
        Format::Nft,
        Format::Ipset,
        Format::Nginx,
        Format::Apache,
        Format::Haproxy,
    ];
    let forms = formats.map(feed).into_iter();
    for form in forms.chain([Form::Json, template(None), template(Some("#"))]) {
        println!("{form:?}");
        let scene = Scene::new(form).with_reload("exit 0");
        promises::holds(&scene).await;

        let left: Vec<_> = fs::read_dir(scene.folder.path()).unwrap().collect();
        assert!(left.len() <= 2, "nothing half-written is left: {left:?}");
    }
}

#[tokio::test]
async fn an_empty_list_makes_a_file_that_lets_nobody_in() {
    let scene = Scene::new(feed(Format::Nginx));

    pass(&mut scene.start(), &[], &[]).await.unwrap();

    let text = scene.text();
    assert!(text.contains("default 0;\n}\n"), "{text}");
    let metadata = fs::metadata(scene.path()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    assert_eq!(metadata.uid(), rustix::process::geteuid().as_raw());
}

#[tokio::test]
async fn what_is_not_ours_is_never_touched() {
    for (form, word) in [(feed(Format::Nginx), "# postern web"), (Form::Json, "nothing beside it")]
    {
        let scene = Scene::new(form);
        fs::write(scene.path(), "# postern other 2026-01-01T00:00:00Z 0 x\nallow all;\n").unwrap();
        let before = scene.text();
        let mut target = scene.start();

        let refused = target.refresh(now()).await.unwrap_err();
        let early = target.apply(&BTreeMap::new(), now()).await.unwrap_err();

        assert!(
            matches!(&refused, TargetError::Rejected { reason } if reason.contains(word)),
            "{refused}"
        );
        assert!(matches!(early, TargetError::Changed), "{early}");
        assert_eq!(scene.text(), before);
    }
    let scene = Scene::new(feed(Format::Nginx));
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::write(&elsewhere, "theirs").unwrap();
    std::os::unix::fs::symlink(&elsewhere, scene.path()).unwrap();
    let refused = scene.start().refresh(now()).await.unwrap_err().to_string();
    assert!(refused.contains("symbolic link"), "{refused}");
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "theirs");
}

#[tokio::test]
async fn an_empty_file_is_nobodys() {
    let scene = Scene::new(feed(Format::Nginx));
    fs::write(scene.path(), "").unwrap();

    pass(&mut scene.start(), &[("10.1.2.3", HOUR)], &[]).await.unwrap();

    assert_eq!(scene.networks(), nets(&["10.1.2.3"]));
}

#[tokio::test]
async fn an_entry_leaves_the_file_at_its_time_and_wakes_the_agent_for_it() {
    let scene = Scene::new(Form::Json);
    let mut target = scene.start();
    let soon = Duration::from_millis(300);
    pass(&mut target, &[("10.1.2.3", HOUR), ("10.1.2.4", soon)], &[]).await.unwrap();

    tokio::time::timeout(Duration::from_secs(30), target.disturbed()).await.unwrap();
    assert!(!target.is_settled());
    pass(&mut target, &[], &[]).await.unwrap();

    assert_eq!(scene.networks(), nets(&["10.1.2.3"]));
}

#[tokio::test]
async fn an_agent_that_forgot_everything_takes_away_what_is_overdue() {
    for form in [Form::Json, feed(Format::Haproxy)] {
        let scene = Scene::new(form);
        let soon = Duration::from_millis(100);
        pass(&mut scene.start(), &[("10.1.2.3", HOUR), ("10.1.2.4", soon)], &[]).await.unwrap();
        assert_eq!(scene.networks().len(), 2);

        let mut fresh = scene.start();
        let later = now().saturating_add(Duration::from_secs(60));
        fresh.refresh(later).await.unwrap();
        let observed = fresh.observed()[&group()].len();
        fresh.apply(&BTreeMap::new(), later).await.unwrap();

        assert_eq!(observed, 2);
        assert_eq!(scene.networks(), [net("10.1.2.3")].into());
    }
}
