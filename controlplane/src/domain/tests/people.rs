//! How people get in, held to its bounds over random histories.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

const STEP: u64 = 30;

pub(super) fn user(org: OrgId, seed: u64, email: &str, role: Role) -> User {
    let id = UserId::from_random(bytes(seed));
    User { id, org, email: email.parse().unwrap(), role, created_at: at(0) }
}

pub(super) fn ticket(user: &User, seed: u64, purpose: Purpose, now: Timestamp) -> Ticket {
    Ticket { hash: hash(seed), user: user.id, org: user.org, purpose, created_at: now }
}

pub(super) fn login(user: &User, seed: u64, now: Timestamp) -> Login {
    Login {
        hash: hash(seed),
        user: user.id,
        org: user.org,
        created_at: now,
        used_at: now,
        address: [203, 0, 113, 7].into(),
        browser: String::new(),
    }
}

pub(super) fn password(seed: u64) -> PasswordHash {
    PasswordHash(format!("password {seed}"))
}

pub(super) fn recovery(seed: u64) -> RecoveryHash {
    RecoveryHash([seed as u8; 32])
}

pub(super) fn seed_of(seed: u64) -> Sealed {
    Sealed(vec![seed as u8; 8])
}

/// A code that is right at `now`.
pub(super) fn code(now: Timestamp) -> Factor {
    Factor::Code { seed: seed_of(1), step: step_at(now), resealed: None }
}

pub(super) fn sign_in(
    user: &User,
    factor: Factor,
    is_known: bool,
    seed: u64,
    now: Timestamp,
) -> Command {
    let credentials = Credentials { password: password(1), factor, is_known };
    let login = Box::new(login(user, seed, now));
    Command::SignIn { credentials: Box::new(credentials), login, replaces: None }
}

/// Invites a user and has the invitation accepted, at the beginning of time.
fn join(world: &mut World, user: &User, seed: u64) {
    let invitation = ticket(user, seed, Purpose::Invitation, at(0));
    world.run(Command::InviteUser { user: user.clone(), ticket: invitation }, at(0)).unwrap();
    accept(world, user, seed, at(0)).unwrap();
}

fn accept(world: &mut World, user: &User, seed: u64, now: Timestamp) -> Result<(), Rejection> {
    let welcome = Welcome {
        password: password(1),
        authenticator: Authenticator {
            seed: seed_of(1),
            last_step: step_at(now),
            enrolled_at: now,
        },
        recovery: vec![recovery(1), recovery(2)],
        login: login(user, seed + 1, now),
    };
    let accepted = Command::AcceptInvitation { ticket: hash(seed), welcome: Box::new(welcome) };
    world.run(accepted, now).map(drop)
}

/// An org with an admin and a member who have both joined.
pub(super) fn peopled() -> (World, OrgId, User, User) {
    let mut world = World::default();
    world.run(create_org(1), at(0)).unwrap();
    let org = OrgId::from_random(bytes(1));
    let admin = user(org, 1, "admin@example.org", Role::Admin);
    let member = user(org, 2, "member@example.org", Role::Member);
    join(&mut world, &admin, 100);
    join(&mut world, &member, 200);
    (world, org, admin, member)
}

#[test]
fn an_invitation_is_good_once_and_not_for_long() {
    let (mut world, org, ..) = peopled();
    let invited = user(org, 3, "new@example.org", Role::Member);
    let late = ticket(&invited, 300, Purpose::Invitation, at(0));
    world.run(Command::InviteUser { user: invited.clone(), ticket: late }, at(0)).unwrap();

    let end = 48 * 3_600;
    assert_eq!(accept(&mut world, &invited, 300, at(end)), Err(Rejection::NotFound));
    let again = ticket(&invited, 310, Purpose::Invitation, at(end));
    world.run(Command::InviteUser { user: invited.clone(), ticket: again }, at(end)).unwrap();
    assert_eq!(accept(&mut world, &invited, 300, at(end)), Err(Rejection::NotFound), "replaced");
    accept(&mut world, &invited, 310, at(end)).unwrap();
    assert_eq!(accept(&mut world, &invited, 310, at(end)), Err(Rejection::NotFound), "used");
}

#[test]
fn a_mail_address_is_in_an_org_once_however_it_is_written() {
    let (mut world, org, _, member) = peopled();
    let twin = user(org, 3, "Member@Example.org", Role::Member);
    let invite = |seed| Command::InviteUser {
        user: twin.clone(),
        ticket: ticket(&twin, seed, Purpose::Invitation, at(0)),
    };

    assert!(matches!(world.run(invite(300), at(0)), Err(Rejection::Conflict(_))));
    world.run(create_org(9), at(0)).unwrap();
    let elsewhere = OrgId::from_random(bytes(9));
    let other = user(elsewhere, 4, "member@example.org", Role::Member);
    join(&mut world, &other, 400);
    world.run(Command::RemoveUser { org, user: member.id }, at(1)).unwrap();
    world.run(invite(310), at(1)).unwrap();
}

#[test]
fn the_last_admin_stays_one_whatever_is_tried() {
    let (mut world, org, admin, member) = peopled();
    let demote = |user: &User| Command::SetRole { org, user: user.id, role: Role::Member };
    let remove = |user: &User| Command::RemoveUser { org, user: user.id };
    let invited = user(org, 3, "new@example.org", Role::Admin);
    let invitation = ticket(&invited, 300, Purpose::Invitation, at(0));
    world.run(Command::InviteUser { user: invited.clone(), ticket: invitation }, at(0)).unwrap();

    for command in [demote(&admin), remove(&admin)] {
        let refused = world.run(command, at(1));
        assert!(matches!(refused, Err(Rejection::Conflict(_))), "an invitation is no admin yet");
    }
    world.run(Command::SetRole { org, user: member.id, role: Role::Admin }, at(1)).unwrap();
    world.run(demote(&admin), at(2)).unwrap();
    assert!(matches!(world.run(remove(&member), at(3)), Err(Rejection::Conflict(_))));
}

#[test]
fn who_is_removed_or_demoted_is_out_at_once() {
    let (mut world, org, admin, member) = peopled();
    let is_in = |world: &World, seed| world.state.signed_in(&hash(seed), at(1)).is_some();
    world.run(Command::SetRole { org, user: member.id, role: Role::Admin }, at(0)).unwrap();
    assert!(is_in(&world, 201), "a promotion ends nothing");

    let resolved =
        world.run(Command::SetRole { org, user: admin.id, role: Role::Member }, at(1)).unwrap();
    assert!(!is_in(&world, 101) && resolved.access, "whoever holds a stream open asks again");
    world.run(sign_in(&admin, code(at(30)), false, 500, at(30)), at(30)).unwrap();
    let resolved = world.run(Command::RemoveUser { org, user: admin.id }, at(31)).unwrap();
    assert!(resolved.access);
    let again = world.run(sign_in(&admin, code(at(60)), false, 510, at(60)), at(60));
    assert_eq!(again, Err(Rejection::NotFound));
    let row = world.state.user_row(admin.id).expect("the name stays in the audit");
    assert!(row.logins.is_empty() && row.tickets.is_empty(), "and nothing else");
}

#[test]
fn other_orgs_reach_nobody() {
    let (mut world, _, admin, member) = peopled();
    world.run(create_org(9), at(0)).unwrap();
    let elsewhere = OrgId::from_random(bytes(9));
    let stolen = Ticket { org: elsewhere, ..ticket(&member, 900, Purpose::Recovery, at(0)) };

    for command in [
        Command::RemoveUser { org: elsewhere, user: member.id },
        Command::SetRole { org: elsewhere, user: admin.id, role: Role::Member },
        Command::Recover(stolen),
    ] {
        assert_eq!(world.run(command, at(1)), Err(Rejection::NotFound));
    }
}

#[test]
fn an_admin_changes_what_is_the_orgs_and_nobody_elses() {
    let (mut world, org, admin, member) = peopled();
    world.run(create_org(9), at(0)).unwrap();
    let make = |user: UserId, org: OrgId| {
        let command = Command::CreateGroup(new_group(org, 50, None));
        let order = Order { actor: Actor::User(user), source: None, command };
        decide(&world.state, &order, at(1))
    };

    assert_eq!(make(member.id, org), Err(Rejection::AdminsOnly));
    assert_eq!(make(admin.id, OrgId::from_random(bytes(9))), Err(Rejection::NotFound));
    assert_eq!(make(UserId::from_random(bytes(77)), org), Err(Rejection::NotFound));
    let made = make(admin.id, org).unwrap();
    assert!(
        matches!(made.last(), Some(Change::Record(record)) if record.actor == Actor::User(admin.id))
    );
}

#[test]
fn who_makes_an_admin_shows_a_second_factor_and_uses_it_up() {
    let (mut world, org, admin, member) = peopled();
    let now = at(300);
    let by = |user: &User, command| Order { actor: Actor::User(user.id), source: None, command };
    let promote = || Command::SetRole { org, user: member.id, role: Role::Admin };
    let new = user(org, 3, "new@example.org", Role::Admin);
    let invite = |seed| {
        let ticket = ticket(&new, seed, Purpose::Invitation, now);
        Command::InviteUser { user: new.clone(), ticket }
    };
    let proven = |user: &User, factor, command| {
        by(user, Command::WithFactor { user: user.id, factor, command: Box::new(command) })
    };

    for command in [promote(), invite(300)] {
        let refused = decide(&world.state, &by(&admin, command), now);
        assert!(matches!(refused, Err(Rejection::Conflict(_))), "{refused:?}");
    }
    let by_member = decide(&world.state, &proven(&member, code(now), promote()), now);
    assert_eq!(by_member, Err(Rejection::AdminsOnly));
    let of_another =
        Command::WithFactor { user: member.id, factor: code(now), command: Box::new(promote()) };
    let of_another = decide(&world.state, &by(&admin, of_another), now);
    assert_eq!(of_another, Err(Rejection::NotFound), "a factor proves its own user");
    let changes = decide(&world.state, &proven(&admin, code(now), invite(300)), now).unwrap();
    world.commit(&changes, now);
    let again = decide(&world.state, &proven(&admin, code(now), promote()), now);
    assert!(matches!(again, Err(Rejection::Conflict(_))), "the code is used up");
    let next = at(330);
    let changes = decide(&world.state, &proven(&admin, code(next), promote()), next).unwrap();
    world.commit(&changes, next);
    assert_eq!(world.state.user(member.id).unwrap().role, Role::Admin);
}

#[test]
fn a_code_counts_for_what_it_was_checked_against_only() {
    let (mut world, _, _, member) = peopled();
    let now = at(300);
    let other = Factor::Code { seed: seed_of(2), step: step_at(now), resealed: None };
    let early = Factor::Code { seed: seed_of(1), step: step_at(now) + 2, resealed: None };
    for factor in [other, early, Factor::Recovery(recovery(9))] {
        let refused = world.run(sign_in(&member, factor, false, 500, now), now);
        assert!(matches!(refused, Err(Rejection::Conflict(_))), "{refused:?}");
    }
    let mut changed = sign_in(&member, code(now), false, 500, now);
    if let Command::SignIn { credentials, .. } = &mut changed {
        credentials.password = password(2);
    }
    assert!(matches!(world.run(changed, now), Err(Rejection::Conflict(_))));

    let renewed = Factor::Code { seed: seed_of(1), step: step_at(now), resealed: Some(seed_of(3)) };
    world.run(sign_in(&member, renewed, false, 500, now), now).unwrap();
    let seed = &world.state.account(member.id).unwrap().authenticator.as_ref().unwrap().seed;
    assert_eq!(*seed, seed_of(3), "it is sealed under the newest key from now on");
}

#[test]
fn a_recovery_code_is_good_once() {
    let (mut world, _, _, member) = peopled();
    let once = |seed| sign_in(&member, Factor::Recovery(recovery(1)), false, seed, at(60));

    world.run(once(500), at(60)).unwrap();

    assert!(matches!(world.run(once(501), at(60)), Err(Rejection::Conflict(_))));
    assert_eq!(world.state.account(member.id).unwrap().recovery, [recovery(2)]);
}

#[test]
fn a_reset_ends_every_login_and_wants_the_second_factor() {
    let (mut world, _, _, member) = peopled();
    let (now, late) = (at(600), at(600 + 3_600));
    let reset = |seed, now| Command::RequestReset(ticket(&member, seed, Purpose::Reset, now));
    world.run(reset(700, now), now).unwrap();
    let too_soon = world.run(reset(710, at(700)), at(700));
    assert!(matches!(too_soon, Err(Rejection::Conflict(_))), "one mail in five minutes");
    let finish = |seed, factor, now| Command::FinishReset {
        ticket: hash(seed),
        password: password(2),
        factor,
        login: Box::new(login(&member, seed + 1, now)),
    };

    assert_eq!(world.run(finish(700, code(late), late), late), Err(Rejection::NotFound));
    let wrong = Factor::Recovery(recovery(9));
    assert!(matches!(world.run(finish(700, wrong, now), now), Err(Rejection::Conflict(_))));
    world.run(finish(700, code(now), now), now).unwrap();
    assert!(world.state.signed_in(&hash(201), now).is_none());
    assert!(world.state.signed_in(&hash(701), now).is_some());
    assert_eq!(world.run(finish(700, code(at(660)), at(660)), at(660)), Err(Rejection::NotFound));
    assert_eq!(accept(&mut world, &member, 700, now), Err(Rejection::NotFound));
}

#[test]
fn a_recovery_replaces_the_authenticator_and_a_reset_link_cannot() {
    let (mut world, _, _, member) = peopled();
    let now = at(600);
    world.run(Command::RequestReset(ticket(&member, 700, Purpose::Reset, now)), now).unwrap();
    assert_eq!(accept(&mut world, &member, 700, now), Err(Rejection::NotFound));
    world.run(Command::Recover(ticket(&member, 720, Purpose::Recovery, now)), now).unwrap();
    assert!(world.state.signed_in(&hash(201), now).is_some(), "nothing yet");

    accept(&mut world, &member, 720, now).unwrap();

    assert!(world.state.signed_in(&hash(201), now).is_none());
    assert!(world.state.tickets_of(member.id).next().is_none(), "no other link is left");
}

#[test]
fn a_login_ends_when_it_is_idle_and_in_any_case() {
    let (mut world, _, _, member) = peopled();
    let is_in = |world: &World, secs| world.state.signed_in(&hash(201), at(secs)).is_some();
    assert!(is_in(&world, 12 * 3_600 - 1) && !is_in(&world, 12 * 3_600));

    let mut hours = 0;
    while is_in(&world, hours * 3_600) {
        world.run(Command::RenewLogin { login: hash(201) }, at(hours * 3_600)).unwrap();
        hours += 1;
    }
    assert_eq!(hours, 7 * 24);
    assert_eq!(
        world.run(Command::RenewLogin { login: hash(201) }, at(hours * 3_600)).unwrap_err(),
        Rejection::NotFound
    );
    assert!(world.state.logins_of(member.id, at(hours * 3_600)).is_empty());
}

#[test]
fn logins_of_a_user_are_bounded_and_the_idlest_makes_room() {
    let (mut world, _, _, member) = peopled();
    for n in 1..=20 {
        let now = at(n * 60);
        world.run(sign_in(&member, code(now), true, 1_000 + n, now), now).unwrap();
    }

    let now = at(20 * 60);
    let live: BTreeSet<TokenHash> =
        world.state.logins_of(member.id, now).iter().map(|row| row.record.hash).collect();
    assert_eq!(live, (5..=20).map(|n| hash(1_000 + n)).collect());
    let everywhere = Command::SignOutEverywhere { user: member.id };
    world.run(everywhere.clone(), now).unwrap();
    assert!(world.state.logins_of(member.id, now).is_empty());
    assert_eq!(decide(&world.state, &order(everywhere), now), Ok(Vec::new()));
}

#[test]
fn a_key_is_minted_for_an_admin_with_a_fresh_code_only() {
    let (mut world, org, admin, member) = peopled();
    let now = at(300);
    let key = |seed| Key {
        id: KeyId::from_random(bytes(seed)),
        org,
        name: label("key"),
        hash: hash(seed),
        scopes: ScopeSet::ALL,
        origins: Vec::new(),
        created_at: now,
        expires: Expiry::Never,
        revoked_at: None,
    };
    let mint = |user: &User, factor, seed| Command::MintKeyAs {
        user: user.id,
        factor,
        key: Box::new(key(seed)),
        pair: None,
    };

    assert!(world.run(mint(&member, code(now), 50), now).is_err());
    assert!(world.run(mint(&admin, Factor::Recovery(recovery(1)), 50), now).is_err());
    world.run(mint(&admin, code(now), 50), now).unwrap();
    assert!(world.run(mint(&admin, code(now), 51), now).is_err(), "the code is used up");
    assert!(world.run(sign_in(&admin, code(now), true, 500, now), now).is_err());
    assert!(world.state.key(KeyId::from_random(bytes(50))).is_some());
    assert!(world.state.key(KeyId::from_random(bytes(51))).is_none());
    let next = at(330);
    let locked = Command::MintKeyAs {
        user: admin.id,
        factor: code(next),
        key: Box::new(key(52)),
        pair: Some(Box::new(new_pair(org, 53, 60))),
    };
    world.run(locked, next).unwrap();
    let origins = &world.state.key(KeyId::from_random(bytes(52))).unwrap().origins;
    assert_eq!(*origins, [Origin::Pair(PairId::from_random(bytes(53)))]);
}

#[test]
fn no_more_than_33_guesses_a_day_reach_an_account() {
    let (mut world, _, _, member) = peopled();
    const DAY_SECS: u64 = 24 * 3_600;
    let mut counted = Vec::new();

    // Somebody who tries in every second, for three days.
    for secs in 0..3 * DAY_SECS {
        let try_in = Command::CountTry { user: member.id, is_known: false };
        if world.run(try_in, at(secs)).is_ok() {
            counted.push(secs);
        }
    }

    assert_eq!(counted[..5], [0, 1, 2, 3, 4], "a few tries are everybody's");
    for begin in &counted {
        let day = counted.iter().filter(|secs| (*begin..begin + DAY_SECS).contains(secs));
        assert!(day.count() <= 33, "from {begin}");
    }
    let longest = counted.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert_eq!(longest, Some(3_600), "nobody is shut out for longer");
    let known = Command::CountTry { user: member.id, is_known: true };
    world.run(known, at(3 * DAY_SECS)).expect("browsers that are known are counted by themselves");
}

#[test]
fn tries_are_forgotten_after_a_day_without_any_and_after_a_success() {
    let (mut world, _, _, member) = peopled();
    let try_in = |world: &mut World, secs: u64| {
        world.run(Command::CountTry { user: member.id, is_known: false }, at(secs)).is_ok()
    };
    let burst = |world: &mut World, secs: u64| (0..9).filter(|n| try_in(world, secs + n)).count();

    assert_eq!(burst(&mut world, 0), 5);
    assert_eq!(burst(&mut world, 10 + 24 * 3_600), 5);
    let now = at(400_000);
    assert!(try_in(&mut world, 400_000));
    world.run(sign_in(&member, code(now), false, 500, now), now).unwrap();
    assert_eq!(burst(&mut world, 400_001), 5);
}

/// One step of a random history of sign-ins.
#[derive(Debug, Clone)]
enum Turn {
    Wait(u64),
    /// Uses the code of so many steps ago, or ahead.
    Use(i64, bool),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        (0u64..70).prop_map(Turn::Wait),
        (-2i64..=2, any::<bool>()).prop_map(|(skew, mints)| Turn::Use(skew, mints)),
    ]
}

proptest! {
    #[test]
    fn no_step_is_ever_accepted_twice(turns in prop::collection::vec(any_turn(), 1..80)) {
        let (mut world, org, admin, _) = peopled();
        let (mut now, mut accepted) = (at(0), vec![step_at(at(0))]);
        for (n, turn) in (2_000..).zip(&turns) {
            let (skew, mints) = match turn {
                Turn::Wait(secs) => {
                    now = now.saturating_add(Duration::from_secs(*secs));
                    continue;
                }
                Turn::Use(skew, mints) => (*skew, *mints),
            };
            let step = step_at(now).saturating_add_signed(skew);
            let factor = Factor::Code { seed: seed_of(1), step, resealed: None };
            let command = if mints {
                let key = Key {
                    id: KeyId::from_random(bytes(n)),
                    org,
                    name: label("key"),
                    hash: hash(n),
                    scopes: ScopeSet::ALL,
                    origins: Vec::new(),
                    created_at: now,
                    expires: Expiry::Never,
                    revoked_at: None,
                };
                Command::MintKeyAs { user: admin.id, factor, key: Box::new(key), pair: None }
            } else {
                sign_in(&admin, factor, true, n, now)
            };
            let is_new = accepted.iter().all(|used| *used < step);
            let is_near = skew.unsigned_abs() <= 1;
            prop_assert_eq!(world.run(command, now).is_ok(), is_new && is_near);
            if is_new && is_near {
                accepted.push(step);
            }
        }
        prop_assert!(accepted.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(STEP, STEP_SECS);
    }

    #[test]
    fn whatever_is_tried_an_org_keeps_an_admin_who_can_sign_in(
        turns in prop::collection::vec((0usize..4, 0u8..5), 1..60),
    ) {
        let (mut world, org, admin, member) = peopled();
        let mut people = vec![admin, member];
        for (n, email) in [(3, "c@example.org"), (4, "d@example.org")] {
            people.push(user(org, n, email, Role::Admin));
        }
        for (n, (who, what)) in (5_000..).step_by(10).zip(turns) {
            let (user, now) = (people[who].clone(), at(n));
            let command = match what {
                0 => Command::RemoveUser { org, user: user.id },
                1 => Command::SetRole { org, user: user.id, role: Role::Member },
                2 => Command::SetRole { org, user: user.id, role: Role::Admin },
                3 => {
                    let id = UserId::from_random(bytes(n));
                    let anew = User { id, role: Role::Member, ..user };
                    people[who] = anew.clone();
                    let ticket = ticket(&anew, n, Purpose::Invitation, now);
                    Command::InviteUser { user: anew, ticket }
                }
                _ => {
                    let tickets: Vec<TokenHash> =
                        world.state.tickets_of(user.id).map(|ticket| ticket.hash).collect();
                    let Some(hash) = tickets.first() else { continue };
                    let welcome = Welcome {
                        password: password(1),
                        authenticator: Authenticator {
                            seed: seed_of(1),
                            last_step: 0,
                            enrolled_at: now,
                        },
                        recovery: Vec::new(),
                        login: login(&user, n, now),
                    };
                    Command::AcceptInvitation { ticket: *hash, welcome: Box::new(welcome) }
                }
            };
            drop(world.run(command, now));
            let users = world.state.org(org).unwrap().users.iter();
            let users = users.filter_map(|id| world.state.user(*id));
            let mut admins = users.filter(|user| user.role == Role::Admin);
            prop_assert!(admins.any(|user| world.state.account(user.id).unwrap().is_active()));
        }
    }
}
