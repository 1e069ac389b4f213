//! The forms that a file may have.

use postern_shared::format::{Format, Rendering, flat};
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::{Entry, ListedEntry};
use serde::Serialize;
use std::time::Duration;

use super::template::Template;

/// How a list is written for another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// As the control plane's feed writes it.
    Feed(Rendering),
    /// `ips` and `entries`, as in `data` of `GET /api/v1/groups/{id}/ips`.
    Json,
    /// As the operator writes it.
    Template(Template),
}

#[derive(Serialize)]
struct Json {
    ips: Vec<String>,
    entries: Vec<ListedEntry>,
}

impl Form {
    /// What a line begins with that nobody reads; `None` where every line is read.
    pub(super) fn comment(&self) -> Option<&str> {
        match self {
            Form::Feed(rendering) => match rendering.format {
                Format::Text | Format::Csv => None,
                Format::Nft | Format::Ipset | Format::Nginx | Format::Apache | Format::Haproxy => {
                    Some("#")
                }
            },
            Form::Json => None,
            Form::Template(template) => template.comment.as_deref(),
        }
    }

    /// How long the form is right, where it says how much time is left: half of what it can say.
    pub(super) fn good_for(&self) -> Option<Duration> {
        match self {
            Form::Feed(rendering) => {
                rendering.format.left_secs_max().map(|secs| Duration::from_secs(secs / 2))
            }
            Form::Json | Form::Template(_) => None,
        }
    }

    /// Writes what of the entries is allowed at `now`.
    pub(super) fn write(
        &self,
        entries: impl Iterator<Item = (Network, Expiry)>,
        now: Timestamp,
    ) -> String {
        match self {
            Form::Feed(rendering) => rendering.write(entries, now),
            Form::Json => json(entries.filter(|(_, expiry)| expiry.is_live_at(now))),
            Form::Template(template) => {
                template.write(entries.filter(|(_, expiry)| expiry.is_live_at(now)))
            }
        }
    }
}

fn json(entries: impl Iterator<Item = (Network, Expiry)>) -> String {
    let entries: Vec<ListedEntry> = entries
        .map(|(cidr, expires_at)| ListedEntry::new(Entry { cidr, expires_at }, Vec::new()))
        .collect();
    let json = Json { ips: entries.iter().map(|entry| flat(entry.cidr)).collect(), entries };
    serde_json::to_string_pretty(&json).expect("a list has plain fields") + "\n"
}
