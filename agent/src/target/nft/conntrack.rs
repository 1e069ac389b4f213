//! Connections that the kernel tracks: finding those from certain sources, and forgetting them.
//!
//! A connection that is forgotten is a new one at its next packet, and the gate looks at it again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::socket::{ACK, Connection, DUMP};
use super::wire::{Attributes, Message, Request};

/// Connections that one search answers with; a later one finds the others.
pub(super) const FLOWS_MAX: usize = 65_536;

const CTNETLINK: u16 = 1 << 8;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;

/// A tracked connection, seen from the side that opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// The port as the client sees it, before any rewriting.
    pub(super) port: u16,
    family: u8,
    /// What names the connection to the kernel, as it gave it to us.
    tuple: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Finds the connections that `picks`, at most [`FLOWS_MAX`].
pub(super) fn find(
    connection: &mut Connection,
    picks: impl Fn(&Flow) -> bool,
) -> io::Result<Vec<Flow>> {
    let mut flows = Vec::new();
    // An interrupted listing may miss connections that came meanwhile; those were let in anew.
    connection.ask(Request::new(GET, DUMP, 0), |message| {
        if flows.len() < FLOWS_MAX {
            flows.extend(read(message).filter(&picks));
        }
    })?;
    Ok(flows)
}

/// Makes the kernel forget those of the connections that end on this host; answers how many.
pub(super) fn cut(connection: &mut Connection, flows: &[Flow]) -> io::Result<usize> {
    let mut routes = Connection::open_route()?;
    let mut cut = 0;
    for flow in flows {
        if !is_local(&mut routes, flow.destination)? {
            continue;
        }
        let mut request =
            Request::new(DELETE, ACK, flow.family).nested(TUPLE_ORIGINAL, &flow.tuple);
        request = request.bytes(ID, &flow.id);
        if let Some(zone) = &flow.zone {
            request = request.bytes(ZONE, zone);
        }
        match connection.ask(request, |_| ()) {
            Ok(_) => cut += 1,
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cut)
}

fn read(message: &Message<'_>) -> Option<Flow> {
    const IP: u16 = 1;
    const PROTOCOL: u16 = 2;
    const NUMBER: u16 = 1;
    const DESTINATION_PORT: u16 = 3;
    let attributes = message.attributes();
    let tuple = attributes.get(TUPLE_ORIGINAL)?;
    let parts = Attributes::new(tuple);
    let (addresses, protocol) = (parts.nested(IP), parts.nested(PROTOCOL));
    let v4 = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(addresses.get(kind)?).ok()?).into());
    let v6 = |kind| Some(Ipv6Addr::from(<[u8; 16]>::try_from(addresses.get(kind)?).ok()?).into());
    Some(Flow {
        source: v4(1).or_else(|| v6(3))?,
        destination: v4(2).or_else(|| v6(4))?,
        protocol: *protocol.get(NUMBER)?.first()?,
        port: u16::from_be_bytes(protocol.get(DESTINATION_PORT)?.try_into().ok()?),
        family: message.family(),
        tuple: tuple.to_vec(),
        id: attributes.get(ID)?.to_vec(),
        zone: attributes.get(ZONE).map(<[u8]>::to_vec),
    })
}

/// Asks the routing table whether an address is one of this host's.
fn is_local(routes: &mut Connection, address: IpAddr) -> io::Result<bool> {
    const GET_ROUTE: u16 = 26;
    const DESTINATION: u16 = 1;
    const ROUTE_TYPE_AT: usize = 7;
    const LOCAL: u8 = 2;
    const ROUTE_BYTES: usize = 12;
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut head = [0; ROUTE_BYTES];
    head[0] = u8::try_from(family).expect("address families are small");
    head[1] = u8::try_from(octets.len() * 8).expect("at most 128 bits");
    let request = Request::with_head(GET_ROUTE, ACK, &head).bytes(DESTINATION, &octets);
    let mut local = false;
    let asked = routes.ask(request, |message| {
        local |= message.body.get(ROUTE_TYPE_AT) == Some(&LOCAL);
    });
    match asked {
        Ok(_) => Ok(local),
        // There is no way to it: it is certainly not ours.
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(false),
        Err(error) => Err(error),
    }
}
