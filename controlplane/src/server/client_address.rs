//! Who is really calling: the socket's peer, or whom trusted proxies say they forward for.
//!
//! Anybody can write a header field. So the fields count only when the socket's peer is a
//! configured proxy, and then only as far back, from the right, as trusted proxies wrote them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use postern_shared::network::Network;

use crate::http::ApiError;

/// The address of the caller of a request, v4-mapped IPv6 folded; an extension of each request
/// that came over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientAddress(pub IpAddr);

/// The proxies whose word on the caller's address is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Where the proxies are; nobody is trusted when this is empty.
    pub networks: Vec<Network>,
    /// The one header field that they write.
    pub header: ForwardHeader,
}

/// The header fields that can carry the caller's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardHeader {
    /// `X-Forwarded-For`: a list, each proxy appends whom it saw.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): a list, each proxy appends an element.
    Forwarded,
    /// `X-Real-IP`: one address, overwritten by the proxy.
    XRealIp,
    /// `CF-Connecting-IP`: one address, overwritten by Cloudflare.
    CfConnectingIp,
    /// `True-Client-IP`: one address, overwritten by Akamai or Cloudflare.
    TrueClientIp,
}

/// Why a trusted proxy's word on the caller's address cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not in the form of the header field.
    #[error("the proxy's header `{0}` cannot be read")]
    Malformed(&'static str),
    /// A field for one address is there twice, or holds several.
    #[error("the proxy's header `{0}` names more than one address")]
    Doubled(&'static str),
    /// The proxy hides the address, or does not know it.
    #[error("the proxy's header `{0}` does not tell the caller's address")]
    Hidden(&'static str),
    /// More proxies than [`HOPS_MAX`].
    #[error("the request came through more than {HOPS_MAX} trusted proxies")]
    TooManyHops,
}

/// Most trusted proxies that a request is followed through.
pub const HOPS_MAX: usize = 16;

/// Longest text that can be an address with brackets and a port, in bytes.
const NODE_BYTES_MAX: usize = 64;

impl ForwardHeader {
    /// All of them.
    pub const ALL: [ForwardHeader; 5] = [
        ForwardHeader::XForwardedFor,
        ForwardHeader::Forwarded,
        ForwardHeader::XRealIp,
        ForwardHeader::CfConnectingIp,
        ForwardHeader::TrueClientIp,
    ];

    /// The field's name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            ForwardHeader::XForwardedFor => "x-forwarded-for",
            ForwardHeader::Forwarded => "forwarded",
            ForwardHeader::XRealIp => "x-real-ip",
            ForwardHeader::CfConnectingIp => "cf-connecting-ip",
            ForwardHeader::TrueClientIp => "true-client-ip",
        }
    }
}

impl TrustedProxies {
    /// Trusts nobody.
    pub const NONE: TrustedProxies =
        TrustedProxies { networks: Vec::new(), header: ForwardHeader::XForwardedFor };

    /// Says whether `address` is a proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

impl ClientAddress {
    /// Finds the caller behind `peer`, the other end of the socket.
    ///
    /// The peer itself when it is no trusted proxy, whatever the header fields say, and when it
    /// is one that forwards for nobody (the field is absent). Else the rightmost address of the
    /// field that is no trusted proxy's; what stands left of it was written by who knows whom
    /// and is not looked at. When all of them are trusted, the leftmost.
    pub fn resolve(
        peer: IpAddr,
        headers: &HeaderMap,
        proxies: &TrustedProxies,
    ) -> Result<ClientAddress, AddressError> {
        let peer = peer.to_canonical();
        let name = proxies.header.name();
        if !proxies.trusts(peer) || !headers.contains_key(name) {
            return Ok(ClientAddress(peer));
        }
        let lines: Vec<&str> = headers
            .get_all(name)
            .iter()
            .map(|line| HeaderValue::to_str(line).unwrap_or(UNREADABLE))
            .collect();
        let address = match proxies.header {
            ForwardHeader::XForwardedFor => walk(proxies, lines.iter().rev().flat_map(hops))?,
            ForwardHeader::Forwarded => {
                let elements = lines.iter().rev().flat_map(|line| elements(line).into_iter().rev());
                walk(proxies, elements.filter(|element| !trim(element).is_empty()).map(forwarded))?
            }
            ForwardHeader::XRealIp
            | ForwardHeader::CfConnectingIp
            | ForwardHeader::TrueClientIp => single(&lines, name)?,
        };
        Ok(ClientAddress(address))
    }

    /// Removes every header field that could carry an address, so that nothing behind this can
    /// take a caller's word for it by mistake.
    pub(crate) fn strip(headers: &mut HeaderMap) {
        for header in ForwardHeader::ALL {
            headers.remove(HeaderName::from_static(header.name()));
        }
    }
}

/// The caller's address; a request that came over no network has none.
impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<ClientAddress, ApiError> {
        let address = parts.extensions.get::<ClientAddress>().copied();
        address.ok_or_else(|| ApiError::internal("the request came over no network"))
    }
}

/// One hop as a proxy wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hop {
    Address(IpAddr),
    Hidden,
    Malformed,
}

/// A line with bytes that are not ASCII; it parses as no address.
const UNREADABLE: &str = "?";

/// Goes from the nearest hop to the first that is not trusted.
fn walk(proxies: &TrustedProxies, hops: impl Iterator<Item = Hop>) -> Result<IpAddr, AddressError> {
    let name = proxies.header.name();
    let mut last = None;
    for (index, hop) in hops.enumerate() {
        if index >= HOPS_MAX {
            return Err(AddressError::TooManyHops);
        }
        match hop {
            Hop::Address(address) if proxies.trusts(address) => last = Some(address),
            Hop::Address(address) => return Ok(address),
            Hop::Hidden => return Err(AddressError::Hidden(name)),
            Hop::Malformed => return Err(AddressError::Malformed(name)),
        }
    }
    last.ok_or(AddressError::Malformed(name))
}

/// The hops of one line of `X-Forwarded-For`, from the right.
fn hops<'a>(line: &&'a str) -> impl Iterator<Item = Hop> + use<'a> {
    line.rsplit(',').map(|hop| node(trim(hop), Form::Plain))
}

/// Splits one line of `Forwarded` at the commas that are not inside quotes.
fn elements(line: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let is_comma = |character: char| {
        if escaped {
            escaped = false;
        } else {
            match character {
                '"' => quoted = !quoted,
                '\\' => escaped = quoted,
                ',' => return !quoted,
                _ => {}
            }
        }
        false
    };
    line.split(is_comma).collect()
}

/// The hop of one element of `Forwarded`: its parameter `for`.
fn forwarded(element: &str) -> Hop {
    let mut found = None;
    let mut rest = trim(element);
    while !rest.is_empty() {
        let Some((name, value, after)) = parameter(rest) else { return Hop::Malformed };
        if name.eq_ignore_ascii_case("for") {
            if found.is_some() {
                return Hop::Malformed;
            }
            found = Some(node(&value, Form::Rfc7239));
        }
        let after = trim(after);
        rest = match after.strip_prefix(';') {
            Some(more) => trim(more),
            None if after.is_empty() => after,
            None => return Hop::Malformed,
        };
    }
    found.unwrap_or(Hop::Hidden)
}

/// Reads `name=value` or `name="value"` off the front of `text`.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = token(text)?;
    let rest = rest.strip_prefix('=')?;
    let Some(mut rest) = rest.strip_prefix('"') else {
        let (value, rest) = token(rest)?;
        return Some((name, value.to_owned(), rest));
    };
    let mut value = String::new();
    loop {
        let mut characters = rest.chars();
        match characters.next()? {
            '"' => return Some((name, value, characters.as_str())),
            '\\' => value.push(characters.next()?),
            character => value.push(character),
        }
        rest = characters.as_str();
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    const MARKS: &str = "!#$%&'*+-.^_`|~";
    let is_other =
        |character: char| !character.is_ascii_alphanumeric() && !MARKS.contains(character);
    let end = text.find(is_other).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Reads a field that holds one address.
fn single(lines: &[&str], name: &'static str) -> Result<IpAddr, AddressError> {
    let [line] = lines else { return Err(AddressError::Doubled(name)) };
    if line.contains(',') {
        return Err(AddressError::Doubled(name));
    }
    match node(trim(line), Form::Plain) {
        Hop::Address(address) => Ok(address),
        Hop::Hidden => Err(AddressError::Hidden(name)),
        Hop::Malformed => Err(AddressError::Malformed(name)),
    }
}

/// How a hop is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As in `Forwarded`: IPv6 in brackets only, and a port may be hidden.
    Rfc7239,
    /// As elsewhere: IPv6 with or without brackets.
    Plain,
}

/// Reads an address with or without a port.
fn node(text: &str, form: Form) -> Hop {
    if text.len() > NODE_BYTES_MAX {
        return Hop::Malformed;
    }
    if text.eq_ignore_ascii_case("unknown") || is_obfuscated(text) {
        return Hop::Hidden;
    }
    let address = if let Some(rest) = text.strip_prefix('[') {
        let Some((inner, port)) = rest.split_once(']') else { return Hop::Malformed };
        let port_fits =
            port.is_empty() || port.strip_prefix(':').is_some_and(|port| is_port(port, form));
        inner.parse::<Ipv6Addr>().ok().filter(|_| port_fits).map(IpAddr::V6)
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        (form == Form::Plain).then_some(IpAddr::V6(address))
    } else if let Some((host, port)) = text.split_once(':') {
        host.parse::<Ipv4Addr>().ok().filter(|_| is_port(port, form)).map(IpAddr::V4)
    } else {
        text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    };
    address.map_or(Hop::Malformed, |address| Hop::Address(address.to_canonical()))
}

/// Says whether `text` is a port or, as RFC 7239 has it, the name of a hidden one.
fn is_port(text: &str, form: Form) -> bool {
    const PORT_DIGITS_MAX: usize = 5;
    let digits = text.len() <= PORT_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && text.parse::<u16>().is_ok()) || (form == Form::Rfc7239 && is_obfuscated(text))
}

/// Says whether `text` is an identifier that means something to the proxy alone.
fn is_obfuscated(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(allowed))
}

/// Takes off optional white space, which is spaces and tabs only.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ForwardHeader::{CfConnectingIp, Forwarded, TrueClientIp, XForwardedFor, XRealIp};
    use super::*;

    const PROXY: &str = "10.0.0.1";
    const MALFORMED: &str = "malformed";
    const DOUBLED: &str = "doubled";
    const HIDDEN: &str = "hidden";
    const TOO_MANY: &str = "too many";

    fn proxies(header: ForwardHeader) -> TrustedProxies {
        let networks = ["10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.0/8"];
        TrustedProxies { networks: networks.map(|net| net.parse().unwrap()).to_vec(), header }
    }

    /// What `resolve` finds, as text.
    fn found(header: ForwardHeader, peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        match ClientAddress::resolve(peer.parse().unwrap(), &headers, &proxies(header)) {
            Ok(ClientAddress(address)) => address.to_string(),
            Err(AddressError::Malformed(_)) => MALFORMED.to_owned(),
            Err(AddressError::Doubled(_)) => DOUBLED.to_owned(),
            Err(AddressError::Hidden(_)) => HIDDEN.to_owned(),
            Err(AddressError::TooManyHops) => TOO_MANY.to_owned(),
        }
    }

    fn check(header: ForwardHeader, cases: &[(&str, &[&str], &str)]) {
        for (peer, lines, expected) in cases {
            assert_eq!(found(header, peer, lines), *expected, "{header:?} {peer} {lines:?}");
        }
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right() {
        check(
            XForwardedFor,
            &[
                // Untrusted peers are what they are.
                ("203.0.113.9", &[], "203.0.113.9"),
                ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
                ("203.0.113.9", &["198.51.100.1", "10.0.0.1"], "203.0.113.9"),
                ("203.0.113.9", &["garbage"], "203.0.113.9"),
                ("203.0.113.9", &[""], "203.0.113.9"),
                ("2001:db8::9", &["198.51.100.1"], "2001:db8::9"),
                ("::ffff:203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
                // A proxy that forwards for nobody.
                (PROXY, &[], PROXY),
                ("::ffff:10.0.0.1", &[], PROXY),
                ("127.0.0.1", &[], "127.0.0.1"),
                // One hop.
                (PROXY, &["203.0.113.7"], "203.0.113.7"),
                ("::ffff:10.0.0.1", &["203.0.113.7"], "203.0.113.7"),
                ("2001:db8:ffff::1", &["203.0.113.7"], "203.0.113.7"),
                (PROXY, &[" \t203.0.113.7 "], "203.0.113.7"),
                (PROXY, &["203.0.113.7:4711"], "203.0.113.7"),
                (PROXY, &["2001:db8::7"], "2001:db8::7"),
                (PROXY, &["2001:DB8:0::7"], "2001:db8::7"),
                (PROXY, &["[2001:db8::7]"], "2001:db8::7"),
                (PROXY, &["[2001:db8::7]:443"], "2001:db8::7"),
                (PROXY, &["::ffff:203.0.113.7"], "203.0.113.7"),
                (PROXY, &["[::ffff:203.0.113.7]:80"], "203.0.113.7"),
                // What the caller wrote stands left and does not count.
                (PROXY, &["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
                (PROXY, &["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
                (PROXY, &["10.0.0.2, 203.0.113.7"], "203.0.113.7"),
                (PROXY, &["127.0.0.1,203.0.113.7"], "203.0.113.7"),
                (PROXY, &["garbage, 203.0.113.7"], "203.0.113.7"),
                (PROXY, &["unknown,203.0.113.7"], "203.0.113.7"),
                (PROXY, &[",,,203.0.113.7"], "203.0.113.7"),
                (PROXY, &["\u{fc}", "203.0.113.7"], "203.0.113.7"),
                // Several trusted hops.
                (PROXY, &["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
                (PROXY, &["203.0.113.7, 10.0.0.2, 10.0.0.3"], "203.0.113.7"),
                (PROXY, &["203.0.113.7", "10.0.0.2", "10.0.0.3"], "203.0.113.7"),
                (PROXY, &["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
                (PROXY, &["203.0.113.7, [2001:db8:ffff::2]:9"], "203.0.113.7"),
                (PROXY, &["203.0.113.7, ::ffff:10.0.0.2"], "203.0.113.7"),
                (PROXY, &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
                // The walk meets what cannot be read.
                (PROXY, &[""], MALFORMED),
                (PROXY, &[" "], MALFORMED),
                (PROXY, &[","], MALFORMED),
                (PROXY, &["203.0.113.7,"], MALFORMED),
                (PROXY, &["203.0.113.7, "], MALFORMED),
                (PROXY, &["203.0.113.7,, 10.0.0.2"], MALFORMED),
                (PROXY, &["203.0.113.7", ""], MALFORMED),
                (PROXY, &["garbage"], MALFORMED),
                (PROXY, &["garbage, 10.0.0.2"], MALFORMED),
                (PROXY, &["\u{fc}"], MALFORMED),
                (PROXY, &["203.0.113.7 10.0.0.2"], MALFORMED),
                (PROXY, &["203.0.113.7;10.0.0.2"], MALFORMED),
                (PROXY, &["203.0.113"], MALFORMED),
                (PROXY, &["203.0.113.07"], MALFORMED),
                (PROXY, &["0xcb007107"], MALFORMED),
                (PROXY, &["3405803783"], MALFORMED),
                (PROXY, &["203.0.113.7/32"], MALFORMED),
                (PROXY, &["203.0.113.7:"], MALFORMED),
                (PROXY, &["203.0.113.7:65536"], MALFORMED),
                (PROXY, &["203.0.113.7:+80"], MALFORMED),
                (PROXY, &["203.0.113.7:_port"], MALFORMED),
                (PROXY, &["203.0.113.7:80:80"], MALFORMED),
                (PROXY, &["[203.0.113.7]"], MALFORMED),
                (PROXY, &["[2001:db8::7"], MALFORMED),
                (PROXY, &["2001:db8::7]"], MALFORMED),
                (PROXY, &["[2001:db8::7]443"], MALFORMED),
                (PROXY, &["[2001:db8::7]:"], MALFORMED),
                (PROXY, &["[]"], MALFORMED),
                (PROXY, &["fe80::1%eth0"], MALFORMED),
                (PROXY, &["[fe80::1%25eth0]:80"], MALFORMED),
                (PROXY, &["\"203.0.113.7\""], MALFORMED),
                (PROXY, &["for=203.0.113.7"], MALFORMED),
                (PROXY, &["localhost"], MALFORMED),
                (PROXY, &["_"], MALFORMED),
                (PROXY, &["_a b"], MALFORMED),
                // Hidden on purpose.
                (PROXY, &["unknown"], HIDDEN),
                (PROXY, &["UNKNOWN, 10.0.0.2"], HIDDEN),
                (PROXY, &["_gazonk"], HIDDEN),
                (PROXY, &["203.0.113.7, _SEVKISEK"], HIDDEN),
            ],
        );
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        check(
            Forwarded,
            &[
                ("203.0.113.9", &["for=198.51.100.1"], "203.0.113.9"),
                (PROXY, &[], PROXY),
                (PROXY, &["for=203.0.113.7"], "203.0.113.7"),
                (PROXY, &["For=203.0.113.7"], "203.0.113.7"),
                (PROXY, &["for=\"203.0.113.7\""], "203.0.113.7"),
                (PROXY, &["for=\"203.0.113.7:4711\""], "203.0.113.7"),
                (PROXY, &["for=\"203.0.113.7:_port\""], "203.0.113.7"),
                (PROXY, &["for=\"[2001:db8::7]\""], "2001:db8::7"),
                (PROXY, &["for=\"[2001:db8::7]:4711\""], "2001:db8::7"),
                (PROXY, &["for=\"[::ffff:203.0.113.7]\""], "203.0.113.7"),
                (PROXY, &["for=\"203.0.113.\\7\""], "203.0.113.7"),
                (PROXY, &["for=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7"),
                (PROXY, &["proto=https ; for=203.0.113.7"], "203.0.113.7"),
                (PROXY, &["host=\"a,b;for=1.1.1.1\";for=203.0.113.7"], "203.0.113.7"),
                (PROXY, &["for=1.1.1.1, for=203.0.113.7"], "203.0.113.7"),
                (PROXY, &["for=1.1.1.1", "for=203.0.113.7"], "203.0.113.7"),
                (PROXY, &["for=203.0.113.7, for=10.0.0.2"], "203.0.113.7"),
                (PROXY, &["for=10.0.0.3;proto=http, for=10.0.0.2"], "10.0.0.3"),
                (PROXY, &["for=203.0.113.7, ,"], "203.0.113.7"),
                (PROXY, &["(garbage), for=203.0.113.7"], "203.0.113.7"),
                // An open quote of the caller swallows nothing unseen.
                (PROXY, &["for=1.1.1.1;x=\", for=203.0.113.7"], MALFORMED),
                (PROXY, &["for=1.1.1.1;x=\", for=\"[2001:db8::7]\""], MALFORMED),
                (PROXY, &["for=\"", "for=203.0.113.7"], "203.0.113.7"),
                (PROXY, &[""], MALFORMED),
                (PROXY, &[","], MALFORMED),
                (PROXY, &["203.0.113.7"], MALFORMED),
                (PROXY, &["for="], MALFORMED),
                (PROXY, &["for=\"\""], MALFORMED),
                (PROXY, &["for=203.0.113.7:80"], MALFORMED),
                (PROXY, &["for=[2001:db8::7]"], MALFORMED),
                (PROXY, &["for=2001:db8::7"], MALFORMED),
                (PROXY, &["for=\"2001:db8::7\""], MALFORMED),
                (PROXY, &["for=203.0.113.7;for=203.0.113.8"], MALFORMED),
                (PROXY, &["for=203.0.113.7 proto=http"], MALFORMED),
                (PROXY, &["for =203.0.113.7"], MALFORMED),
                (PROXY, &["for=\"203.0.113.7"], MALFORMED),
                (PROXY, &["for=\"203.0.113.7\\"], MALFORMED),
                (PROXY, &["for=unknown"], HIDDEN),
                (PROXY, &["for=\"_hidden\""], HIDDEN),
                (PROXY, &["proto=https"], HIDDEN),
            ],
        );
    }

    #[test]
    fn fields_for_one_address_hold_one() {
        for header in [XRealIp, CfConnectingIp, TrueClientIp] {
            check(
                header,
                &[
                    ("203.0.113.9", &["198.51.100.1", "198.51.100.2"], "203.0.113.9"),
                    (PROXY, &[], PROXY),
                    (PROXY, &["203.0.113.7"], "203.0.113.7"),
                    (PROXY, &["2001:db8::7"], "2001:db8::7"),
                    (PROXY, &["10.0.0.7"], "10.0.0.7"),
                    (PROXY, &["203.0.113.7", "203.0.113.7"], DOUBLED),
                    (PROXY, &["203.0.113.7, 203.0.113.8"], DOUBLED),
                    (PROXY, &["203.0.113.7,"], DOUBLED),
                    (PROXY, &[""], MALFORMED),
                    (PROXY, &["garbage"], MALFORMED),
                    (PROXY, &["unknown"], HIDDEN),
                ],
            );
        }
    }

    #[test]
    fn only_the_configured_field_counts() {
        let mut headers = HeaderMap::new();
        for header in [Forwarded, XRealIp, CfConnectingIp, TrueClientIp] {
            headers.insert(header.name(), HeaderValue::from_static("198.51.100.1"));
        }
        let peer = PROXY.parse().unwrap();

        let resolved = ClientAddress::resolve(peer, &headers, &proxies(XForwardedFor));

        assert_eq!(resolved, Ok(ClientAddress(peer)));
    }

    #[test]
    fn a_chain_of_proxies_without_end_is_refused() {
        let hops = vec!["10.0.0.2"; HOPS_MAX].join(", ");

        assert_eq!(found(XForwardedFor, PROXY, &[&hops]), "10.0.0.2");
        assert_eq!(found(XForwardedFor, PROXY, &["203.0.113.7", &hops]), TOO_MANY);
    }

    fn any_header() -> impl Strategy<Value = ForwardHeader> {
        prop::sample::select(ForwardHeader::ALL.to_vec())
    }

    /// Lines that look like the real thing, and lines that do not.
    fn any_lines() -> impl Strategy<Value = Vec<String>> {
        let line = prop_oneof![
            "[0-9a-fx:.,; \"\\\\=\\[\\]_]{0,60}",
            "(for=|, |10\\.0\\.0\\.1|1\\.1\\.1\\.1|\"|;|\\[::1\\]|unknown){0,12}",
            "[ -~]{0,40}",
        ];
        prop::collection::vec(line, 0..4)
    }

    proptest! {
        #[test]
        fn an_untrusted_peer_is_always_the_caller(
            header in any_header(),
            lines in any_lines(),
            peer: IpAddr,
        ) {
            prop_assume!(!proxies(header).trusts(peer.to_canonical()));
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();

            prop_assert_eq!(found(header, &peer.to_string(), &lines), peer.to_canonical().to_string());
        }

        #[test]
        fn what_the_proxy_appends_wins_over_whatever_the_caller_wrote(
            lines in any_lines(),
            caller: std::net::Ipv4Addr,
        ) {
            prop_assume!(!proxies(XForwardedFor).trusts(caller.into()));
            let mut lines = lines;
            let last = lines.pop().unwrap_or_default();
            let (plain, own) = (format!("{last}, {caller}"), format!("for={caller}"));
            let with = |line: String| [lines.clone(), vec![line]].concat();
            let appended = with(plain);
            let appended: Vec<&str> = appended.iter().map(String::as_str).collect();
            let (joined, apart) = (with(format!("{last}, {own}")), with(own));
            let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
            let apart: Vec<&str> = apart.iter().map(String::as_str).collect();

            prop_assert_eq!(found(XForwardedFor, PROXY, &appended), caller.to_string());
            prop_assert_eq!(found(Forwarded, PROXY, &apart), caller.to_string());
            let found = found(Forwarded, PROXY, &joined);
            prop_assert!(found == caller.to_string() || found == MALFORMED, "{}", found);
        }
    }
}
