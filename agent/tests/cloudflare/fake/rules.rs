//! IP access rules of accounts and zones.

use std::collections::BTreeMap;
use std::net::IpAddr;

use postern_shared::network::{Family, Network};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::request::Request;
use super::{Refusal, SOME_TIME, State, Told, refused, told};

const WITHOUT_PER_PAGE: usize = 20;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The id of its account or zone.
    pub(crate) scope: String,
    pub(crate) target: String,
    pub(crate) value: String,
    pub(crate) mode: String,
    pub(crate) notes: String,
}

/// All rules by their ids, and what they were.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) now: BTreeMap<String, Rule>,
    past: Vec<(Instant, BTreeMap<String, Rule>)>,
}

impl Rule {
    /// What it is about, where that is an address or a range.
    pub(crate) fn network(&self) -> Option<Network> {
        self.value.parse().ok()
    }
}

impl Rules {
    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, Rule>)) {
        self.past.push((Instant::now(), self.now.clone()));
        change(&mut self.now);
    }

    fn at(&self, instant: Instant) -> &BTreeMap<String, Rule> {
        let later = self.past.iter().find(|(changed, _)| instant < *changed);
        later.map_or(&self.now, |(_, before)| before)
    }
}

impl State {
    /// Adds a rule, or changes what it says, past the API, as another admin does in the dashboard.
    pub(crate) fn put_rule(&mut self, rule: Rule) {
        let id = self.id();
        self.rules.change(|rules| {
            rules.retain(|_, there| !is_about_the_same(there, &rule));
            rules.insert(id, rule);
        });
    }

    /// Takes a rule away past the API.
    pub(crate) fn drop_rule(&mut self, scope: &str, network: Network) {
        let is_it = |rule: &Rule| rule.scope == scope && rule.network() == Some(network);
        self.rules.change(|rules| rules.retain(|_, rule| !is_it(rule)));
    }

    /// Those of a zone come with those of its account, as they do in truth.
    pub(super) fn tell_rules(&mut self, scope: &str, request: &Request) -> Told {
        let seen = self.behind();
        let (all, lower) = (self.rules.at(seen), |text: &str| text.to_ascii_lowercase());
        let asked = |name: &str, is: &str| request.get(name).is_none_or(|wanted| wanted == is);
        let notes = lower(request.get("notes").unwrap_or_default());
        let is_asked = |rule: &Rule| {
            (rule.scope == scope || rule.scope == super::ACCOUNT_OF_ALL)
                && lower(&rule.notes).contains(&notes)
                && asked("mode", &rule.mode)
                && asked("configuration.target", &rule.target)
                && asked("configuration.value", &rule.value)
        };
        let found: Vec<Value> = all
            .iter()
            .filter(|(_, rule)| is_asked(rule))
            .map(|(id, rule)| shown(id, rule))
            .collect();
        let page = request.number("page", 1).max(1);
        let per_page = request.number("per_page", WITHOUT_PER_PAGE).min(self.temper.page_max);
        let (rules, _) = self.page(&found, (page - 1) * per_page, per_page);
        let info = json!({
            "page": page, "per_page": per_page, "count": rules.len(),
            "total_count": found.len(), "total_pages": found.len().div_ceil(per_page),
        });
        Told { result: rules.into(), info }
    }

    pub(super) fn create_rule(&mut self, scope: &str, request: &Request) -> Result<Told, Refusal> {
        let rule = read(scope, request)?;
        if self.rules.now.values().any(|there| is_about_the_same(there, &rule)) {
            return Err(refused(400, 10_009, "firewallaccessrules.api.duplicate_of_existing"));
        }
        if self.temper.rules_max <= self.rules.now.len() {
            return Err(refused(400, 81_019, "Access rule quota has been exceeded."));
        }
        let id = self.id();
        let answer = shown(&id, &rule);
        self.rules.change(|rules| drop(rules.insert(id, rule)));
        Ok(told(answer))
    }

    pub(super) fn edit_rule(
        &mut self,
        scope: &str,
        id: &str,
        request: &Request,
    ) -> Result<Told, Refusal> {
        let rule = read(scope, request)?;
        let there = self.rules.now.get(id).filter(|there| there.scope == scope);
        let there = there.ok_or_else(not_found)?;
        if !is_about_the_same(there, &rule) {
            return Err(bad("the configuration cannot be changed"));
        }
        let answer = shown(id, &rule);
        self.rules.change(|rules| drop(rules.insert(id.to_owned(), rule)));
        Ok(told(answer))
    }

    pub(super) fn delete_rule(&mut self, scope: &str, id: &str) -> Result<Told, Refusal> {
        self.rules.now.get(id).filter(|there| there.scope == scope).ok_or_else(not_found)?;
        self.rules.change(|rules| drop(rules.remove(id)));
        Ok(told(json!({ "id": id })))
    }
}

fn is_about_the_same(one: &Rule, other: &Rule) -> bool {
    (&one.scope, &one.target, &one.value) == (&other.scope, &other.target, &other.value)
}

fn read(scope: &str, request: &Request) -> Result<Rule, Refusal> {
    let body = request.body.as_ref().ok_or_else(|| bad("no body"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (target, value) =
        (text(&body["configuration"]["target"]), text(&body["configuration"]["value"]));
    let is_good = match target.as_str() {
        "ip" => value.parse::<std::net::Ipv4Addr>().is_ok(),
        "ip6" => value.parse::<std::net::Ipv6Addr>().is_ok(),
        "ip_range" => value.parse::<Network>().is_ok_and(|network| {
            let taken: &[u8] = match network.family() {
                Family::V4 => &[16, 24],
                Family::V6 => &[32, 48, 64],
            };
            value.parse::<IpAddr>().is_err() && taken.contains(&network.prefix())
        }),
        "country" => true,
        _ => return Err(bad("unsupported target received")),
    };
    if !is_good {
        return Err(bad("invalid ip provided"));
    }
    let (mode, notes) = (text(&body["mode"]), text(&body["notes"]));
    let modes = ["block", "challenge", "whitelist", "js_challenge", "managed_challenge"];
    if !modes.contains(&mode.as_str()) {
        return Err(bad("invalid mode received"));
    }
    Ok(Rule { scope: scope.to_owned(), target, value, mode, notes })
}

fn shown(id: &str, rule: &Rule) -> Value {
    let Rule { scope, target, value, mode, notes } = rule;
    json!({
        "id": id, "mode": mode, "notes": notes,
        "allowed_modes": ["block", "challenge", "whitelist", "js_challenge", "managed_challenge"],
        "configuration": { "target": target, "value": value },
        "scope": { "id": scope, "type": "organization" },
        "created_on": SOME_TIME, "modified_on": SOME_TIME,
    })
}

fn bad(why: &str) -> Refusal {
    refused(400, 10_011, format!("firewallaccessrules.api.validation_error:{why}"))
}

fn not_found() -> Refusal {
    refused(404, 10_001, "firewallaccessrules.api.not_found")
}
