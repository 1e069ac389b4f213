//! What people read: tables and times. Everything in it that others wrote is escaped.

use std::fmt::Write as _;
use std::time::Duration;

use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::wire::v1::{AgentGroup, ListedEntry, ReceiptState};

use crate::audit::{RecordView, Verified};
use crate::domain::acts;
use crate::mail::Fate;
use crate::operator::{
    AgentView, GroupList, GroupView, KeyView, MemberKindView, MemberView, OriginView, PairView,
    UserState, UserView,
};

/// Aligned columns; the last one is not padded.
#[derive(Debug)]
pub(super) struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub(super) fn new(head: &[&str]) -> Grid {
        Grid { rows: vec![head.iter().map(|&title| title.to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| escaped(cell)).collect());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Takes out of a text what would act on a terminal.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Shows a time and how far it is: `2026-01-31T12:00:00Z (in 23 h)`.
pub(super) fn time(at: Timestamp, now: Timestamp) -> String {
    if now < at {
        format!("{at} (in {})", span(at.since(now)))
    } else {
        format!("{at} ({} ago)", span(now.since(at)))
    }
}

pub(super) fn expiry(expiry: Expiry, now: Timestamp) -> String {
    match expiry {
        Expiry::Never => "never".to_owned(),
        Expiry::At(at) => time(at, now),
    }
}

/// Shows a span by its largest unit, rounded down: what is said to be left is left.
pub(super) fn span(span: Duration) -> String {
    let secs = span.as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min", secs / 60),
        3_600..172_800 => format!("{} h", secs / 3_600),
        172_800.. => format!("{} days", secs / 86_400),
    }
}

fn ttl(ttl: Option<Ttl>) -> String {
    ttl.map_or_else(|| "-".to_owned(), |ttl| span(ttl.as_duration()))
}

/// A host without its prefix length.
fn network(network: Network) -> String {
    if network.is_host() { network.address().to_string() } else { network.to_string() }
}

pub(super) fn keys(keys: &[KeyView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["NAME", "SCOPES", "ORIGINS", "EXPIRES", "REVOKED", "ID"]);
    for key in keys {
        let scopes: Vec<String> = key.scopes.iter().map(|scope| scope.to_string()).collect();
        grid.row(vec![
            key.name.to_string(),
            scopes.join(","),
            origins(&key.origins),
            expiry(key.expires_at, now),
            key.revoked_at.map_or_else(|| "-".to_owned(), |at| time(at, now)),
            key.id.to_string(),
        ]);
    }
    grid.render()
}

/// Names the origins of a key.
pub(super) fn origins(origins: &[OriginView]) -> String {
    origins.iter().map(origin).collect::<Vec<_>>().join(", ")
}

fn origin(origin: &OriginView) -> String {
    match origin {
        OriginView::Network(origin) => network(*origin),
        OriginView::Pair(pair) => format!("pair {} ({})", pair.number, pair.name),
    }
}

pub(super) fn pairs(pairs: &[PairView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["NUMBER", "NAME", "ADDRESS", "COUNTS UNTIL", "TTL", "ID"]);
    for view in pairs {
        let mut addresses = view.addresses.iter();
        let first = addresses.next();
        grid.row(vec![
            view.pair.number.to_string(),
            view.pair.name.to_string(),
            first.map_or_else(|| "-".to_owned(), |first| first.address.to_string()),
            first.map_or_else(|| "-".to_owned(), |first| time(first.expires_at, now)),
            ttl(Some(view.ttl)),
            view.pair.id.to_string(),
        ]);
        for other in addresses {
            let (address, until) = (other.address.to_string(), time(other.expires_at, now));
            grid.row(vec![String::new(), String::new(), address, until]);
        }
    }
    grid.render()
}

pub(super) fn groups(groups: &[GroupView]) -> String {
    let mut grid = Grid::new(&["NUMBER", "NAME", "MEMBERS", "ALLOWED", "TTL", "ID"]);
    for group in groups {
        grid.row(vec![
            group.number.to_string(),
            group.name.to_string(),
            group.members.to_string(),
            group.entries.to_string(),
            ttl(group.ttl),
            group.id.to_string(),
        ]);
    }
    grid.render()
}

pub(super) fn group(list: &GroupList, members: &[MemberView], now: Timestamp) -> String {
    let mut text = String::new();
    let name = escaped(list.group.name.as_str());
    writeln!(text, "{name}, group {} ({})", list.group.number, list.group.id)
        .expect("a string takes all");
    writeln!(text, "revision {}, digest {}\n", list.revision, list.digest)
        .expect("a string takes all");
    text.push_str(&entries(&list.allowed.items, now));
    text.push('\n');
    text.push_str(&self::members(members, now));
    text
}

fn entries(allowed: &[ListedEntry], now: Timestamp) -> String {
    if allowed.is_empty() {
        return "Nothing is allowed now.\n".to_owned();
    }
    let mut grid = Grid::new(&["ALLOWED", "UNTIL", "FROM"]);
    for entry in allowed {
        let sources: Vec<&str> = entry.sources.iter().map(|source| source.name.as_str()).collect();
        grid.row(vec![network(entry.cidr), expiry(entry.expires_at, now), sources.join(", ")]);
    }
    grid.render()
}

pub(super) fn members(members: &[MemberView], now: Timestamp) -> String {
    if members.is_empty() {
        return "There are no members.\n".to_owned();
    }
    let mut grid = Grid::new(&["MEMBER", "WHAT", "UNTIL", "ID"]);
    for member in members {
        let (what, name) = match &member.kind {
            MemberKindView::Pair(pair) => (format!("pair {}", pair.number), pair.name.to_string()),
            MemberKindView::Network { network: fixed, note } => (network(*fixed), note.to_string()),
        };
        grid.row(vec![name, what, expiry(member.expires_at, now), member.id.to_string()]);
    }
    grid.render()
}

/// Shows records of the audit; the details as they are in JSON.
pub(super) fn audit(records: &[RecordView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["ID", "WHEN", "WHO", "FROM", "WHAT", "DETAILS"]);
    for record in records {
        let actor = &record.actor;
        let who = actor.name.as_ref().or(actor.id.as_ref());
        grid.row(vec![
            record.id.to_string(),
            time(record.at, now),
            who.map_or_else(|| actor.kind.clone(), |who| format!("{} {who}", actor.kind)),
            record.source.map_or_else(|| "-".to_owned(), |source| source.to_string()),
            record.kind.replace('_', " "),
            details(&record.details),
        ]);
    }
    grid.render()
}

/// Shows the fields of a record that are not null: `name laptop, ttl 86400`.
fn details(details: &serde_json::Value) -> String {
    let Some(fields) = details.as_object() else { return String::new() };
    let fields = fields.iter().filter(|(_, value)| !value.is_null());
    let shown = fields.map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name} {text}"),
        None => format!("{name} {value}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Says what was found to be in order, and how far it is signed.
pub(super) fn verified(verified: &Verified) -> String {
    let mut text = String::new();
    let of = verified.org.map_or_else(|| "all orgs".to_owned(), |org| format!("the org {org}"));
    let (first, last) = (verified.first, verified.last);
    let found = if verified.key.is_some() && !verified.is_key_known {
        "agrees with itself. Whether the plane has written it, only the plane's key can tell: give \
         that with --key."
    } else {
        "is as it was written."
    };
    writeln!(text, "The audit of {of} {found}\n").expect("a string takes all");
    let mut row = |name: &str, value: String| {
        writeln!(text, "{name:<8} {value}").expect("a string takes all");
    };
    row("records", verified.records.to_string());
    if let (Some(since), Some(until)) = (verified.since, verified.until) {
        row("from", format!("{since} to {until}"));
    }
    row("links", format!("{first} to {last}"));
    if let Some(hash) = verified.hash {
        row("last", format!("{last}:{hash}"));
    }
    match (verified.signed, verified.key) {
        (Some(signed), Some(key)) => {
            row("signed", format!("to link {signed}"));
            row("key", format!("{key}{}", if verified.is_key_known { "" } else { ", as it says" }));
        }
        (_, _) => row("signed", "nothing".to_owned()),
    }
    if let Some(pruned) = verified.pruned {
        row("pruned", format!("what happened until {pruned}"));
    }
    text
}

pub(super) fn agents(agents: &[AgentView], now: Timestamp) -> String {
    let mut text = String::new();
    let mut grid = Grid::new(&["NAME", "GROUPS", "VERSION", "LAST HEARD OF", "REVOKED", "ID"]);
    for agent in agents {
        let host = agent.host.as_ref();
        grid.row(vec![
            agent.name.to_string(),
            group_names(&agent.groups),
            host.map_or_else(|| "-".to_owned(), |host| host.version.clone()),
            agent.last_seen.map_or_else(|| "not since the start".to_owned(), |at| time(at, now)),
            agent.revoked_at.map_or_else(|| "-".to_owned(), |at| time(at, now)),
            agent.id.to_string(),
        ]);
    }
    text.push_str(&grid.render());
    let receipts = receipts(agents);
    if !receipts.is_empty() {
        text.push('\n');
        text.push_str(&receipts);
    }
    text
}

pub(super) fn group_names(groups: &[AgentGroup]) -> String {
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

fn receipts(agents: &[AgentView]) -> String {
    let mut grid = Grid::new(&["AGENT", "TARGET", "GROUP", "STATE", "ENTRIES", "DETAIL"]);
    let all = agents.iter().flat_map(|agent| agent.receipts.iter().map(move |it| (agent, it)));
    let mut is_empty = true;
    for (agent, receipt) in all {
        is_empty = false;
        let group = agent.groups.iter().find(|group| group.id == receipt.group);
        let state = match receipt.state {
            ReceiptState::Applied => "applied",
            ReceiptState::Held => "held",
            ReceiptState::Failed => "failed",
        };
        grid.row(vec![
            agent.name.to_string(),
            receipt.target.clone(),
            group.map_or_else(|| receipt.group.to_string(), |group| group.name.clone()),
            state.to_owned(),
            receipt.entries.to_string(),
            receipt.detail.clone().unwrap_or_default(),
        ]);
    }
    if is_empty { String::new() } else { grid.render() }
}

pub(super) fn users(users: &[UserView], now: Timestamp) -> String {
    let mut grid = Grid::new(&["EMAIL", "ROLE", "STATE", "SIGNED IN", "CODES LEFT", "MAIL", "ID"]);
    for user in users {
        grid.row(vec![
            user.email.to_string(),
            user.role.name().to_owned(),
            state(user.state).to_owned(),
            user.logins.to_string(),
            user.recovery_codes.to_string(),
            user.mail.as_ref().map_or_else(|| "-".to_owned(), |fate| mail(fate, now)),
            user.id.to_string(),
        ]);
    }
    grid.render()
}

fn state(state: UserState) -> &'static str {
    match state {
        UserState::Invited => "invited",
        UserState::Active => "active",
    }
}

/// Says what became of a mail.
pub(super) fn mail(fate: &Fate, now: Timestamp) -> String {
    match fate {
        Fate::Waiting { .. } => "on its way".to_owned(),
        Fate::Sent { at } => format!("sent {}", time(*at, now)),
        Fate::Retried { why, .. } => format!("will be tried again: {why}"),
        Fate::Failed { why, .. } => format!("failed: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_ms(secs * 1_000).unwrap()
    }

    #[test]
    fn what_would_act_on_a_terminal_is_escaped() {
        assert_eq!(escaped("a\u{1b}[2Jb\nc\u{9b}"), "a\\u{1b}[2Jb\\u{a}c\\u{9b}");
        assert_eq!(escaped("Zoë’s サーバー"), "Zoë’s サーバー");
    }

    #[test]
    fn times_are_shown_with_their_distance() {
        let now = at(1_000_000);

        assert_eq!(time(at(1_000_000 + 23 * 3_600 + 59), now), "1970-01-13T12:47:39Z (in 23 h)");
        assert_eq!(time(at(1_000_000 - 90), now), "1970-01-12T13:45:10Z (1 min ago)");
        assert_eq!(expiry(Expiry::Never, now), "never");
    }

    #[test]
    fn spans_are_rounded_down() {
        for (secs, shown) in
            [(0, "0 s"), (59, "59 s"), (119, "1 min"), (86_400, "24 h"), (604_799, "6 days")]
        {
            assert_eq!(span(Duration::from_secs(secs)), shown);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let mut grid = Grid::new(&["NAME", "ID"]);
        grid.row(vec!["a\u{7}".to_owned(), "1".to_owned()]);

        assert_eq!(grid.render(), "NAME    ID\na\\u{7}  1\n");
    }
}
