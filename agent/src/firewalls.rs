//! Makes targets of what the configuration says.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::BoxFuture;
use postern_shared::ids::GroupId;
use postern_shared::plan::{Observed, Plan};
use postern_shared::policy::LocalPolicy;
use postern_shared::time::Timestamp;

use crate::config::{Opening, SweepFuture, Sweeping, TargetConfig};
use crate::directory::Directory;
use crate::target::{Refresh, Target, TargetError, TargetInfo};

/// Opens firewalls; tests have one that opens none.
pub(crate) trait Firewalls: Clone + Send + Sync + 'static {
    type Target: Target;

    /// Makes the target, without reaching for the firewall yet. Fails, in words, where the
    /// configuration names groups that nobody knows.
    fn open(
        &self,
        config: &TargetConfig,
        policy: &LocalPolicy,
        directory: &Directory,
    ) -> Result<Self::Target, String>;

    /// Takes away what is overdue by the marks alone, which needs no group; `None` where entries end by
    /// themselves.
    fn sweep(&self, config: &TargetConfig, now: Timestamp) -> Option<SweepFuture>;
}

/// The firewalls of this host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFirewalls;

/// Any of the targets that there are.
pub(crate) struct HostTarget(Box<dyn AnyTarget>);

/// [`Target`] for whoever does not know which; every target is one.
trait AnyTarget: Send {
    fn info(&self) -> &TargetInfo;
    fn refresh(&mut self, now: Timestamp) -> BoxFuture<'_, Result<Refresh, TargetError>>;
    fn observed(&self) -> &BTreeMap<GroupId, Observed>;
    fn is_settled(&self) -> bool;
    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String;
    fn apply<'a>(
        &'a mut self,
        plans: &'a BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), TargetError>>;
    fn disturbed(&mut self) -> BoxFuture<'_, ()>;
    fn earliest_deadline(&self) -> Option<Timestamp>;
    fn flush(&mut self) -> BoxFuture<'_, Result<(), TargetError>>;
}

impl Firewalls for HostFirewalls {
    type Target = HostTarget;

    fn open(
        &self,
        config: &TargetConfig,
        policy: &LocalPolicy,
        directory: &Directory,
    ) -> Result<HostTarget, String> {
        let (failsafe, commands) = (&policy.failsafe, &config.commands);
        let opening = Opening { name: &config.name, failsafe, policy, directory, commands };
        config.kind.as_kind().open(&opening)
    }

    fn sweep(&self, config: &TargetConfig, now: Timestamp) -> Option<SweepFuture> {
        let sweeping = Sweeping { name: &config.name, commands: &config.commands, now };
        config.kind.as_kind().sweep(sweeping)
    }
}

impl HostTarget {
    pub(crate) fn new(target: impl Target) -> HostTarget {
        HostTarget(Box::new(target))
    }
}

impl fmt::Debug for HostTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostTarget").field(self.0.info()).finish()
    }
}

impl<T: Target> AnyTarget for T {
    fn info(&self) -> &TargetInfo {
        Target::info(self)
    }

    fn refresh(&mut self, now: Timestamp) -> BoxFuture<'_, Result<Refresh, TargetError>> {
        Box::pin(Target::refresh(self, now))
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        Target::observed(self)
    }

    fn is_settled(&self) -> bool {
        Target::is_settled(self)
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        Target::preview(self, plans)
    }

    fn apply<'a>(
        &'a mut self,
        plans: &'a BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(Target::apply(self, plans, now))
    }

    fn disturbed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(Target::disturbed(self))
    }

    fn earliest_deadline(&self) -> Option<Timestamp> {
        Target::earliest_deadline(self)
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), TargetError>> {
        Box::pin(Target::flush(self))
    }
}

impl Target for HostTarget {
    fn info(&self) -> &TargetInfo {
        self.0.info()
    }

    async fn refresh(&mut self, now: Timestamp) -> Result<Refresh, TargetError> {
        self.0.refresh(now).await
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        self.0.observed()
    }

    fn is_settled(&self) -> bool {
        self.0.is_settled()
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        self.0.preview(plans)
    }

    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        self.0.apply(plans, now).await
    }

    async fn disturbed(&mut self) {
        self.0.disturbed().await;
    }

    fn earliest_deadline(&self) -> Option<Timestamp> {
        self.0.earliest_deadline()
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        self.0.flush().await
    }
}
