//! Keys that lose rights and origins.

use postern_shared::scope::Scope;

use super::*;

const NETWORKS: [&str; 5] =
    ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "2001:db8::/32"];
const ADDRESSES: [&str; 6] =
    ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.7", "2001:db8::1", "203.0.113.1"];

fn scopes(bits: u8) -> ScopeSet {
    let chosen = Scope::ALL.into_iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
    chosen.map(|(_, scope)| scope).collect()
}

/// Networks out of the list above; bit 5 is the pair of seed 9.
fn origins(bits: u8) -> Vec<Origin> {
    let chosen = NETWORKS.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
    let mut origins: Vec<Origin> =
        chosen.map(|(_, network)| Origin::Network(network.parse().unwrap())).collect();
    if bits >> 5 & 1 == 1 {
        origins.push(Origin::Pair(PairId::from_random(bytes(9))));
    }
    origins
}

fn world_with(scope_bits: u8, origin_bits: u8) -> (World, OrgId, KeyId) {
    let mut world = World::default();
    world.run(create_org(1), at(0)).unwrap();
    let org = OrgId::from_random(bytes(1));
    world.run(Command::CreatePair(new_pair(org, 9, 60)), at(0)).unwrap();
    let key = Key {
        id: KeyId::from_random(bytes(50)),
        org,
        name: label("key"),
        hash: hash(50),
        scopes: scopes(scope_bits),
        origins: origins(origin_bits),
        created_at: at(0),
        expires: Expiry::Never,
        revoked_at: None,
    };
    let id = key.id;
    world.run(Command::MintKey(key), at(0)).unwrap();
    (world, org, id)
}

/// What a key opens: each scope from each address, and the place of the pair.
fn opens(world: &World, org: OrgId, id: KeyId) -> BTreeSet<(String, String)> {
    let credential = Credential::Key(org, id);
    let scopes = Scope::ALL.into_iter().filter(|scope| world.state.has_scope(credential, *scope));
    let from = |address: &&&str| {
        let address = address.parse().unwrap();
        world.state.standing(credential, address, at(1)) == Standing::Good
    };
    let lock = Origin::Pair(PairId::from_random(bytes(9)));
    let is_locked = world.state.key(id).unwrap().origins.contains(&lock);
    let places: Vec<&str> =
        ADDRESSES.iter().filter(from).copied().chain(is_locked.then_some("the pair")).collect();
    let cell =
        |scope: Scope| places.iter().map(move |place| (scope.to_string(), (*place).to_owned()));
    scopes.flat_map(cell).collect()
}

proptest! {
    /// Whatever is asked for, a key opens nothing that it did not open; and what would not open
    /// more is done.
    #[test]
    fn a_narrowed_key_opens_nothing_new(
        had in (1_u8..64, 1_u8..64),
        asked in (0_u8..64, 0_u8..64),
    ) {
        let (mut world, org, key) = world_with(had.0, had.1);
        let before = opens(&world, org, key);

        let command =
            Command::NarrowKey { org, key, scopes: scopes(asked.0), origins: origins(asked.1), expected: None };
        let done = world.run(command, at(1));

        let after = opens(&world, org, key);
        prop_assert!(after.is_subset(&before), "{:?}", after.difference(&before));
        let (wider, _, other) = world_with(asked.0, asked.1);
        let wanted = opens(&wider, org, other);
        let is_empty = asked.0 == 0 || asked.1 == 0;
        prop_assert_eq!(done.is_ok(), !is_empty && wanted.is_subset(&before), "{:?}", done);
        prop_assert_eq!(&after, if done.is_ok() { &wanted } else { &before });
    }
}

#[test]
fn a_revoked_key_and_one_of_another_org_are_not_narrowed() {
    let (mut world, org, key) = world_with(63, 31);
    world.run(create_org(2), at(0)).unwrap();
    let other = OrgId::from_random(bytes(2));
    let narrow = |org| Command::NarrowKey {
        org,
        key,
        scopes: scopes(1),
        origins: origins(1),
        expected: None,
    };

    assert_eq!(world.run(narrow(other), at(1)).unwrap_err(), Rejection::NotFound);
    world.run(Command::RevokeKey { org, key }, at(2)).unwrap();
    assert!(matches!(world.run(narrow(org), at(3)), Err(Rejection::Conflict(_))));
}

#[test]
fn a_key_that_was_narrowed_meanwhile_is_not_narrowed_from_what_it_was() {
    let (mut world, org, key) = world_with(63, 31);
    let seen = world.state.key_row(key).unwrap().revision;
    let narrow = |scope_bits| Command::NarrowKey {
        org,
        key,
        scopes: scopes(scope_bits),
        origins: origins(1),
        expected: Some(seen),
    };

    world.run(narrow(3), at(1)).unwrap();

    assert_eq!(world.run(narrow(1), at(2)).unwrap_err(), Rejection::Changed);
    assert_eq!(world.state.key(key).unwrap().scopes, scopes(3));
}

#[test]
fn a_narrowed_key_has_no_more_origins_than_a_new_one_may_have() {
    let (mut world, org, key) = world_with(63, 1);
    let hosts = |count: u8| (0..count).map(|n| Network::host([10, 0, 0, n].into()));
    let mut narrow = |count| {
        let (scopes, origins) = (scopes(1), hosts(count).map(Origin::Network).collect());
        let command = Command::NarrowKey { org, key, scopes, origins, expected: None };
        world.run(command, at(1)).map(drop)
    };

    assert!(matches!(narrow(65), Err(Rejection::Limit { max: 64, .. })));
    assert_eq!(narrow(64), Ok(()));
}

#[test]
fn narrowing_is_recorded_once_and_frees_the_pair() {
    let (mut world, org, key) = world_with(63, 63);
    let narrow =
        Command::NarrowKey { org, key, scopes: scopes(1), origins: origins(1), expected: None };
    assert_eq!(world.state.pair(PairId::from_random(bytes(9))).unwrap().locks, 1);

    world.run(narrow.clone(), at(1)).unwrap();

    assert_eq!(world.state.pair(PairId::from_random(bytes(9))).unwrap().locks, 0);
    let records = world.records.len();
    world.run(narrow, at(2)).unwrap();
    assert_eq!(world.records.len(), records, "it was so already");
    let last = world.records.last().unwrap();
    assert!(matches!(&last.event, Event::KeyNarrowed { scopes: given, .. } if *given == scopes(1)));
}

#[test]
fn a_key_is_narrowed_to_a_pair_and_the_pair_moves_one_after_the_other() {
    let (mut world, org, key) = world_with(u8::MAX, u8::MAX);
    let pair = PairId::from_random(bytes(9));
    report(&mut world, pair, "203.0.113.1", None, 1).unwrap();
    let bookmark = world.state.pair(pair).unwrap().record.bookmark;
    let narrow = Command::NarrowKey {
        org,
        key,
        scopes: scopes(1),
        origins: origins(1 << 5),
        expected: None,
    };
    let visit = Visit { id: 1, began: at(2) };
    let moves = Command::Report { pair, bookmark, address: "203.0.113.2".parse().unwrap(), visit };
    let source = Some("203.0.113.1".parse().unwrap());
    let asked = Order { actor: Actor::Key(key), source, command: narrow.clone() };

    assert!(world.state.footprint(&narrow).conflicts_with(&world.state.footprint(&moves)));
    decide(&world.state, &asked, at(2)).expect("the pair is where the key asks from");
    world.run(moves, at(2)).unwrap();
    let late = decide(&world.state, &asked, at(2)).unwrap_err();
    assert!(late.to_string().starts_with("`origins` leaves out 203.0.113.1"), "{late}");
}
