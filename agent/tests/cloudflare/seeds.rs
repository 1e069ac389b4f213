//! A thousand runs against a bad world, each from a seed that says all of it again.
//!
//! In each run lists change, entries expire, the agent is started anew, other admins edit what is
//! theirs and what is ours and keep the account busy, reads are behind, pages come twice, changes break
//! off in the middle, Cloudflare throttles, answers are lost. At the end the world gets fair, and what
//! is in force must be what is wanted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use postern_agent::target::TargetError;
use postern_agent::target::cloudflare::Cloudflare;
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::fake::{FakeCloudflare, Temper};
use crate::scene::{self, Clock, Kept, Provider};
use crate::transport::{self, Hostility, Sent};

const CALLS_PER_MINUTE: u16 = Cloudflare::CALLS_PER_MINUTE_MAX;
const STEPS: usize = 8;
/// Deadlines that differ by less are the same.
const SLACK: Duration = Duration::from_millis(500);
const OPEN_PAST_EXPIRY_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_list_comes_out_right_from_250_seeds() {
    runs(Provider::List, 0..250);
}

#[test]
fn a_list_comes_out_right_from_250_more() {
    runs(Provider::List, 250..500);
}

#[test]
fn access_rules_come_out_right_from_250_seeds() {
    runs(Provider::AccountRules, 500..750);
}

#[test]
fn access_rules_come_out_right_from_250_more() {
    runs(Provider::ZoneRules, 750..1000);
}

/// Runs each seed in a time of its own, so that it is the same alone: `POSTERN_SEED=123` picks one.
fn runs(kind: Provider, seeds: std::ops::Range<u64>) {
    let one: Option<u64> = std::env::var("POSTERN_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in seeds.filter(|seed| one.is_none_or(|one| one == *seed)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        if let Err(wrong) = runtime.block_on(async { Run::new(kind, seed).go().await }) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

struct Run {
    kind: Provider,
    chance: Chance,
    clock: Clock,
    fake: FakeCloudflare,
    hostility: Hostility,
    wanted: Allowlist,
    /// Until when each network may be in force.
    until: Rc<RefCell<BTreeMap<Network, Timestamp>>>,
    foreign: BTreeMap<Network, String>,
    sent: Vec<Sent>,
}

impl Run {
    fn new(kind: Provider, seed: u64) -> Run {
        let mut chance = Chance::new(seed);
        let temper = Temper {
            behind_max: chance.up_to(Duration::from_secs(10)),
            working_max: chance.up_to(Duration::from_secs(5)),
            breaks_once_in: if chance.once_in(2) { 3 + chance.below(6) } else { 0 },
            page_max: 5 + chance.below(20),
            repeats: chance.once_in(2),
            says_when: chance.once_in(2),
            ..Temper::default()
        };
        let fake = FakeCloudflare::new(chance.next(), temper);
        scene::furnish(&fake);
        let hostility = Hostility { once_in: 8 + chance.below(20), ..Hostility::NONE };
        let clock = Clock::start();
        let until = Rc::default();
        let (wanted, foreign) = (Allowlist::new(), BTreeMap::new());
        Run { kind, chance, clock, fake, hostility, wanted, until, foreign, sent: Vec::new() }
    }

    async fn go(mut self) -> Result<(), String> {
        // Some of them stand where we shall want to.
        for last in 0..4 {
            self.meddle(foreign_network(last));
        }
        tokio::time::sleep(Duration::from_secs(11)).await;
        let mut target = self.start();
        for _ in 0..STEPS {
            match self.chance.below(11) {
                0..4 => self.allow(),
                4 | 5 => self.withdraw(),
                6 => self.others_remove(),
                7 => self.others_add(),
                8 => target = self.start(),
                9 => self.others_keep_busy(),
                _ => self.lose_the_world().await,
            }
            let span = self.chance.up_to(Duration::from_secs(90));
            self.keep(&mut target, span).await?;
        }
        self.get_fair();
        target = self.start_over(target);
        self.keep(&mut target, Duration::from_secs(150)).await?;
        self.settle(&mut target).await?;
        self.judge()
    }

    /// Some hosts get in, for a while.
    fn allow(&mut self) {
        for _ in 0..=self.chance.below(6) {
            let network = our_network(self.chance.below(24) as u8);
            let ttl = Duration::from_secs(20) + self.chance.up_to(Duration::from_secs(400));
            let deadline = self.clock.now().saturating_add(ttl);
            self.wanted.set(network, Expiry::At(deadline));
            let mut until = self.until.borrow_mut();
            let latest = until.entry(network).or_insert(deadline);
            *latest = deadline.max(*latest);
        }
    }

    fn withdraw(&mut self) {
        let networks: Vec<Network> = self.wanted.iter().map(|(network, _)| network).collect();
        if !networks.is_empty() {
            self.wanted.remove(networks[self.chance.below(networks.len())]);
        }
    }

    fn meddle(&mut self, network: Network) {
        if self.foreign.contains_key(&network) {
            return;
        }
        let text = format!("office {network}");
        scene::meddle(self.kind, &self.fake, network, &text);
        self.foreign = scene::foreign(self.kind, &self.fake);
    }

    /// Not where we may be about to add: Cloudflare adds no item only if it is not there, and what was
    /// added within the last seconds no read need show. SECURITY.md says so.
    fn others_add(&mut self) {
        let last = 10 + self.chance.below(8) as u8;
        self.meddle(Network::host([203, 0, 113, last].into()));
    }

    /// Somebody takes one of ours away.
    fn others_remove(&mut self) {
        let ours: Vec<Network> = scene::ours(self.kind, &self.fake).into_keys().collect();
        if !ours.is_empty() {
            let network = ours[self.chance.below(ours.len())];
            scene::take_away(self.kind, &self.fake, network);
        }
    }

    fn others_keep_busy(&mut self) {
        let span = self.chance.up_to(Duration::from_secs(12));
        self.fake.state().keep_busy(scene::OTHER_LIST, span);
    }

    /// Nothing gets through for a while: what must be true of deadlines then nobody can keep.
    async fn lose_the_world(&mut self) {
        self.fake.state().is_expired = true;
        tokio::time::sleep(self.chance.up_to(Duration::from_secs(20))).await;
        self.fake.state().is_expired = false;
    }

    fn get_fair(&mut self) {
        self.hostility = Hostility::NONE;
        let mut state = self.fake.state();
        state.temper.behind_max = Duration::ZERO;
        state.temper.breaks_once_in = 0;
    }

    fn start(&mut self) -> Kept {
        let seed = self.chance.next();
        let (client, sent) = transport::client(&self.fake, seed, self.hostility, CALLS_PER_MINUTE);
        self.sent.push(sent);
        scene::start(self.kind, client)
    }

    fn start_over(&mut self, target: Kept) -> Kept {
        drop(target);
        self.start()
    }

    /// What the agent's loop does, for a while: a pass, and again when something is due or failed.
    async fn keep(&mut self, target: &mut Kept, span: Duration) -> Result<(), String> {
        let end = Instant::now() + span;
        let mut failures = 0;
        loop {
            let result = self.watched(target).await?;
            let wait = match result {
                Ok(_) => {
                    failures = 0;
                    tokio::select! {
                        () = target.disturbed() => Duration::from_millis(20),
                        () = tokio::time::sleep(Duration::from_secs(60)) => Duration::ZERO,
                        () = tokio::time::sleep_until(end) => Duration::ZERO,
                    }
                }
                Err(error) => {
                    failures = 7.min(failures + 1);
                    let back_off =
                        Duration::from_millis(250 << failures).min(Duration::from_secs(15));
                    match error {
                        TargetError::Throttled { wait } => wait,
                        TargetError::Changed => Duration::from_millis(100),
                        TargetError::Unreachable { .. } => back_off,
                        // A change that broke off more often than it was tried.
                        TargetError::Rejected { reason } if reason.contains("failed") => back_off,
                        TargetError::Full { .. }
                        | TargetError::Rejected { .. }
                        | TargetError::Busy { .. } => return Err(format!("gave up: {error}")),
                    }
                }
            };
            tokio::time::sleep(wait).await;
            if end <= Instant::now() {
                return Ok(());
            }
        }
    }

    /// Passes until one asks nothing, at a moment at which nothing has just ended.
    async fn settle(&self, target: &mut Kept) -> Result<(), String> {
        let calls = || self.sent.last().unwrap().lock().unwrap().len();
        for _ in 0..20 {
            let before = calls();
            self.watched(target).await?.map_err(|error| format!("in a fair world: {error}"))?;
            if calls() == before {
                return Ok(());
            }
        }
        Err("never settled".to_owned())
    }

    /// A pass, during which what is in force is looked at each second.
    async fn watched(&self, target: &mut Kept) -> Result<Result<usize, TargetError>, String> {
        let mut pass = std::pin::pin!(target.pass(&self.wanted, self.clock));
        loop {
            tokio::select! {
                done = &mut pass => return self.none_is_late().map(|()| done),
                () = tokio::time::sleep(Duration::from_secs(1)) => self.none_is_late()?,
            }
        }
    }

    fn none_is_late(&self) -> Result<(), String> {
        let now = self.clock.now();
        for network in scene::ours(self.kind, &self.fake).into_keys() {
            let until = self.until.borrow().get(&network).copied();
            let until = until.ok_or(format!("{network} was never allowed"))?;
            if OPEN_PAST_EXPIRY_MAX < now.since(until) {
                return Err(format!("{network} is open {:?} past its time", now.since(until)));
            }
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        let now = self.clock.now();
        let open = scene::ours(self.kind, &self.fake);
        let foreign = scene::foreign(self.kind, &self.fake);
        let wanted: BTreeMap<Network, Expiry> = self
            .wanted
            .live_at(now)
            .filter(|(network, _)| !foreign.contains_key(network))
            .collect();
        if !open.keys().eq(wanted.keys()) {
            return Err(format!("open {:?}, wanted {:?}", open.keys(), wanted.keys()));
        }
        for (network, expiry) in &open {
            let is_late = expiry.deadline().zip(wanted[network].deadline());
            let is_late = is_late.is_some_and(|(is, should)| SLACK < is.since(should));
            if !expiry.is_live_at(now) || is_late {
                return Err(format!(
                    "{network} is open until {expiry:?}, not {:?}",
                    wanted[network]
                ));
            }
        }
        if foreign != self.foreign {
            return Err(format!("foreign {foreign:?}, was {:?}", self.foreign));
        }
        let most = usize::from(CALLS_PER_MINUTE);
        for sent in &self.sent {
            let sent = sent.lock().unwrap();
            for (calls, span) in [(most, 60), (5 * most, 300)] {
                let is_over = |calls: &[Instant]| {
                    calls[calls.len() - 1].duration_since(calls[0]) < Duration::from_secs(span)
                };
                if sent.windows(calls + 1).any(is_over) {
                    return Err(format!("more than {calls} calls in {span} s"));
                }
            }
        }
        Ok(())
    }
}

fn our_network(n: u8) -> Network {
    match n % 4 {
        3 => format!("2001:db8:0:{n}::/64").parse().unwrap(),
        _ => Network::host([198, 51, 100, n].into()),
    }
}

/// Most are not what we want; some are.
fn foreign_network(n: u8) -> Network {
    match n % 4 {
        3 => our_network(n),
        _ => Network::host([203, 0, 113, n].into()),
    }
}
