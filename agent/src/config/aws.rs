//! Reads targets in AWS.

use postern_shared::document::{Reader, Scalar, boolean, number_in, text};

#[cfg(not(feature = "aws"))]
use super::kind::not_swept;
#[cfg(feature = "aws")]
use super::kind::swept;
use super::read::{endpoint, filled_list, marked_groups, name, ports};
use super::{Claim, Door, GroupRef, Kind, Opening, SweepFuture, Sweeping};
use crate::firewalls::HostTarget;
use crate::target::aws::{AwsAccess, PrefixListsConfig, SecurityGroupConfig};
#[cfg(feature = "aws")]
use crate::target::aws::{Ec2, PrefixLists, SecurityGroup};
#[cfg(feature = "aws")]
use crate::target::marked::{Fitted, Marked, Provider, Room, Shape};

/// More than AWS grants anybody.
const RULES_MAX: usize = 1000;
const CALLS_PER_MINUTE_MAX: u16 = 1200;
const AS_IT_WAS: &str = "AWS is as you left it";
#[cfg(not(feature = "aws"))]
const NOT_BUILT: &str = "this agent was built without the targets in AWS; `make build FEATURES=aws` makes one with them";

/// A firewall at AWS, whose entries say whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provided<T> {
    /// Where and as whom.
    pub(crate) access: AwsAccess,
    /// Whether adjacent networks become one where there is no room for all.
    pub(crate) aggregate: bool,
    /// What.
    pub(crate) what: T,
    /// By what our entries are known from others'. Default: the target's name.
    pub(crate) owner: String,
    /// Whose addresses go in.
    pub(crate) groups: Vec<GroupRef>,
}

/// A security group.
pub(crate) type SecurityGroupAt = Provided<SecurityGroupConfig>;

/// Managed prefix lists.
pub(crate) type PrefixListsAt = Provided<PrefixListsConfig>;

impl Kind for SecurityGroupAt {
    fn read(reader: &mut Reader<'_>, target: Option<&str>) -> Option<SecurityGroupAt> {
        let group = reader.required("group_id", id("sg-"));
        let empty = "holds no port; write such as [22/tcp, 60000-61000/udp]";
        let ports = filled_list(reader, "ports", ports, empty);
        let rules_max = reader.optional("rules_max", number_in(1..=RULES_MAX));
        let rules_max = rules_max.unwrap_or(SecurityGroupConfig::RULES_MAX);
        let common = common(reader, target);
        Some(common?.with(SecurityGroupConfig { group: group?, ports, rules_max }))
    }

    fn doors(&self) -> Vec<Door<'_>> {
        vec![Door { service: None, ports: &self.what.ports, groups: &self.groups }]
    }

    fn before_first_list(&self) -> Option<&'static str> {
        Some(AS_IT_WAS)
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::owned("group_id", &self.owner, format_args!("in {}", self.what.group))]
    }

    #[cfg(not(feature = "aws"))]
    fn lacks(&self) -> Option<&'static str> {
        Some(NOT_BUILT)
    }

    #[cfg(feature = "aws")]
    fn sweep(&self, sweeping: Sweeping<'_>) -> Option<SweepFuture> {
        let ec2 = Ec2::new(self.access.clone());
        swept(SecurityGroup::new(ec2, self.what.clone(), &self.owner), &self.owner, sweeping)
    }

    #[cfg(not(feature = "aws"))]
    fn sweep(&self, _: Sweeping<'_>) -> Option<SweepFuture> {
        not_swept(NOT_BUILT.to_owned())
    }

    #[cfg(feature = "aws")]
    fn open(&self, opening: &Opening<'_>) -> Result<HostTarget, String> {
        let ec2 = Ec2::new(self.access.clone());
        let provider = SecurityGroup::new(ec2, self.what.clone(), &self.owner);
        self.marked(opening, provider, |marked| marked.provider().room())
    }

    #[cfg(not(feature = "aws"))]
    fn open(&self, _: &Opening<'_>) -> Result<HostTarget, String> {
        Err(NOT_BUILT.to_owned())
    }
}

impl Kind for PrefixListsAt {
    fn read(reader: &mut Reader<'_>, target: Option<&str>) -> Option<PrefixListsAt> {
        let v4 = reader.optional("v4_list", id("pl-"));
        let v6 = reader.optional("v6_list", id("pl-"));
        if v4.is_none() && v6.is_none() {
            reader.reject("v4_list", "is missing; name `v4_list`, `v6_list` or both");
        }
        let grow_to = reader.optional("grow_to", number_in(1..=RULES_MAX));
        Some(common(reader, target)?.with(PrefixListsConfig { v4, v6, grow_to }))
    }

    fn doors(&self) -> Vec<Door<'_>> {
        vec![Door { service: None, ports: &[], groups: &self.groups }]
    }

    fn before_first_list(&self) -> Option<&'static str> {
        Some(AS_IT_WAS)
    }

    fn claims(&self) -> Vec<Claim> {
        let lists = [("v4_list", &self.what.v4), ("v6_list", &self.what.v6)];
        let claim = |(key, list): (_, &Option<String>)| {
            let list = list.as_ref()?;
            Some(Claim::owned(key, &self.owner, format_args!("in {list}")))
        };
        lists.into_iter().filter_map(claim).collect()
    }

    #[cfg(not(feature = "aws"))]
    fn lacks(&self) -> Option<&'static str> {
        Some(NOT_BUILT)
    }

    #[cfg(feature = "aws")]
    fn sweep(&self, sweeping: Sweeping<'_>) -> Option<SweepFuture> {
        let ec2 = Ec2::new(self.access.clone());
        swept(PrefixLists::new(ec2, self.what.clone(), &self.owner), &self.owner, sweeping)
    }

    #[cfg(not(feature = "aws"))]
    fn sweep(&self, _: Sweeping<'_>) -> Option<SweepFuture> {
        not_swept(NOT_BUILT.to_owned())
    }

    #[cfg(feature = "aws")]
    fn open(&self, opening: &Opening<'_>) -> Result<HostTarget, String> {
        let ec2 = Ec2::new(self.access.clone());
        let provider = PrefixLists::new(ec2, self.what.clone(), &self.owner);
        self.marked(opening, provider, |marked| marked.provider().room())
    }

    #[cfg(not(feature = "aws"))]
    fn open(&self, _: &Opening<'_>) -> Result<HostTarget, String> {
        Err(NOT_BUILT.to_owned())
    }
}

impl Provided<()> {
    fn with<T>(self, what: T) -> Provided<T> {
        let Provided { access, aggregate, what: (), owner, groups } = self;
        Provided { access, aggregate, what, owner, groups }
    }
}

#[cfg(feature = "aws")]
impl<T> Provided<T> {
    fn marked<P: Provider>(
        &self,
        opening: &Opening<'_>,
        provider: P,
        room: fn(&Marked<P>) -> Room,
    ) -> Result<HostTarget, String> {
        let groups = opening.groups(&self.groups)?;
        let marked = Marked::new(opening.name, &self.owner, groups, provider);
        if !self.aggregate {
            return Ok(HostTarget::new(marked));
        }
        Ok(HostTarget::new(Fitted::new(marked, Shape::ANY).merging(room, opening.policy)))
    }
}

fn common(reader: &mut Reader<'_>, target: Option<&str>) -> Option<Provided<()>> {
    let calls = reader.optional("calls_per_minute", number_in(1..=CALLS_PER_MINUTE_MAX));
    let access = AwsAccess {
        region: reader.optional("region", text),
        endpoint: reader.optional("endpoint", endpoint),
        profile: reader.optional("profile", text),
        assume_role: reader.optional("assume_role", id("arn:")),
        calls_per_minute: calls.unwrap_or(AwsAccess::CALLS_PER_MINUTE),
    };
    let aggregate = reader.optional("aggregate", boolean).unwrap_or(false);
    let owner = reader.optional("owner", name).or_else(|| target.map(str::to_owned));
    let groups = marked_groups(reader);
    Some(Provided { access, aggregate, what: (), owner: owner?, groups })
}

/// Reads what AWS calls something, by how it begins.
fn id(start: &'static str) -> impl Fn(Scalar<'_>) -> Result<String, String> {
    move |scalar| {
        let id: String = text(scalar)?;
        let is_plain = id.chars().all(|char| char.is_ascii_graphic());
        if is_plain && id.len() > start.len() && id.starts_with(start) {
            return Ok(id);
        }
        Err(format!("is `{id}`; write what AWS shows, which begins with `{start}`"))
    }
}
