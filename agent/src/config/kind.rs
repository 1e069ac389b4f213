//! The kinds of firewall: each has a file beside this one and a line in the list here, and all that
//! the agent asks of a kind is [`Kind`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use futures_util::future::BoxFuture;
use postern_shared::document::Reader;
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::policy::LocalPolicy;
use postern_shared::time::Timestamp;

use super::{GroupRef, aws, cloudflare, file, ipset, nftables, ufw};
use crate::commands::{Commands, Trade};
use crate::directory::Directory;
use crate::firewalls::HostTarget;
use crate::target::TargetError;
use crate::target::marked::{self, Provider, Swept};
use crate::target::nft::Ports;

/// What a configuration says of one kind of firewall.
pub(crate) trait Kind: fmt::Debug {
    /// Reads what belongs to the kind, given the target's name.
    fn read(reader: &mut Reader<'_>, target: Option<&str>) -> Option<Self>
    where
        Self: Sized;

    /// Who gets in where.
    fn doors(&self) -> Vec<Door<'_>>;

    /// What stands there until the first list has come, in words; `None` where nothing is closed
    /// until then.
    fn before_first_list(&self) -> Option<&'static str>;

    /// What is done for the target by programs; `None` where none is.
    fn trade(&self) -> Option<Trade> {
        None
    }

    /// What the target keeps, and no other target of this agent may.
    fn claims(&self) -> Vec<Claim>;

    /// Why this build can keep none of the kind; `None` where it can.
    fn lacks(&self) -> Option<&'static str> {
        None
    }

    /// Takes away what is overdue, by what stands at the target alone; `None` where that ends by
    /// itself.
    fn sweep(&self, sweeping: Sweeping<'_>) -> Option<SweepFuture>;

    /// Makes the target, without reaching for the firewall yet. Fails, in words, where groups are
    /// named that nobody knows.
    fn open(&self, opening: &Opening<'_>) -> Result<HostTarget, String>;

    /// What it may ask of Cloudflare, which counts the calls of all targets with one token.
    fn cloudflare_calls(&self) -> Option<CloudflareCalls<'_>> {
        None
    }
}

/// Calls to Cloudflare.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloudflareCalls<'c> {
    /// The token's file; `None` for the one that the service manager gives.
    pub(crate) token_file: Option<&'c Path>,
    /// How many a minute, at most.
    pub(crate) per_minute: u16,
}

/// Something outside that one target keeps alone: two would undo each other's work for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The key that names it.
    pub(crate) key: &'static str,
    /// What it is, in the same words whichever target says it.
    pub(crate) what: String,
    /// What it is a part of, where a target may claim the whole; in the words for that.
    pub(crate) part_of: Option<String>,
    /// What to change where two claim it.
    pub(crate) remedy: &'static str,
}

/// Ports that open to groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door<'c> {
    /// How it is called, where a target has several.
    pub(crate) service: Option<&'c str>,
    /// Its ports; none where the target does not decide about ports.
    pub(crate) ports: &'c [Ports],
    /// Who gets in.
    pub(crate) groups: &'c [GroupRef],
}

/// What a target is made with, beside what its kind says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening<'a> {
    /// The target's name.
    pub(crate) name: &'a str,
    /// Networks that always pass.
    pub(crate) failsafe: &'a [Network],
    /// What may ever be open; the fail-safe networks are part of it.
    pub(crate) policy: &'a LocalPolicy,
    /// Which groups there are.
    pub(crate) directory: &'a Directory,
    /// Who runs programs.
    pub(crate) commands: &'a Commands,
}

/// What a sweep is made with, beside what the kind says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweeping<'a> {
    /// The target's name.
    pub(crate) name: &'a str,
    /// Who runs programs.
    pub(crate) commands: &'a Commands,
    /// Which deadlines are over.
    pub(crate) now: Timestamp,
}

/// What a sweep is.
pub(crate) type SweepFuture = BoxFuture<'static, Result<Swept, TargetError>>;

/// Sweeps at a provider whose entries carry marks of this owner.
pub(super) fn swept(
    mut provider: impl Provider,
    owner: &str,
    sweeping: Sweeping<'_>,
) -> Option<SweepFuture> {
    let (owner, now) = (owner.to_owned(), sweeping.now);
    Some(Box::pin(async move { marked::sweep(&mut provider, &owner, now).await }))
}

/// Sweeps nothing, for this reason.
pub(super) fn not_swept(reason: String) -> Option<SweepFuture> {
    Some(Box::pin(async { Err(TargetError::Rejected { reason }) }))
}

/// Makes the list of kinds: how each is spelt, and what is read of it.
macro_rules! kinds {
    ($($word:literal => $kind:ident($config:ty)),+ $(,)?) => {
        /// The kinds of firewall, with what the configuration says of one.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum TargetKind {
            $($kind($config)),+
        }

        /// How each kind is spelt and read.
        pub(super) const KINDS: &[(&str, ReadKind)] = &[
            $(($word, |reader, target| {
                <$config as Kind>::read(reader, target).map(TargetKind::$kind)
            })),+
        ];

        impl TargetKind {
            /// As the configuration spells it.
            pub(crate) const fn word(&self) -> &'static str {
                match self {
                    $(TargetKind::$kind(_) => $word),+
                }
            }

            /// What all kinds have in common.
            pub(crate) fn as_kind(&self) -> &dyn Kind {
                match self {
                    $(TargetKind::$kind(config) => config),+
                }
            }
        }
    };
}

/// Reads what belongs to a kind.
pub(super) type ReadKind = fn(&mut Reader<'_>, Option<&str>) -> Option<TargetKind>;

kinds! {
    "nftables" => Nftables(nftables::Nftables),
    "aws_security_group" => AwsSecurityGroup(aws::SecurityGroupAt),
    "aws_prefix_list" => AwsPrefixList(aws::PrefixListsAt),
    "file" => File(file::FileAt),
    "ipset" => Ipset(ipset::IpsetAt),
    "ufw" => Ufw(ufw::UfwAt),
    "cloudflare_list" => CloudflareList(cloudflare::ListAt),
    "cloudflare_access_rule" => CloudflareAccessRule(cloudflare::AccessRulesAt),
}

impl Claim {
    /// Claims what no target claims a part of.
    pub(super) fn whole(key: &'static str, what: String, remedy: &'static str) -> Claim {
        Claim { key, what, part_of: None, remedy }
    }

    /// Claims what is marked with an owner's name: others' marks beside it are no concern of ours.
    pub(super) fn owned(key: &'static str, owner: &str, at: fmt::Arguments<'_>) -> Claim {
        let remedy = "give one of them another `owner`, or make one target with the groups of both";
        Claim::whole(key, format!("what is marked `{owner}` {at}"), remedy)
    }

    /// Says why both cannot be, where `other` is a claim of the target of this name.
    pub(super) fn refusal(&self, other: &Claim, name: &str) -> Option<String> {
        let Claim { what, part_of, remedy, .. } = self;
        if *what == other.what {
            Some(format!("keeps {what}, as the target `{name}` does; {remedy}"))
        } else if part_of.as_ref() == Some(&other.what) || other.part_of.as_ref() == Some(what) {
            let theirs = &other.what;
            Some(format!("keeps {what}, and the target `{name}` keeps {theirs}; {remedy}"))
        } else {
            None
        }
    }
}

impl Opening<'_> {
    /// Finds the groups of a target.
    pub(crate) fn groups(&self, groups: &[GroupRef]) -> Result<BTreeSet<GroupId>, String> {
        self.directory.resolve_all(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::config;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    /// What is told of two targets `a` and `b`, of which each is a line of the file.
    fn told(a: &str, b: &str) -> Vec<String> {
        let target = |name, keys: &str| {
            let keys = keys.replace("ID", ID);
            let is_gate = keys.contains("gate:") || keys.contains("sets:");
            let groups = if is_gate { "" } else { ", groups: [ops]" };
            format!("- {{name: {name}, type: {keys}{groups}}}\n")
        };
        let source = format!("targets:\n{}{}", target("a", a), target("b", b));
        let mistakes = config(&source).err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_targets_that_would_undo_each_others_work_are_refused() {
        let gate = "gate: {services: [{name: s, ports: [1/tcp], groups: [ops]}]";
        let sets = "sets: {family: inet, groups: [ops]";
        for (a, b, place, words) in [
            (
                "file, format: text, path: /etc/office".to_owned(),
                "file, format: json, path: /etc//./office".to_owned(),
                "3:45: targets[1].path: ",
                ["keeps the file /etc/office, as the target `a` does", "another `path`"],
            ),
            (
                format!("nftables, {gate}}}"),
                format!("nftables, {gate}, on_expiry: cut}}"),
                "3:35: targets[1].gate: ",
                ["the table `inet postern`, as the target `a`", "another `table`"],
            ),
            (
                format!("nftables, {gate}}}"),
                format!("nftables, {sets}, table: postern, v4_set: x}}"),
                "3:35: targets[1].sets: ",
                ["`x` of the table `inet postern`, and the target `a` keeps", "other sets"],
            ),
            (
                format!("nftables, {sets}, table: t, v4_set: x}}"),
                format!("nftables, {sets}, table: t, v4_set: y, v6_set: x}}"),
                "3:35: targets[1].sets: ",
                ["the set `x` of the table `inet t`, as", "other sets"],
            ),
            (
                "ipset, v4_set: x".to_owned(),
                "ipset, v4_set: y, v6_set: x".to_owned(),
                "3:45: targets[1].v6_set: ",
                ["the ipset `x`, as", "another set"],
            ),
            (
                "ufw, ports: [22/tcp], owner: edge".to_owned(),
                "ufw, ports: [80/tcp], owner: edge".to_owned(),
                "3:48: targets[1].owner: ",
                ["what is marked `edge` in ufw, as", "another `owner`"],
            ),
            (
                "aws_security_group, group_id: sg-1, ports: [22/tcp], owner: b".to_owned(),
                "aws_security_group, group_id: sg-1, ports: [80/tcp]".to_owned(),
                "3:49: targets[1].group_id: ",
                ["what is marked `b` in sg-1, as", "another `owner`"],
            ),
            (
                "aws_prefix_list, v4_list: pl-1, v6_list: pl-2, owner: edge".to_owned(),
                "aws_prefix_list, v6_list: pl-2, owner: edge".to_owned(),
                "3:45: targets[1].v6_list: ",
                ["what is marked `edge` in pl-2, as", "another `owner`"],
            ),
            (
                "cloudflare_list, account_id: ID, list_id: ID, owner: edge".to_owned(),
                "cloudflare_list, account_id: ID, list_id: ID, owner: edge".to_owned(),
                "3:91: targets[1].list_id: ",
                ["what is marked `edge` in the list 0123", "another `owner`"],
            ),
            (
                "cloudflare_access_rule, zone_id: ID, owner: edge".to_owned(),
                "cloudflare_access_rule, zone_id: ID, owner: edge".to_owned(),
                "3:52: targets[1].zone_id: ",
                ["what is marked `edge` in the zone 0123", "another `owner`"],
            ),
        ] {
            let told = told(&a, &b);
            let [one] = &told[..] else { panic!("{a} beside {b}: {told:?}") };
            assert!(one.starts_with(place), "{place}: {one}");
            assert!(words.iter().all(|word| one.contains(word)), "{words:?}: {one}");
        }
    }

    #[test]
    fn targets_that_can_be_told_apart_may_stand_side_by_side() {
        let gate = "gate: {services: [{name: s, ports: [1/tcp], groups: [ops]}]";
        let sets = "sets: {groups: [ops]";
        for (a, b) in [
            ("file, format: text, path: /a".to_owned(), "file, format: text, path: /b".to_owned()),
            (format!("nftables, {gate}}}"), format!("nftables, {gate}, table: other}}")),
            (
                format!("nftables, {gate}}}"),
                format!("nftables, {sets}, family: ip, table: postern, v4_set: x}}"),
            ),
            (
                format!("nftables, {sets}, family: inet, table: t, v4_set: x}}"),
                format!("nftables, {sets}, family: inet, table: t, v4_set: y}}"),
            ),
            ("ufw, ports: [22/tcp]".to_owned(), "ufw, ports: [22/tcp]".to_owned()),
            (
                "aws_security_group, group_id: sg-1, ports: [22/tcp]".to_owned(),
                "aws_security_group, group_id: sg-1, ports: [80/tcp]".to_owned(),
            ),
            (
                "cloudflare_access_rule, zone_id: ID, owner: edge".to_owned(),
                "cloudflare_access_rule, account_id: ID, owner: edge".to_owned(),
            ),
        ] {
            assert_eq!(told(&a, &b), Vec::<String>::new(), "{a} beside {b}");
        }
    }
}
