//! Reads targets that are rules of `ufw`.

use postern_shared::document::Reader;

use super::kind::swept;
use super::read::{filled_list, groups, name, ports};
use super::{Claim, Door, GroupRef, Kind, Opening, SweepFuture, Sweeping};
use crate::commands::Trade;
use crate::firewalls::HostTarget;
use crate::target::marked::{Mark, Marked};
use crate::target::ufw::{Ufw, UfwConfig};

/// Rules of ufw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UfwAt {
    /// Which.
    pub(crate) what: UfwConfig,
    /// Whose addresses get in.
    pub(crate) groups: Vec<GroupRef>,
}

impl Kind for UfwAt {
    fn read(reader: &mut Reader<'_>, target: Option<&str>) -> Option<UfwAt> {
        let empty = "holds no port; write such as [22/tcp, 60000-61000/udp]";
        let ports = filled_list(reader, "ports", ports, empty);
        let owner = reader.optional("owner", name).or_else(|| target.map(str::to_owned));
        let groups = groups(reader);
        if Mark::GROUPS_MAX < groups.len() {
            let most = Mark::GROUPS_MAX;
            reader.reject("groups", format!("holds more than {most}: a comment holds no more"));
        }
        let what = UfwConfig { ports, owner: owner? };
        if let Err(why) = what.check() {
            reader.reject("ports", why);
        }
        Some(UfwAt { what, groups })
    }

    fn doors(&self) -> Vec<Door<'_>> {
        vec![Door { service: None, ports: &self.what.ports, groups: &self.groups }]
    }

    fn before_first_list(&self) -> Option<&'static str> {
        Some("ufw is as you left it")
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::owned("owner", &self.what.owner, format_args!("in ufw"))]
    }

    fn trade(&self) -> Option<Trade> {
        Some(Trade::Ufw(self.what.clone()))
    }

    fn sweep(&self, sweeping: Sweeping<'_>) -> Option<SweepFuture> {
        swept(
            Ufw::new(sweeping.name, self.what.clone(), sweeping.commands.clone()),
            &self.what.owner,
            sweeping,
        )
    }

    fn open(&self, opening: &Opening<'_>) -> Result<HostTarget, String> {
        let groups = opening.groups(&self.groups)?;
        let (what, owner) = (self.what.clone(), self.what.owner.clone());
        let ufw = Ufw::new(opening.name, what, opening.commands.clone());
        Ok(HostTarget::new(Marked::new(opening.name, &owner, groups, ufw)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::config;
    use super::*;
    use crate::config::TargetKind;

    fn read(keys: &str) -> Result<UfwAt, String> {
        let source = format!("targets: [{{name: web, type: ufw, {keys}}}]");
        let mut config = config(&source).map_err(|mistakes| format!("{mistakes:?}"))?;
        let TargetKind::Ufw(ufw) = config.targets.remove(0).kind else { panic!("rules") };
        Ok(ufw)
    }

    #[test]
    fn every_key_is_read_and_mistakes_are_told() {
        let ufw = read("ports: [22/tcp, 60000-61000/udp], owner: edge, groups: [ops]").unwrap();

        assert_eq!((ufw.what.ports.len(), ufw.what.owner.as_str()), (2, "edge"));
        assert_eq!(read("ports: [22/tcp], groups: [ops]").unwrap().what.owner, "web");
        let many: Vec<String> = (1..17).map(|port| format!("{port}/tcp")).collect();
        for (keys, word) in [
            ("groups: [ops]".to_owned(), "no port"),
            (format!("ports: [{}], groups: [a]", many.join(",")), "16 of tcp"),
            ("ports: [22/tcp], groups: [a, b, c, d, e, f]".to_owned(), "more than 5"),
        ] {
            let told = read(&keys).unwrap_err();
            assert!(told.contains(word), "{keys}: {told}");
        }
    }
}
