//! What can be written behind the program's name.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use postern_shared::document::{self, Scalar};
use postern_shared::network::Network;
use postern_shared::scope::Scope;
use postern_shared::time::{Expiry, Timestamp, Ttl};

use crate::audit::{Actors, Hex, Kind, Tip};
use crate::config::PublicUrl;
use crate::domain::{Email, Label, Role};
use crate::operator::{MemberEnd, OriginAsked, Reference};

/// Where the configuration is unless said otherwise.
pub(super) const CONFIG: &str = "/etc/postern/controlplane.yaml";

/// How the plane is reached unless said otherwise: from this machine.
const PUBLIC_URL: &str = "https://localhost:8443";

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; `check`: the file has mistakes
  2  the command line is wrong
  3  refused: unknown or ambiguous name, or against a rule; nothing has changed
  4  neither the daemon nor the store can be reached
  5  `serve`: the store failed; start again, start-up is recovery
  6  `audit verify`: the audit is not as it was written; the first broken record is named

Secrets are printed once, to standard output, and are never read from the command line.";

/// Postern's control plane: tracks reported addresses and resolves them into allowlists.
#[derive(Debug, Parser)]
#[command(name = "postern-controlplane", version, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Program,
}

#[derive(Debug, Subcommand)]
pub(super) enum Program {
    /// Make the data directory: keys, certificate, store, first org, admin and API key.
    Init(Init),
    /// Run the control plane.
    Serve(Configured),
    /// Check a configuration file and say all mistakes in it.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Pairs: roving persons, devices and servers.
    #[command(subcommand)]
    Pair(PairCommand),
    /// Groups, their members and what they allow.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Agents on protected hosts.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// What happened, who did it and from where.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Users: people who sign in.
    #[command(subcommand)]
    User(UserCommand),
    /// Let a user back in: prints a link that resets password and authenticator, once.
    Recover {
        /// The user, by mail address or UUID.
        #[arg(long, value_name = "EMAIL")]
        user: Reference,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct Configured {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The configuration file, which has to be there.
    #[arg(long, value_name = "FILE", default_value = CONFIG, conflicts_with = "data_dir")]
    pub(super) config: PathBuf,
    /// Make this directory, with a configuration file `controlplane.yaml` in it.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// How agents and people reach the plane, with --data-dir; the plane listens on its port.
    #[arg(long, value_name = "URL", conflicts_with = "config", default_value = PUBLIC_URL)]
    pub(super) public_url: PublicUrl,
    /// The name of the first org.
    #[arg(long, value_name = "NAME")]
    pub(super) org: Label,
    /// The mail address of its admin.
    #[arg(long, value_name = "EMAIL")]
    pub(super) admin: Email,
    /// A network from which the first API key works; may be repeated.
    #[arg(long = "origin", value_name = "NETWORK", default_values = ["127.0.0.0/8", "::1"])]
    pub(super) origins: Vec<Network>,
}

/// What every command of the operator takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) configured: Configured,
    /// The org, by name or UUID; needed where there is more than one.
    #[arg(long, value_name = "ORG")]
    pub(super) org: Option<Reference>,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Mint an API key and print its secret.
    Mint {
        /// What the key is for.
        #[arg(long)]
        name: Label,
        /// What the key may do; may be repeated. `write` implies `read`.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
        /// From where the key works: a network, or pair: and a pair; may be repeated.
        #[arg(
            long = "origin",
            value_name = "NETWORK|pair:PAIR",
            required_unless_present = "with_bookmark"
        )]
        origins: Vec<OriginAsked>,
        /// Make a pair of the same name, lock the key to where it is, and print its bookmark, too.
        #[arg(long, conflicts_with = "origins")]
        with_bookmark: bool,
        /// How long the key works, such as 90d; for ever unless given.
        #[arg(long, value_name = "SPAN", value_parser = span)]
        valid: Option<Ttl>,
        #[command(flatten)]
        common: Common,
    },
    /// List API keys.
    List {
        /// List revoked ones, too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Take scopes and origins away from an API key: what it keeps is named.
    Narrow {
        /// The key, by name or UUID.
        key: Reference,
        /// What the key keeps; may be repeated. All unless given.
        #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "origins")]
        scopes: Vec<Scope>,
        /// From where the key still works: a network within those that it has, or pair: and a
        /// pair; may be repeated. All unless given.
        #[arg(long = "origin", value_name = "NETWORK|pair:PAIR")]
        origins: Vec<OriginAsked>,
        #[command(flatten)]
        common: Common,
    },
    /// Revoke an API key.
    Revoke {
        /// The key, by name or UUID.
        key: Reference,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PairCommand {
    /// Make a pair and print its bookmark and server key.
    Add {
        /// Who or what it is.
        name: Label,
        /// Whom to write to about it.
        #[arg(long)]
        email: Option<Email>,
        /// How long a reported address counts; as configured unless given.
        #[arg(long, value_name = "SPAN", value_parser = span)]
        ttl: Option<Ttl>,
        /// Let a plain GET of the predecessor's URL report, too: link previews will report as well.
        #[arg(long)]
        legacy_get: bool,
        /// Draw the bookmark as a QR code.
        #[arg(long, conflicts_with = "json")]
        qr: bool,
        #[command(flatten)]
        common: Common,
    },
    /// List pairs and where they are.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Delete a pair: its secrets die and its address closes.
    Remove {
        /// The pair, by name, number or UUID.
        pair: Reference,
        #[command(flatten)]
        common: Common,
    },
    /// Close what a pair has reported, at once, until it reports again.
    Close {
        /// The pair, by name, number or UUID.
        pair: Reference,
        #[command(flatten)]
        common: Common,
    },
    /// Print a new bookmark for a pair: the old one dies, and the address on file closes.
    RotateBookmark {
        /// The pair, by name, number or UUID.
        pair: Reference,
        /// Draw the bookmark as a QR code.
        #[arg(long, conflicts_with = "json")]
        qr: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Print a new server key for a pair: the old one dies.
    RotateServerKey {
        /// The pair, by name, number or UUID.
        pair: Reference,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Make a group.
    Add {
        /// What it protects.
        name: Label,
        /// How long a reported address counts here at most; of pair and group the shorter wins.
        #[arg(long, value_name = "SPAN", value_parser = span)]
        ttl: Option<Ttl>,
        #[command(flatten)]
        common: Common,
    },
    /// List groups.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show a group, its members and what it allows now.
    Show {
        /// The group, by name, number or UUID.
        group: Reference,
        #[command(flatten)]
        common: Common,
    },
    /// Delete a group with its members: what it allows closes.
    Remove {
        /// The group, by name, number or UUID.
        group: Reference,
        #[command(flatten)]
        common: Common,
    },
    /// Add a pair or a fixed network to a group.
    AddMember {
        /// The group, by name, number or UUID.
        group: Reference,
        #[command(flatten)]
        member: NewMember,
        /// When the membership ends: a time such as 2026-01-31T12:00:00Z, or a span such as 8h.
        #[arg(long, value_name = "TIME|SPAN", value_parser = end, default_value = "never")]
        expires: MemberEnd,
        #[command(flatten)]
        common: Common,
    },
    /// Take a member out of a group.
    RemoveMember {
        /// The group, by name, number or UUID.
        group: Reference,
        /// The member: its pair, its network, or the UUID of the membership.
        member: Reference,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
#[group(id = "member", required = true, multiple = true)]
pub(super) struct NewMember {
    /// The pair, by name, number or UUID.
    #[arg(long, conflicts_with_all = ["network", "note"])]
    pub(super) pair: Option<Reference>,
    /// The fixed network.
    #[arg(long, value_name = "CIDR", requires = "note")]
    pub(super) network: Option<Network>,
    /// What the network is.
    #[arg(long, value_name = "TEXT", requires = "network")]
    pub(super) note: Option<Label>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Invite an agent: prints the text that `postern-agent enroll` reads.
    Invite {
        /// The name of the host.
        name: Label,
        /// A group that it will follow, by name, number or UUID; may be repeated.
        #[arg(long = "group", value_name = "GROUP", required = true)]
        groups: Vec<Reference>,
        /// How long the invitation is good.
        #[arg(long, value_name = "SPAN", value_parser = span, default_value = "1h")]
        valid: Ttl,
        #[command(flatten)]
        common: Common,
    },
    /// List agents, and what they last said is in force.
    List {
        /// List revoked ones, too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Give an agent other groups.
    SetGroups {
        /// The agent, by name or UUID.
        agent: Reference,
        /// A group that it follows from now on; may be repeated.
        #[arg(long = "group", value_name = "GROUP", required = true)]
        groups: Vec<Reference>,
        #[command(flatten)]
        common: Common,
    },
    /// Revoke an agent and delete its pair.
    Revoke {
        /// The agent, by name or UUID.
        agent: Reference,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List the newest records of an org.
    List {
        /// How many.
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        count: usize,
        /// Those that belong to no org: refusals of secrets that nobody has.
        #[arg(long, conflicts_with = "org")]
        no_org: bool,
        /// None from before this time, such as 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// None from this time or later.
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
        /// Only records of this kind, such as `pair_reported`.
        #[arg(long, value_name = "KIND")]
        kind: Option<Kind>,
        /// Only what these did: an id, or operator, user, key, pair, agent, enrolment, unknown.
        #[arg(long, value_name = "WHO")]
        actor: Option<Actors>,
        /// Only records that name this group: by name, number or UUID, the latter also of one that
        /// is gone.
        #[arg(long, value_name = "GROUP", conflicts_with = "no_org")]
        group: Option<Reference>,
        #[command(flatten)]
        common: Common,
    },
    /// Print the audit of an org, or with no --org of all, as lines of JSON that verify alone.
    #[command(after_help = EXPORT)]
    Export {
        /// No record from before this time, such as 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// No record from this time or later.
        #[arg(long, value_name = "TIME")]
        until: Option<Timestamp>,
        #[command(flatten)]
        common: Common,
    },
    /// Hold the audit to its chain and its signature; names the first record that is broken.
    Verify {
        /// A file that `audit export` has written, in place of the plane's own audit.
        #[arg(long, value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        /// The public key that must have signed. The plane's own unless given; of a file that is not
        /// known, and anybody could have signed it.
        #[arg(long, value_name = "HEX")]
        key: Option<Hex<32>>,
        /// A link that was seen earlier and must still be there, as `verify` has printed it.
        #[arg(long, value_name = "NUMBER:HASH", value_parser = tip)]
        known: Option<Tip>,
        #[command(flatten)]
        configured: Configured,
    },
}

const EXPORT: &str = "\
Lines, each an object with one key:
  audit   what follows: version, as_of, org, first and last link, records_to
  head    lane, number, at, hash, key, signature: Ed25519 over the link's hash, of each key the newest
  begin   number, at, previous, key, signature: what came before was pruned
  link    lane, number, at, previous (hash of the link before), records: tag and hash of each
  record  id (lane-link-index), org, bytes (hex; their SHA-256 is in the link), shown (what they say)

What exactly is hashed and signed stands in controlplane/src/audit/chain.rs.";

fn tip(text: &str) -> Result<Tip, String> {
    let tip = text.split_once(':').and_then(|(number, hash)| {
        Some(Tip { number: number.parse().ok()?, hash: hash.parse().ok()? })
    });
    tip.ok_or_else(|| "write the number of a link, a colon, and its hash".to_owned())
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Invite a user, or invite one again who has not accepted yet: prints the link.
    Invite {
        /// The mail address, which is also the name to sign in with.
        email: Email,
        /// What the user may do: admin or member.
        #[arg(long, default_value = "member")]
        role: Role,
        /// Have the daemon mail the link as well.
        #[arg(long)]
        mail: bool,
        #[command(flatten)]
        common: Common,
    },
    /// List users, and what became of the newest mail to each.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Give a user another role; who is no admin any more is signed out.
    Role {
        /// The user, by mail address or UUID.
        user: Reference,
        /// What the user may do from now on: admin or member.
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a user, who is signed out at once.
    Remove {
        /// The user, by mail address or UUID.
        user: Reference,
        #[command(flatten)]
        common: Common,
    },
}

fn span(text: &str) -> Result<Ttl, String> {
    document::span(Scalar::Text(text))
}

fn end(text: &str) -> Result<MemberEnd, String> {
    if text == "never" {
        return Ok(MemberEnd::At(Expiry::Never));
    }
    match (Timestamp::from_str(text), span(text)) {
        (Ok(time), _) => Ok(MemberEnd::At(Expiry::At(time))),
        (Err(_), Ok(span)) => Ok(MemberEnd::After(span)),
        (Err(_), Err(_)) => {
            Err("write a time such as 2026-01-31T12:00:00Z, a span such as 8h, or never".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_membership_ends_at_a_time_or_after_a_span_or_never() {
        let time = "2026-01-31T12:00:00Z";

        assert_eq!(end("never").unwrap(), MemberEnd::At(Expiry::Never));
        assert_eq!(end(time).unwrap(), MemberEnd::At(Expiry::At(time.parse().unwrap())));
        assert_eq!(end("8h").unwrap(), MemberEnd::After(Ttl::from_secs(28_800).unwrap()));
        end("tomorrow").unwrap_err();
    }

    #[test]
    fn a_member_is_a_pair_or_a_network_with_a_note() {
        let parse = |rest: &[&str]| {
            let line = ["postern-controlplane", "group", "add-member", "ssh"];
            Arguments::try_parse_from(line.iter().chain(rest))
        };

        parse(&["--pair", "laptop"]).unwrap();
        parse(&["--network", "203.0.113.0/24", "--note", "office"]).unwrap();
        parse(&[]).unwrap_err();
        parse(&["--network", "203.0.113.0/24"]).unwrap_err();
        parse(&["--note", "office"]).unwrap_err();
        parse(&["--pair", "laptop", "--network", "203.0.113.0/24", "--note", "x"]).unwrap_err();
    }
}
