//! Who may give which command, held against a table of every command and every kind of actor.

use std::mem::discriminant;

use super::people::{code, login, password, peopled, recovery, seed_of, sign_in, ticket, user};
use super::*;

/// An org with one of everything that acts, and others of another org.
struct Cast {
    world: World,
    org: OrgId,
    admin: User,
    member: User,
    key: KeyId,
    pair: PairId,
    group: GroupId,
    agent: AgentId,
    enrolment: EnrolmentId,
    /// Each with its letter in the table.
    actors: Vec<(char, Actor)>,
}

const NOW_SECS: u64 = 300;
/// How many kinds of commands there are.
const KINDS: usize = 41;

fn cast() -> Cast {
    let (mut world, org, admin, member) = peopled();
    let mut run = |command| world.run(command, at(0)).map(drop).unwrap();
    let other_admin = joined(&mut run, user(org, 3, "other@example.org", Role::Admin), 300);
    let other_member = joined(&mut run, user(org, 4, "fourth@example.org", Role::Member), 400);
    run(create_org(9));
    let elsewhere = OrgId::from_random(bytes(9));
    let stranger = joined(&mut run, user(elsewhere, 5, "far@example.org", Role::Admin), 500);
    for (org, seed) in [(org, 50), (org, 51), (elsewhere, 52)] {
        run(Command::MintKey(new_key(org, seed)));
    }
    let key = |seed| KeyId::from_random(bytes(seed));
    run(Command::RevokeKey { org, key: key(51) });
    let owned = Some("owner@example.org".parse().unwrap());
    run(Command::CreatePair(Pair { contact_email: owned, ..new_pair(org, 60, 60) }));
    run(Command::CreatePair(new_pair(org, 61, 60)));
    run(Command::CreateGroup(new_group(org, 70, None)));
    for seed in [80, 82] {
        let (enrolment, agent) = (EnrolmentId::from_random(bytes(seed)), agent(seed));
        run(Command::InviteAgent(new_enrolment(org, seed)));
        let pair = Box::new(new_pair(org, seed, 60));
        run(Command::Enrol { enrolment, agent, token: hash(seed + 7_000), pair });
    }
    run(Command::InviteAgent(new_enrolment(org, 84)));
    let pair = |seed| PairId::from_random(bytes(seed));
    let enrolment = |seed| EnrolmentId::from_random(bytes(seed));
    run(Command::AddMember(Member {
        id: MemberId::from_random(bytes(91)),
        org,
        group: GroupId::from_random(bytes(70)),
        kind: MemberKind::Pair(pair(60)),
        expires: Expiry::Never,
        added_at: at(0),
    }));
    run(Command::Report {
        pair: pair(60),
        bookmark: hash(120),
        address: [203, 0, 113, 9].into(),
        visit: Visit { id: 1, began: at(0) },
    });
    let actors = vec![
        ('O', Actor::Operator),
        ('A', Actor::User(admin.id)),
        ('a', Actor::User(other_admin.id)),
        ('x', Actor::User(stranger.id)),
        ('M', Actor::User(member.id)),
        ('m', Actor::User(other_member.id)),
        ('K', Actor::Key(key(50))),
        ('r', Actor::Key(key(51))),
        ('f', Actor::Key(key(52))),
        ('P', Actor::Pair(pair(60))),
        ('p', Actor::Pair(pair(61))),
        ('H', Actor::Agent(agent(80))),
        ('h', Actor::Agent(agent(82))),
        ('E', Actor::Enrolment(enrolment(84))),
        ('e', Actor::Enrolment(enrolment(80))),
        ('U', Actor::Unknown),
    ];
    Cast {
        org,
        admin,
        member,
        key: key(50),
        pair: pair(60),
        group: GroupId::from_random(bytes(70)),
        agent: agent(80),
        enrolment: enrolment(84),
        world,
        actors,
    }
}

fn joined(run: &mut impl FnMut(Command), user: User, seed: u64) -> User {
    let invitation = ticket(&user, seed, Purpose::Invitation, at(0));
    run(Command::InviteUser { user: user.clone(), ticket: invitation });
    let welcome = Box::new(welcome(&user, seed + 1));
    run(Command::AcceptInvitation { ticket: hash(seed), welcome });
    user
}

fn welcome(user: &User, seed: u64) -> Welcome {
    let authenticator = Authenticator { seed: seed_of(1), last_step: 0, enrolled_at: at(0) };
    let login = login(user, seed, at(0));
    Welcome { password: password(1), authenticator, recovery: vec![recovery(1)], login }
}

fn new_key(org: OrgId, seed: u64) -> Key {
    Key {
        id: KeyId::from_random(bytes(seed)),
        org,
        name: label("key"),
        hash: hash(seed + 9_000),
        scopes: ScopeSet::ALL,
        origins: vec![Origin::Network("203.0.113.0/24".parse().unwrap())],
        created_at: at(0),
        expires: Expiry::Never,
        revoked_at: None,
    }
}

fn new_enrolment(org: OrgId, seed: u64) -> Enrolment {
    Enrolment {
        id: EnrolmentId::from_random(bytes(seed)),
        org,
        name: label("web"),
        hash: hash(seed + 8_000),
        groups: BTreeSet::new(),
        created_at: at(0),
        expires_at: at(3_600),
        used_at: None,
    }
}

fn agent(seed: u64) -> AgentId {
    AgentId::from_random(bytes(seed))
}

impl Cast {
    /// Who of all actors may give the command, by letters.
    fn givers(&self, command: &Command) -> String {
        let may = |actor: Actor| {
            let order = Order { actor, source: None, command: command.clone() };
            decide(&self.world.state, &order, at(NOW_SECS)).is_ok()
        };
        self.actors.iter().filter(|(_, actor)| may(*actor)).map(|(letter, _)| *letter).collect()
    }

    /// What admins do, and what the operator does.
    fn of_the_org(&self) -> Vec<(&'static str, Command)> {
        let (org, key, pair, group, agent) =
            (self.org, self.key, self.pair, self.group, self.agent);
        let now = at(NOW_SECS);
        let network = "198.51.100.0/24".parse().unwrap();
        let origins = vec![Origin::Network("203.0.113.0/25".parse().unwrap())];
        let kind = MemberKind::Network { network, note: label("office") };
        let id = MemberId::from_random(bytes(90));
        let member = Member { id, org, group, kind, expires: Expiry::Never, added_at: now };
        let (another, pair_edit) =
            (hash(9_999), PairEdit { name: Some(label("new")), ..PairEdit::default() });
        let group_edit = GroupEdit { name: Some(label("new")), ttl: None };
        let user_of = |role| user(org, 7, "new@example.org", role);
        let invite = |role| {
            let user = user_of(role);
            Command::InviteUser { ticket: ticket(&user, 700, Purpose::Invitation, now), user }
        };
        let promote = Command::SetRole { org, user: self.member.id, role: Role::Admin };
        let minted = Box::new(new_key(org, 53));
        let (by, factor) = (self.admin.id, code(now));
        let with_factor = |command| {
            let command = Box::new(command);
            Command::WithFactor { user: by, factor: code(now), command }
        };
        let mailed = Command::NoteBookmarkMailed {
            org,
            pair,
            bookmark: hash(120),
            to: "owner@example.org".parse().unwrap(),
        };
        let everywhere = Command::SignOutEverywhere { user: self.member.id };
        vec![
            ("O", create_org(10)),
            ("O", Command::MintKey(new_key(org, 53))),
            (
                "O",
                Command::MintLockedKey {
                    key: minted.clone(),
                    pair: Box::new(new_pair(org, 62, 60)),
                },
            ),
            ("OA", Command::MintKeyAs { user: by, factor, key: minted, pair: None }),
            ("OAaK", Command::RevokeKey { org, key }),
            (
                "OAaK",
                Command::NarrowKey { org, key, scopes: ScopeSet::ALL, origins, expected: None },
            ),
            ("OAaK", Command::CreatePair(new_pair(org, 62, 60))),
            ("OAaK", Command::EditPair { org, pair, edit: pair_edit, expected: None }),
            ("OAaK", Command::DeletePair { org, pair, expected: None }),
            ("OAaK", Command::RotateBookmark { org, pair, hash: another, expected: None }),
            ("OAaK", Command::RotateServerKey { org, pair, hash: another, expected: None }),
            ("OAaK", Command::CloseAddresses { org, pair }),
            ("OAa", mailed),
            ("OAaK", Command::CreateGroup(new_group(org, 71, None))),
            ("OAaK", Command::EditGroup { org, group, edit: group_edit, expected: None }),
            ("OAaK", Command::DeleteGroup { org, group, expected: None }),
            ("OAaK", Command::AddMember(member)),
            (
                "OAaK",
                Command::RemoveMember { org, group, member: MemberId::from_random(bytes(91)) },
            ),
            ("OAa", Command::InviteAgent(new_enrolment(org, 86))),
            ("OAa", Command::SetAgentGroups { org, agent, groups: [group].into(), expected: None }),
            ("OAa", Command::RevokeAgent { org, agent }),
            ("OAa", invite(Role::Member)),
            ("O", invite(Role::Admin)),
            ("OA", with_factor(invite(Role::Admin))),
            ("O", promote.clone()),
            ("OA", with_factor(promote)),
            ("OAa", Command::RemoveUser { org, user: self.member.id }),
            ("O", with_factor(everywhere)),
        ]
    }

    /// What is about the way in of one user, the member.
    fn of_one_user(&self) -> Vec<(&'static str, Command)> {
        let (member, user, now) = (&self.member, self.member.id, at(NOW_SECS));
        let credentials = Credentials { password: password(1), factor: code(now), is_known: true };
        let codes = vec![recovery(9)];
        let authenticator = Authenticator { seed: seed_of(2), last_step: 0, enrolled_at: now };
        let reset = ticket(member, 710, Purpose::Reset, now);
        let (hash_of_login, login) = (hash(201), Box::new(login(member, 720, now)));
        vec![
            ("O", Command::Recover(ticket(member, 730, Purpose::Recovery, now))),
            ("OMU", Command::CountTry { user, is_known: true }),
            ("OMU", Command::RequestReset(reset)),
            ("OM", sign_in(member, code(now), true, 740, now)),
            ("OM", Command::RenewLogin { login: hash_of_login }),
            ("OM", Command::SignOut { user, login: hash_of_login }),
            ("OM", Command::SignOutEverywhere { user }),
            (
                "OM",
                Command::SetPassword {
                    user,
                    credentials: Box::new(credentials),
                    password: password(2),
                    kept: hash_of_login,
                },
            ),
            ("OM", Command::ReplaceAuthenticator { user, factor: code(now), authenticator }),
            ("OM", Command::ReplaceRecoveryCodes { user, factor: code(now), codes }),
            (
                "OM",
                Command::AcceptInvitation {
                    ticket: hash(750),
                    welcome: Box::new(welcome(member, 751)),
                },
            ),
            (
                "OM",
                Command::FinishReset {
                    ticket: hash(760),
                    password: password(2),
                    factor: code(now),
                    login,
                },
            ),
        ]
    }

    /// What devices and hosts say, and what is counted.
    fn of_machines(&self) -> Vec<(&'static str, Command)> {
        let (pair, agent, now) = (self.pair, self.agent, at(NOW_SECS));
        let visit = Visit { id: 2, began: now };
        let address = [203, 0, 113, 10].into();
        let (enrolment, own) = (self.enrolment, Box::new(new_pair(self.org, 84, 60)));
        let token = hash(7_084);
        let (target, detail) = (label("nft"), "full".to_owned());
        let refusal = Refusal::ForbiddenOrigin;
        vec![
            ("OP", Command::Report { pair, bookmark: hash(120), address, visit }),
            ("OH", Command::NoteFailedReceipt { agent, target, group: self.group, detail }),
            ("OE", Command::Enrol { enrolment, agent: self::agent(84), token, pair: own }),
            ("OKrfPpHhEeU", Command::NoteRefusals { org: self.org, refusal, count: 1, since: now }),
        ]
    }
}

#[test]
fn every_command_is_for_those_in_the_table_and_for_nobody_else() {
    let mut cast = cast();
    let recovery = ticket(&cast.member, 750, Purpose::Recovery, at(0));
    cast.world.run(Command::Recover(recovery), at(0)).unwrap();
    cast.world
        .run(Command::RequestReset(ticket(&cast.member, 760, Purpose::Reset, at(0))), at(0))
        .unwrap();

    let table = [cast.of_the_org(), cast.of_one_user(), cast.of_machines()].concat();
    for (givers, command) in &table {
        assert_eq!(cast.givers(command), *givers, "{command:?}");
    }
    let mut kinds = Vec::new();
    for kind in table.iter().map(|(_, command)| discriminant(command)) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    assert_eq!(kinds.len(), KINDS, "the table has a line for every kind");
}

#[test]
fn members_hear_that_it_takes_an_admin_and_others_that_it_is_not_there() {
    let cast = cast();
    let remove = Command::RemoveUser { org: cast.org, user: cast.member.id };
    let refused = |letter: char| {
        let (_, actor) = cast.actors.iter().find(|(other, _)| *other == letter).unwrap();
        let order = Order { actor: *actor, source: None, command: remove.clone() };
        decide(&cast.world.state, &order, at(NOW_SECS)).unwrap_err()
    };

    assert_eq!(refused('m'), Rejection::AdminsOnly);
    assert!("xKrfPpHhEeU".chars().all(|letter| refused(letter) == Rejection::NotFound));
}
