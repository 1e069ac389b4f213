//! Makes targets of what the configuration says.

use std::collections::BTreeMap;

use postern_shared::ids::GroupId;
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::Timestamp;

use crate::config::{NftFamily, Nftables, TargetConfig, TargetKind};
use crate::directory::Directory;
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
}

impl Firewalls for HostFirewalls {
    type Target = HostTarget;

    fn open(
        &self,
        config: &TargetConfig,
        failsafe: &[postern_shared::network::Network],
        directory: &Directory,
    ) -> Result<HostTarget, String> {
        let TargetKind::Nftables(nftables) = &config.kind;
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
}

impl Target for HostTarget {
    fn info(&self) -> &TargetInfo {
        match self {
            HostTarget::Gate(gate) => gate.info(),
            HostTarget::Sets(sets) => sets.info(),
        }
    }

    async fn refresh(&mut self, now: Timestamp) -> Result<Refresh, TargetError> {
        match self {
            HostTarget::Gate(gate) => gate.refresh(now).await,
            HostTarget::Sets(sets) => sets.refresh(now).await,
        }
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        match self {
            HostTarget::Gate(gate) => gate.observed(),
            HostTarget::Sets(sets) => sets.observed(),
        }
    }

    fn is_settled(&self) -> bool {
        match self {
            HostTarget::Gate(gate) => gate.is_settled(),
            HostTarget::Sets(sets) => sets.is_settled(),
        }
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        match self {
            HostTarget::Gate(gate) => gate.preview(plans),
            HostTarget::Sets(sets) => sets.preview(plans),
        }
    }

    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        match self {
            HostTarget::Gate(gate) => gate.apply(plans, now).await,
            HostTarget::Sets(sets) => sets.apply(plans, now).await,
        }
    }

    async fn disturbed(&mut self) {
        match self {
            HostTarget::Gate(gate) => gate.disturbed().await,
            HostTarget::Sets(sets) => sets.disturbed().await,
        }
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        match self {
            HostTarget::Gate(gate) => gate.flush().await,
            HostTarget::Sets(sets) => sets.flush().await,
        }
    }
}
