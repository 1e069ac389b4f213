//! What agents say is in force. Kept in memory: after a restart they say it again.

use std::collections::BTreeMap;

use postern_shared::ids::{AgentId, Epoch, GroupId};
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::{AgentUpdate, Confirmation, Receipt, ReceiptState};

/// What every agent last said.
#[derive(Debug, Default)]
pub struct Board {
    agents: BTreeMap<AgentId, AgentReport>,
}

/// What one agent last said.
#[derive(Debug, Clone)]
pub struct AgentReport {
    /// What the host is.
    pub host: AgentUpdate,
    /// The newest word on each target and group.
    pub receipts: BTreeMap<(String, GroupId), Receipt>,
    /// When it last said anything.
    pub at: Timestamp,
}

/// Most receipts that are kept of one agent; more targets than that are not looked at.
pub(crate) const RECEIPTS_MAX: usize = 4_096;

impl Board {
    /// Notes what a host is. Receipts of targets that it no longer has are forgotten.
    pub fn update(&mut self, agent: AgentId, host: AgentUpdate, now: Timestamp) {
        let mut receipts =
            self.agents.remove(&agent).map(|before| before.receipts).unwrap_or_default();
        receipts.retain(|(name, group), _| {
            host.targets.iter().any(|target| target.name == *name && target.groups.contains(group))
        });
        self.agents.insert(agent, AgentReport { host, receipts, at: now });
    }

    /// Notes receipts; answers those that newly say that a list is not in force.
    pub fn note(&mut self, agent: AgentId, receipts: Vec<Receipt>, now: Timestamp) -> Vec<Receipt> {
        let Some(report) = self.agents.get_mut(&agent) else { return Vec::new() };
        report.at = now;
        let mut failed = Vec::new();
        for receipt in receipts {
            let key = (receipt.target.clone(), receipt.group);
            let is_known = report.receipts.contains_key(&key);
            if !is_known && RECEIPTS_MAX <= report.receipts.len() {
                continue;
            }
            let before = report.receipts.insert(key, receipt.clone());
            let was_well = before.is_none_or(|before| before.state != receipt.state);
            if receipt.state != ReceiptState::Applied && was_well {
                failed.push(receipt);
            }
        }
        failed
    }

    /// Forgets an agent.
    pub fn forget(&mut self, agent: AgentId) {
        self.agents.remove(&agent);
    }

    /// What an agent last said.
    pub fn agent(&self, agent: AgentId) -> Option<&AgentReport> {
        self.agents.get(&agent)
    }

    /// How many targets should have the given lists, and what they say of them: lists are named
    /// by group and revision, agents by who may follow them. Of a target with several lists the
    /// worst counts.
    pub fn confirmation(
        &self,
        epoch: Epoch,
        lists: &BTreeMap<GroupId, Revision>,
        agents: impl Iterator<Item = AgentId>,
    ) -> Confirmation {
        let mut confirmation = Confirmation::default();
        for report in agents.filter_map(|agent| self.agents.get(&agent)) {
            for target in &report.host.targets {
                let wanted: Vec<(&GroupId, &Revision)> =
                    lists.iter().filter(|(group, _)| target.groups.contains(group)).collect();
                if wanted.is_empty() {
                    continue;
                }
                confirmation.of += 1;
                let said: Vec<Option<ReceiptState>> = wanted
                    .iter()
                    .map(|(group, revision)| {
                        let receipt = report.receipts.get(&(target.name.clone(), **group))?;
                        let is_of_it = receipt.epoch == epoch && **revision <= receipt.revision;
                        is_of_it.then_some(receipt.state)
                    })
                    .collect();
                if said.contains(&Some(ReceiptState::Failed)) {
                    confirmation.failed += 1;
                } else if said.contains(&Some(ReceiptState::Held)) {
                    confirmation.held += 1;
                } else if said.iter().all(Option::is_some) {
                    confirmation.open += 1;
                }
            }
        }
        confirmation
    }
}
