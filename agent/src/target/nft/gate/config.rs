//! What the operator says about a gate.

use std::collections::BTreeSet;
use std::fmt;

use postern_shared::ids::GroupId;
use postern_shared::network::Network;

/// A gate: the table, the ports that it protects, and for whom they open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateConfig {
    /// Name of the table, of family `inet`. Whatever has this name is ours.
    pub table: String,
    /// What is protected.
    pub services: Vec<Service>,
    /// Networks that always pass, whatever any list says.
    pub failsafe: Vec<Network>,
    /// What becomes of established connections when their source leaves the list.
    pub on_expiry: OnExpiry,
    /// Whether the table is guarded against everybody else.
    pub ownership: Ownership,
}

/// Ports that are open to some groups and to nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name: letters, digits, `-` and `_`; at most [`Service::NAME_BYTES_MAX`].
    pub name: String,
    /// The ports, as the client sees them.
    pub ports: Vec<Ports>,
    /// Who may reach them: the addresses of any of these groups.
    pub groups: Vec<GroupId>,
}

/// A range of ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// Protocol.
    pub protocol: Protocol,
    /// First port.
    pub first: u16,
    /// Last port, not before the first.
    pub last: u16,
}

impl Ports {
    /// Says whether a port is one of them.
    pub fn holds(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for Ports {
    /// As the configuration writes them: `22/tcp`, `60000-61000/udp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.name();
        if self.first == self.last {
            write!(f, "{}/{protocol}", self.first)
        } else {
            write!(f, "{}-{}/{protocol}", self.first, self.last)
        }
    }
}

/// Protocols with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What becomes of established connections when their source leaves the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExpiry {
    /// They end by themselves.
    #[default]
    Drain,
    /// They are cut off. This host must then not open connections of its own from a protected
    /// port: the answers would be dropped.
    Cut,
}

/// Whether the table is guarded against everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// It is, where the kernel can (Linux 6.9): nobody else changes or flushes it.
    #[default]
    Auto,
    /// It is not: the operator may edit it by hand, and the agent repairs it.
    Off,
}

/// Why a configuration is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a name that `nft` can read.
    #[error(
        "`{0}` is not a name for a {1}; use letters, digits, `-` and `_`, a letter first, \
         {max} at most",
        max = Service::NAME_BYTES_MAX
    )]
    Name(String, &'static str),
    /// Two services of one name.
    #[error("there are two services called `{0}`; give each its own name")]
    SameName(String),
    /// A service that protects nothing.
    #[error("service `{0}` has no ports; name at least one")]
    NoPorts(String),
    /// A range that ends before it begins, or port 0.
    #[error("service `{service}` has the ports {first}-{last}; write the lower one first, from 1")]
    Range {
        /// The service.
        service: String,
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// A gate or a set without groups.
    #[error("`{0}` names no group; name at least one")]
    NoGroups(String),
    /// Sets mode without sets.
    #[error("no set of table `{0}` is named; name one for IPv4, for IPv6, or both")]
    NoSets(String),
}

impl Service {
    /// Longest name of a service or a table.
    pub const NAME_BYTES_MAX: usize = 64;
}

impl Protocol {
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl GateConfig {
    /// Finds the first mistake.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_name(&self.table, "table")?;
        let mut names = BTreeSet::new();
        for service in &self.services {
            check_name(&service.name, "service")?;
            if !names.insert(&service.name) {
                return Err(ConfigError::SameName(service.name.clone()));
            }
            if service.ports.is_empty() {
                return Err(ConfigError::NoPorts(service.name.clone()));
            }
            if service.groups.is_empty() {
                return Err(ConfigError::NoGroups(service.name.clone()));
            }
            for Ports { first, last, .. } in service.ports.iter().copied() {
                if first == 0 || last < first {
                    return Err(ConfigError::Range { service: service.name.clone(), first, last });
                }
            }
        }
        Ok(())
    }

    /// The groups of all services.
    pub fn groups(&self) -> BTreeSet<GroupId> {
        self.services.iter().flat_map(|service| service.groups.iter().copied()).collect()
    }

    /// The ports of all services, merged.
    pub(super) fn all_ports(&self) -> Vec<Ports> {
        merged(self.services.iter().flat_map(|service| service.ports.iter().copied()))
    }
}

/// Sorts ranges of ports and joins those that touch or overlap.
pub(super) fn merged(ports: impl IntoIterator<Item = Ports>) -> Vec<Ports> {
    let sorted: BTreeSet<Ports> = ports.into_iter().collect();
    let mut merged: Vec<Ports> = Vec::new();
    for next in sorted {
        match merged.last_mut() {
            Some(last)
                if last.protocol == next.protocol && next.first <= last.last.saturating_add(1) =>
            {
                last.last = last.last.max(next.last);
            }
            Some(_) | None => merged.push(next),
        }
    }
    merged
}

/// Refuses names that `nft` could not read back.
pub(crate) fn check_name(name: &str, of: &'static str) -> Result<(), ConfigError> {
    let fits = name.len() <= Service::NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || "-_".contains(char));
    if fits { Ok(()) } else { Err(ConfigError::Name(name.chars().take(64).collect(), of)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(first: u16, last: u16) -> Ports {
        Ports { protocol: Protocol::Tcp, first, last }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let udp = Ports { protocol: Protocol::Udp, first: 22, last: 22 };

        let merged =
            merged([tcp(80, 90), udp, tcp(22, 22), tcp(85, 95), tcp(96, 96), tcp(1, 65535)]);

        assert_eq!(merged, [tcp(1, 65535), udp]);
        assert_eq!(super::merged([tcp(80, 81), tcp(83, 84)]), [tcp(80, 81), tcp(83, 84)]);
    }

    #[test]
    fn mistakes_are_named() {
        let service = Service {
            name: "ssh".to_owned(),
            ports: vec![tcp(22, 22)],
            groups: vec![GroupId::FIRST],
        };
        let gate = |services| GateConfig {
            table: "postern".to_owned(),
            services,
            failsafe: Vec::new(),
            on_expiry: OnExpiry::Drain,
            ownership: Ownership::Auto,
        };

        assert_eq!(gate(vec![service.clone()]).check(), Ok(()));
        let twice = gate(vec![service.clone(), service.clone()]).check();
        assert_eq!(twice, Err(ConfigError::SameName("ssh".to_owned())));
        let named = Service { name: "a b; flush".to_owned(), ..service.clone() };
        assert_eq!(
            gate(vec![named]).check(),
            Err(ConfigError::Name("a b; flush".to_owned(), "service"))
        );
        let backwards = Service { ports: vec![tcp(9, 8)], ..service.clone() };
        assert_eq!(
            gate(vec![backwards]).check(),
            Err(ConfigError::Range { service: "ssh".to_owned(), first: 9, last: 8 })
        );
        let closed = Service { groups: Vec::new(), ..service };
        assert_eq!(gate(vec![closed]).check(), Err(ConfigError::NoGroups("ssh".to_owned())));
    }
}
