//! IP access rules of an account or a zone, as Cloudflare tells and takes them.

use std::collections::BTreeMap;

use postern_shared::network::{Family, Network};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::action::Action;
use super::client::Cloudflare;
use super::config::Scope;
use super::error::CloudflareError;
use super::items::percent;
use crate::target::marked::mirror;

/// The mode of a rule that lets in.
pub(super) const ALLOW: &str = "whitelist";
const PAGE_MAX: usize = 100;
/// More than Cloudflare grants an account: pages beyond these never end.
const PAGES_MAX: usize = 500;

/// A rule that is there. A scope has one for each network at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) id: String,
    /// What it is about, where that is something we would write.
    pub(super) network: Option<Network>,
    pub(super) mode: String,
    pub(super) notes: String,
}

/// One change of ours that Cloudflare has confirmed.
#[derive(Debug, Clone)]
pub(super) enum Written {
    Added(Rule),
    Described { id: String, notes: String },
    Gone { id: String },
}

#[derive(Deserialize)]
struct RuleTold {
    id: String,
    #[serde(default)]
    mode: String,
    notes: Option<String>,
    #[serde(default)]
    configuration: Configuration,
    #[serde(default)]
    scope: ScopeTold,
}

#[derive(Default, Deserialize)]
struct Configuration {
    target: Option<String>,
    value: Option<String>,
}

#[derive(Default, Deserialize)]
struct ScopeTold {
    id: Option<String>,
}

#[derive(Deserialize)]
struct Gone {
    #[serde(rename = "id")]
    _id: String,
}

impl mirror::Written for Written {
    type Key = String;
    type Entry = Rule;

    fn write_into(&self, rules: &mut BTreeMap<String, Rule>) {
        match self {
            Written::Added(rule) => drop(rules.insert(rule.id.clone(), rule.clone())),
            Written::Described { id, notes } => {
                if let Some(rule) = rules.get_mut(id) {
                    (rule.notes, rule.mode) = (notes.clone(), ALLOW.to_owned());
                }
            }
            Written::Gone { id } => drop(rules.remove(id)),
        }
    }
}

/// Reads the rules whose notes hold these words, by their ids: a page that comes twice, or in another
/// order, changes nothing.
pub(super) async fn read(
    cloudflare: &Cloudflare,
    scope: &Scope,
    words: &str,
) -> Result<BTreeMap<String, Rule>, CloudflareError> {
    let action = Action::ListAccessRules(scope.into());
    let mut rules = BTreeMap::new();
    let words = percent(words);
    for page in 1..=PAGES_MAX {
        let query = format!(
            "notes={words}&order=configuration.value&direction=asc&per_page={PAGE_MAX}&page={page}"
        );
        let (told, info): (Vec<RuleTold>, _) =
            cloudflare.get(action, format!("{}?{query}", path(scope))).await?;
        let is_last = match info.total_pages {
            Some(pages) => pages <= page,
            None => told.len() < PAGE_MAX,
        };
        rules.extend(told.into_iter().filter(|rule| rule.is_of(scope)).map(RuleTold::shown));
        if is_last {
            return Ok(rules);
        }
    }
    Err(CloudflareError::Unclear {
        action,
        message: format!("more than {PAGES_MAX} pages of rules"),
    })
}

/// Reads how many rules there are, whosever they are.
pub(super) async fn count(
    cloudflare: &Cloudflare,
    scope: &Scope,
) -> Result<Option<usize>, CloudflareError> {
    let action = Action::ListAccessRules(scope.into());
    let path = format!("{}?per_page=5&page=1", path(scope));
    let (_, info): (Value, _) = cloudflare.get(action, path).await?;
    Ok(info.total_count)
}

/// Looks for the one rule about a network.
pub(super) async fn find(
    cloudflare: &Cloudflare,
    scope: &Scope,
    network: Network,
) -> Result<Option<Rule>, CloudflareError> {
    let action = Action::ListAccessRules(scope.into());
    let (target, value) = configuration(network);
    let query = format!(
        "configuration.target={target}&configuration.value={}&match=all&per_page={PAGE_MAX}&page=1",
        percent(&value)
    );
    let (told, _): (Vec<RuleTold>, _) =
        cloudflare.get(action, format!("{}?{query}", path(scope))).await?;
    let rules = told.into_iter().filter(|rule| rule.is_of(scope)).map(|rule| rule.shown().1);
    let mut about = rules.filter(|rule| rule.network == Some(network));
    Ok(about.next())
}

/// Adds a rule that lets a network in.
pub(super) async fn create(
    cloudflare: &Cloudflare,
    scope: &Scope,
    network: Network,
    notes: &str,
) -> Result<Rule, CloudflareError> {
    let action = Action::CreateAccessRule(scope.into());
    let body = Some(body(network, notes));
    let told: RuleTold = cloudflare.change(action, Method::POST, path(scope), body).await?;
    // Whatever of it the answer shows; we know what we asked for.
    Ok(Rule {
        id: told.id,
        network: Some(network),
        mode: ALLOW.to_owned(),
        notes: notes.to_owned(),
    })
}

/// Gives a rule other notes, and lets it let in.
pub(super) async fn edit(
    cloudflare: &Cloudflare,
    scope: &Scope,
    id: &str,
    network: Network,
    notes: &str,
) -> Result<(), CloudflareError> {
    let action = Action::EditAccessRule(scope.into());
    let path = format!("{}/{}", path(scope), percent(id));
    let body = Some(body(network, notes));
    cloudflare.change::<RuleTold>(action, Method::PATCH, path, body).await.map(drop)
}

/// Takes a rule away.
pub(super) async fn delete(
    cloudflare: &Cloudflare,
    scope: &Scope,
    id: &str,
) -> Result<(), CloudflareError> {
    let action = Action::DeleteAccessRule(scope.into());
    let path = format!("{}/{}", path(scope), percent(id));
    cloudflare.change::<Gone>(action, Method::DELETE, path, None).await.map(drop)
}

impl RuleTold {
    /// A zone's rules are told with those of its account.
    fn is_of(&self, scope: &Scope) -> bool {
        self.scope.id.as_ref().is_none_or(|id| id == scope.id())
    }

    fn shown(self) -> (String, Rule) {
        let kinds = ["ip", "ip6", "ip_range"];
        let is_ours_to_write =
            self.configuration.target.is_some_and(|target| kinds.contains(&target.as_str()));
        let value = self.configuration.value.filter(|_| is_ours_to_write);
        let network = value.and_then(|value| value.parse().ok());
        let (mode, notes) = (self.mode, self.notes.unwrap_or_default());
        (self.id.clone(), Rule { id: self.id, network, mode, notes })
    }
}

fn path(scope: &Scope) -> String {
    format!("{scope}/firewall/access_rules/rules")
}

fn body(network: Network, notes: &str) -> Value {
    let (target, value) = configuration(network);
    json!({
        "mode": ALLOW, "notes": notes, "configuration": { "target": target, "value": value },
    })
}

fn configuration(network: Network) -> (&'static str, String) {
    match (network.is_host(), network.family()) {
        (true, Family::V4) => ("ip", network.address().to_string()),
        (true, Family::V6) => ("ip6", network.address().to_string()),
        (false, _) => ("ip_range", network.to_string()),
    }
}
