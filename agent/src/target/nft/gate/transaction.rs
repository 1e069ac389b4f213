//! Carrying out plans: one transaction, tried again with what a refusal taught.

use std::collections::BTreeMap;
use std::net::IpAddr;

use postern_shared::ids::GroupId;
use postern_shared::plan::Plan;
use postern_shared::time::Timestamp;
use rustix::io::Errno;

use super::config::Ownership;
use super::program::{Lessons, Program, Situation, compose};
use super::sets::SetKey;
use super::{GateTarget, check_holder};
use crate::target::TargetError;
use crate::target::nft::refusal;
use crate::target::nft::socket::{CommitError, Failure};
use crate::target::nft::steps::Encoding;

/// How often one apply tries again with what the last refusal taught.
const ATTEMPTS_MAX: usize = 5;

impl GateTarget {
    pub(super) fn compose(
        &self,
        plans: &BTreeMap<GroupId, Plan>,
        lessons: &Lessons,
        now: Timestamp,
    ) -> Program {
        let wants_owner = self
            .kernel
            .as_ref()
            .map_or_else(|| self.config.ownership == Ownership::Auto, |kernel| kernel.owner());
        let Self { config, standing, observed, .. } = self;
        compose(Situation { config, standing, observed, wants_owner, now }, plans, lessons)
    }

    /// Takes the plans as carried out.
    fn carried_out(&mut self, plans: &BTreeMap<GroupId, Plan>, now: Timestamp) {
        let cuts = self.cuts();
        for (group, plan) in plans {
            let Some(observed) = self.observed.get_mut(group) else { continue };
            if observed.is_empty() {
                // Made in one go, since a first list may be long.
                let added = plan.add.iter().chain(&plan.renew);
                *observed = added.map(|(network, expiry)| (*network, *expiry)).collect();
            } else {
                plan.carry_out(observed);
            }
            if cuts {
                self.leavers.extend(plan.remove.keys());
            }
            for (network, expiry) in plan.renew.iter().chain(&plan.add) {
                // What had expired on the way here was not added.
                if !expiry.is_live_at(now) {
                    observed.remove(network);
                    self.leavers.extend(cuts.then_some(network));
                } else if let Some(deadline) = expiry.deadline() {
                    let next = self.next_deadline.map_or(deadline, |next| next.min(deadline));
                    self.next_deadline = Some(next);
                }
            }
        }
    }

    pub(super) async fn commit(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        let mut lessons = Lessons::default();
        for _ in 0..ATTEMPTS_MAX {
            let Program { prepare, commit, standing } = self.compose(plans, &lessons, now);
            let kernel = self.kernel_known()?;
            let mut encoding = Encoding::usual(kernel.removal(), now);
            if lessons.singly {
                encoding.removals_per_message = 1;
            }
            // Until the answer is in, nobody knows.
            let result = match prepare.is_empty() && commit.is_empty() {
                true => Ok(()),
                false => {
                    self.known = false;
                    let kernel = self.kernel.as_mut().expect("known a moment ago");
                    kernel.commit(&prepare, &commit, encoding).await
                }
            };
            match result {
                Ok(()) => {
                    self.standing = standing;
                    self.carried_out(plans, now);
                    self.known = true;
                    return Ok(());
                }
                Err(error) if self.learn(&mut lessons, &error) => self.known = true,
                Err(error) => return Err(self.refused(error).await),
            }
        }
        Err(TargetError::Changed)
    }

    /// Takes from a refusal what to do otherwise; answers whether there is anything.
    fn learn(&self, lessons: &mut Lessons, error: &CommitError) -> bool {
        let before = lessons.clone();
        match error {
            CommitError::TooLong => {
                lessons.replace.extend(self.standing.sets.keys());
            }
            CommitError::Refused(failures) => {
                if !failures.iter().all(|failure| learn_one(lessons, failure)) {
                    return false;
                }
            }
            CommitError::Unknown(_) => return false,
        }
        before != *lessons
    }

    /// What a refusal means to the caller; names who holds the table where somebody does.
    async fn refused(&mut self, error: CommitError) -> TargetError {
        let error = refusal::of_commit(error);
        let (TargetError::Busy { .. }, Some(kernel)) = (&error, &self.kernel) else {
            return error;
        };
        match kernel.read_table().await {
            Ok(Some(table)) => match check_holder(table.owner, kernel.port()) {
                Ok(()) => error,
                Err(busy) => busy,
            },
            Ok(None) | Err(_) => error,
        }
    }
}

fn learn_one(lessons: &mut Lessons, failure: &Failure) -> bool {
    let key = failure.set.as_deref().and_then(SetKey::parse).map(|(key, _)| key);
    let Some(key) = key else { return false };
    match failure.errno {
        // More elements on their way out than our books say.
        Errno::NFILE => {
            lessons.replace.insert(key);
            true
        }
        // An entry expired between our look at the clock and the kernel's.
        Errno::NOENT => {
            lessons.singly = true;
            let network = failure.key.as_deref().and_then(address).and_then(|at| key.network(at));
            network.map(|network| lessons.gone.insert((key, network))).is_some()
        }
        _ => false,
    }
}

fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => Some(<[u8; 4]>::try_from(key).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(key).ok()?.into()),
        _ => None,
    }
}
