//! Makes targets of what the configuration says.

use std::collections::BTreeMap;

use postern_shared::ids::GroupId;
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::Timestamp;

#[cfg(feature = "aws")]
use crate::config::Provided;
use crate::config::{NftFamily, Nftables, TargetConfig, TargetKind};
use crate::directory::Directory;
#[cfg(feature = "aws")]
use crate::target::aws::{Ec2, PrefixLists, SecurityGroup};
#[cfg(feature = "aws")]
use crate::target::marked::Marked;
use crate::target::nft::{
    GateConfig, GateTarget, NftOptions, Service, SetsConfig, SetsTarget, TableFamily,
};
use crate::target::{Refresh, Target, TargetError, TargetInfo};

/// Opens firewalls; tests have one that opens none.
pub(crate) trait Firewalls: Clone + Send + Sync + 'static {
    type Target: Target;

    /// Makes the target, without reaching for the firewall yet. Fails, in words, where the
    /// configuration names groups that nobody knows.
    fn open(
        &self,
        config: &TargetConfig,
        failsafe: &[postern_shared::network::Network],
        directory: &Directory,
    ) -> Result<Self::Target, String>;
}

/// The firewalls of this host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFirewalls;

/// Any of the targets that there are.
#[derive(Debug)]
pub(crate) enum HostTarget {
    Gate(GateTarget),
    Sets(SetsTarget),
    #[cfg(feature = "aws")]
    SecurityGroup(Marked<SecurityGroup>),
    #[cfg(feature = "aws")]
    PrefixLists(Marked<PrefixLists>),
}

impl Firewalls for HostFirewalls {
    type Target = HostTarget;

    fn open(
        &self,
        config: &TargetConfig,
        failsafe: &[postern_shared::network::Network],
        directory: &Directory,
    ) -> Result<HostTarget, String> {
        match &config.kind {
            TargetKind::Nftables(nftables) => open_nftables(config, nftables, failsafe, directory),
            TargetKind::AwsSecurityGroup(_) | TargetKind::AwsPrefixList(_) => {
                open_aws(config, directory)
            }
        }
    }
}

fn open_nftables(
    config: &TargetConfig,
    nftables: &Nftables,
    failsafe: &[postern_shared::network::Network],
    directory: &Directory,
) -> Result<HostTarget, String> {
    match nftables {
        Nftables::Gate { table, services, on_expiry, owner } => {
            let mut resolved = Vec::new();
            for service in services {
                let groups = directory.resolve_all(&service.groups)?.into_iter().collect();
                let (name, ports) = (service.name.clone(), service.ports.clone());
                resolved.push(Service { name, ports, groups });
            }
            let gate = GateConfig {
                table: table.clone(),
                services: resolved,
                failsafe: failsafe.to_vec(),
                on_expiry: *on_expiry,
                ownership: *owner,
            };
            GateTarget::new(&config.name, gate, NftOptions::default())
                .map(HostTarget::Gate)
                .map_err(|error| error.to_string())
        }
        Nftables::Sets { family, table, v4_set, v6_set, groups } => {
            let sets = SetsConfig {
                family: match family {
                    NftFamily::Inet => TableFamily::Inet,
                    NftFamily::Ip => TableFamily::Ip,
                    NftFamily::Ip6 => TableFamily::Ip6,
                },
                table: table.clone(),
                v4_set: v4_set.clone(),
                v6_set: v6_set.clone(),
                groups: directory.resolve_all(groups)?.into_iter().collect(),
            };
            SetsTarget::new(&config.name, sets, NftOptions::default())
                .map(HostTarget::Sets)
                .map_err(|error| error.to_string())
        }
    }
}

#[cfg(feature = "aws")]
fn open_aws(config: &TargetConfig, directory: &Directory) -> Result<HostTarget, String> {
    match &config.kind {
        TargetKind::Nftables(_) => Err("it is not in AWS".to_owned()),
        TargetKind::AwsSecurityGroup(Provided { access, what, owner, groups }) => {
            let groups = directory.resolve_all(groups)?.into_iter().collect();
            let provider = SecurityGroup::new(Ec2::new(access.clone()), what.clone(), owner);
            let target = Marked::new(&config.name, owner, groups, provider);
            Ok(HostTarget::SecurityGroup(target))
        }
        TargetKind::AwsPrefixList(Provided { access, what, owner, groups }) => {
            let groups = directory.resolve_all(groups)?.into_iter().collect();
            let provider = PrefixLists::new(Ec2::new(access.clone()), what.clone(), owner);
            Ok(HostTarget::PrefixLists(Marked::new(&config.name, owner, groups, provider)))
        }
    }
}

#[cfg(not(feature = "aws"))]
fn open_aws(config: &TargetConfig, _: &Directory) -> Result<HostTarget, String> {
    let (name, kind) = (&config.name, config.kind());
    Err(format!("`{name}` is of type `{kind}`, which this agent was built without; see README.md"))
}

/// Does the same with whichever target it is.
macro_rules! whichever {
    ($host:expr, $target:ident => $do:expr) => {
        match $host {
            HostTarget::Gate($target) => $do,
            HostTarget::Sets($target) => $do,
            #[cfg(feature = "aws")]
            HostTarget::SecurityGroup($target) => $do,
            #[cfg(feature = "aws")]
            HostTarget::PrefixLists($target) => $do,
        }
    };
}

impl Target for HostTarget {
    fn info(&self) -> &TargetInfo {
        whichever!(self, target => target.info())
    }

    async fn refresh(&mut self, now: Timestamp) -> Result<Refresh, TargetError> {
        whichever!(self, target => target.refresh(now).await)
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        whichever!(self, target => target.observed())
    }

    fn is_settled(&self) -> bool {
        whichever!(self, target => target.is_settled())
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        whichever!(self, target => target.preview(plans))
    }

    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        whichever!(self, target => target.apply(plans, now).await)
    }

    async fn disturbed(&mut self) {
        whichever!(self, target => target.disturbed().await);
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        whichever!(self, target => target.flush().await)
    }
}
