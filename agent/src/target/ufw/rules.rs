//! Rules as `ufw show added` prints them, and as its commands take them: pure.

use std::collections::{BTreeMap, BTreeSet};

use postern_shared::format::flat;
use postern_shared::network::Network;

use crate::target::nft::{Ports, Protocol};

/// A rule of the form that ours have: from one network to ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    /// From where.
    pub(super) network: Network,
    /// To which ports, as ufw writes them: `22,60000:61000`.
    pub(super) ports: String,
    /// Of which protocol.
    pub(super) protocol: &'static str,
}

/// What somebody let a rule of that form do, and what he says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) is_plain_allow: bool,
    pub(super) comment: String,
}

/// The ports of a target, by protocol, as ufw writes them.
pub(super) fn by_protocol(ports: &[Ports]) -> BTreeMap<&'static str, String> {
    let mut sorted: BTreeMap<&'static str, BTreeSet<(u16, u16)>> = BTreeMap::new();
    for ports in ports {
        sorted.entry(word(ports.protocol)).or_default().insert((ports.first, ports.last));
    }
    let written = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}:{last}"),
    };
    let join =
        |ports: BTreeSet<(u16, u16)>| ports.iter().map(written).collect::<Vec<_>>().join(",");
    sorted.into_iter().map(|(protocol, ports)| (protocol, join(ports))).collect()
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Reads all rules of that form; others cannot be in the way of ours.
pub(super) fn read(shown: &str) -> BTreeMap<Rule, Said> {
    shown.lines().filter_map(read_line).collect()
}

fn read_line(line: &str) -> Option<(Rule, Said)> {
    let (rule, comment) = match line.split_once(" comment '") {
        Some((rule, comment)) => (rule, comment.strip_suffix('\'')?),
        None => (line, ""),
    };
    let words: Vec<&str> = rule.split(' ').collect();
    let (action, logs, words) = match &words[..] {
        ["ufw", action, log @ ("log" | "log-all"), rest @ ..] => (action, Some(log), rest),
        ["ufw", action, rest @ ..] => (action, None, rest),
        _ => return None,
    };
    let ["from", network, "to", "any", "port", ports, "proto", protocol] = words else {
        return None;
    };
    let protocol = ["tcp", "udp"].into_iter().find(|known| known == protocol)?;
    let rule = Rule { network: network.parse().ok()?, ports: (*ports).to_owned(), protocol };
    let is_plain_allow = *action == "allow" && logs.is_none();
    Some((rule, Said { is_plain_allow, comment: comment.to_owned() }))
}

impl Rule {
    fn words(&self) -> Vec<String> {
        let words = ["allow", "proto", self.protocol, "from"];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        words.push(flat(self.network));
        words.extend(["to", "any", "port"].map(str::to_owned));
        words.push(self.ports.clone());
        words
    }

    /// The words that add the rule, or give the one that is there another comment.
    pub(super) fn allow(&self, comment: &str) -> Vec<String> {
        let mut words = self.words();
        words.extend(["comment".to_owned(), comment.to_owned()]);
        words
    }

    /// The words that take the rule away, whatever its comment is.
    pub(super) fn delete(&self) -> Vec<String> {
        [vec!["delete".to_owned()], self.words()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
Added user rules (see 'ufw status' for running firewall):
ufw allow from 9.9.9.9 comment 'office'
ufw allow 22/tcp
ufw allow from 203.0.113.9 to any port 22 proto tcp comment 'postern web 01010101=never'
ufw deny from 1.2.3.0/24 to any port 22 proto tcp
ufw allow log from 1.2.3.4 to any port 22 proto tcp comment 'postern web x'
ufw allow in on eth0 from 1.2.3.5 to any port 22 proto tcp
ufw allow from 2001:db8::/64 to any port 22,60000:61000 proto udp comment 'x y z'
";

    fn ports(first: u16, last: u16, protocol: Protocol) -> Ports {
        Ports { protocol, first, last }
    }

    #[test]
    fn rules_of_the_form_of_ours_are_read_whoever_made_them() {
        let read: Vec<String> = read(SHOWN)
            .into_iter()
            .map(|(rule, said)| {
                let Rule { network, ports, protocol } = rule;
                format!("{network} {ports}/{protocol} {} {}", said.is_plain_allow, said.comment)
            })
            .collect();

        assert_eq!(
            read,
            [
                "1.2.3.0/24 22/tcp false ",
                "1.2.3.4/32 22/tcp false postern web x",
                "203.0.113.9/32 22/tcp true postern web 01010101=never",
                "2001:db8::/64 22,60000:61000/udp true x y z",
            ]
        );
    }

    #[test]
    fn a_rule_is_written_with_all_ports_of_a_protocol() {
        let all = [
            ports(443, 443, Protocol::Tcp),
            ports(60_000, 61_000, Protocol::Udp),
            ports(22, 22, Protocol::Tcp),
            ports(22, 22, Protocol::Tcp),
        ];

        let written = by_protocol(&all);

        assert_eq!(written["tcp"], "22,443");
        assert_eq!(written["udp"], "60000:61000");
        let rule = Rule {
            network: "198.51.100.7".parse().unwrap(),
            ports: written["tcp"].clone(),
            protocol: "tcp",
        };
        assert_eq!(
            rule.allow("postern x").join(" "),
            "allow proto tcp from 198.51.100.7 to any port 22,443 comment postern x"
        );
        assert_eq!(
            rule.delete().join(" "),
            "delete allow proto tcp from 198.51.100.7 to any port 22,443"
        );
    }
}
