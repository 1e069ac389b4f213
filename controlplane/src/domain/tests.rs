//! The rules held against a naive model, over random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postern_shared::allowlist::Allowlist;
use postern_shared::ids::{AgentId, EnrolmentId, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::token::{Token, TokenHash, TokenKind};
use proptest::prelude::*;

use super::*;

mod keys;
mod people;
mod rights;

/// A number that stands in for chance: ids and secrets that differ when it differs.
fn bytes(seed: u64) -> [u8; 16] {
    (u128::from(seed) << 64 | 0x5eed).to_be_bytes()
}

fn hash(seed: u64) -> TokenHash {
    let mut next = seed;
    let token = Token::generate(TokenKind::Key, |buffer| {
        for byte in buffer {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (next >> 33) as u8;
        }
    });
    token.hash()
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000 + secs * 1_000).unwrap()
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn order(command: Command) -> Order {
    Order { actor: Actor::Operator, source: None, command }
}

fn create_org(seed: u64) -> Command {
    let org = Org {
        id: OrgId::from_random(bytes(seed)),
        name: label("org"),
        created_at: at(0),
        pairs_numbered: 0,
        groups_numbered: 0,
    };
    let admin = User {
        id: UserId::from_random(bytes(seed)),
        org: org.id,
        email: "admin@example.org".parse().unwrap(),
        role: Role::Admin,
        created_at: at(0),
    };
    Command::CreateOrg { org, admin }
}

fn new_pair(org: OrgId, seed: u64, ttl: u64) -> Pair {
    Pair {
        id: PairId::from_random(bytes(seed)),
        org,
        number: 0,
        name: label("pair"),
        contact_email: None,
        ttl: Ttl::from_secs(ttl).unwrap(),
        bookmark: hash(seed * 2),
        server_key: hash(seed * 2 + 1),
        reports_by_get: false,
        created_at: at(0),
        deleted_at: None,
    }
}

fn new_group(org: OrgId, seed: u64, ttl: Option<u64>) -> Group {
    Group {
        id: GroupId::from_random(bytes(seed)),
        org,
        number: 0,
        name: label("group"),
        ttl: ttl.map(|ttl| Ttl::from_secs(ttl).unwrap()),
        created_at: at(0),
    }
}

/// A state with a follower that only ever hears of list changes.
#[derive(Default)]
struct World {
    state: State,
    records: Vec<AuditRecord>,
    revision: u64,
    followers: BTreeMap<GroupId, (Allowlist, Revision)>,
}

impl World {
    fn run(&mut self, command: Command, now: Timestamp) -> Result<Resolved, Rejection> {
        let changes = decide(&self.state, &order(command), now)?;
        Ok(self.commit(&changes, now))
    }

    fn commit(&mut self, changes: &[Change], now: Timestamp) -> Resolved {
        if changes.is_empty() {
            return Resolved::default();
        }
        self.revision += 3;
        let mut touched = Touched::default();
        for change in changes {
            if let Change::Record(record) = change {
                self.records.push(record.clone());
            }
            self.state.apply(change, Revision(self.revision), &mut touched);
        }
        let resolved = self.state.resolve(touched, Revision(self.revision), now);
        self.follow(&resolved, now);
        resolved
    }

    fn follow(&mut self, resolved: &Resolved, now: Timestamp) {
        for change in &resolved.lists {
            let (list, revision) = self.followers.entry(change.group).or_default();
            list.drop_expired(now);
            assert_eq!(list.digest_at(now), change.base, "the delta applies to something else");
            assert!(*revision < change.revision);
            change.remove.iter().for_each(|network| {
                list.remove(*network).expect("only what was there is removed");
            });
            for (network, expiry) in &change.add {
                list.set(*network, *expiry);
            }
            *revision = change.revision;
            assert_eq!(list.digest_at(now), change.digest, "the delta leads elsewhere");
        }
        for gone in &resolved.gone {
            self.followers.remove(gone);
        }
    }

    /// The list of a group as one would work it out from the records alone.
    fn naive(&self, group: &GroupRow, now: Timestamp) -> Allowlist {
        let mut list = Allowlist::new();
        for member in group.members.values() {
            match &member.record.kind {
                MemberKind::Network { network, .. } => list.allow(*network, member.record.expires),
                MemberKind::Pair(id) => {
                    let row = &self.state.pair(*id).unwrap();
                    let Some(report) = row.report.filter(|_| row.is_live()) else { continue };
                    for (network, reported) in report.networks() {
                        let ttl = row.record.ttl.min(group.record.ttl.unwrap_or(row.record.ttl));
                        let deadline = reported.saturating_add(ttl.as_duration());
                        list.allow(network, Expiry::At(deadline).min(member.record.expires));
                    }
                }
            }
        }
        list.live_at(now).collect()
    }

    /// What every group allows, with its sources, as the state has it.
    fn shown(&self, now: Timestamp) -> BTreeMap<GroupId, Vec<PastEntry>> {
        let groups = self.state.groups.iter();
        let entries = |group: &GroupRow| {
            let live = group.list.live_at(now);
            let entry = |(network, expires)| {
                let sources = self.state.sources(group, network);
                PastEntry { network, expires, sources }
            };
            live.map(entry).collect()
        };
        groups.map(|(id, group)| (*id, entries(group))).collect()
    }

    /// The same, as one can tell later from the audit.
    fn remembered(&self, group: GroupId, at: Timestamp) -> Option<Past> {
        let mut history = History::new(group, at);
        for record in &self.records {
            if !history.take(record) {
                break;
            }
        }
        history.finish()
    }

    fn check(&self, now: Timestamp) {
        for (id, group) in &self.state.groups {
            let naive = self.naive(group, now);
            let live: Allowlist = group.list.live_at(now).collect();
            assert_eq!(live, naive, "the list differs from the records");
            let followed: Allowlist = self
                .followers
                .get(id)
                .map(|(list, _)| list.live_at(now).collect())
                .unwrap_or_default();
            assert_eq!(followed, naive, "the follower differs from the records");
        }
    }
}

/// One step of a random history; numbers pick among few records, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Pair,
    Group,
    DeletePair(u64),
    DeleteGroup(u64),
    Join(u64, u64, Option<u64>),
    Fix(u64, u8, Option<u64>),
    Leave(u64, usize),
    Report(u64, IpAddr, bool),
    Ttl(u64, u64),
    GroupTtl(u64, Option<u64>),
    Agent(u64),
    RevokeAgent(u64),
    RotateBookmark(u64),
    RotateServerKey(u64),
    CloseAddresses(u64),
    Wait(u64),
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1u8..5).prop_map(|d| IpAddr::V4(Ipv4Addr::new(203, 0, 113, d))),
        (1u16..4).prop_map(|d| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, d))),
    ]
}

/// Two pairs in two groups, so that the random steps have something to meet.
fn beginning() -> Vec<Step> {
    vec![
        Step::Pair,
        Step::Pair,
        Step::Group,
        Step::Group,
        Step::Join(0, 0, None),
        Step::Join(0, 1, None),
        Step::Join(1, 0, Some(50)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Pair),
        1 => Just(Step::Group),
        1 => (0u64..4).prop_map(Step::DeletePair),
        1 => (0u64..3).prop_map(Step::DeleteGroup),
        4 => (0u64..3, 0u64..4, prop::option::of(1u64..60)).prop_map(|(g, p, e)| Step::Join(g, p, e)),
        2 => (0u64..3, 24u8..=32, prop::option::of(1u64..60)).prop_map(|(g, n, e)| Step::Fix(g, n, e)),
        1 => (0u64..3, 0usize..4).prop_map(|(g, n)| Step::Leave(g, n)),
        6 => (0u64..4, any_address(), any::<bool>()).prop_map(|(p, a, v)| Step::Report(p, a, v)),
        1 => (0u64..4, 1u64..90).prop_map(|(p, t)| Step::Ttl(p, t)),
        1 => (0u64..3, prop::option::of(1u64..90)).prop_map(|(g, t)| Step::GroupTtl(g, t)),
        1 => (0u64..2).prop_map(Step::Agent),
        1 => (0u64..2).prop_map(Step::RevokeAgent),
        1 => (0u64..4).prop_map(Step::RotateBookmark),
        1 => (0u64..4).prop_map(Step::RotateServerKey),
        1 => (0u64..4).prop_map(Step::CloseAddresses),
        3 => (0u64..40).prop_map(Step::Wait),
    ]
}

fn command(world: &World, org: OrgId, step: &Step, seed: u64, now: Timestamp) -> Option<Command> {
    let nth_pair = |n: u64| world.state.org(org)?.pairs.values().copied().nth(n as usize);
    let nth_group = |n: u64| world.state.org(org)?.groups.values().copied().nth(n as usize);
    let nth_agent = |n: u64| world.state.agents_of(org).nth(n as usize).map(|agent| agent.id);
    let until = |secs: &Option<u64>| {
        Expiry::from(secs.map(|secs| now.saturating_add(std::time::Duration::from_secs(secs))))
    };
    let member = |group: GroupId, kind: MemberKind, expires: Expiry| {
        let id = MemberId::from_random(bytes(seed));
        Command::AddMember(Member { id, org, group, kind, expires, added_at: now })
    };
    Some(match step {
        Step::Pair => Command::CreatePair(new_pair(org, seed, 30)),
        Step::Group => Command::CreateGroup(new_group(org, seed, None)),
        Step::DeletePair(p) => Command::DeletePair { org, pair: nth_pair(*p)?, expected: None },
        Step::DeleteGroup(g) => Command::DeleteGroup { org, group: nth_group(*g)?, expected: None },
        Step::Join(g, p, e) => member(nth_group(*g)?, MemberKind::Pair(nth_pair(*p)?), until(e)),
        Step::Fix(g, prefix, e) => {
            let network = Network::containing([203, 0, 113, 3].into(), *prefix)?;
            let kind = MemberKind::Network { network, note: label("office") };
            member(nth_group(*g)?, kind, until(e))
        }
        Step::Leave(g, n) => {
            let group = nth_group(*g)?;
            let member = *world.state.group(group)?.members.keys().nth(*n)?;
            Command::RemoveMember { org, group, member }
        }
        Step::Report(p, address, same_visit) => {
            let pair = nth_pair(*p)?;
            let row = world.state.pair(pair)?;
            let seen = Seen {
                address: *address,
                visit: row.report.map(|report| report.visit.id).filter(|_| *same_visit),
                fresh_visit: seed,
            };
            match hear(row, world.state.shortest_ttl(row), seen, now) {
                Heard::Heartbeat(_) => return None,
                Heard::Publish { visit, .. } => Command::Report {
                    pair,
                    bookmark: row.record.bookmark,
                    address: *address,
                    visit,
                },
            }
        }
        Step::Ttl(p, ttl) => Command::EditPair {
            org,
            pair: nth_pair(*p)?,
            edit: PairEdit { ttl: Ttl::from_secs(*ttl).ok(), ..PairEdit::default() },
            expected: None,
        },
        Step::GroupTtl(g, ttl) => Command::EditGroup {
            org,
            group: nth_group(*g)?,
            edit: GroupEdit { ttl: Some(ttl.and_then(|t| Ttl::from_secs(t).ok())), name: None },
            expected: None,
        },
        Step::Agent(n) => {
            let invited = world.state.org(org)?.enrolments.iter().copied().nth(*n as usize);
            match invited {
                Some(enrolment) => Command::Enrol {
                    enrolment,
                    agent: AgentId::from_random(bytes(seed)),
                    token: hash(seed + 7),
                    pair: Box::new(new_pair(org, seed, 30)),
                },
                None => Command::InviteAgent(Enrolment {
                    id: EnrolmentId::from_random(bytes(seed)),
                    org,
                    name: label("web-1"),
                    hash: hash(seed + 9),
                    groups: world.state.org(org)?.groups.values().copied().collect(),
                    created_at: now,
                    expires_at: now.saturating_add(std::time::Duration::from_secs(60)),
                    used_at: None,
                }),
            }
        }
        Step::RevokeAgent(n) => Command::RevokeAgent { org, agent: nth_agent(*n)? },
        Step::RotateBookmark(p) => {
            let (pair, hash) = (nth_pair(*p)?, hash(seed + 11));
            Command::RotateBookmark { org, pair, hash, expected: None }
        }
        Step::RotateServerKey(p) => {
            let (pair, hash) = (nth_pair(*p)?, hash(seed + 13));
            Command::RotateServerKey { org, pair, hash, expected: None }
        }
        Step::CloseAddresses(p) => Command::CloseAddresses { org, pair: nth_pair(*p)? },
        Step::Wait(_) => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn lists_and_followers_always_equal_the_records(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut world = World::default();
        let mut now = at(0);
        world.run(create_org(1), now).unwrap();
        let org = OrgId::from_random(bytes(1));
        for (n, step) in beginning().iter().chain(&steps).enumerate() {
            if let Step::Wait(secs) = step {
                now = now.saturating_add(std::time::Duration::from_secs(*secs));
            }
            if let Some(command) = command(&world, org, step, n as u64 + 10, now) {
                drop(world.run(command, now));
            }
            world.check(now);
        }
    }

    #[test]
    fn what_was_allowed_at_any_time_is_told_by_the_audit_alone(
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let (mut world, mut now) = (World::default(), at(0));
        world.run(create_org(1), now).unwrap();
        let org = OrgId::from_random(bytes(1));
        let mut seen = BTreeMap::new();
        // An agent whose own pair is a member, so that revoking it closes something.
        let agent = [Step::Agent(0), Step::Agent(0), Step::Join(0, 2, None)];
        let steps = beginning().into_iter().chain(agent).chain(steps);
        for (n, step) in steps.enumerate() {
            if let Step::Wait(secs) = step {
                now = now.saturating_add(std::time::Duration::from_secs(secs));
            }
            if let Some(command) = command(&world, org, &step, n as u64 + 10, now) {
                drop(world.run(command, now));
            }
            // Of steps at one time the last one counts.
            seen.insert(now, world.shown(now));
        }
        let groups: BTreeSet<GroupId> = seen.values().flat_map(BTreeMap::keys).copied().collect();
        for (at, shown) in &seen {
            for group in &groups {
                let past = world.remembered(*group, *at);
                match shown.get(group) {
                    Some(entries) => {
                        let past = past.expect("the group was there");
                        prop_assert!(!past.is_deleted);
                        prop_assert_eq!(&past.entries, entries, "{} at {}", group, at);
                    }
                    None => {
                        let is_gone = |past: Past| past.is_deleted && past.entries.is_empty();
                        prop_assert!(past.is_none_or(is_gone));
                    }
                }
            }
        }
    }

    #[test]
    fn commands_that_do_not_conflict_may_be_decided_on_the_same_state(
        steps in prop::collection::vec(any_step(), 1..40),
        pick in (any_step(), any_step()),
    ) {
        let mut world = World::default();
        world.run(create_org(1), at(0)).unwrap();
        let org = OrgId::from_random(bytes(1));
        for (n, step) in beginning().iter().chain(&steps).enumerate() {
            if let Some(command) = command(&world, org, step, n as u64 + 10, at(n as u64)) {
                drop(world.run(command, at(n as u64)));
            }
        }
        let now = at(60);
        let first = command(&world, org, &pick.0, 1_000, now);
        let second = command(&world, org, &pick.1, 2_000, now);
        let (Some(first), Some(second)) = (first, second) else { return Ok(()) };
        if world.state.footprint(&first).conflicts_with(&world.state.footprint(&second)) {
            return Ok(());
        }
        let together = decide(&world.state, &order(second.clone()), now);
        let Ok(changes) = decide(&world.state, &order(first), now) else { return Ok(()) };
        world.commit(&changes, now);
        let after = decide(&world.state, &order(second), now);

        prop_assert_eq!(together, after);
    }
}

/// A world with one org, one group and one pair in it that has reported.
fn settled() -> (World, OrgId, GroupId, PairId) {
    let mut world = World::default();
    world.run(create_org(1), at(0)).unwrap();
    let org = OrgId::from_random(bytes(1));
    let group = new_group(org, 2, None);
    let pair = new_pair(org, 3, 1_600);
    let (group_id, pair_id) = (group.id, pair.id);
    world.run(Command::CreateGroup(group), at(0)).unwrap();
    world.run(Command::CreatePair(pair), at(0)).unwrap();
    let member = Member {
        id: MemberId::from_random(bytes(4)),
        org,
        group: group_id,
        kind: MemberKind::Pair(pair_id),
        expires: Expiry::Never,
        added_at: at(0),
    };
    world.run(Command::AddMember(member), at(0)).unwrap();
    report(&mut world, pair_id, "203.0.113.1", None, 1).unwrap();
    (world, org, group_id, pair_id)
}

fn report(
    world: &mut World,
    pair: PairId,
    address: &str,
    visit: Option<u64>,
    secs: u64,
) -> Result<Heard, Rejection> {
    let row = world.state.pair(pair).unwrap();
    let bookmark = row.record.bookmark;
    let address = address.parse().unwrap();
    let seen = Seen { address, visit, fresh_visit: secs };
    let heard = hear(row, world.state.shortest_ttl(row), seen, at(secs));
    if let Heard::Publish { visit, .. } = heard {
        world.run(Command::Report { pair, bookmark, address, visit }, at(secs))?;
    }
    Ok(heard)
}

fn listed(world: &World, group: GroupId, secs: u64) -> Vec<String> {
    let live = world.state.group(group).unwrap().list.live_at(at(secs));
    live.map(|(network, _)| network.to_string()).collect()
}

#[test]
fn a_heartbeat_is_published_once_in_a_sixteenth_of_the_lifetime() {
    let (mut world, _, _, pair) = settled();

    assert!(matches!(report(&mut world, pair, "203.0.113.1", None, 100), Ok(Heard::Heartbeat(_))));
    assert!(matches!(
        report(&mut world, pair, "203.0.113.1", None, 101),
        Ok(Heard::Publish { .. })
    ));
    assert!(matches!(report(&mut world, pair, "203.0.113.1", None, 200), Ok(Heard::Heartbeat(_))));
}

#[test]
fn another_address_replaces_both_families() {
    let (mut world, _, group, pair) = settled();
    let visit = world.state.pair(pair).unwrap().report.unwrap().visit.id;
    report(&mut world, pair, "2001:db8::1", Some(visit), 2).unwrap();
    assert_eq!(listed(&world, group, 2), ["203.0.113.1/32", "2001:db8::1/128"]);

    report(&mut world, pair, "203.0.113.2", None, 200).unwrap();

    assert_eq!(listed(&world, group, 200), ["203.0.113.2/32"]);
}

#[test]
fn a_report_evicts_when_it_takes_an_address_away_that_counts() {
    let (mut world, _, _, pair) = settled();
    let visit = world.state.pair(pair).unwrap().report.unwrap().visit.id;
    let mut evicts = |address, visit, secs| match report(&mut world, pair, address, visit, secs) {
        Ok(Heard::Publish { evicts, .. }) => evicts,
        other => panic!("{other:?}"),
    };

    assert!(!evicts("2001:db8::1", Some(visit), 2), "the other family of the same visit");
    assert!(evicts("2001:db8::2", Some(visit), 3), "the same family again, in whatever visit");
    assert!(evicts("203.0.113.2", None, 200));
    assert!(!evicts("203.0.113.2", None, 400), "what is on file is renewed");
    assert!(evicts("2001:db8::1", None, 401), "the other family, in a visit of its own");
    assert!(evicts("203.0.113.3", None, 2_000), "a second before it goes stale");
    assert!(!evicts("203.0.113.4", None, 3_600), "nobody is let in from there any more");
}

#[test]
fn a_visit_is_joined_within_a_minute_only() {
    let (mut world, _, group, pair) = settled();
    let visit = world.state.pair(pair).unwrap().report.unwrap().visit.id;

    report(&mut world, pair, "2001:db8::1", Some(visit), 61).unwrap();

    assert_eq!(listed(&world, group, 61), ["2001:db8::1/128"]);
}

#[test]
fn a_visit_is_joined_within_a_minute_of_a_heartbeat_too() {
    let (mut world, _, group, pair) = settled();
    let visit = world.state.pair(pair).unwrap().report.unwrap().visit.id;
    assert!(matches!(report(&mut world, pair, "203.0.113.1", None, 90), Ok(Heard::Heartbeat(_))));
    world.state.pair(pair).unwrap().heard_at(at(90));

    report(&mut world, pair, "2001:db8::1", Some(visit), 91).unwrap();

    assert_eq!(listed(&world, group, 91), ["203.0.113.1/32", "2001:db8::1/128"]);
}

#[test]
fn reports_over_one_family_leave_the_other_where_it_is_and_lengthen_it_not() {
    let (mut world, _, group, pair) = settled();
    let visit = world.state.pair(pair).unwrap().report.unwrap().visit.id;
    report(&mut world, pair, "2001:db8::1", Some(visit), 2).unwrap();

    report(&mut world, pair, "203.0.113.1", None, 1_500).unwrap();

    assert_eq!(listed(&world, group, 1_501), ["203.0.113.1/32", "2001:db8::1/128"]);
    assert_eq!(listed(&world, group, 1_602), ["203.0.113.1/32"]);
}

#[test]
fn addresses_that_no_peer_can_have_are_refused() {
    let (mut world, _, _, pair) = settled();

    for address in ["0.0.0.0", "127.0.0.1", "::1", "224.0.0.1", "169.254.1.1", "fe80::1"] {
        let error = report(&mut world, pair, address, None, 300).unwrap_err();
        assert!(matches!(error, Rejection::Invalid { field: "address", .. }), "{address}");
    }
}

#[test]
fn a_deleted_pair_is_off_every_list_and_can_report_no_more() {
    let (mut world, org, group, pair) = settled();

    world.run(Command::DeletePair { org, pair, expected: None }, at(5)).unwrap();

    assert!(listed(&world, group, 5).is_empty());
    let address = "203.0.113.1".parse().unwrap();
    let visit = Visit { id: 1, began: at(6) };
    let bookmark = world.state.pair(pair).unwrap().record.bookmark;
    let again = world.run(Command::Report { pair, bookmark, address, visit }, at(6));
    assert_eq!(again.unwrap_err(), Rejection::NotFound);
    assert_eq!(world.state.pair(pair).unwrap().record.name, label("pair"));
}

#[test]
fn a_new_bookmark_closes_what_the_old_one_reported_and_ends_it() {
    let (mut world, org, group, pair) = settled();
    let old = world.state.pair(pair).unwrap().record.bookmark;
    let new = hash(7_001);

    world.run(Command::RotateBookmark { org, pair, hash: new, expected: None }, at(5)).unwrap();

    assert!(listed(&world, group, 5).is_empty());
    assert_eq!(world.state.secret(&old), None);
    assert_eq!(world.state.secret(&new), Some(Secret::Bookmark(pair)));
    let (address, visit) = ("203.0.113.9".parse().unwrap(), Visit { id: 1, began: at(6) });
    let late = Command::Report { pair, bookmark: old, address, visit };
    assert_eq!(world.run(late, at(6)).unwrap_err(), Rejection::NotFound, "it waited too long");
    report(&mut world, pair, "203.0.113.1", None, 7).unwrap();
    assert_eq!(listed(&world, group, 7), ["203.0.113.1/32"]);
}

#[test]
fn addresses_that_are_closed_stay_so_until_the_next_report() {
    let (mut world, org, group, pair) = settled();
    let bookmark = world.state.pair(pair).unwrap().record.bookmark;

    world.run(Command::CloseAddresses { org, pair }, at(5)).unwrap();

    assert!(listed(&world, group, 5).is_empty());
    assert_eq!(world.state.secret(&bookmark), Some(Secret::Bookmark(pair)));
    report(&mut world, pair, "203.0.113.1", None, 7).unwrap();
    assert_eq!(listed(&world, group, 7), ["203.0.113.1/32"]);
}

#[test]
fn a_new_server_key_ends_the_old_one_and_closes_nothing() {
    let (mut world, org, group, pair) = settled();
    let old = world.state.pair(pair).unwrap().record.server_key;

    world
        .run(Command::RotateServerKey { org, pair, hash: hash(7_003), expected: None }, at(5))
        .unwrap();

    assert_eq!(listed(&world, group, 5), ["203.0.113.1/32"]);
    assert_eq!(world.state.secret(&old), None);
    assert_eq!(world.state.secret(&hash(7_003)), Some(Secret::Server(pair)));
}

#[test]
fn a_locked_key_and_its_pair_are_made_together_or_not_at_all() {
    let (mut world, org, ..) = settled();
    let key = |seed: u64, origins: Vec<Origin>| Key {
        id: KeyId::from_random(bytes(seed)),
        org,
        name: label("rover"),
        hash: hash(seed),
        scopes: ScopeSet::ALL,
        origins,
        created_at: at(1),
        expires: Expiry::Never,
        revoked_at: None,
    };
    let anywhere = vec![Origin::Network("0.0.0.0/0".parse().unwrap())];
    let pair = new_pair(org, 600, 100);
    let mint =
        Command::MintLockedKey { key: Box::new(key(601, anywhere)), pair: Box::new(pair.clone()) };

    world.run(mint, at(1)).unwrap();

    let minted = world.state.key(KeyId::from_random(bytes(601))).unwrap();
    assert_eq!(minted.origins, [Origin::Pair(pair.id)], "and from nowhere else");
    let credential = Credential::Key(org, minted.id);
    let standing = |world: &World, address: &str, secs| {
        world.state.standing(credential, address.parse().unwrap(), at(secs))
    };
    assert_eq!(standing(&world, "203.0.113.5", 2), Standing::ForbiddenOrigin);
    report(&mut world, pair.id, "203.0.113.5", None, 2).unwrap();
    assert_eq!(standing(&world, "203.0.113.5", 101), Standing::Good);
    assert_eq!(standing(&world, "203.0.113.5", 102), Standing::ForbiddenOrigin, "stale");
    let elsewhere = Command::MintLockedKey {
        key: Box::new(key(602, Vec::new())),
        pair: Box::new(new_pair(OrgId::from_random(bytes(9)), 603, 100)),
    };
    assert_eq!(world.run(elsewhere, at(3)).unwrap_err(), Rejection::NotFound);
    world.run(Command::DeletePair { org, pair: pair.id, expected: None }, at(4)).unwrap();
    assert_eq!(standing(&world, "203.0.113.5", 4), Standing::ForbiddenOrigin, "its pair is gone");
}

#[test]
fn an_order_of_another_org_finds_nothing() {
    let (mut world, org, group, pair) = settled();
    world.run(create_org(50), at(0)).unwrap();
    let other = OrgId::from_random(bytes(50));
    let key = minted(org, vec![]);
    let key_id = key.id;
    world.run(Command::MintKey(key), at(0)).unwrap();
    let member = *world.state.group(group).unwrap().members.keys().next().unwrap();
    let foreign = Member {
        id: MemberId::from_random(bytes(60)),
        org: other,
        group,
        kind: MemberKind::Pair(pair),
        expires: Expiry::Never,
        added_at: at(0),
    };

    for command in [
        Command::RevokeKey { org: other, key: key_id },
        Command::EditPair { org: other, pair, edit: PairEdit::default(), expected: None },
        Command::DeletePair { org: other, pair, expected: None },
        Command::EditGroup { org: other, group, edit: GroupEdit::default(), expected: None },
        Command::DeleteGroup { org: other, group, expected: None },
        Command::RemoveMember { org: other, group, member },
        Command::AddMember(foreign),
        Command::MintKey(minted(other, vec![Origin::Pair(pair)])),
    ] {
        let shown = format!("{command:?}");
        assert_eq!(world.run(command, at(1)).unwrap_err(), Rejection::NotFound, "{shown}");
    }
}

fn minted(org: OrgId, origins: Vec<Origin>) -> Key {
    Key {
        id: KeyId::from_random(bytes(70)),
        org,
        name: label("key"),
        hash: hash(70),
        scopes: ScopeSet::ALL,
        origins,
        created_at: at(0),
        expires: Expiry::At(at(1_000)),
        revoked_at: None,
    }
}

#[test]
fn a_key_without_origins_works_from_nowhere() {
    let (mut world, org, _, _) = settled();
    let key = minted(org, vec![]);
    let credential = Credential::Key(org, key.id);
    world.run(Command::MintKey(key), at(0)).unwrap();

    let standing = world.state.standing(credential, "203.0.113.1".parse().unwrap(), at(1));

    assert_eq!(standing, Standing::ForbiddenOrigin);
}

#[test]
fn a_key_locked_to_a_pair_follows_it_and_dies_when_it_goes_stale() {
    let (mut world, org, _, pair) = settled();
    let key = Key { expires: Expiry::Never, ..minted(org, vec![Origin::Pair(pair)]) };
    let credential = Credential::Key(org, key.id);
    world.run(Command::MintKey(key), at(0)).unwrap();
    let (old, new) = ("203.0.113.1".parse().unwrap(), "203.0.113.2".parse().unwrap());

    assert_eq!(world.state.standing(credential, old, at(1_600)), Standing::Good);
    assert_eq!(world.state.standing(credential, old, at(1_601)), Standing::ForbiddenOrigin);

    report(&mut world, pair, "203.0.113.2", None, 1_700).unwrap();

    assert_eq!(world.state.standing(credential, new, at(1_701)), Standing::Good);
    assert_eq!(world.state.standing(credential, old, at(1_701)), Standing::ForbiddenOrigin);
}

#[test]
fn revoked_and_expired_keys_are_as_unknown_ones() {
    let (mut world, org, _, _) = settled();
    let key = minted(org, vec![Origin::Network("203.0.113.0/24".parse().unwrap())]);
    let credential = Credential::Key(org, key.id);
    let revoke = Command::RevokeKey { org, key: key.id };
    world.run(Command::MintKey(key), at(0)).unwrap();
    let from = "203.0.113.1".parse().unwrap();

    assert_eq!(world.state.standing(credential, from, at(999)), Standing::Good);
    assert_eq!(world.state.standing(credential, from, at(1_000)), Standing::Unknown);
    assert!(world.run(revoke.clone(), at(5)).unwrap().access);
    assert_eq!(world.state.standing(credential, from, at(6)), Standing::Unknown);
    assert_eq!(world.run(revoke, at(7)).unwrap(), Resolved::default());
}

#[test]
fn an_invitation_is_good_for_one_agent_and_for_its_time() {
    let (mut world, org, group, _) = settled();
    let invitation = |seed| Enrolment {
        id: EnrolmentId::from_random(bytes(seed)),
        org,
        name: label("web-1"),
        hash: hash(seed),
        groups: [group].into(),
        created_at: at(0),
        expires_at: at(100),
        used_at: None,
    };
    let enrol = |invited: u64, seed| Command::Enrol {
        enrolment: EnrolmentId::from_random(bytes(invited)),
        agent: AgentId::from_random(bytes(seed)),
        token: hash(seed + 1),
        pair: Box::new(new_pair(org, seed, 60)),
    };
    world.run(Command::InviteAgent(invitation(80)), at(0)).unwrap();
    world.run(Command::InviteAgent(invitation(81)), at(0)).unwrap();

    world.run(enrol(80, 90), at(99)).unwrap();

    assert_eq!(world.run(enrol(80, 100), at(99)).unwrap_err(), Rejection::NotFound);
    assert_eq!(world.run(enrol(81, 110), at(100)).unwrap_err(), Rejection::NotFound);
    let agent = world.state.agents_of(org).next().unwrap();
    assert_eq!(agent.groups, [group].into());
    assert_eq!(world.state.pair(agent.pair).unwrap().record.name, label("web-1"));
}

#[test]
fn a_mail_is_noted_of_the_bookmark_and_the_owner_that_are_still_right() {
    let (mut world, owner) = (World::default(), "zoe@example.org".parse::<Email>().unwrap());
    world.run(create_org(1), at(0)).unwrap();
    let org = OrgId::from_random(bytes(1));
    let new = Pair { contact_email: Some(owner.clone()), ..new_pair(org, 2, 60) };
    let pair = new.id;
    world.run(Command::CreatePair(new), at(0)).unwrap();
    let mut note = |bookmark, to: &str| {
        let to = to.parse().unwrap();
        world.run(Command::NoteBookmarkMailed { org, pair, bookmark, to }, at(1)).map(drop)
    };

    assert!(matches!(note(hash(5), "zoe@example.org"), Err(Rejection::Conflict(_))));
    assert!(matches!(note(hash(4), "eve@example.org"), Err(Rejection::Conflict(_))));
    assert_eq!(note(hash(4), "zoe@example.org"), Ok(()));
    let name = label("pair");
    let last = &world.records.last().unwrap().event;
    assert_eq!(*last, Event::BookmarkMailed { pair, name, to: owner });
}

#[test]
fn a_stale_edit_is_refused() {
    let (mut world, org, group, pair) = settled();
    let seen = world.state.pair(pair).unwrap().revision;
    let edit = |name: &str, expected| Command::EditPair {
        org,
        pair,
        edit: PairEdit { name: Some(label(name)), ..PairEdit::default() },
        expected,
    };
    world.run(edit("first", Some(seen)), at(5)).unwrap();

    assert_eq!(world.run(edit("second", Some(seen)), at(6)).unwrap_err(), Rejection::Changed);
    let gone = Command::DeleteGroup { org, group, expected: Some(Revision(0)) };
    assert_eq!(world.run(gone, at(7)).unwrap_err(), Rejection::Changed);
}

#[test]
fn every_change_has_its_audit_record() {
    let (world, org, _, pair) = settled();
    let edit = PairEdit { name: Some(label("other")), ..PairEdit::default() };
    let command = Command::EditPair { org, pair, edit, expected: None };

    let changes = decide(&world.state, &order(command), at(9)).unwrap();

    let Some(Change::Record(record)) = changes.last() else { panic!("no record: {changes:?}") };
    assert_eq!((record.org, record.at, record.actor), (org, at(9), Actor::Operator));
}
