//! Reading a table back from the kernel, whole and consistent.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use postern_shared::time::{Expiry, Timestamp};

use super::rules::{self, Expr};
use super::socket::{ACK, Connection, DUMP, NFT};
use super::sys::{self, Hook};
use super::wire::{Attributes, Request};

/// How often a table is read again when the ruleset changes meanwhile.
const ATTEMPTS_MAX: u32 = 10;
/// Rest before the second attempt; doubles with each.
const REST: Duration = Duration::from_millis(1);

const GET_TABLE: u16 = NFT | 1;
const GET_CHAIN: u16 = NFT | 4;
const GET_RULE: u16 = NFT | 7;
const GET_SET: u16 = NFT | 10;
const GET_ELEMENTS: u16 = NFT | 13;
/// Attribute number of the table's name in every one of these messages.
const TABLE_NAME: u16 = 1;

/// A table as it was at one generation of the ruleset.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) generation: u32,
    /// `None` where there is no such table; then all else is empty.
    pub(super) table: Option<FoundTable>,
    pub(super) chains: BTreeMap<String, FoundChain>,
    pub(super) sets: Vec<FoundSet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundTable {
    pub(super) flags: u32,
    /// The port number of the socket that owns the table.
    pub(super) owner: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct FoundChain {
    pub(super) hook: Option<Hook>,
    /// In order; `None` for a rule that is certainly none of ours.
    pub(super) rules: Vec<Option<Vec<Expr>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundSet {
    pub(super) name: String,
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_bytes: u32,
    /// `None` where the set has no limit.
    pub(super) size: Option<u32>,
    pub(super) elements: Vec<FoundElement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundElement {
    pub(super) address: IpAddr,
    pub(super) interval_end: bool,
    pub(super) expiry: Expiry,
}

/// Reads a table and the elements of those of its sets that `wants` picks.
///
/// Nobody else can change a table that the connection owns, whatever becomes of other tables; of
/// any other one, only a listing that no transaction interrupted is taken.
pub(super) fn read(
    connection: &mut Connection,
    family: u8,
    table: &str,
    now: Timestamp,
    wants: impl Fn(&FoundSet) -> bool,
) -> io::Result<Found> {
    let started = Instant::now();
    let mut rest = REST;
    for _ in 0..ATTEMPTS_MAX {
        let mut found = Found { generation: connection.generation()?, ..Found::default() };
        let mut reader = Reader { connection, family, table, interrupted: false, owned: false };
        let all = reader.read_all(&mut found, |set| wants(set), now, started);
        let Reader { interrupted, owned, .. } = reader;
        match all {
            Ok(()) if owned => return Ok(found),
            Ok(()) if !interrupted && connection.generation()? == found.generation => {
                return Ok(found);
            }
            Ok(()) => {}
            // A set or the table went away between two requests, or the answers overflowed.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(rest);
        rest *= 2;
    }
    Err(io::Error::new(
        io::ErrorKind::Interrupted,
        "the ruleset changes faster than it can be read",
    ))
}

fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ENOENT, libc::EINTR, libc::ENOBUFS, libc::EAGAIN];
    error.raw_os_error().is_some_and(|errno| passing.contains(&errno))
}

/// Reads only the table itself.
pub(super) fn read_table(
    connection: &mut Connection,
    family: u8,
    table: &str,
) -> io::Result<Option<FoundTable>> {
    const FLAGS: u16 = 2;
    const OWNER: u16 = 7;
    let mut found = None;
    let request = Request::new(GET_TABLE, ACK, family).text(TABLE_NAME, table);
    let asked = connection.ask(request, |message| {
        let attributes = message.attributes();
        let flags = attributes.u32(FLAGS).unwrap_or(0);
        found = Some(FoundTable { flags, owner: attributes.u32(OWNER) });
    });
    match asked {
        Ok(_) => Ok(found),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

struct Reader<'a> {
    connection: &'a mut Connection,
    family: u8,
    table: &'a str,
    interrupted: bool,
    /// The table is ours alone, so that others' transactions say nothing about it.
    owned: bool,
}

impl Reader<'_> {
    fn read_all(
        &mut self,
        found: &mut Found,
        wants: impl Fn(&FoundSet) -> bool,
        now: Timestamp,
        started: Instant,
    ) -> io::Result<()> {
        found.table = read_table(self.connection, self.family, self.table)?;
        self.owned = found.table.is_some_and(|table| table.owner == Some(self.connection.port()));
        if found.table.is_none() {
            return Ok(());
        }
        self.read_chains(found)?;
        self.read_rules(found)?;
        self.read_sets(found)?;
        for set in found.sets.iter_mut().filter(|set| wants(set)) {
            set.elements = match set.flags & sys::SET_INTERVAL {
                0 => self.read_whole(&set.name, now, started)?,
                _ => self.read_elements(&set.name, now, started)?,
            };
        }
        Ok(())
    }

    /// Lists a hash set until nothing new is listed. While the kernel resizes its table, or clears
    /// it of what has expired, a listing leaves out elements and says nothing of it.
    fn read_whole(
        &mut self,
        set: &str,
        now: Timestamp,
        started: Instant,
    ) -> io::Result<Vec<FoundElement>> {
        whole(|| {
            // Somebody's transaction came between: nothing of this reading counts.
            if self.interrupted && !self.owned {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            self.read_elements(set, now, started)
        })
    }

    fn dump(&mut self, kind: u16) -> Request {
        Request::new(kind, DUMP, self.family).text(TABLE_NAME, self.table)
    }

    fn read_chains(&mut self, found: &mut Found) -> io::Result<()> {
        const NAME: u16 = 3;
        const HOOK: u16 = 4;
        const POLICY: u16 = 5;
        const TYPE: u16 = 7;
        let (table, family) = (self.table, self.family);
        let request = self.dump(GET_CHAIN);
        self.interrupted |= self.connection.ask(request, |message| {
            let attributes = message.attributes();
            let ours = message.family() == family && attributes.text(TABLE_NAME) == Some(table);
            let Some(name) = attributes.text(NAME).filter(|_| ours) else { return };
            let hook = attributes.get(HOOK).map(|hook| {
                let hook = Attributes::new(hook);
                Hook {
                    kind: attributes.text(TYPE).unwrap_or_default().to_owned(),
                    number: hook.u32(1).unwrap_or(u32::MAX),
                    priority: hook.u32(2).unwrap_or(0).cast_signed(),
                    policy: attributes.u32(POLICY).unwrap_or(u32::MAX),
                }
            });
            found.chains.insert(name.to_owned(), FoundChain { hook, rules: Vec::new() });
        })?;
        Ok(())
    }

    fn read_rules(&mut self, found: &mut Found) -> io::Result<()> {
        const CHAIN: u16 = 2;
        const EXPRESSIONS: u16 = 4;
        let (table, family) = (self.table, self.family);
        let request = self.dump(GET_RULE);
        self.interrupted |= self.connection.ask(request, |message| {
            let attributes = message.attributes();
            let ours = message.family() == family && attributes.text(TABLE_NAME) == Some(table);
            let Some(chain) = attributes.text(CHAIN).filter(|_| ours) else { return };
            if let Some(chain) = found.chains.get_mut(chain) {
                chain.rules.push(rules::read(attributes.nested(EXPRESSIONS)));
            }
        })?;
        Ok(())
    }

    fn read_sets(&mut self, found: &mut Found) -> io::Result<()> {
        const NAME: u16 = 2;
        const FLAGS: u16 = 3;
        const KEY_TYPE: u16 = 4;
        const KEY_BYTES: u16 = 5;
        const DESCRIPTION: u16 = 9;
        const SIZE: u16 = 1;
        let (table, family) = (self.table, self.family);
        let request = self.dump(GET_SET);
        self.interrupted |= self.connection.ask(request, |message| {
            let attributes = message.attributes();
            let ours = message.family() == family && attributes.text(TABLE_NAME) == Some(table);
            let Some(name) = attributes.text(NAME).filter(|_| ours) else { return };
            found.sets.push(FoundSet {
                name: name.to_owned(),
                flags: attributes.u32(FLAGS).unwrap_or(0),
                key_type: attributes.u32(KEY_TYPE).unwrap_or(0),
                key_bytes: attributes.u32(KEY_BYTES).unwrap_or(0),
                size: attributes.nested(DESCRIPTION).u32(SIZE),
                elements: Vec::new(),
            });
        })?;
        Ok(())
    }

    fn read_elements(
        &mut self,
        set: &str,
        now: Timestamp,
        started: Instant,
    ) -> io::Result<Vec<FoundElement>> {
        const SET_NAME: u16 = 2;
        const LIST: u16 = 3;
        let mut elements = Vec::new();
        let request = self.dump(GET_ELEMENTS).text(SET_NAME, set);
        self.interrupted |= self.connection.ask(request, |message| {
            // The kernel counts down while it lists: the time left is as of this message.
            let now = now.saturating_add(started.elapsed());
            let list = message.attributes().nested(LIST);
            elements.extend(list.filter_map(|one| read_element(Attributes::new(one.value), now)));
        })?;
        Ok(elements)
    }
}

/// Puts listings together until one says nothing new. Each may leave out elements, not the same
/// ones twice; none invents any.
fn whole(mut list: impl FnMut() -> io::Result<Vec<FoundElement>>) -> io::Result<Vec<FoundElement>> {
    let mut seen: BTreeMap<IpAddr, FoundElement> = BTreeMap::new();
    for attempt in 0..ATTEMPTS_MAX {
        let before = seen.len();
        seen.extend(list()?.into_iter().map(|element| (element.address, element)));
        if 0 < attempt && seen.len() == before {
            return Ok(seen.into_values().collect());
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

fn read_element(element: Attributes<'_>, now: Timestamp) -> Option<FoundElement> {
    const KEY: u16 = 1;
    const VALUE: u16 = 1;
    const FLAGS: u16 = 3;
    const TIME_LEFT: u16 = 5;
    let key = element.nested(KEY).get(VALUE)?;
    let address = match key.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(key).ok()?)),
        _ => return None,
    };
    let left = element.u64(TIME_LEFT).map(Duration::from_millis);
    Some(FoundElement {
        address,
        interval_end: element.u32(FLAGS).unwrap_or(0) & sys::ELEMENT_INTERVAL_END != 0,
        expiry: left.map_or(Expiry::Never, |left| Expiry::At(now.saturating_add(left))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(last: &[u8]) -> Vec<FoundElement> {
        let element = |last: &u8| FoundElement {
            address: [192, 0, 2, *last].into(),
            interval_end: false,
            expiry: Expiry::Never,
        };
        last.iter().map(element).collect()
    }

    fn put_together(listings: &[&[u8]]) -> Option<Vec<FoundElement>> {
        let mut listings = listings.iter();
        whole(|| listings.next().map(|last| elements(last)).ok_or(io::ErrorKind::Other.into())).ok()
    }

    #[test]
    fn a_listing_that_leaves_out_elements_is_not_taken_for_the_whole() {
        assert_eq!(put_together(&[&[1, 2, 3], &[3, 2, 1]]), Some(elements(&[1, 2, 3])));
        assert_eq!(put_together(&[&[1, 2, 2], &[1, 2, 3], &[1]]), Some(elements(&[1, 2, 3])));
        assert_eq!(put_together(&[&[1, 2, 3], &[1, 3]]), Some(elements(&[1, 2, 3])));
        assert_eq!(put_together(&[&[], &[]]), Some(Vec::new()));
        assert_eq!(put_together(&[&[1]]), None, "one alone is no evidence");
    }

    #[test]
    fn a_listing_that_never_settles_is_given_up() {
        let mut last = 0;
        let ever_more = || {
            last += 1;
            Ok(elements(&[last]))
        };

        let error = whole(ever_more).unwrap_err();

        assert!(is_passing(&error));
    }
}
