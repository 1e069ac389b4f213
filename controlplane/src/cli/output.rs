//! Standard output and standard error. Secrets are written here and nowhere else.

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};
use std::path::Path;

use postern_shared::error::chain;
use postern_shared::time::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::init::Made;
use super::{Failure, content, qr, show};
use crate::audit::Verified;
use crate::config::ConfigError;
use crate::operator::{
    Answer, GroupList, MemberKindView, MemberView, MintedKey, PairName, Reply, Revealed,
};

/// Where answers go, and in which form.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
}

/// Lines of JSON on their way out, as they come.
#[derive(Debug)]
pub(super) struct Lines(BufWriter<StdoutLock<'static>>);

impl Lines {
    pub(super) fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, value)?;
        self.0.write_all(b"\n")
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// How an answer is shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As text.
    Plain,
    /// With the bookmark as a QR code behind it.
    WithQr,
}

impl Output {
    pub(super) fn new(json: bool) -> Output {
        Output { json }
    }

    /// Prints a list: as a JSON array, or as the text that `render` makes of it.
    pub(super) fn list<T: Serialize>(
        &self,
        items: &[T],
        render: impl FnOnce(&[T]) -> String,
    ) -> io::Result<()> {
        if self.json { print_json(&items) } else { print(&render(items)) }
    }

    /// Prints a group: what it allows, and its members.
    pub(super) fn group(
        &self,
        list: &GroupList,
        members: &[MemberView],
        now: Timestamp,
    ) -> io::Result<()> {
        if !self.json {
            return print(&show::group(list, members, now));
        }
        print_json(&json!({
            "group": list.group,
            "as_of": now,
            "epoch": list.epoch,
            "revision": list.revision,
            "digest": list.digest,
            "entries": list.allowed.items,
            "members": members,
        }))
    }

    /// Prints what became of one operation.
    pub(super) fn reply(&self, reply: &Reply, shape: Shape) -> io::Result<()> {
        if self.json { print_json(&content(&reply.answer)?) } else { print(&text(reply, shape)) }
    }

    /// Prints what `init` made, and what to do next.
    pub(super) fn made(&self, made: &Made) -> io::Result<()> {
        if self.json {
            return print_json(made);
        }
        let config = show::escaped(&made.config.to_string_lossy());
        print(&format!(
            "The control plane is ready in {}.\n\n\
             First API key, shown only now; it works from {}:\n\n    {}\n\n\
             Link with which {} gets in, shown only now; it is good once, when the plane serves, and \
             until {}:\n\n    {}\n\n\
             Next:\n    \
             postern-controlplane serve --config {config}\n    \
             postern-controlplane group add ssh --config {config}\n    \
             postern-controlplane pair add laptop --qr --config {config}\n    \
             postern-controlplane group add-member ssh --pair laptop --config {config}\n    \
             postern-controlplane agent invite web-1 --group ssh --config {config}\n",
            show::escaped(&made.data_dir.to_string_lossy()),
            show::origins(&made.key.key.origins),
            secret(&made.key.secret),
            show::escaped(made.invitation.user.email.as_str()),
            made.invitation.expires_at,
            secret(&made.invitation.link),
        ))
    }

    /// Begins to print lines of JSON, one value each.
    pub(super) fn lines(&self) -> Lines {
        Lines(BufWriter::new(io::stdout().lock()))
    }

    /// Says that an audit is as it was written.
    pub(super) fn verified(&self, verified: &Verified) -> io::Result<()> {
        if self.json { print_json(verified) } else { print(&show::verified(verified)) }
    }

    /// Says that a configuration is good.
    pub(super) fn checked(&self, file: &Path) -> io::Result<()> {
        if self.json {
            return print_json(&json!({"file": file, "mistakes": []}));
        }
        print(&format!("{}: no mistakes\n", show::escaped(&file.to_string_lossy())))
    }

    /// Says on standard error why something was not done.
    pub(super) fn failure(&self, failure: &Failure) {
        let text = match (self.json, failure) {
            (true, _) => failure.to_json().to_string(),
            // Lines of `file:line:column`, which editors find.
            (false, Failure::Config(ConfigError::Mistakes { .. })) => {
                escaped_lines(&chain(failure))
            }
            (false, _) => format!("error: {}", escaped_lines(&chain(failure))),
        };
        // Nothing is left to do where even this cannot be printed.
        drop(writeln!(io::stderr(), "{text}"));
    }
}

fn text(reply: &Reply, shape: Shape) -> String {
    let now = reply.as_of;
    match &reply.answer {
        Answer::KeyMinted(minted) => key(minted, now),
        Answer::LockedKeyMinted(locked) => format!(
            "{}\nIt works only from where this bookmark last reported, shown only now, too:\n\n    {}\n",
            key(&locked.minted, now),
            secret(&locked.bookmark),
        ),
        Answer::PairClosed(closed) => {
            let PairName { id, number, name } = &closed.pair;
            let name = show::escaped(name.as_str());
            format!("Pair {number}, {name} ({id}), is closed until it reports again.\n")
        }
        Answer::KeyNarrowed(key) => {
            let scopes: Vec<String> = key.scopes.iter().map(|scope| scope.to_string()).collect();
            format!(
                "Key {} ({}) may do {}, and works from {}.\n",
                show::escaped(key.name.as_str()),
                key.id,
                scopes.join(","),
                show::escaped(&show::origins(&key.origins)),
            )
        }
        Answer::BookmarkRotated(rotated) => {
            let (pair, bookmark) = (&rotated.pair.pair, secret(&rotated.bookmark));
            format!(
                "Pair {}, {} ({}): the old bookmark is dead, and what it reported is closed.\n\
                 The new one, shown only now:\n\n    {bookmark}\n{}",
                pair.number,
                show::escaped(pair.name.as_str()),
                pair.id,
                behind(bookmark, shape),
            )
        }
        Answer::ServerKeyRotated(rotated) => {
            let pair = &rotated.pair.pair;
            format!(
                "Pair {}, {} ({}): the old server key is dead.\nThe new one, shown only now:\n\n    {}\n",
                pair.number,
                show::escaped(pair.name.as_str()),
                pair.id,
                secret(&rotated.server_key),
            )
        }
        Answer::PairAdded(added) => {
            let (pair, bookmark) = (&added.pair.pair, secret(&added.bookmark));
            let drawn = behind(bookmark, shape);
            format!(
                "Pair {}, {} ({}).\nIts secrets, shown only now:\n\n    bookmark    {bookmark}\n    \
                 server key  {}\n{drawn}",
                pair.number,
                show::escaped(pair.name.as_str()),
                pair.id,
                secret(&added.server_key),
            )
        }
        Answer::GroupAdded(group) => {
            let name = show::escaped(group.name.as_str());
            format!("Group {}, {name} ({}).\n", group.number, group.id)
        }
        Answer::MemberAdded(member) => {
            let who = match &member.kind {
                MemberKindView::Pair(pair) => format!("pair {}, {}", pair.number, pair.name),
                MemberKindView::Network { network, note } => format!("{network}, {note}"),
            };
            let (who, until) = (show::escaped(&who), show::expiry(member.expires_at, now));
            format!("Member {who} ({}), ends {until}.\n", member.id)
        }
        Answer::AgentInvited(invited) => format!(
            "Give this to `postern-agent enroll` on {}. It is shown only now, is good once, and ends \
             {}:\n\n    {}\n",
            show::escaped(invited.name.as_str()),
            show::time(invited.expires_at, now),
            secret(&invited.invitation),
        ),
        Answer::AgentGroupsSet(agent) => {
            let groups = show::group_names(&agent.groups);
            format!("{} follows {}.\n", show::escaped(agent.name.as_str()), show::escaped(&groups))
        }
        Answer::Removed(removed) => {
            format!("{} ({}) is gone.\n", show::escaped(&removed.name), removed.id)
        }
        Answer::UserInvited(invited) => format!(
            "{} is invited as {}. This link is shown only now, is good once, and ends {}:\n\n    {}\n{}",
            show::escaped(invited.user.email.as_str()),
            invited.user.role.name(),
            show::time(invited.expires_at, now),
            secret(&invited.link),
            invited.user.mail.as_ref().map_or_else(String::new, |fate| {
                format!("\nMail: {}.\n", show::escaped(&show::mail(fate, now)))
            }),
        ),
        Answer::UserRecovery(way) => format!(
            "With this link {} sets another password and enrols another authenticator. It is shown \
             only now, is good once, and ends {}:\n\n    {}\n",
            show::escaped(way.user.email.as_str()),
            show::time(way.expires_at, now),
            secret(&way.link),
        ),
        Answer::UserRoleSet(user) => {
            format!("{} is {}.\n", show::escaped(user.email.as_str()), user.role.name())
        }
        Answer::Users(page) => show::users(&page.items, now),
        Answer::Keys(page) => show::keys(&page.items, now),
        Answer::Pairs(page) => show::pairs(&page.items, now),
        Answer::Groups(page) => show::groups(&page.items),
        Answer::Group(list) => show::group(list, &[], now),
        Answer::Members(page) => show::members(&page.items, now),
        Answer::Agents(page) => show::agents(&page.items, now),
        Answer::Audit(page) => show::audit(&page.items, now),
        Answer::AuditOpened(_) | Answer::AuditPart(_) | Answer::AuditStray(_) => {
            unreachable!("these are parts of an export or of a verification, never shown alone")
        }
    }
}

fn key(minted: &MintedKey, now: Timestamp) -> String {
    format!(
        "Key {} ({}), works from {}, ends {}.\nIts secret, shown only now:\n\n    {}\n",
        show::escaped(minted.key.name.as_str()),
        minted.key.id,
        show::escaped(&show::origins(&minted.key.origins)),
        show::expiry(minted.key.expires_at, now),
        secret(&minted.secret),
    )
}

/// What stands behind a bookmark: its QR code, if it was asked for.
fn behind(bookmark: &str, shape: Shape) -> String {
    match shape {
        Shape::Plain => String::new(),
        Shape::WithQr => format!("\n{}", drawn(bookmark)),
    }
}

fn drawn(text: &str) -> String {
    match qr::draw(text) {
        Ok(drawn) if io::stdout().is_terminal() => qr::coloured(&drawn),
        Ok(drawn) => drawn,
        // No reason to keep the text itself back: it is told only now.
        Err(error) => format!("No QR code can be drawn of it: {error}.\n"),
    }
}

/// The one place where a secret turns into text that is printed.
fn secret(secret: &Revealed) -> &str {
    secret.expose()
}

fn escaped_lines(text: &str) -> String {
    text.lines().map(show::escaped).collect::<Vec<_>>().join("\n")
}

fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}
