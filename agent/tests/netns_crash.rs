//! Two hundred times `kill -9` at random moments, under churn, with somebody knocking all the time.
//!
//! The control plane runs throughout; addresses are granted, prolonged, withdrawn and run out all
//! the time. The agent is killed, and started again at once. Connections from all of the addresses
//! are tried continuously, and `nft` is asked what the kernel holds. Each try is held to this,
//! with all times by the plane's clock:
//!
//! * **No valid address is refused** (G2). An address is valid from the end of a listing of `nft`
//!   that shows it, begun after it was granted, until a second before the kernel's deadline in
//!   that listing, a second before the plane's deadline, or the order to withdraw it, whichever is
//!   first. Each further listing, and so each prolongation that reached the kernel, moves this on.
//!   Whether the agent is dead, starting, or following from its cache makes no difference.
//! * **No expired address is admitted more than a second late** (G1), whether the agent lives or
//!   not: a try that began a second after the last deadline that was ever granted fails.
//! * **No withdrawn address is admitted more than a second after the agent could know** (G10): a
//!   try fails that began a second after both the withdrawal and the moment at which the present
//!   life of the agent was first heard of at the plane. So a dead agent delays a withdrawal by the
//!   time that it takes to start again, and never beyond the entry's deadline.
//! * A fail-safe address is admitted always (G11), one that was never granted never.
//!
//! Kills happen after a random number of further tries: a third of them counted from the start of
//! the process, before it follows anything, the others from the moment that it follows; some of
//! these live for seconds.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

#[expect(dead_code, reason = "the tests of the targets use the rest")]
#[path = "netns/mod.rs"]
mod netns;
#[expect(dead_code, reason = "the tests from end to end use the rest")]
mod rig;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use postern_controlplane::domain::{Command, Visit};
use postern_shared::ids::{MemberId, PairId};
use postern_shared::time::Timestamp;

use rig::clients::knock;
use rig::host::FAILSAFE;
use rig::{PATIENCE, World, eventually, kernel};

const SEED: u64 = 0x706f_7374_6572_6e01;
const KILLS: usize = 200;
/// Everybody who may be granted: few enough that each is tried many times in its life.
const ADDRESSES: usize = 24;
/// Those who knock at one time.
const KNOCKERS: usize = 12;
/// By how much a deadline or a withdrawal may be missed.
const LATE_MAX: Duration = Duration::from_secs(1);
/// Tries between two changes of the plane.
const TRIES_PER_CHANGE: u64 = 10;
/// Tries between two looks at the kernel.
const TRIES_PER_LISTING: u64 = 12;
/// Tries in a life that is long enough for a withdrawal to become due.
const LONG_LIFE_TRIES: u64 = 1_000;
/// Lifetimes of grants, in seconds; each address has one of them.
const TTL_SECS: std::ops::Range<u64> = 2..9;
/// More than any grant takes to be carried out.
const ORDERED_MAX: Duration = Duration::from_secs(10);

/// Random numbers that repeat themselves.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What an address is entitled to.
#[derive(Debug, Default, Clone)]
struct Account {
    /// Its membership of the group, while it has one.
    member: Option<MemberId>,
    /// When the first of the present grants was ordered.
    granted_at: Option<Timestamp>,
    /// The last of all deadlines ever granted.
    deadline: Option<Timestamp>,
    withdrawn_at: Option<Timestamp>,
    /// The kernel was seen without it after its end: it may be granted anew.
    is_gone: bool,
    /// It must be admitted from the first to the second.
    valid: Option<(Timestamp, Timestamp)>,
}

impl Account {
    /// Whether anything was ordered for it that the kernel may still show.
    fn is_open(&self) -> bool {
        !self.is_gone && (self.granted_at.is_some() || self.withdrawn_at.is_some())
    }
}

/// What must hold, and what was seen.
#[derive(Debug, Default)]
struct Ledger {
    accounts: BTreeMap<IpAddr, Account>,
    /// Since when the present life of the agent is known to the plane.
    following_since: Option<Timestamp>,
    tries: u64,
    admitted_as_due: u64,
    refused_after_deadline: u64,
    refused_after_withdrawal: u64,
    expired: u64,
    withdrawn: u64,
    failsafe: u64,
    strangers: u64,
    violations: Vec<String>,
    is_over: bool,
}

/// The ledger, and the bell that rings at each try.
#[derive(Default)]
struct Court {
    ledger: Mutex<Ledger>,
    tried: Condvar,
}

impl Court {
    /// Waits until so many further tries were made; answers false when all is over.
    fn pass(&self, tries: u64) -> bool {
        let mut ledger = self.ledger.lock().unwrap();
        let until = ledger.tries + tries;
        let started = Instant::now();
        while ledger.tries < until && !ledger.is_over {
            assert!(started.elapsed() < PATIENCE, "nobody knocks any more");
            ledger = self.tried.wait_timeout(ledger, Duration::from_secs(1)).unwrap().0;
        }
        !ledger.is_over
    }

    fn write<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger.lock().unwrap();
        let changed = change(&mut ledger);
        self.tried.notify_all();
        changed
    }
}

impl Ledger {
    /// Judges a try that began and ended at these times.
    fn judge(&mut self, source: IpAddr, began: Timestamp, ended: Timestamp, is_admitted: bool) {
        self.tries += 1;
        let Some(account) = self.accounts.get(&source) else { return };
        let valid = account.valid.is_some_and(|(from, until)| from <= began && ended <= until);
        let is_expired = account.deadline.is_none_or(|end| end.saturating_add(LATE_MAX) < began);
        let is_withdrawn =
            account.withdrawn_at.zip(self.following_since).is_some_and(|(withdrawn, following)| {
                withdrawn.max(following).saturating_add(LATE_MAX) < began
            });
        let violation = match is_admitted {
            true if is_expired => Some("admitted though it has expired"),
            true if is_withdrawn => Some("admitted though it was withdrawn"),
            false if valid => Some("refused though it is valid"),
            true | false => None,
        };
        if let Some(what) = violation {
            let line = format!(
                "{source} {what}, at {began} to {ended}: {account:?}, following since {:?}",
                self.following_since
            );
            self.violations.push(line);
        }
        self.admitted_as_due += u64::from(valid);
        self.refused_after_withdrawal += u64::from(is_withdrawn && !is_expired);
        self.refused_after_deadline += u64::from(is_expired && account.deadline.is_some());
    }

    /// Takes what a listing of the kernel, begun at `began` and ended at `ended`, showed.
    fn listed(&mut self, shown: &BTreeMap<String, Duration>, began: Timestamp, ended: Timestamp) {
        for (source, account) in &mut self.accounts {
            let prefix = if source.is_ipv4() { 32 } else { 128 };
            let left = shown.get(&format!("{source}/{prefix}"));
            let granted = account.granted_at.is_some_and(|granted| granted < began);
            match (left, granted, account.deadline) {
                (Some(left), true, Some(deadline)) => {
                    let left = left.saturating_sub(LATE_MAX);
                    let until = began.saturating_add(left).min(deadline.saturating_sub(LATE_MAX));
                    let (from, known) = account.valid.unwrap_or((ended, until));
                    account.valid = Some((from, until.max(known)));
                }
                // Gone from the kernel after its end: it may be granted anew.
                (None, _, Some(deadline)) if account.is_open() => {
                    if account.withdrawn_at.unwrap_or(deadline) < began {
                        self.expired += u64::from(account.withdrawn_at.is_none());
                        self.withdrawn += u64::from(account.withdrawn_at.is_some());
                        (account.is_gone, account.granted_at, account.valid) = (true, None, None);
                    }
                }
                (Some(_) | None, _, _) => {}
            }
        }
    }
}

#[test]
fn no_kill_shuts_out_the_valid_or_lets_in_the_expired() {
    let world = World::new();
    let court = Arc::new(Court::default());
    let mut dice = Dice(SEED);
    let rovers: Vec<Rover> = (1..=ADDRESSES)
        .map(|number| {
            let address = match number % 4 {
                0 => format!("2001:db8:1::{number:x}"),
                _ => format!("10.0.0.{number}"),
            };
            let ttl_secs = TTL_SECS.start + dice.below(TTL_SECS.end - TTL_SECS.start);
            let pair = world.plane.pair(world.org, ttl_secs).id;
            let ttl = Duration::from_secs(ttl_secs);
            Rover { address: address.parse().unwrap(), pair, ttl }
        })
        .collect();
    let addresses: Vec<IpAddr> = rovers.iter().map(|rover| rover.address).collect();
    court.write(|ledger| {
        ledger.accounts = addresses.iter().map(|one| (*one, Account::default())).collect();
    });
    // From here on there is a gate, and it stays.
    let agent = world.start();
    knock_for_ever(&world, &court, &addresses);

    let lives = std::thread::scope(|scope| {
        scope.spawn(|| churn(&world, &court, &rovers));
        scope.spawn(|| list(&world, &court));
        let lives = kill_again_and_again(&world, &court, agent);
        court.write(|ledger| ledger.is_over = true);
        lives
    });

    let ledger = court.ledger.lock().unwrap();
    println!(
        "kills={} tries={} valid={} after_deadline={} after_withdrawal={} failsafe={} strangers={} \
         expired={} withdrawn={} slowest_start_ms={} violations={}",
        lives.kills,
        ledger.tries,
        ledger.admitted_as_due,
        ledger.refused_after_deadline,
        ledger.refused_after_withdrawal,
        ledger.failsafe,
        ledger.strangers,
        ledger.expired,
        ledger.withdrawn,
        lives.slowest_start.as_millis(),
        ledger.violations.len(),
    );
    let shown: Vec<&String> = ledger.violations.iter().take(20).collect();
    assert!(ledger.violations.is_empty(), "seed {SEED:#x}: {shown:#?}");
    // What was never put to the test proves nothing.
    assert_eq!(lives.kills, KILLS);
    for (what, count, least) in [
        ("tries of valid addresses", ledger.admitted_as_due, 1_000),
        ("tries after a deadline", ledger.refused_after_deadline, 1_000),
        ("tries after a withdrawal", ledger.refused_after_withdrawal, 20),
        ("tries of the fail-safe address", ledger.failsafe, 200),
        ("tries of strangers", ledger.strangers, 200),
        ("addresses that expired", ledger.expired, 40),
        ("addresses that were withdrawn", ledger.withdrawn, 20),
    ] {
        assert!(least <= count, "only {count} {what}");
    }
}

/// Has all addresses tried, one after the other, by several at a time.
fn knock_for_ever(world: &World, court: &Arc<Court>, addresses: &[IpAddr]) {
    let failsafe: IpAddr = FAILSAFE.parse().unwrap();
    let stranger: IpAddr = "198.51.100.66".parse().unwrap();
    for knocker in 0..KNOCKERS {
        let (court, engine) = (Arc::clone(court), world.plane.engine.clone());
        let mut sources = addresses.to_vec();
        sources.extend([failsafe, stranger]);
        let turn = knocker * sources.len() / KNOCKERS;
        sources.rotate_left(turn);
        world.clients.spawn(async move {
            for source in sources.into_iter().cycle() {
                let began = engine.now();
                let Some(is_admitted) = knock(source).await else { continue };
                let ended = engine.now();
                let is_over = court.write(|ledger| {
                    ledger.judge(source, began, ended, is_admitted);
                    ledger.failsafe += u64::from(source == failsafe);
                    ledger.strangers += u64::from(source == stranger);
                    if is_admitted != (source == failsafe) && [failsafe, stranger].contains(&source)
                    {
                        let what = format!("{source} is_admitted={is_admitted} at {began}");
                        ledger.violations.push(what);
                    }
                    ledger.is_over
                });
                if is_over {
                    return;
                }
            }
        });
    }
}

/// An address and the pair that reports it.
struct Rover {
    address: IpAddr,
    pair: PairId,
    ttl: Duration,
}

/// Grants, prolongs and withdraws.
fn churn(world: &World, court: &Court, rovers: &[Rover]) {
    let mut dice = Dice(SEED);
    while court.pass(TRIES_PER_CHANGE) {
        let rover = &rovers[usize::try_from(dice.below(rovers.len() as u64)).unwrap()];
        let account = court.write(|ledger| ledger.accounts[&rover.address].clone());
        let now = world.plane.now();
        let is_ended = account.withdrawn_at.is_some()
            || account.granted_at.is_some() && account.deadline.is_some_and(|end| end <= now);
        let is_ended = is_ended && !account.is_gone;
        // What has ended is left alone until the kernel was seen without it, and then for a while.
        let roll = dice.below(12);
        match account.member.filter(|_| account.granted_at.is_some()) {
            _ if is_ended => {}
            Some(member) if roll < 2 => withdraw(world, court, rover, member),
            None if roll < 3 => grant(world, court, rover, account.member, dice.below(u64::MAX)),
            Some(member) if roll < 4 => {
                grant(world, court, rover, Some(member), dice.below(u64::MAX));
            }
            Some(_) | None => {}
        }
    }
}

/// Has a pair report its address, and makes it a member where it is none.
fn grant(world: &World, court: &Court, rover: &Rover, member: Option<MemberId>, visit: u64) {
    let Rover { address, pair, ttl } = *rover;
    let began = world.plane.now();
    court.write(|ledger| {
        let account = ledger.accounts.get_mut(&address).unwrap();
        account.granted_at.get_or_insert(began);
        (account.withdrawn_at, account.is_gone) = (None, false);
        account.deadline = Some(began.saturating_add(ttl + ORDERED_MAX));
    });
    let visit = Visit { id: visit, began };
    let bookmark = world.plane.bookmark_of(pair);
    let done = world.plane.order(Command::Report { pair, bookmark, address, visit });
    let member = member.unwrap_or_else(|| world.plane.add_pair(world.org, world.group, pair));
    court.write(|ledger| {
        let account = ledger.accounts.get_mut(&address).unwrap();
        (account.member, account.deadline) = (Some(member), Some(done.at.saturating_add(ttl)));
    });
}

fn withdraw(world: &World, court: &Court, rover: &Rover, member: MemberId) {
    court.write(|ledger| {
        let account = ledger.accounts.get_mut(&rover.address).unwrap();
        (account.valid, account.granted_at, account.member) = (None, None, None);
    });
    let (org, group) = (world.org, world.group);
    world.plane.order(Command::RemoveMember { org, group, member });
    let now = world.plane.now();
    court.write(|ledger| {
        ledger.accounts.get_mut(&rover.address).unwrap().withdrawn_at = Some(now);
    });
}

/// Asks `nft` again and again what the kernel holds.
fn list(world: &World, court: &Court) {
    while court.pass(TRIES_PER_LISTING) {
        let began = world.plane.now();
        let shown = kernel::entries(world.group);
        let ended = world.plane.now();
        court.write(|ledger| ledger.listed(&shown, began, ended));
    }
}

struct Lives {
    kills: usize,
    slowest_start: Duration,
}

fn kill_again_and_again(world: &World, court: &Court, first: rig::host::Agent) -> Lives {
    let mut dice = Dice(!SEED);
    let id = world.plane.agent(world.org);
    let mut lives = Lives { kills: 0, slowest_start: Duration::ZERO };
    let mut agent = first;
    while lives.kills < KILLS {
        court.pass(1 + dice.below(20));
        court.write(|ledger| ledger.following_since = None);
        agent.kill();
        lives.kills += 1;
        let started_at = world.plane.now();
        agent = world.host.start();
        if dice.below(3) == 0 {
            continue;
        }
        let took = eventually("the agent is heard of", || {
            world.plane.heard_of(id).is_some_and(|heard| started_at < heard.at)
        });
        lives.slowest_start = lives.slowest_start.max(took);
        court.write(|ledger| ledger.following_since = Some(world.plane.now()));
        court.pass(if dice.below(10) == 0 { LONG_LIFE_TRIES } else { dice.below(40) });
    }
    lives
}
