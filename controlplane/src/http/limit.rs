//! Budgets of requests: by source address, by credential, and for failed authentication.
//!
//! The arithmetic (GCRA) is governor's; the table and the time are ours: a table holds a fixed
//! number of callers, and `now` is an argument.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::Clock;
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{NotUntil, Quota, RateLimiter};
use postern_shared::network::Network;
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;

use crate::clock::advance;
use crate::http::problem::{ApiError, whole_secs};

/// Callers that one table holds; further ones share one budget until there is room.
const CALLERS_MAX: usize = 65_536;

/// Bookmarks whose moves one table holds. Only those in force get there, and the devices of a large org
/// may all get other addresses at once: none of them shall find that others have used its moves up.
const BOOKMARKS_MAX: usize = 1 << 20;

/// Callers that are looked at for removal when a table is full, so that one request never pays
/// for a walk over all of it.
const SWEEP_LEN: usize = 256;

/// How many keys' budgets all keys of one org may use together.
const KEYS_OF_ORG: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");

/// One budget: bursts of `burst` requests, refilled evenly over `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests at once.
    pub burst: NonZeroU32,
    /// In how long an empty budget is full again.
    pub window: Duration,
}

/// The budgets of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests that change nothing.
    pub reads: Budget,
    /// Requests that change something.
    pub writes: Budget,
    /// Failed authentications of one source.
    pub failures: Budget,
    /// Failed authentications of everybody; beyond it a source that has failed lately is heard
    /// no more.
    pub failures_of_all: Budget,
    /// Moves of one bookmark: reports that take away an address that counts.
    pub moves: Budget,
}

impl RateLimits {
    /// What an ordinary installation needs: a person's browser and scripts never meet them.
    pub const DEFAULT: RateLimits = RateLimits {
        reads: per_minute(1_200),
        writes: per_minute(300),
        failures: per_minute(20),
        failures_of_all: per_minute(6_000),
        moves: Budget::per_hour(NonZeroU32::new(6).expect("six is not zero")),
    };
}

const fn per_minute(burst: u32) -> Budget {
    Budget::per_minute(NonZeroU32::new(burst).expect("a default budget is more than nothing"))
}

impl Budget {
    /// `burst` requests a minute.
    pub const fn per_minute(burst: NonZeroU32) -> Budget {
        Budget { burst, window: Duration::from_secs(60) }
    }

    /// `burst` requests an hour.
    pub const fn per_hour(burst: NonZeroU32) -> Budget {
        Budget { burst, window: Duration::from_secs(60 * 60) }
    }

    /// What all keys of one org have together.
    fn of_org(self) -> Budget {
        Budget { burst: self.burst.saturating_mul(KEYS_OF_ORG), ..self }
    }
}

/// Whose budget a request is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(CallerKey);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum CallerKey {
    Source(Network),
    Record([u8; 16]),
    /// Everybody for whom a full table has no room.
    Strangers,
}

impl Caller {
    /// A source address; of IPv6 the whole /64 counts as one, since that is what one host has.
    pub fn source(address: IpAddr) -> Caller {
        const HOST_NET_V6: u8 = 64;
        let whole = Network::host(address);
        let net = Network::containing(whole.address(), whole.prefix().min(HOST_NET_V6));
        Caller(CallerKey::Source(net.unwrap_or(whole)))
    }

    /// A record, by its id: a key, a pair, an agent, an org.
    pub fn record(id: &[u8; 16]) -> Caller {
        Caller(CallerKey::Record(*id))
    }

    /// A bookmark; the one that takes its place begins with a budget of its own.
    pub fn bookmark(hash: &TokenHash) -> Caller {
        let (half, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        Caller(CallerKey::Record(*half))
    }
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// It changes nothing.
    Read,
    /// It changes something.
    Write,
}

/// How a caller stands with its budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    policy: &'static str,
    budget: Budget,
    remaining: u32,
}

/// A budget is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// Which budget.
    pub policy: &'static str,
    /// When the next request will be taken.
    pub retry_after: Duration,
    /// What the header fields say.
    pub standing: Standing,
}

impl From<Exhausted> for ApiError {
    fn from(exhausted: Exhausted) -> ApiError {
        ApiError::RateLimited(exhausted)
    }
}

impl Exhausted {
    /// The wait in whole seconds, at least one.
    pub fn retry_after_secs(&self) -> u64 {
        whole_secs(self.retry_after)
    }
}

impl Standing {
    /// Requests left at once.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Requests at once when the budget is full.
    pub(crate) fn burst(&self) -> u32 {
        self.budget.burst.get()
    }

    /// Writes `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let Standing { policy, budget, remaining } = self;
        let refill = budget.window / budget.burst.get();
        let to_full = whole_secs(refill * budget.burst.get().saturating_sub(*remaining));
        let window = whole_secs(budget.window);
        let quota = budget.burst;
        for (name, text) in [
            (RATELIMIT, written(format_args!("\"{policy}\";r={remaining};t={to_full}"))),
            (RATELIMIT_POLICY, written(format_args!("\"{policy}\";q={quota};w={window}"))),
        ] {
            headers.insert(name, text);
        }
    }
}

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The value of a header field; every answer has two of these, so each is written in place and copied
/// once.
fn written(text: fmt::Arguments<'_>) -> HeaderValue {
    const BYTES_MAX: usize = 96;
    let mut bytes = [0; BYTES_MAX];
    let mut rest = bytes.as_mut_slice();
    rest.write_fmt(text).expect("a policy's name is short, and so are its numbers");
    let len = BYTES_MAX - rest.len();
    HeaderValue::from_bytes(&bytes[..len]).expect("a policy's name is plain text")
}

/// All the budgets.
pub struct Limiter {
    reads: Table,
    writes: Table,
    reads_of_org: Table,
    writes_of_org: Table,
    failures: Table,
    failures_of_all: Table,
    moves: Table,
    frozen: Table,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl Limiter {
    /// Makes full budgets.
    pub fn new(limits: &RateLimits) -> Limiter {
        Limiter {
            reads: Table::new("reads", limits.reads, CALLERS_MAX),
            writes: Table::new("writes", limits.writes, CALLERS_MAX),
            reads_of_org: Table::new("reads_of_org", limits.reads.of_org(), CALLERS_MAX),
            writes_of_org: Table::new("writes_of_org", limits.writes.of_org(), CALLERS_MAX),
            failures: Table::new("authentication", limits.failures, CALLERS_MAX),
            failures_of_all: Table::new("authentication", limits.failures_of_all, 1),
            moves: Table::new("moves", limits.moves, BOOKMARKS_MAX),
            frozen: Table::new("frozen", Budget::per_hour(NonZeroU32::MIN), CALLERS_MAX),
        }
    }

    /// Takes one request from the budget of `caller`.
    pub fn take(&self, tier: Tier, caller: Caller, now: Timestamp) -> Result<Standing, Exhausted> {
        match tier {
            Tier::Read => self.reads.take(caller, now),
            Tier::Write => self.writes.take(caller, now),
        }
    }

    /// Takes one request from the budget that all keys of an org share.
    pub fn take_of_org(
        &self,
        tier: Tier,
        org: Caller,
        now: Timestamp,
    ) -> Result<Standing, Exhausted> {
        match tier {
            Tier::Read => self.reads_of_org.take(org, now),
            Tier::Write => self.writes_of_org.take(org, now),
        }
    }

    /// Takes one move of a bookmark.
    pub fn take_move(&self, bookmark: Caller, now: Timestamp) -> Result<Standing, Exhausted> {
        self.moves.take(bookmark, now)
    }

    /// Notes that a move of the bookmark was refused; answers whether that is news: once an hour.
    pub fn freeze(&self, bookmark: Caller, now: Timestamp) -> bool {
        self.frozen.take(bookmark, now).is_ok()
    }

    /// For how long a bookmark, of which a move was refused, may not move. Takes nothing.
    pub fn frozen_for(&self, bookmark: Caller, now: Timestamp) -> Option<Duration> {
        let was_refused = self.frozen.has_used(bookmark, now);
        let exhausted = was_refused.then(|| self.moves.look(bookmark, now).err()).flatten()?;
        Some(exhausted.retry_after)
    }

    /// Says whether `source` may try a secret that can be guessed, or that takes work to check:
    /// there the wait comes before the look, whatever is brought. Takes nothing.
    pub fn may_guess(&self, source: Caller, now: Timestamp) -> Result<(), Exhausted> {
        self.failures.look(source, now)?;
        self.look_at_all(source, now)
    }

    /// Counts a failed authentication of `source`; refused when it has failed too often.
    ///
    /// Who brings a secret in force never comes here, whatever others at the same address did:
    /// one guesser behind a shared address would else shut out everybody behind it. A guesser
    /// learns nothing from that. A success shows by itself, and no budget makes a secret of thirty
    /// random characters guessable; what is kept down is the load and the noise of failures.
    ///
    /// When everybody together fails too often, sources that failed lately have to wait; others
    /// do not, so that a crowd of guessers spoils nobody else's first mistake.
    pub fn authentication_failed(&self, source: Caller, now: Timestamp) -> Result<(), Exhausted> {
        self.look_at_all(source, now)?;
        self.failures.take(source, now)?;
        // Used up, it stays so: there is nothing more to count.
        drop(self.failures_of_all.take(EVERYBODY, now));
        Ok(())
    }

    /// Holds a source that failed lately to the budget of everybody's failures.
    fn look_at_all(&self, source: Caller, now: Timestamp) -> Result<(), Exhausted> {
        if self.failures.has_used(source, now) {
            self.failures_of_all.look(EVERYBODY, now)?;
        }
        Ok(())
    }
}

const EVERYBODY: Caller = Caller(CallerKey::Strangers);

/// One budget for each of many callers.
struct Table {
    policy: &'static str,
    budget: Budget,
    now: Hand,
    seats: Arc<Seats>,
    taking: RateLimiter<Caller, Taking, Hand, StateInformationMiddleware>,
    looking: RateLimiter<Caller, Looking, Hand, StateInformationMiddleware>,
}

impl Table {
    fn new(policy: &'static str, budget: Budget, callers_max: usize) -> Table {
        let now = Hand::default();
        let refill = budget.window / budget.burst.get();
        let quota = Quota::with_period(refill.max(Duration::from_nanos(1)))
            .expect("a nanosecond is not zero")
            .allow_burst(budget.burst);
        let seats = Arc::new(Seats { now: now.clone(), callers_max, used: Mutex::default() });
        Table {
            taking: RateLimiter::new(quota, Taking(Arc::clone(&seats)), now.clone()),
            looking: RateLimiter::new(quota, Looking(Arc::clone(&seats)), now.clone()),
            policy,
            budget,
            now,
            seats,
        }
    }

    fn take(&self, caller: Caller, now: Timestamp) -> Result<Standing, Exhausted> {
        self.now.advance(now);
        match self.taking.check_key(&caller) {
            Ok(snapshot) => Ok(self.standing(&snapshot)),
            Err(refusal) => Err(self.exhausted(&refusal)),
        }
    }

    fn look(&self, caller: Caller, now: Timestamp) -> Result<(), Exhausted> {
        self.now.advance(now);
        match self.looking.check_key(&caller) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(self.exhausted(&refusal)),
        }
    }

    /// Says whether the budget of `caller` is less than full.
    fn has_used(&self, caller: Caller, now: Timestamp) -> bool {
        self.now.advance(now);
        self.seats.seat(&self.seats.lock(), caller).1.is_some_and(|full| self.now.nanos() < full)
    }

    fn standing(&self, snapshot: &StateSnapshot) -> Standing {
        let remaining = snapshot.remaining_burst_capacity();
        Standing { policy: self.policy, budget: self.budget, remaining }
    }

    fn exhausted(&self, refusal: &NotUntil<Duration>) -> Exhausted {
        Exhausted {
            policy: self.policy,
            retry_after: refusal.wait_time_from(self.now.now()),
            standing: Standing { policy: self.policy, budget: self.budget, remaining: 0 },
        }
    }
}

/// The times at which budgets will be full again, for at most `callers_max` callers.
struct Seats {
    now: Hand,
    callers_max: usize,
    used: Mutex<BTreeMap<Caller, Nanos>>,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Caller, Nanos>> {
        self.used.lock().expect("nothing panics while it holds this lock")
    }

    /// Where the use of `caller` is written down: with the strangers when there is no room.
    fn seat(&self, used: &BTreeMap<Caller, Nanos>, caller: Caller) -> (Caller, Option<Nanos>) {
        match used.get(&caller) {
            Some(full_at) => (caller, Some(*full_at)),
            None if used.len() < self.callers_max => (caller, None),
            None => (EVERYBODY, used.get(&EVERYBODY).copied()),
        }
    }

    /// Makes room: a caller whose budget is full again needs no seat.
    fn sweep(&self, used: &mut BTreeMap<Caller, Nanos>, around: Caller) {
        let now = self.now.nanos();
        let is_full = |(caller, full_at): (&Caller, &Nanos)| (*full_at <= now).then_some(*caller);
        let rest = used.range(around..).chain(used.range(..around)).take(SWEEP_LEN);
        let full: Vec<Caller> = rest.filter_map(is_full).collect();
        for caller in full {
            used.remove(&caller);
        }
    }
}

/// Writes down what is used.
struct Taking(Arc<Seats>);

/// Leaves everything as it is.
struct Looking(Arc<Seats>);

impl StateStore for Taking {
    type Key = Caller;

    fn measure_and_replace<T, F, E>(&self, caller: &Caller, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut used = self.0.lock();
        if used.len() >= self.0.callers_max && !used.contains_key(caller) {
            self.0.sweep(&mut used, *caller);
        }
        let (seat, full_at) = self.0.seat(&used, *caller);
        let (outcome, full_at) = f(full_at)?;
        used.insert(seat, full_at);
        Ok(outcome)
    }
}

impl StateStore for Looking {
    type Key = Caller;

    fn measure_and_replace<T, F, E>(&self, caller: &Caller, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (_, full_at) = self.0.seat(&self.0.lock(), *caller);
        f(full_at).map(|(outcome, _)| outcome)
    }
}

/// The time as it was last told; it never goes back.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn advance(&self, now: Timestamp) {
        advance(&self.0, now);
    }

    fn nanos(&self) -> Nanos {
        Nanos::from(self.now())
    }
}

impl Clock for Hand {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const BUDGET: Budget =
        Budget { burst: NonZeroU32::new(3).unwrap(), window: Duration::from_secs(3) };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_700_000_000_000 + ms).unwrap()
    }

    fn v4(last: u32) -> Caller {
        Caller::source(IpAddr::V4(Ipv4Addr::from_bits(0xcb00_7100 + last)))
    }

    #[test]
    fn a_budget_is_a_burst_that_refills() {
        let table = Table::new("reads", BUDGET, 8);

        let remaining: Vec<u32> =
            (0..3).map(|_| table.take(v4(1), at(0)).unwrap().remaining()).collect();
        let refused = table.take(v4(1), at(0)).unwrap_err();

        assert_eq!(remaining, [2, 1, 0]);
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        table.take(v4(1), at(999)).unwrap_err();
        table.take(v4(1), at(1_000)).unwrap();
        table.take(v4(1), at(1_000)).unwrap_err();
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let table = Table::new("reads", BUDGET, 8);
        for _ in 0..3 {
            table.take(v4(1), at(10_000)).unwrap();
        }

        table.take(v4(1), at(0)).unwrap_err();
    }

    #[test]
    fn callers_have_budgets_of_their_own_and_a_v6_network_has_one() {
        let table = Table::new("reads", BUDGET, 8);
        let v6 = |net: u16, host: u16| {
            Caller::source(Ipv6Addr::new(0x2001, 0xdb8, 0, net, 0, 0, 0, host).into())
        };

        for host in 0..3 {
            table.take(v6(1, host), at(0)).unwrap();
        }

        table.take(v6(1, 99), at(0)).unwrap_err();
        table.take(v6(2, 0), at(0)).unwrap();
        table.take(v4(1), at(0)).unwrap();
        assert_eq!(v4(1), Caller::source("::ffff:203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn a_full_table_stays_full_and_lets_those_it_knows_go_on() {
        let table = Table::new("reads", BUDGET, 8);
        for caller in 0..8 {
            table.take(v4(caller), at(0)).unwrap();
        }

        let strangers = (100..200).filter(|caller| table.take(v4(*caller), at(0)).is_ok()).count();

        assert_eq!(strangers, 3);
        assert_eq!(table.seats.lock().len(), 9, "eight callers and the strangers' one seat");
        table.take(v4(0), at(0)).unwrap();
        let later = (300..308).filter(|caller| table.take(v4(*caller), at(60_000)).is_ok()).count();
        assert_eq!(later, 8);
        assert!(table.seats.lock().len() <= 9);
    }

    #[test]
    fn each_source_has_its_own_failures() {
        let limits = RateLimits { failures: BUDGET, ..RateLimits::DEFAULT };
        let limiter = Limiter::new(&limits);
        for _ in 0..3 {
            limiter.authentication_failed(v4(1), at(0)).unwrap();
        }

        let refused = limiter.authentication_failed(v4(1), at(0)).unwrap_err();

        assert_eq!(refused.retry_after_secs(), 1);
        limiter.authentication_failed(v4(2), at(0)).unwrap();
        limiter.authentication_failed(v4(1), at(1_000)).unwrap();
    }

    #[test]
    fn a_large_org_that_moves_at_once_shares_no_budget_of_moves() {
        let limiter = Limiter::new(&RateLimits::DEFAULT);
        let bookmark = |number: u32| Caller::record(&u128::from(number).to_be_bytes());

        let refused = (0..100_000).filter(|it| limiter.take_move(bookmark(*it), at(0)).is_err());

        assert_eq!(refused.count(), 0);
    }

    #[test]
    fn a_crowd_of_guessers_shuts_out_only_itself() {
        let limits = RateLimits { failures_of_all: BUDGET, ..RateLimits::DEFAULT };
        let limiter = Limiter::new(&limits);

        for guesser in 0..100 {
            limiter.authentication_failed(v4(guesser), at(0)).unwrap();
        }

        limiter.authentication_failed(v4(7), at(0)).unwrap_err();
        limiter.authentication_failed(v4(200), at(0)).unwrap();
        limiter.authentication_failed(v4(7), at(120_000)).unwrap();
    }

    #[test]
    fn the_header_fields_say_how_the_caller_stands() {
        let table = Table::new("reads", BUDGET, 8);
        let mut headers = HeaderMap::new();

        table.take(v4(1), at(0)).unwrap().write(&mut headers);

        assert_eq!(headers["ratelimit"], "\"reads\";r=2;t=1");
        assert_eq!(headers["ratelimit-policy"], "\"reads\";q=3;w=3");
    }

    #[test]
    fn the_keys_of_an_org_share_ten_keys_budgets() {
        let limits = RateLimits { writes: BUDGET, ..RateLimits::DEFAULT };
        let limiter = Limiter::new(&limits);
        let (ours, theirs) = (Caller::record(&[1; 16]), Caller::record(&[2; 16]));
        for _ in 0..30 {
            limiter.take_of_org(Tier::Write, ours, at(0)).unwrap();
        }

        let refused = limiter.take_of_org(Tier::Write, ours, at(0)).unwrap_err();

        assert_eq!(refused.policy, "writes_of_org");
        limiter.take_of_org(Tier::Read, ours, at(0)).unwrap();
        limiter.take_of_org(Tier::Write, theirs, at(0)).unwrap();
    }

    #[test]
    fn reads_and_writes_are_counted_apart() {
        let limits = RateLimits { writes: BUDGET, ..RateLimits::DEFAULT };
        let limiter = Limiter::new(&limits);
        for _ in 0..3 {
            limiter.take(Tier::Write, v4(1), at(0)).unwrap();
        }

        limiter.take(Tier::Write, v4(1), at(0)).unwrap_err();
        limiter.take(Tier::Read, v4(1), at(0)).unwrap();
    }
}
