//! Reads targets that are sets of `ipset`.

use std::cell::Cell;

use postern_shared::document::{Reader, Scalar, number_in};

use super::read::{groups, name};
use super::{Claim, Door, GroupRef, Kind, Opening, SweepFuture, Sweeping};
use crate::commands::Trade;
use crate::firewalls::HostTarget;
use crate::target::ipset::{Ipset, IpsetConfig};

/// More than the kernel's memory should be given to a list.
const ELEMENTS_MAX: usize = 1 << 22;

/// Sets that the operator's rules ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IpsetAt {
    /// Which.
    pub(crate) what: IpsetConfig,
    /// Whose addresses go in.
    pub(crate) groups: Vec<GroupRef>,
}

impl Kind for IpsetAt {
    fn read(reader: &mut Reader<'_>, _target: Option<&str>) -> Option<IpsetAt> {
        let is_named = Cell::new(false);
        let mut set = |key: &'static str| {
            reader.optional(key, |scalar| {
                is_named.set(true);
                set_name(scalar)
            })
        };
        let (v4_set, v6_set) = (set("v4_set"), set("v6_set"));
        if !is_named.get() {
            reader.reject("v4_set", "is missing; name `v4_set`, `v6_set` or both");
        }
        if v4_set.is_some() && v4_set == v6_set {
            reader.reject("v6_set", "is the set for IPv4; one set holds one family");
        }
        let elements_max = reader.optional("elements_max", number_in(1..=ELEMENTS_MAX));
        let elements_max = elements_max.unwrap_or(IpsetConfig::ELEMENTS_MAX);
        let groups = groups(reader);
        Some(IpsetAt { what: IpsetConfig { v4_set, v6_set, elements_max }, groups })
    }

    fn doors(&self) -> Vec<Door<'_>> {
        vec![Door { service: None, ports: &[], groups: &self.groups }]
    }

    fn before_first_list(&self) -> Option<&'static str> {
        Some("your sets are as you left them")
    }

    fn claims(&self) -> Vec<Claim> {
        let remedy = "give one of them another set, or make one target with the groups of both";
        let sets = [("v4_set", &self.what.v4_set), ("v6_set", &self.what.v6_set)];
        let claim = |(key, set): (_, &Option<String>)| {
            Some(Claim::whole(key, format!("the ipset `{}`", set.as_ref()?), remedy))
        };
        sets.into_iter().filter_map(claim).collect()
    }

    fn trade(&self) -> Option<Trade> {
        Some(Trade::Ipset(self.what.clone()))
    }

    fn sweep(&self, _: Sweeping<'_>) -> Option<SweepFuture> {
        // The kernel ends it.
        None
    }

    fn open(&self, opening: &Opening<'_>) -> Result<HostTarget, String> {
        let groups = opening.groups(&self.groups)?;
        let (what, commands) = (self.what.clone(), opening.commands.clone());
        Ok(HostTarget::new(Ipset::new(opening.name, what, groups, commands)))
    }
}

fn set_name(scalar: Scalar<'_>) -> Result<String, String> {
    let name = name(scalar)?;
    let most = IpsetConfig::NAME_BYTES_MAX;
    if most < name.len() {
        return Err(format!("is longer than {most} letters, which is what ipset leaves us"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::super::read::config;
    use super::*;
    use crate::config::TargetKind;

    fn read(keys: &str) -> Result<IpsetAt, String> {
        let source = format!("targets: [{{name: old, type: ipset, groups: [ops], {keys}}}]");
        let mut config = config(&source).map_err(|mistakes| format!("{mistakes:?}"))?;
        let TargetKind::Ipset(ipset) = config.targets.remove(0).kind else { panic!("sets") };
        Ok(ipset)
    }

    #[test]
    fn every_key_is_read_and_mistakes_are_told() {
        let ipset = read("v4_set: friends4, v6_set: friends6, elements_max: 9").unwrap();

        assert_eq!(ipset.what.v4_set.as_deref(), Some("friends4"));
        assert_eq!((ipset.what.v6_set.as_deref(), ipset.what.elements_max), (Some("friends6"), 9));
        assert_eq!(read("v6_set: six").unwrap().what.elements_max, IpsetConfig::ELEMENTS_MAX);
        for (keys, word) in [
            ("elements_max: 5", "name `v4_set`"),
            ("v4_set: a, v6_set: a", "one family"),
            ("v4_set: abcdefghijklmnopqrstuvwxyz12", "longer than 27"),
            ("v4_set: a, elements_max: 0", "from 1"),
        ] {
            let told = read(keys).unwrap_err();
            assert!(told.contains(word), "{keys}: {told}");
        }
    }
}
