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

        /// How each kind is spelt and read; the most likely one is the first.
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

impl Opening<'_> {
    /// Finds the groups of a target.
    pub(crate) fn groups(&self, groups: &[GroupRef]) -> Result<BTreeSet<GroupId>, String> {
        self.directory.resolve_all(groups)
    }
}
