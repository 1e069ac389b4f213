//! Addresses and networks in their one canonical form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An IP network in canonical form: host bits clear, IPv4 never written as v4-mapped IPv6.
///
/// Ordered by family (IPv4 first), address, prefix length. Shown as `address/prefix`, always
/// with the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpNet);

/// The two address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, 32 bits.
    V4,
    /// IPv6, 128 bits.
    V6,
}

/// Why a text is not a network, with what to write instead where that is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor a network.
    #[error(
        "`{0}` is not an IP address or network; write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/48"
    )]
    NotANetwork(String),
    /// Bits are set behind the prefix.
    #[error("`{given}` has host bits set; the network is {network}")]
    HostBits {
        /// What was written.
        given: String,
        /// The network that the prefix covers.
        network: Network,
    },
    /// An IPv4-mapped IPv6 network wider than all of IPv4.
    #[error("`{0}` reaches beyond the IPv4-mapped addresses")]
    MappedTooWide(String),
}

/// Why a network may not be on an allowlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ungrantable {
    /// 0.0.0.0/8 and ::/128, RFC 791 and RFC 4291.
    Unspecified,
    /// 127.0.0.0/8 and ::1/128: the host always reaches itself.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10, RFC 3927 and RFC 4291: means another host on every link.
    LinkLocal,
    /// 224.0.0.0/4 and ff00::/8: no packet comes from there.
    Multicast,
    /// 240.0.0.0/4, RFC 1112, the limited broadcast address included; and IPv6 networks wide
    /// enough to hold all IPv4-mapped addresses, ::ffff:0:0/96, which are IPv4.
    Reserved,
}

impl Network {
    /// The network that holds just `address`.
    pub fn host(address: IpAddr) -> Network {
        Network(IpNet::from(address.to_canonical()))
    }

    /// Makes a network of `address` and `prefix`; host bits are cleared. `None` where the
    /// prefix is longer than the address.
    pub fn containing(address: IpAddr, prefix: u8) -> Option<Network> {
        let net = IpNet::new(address, prefix).ok()?;
        fold(net.trunc()).map(Network)
    }

    /// The family.
    pub fn family(self) -> Family {
        match self.0 {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }

    /// The first address.
    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    /// The last address.
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// The prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.0.prefix_len()
    }

    /// Says whether the network is one single address.
    pub fn is_host(self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// Says whether `address` lies in the network. A v4-mapped address counts as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Says whether every address of `other` lies in the network.
    pub fn covers(self, other: Network) -> bool {
        self.0.contains(&other.0)
    }

    /// Says whether the networks share an address.
    pub fn overlaps(self, other: Network) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Says why the network may never be granted, if it may not: any address of it is one that
    /// no remote peer can have.
    pub fn ungrantable(self) -> Option<Ungrantable> {
        NEVER.iter().find(|(never, _)| never.overlaps(self)).map(|(_, why)| *why)
    }

    /// Says whether any address of the network is for private use: RFC 1918, RFC 6598 (carrier
    /// NAT) and RFC 4193 (unique local).
    pub fn is_private(self) -> bool {
        PRIVATE.iter().any(|private| private.overlaps(self))
    }

    /// The same network for the crate `ipnet`.
    pub fn as_ipnet(self) -> IpNet {
        self.0
    }
}

const NEVER: [(Network, Ungrantable); 10] = [
    (v4(0, 0, 0, 0, 8), Ungrantable::Unspecified),
    (v6(0, 0, 128), Ungrantable::Unspecified),
    (v4(127, 0, 0, 0, 8), Ungrantable::Loopback),
    (v6(0, 1, 128), Ungrantable::Loopback),
    (v4(169, 254, 0, 0, 16), Ungrantable::LinkLocal),
    (v6(0xfe80, 0, 10), Ungrantable::LinkLocal),
    (v4(224, 0, 0, 0, 4), Ungrantable::Multicast),
    (v6(0xff00, 0, 8), Ungrantable::Multicast),
    (v4(240, 0, 0, 0, 4), Ungrantable::Reserved),
    (MAPPED, Ungrantable::Reserved),
];

/// The IPv4-mapped addresses. Not canonical itself: only ever held against wider networks.
const MAPPED: Network =
    Network(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96)));

const PRIVATE: [Network; 5] = [
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
    v6(0xfc00, 0, 7),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Network {
    Network(IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)))
}

const fn v6(first: u16, last: u16, prefix: u8) -> Network {
    Network(IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last), prefix)))
}

/// Turns a v4-mapped IPv6 network into the IPv4 network it stands for; `None` where it is wider
/// than all of IPv4.
fn fold(net: IpNet) -> Option<IpNet> {
    const MAPPED_PREFIX: u8 = 96;
    let IpNet::V6(v6) = net else { return Some(net) };
    let mapped = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), MAPPED_PREFIX);
    if mapped.contains(&v6) {
        let v4 = v6.addr().to_ipv4_mapped()?;
        return Some(Ipv4Net::new_assert(v4, v6.prefix_len() - MAPPED_PREFIX).into());
    }
    if v6.contains(&mapped) && v6.addr().to_ipv4_mapped().is_some() { None } else { Some(net) }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `address` or `address/prefix`; host bits that are set are an error.
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let not_a_network = || NetworkError::NotANetwork(text.chars().take(64).collect());
        let net = match text.contains('/') {
            true => text.parse::<IpNet>().map_err(|_| not_a_network())?,
            false => IpNet::from(text.parse::<IpAddr>().map_err(|_| not_a_network())?),
        };
        let folded = fold(net).ok_or_else(|| NetworkError::MappedTooWide(text.to_owned()))?;
        let network = Network(folded.trunc());
        if network.0 != folded {
            return Err(NetworkError::HostBits { given: text.to_owned(), network });
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
        use serde::de::Error;
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            let net = IpNet::deserialize(deserializer)?;
            fold(net)
                .filter(|folded| *folded == net.trunc())
                .map(Network)
                .ok_or_else(|| D::Error::custom("a stored network is not in canonical form"))
        }
    }
}

impl fmt::Display for Ungrantable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ungrantable::Unspecified => "unspecified addresses",
            Ungrantable::Loopback => "loopback addresses",
            Ungrantable::LinkLocal => "link-local addresses",
            Ungrantable::Multicast => "multicast addresses",
            Ungrantable::Reserved => "reserved addresses",
        })
    }
}

impl Family {
    /// Bits in an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn v4_mapped_addresses_are_ipv4() {
        assert_eq!(net("::ffff:203.0.113.7"), net("203.0.113.7/32"));
        assert_eq!(net("::ffff:203.0.113.0/120"), net("203.0.113.0/24"));
        assert!(net("203.0.113.0/24").contains("::ffff:203.0.113.9".parse().unwrap()));
        assert_eq!(Network::host("::ffff:203.0.113.7".parse().unwrap()), net("203.0.113.7"));
    }

    #[test]
    fn host_bits_are_refused_with_the_corrected_network() {
        let error = "198.51.100.9/24".parse::<Network>().unwrap_err();

        assert_eq!(
            error.to_string(),
            "`198.51.100.9/24` has host bits set; the network is 198.51.100.0/24"
        );
    }

    #[test]
    fn texts_that_are_no_networks_are_refused() {
        for text in [
            "",
            "/",
            "10.0.0.1/",
            "10.0.0.1/33",
            "10.0.0/8",
            "010.0.0.1",
            "10.0.0.1/08x",
            "::/129",
            "fe80::1%eth0",
            "example.org",
            " 10.0.0.1",
            "10.0.0.1/-1",
            "[::1]",
            "1.2.3.4:5",
        ] {
            text.parse::<Network>().expect_err(text);
        }
    }

    #[test]
    fn what_no_peer_can_have_is_never_granted() {
        for (text, why) in [
            ("0.0.0.0", Ungrantable::Unspecified),
            ("0.0.0.0/0", Ungrantable::Unspecified),
            ("::", Ungrantable::Unspecified),
            ("::/0", Ungrantable::Unspecified),
            ("127.0.0.1", Ungrantable::Loopback),
            ("64.0.0.0/2", Ungrantable::Loopback),
            ("::1", Ungrantable::Loopback),
            ("169.254.1.1", Ungrantable::LinkLocal),
            ("fe80::1", Ungrantable::LinkLocal),
            ("239.1.2.3", Ungrantable::Multicast),
            ("ff02::1", Ungrantable::Multicast),
            ("255.255.255.255", Ungrantable::Reserved),
            ("::ff00:0:0/88", Ungrantable::Reserved),
        ] {
            assert_eq!(net(text).ungrantable(), Some(why), "{text}");
        }
        for text in ["10.0.0.1", "203.0.113.0/24", "2001:db8::/32", "fd00::1", "1.0.0.0/8"] {
            assert_eq!(net(text).ungrantable(), None, "{text}");
        }
    }

    #[test]
    fn private_networks_are_told_from_public_ones() {
        for text in ["10.1.2.3", "172.31.0.0/16", "192.168.0.1", "100.64.0.1", "fd12::/16"] {
            assert!(net(text).is_private(), "{text}");
        }
        for text in ["172.32.0.1", "100.128.0.1", "2001:db8::1", "9.255.255.255"] {
            assert!(!net(text).is_private(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(address: IpAddr, prefix in 0u8..=128) {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let Some(network) = Network::containing(address, prefix % (bits + 1)) else {
                return Ok(());
            };

            prop_assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
            prop_assert!(network.covers(Network::host(network.address())));
            prop_assert!(network.as_ipnet().contains(&network.last()));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[0-9a-f:./% ]{0,44}") {
            drop(text.parse::<Network>());
        }
    }
}
