//! What the command line prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where it prints")]

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use postern_shared::ids::AgentId;
use serde::Serialize;

use crate::control::protocol::{Flushed, Planned, Sweep, Why};
use crate::daemon::shown;
use crate::enroll;
use crate::status::{Link, ListState, Status, TargetState};

/// Where answers go, and in which form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints an answer.
    pub(super) fn answer(self, answer: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            let json = serde_json::to_string_pretty(answer).expect("answers have plain fields");
            println!("{json}");
        } else {
            println!("{}", plain(text().trim_end()));
        }
    }

    /// Prints what somebody at a terminal should know.
    pub(super) fn note(self, message: &str) {
        eprintln!("{}", plain(message));
    }

    /// Prints what is wrong, though there is an answer.
    pub(super) fn warning(self, message: &str) {
        if self.json {
            eprintln!("{}", serde_json::json!({ "warning": message }));
        } else {
            self.note(&format!("postern-agent: {message}"));
        }
    }

    /// Prints why there is none.
    pub(super) fn error(self, message: &str) {
        if self.json {
            eprintln!("{}", serde_json::json!({ "error": message }));
        } else {
            eprintln!("postern-agent: {}", plain(message));
        }
    }
}

/// Takes from a text what could take hold of a terminal: names of groups and the like come from
/// elsewhere.
fn plain(text: &str) -> String {
    let escape = |char: char| match char {
        '\n' | '\t' => char.to_string(),
        char if char.is_control() || is_direction(char) => char.escape_unicode().to_string(),
        char => char.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Characters that turn the direction of a line.
fn is_direction(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What `enroll` says.
#[derive(Debug, Serialize)]
pub(super) struct Enrolled<'a> {
    agent: AgentId,
    name: &'a str,
    plane: String,
    credential: PathBuf,
    groups: Vec<&'a str>,
}

impl<'a> Enrolled<'a> {
    pub(super) fn new(enrolled: &'a enroll::Enrolled, credential: &Path) -> Enrolled<'a> {
        Enrolled {
            agent: enrolled.credential.agent,
            name: &enrolled.name,
            plane: enrolled.credential.plane.to_string(),
            credential: credential.to_owned(),
            groups: enrolled.groups.iter().map(|group| group.name.as_str()).collect(),
        }
    }
}

impl fmt::Display for Enrolled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "enrolled as {} at {}", self.name, self.plane)?;
        writeln!(f, "groups: {}", self.groups.join(", "))?;
        write!(f, "credential: {}", self.credential.display())
    }
}

pub(super) fn status(status: &Status) -> String {
    let mut text = String::new();
    let plane = &status.plane;
    let link = match plane.link {
        Link::Down => "NOT FOLLOWED",
        Link::Stream => "followed",
        Link::Polling => "followed by polling",
    };
    let mut line = |words: fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("a string takes any text");
    };
    line(format_args!("plane    {} {link} since {}", plane.url, plane.since));
    let addresses = [plane.ipv4.map(|v4| v4.to_string()), plane.ipv6.map(|v6| v6.to_string())];
    let addresses: Vec<String> = addresses.into_iter().flatten().collect();
    if !addresses.is_empty() {
        line(format_args!("address  {}", addresses.join(", ")));
    }
    for group in &status.groups {
        let name = group.name.clone().unwrap_or_else(|| group.id.to_string());
        let list = match group.list {
            ListState::Missing => "no list yet",
            ListState::Cached => "from the disk",
            ListState::Followed => "followed",
            ListState::Withdrawn => "WITHDRAWN",
        };
        let revision = group.revision.map_or_else(String::new, |rev| format!(", revision {rev}"));
        line(format_args!("group    {name}: {} entries, {list}{revision}", group.entries));
    }
    for target in &status.targets {
        let state = match target.state {
            TargetState::Waiting => "waiting for its first list",
            TargetState::InSync => "in sync",
            TargetState::Failing => "FAILING",
            TargetState::Flushed => "FLUSHED",
        };
        let repairs = match target.repairs {
            0 => String::new(),
            repairs => format!(", repaired {repairs} times"),
        };
        line(format_args!("target   {} ({}): {state}{repairs}", target.name, target.kind));
        if !target.strategy.is_empty() {
            line(format_args!("         {}", target.strategy));
        }
    }
    for trouble in &status.troubles {
        line(format_args!("TROUBLE  {trouble}"));
    }
    text
}

pub(super) fn why(why: &Why) -> String {
    let mut text = String::new();
    let mut line = |words: fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("a string takes any text");
    };
    if why.verdicts.is_empty() {
        line(format_args!("no target of this agent is about that port"));
    }
    for verdict in &why.verdicts {
        let what = match &verdict.service {
            Some(service) => format!("{}/{service} ({})", verdict.target, verdict.ports.join(" ")),
            None => verdict.target.clone(),
        };
        match (verdict.is_open, verdict.until) {
            (Some(true), Some(until)) => line(format_args!("{what}: open until {until}")),
            (Some(true), None) => line(format_args!("{what}: open")),
            (Some(false), _) => line(format_args!("{what}: closed")),
            (None, _) => line(format_args!("{what}: NOT KNOWN")),
        }
        for found in &verdict.entries {
            let until = shown(found.expires_at);
            line(format_args!(
                "  {} of {}: {}, {until}",
                found.network, found.group, found.standing
            ));
        }
        if verdict.entries.is_empty() {
            line(format_args!("  no entry holds {}", why.address));
        }
        if let Some(note) = &verdict.note {
            line(format_args!("  but: {note}"));
        }
    }
    text
}

pub(super) fn plan(plans: &[Planned]) -> String {
    let mut text = String::new();
    for plan in plans {
        let words = match &plan.error {
            Some(error) => format!("# {}: nothing can be said: {error}\n", plan.target),
            None if plan.text.is_empty() => format!("# {}: nothing to change\n", plan.target),
            None => {
                let body = plan.text.trim_end();
                format!("# {}: {} entries to change\n{body}\n", plan.target, plan.changes)
            }
        };
        text.push_str(&words);
    }
    text
}

pub(super) fn flush(flushed: &[Flushed]) -> String {
    let line = |flush: &Flushed| match &flush.error {
        Some(error) => format!("{}: NOT flushed: {error}\n", flush.target),
        None => format!("{}: flushed\n", flush.target),
    };
    flushed.iter().map(line).collect()
}

pub(super) fn sweep(sweeps: &[Sweep]) -> String {
    let mut text = String::new();
    for sweep in sweeps {
        let words = match (&sweep.error, &sweep.removed[..], &sweep.left[..]) {
            (Some(error), _, _) => format!("NOT swept: {error}"),
            (None, [], []) => "nothing is overdue".to_owned(),
            (None, removed, []) => format!("took away {}", removed.join(", ")),
            (None, _, left) => format!("STILL OPEN: {}", left.join(", ")),
        };
        writeln!(text, "{}: {words}", sweep.target).expect("a string takes any text");
    }
    if sweeps.is_empty() {
        text += "every target ends its entries by itself\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_takes_hold_of_the_terminal() {
        let shown = plain("a\u{1b}[2Jb\u{202e}c\nd\re");

        assert_eq!(shown, "a\\u{1b}[2Jb\\u{202e}c\nd\\u{d}e");
    }
}
