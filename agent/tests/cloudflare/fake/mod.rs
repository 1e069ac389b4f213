//! A Cloudflare of ours: a fake, as strict, forgetful and slow to agree with itself as the real one.
//!
//! JSON in and out, by Cloudflare's published schema. What it does it decides on what is; what it shows
//! may be as old as `Temper::behind_max`.

mod lists;
mod request;
mod rules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

pub(crate) use self::lists::List;
pub(crate) use self::request::Request;
pub(crate) use self::rules::Rule;
use crate::chance::Chance;

/// As the schema shows times; nobody here asks what they say.
const SOME_TIME: &str = "2026-11-26T10:00:00.12345Z";

/// The account that every zone here belongs to.
const ACCOUNT_OF_ALL: &str = "0000000000000000000000000000acc0";

/// How the fake behaves where the real one may behave so or so.
#[derive(Debug, Clone)]
pub(crate) struct Temper {
    /// How old a read may be.
    pub(crate) behind_max: Duration,
    /// How long a change of a list takes at most.
    pub(crate) working_max: Duration,
    /// Once in how many changes of lists one breaks off in the middle; never where it is 0.
    pub(crate) breaks_once_in: usize,
    /// Most items of a page, whatever is asked for.
    pub(crate) page_max: usize,
    /// Whether pages come in another order, with items again that an earlier one had.
    pub(crate) repeats: bool,
    /// Calls in five minutes; who makes more is shut out for five minutes.
    pub(crate) calls_max: usize,
    /// Whether it says how long to wait.
    pub(crate) says_when: bool,
    /// Items of all lists of an account.
    pub(crate) items_max: usize,
    /// Access rules of an account.
    pub(crate) rules_max: usize,
}

impl Default for Temper {
    fn default() -> Temper {
        Temper {
            behind_max: Duration::ZERO,
            working_max: Duration::from_secs(1),
            breaks_once_in: 0,
            page_max: 1000,
            repeats: false,
            calls_max: 1200,
            says_when: true,
            items_max: 10_000,
            rules_max: 50_000,
        }
    }
}

/// An answer: status, how long to wait, body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: String,
}

/// An error, by Cloudflare's number for it.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    code: u64,
    message: String,
    retry_after: Option<u64>,
}

/// What an answer holds beside `success`.
pub(crate) struct Told {
    result: Value,
    info: Value,
}

/// The endpoint; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct FakeCloudflare(Arc<Mutex<State>>);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) temper: Temper,
    pub(crate) chance: Chance,
    /// The permission groups of the token; all where nobody says.
    pub(crate) allowed: Option<BTreeSet<String>>,
    pub(crate) is_expired: bool,
    /// The account's lists.
    pub(crate) lists: BTreeMap<String, List>,
    operations: BTreeMap<String, lists::Operation>,
    /// Access rules of all accounts and zones.
    pub(crate) rules: rules::Rules,
    /// Which calls were made.
    calls: Vec<String>,
    recent: VecDeque<Instant>,
    shut_out_until: Option<Instant>,
    ids: u64,
}

impl FakeCloudflare {
    pub(crate) fn new(seed: u64, temper: Temper) -> FakeCloudflare {
        FakeCloudflare(Arc::new(Mutex::new(State {
            temper,
            chance: Chance::new(seed),
            allowed: None,
            is_expired: false,
            lists: BTreeMap::new(),
            operations: BTreeMap::new(),
            rules: rules::Rules::default(),
            calls: Vec::new(),
            recent: VecDeque::new(),
            shut_out_until: None,
            ids: 0,
        })))
    }

    /// What really is by now, and the way to change it past the API.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap();
        state.settle();
        state
    }

    /// Answers a call.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        let mut state = self.state();
        match state.carry_out(request) {
            Ok(Told { result, info }) => {
                let body = json!({
                    "success": true, "errors": [], "messages": [],
                    "result": result, "result_info": info,
                });
                Answer { status: 200, retry_after: None, body: body.to_string() }
            }
            Err(refusal) => refusal.answer(),
        }
    }

    /// How often each call was made, since the last time this was asked.
    pub(crate) fn take_calls(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for call in std::mem::take(&mut self.state().calls) {
            *counted.entry(call).or_default() += 1;
        }
        counted
    }
}

impl State {
    fn carry_out(&mut self, request: &Request) -> Result<Told, Refusal> {
        let path: Vec<&str> = request.path.split('/').collect();
        let (name, permission) = named(&request.method, &path);
        self.calls.push(name.to_owned());
        self.count_call()?;
        if self.is_expired {
            return Err(refused(401, 1000, "Invalid API Token"));
        }
        let is_allowed = |allowed: &BTreeSet<String>| allowed.contains(permission);
        if !self.allowed.as_ref().is_none_or(is_allowed) {
            return Err(refused(403, 10_000, "Authentication error"));
        }
        match (request.method.as_str(), &path[..]) {
            ("GET", ["accounts", _, "rules", "lists"]) => Ok(self.tell_lists()),
            ("GET", ["accounts", _, "rules", "lists", "bulk_operations", id]) => {
                self.tell_operation(id)
            }
            ("GET", ["accounts", _, "rules", "lists", list, "items"]) => {
                self.tell_items(list, request)
            }
            ("POST", ["accounts", _, "rules", "lists", list, "items"]) => {
                self.create_items(list, request)
            }
            ("PUT", ["accounts", _, "rules", "lists", list, "items"]) => {
                self.replace_items(list, request)
            }
            ("DELETE", ["accounts", _, "rules", "lists", list, "items"]) => {
                self.delete_items(list, request)
            }
            ("GET", [_, scope, "firewall", "access_rules", "rules"]) => {
                Ok(self.tell_rules(scope, request))
            }
            ("POST", [_, scope, "firewall", "access_rules", "rules"]) => {
                self.create_rule(scope, request)
            }
            ("PATCH", [_, scope, "firewall", "access_rules", "rules", id]) => {
                self.edit_rule(scope, id, request)
            }
            ("DELETE", [_, scope, "firewall", "access_rules", "rules", id]) => {
                self.delete_rule(scope, id)
            }
            _ => Err(refused(404, 7003, format!("Could not route to /{}", request.path))),
        }
    }

    /// Cloudflare's own limit, which is not ours.
    fn count_call(&mut self) -> Result<(), Refusal> {
        const WINDOW: Duration = Duration::from_secs(300);
        let now = Instant::now();
        while self.recent.front().is_some_and(|first| *first + WINDOW <= now) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        if self.temper.calls_max < self.recent.len() {
            self.shut_out_until = Some(now + WINDOW);
        }
        match self.shut_out_until.filter(|until| now < *until) {
            Some(until) => {
                let wait = until.duration_since(now).as_secs() + 1;
                Err(self.patience(
                    971,
                    "Please wait and consider throttling your request speed",
                    wait,
                ))
            }
            None => Ok(()),
        }
    }

    fn patience(&self, code: u64, message: &str, wait: u64) -> Refusal {
        let retry_after = self.temper.says_when.then_some(wait);
        Refusal { retry_after, ..refused(429, code, message) }
    }

    /// How far behind the next read is.
    fn behind(&mut self) -> Instant {
        let behind = self.chance.up_to(self.temper.behind_max);
        Instant::now().checked_sub(behind).unwrap_or_else(Instant::now)
    }

    fn id(&mut self) -> String {
        self.ids += 1;
        format!("{:032x}", self.ids)
    }

    /// The items from one place on, at most so many, and where the next page begins. With repeats, items
    /// come in another order each time, and the last one of a page again in the next.
    fn page(&mut self, items: &[Value], from: usize, asked: usize) -> (Vec<Value>, usize) {
        let until = items.len().min(from + self.temper.page_max.min(asked).max(1));
        let first = if self.temper.repeats { from.saturating_sub(1) } else { from };
        let mut shown = items.get(first.min(until)..until).unwrap_or_default().to_vec();
        if self.temper.repeats {
            self.chance.shuffle(&mut shown);
        }
        (shown, until)
    }
}

/// How a call is called, and the permission group that it needs.
fn named(method: &str, path: &[&str]) -> (&'static str, &'static str) {
    match (method, path) {
        ("GET", [_, _, "rules", "lists"]) => ("GetLists", "Account Filter Lists Write"),
        ("GET", [_, _, "rules", "lists", "bulk_operations", _]) => {
            ("GetBulkOperation", "Account Filter Lists Write")
        }
        ("GET", [_, _, "rules", "lists", ..]) => ("GetItems", "Account Filter Lists Write"),
        ("POST", [_, _, "rules", "lists", ..]) => ("CreateItems", "Account Filter Lists Write"),
        ("PUT", [_, _, "rules", "lists", ..]) => ("ReplaceItems", "Account Filter Lists Write"),
        ("DELETE", [_, _, "rules", "lists", ..]) => ("DeleteItems", "Account Filter Lists Write"),
        (_, [of, _, "firewall", ..]) => {
            let name = match method {
                "GET" => "ListAccessRules",
                "POST" => "CreateAccessRule",
                "PATCH" => "EditAccessRule",
                _ => "DeleteAccessRule",
            };
            let permission = match *of {
                "accounts" => "Account Firewall Access Rules Write",
                _ => "Firewall Services Write",
            };
            (name, permission)
        }
        _ => ("?", "?"),
    }
}

impl Refusal {
    fn answer(self) -> Answer {
        let Refusal { status, code, message, retry_after } = self;
        let body = json!({
            "success": false, "errors": [{ "code": code, "message": message }], "messages": [],
            "result": null,
        });
        Answer { status, retry_after, body: body.to_string() }
    }
}

fn refused(status: u16, code: u64, message: impl Into<String>) -> Refusal {
    Refusal { status, code, message: message.into(), retry_after: None }
}

fn told(result: Value) -> Told {
    Told { result, info: Value::Null }
}
