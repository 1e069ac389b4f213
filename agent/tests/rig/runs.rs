//! Runs against a bad world, each from a seed that says all of it again.
//!
//! In each run lists change, entries expire, the agent is started anew, other admins edit what is
//! theirs and what is ours, reads are behind, pages come twice, the provider throttles, answers are
//! lost. At the end the world gets fair, and what is in force must be what is wanted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use postern_agent::target::{Target, TargetError};
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};
use tokio::time::Instant;

use crate::bad_way::Hostility;
use crate::chance::Chance;
use crate::provider::{Clock, Either, Sent};

const STEPS: usize = 8;
const OPEN_PAST_EXPIRY_MAX: Duration = Duration::from_secs(60);

/// A provider with other admins, both by chance.
pub(crate) trait World: Sized {
    /// Which of the provider's targets is meant.
    type Kind: Copy;
    /// The one.
    type One: Target;
    /// The other.
    type Other: Target;

    /// Deadlines that differ by no more are the same.
    const SLACK: Duration;
    /// How many calls may be made at most, and in how long.
    const CALLS: &[(usize, Duration)];
    /// How many entries of others there are before the first of ours.
    const FOREIGN: u8;
    /// How long after that they are seen by all.
    const SEEN_AFTER: Duration = Duration::ZERO;
    /// Whether others keep the provider busy at times.
    const IS_BUSY: bool = false;

    /// Makes it, as the chance of this seed wants it.
    fn new(kind: Self::Kind, seed: u64, chance: &mut Chance) -> Self;

    /// Starts an agent's target, with a way of its own; answers what it sends as well.
    fn start(&self, seed: u64, hostility: Hostility) -> (Either<Self::One, Self::Other>, Sent);

    /// What is in force with our mark, and until when.
    fn ours(&self) -> BTreeMap<Network, Expiry>;

    /// What is in force that is not ours.
    fn foreign(&self) -> BTreeMap<Network, String>;

    /// Adds an entry as somebody else would.
    fn meddle(&self, network: Network, text: &str);

    /// Takes an entry away as somebody else would.
    fn take_away(&self, network: Network);

    /// What others add while we are there.
    fn others_add(chance: &mut Chance) -> Network;

    /// Has somebody else keep the provider busy.
    fn keep_busy(&self, _chance: &mut Chance) {}

    /// Lets nobody in, or everybody again.
    fn expire(&self, is_expired: bool);

    /// Does nothing bad from now on.
    fn get_fair(&self);

    /// Whether what a target says in refusing may be otherwise the next time.
    fn may_pass(_reason: &str) -> bool {
        false
    }
}

/// Runs each seed in a time of its own, so that it is the same alone: `POSTERN_SEED=123` picks one.
pub(crate) fn runs<W: World>(kind: W::Kind, seeds: Range<u64>) {
    let one: Option<u64> = std::env::var("POSTERN_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in seeds.filter(|seed| one.is_none_or(|one| one == *seed)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        if let Err(wrong) = runtime.block_on(async { Run::<W>::new(kind, seed).go().await }) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

struct Run<W: World> {
    world: W,
    chance: Chance,
    clock: Clock,
    hostility: Hostility,
    wanted: Allowlist,
    /// Until when each network may be in force.
    until: BTreeMap<Network, Timestamp>,
    foreign: BTreeMap<Network, String>,
    sent: Vec<Sent>,
}

type Kept<W> = Either<<W as World>::One, <W as World>::Other>;

impl<W: World> Run<W> {
    fn new(kind: W::Kind, seed: u64) -> Run<W> {
        let mut chance = Chance::new(seed);
        let world = W::new(kind, seed, &mut chance);
        let hostility = Hostility { once_in: 8 + chance.below(20), ..Hostility::NONE };
        let (wanted, until) = (Allowlist::new(), BTreeMap::new());
        let (clock, foreign, sent) = (Clock::start(), BTreeMap::new(), Vec::new());
        Run { world, chance, clock, hostility, wanted, until, foreign, sent }
    }

    async fn go(mut self) -> Result<(), String> {
        // Some of them stand where we shall want to.
        for last in 0..W::FOREIGN {
            self.meddle(foreign_network(last));
        }
        tokio::time::sleep(W::SEEN_AFTER).await;
        let mut target = self.start();
        for _ in 0..STEPS {
            match self.chance.below(10 + usize::from(W::IS_BUSY)) {
                0..4 => self.allow(),
                4 | 5 => self.withdraw(),
                6 => self.others_remove(),
                7 => {
                    let network = W::others_add(&mut self.chance);
                    self.meddle(network);
                }
                8 => target = self.start(),
                9 if W::IS_BUSY => self.world.keep_busy(&mut self.chance),
                _ => self.lose_the_world().await,
            }
            let span = self.chance.up_to(Duration::from_secs(90));
            self.keep(&mut target, span).await?;
        }
        self.hostility = Hostility::NONE;
        self.world.get_fair();
        drop(target);
        target = self.start();
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
            let latest = self.until.entry(network).or_insert(deadline);
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
        self.world.meddle(network, &text);
        self.foreign = self.world.foreign();
    }

    /// Somebody takes one of ours away.
    fn others_remove(&mut self) {
        let ours: Vec<Network> = self.world.ours().into_keys().collect();
        if !ours.is_empty() {
            let network = ours[self.chance.below(ours.len())];
            self.world.take_away(network);
        }
    }

    /// Nothing gets through for a while: what must be true of deadlines then nobody can keep.
    async fn lose_the_world(&mut self) {
        self.world.expire(true);
        tokio::time::sleep(self.chance.up_to(Duration::from_secs(20))).await;
        self.world.expire(false);
    }

    fn start(&mut self) -> Kept<W> {
        let seed = self.chance.next();
        let (target, sent) = self.world.start(seed, self.hostility);
        self.sent.push(sent);
        target
    }

    /// What the agent's loop does, for a while: a pass, and again when something is due or failed.
    async fn keep(&mut self, target: &mut Kept<W>, span: Duration) -> Result<(), String> {
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
                        TargetError::Rejected { reason } if W::may_pass(&reason) => back_off,
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
    async fn settle(&self, target: &mut Kept<W>) -> Result<(), String> {
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
    async fn watched(&self, target: &mut Kept<W>) -> Result<Result<usize, TargetError>, String> {
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
        for network in self.world.ours().into_keys() {
            let until = self.until.get(&network).copied();
            let until = until.ok_or(format!("{network} was never allowed"))?;
            if OPEN_PAST_EXPIRY_MAX < now.since(until) {
                return Err(format!("{network} is open {:?} past its time", now.since(until)));
            }
        }
        Ok(())
    }

    fn judge(&self) -> Result<(), String> {
        let now = self.clock.now();
        let open = self.world.ours();
        let foreign = self.world.foreign();
        let wanted: BTreeMap<Network, Expiry> = self
            .wanted
            .live_at(now)
            .filter(|(network, _)| !foreign.contains_key(network))
            .collect();
        if !open.keys().eq(wanted.keys()) {
            return Err(format!("open {:?}, wanted {:?}", open.keys(), wanted.keys()));
        }
        for (network, expiry) in &open {
            let is_late = match (expiry.deadline(), wanted[network].deadline()) {
                (Some(is), Some(should)) => W::SLACK < is.since(should),
                (None, Some(_)) => true,
                (_, None) => false,
            };
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
        for sent in &self.sent {
            let sent = sent.lock().unwrap();
            for (most, span) in W::CALLS {
                let is_over = |calls: &[Instant]| calls[*most].duration_since(calls[0]) < *span;
                if sent.windows(most + 1).any(is_over) {
                    return Err(format!("more than {most} calls in {span:?}"));
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
pub(crate) fn foreign_network(n: u8) -> Network {
    match n % 4 {
        3 => our_network(n),
        _ => Network::host([203, 0, 113, n].into()),
    }
}
