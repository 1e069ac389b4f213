//! Under which addresses the plane is reached, and which web pages may call it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::{Authority, Scheme};

/// Scheme, host and port of the plane as its clients see it, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    scheme: Scheme,
    authority: Authority,
}

/// Names of the plane that have addresses of one family only: through them the page of a bookmark
/// reports both addresses of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyUrls {
    /// The name that has IPv4 addresses only.
    pub ipv4: Option<PublicUrl>,
    /// The name that has IPv6 addresses only.
    pub ipv6: Option<PublicUrl>,
}

/// Scheme, host and port of a web page, as browsers write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(String);

impl WebOrigin {
    /// The text, as a browser sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<WebOrigin, String> {
        let url: PublicUrl = text.parse().map_err(|_| {
            format!(
                "is `{text}`; write each page's scheme, host and port, such as https://example.org"
            )
        })?;
        Ok(url.origin())
    }
}

impl PublicUrl {
    /// The host, a name or an address (of IPv6 without brackets).
    pub fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// The same as browsers name the origin of a page: in lower case, without a port that is the
    /// scheme's own, and without a slash at the end.
    pub fn origin(&self) -> WebOrigin {
        let own = if self.scheme == Scheme::HTTPS { ":443" } else { ":80" };
        let written = self.to_string().to_lowercase();
        WebOrigin(written.strip_suffix(own).unwrap_or(&written).to_owned())
    }

    /// The port, also where it is the scheme's own.
    pub fn port(&self) -> u16 {
        let own = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(own)
    }
}

impl FamilyUrls {
    /// Where the address of the family that `address` is not of can be seen.
    pub fn other_than(&self, address: IpAddr) -> Option<&PublicUrl> {
        if address.is_ipv4() { self.ipv6.as_ref() } else { self.ipv4.as_ref() }
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.ipv4.is_some() || self.ipv6.is_some()
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<PublicUrl, String> {
        let not_a_url = || {
            format!("is `{text}`; write scheme, host and port, such as https://plane.example.org")
        };
        let uri: Uri = text.parse().map_err(|_| not_a_url())?;
        let has_rest = uri.path_and_query().is_some_and(|rest| rest.as_str() != "/");
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(not_a_url());
        };
        let is_web = scheme == Scheme::HTTPS || scheme == Scheme::HTTP;
        let is_bare = !has_rest && !authority.as_str().contains('@');
        if !is_web || !is_bare || authority.host().is_empty() {
            return Err(not_a_url());
        }
        let url = PublicUrl { scheme, authority };
        if url.scheme == Scheme::HTTP && !url.is_here() {
            return Err("begins with http; write https, since bookmarks are secrets".to_owned());
        }
        Ok(url)
    }
}

impl PublicUrl {
    /// Says whether it names this machine for itself: nobody else can reach it.
    pub fn is_here(&self) -> bool {
        is_here(self.host())
    }
}

/// Says whether a host is this machine, as it calls itself.
pub(super) fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback())
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}
