//! Reads targets in nftables.

use std::collections::BTreeSet;

use postern_shared::document::Reader;

use super::read::{filled_list, groups, name, one_of, ports, unique_name};
use super::{Claim, Door, GroupRef, Kind, Opening, SweepFuture, Sweeping};
use crate::firewalls::HostTarget;
use crate::target::nft::{
    self, GateConfig, GateTarget, NftOptions, OnExpiry, Ownership, Ports, SetsConfig, SetsTarget,
    TableFamily,
};

/// How nftables are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Nftables {
    /// We drop what nobody allowed.
    Gate {
        /// Our table, of family `inet`. Default `postern`.
        table: String,
        /// What is protected, and who gets in.
        services: Vec<Service>,
        /// What happens to connections whose entry has ended.
        on_expiry: OnExpiry,
        /// Whether the kernel keeps others from our table.
        owner: Ownership,
    },
    /// The operator's rules use sets whose elements we keep.
    Sets {
        /// The family of the operator's table.
        family: NftFamily,
        /// The operator's table.
        table: String,
        /// The set for IPv4.
        v4_set: Option<String>,
        /// The set for IPv6.
        v6_set: Option<String>,
        /// Whose addresses go in.
        groups: Vec<GroupRef>,
    },
}

/// What a gate protects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// How it is called.
    pub(crate) name: String,
    /// Its ports as the client sees them.
    pub(crate) ports: Vec<Ports>,
    /// Who gets in.
    pub(crate) groups: Vec<GroupRef>,
}

/// The families of nftables that can hold sets for both of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NftFamily {
    /// `inet`
    Inet,
    /// `ip`
    Ip,
    /// `ip6`
    Ip6,
}

impl Service {
    fn door(&self) -> Door<'_> {
        Door { service: Some(&self.name), ports: &self.ports, groups: &self.groups }
    }
}

impl Kind for Nftables {
    fn read(reader: &mut Reader<'_>, _target: Option<&str>) -> Option<Nftables> {
        let gate = reader.optional_mapping("gate", gate);
        // What is there but wrong is not missing.
        let sets = reader.optional_mapping("sets", |reader| Some(sets(reader)));
        match (gate, sets) {
            (Some(gate), None) => Some(gate),
            (None, Some(sets)) => sets,
            (Some(_), Some(_)) => {
                reader.reject("sets", "stands beside `gate`; make it a target of its own");
                None
            }
            (None, None) => {
                reader.reject("gate", "is missing; an nftables target has `gate` or `sets`");
                None
            }
        }
    }

    fn doors(&self) -> Vec<Door<'_>> {
        match self {
            Nftables::Gate { services, .. } => services.iter().map(Service::door).collect(),
            Nftables::Sets { groups, .. } => vec![Door { service: None, ports: &[], groups }],
        }
    }

    fn before_first_list(&self) -> Option<&'static str> {
        match self {
            Nftables::Gate { .. } => None,
            Nftables::Sets { .. } => Some("your sets are as you left them"),
        }
    }

    fn claims(&self) -> Vec<Claim> {
        match self {
            Nftables::Gate { table, .. } => {
                let remedy = "give one of them another `table`, or make one gate of both";
                vec![Claim::whole("gate", named(NftFamily::Inet, table), remedy)]
            }
            Nftables::Sets { family, table, v4_set, v6_set, .. } => {
                let remedy =
                    "give one of them other sets, or make one target with the groups of both";
                let table = named(*family, table);
                let claim = |set: &String| Claim {
                    part_of: Some(table.clone()),
                    ..Claim::whole("sets", format!("the set `{set}` of {table}"), remedy)
                };
                v4_set.iter().chain(v6_set).map(claim).collect()
            }
        }
    }

    fn sweep(&self, _: Sweeping<'_>) -> Option<SweepFuture> {
        // The kernel ends it.
        None
    }

    fn open(&self, opening: &Opening<'_>) -> Result<HostTarget, String> {
        match self {
            Nftables::Gate { table, services, on_expiry, owner } => {
                let mut resolved = Vec::new();
                for service in services {
                    let groups = opening.groups(&service.groups)?.into_iter().collect();
                    let (name, ports) = (service.name.clone(), service.ports.clone());
                    resolved.push(nft::Service { name, ports, groups });
                }
                let gate = GateConfig {
                    table: table.clone(),
                    services: resolved,
                    failsafe: opening.failsafe.to_vec(),
                    on_expiry: *on_expiry,
                    ownership: *owner,
                };
                GateTarget::new(opening.name, gate, NftOptions::default())
                    .map(HostTarget::new)
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
                    groups: opening.groups(groups)?.into_iter().collect(),
                };
                SetsTarget::new(opening.name, sets, NftOptions::default())
                    .map(HostTarget::new)
                    .map_err(|error| error.to_string())
            }
        }
    }
}

fn named(family: NftFamily, table: &str) -> String {
    let family = match family {
        NftFamily::Inet => "inet",
        NftFamily::Ip => "ip",
        NftFamily::Ip6 => "ip6",
    };
    format!("the table `{family} {table}`")
}

fn gate(reader: &mut Reader<'_>) -> Option<Nftables> {
    let mut names = BTreeSet::new();
    let mut is_empty = true;
    let services = reader.mappings("services", |reader| {
        is_empty = false;
        service(reader, &mut names)
    });
    if is_empty {
        reader.reject("services", "holds no service; a gate without one protects nothing");
    }
    let expiries = [("drain", OnExpiry::Drain), ("cut", OnExpiry::Cut)];
    let on_expiry = reader.optional("on_expiry", one_of(&expiries)).unwrap_or_default();
    let owners = [("auto", Ownership::Auto), ("off", Ownership::Off)];
    let owner = reader.optional("owner", one_of(&owners)).unwrap_or_default();
    let table = reader.optional("table", name).unwrap_or_else(|| "postern".to_owned());
    Some(Nftables::Gate { table, services, on_expiry, owner })
}

fn service(reader: &mut Reader<'_>, names: &mut BTreeSet<String>) -> Option<Service> {
    let name = unique_name(reader, names);
    let empty = "holds no port; write such as [22/tcp, 60000-61000/udp]";
    let ports = filled_list(reader, "ports", ports, empty);
    let groups = groups(reader);
    Some(Service { name: name?, ports, groups })
}

fn sets(reader: &mut Reader<'_>) -> Option<Nftables> {
    let families = [("inet", NftFamily::Inet), ("ip", NftFamily::Ip), ("ip6", NftFamily::Ip6)];
    let family = reader.required("family", one_of(&families));
    let table = reader.required("table", name);
    let v4_set = reader.optional("v4_set", name);
    let v6_set = reader.optional("v6_set", name);
    if v4_set.is_none() && v6_set.is_none() {
        reader.reject("v4_set", "is missing; name `v4_set`, `v6_set` or both");
    }
    let groups = groups(reader);
    Some(Nftables::Sets { family: family?, table: table?, v4_set, v6_set, groups })
}
