//! What the agent says of itself to Prometheus: a file for node_exporter's textfile collector.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::disk::{self, Rights};
use crate::status::{Status, TargetState};

/// The collector is another user.
const MODE: u32 = 0o644;

/// A figure of each target.
struct Figure {
    name: &'static str,
    help: &'static str,
    /// None where it is not known.
    of: fn(&crate::status::TargetStatus) -> Option<u64>,
}

const FIGURES: [Figure; 4] = [
    Figure {
        name: "grants_open_past_expiry_seconds",
        help: "How long the entry that is open the longest past its deadline is so; must be 0.",
        of: |target| target.grants_open_past_expiry_seconds,
    },
    Figure {
        name: "target_in_sync",
        help: "Whether the target is equal to its lists.",
        of: |target| Some(u64::from(target.state == TargetState::InSync)),
    },
    Figure {
        name: "target_failures",
        help: "Failures in a row.",
        of: |target| Some(u64::from(target.failures)),
    },
    Figure {
        name: "target_repairs",
        help: "How often the change of somebody else was found and mended.",
        of: |target| Some(target.repairs),
    },
];

/// Puts the file there, whole. Blocks on the disk.
pub(crate) fn write(path: &Path, status: &Status) -> io::Result<()> {
    let rights = Rights { mode: MODE, user: None, group: None };
    disk::replace_with(path, render(status).as_bytes(), rights)
}

fn render(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("a string takes any text");
    };
    for Figure { name, help, of } in FIGURES {
        let name = format!("postern_agent_{name}");
        line(format_args!("# HELP {name} {help}\n# TYPE {name} gauge"));
        for target in &status.targets {
            if let Some(figure) = of(target) {
                line(format_args!("{name}{{target=\"{}\"}} {figure}", target.name));
            }
        }
    }
    if let Some(heard_at) = status.plane.heard_at {
        let name = "postern_agent_control_plane_age_seconds";
        let age = status.as_of.since(heard_at).as_secs();
        line(format_args!(
            "# HELP {name} How long ago the control plane was heard.\n# TYPE {name} gauge\n{name} {age}"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::status::{Board, TargetNotes};
    use postern_shared::time::Timestamp;

    #[test]
    fn a_scrape_finds_each_figure_of_each_target() {
        let now = Timestamp::EPOCH.saturating_add(Duration::from_secs(100));
        let mut notes = TargetNotes::new("web", "file", Vec::new());
        notes.earliest_deadline = Some(now.saturating_sub(Duration::from_secs(7)));
        notes.status.state = TargetState::InSync;
        let board = Board::new("https://plane.example".to_owned(), now);
        board.write(|board| board.targets.insert("web".to_owned(), notes));
        let unread = TargetNotes::new("unread", "file", Vec::new());
        board.write(|board| board.targets.insert("unread".to_owned(), unread));
        let read = board.read();
        let status = Status {
            version: "1".to_owned(),
            pid: 1,
            started_at: now,
            as_of: now,
            troubles: Vec::new(),
            plane: read.plane.clone(),
            groups: Vec::new(),
            targets: read.targets_at(now),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postern.prom");

        write(&path, &status).unwrap();

        let text = std::fs::read_to_string(&path).unwrap();
        for line in [
            "# TYPE postern_agent_grants_open_past_expiry_seconds gauge",
            "postern_agent_grants_open_past_expiry_seconds{target=\"web\"} 7",
            "postern_agent_target_in_sync{target=\"web\"} 1",
            "postern_agent_target_failures{target=\"web\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("past_expiry_seconds{target=\"unread\"}"), "{text}");
        assert!(read.all_troubles_at(now)[0].contains("7 s past its deadline"));
    }
}
