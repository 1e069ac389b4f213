//! Reads targets at Cloudflare.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use postern_shared::document::{Reader, Scalar, boolean, number_in, text};
use postern_shared::policy::LocalPolicy;

use super::kind::{not_swept, swept};
use super::read::{endpoint, marked_groups, name};
use super::{
    Claim, CloudflareCalls, Door, GroupRef, Kind, Opening, SweepFuture, Sweeping, TargetConfig,
};
use crate::firewalls::HostTarget;
use crate::target::cloudflare::{
    AccessRules, AccessRulesConfig, Cloudflare, Endpoint, Https, IpList, ListConfig, Scope,
};
use crate::target::marked::{Fitted, Marked, Provider, Room, Shape};

/// More than Cloudflare grants anybody.
const ITEMS_MAX: usize = 1_000_000;

/// Something at Cloudflare, whose entries say whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AtCloudflare<T> {
    /// Another address than Cloudflare's own.
    pub(crate) endpoint: Option<String>,
    /// The file of the token; else the service manager gives it.
    pub(crate) token_file: Option<PathBuf>,
    /// Most calls in any minute, repetitions included.
    pub(crate) calls_per_minute: u16,
    /// Whether what is too narrow for Cloudflare lets in more than was asked for.
    pub(crate) widen_v6: bool,
    /// Whether adjacent networks become one where there is no room for all.
    pub(crate) aggregate: bool,
    /// What.
    pub(crate) what: T,
    /// By what our entries are known from others'. Default: the target's name.
    pub(crate) owner: String,
    /// Whose addresses go in.
    pub(crate) groups: Vec<GroupRef>,
}

/// IP access rules.
pub(crate) type AccessRulesAt = AtCloudflare<AccessRulesConfig>;

/// An IP list.
pub(crate) type ListAt = AtCloudflare<ListConfig>;

/// Says how many entries of ours there is room for.
type RoomOf<P> = fn(&Marked<P>) -> Room;

/// Something at Cloudflare that can be kept equal to groups.
pub(crate) trait Part: fmt::Debug + Clone {
    /// What keeps it.
    type Provider: Provider;

    /// How much room there is, where entries may be merged for the lack of it.
    const ROOM: Option<RoomOf<Self::Provider>>;

    /// Which networks it takes; those that are too narrow become wider within a policy.
    const SHAPE: fn(Option<LocalPolicy>) -> Shape;

    /// Reads what belongs to it alone.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;

    /// What of an owner's it keeps.
    fn claim(&self, owner: &str) -> Claim;

    /// Makes what keeps it.
    fn provider(&self, cloudflare: Cloudflare, owner: &str) -> Self::Provider;
}

impl Part for ListConfig {
    type Provider = IpList;

    const ROOM: Option<RoomOf<IpList>> = Some(|marked| marked.provider().room());
    const SHAPE: fn(Option<LocalPolicy>) -> Shape = IpList::shape;

    fn read(reader: &mut Reader<'_>) -> Option<ListConfig> {
        let account = reader.required("account_id", id);
        let list = reader.required("list_id", id);
        let items_max = reader.optional("items_max", number_in(1..=ITEMS_MAX));
        let items_max = items_max.unwrap_or(ListConfig::ITEMS_MAX);
        Some(ListConfig { account: account?, list: list?, items_max })
    }

    fn claim(&self, owner: &str) -> Claim {
        Claim::owned("list_id", owner, format_args!("in the list {}", self.list))
    }

    fn provider(&self, cloudflare: Cloudflare, owner: &str) -> IpList {
        IpList::new(cloudflare, self.clone(), owner)
    }
}

impl Part for AccessRulesConfig {
    type Provider = AccessRules;

    const ROOM: Option<RoomOf<AccessRules>> = None;
    const SHAPE: fn(Option<LocalPolicy>) -> Shape = AccessRules::shape;

    fn read(reader: &mut Reader<'_>) -> Option<AccessRulesConfig> {
        let account = reader.optional("account_id", id).map(Scope::Account);
        let zone = reader.optional("zone_id", id).map(Scope::Zone);
        if account.is_some() == zone.is_some() {
            let which = "is one of two; name `account_id` for all of its zones, or one `zone_id`";
            reader.reject("zone_id", which);
        }
        let rules_max = reader.optional("rules_max", number_in(1..=ITEMS_MAX));
        let rules_max = rules_max.unwrap_or(AccessRulesConfig::RULES_MAX);
        Some(AccessRulesConfig { scope: account.or(zone)?, rules_max })
    }

    fn claim(&self, owner: &str) -> Claim {
        match &self.scope {
            Scope::Account(id) => {
                Claim::owned("account_id", owner, format_args!("in the account {id}"))
            }
            Scope::Zone(id) => Claim::owned("zone_id", owner, format_args!("in the zone {id}")),
        }
    }

    fn provider(&self, cloudflare: Cloudflare, owner: &str) -> AccessRules {
        AccessRules::new(cloudflare, self.clone(), owner)
    }
}

impl<T: Part> Kind for AtCloudflare<T> {
    fn read(reader: &mut Reader<'_>, target: Option<&str>) -> Option<AtCloudflare<T>> {
        let what = T::read(reader);
        let aggregate = T::ROOM.and_then(|_| reader.optional("aggregate", boolean));
        let calls = number_in(1..=Cloudflare::CALLS_PER_MINUTE_MAX);
        let calls = reader.optional("calls_per_minute", calls);
        let endpoint = reader.optional("endpoint", endpoint);
        let token_file = reader.optional("token_file", text);
        let widen_v6 = reader.optional("widen_v6", boolean);
        let owner = reader.optional("owner", name).or_else(|| target.map(str::to_owned));
        let groups = marked_groups(reader);
        Some(AtCloudflare {
            endpoint,
            token_file,
            calls_per_minute: calls.unwrap_or(Cloudflare::CALLS_PER_MINUTE),
            widen_v6: widen_v6.unwrap_or(false),
            aggregate: aggregate.unwrap_or(false),
            what: what?,
            owner: owner?,
            groups,
        })
    }

    fn doors(&self) -> Vec<Door<'_>> {
        vec![Door { service: None, ports: &[], groups: &self.groups }]
    }

    fn before_first_list(&self) -> Option<&'static str> {
        Some("Cloudflare is as you left it")
    }

    fn claims(&self) -> Vec<Claim> {
        vec![self.what.claim(&self.owner)]
    }

    fn sweep(&self, sweeping: Sweeping<'_>) -> Option<SweepFuture> {
        let provider = self.provider();
        provider.map_or_else(not_swept, |provider| swept(provider, &self.owner, sweeping))
    }

    fn open(&self, opening: &Opening<'_>) -> Result<HostTarget, String> {
        let (provider, groups) = (self.provider()?, opening.groups(&self.groups)?);
        let marked = Marked::new(opening.name, &self.owner, groups, provider);
        let within = self.widen_v6.then(|| opening.policy.clone());
        let fitted = Fitted::new(marked, T::SHAPE(within));
        Ok(HostTarget::new(match T::ROOM.filter(|_| self.aggregate) {
            Some(room) => fitted.merging(room, opening.policy),
            None => fitted,
        }))
    }

    fn cloudflare_calls(&self) -> Option<CloudflareCalls<'_>> {
        let (token_file, per_minute) = (self.token_file.as_deref(), self.calls_per_minute);
        Some(CloudflareCalls { token_file, per_minute })
    }
}

impl<T: Part> AtCloudflare<T> {
    fn provider(&self) -> Result<T::Provider, String> {
        let given = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let (base, file) = (self.endpoint.clone(), self.token_file.as_deref());
        let https = Https::new(Endpoint::find(base, file, given.as_deref())?);
        let cloudflare = Cloudflare::over(https, self.calls_per_minute);
        Ok(self.what.provider(cloudflare, &self.owner))
    }
}

/// Says what is wrong where targets with one token may make more calls together than is good.
pub(super) fn overspent(targets: &[TargetConfig]) -> Option<String> {
    let mut spent: BTreeMap<Option<&Path>, u32> = BTreeMap::new();
    for calls in targets.iter().filter_map(|target| target.kind.as_kind().cloudflare_calls()) {
        *spent.entry(calls.token_file).or_default() += u32::from(calls.per_minute);
    }
    let most = Cloudflare::CALLS_PER_MINUTE_MAX;
    let calls = spent.into_values().find(|calls| u32::from(most) < *calls)?;
    Some(format!(
        "may make {calls} calls a minute to Cloudflare with one token, and {most} are half of what \
         it grants; lower their `calls_per_minute`, or give some the token of another user"
    ))
}

/// Reads what Cloudflare shows as an id.
fn id(scalar: Scalar<'_>) -> Result<String, String> {
    let id: String = text(scalar)?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.len() == 32 && id.bytes().all(is_hex) {
        return Ok(id);
    }
    Err(format!("is `{id}`; write the 32 digits and letters from a to f that Cloudflare shows"))
}
