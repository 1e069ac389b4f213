//! Commands that work without a running agent, from what the last one left on the disk.

use std::collections::BTreeSet;

use postern_shared::error::chain;
use postern_shared::network::Network;
use postern_shared::plan::Plan;

use crate::cache::{Cache, Witness};
use crate::clock::{self, Clock, SteadyClock};
use crate::config::Config;
use crate::control::protocol::{Flushed, Planned, Sweep};
use crate::daemon::followed;
use crate::directory::Directory;
use crate::firewalls::{Firewalls, HostFirewalls};
use crate::lists::{Lists, Mode};
use crate::reconcile::{Pending, is_standing};
use crate::target::Target;
use crate::target::marked::Swept;

use super::{FAILED, Failure};

/// Says what a run would do with the lists that the last one saved.
pub(super) async fn plan(
    config: &Config,
    firewalls: &impl Firewalls,
) -> Result<Vec<Planned>, Failure> {
    let (lists, directory, clock) = saved(config)?;
    let mut plans = Vec::new();
    for target in &config.targets {
        let opened = firewalls.open(target, &config.policy, &directory);
        let planned = match opened {
            Ok(mut opened) => plan_one(&mut opened, &lists, &clock).await,
            Err(why) => Err(why),
        };
        let target = target.name.clone();
        plans.push(match planned {
            Ok((changes, text)) => Planned { target, changes, text, error: None },
            Err(error) => Planned { target, changes: 0, text: String::new(), error: Some(error) },
        });
    }
    Ok(plans)
}

async fn plan_one(
    target: &mut impl Target,
    lists: &Lists,
    clock: &SteadyClock,
) -> Result<(usize, String), String> {
    let now = clock.now();
    target.refresh(now).await.map_err(|error| chain(&error))?;
    let observed = target.observed();
    let groups: Vec<_> = observed.keys().copied().collect();
    let is_standing = is_standing(target);
    let mode = Mode { is_standing, is_adopted: is_standing, is_flushed: false };
    let wanted = lists
        .wanted(&groups, observed, &Pending::All, mode, now)
        .ok_or("no list was saved for every group of it; the agent would wait for them")?;
    let changes = wanted.plans.values().map(Plan::len).sum();
    if changes == 0 && target.is_settled() {
        return Ok((0, String::new()));
    }
    Ok((changes, target.preview(&wanted.plans)))
}

/// Empties the targets. The next run fills them again.
pub(super) async fn flush(
    config: &Config,
    firewalls: &impl Firewalls,
) -> Result<Vec<Flushed>, Failure> {
    let (_, directory, clock) = saved(config)?;
    let mut flushed = Vec::new();
    for target in &config.targets {
        let opened = firewalls.open(target, &config.policy, &directory);
        let result = match opened {
            Ok(mut opened) => match opened.refresh(clock.now()).await {
                Ok(_) => opened.flush().await.map_err(|error| chain(&error)),
                Err(error) => Err(chain(&error)),
            },
            Err(why) => Err(why),
        };
        flushed.push(Flushed { target: target.name.clone(), error: result.err() });
    }
    Ok(flushed)
}

/// Takes away what is overdue at every target that does not end it by itself. Needs nothing but the
/// configuration.
pub(super) async fn sweep(config: &Config) -> Vec<Sweep> {
    let mut sweeps = Vec::new();
    for target in &config.targets {
        let sweep = HostFirewalls.sweep(target, clock::wall_time());
        let Some(sweep) = sweep else { continue };
        let (swept, error) = match sweep.await {
            Ok(swept) => (swept, None),
            Err(error) => (Swept::default(), Some(chain(&error))),
        };
        let words = |networks: BTreeSet<Network>| networks.iter().map(Network::to_string).collect();
        let (removed, left) = (words(swept.removed), words(swept.left));
        sweeps.push(Sweep { target: target.name.clone(), removed, left, error });
    }
    sweeps
}

fn saved(config: &Config) -> Result<(Lists, Directory, SteadyClock), Failure> {
    let cache = Cache::open(&config.state_dir).map_err(|error| Failure {
        code: FAILED,
        message: format!("could not use {}: {error}", config.state_dir.display()),
    })?;
    let clock = SteadyClock::start();
    let directory = Directory(cache.load_groups());
    let lists = Lists::new(&followed(config, &directory), config.policy.clone(), clock.now());
    cache.restore(&lists, &Witness::of_this_boot(), &clock);
    Ok((lists, directory, clock))
}
