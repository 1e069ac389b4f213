//! A folder with a file that a target keeps, and a reader of the file that is not ours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use postern_agent::commands::{Commands, Program};
use postern_agent::target::file::{File, FileConfig, Form};
use postern_agent::target::marked::Marked;
use postern_agent::target::{Target, TargetError};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::Plan;
use postern_shared::time::{Expiry, Timestamp};
use tempfile::TempDir;

pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    pub(crate) form: Form,
    pub(crate) reload: Option<Program>,
}

impl Scene {
    pub(crate) fn new(form: Form) -> Scene {
        Scene { folder: tempfile::tempdir().unwrap(), form, reload: None }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("allowed")
    }

    /// Has a shell run what the operator's program would do.
    pub(crate) fn with_reload(mut self, script: &str) -> Scene {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        self.reload = Some(Program { argv, limit: Program::LIMIT });
        self
    }

    pub(crate) fn start(&self) -> Marked<File> {
        let config = FileConfig {
            path: self.path(),
            form: self.form.clone(),
            mode: 0o640,
            user: None,
            group: None,
            reload: self.reload.clone(),
        };
        Marked::new("web", "web", [group()].into(), File::new(config, "web", Commands::Here))
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }

    /// The networks that the program would read: whatever looks like one, comments left out.
    pub(crate) fn networks(&self) -> BTreeSet<Network> {
        let text = self.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let is_part = |char: char| char.is_ascii_hexdigit() || ".:/".contains(char);
        let words = lines.flat_map(|line| line.split(move |char| !is_part(char)));
        words
            .filter(|word| word.contains(['.', ':']))
            .filter_map(|word| word.parse().ok())
            .collect()
    }

    /// The deadlines that stand in the file or beside it, whose lines end with them.
    pub(crate) fn deadlines(&self) -> BTreeMap<Network, Timestamp> {
        let beside = fs::read_to_string(self.folder.path().join(".allowed.postern"));
        let text = self.text() + &beside.unwrap_or_default();
        let read = |line: &str| {
            let (network, mark) = line.trim_start_matches("# ").split_once(" postern web ")?;
            Some((network.parse().ok()?, mark.split_once('=')?.1.parse().ok()?))
        };
        text.lines().filter_map(read).collect()
    }
}

pub(crate) fn group() -> GroupId {
    GroupId::from_random([1; 16])
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(since.as_millis().try_into().unwrap()).unwrap()
}

pub(crate) fn net(text: &str) -> Network {
    text.parse().unwrap()
}

pub(crate) fn nets(texts: &[&str]) -> BTreeSet<Network> {
    texts.iter().map(|text| net(text)).collect()
}

/// One pass that adds and removes these, as the agent would make it.
pub(crate) async fn pass(
    target: &mut Marked<File>,
    add: &[(&str, Duration)],
    remove: &[&str],
) -> Result<(), TargetError> {
    let expiry = |left: Duration| Expiry::At(now().saturating_add(left));
    let plan = Plan {
        add: add.iter().map(|(network, left)| (net(network), expiry(*left))).collect(),
        remove: remove.iter().map(|network| (net(network), expiry(Duration::ZERO))).collect(),
        ..Plan::default()
    };
    target.refresh(now()).await?;
    target.apply(&BTreeMap::from([(group(), plan)]), now()).await
}
