//! IP access rules of an account or a zone: an address that is allowed is a rule that lets it in.
//!
//! A rule is ours when our mark is its notes; an agent that forgot everything asks for the rules with
//! these words, and so knows its rules and their deadlines again. Cloudflare has one rule for an address
//! in each scope, and refuses another: where somebody else's is in our place it stays as it is. If it
//! lets in, that leaves us nothing to do; if it does not, the target says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use postern_shared::network::Network;
use postern_shared::policy::LocalPolicy;
use tokio::time::Instant;

use super::client::Cloudflare;
use super::config::AccessRulesConfig;
use super::error::{CloudflareError, shorten};
use super::rules::{self, ALLOW, Rule, Written};
use crate::target::TargetError;
use crate::target::marked::mirror::Mirror;
use crate::target::marked::{Edits, Held, Provider, Shape, first_words};

const V4: &[RangeInclusive<u8>] = &[16..=16, 24..=24, 32..=32];
const V6: &[RangeInclusive<u8>] = &[32..=32, 48..=48, 64..=64, 128..=128];
/// How long a write may go on before everything is looked at again: meanwhile entries expire.
const WRITE_MAX: Duration = Duration::from_secs(20);
/// How long a rule of somebody else is taken to be there.
const TAKEN_FOR: Duration = Duration::from_secs(300);
/// Most of them that are looked for in one reading.
const LOOKS_MAX: usize = 5;

/// The rules as they were last read.
#[derive(Debug)]
pub struct AccessRules {
    cloudflare: Cloudflare,
    config: AccessRulesConfig,
    /// How our notes begin.
    mark: String,
    mirror: Mirror<Written>,
    /// Rules of others in our places.
    taken: BTreeMap<Network, Taken>,
    /// How many rules there were at first, and our part of them.
    counted: Option<(usize, usize)>,
}

/// A rule of somebody else.
#[derive(Debug, Clone)]
struct Taken {
    id: String,
    mode: String,
    seen_at: Instant,
}

/// The steps of an edit.
#[derive(Debug, Default)]
struct Steps {
    delete: Vec<(Network, String)>,
    edit: Vec<(Network, String, String)>,
    create: Vec<(Network, String)>,
}

impl AccessRules {
    /// Makes the target; nothing is asked yet. `owner` is whose marks are ours.
    pub fn new(cloudflare: Cloudflare, config: AccessRulesConfig, owner: &str) -> AccessRules {
        let (mark, mirror, taken) = (first_words(owner), Mirror::new(), BTreeMap::new());
        AccessRules { cloudflare, config, mark, mirror, taken, counted: None }
    }

    /// What access rules take.
    pub const fn shape(widen_within: Option<LocalPolicy>) -> Shape {
        Shape { v4: V4, v6: V6, widen_within }
    }

    fn steps(&self, edits: &Edits) -> Steps {
        let ours: BTreeMap<Network, &Rule> = self.ours().collect();
        let mut steps = Steps::default();
        for network in &edits.remove {
            if let Some(rule) = ours.get(network) {
                steps.delete.push((*network, rule.id.clone()));
            }
        }
        for (network, notes) in &edits.put {
            match ours.get(network) {
                Some(rule) if rule.notes == *notes && rule.mode == ALLOW => {}
                Some(rule) => steps.edit.push((*network, rule.id.clone(), notes.clone())),
                None if self.taken.contains_key(network) => {}
                None => steps.create.push((*network, notes.clone())),
            }
        }
        steps
    }

    fn ours(&self) -> impl Iterator<Item = (Network, &Rule)> {
        let rules = self.mirror.entries().values().filter(|rule| self.is_ours(rule));
        rules.filter_map(|rule| Some((rule.network?, rule)))
    }

    fn is_ours(&self, rule: &Rule) -> bool {
        rule.notes.starts_with(&self.mark)
    }

    /// How many rules there are, as far as we know.
    fn count(&self) -> usize {
        let ours = self.ours().count();
        self.counted.map_or(ours, |(all, then)| (all + ours).saturating_sub(then))
    }

    async fn delete(&mut self, id: String) -> Result<(), CloudflareError> {
        match rules::delete(&self.cloudflare, &self.config.scope, &id).await {
            Ok(()) | Err(CloudflareError::Missing { .. }) => {
                self.mirror.note(Written::Gone { id });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A rule that is gone is added by the next pass.
    async fn edit(
        &mut self,
        network: Network,
        id: String,
        notes: String,
    ) -> Result<(), CloudflareError> {
        let scope = &self.config.scope;
        match rules::edit(&self.cloudflare, scope, &id, network, &notes).await {
            Ok(()) => self.mirror.note(Written::Described { id, notes }),
            Err(error @ CloudflareError::Missing { .. }) => {
                self.mirror.note(Written::Gone { id });
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn create(&mut self, network: Network, notes: &str) -> Result<(), CloudflareError> {
        let scope = &self.config.scope;
        match rules::create(&self.cloudflare, scope, network, notes).await {
            Ok(rule) => self.mirror.note(Written::Added(rule)),
            Err(error @ CloudflareError::Duplicate { .. }) => {
                let there = rules::find(&self.cloudflare, scope, network).await?;
                let Some(rule) = there else { return Err(error) };
                if !self.is_ours(&rule) {
                    self.taken.insert(network, Taken::now(rule));
                    return Ok(());
                }
                // An earlier call of ours, whose answer was lost or that reads do not show yet.
                let id = rule.id.clone();
                let is_right = rule.notes == notes && rule.mode == ALLOW;
                self.mirror.note(Written::Added(rule));
                if !is_right {
                    self.edit(network, id, notes.to_owned()).await?;
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks again for some of the rules of others that were seen long ago.
    async fn look_for_taken(&mut self) -> Result<(), CloudflareError> {
        let is_old = |taken: &Taken| TAKEN_FOR < taken.seen_at.elapsed();
        let old = self.taken.iter().filter(|(_, taken)| is_old(taken));
        let old: Vec<Network> = old.map(|(network, _)| *network).take(LOOKS_MAX).collect();
        for network in old {
            let rule = rules::find(&self.cloudflare, &self.config.scope, network).await?;
            match rule.filter(|rule| !self.is_ours(rule)) {
                Some(rule) => drop(self.taken.insert(network, Taken::now(rule))),
                None => drop(self.taken.remove(&network)),
            }
        }
        Ok(())
    }

    /// Says what is in the way of what was to be let in.
    fn in_the_way(&self, edits: &Edits) -> Option<String> {
        let ways: BTreeSet<String> = edits
            .put
            .keys()
            .filter_map(|network| Some((network, self.taken.get(network)?)))
            .filter(|(_, taken)| taken.mode != ALLOW)
            .map(|(network, Taken { id, mode, .. })| {
                format!("{network} has the rule {id} of somebody else, which says `{mode}`")
            })
            .collect();
        let first = ways.first()?;
        let more = match ways.len() - 1 {
            0 => String::new(),
            more => format!(", and so it is with {more} more"),
        };
        Some(format!("{first}{more}; take it away, or the address out of the list"))
    }
}

impl Taken {
    fn now(rule: Rule) -> Taken {
        Taken { id: shorten(&rule.id), mode: shorten(&rule.mode), seen_at: Instant::now() }
    }
}

impl Provider for AccessRules {
    const KIND: &'static str = "cloudflare_access_rule";
    const RENEW_PART: u32 = 4;

    async fn read(&mut self) -> Result<(), TargetError> {
        let scope = &self.config.scope;
        self.mirror.take(rules::read(&self.cloudflare, scope, self.mark.trim_end()).await?);
        if self.counted.is_none() {
            let all = rules::count(&self.cloudflare, scope).await?;
            self.counted = all.map(|all| (all, self.ours().count()));
        }
        Ok(self.look_for_taken().await?)
    }

    fn held(&self) -> BTreeMap<Network, Held> {
        let held = |rule: &Rule| Held {
            descriptions: [rule.notes.clone()].into(),
            is_whole: rule.mode == ALLOW,
        };
        self.ours().map(|(network, rule)| (network, held(rule))).collect()
    }

    fn is_taken(&self, network: Network) -> bool {
        self.taken.get(&network).is_some_and(|taken| taken.mode == ALLOW)
    }

    fn preview(&self, edits: &Edits) -> String {
        let Steps { delete, edit, create } = self.steps(edits);
        let (scope, now, most) = (&self.config.scope, self.count(), self.config.rules_max);
        let after = (now + create.len()).saturating_sub(delete.len());
        let mut text = format!("{scope}: rules now {now}; then {after}; limit {most}\n");
        if most < after && !create.is_empty() {
            let _ = writeln!(text, "{scope}: this does not fit, and nothing would be added");
        }
        if let Some(way) = self.in_the_way(edits) {
            let _ = writeln!(text, "refused: {way}");
        }
        for (network, id) in &delete {
            let _ = writeln!(text, "delete {id} {network}");
        }
        for (network, id, notes) in &edit {
            let _ = writeln!(text, "edit {id} {network} as {notes}");
        }
        for (network, notes) in &create {
            let _ = writeln!(text, "create {network} as {notes}");
        }
        text
    }

    /// Each rule is a call, so what must close comes first, and some calls are kept for it. What does
    /// not fit at all is refused as a whole before anything of it is sent.
    async fn write(&mut self, edits: &Edits) -> Result<(), TargetError> {
        let until = Instant::now() + WRITE_MAX;
        let in_time = || match until < Instant::now() {
            true => Err(TargetError::Changed),
            false => Ok(()),
        };
        let Steps { delete, edit, create } = self.steps(edits);
        for (_, id) in delete {
            in_time()?;
            self.delete(id).await?;
        }
        for (network, id, notes) in edit {
            in_time()?;
            self.cloudflare.may_open()?;
            self.edit(network, id, notes).await?;
        }
        let (wanted, capacity) = (self.count() + create.len(), self.config.rules_max);
        if capacity < wanted && !create.is_empty() {
            return Err(TargetError::Full { wanted, capacity });
        }
        for (network, notes) in create {
            in_time()?;
            self.cloudflare.may_open()?;
            self.create(network, &notes).await?;
        }
        match self.in_the_way(edits) {
            Some(reason) => Err(TargetError::Rejected { reason }),
            None => Ok(()),
        }
    }
}
