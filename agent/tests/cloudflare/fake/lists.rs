//! IP lists, their items, and the operations that change them.

use std::collections::{BTreeMap, BTreeSet};

use postern_shared::network::{Family, Network};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::request::Request;
use super::{Refusal, SOME_TIME, State, Told, refused, told};

const COMMENT_CHARS_MAX: usize = 500;
const WITHOUT_PER_PAGE: usize = 25;

/// An item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) comment: String,
}

/// A list, and what it was.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) kind: &'static str,
    pub(crate) items: BTreeMap<Network, Item>,
    past: Vec<(Instant, BTreeMap<Network, Item>)>,
}

/// A change that goes on after the answer.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    list: String,
    until: Instant,
    /// How much of it is done before it fails.
    breaks_after: Option<usize>,
    steps: Vec<Step>,
    end: Option<Result<(), String>>,
}

#[derive(Debug, Clone)]
enum Step {
    Put(Network, Item),
    Drop(String),
}

impl List {
    pub(crate) fn new() -> List {
        List { kind: "ip", items: BTreeMap::new(), past: Vec::new() }
    }

    fn change(&mut self, at: Instant, change: impl FnOnce(&mut BTreeMap<Network, Item>)) {
        self.past.push((at, self.items.clone()));
        change(&mut self.items);
    }

    fn at(&self, instant: Instant) -> &BTreeMap<Network, Item> {
        let later = self.past.iter().find(|(changed, _)| instant < *changed);
        later.map_or(&self.items, |(_, before)| before)
    }
}

impl State {
    /// Adds an item, or describes one anew, past the API, as another admin does in the dashboard.
    pub(crate) fn put_item(&mut self, list: &str, network: Network, comment: &str) {
        let item = Item { id: self.id(), comment: comment.to_owned() };
        let now = Instant::now();
        self.lists.get_mut(list).unwrap().change(now, |items| put(items, network, item));
    }

    /// Takes an item away past the API.
    pub(crate) fn drop_item(&mut self, list: &str, network: Network) {
        let now = Instant::now();
        self.lists.get_mut(list).unwrap().change(now, |items| drop(items.remove(&network)));
    }

    /// Begins a change of somebody else, which keeps the account busy for so long.
    pub(crate) fn keep_busy(&mut self, list: &str, span: std::time::Duration) {
        let until = Instant::now() + span;
        let steps = Vec::new();
        let operation =
            Operation { list: list.to_owned(), until, breaks_after: None, steps, end: None };
        let id = self.id();
        self.operations.insert(id, operation);
    }

    /// Brings operations to their ends whose time has come.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        for operation in self.operations.values_mut() {
            if operation.end.is_some() || now < operation.until {
                continue;
            }
            let Some(list) = self.lists.get_mut(&operation.list) else {
                operation.end = Some(Err("the list is not there".to_owned()));
                continue;
            };
            let all = operation.steps.len();
            let done = operation.breaks_after.unwrap_or(all);
            let steps = operation.steps.drain(..).take(done);
            list.change(operation.until, |items| {
                for step in steps {
                    match step {
                        Step::Put(network, item) => put(items, network, item),
                        Step::Drop(id) => items.retain(|_, item| item.id != id),
                    }
                }
            });
            operation.end = Some(match operation.breaks_after {
                Some(done) => Err(format!("internal error after {done} of {all} items")),
                None => Ok(()),
            });
        }
    }

    pub(super) fn tell_lists(&self) -> Told {
        let told = |(id, list): (&String, &List)| {
            json!({
                "id": id, "name": format!("list_{}", &id[28..]), "kind": list.kind,
                "num_items": list.items.len(), "num_referencing_filters": 1,
                "created_on": SOME_TIME, "modified_on": SOME_TIME,
            })
        };
        super::told(self.lists.iter().map(told).collect())
    }

    pub(super) fn tell_operation(&self, id: &str) -> Result<Told, Refusal> {
        let operation = self.operations.get(id).ok_or_else(|| not_found("bulk operation"))?;
        Ok(told(match &operation.end {
            None => json!({ "id": id, "status": "running" }),
            Some(Ok(())) => json!({ "id": id, "status": "completed", "completed": SOME_TIME }),
            Some(Err(error)) => {
                json!({ "id": id, "status": "failed", "completed": SOME_TIME, "error": error })
            }
        }))
    }

    pub(super) fn tell_items(&mut self, list: &str, request: &Request) -> Result<Told, Refusal> {
        let seen = self.behind();
        let list = self.lists.get(list).ok_or_else(|| not_found("list"))?;
        // A cursor names the item that it comes after, so that no change tears an item out of between.
        let after: Option<Network> = match request.get("cursor") {
            Some(cursor) => {
                let after = cursor.strip_prefix("after ").and_then(|after| after.parse().ok());
                Some(after.ok_or_else(|| refused(400, 10_014, "invalid cursor"))?)
            }
            None => None,
        };
        let there = list.at(seen);
        let from = there.keys().filter(|network| Some(**network) <= after).count();
        let networks: Vec<Network> = there.keys().copied().collect();
        let items: Vec<Value> = there.iter().map(shown).collect();
        let per_page = request.number("per_page", WITHOUT_PER_PAGE);
        if 500 < per_page {
            return Err(refused(400, 10_013, "invalid per_page"));
        }
        let (page, until) = self.page(&items, from, per_page);
        let cursors = if until < items.len() {
            json!({ "after": format!("after {}", networks[until - 1]) })
        } else {
            json!({})
        };
        Ok(Told { result: page.into(), info: json!({ "cursors": cursors }) })
    }

    pub(super) fn create_items(&mut self, list: &str, request: &Request) -> Result<Told, Refusal> {
        let steps = self.read_items(list, request)?;
        self.begin(list, steps)
    }

    /// Whatever is there goes, whosever it is. The agent never asks for this.
    pub(super) fn replace_items(&mut self, list: &str, request: &Request) -> Result<Told, Refusal> {
        let put = self.read_items(list, request)?;
        let gone = self.lists[list].items.values().map(|item| Step::Drop(item.id.clone()));
        let steps = gone.chain(put).collect();
        self.begin(list, steps)
    }

    fn read_items(&mut self, list: &str, request: &Request) -> Result<Vec<Step>, Refusal> {
        let asked = request.body.as_ref().and_then(Value::as_array);
        let asked = asked.ok_or_else(|| refused(400, 10_012, "the body is no array"))?.clone();
        self.check_list(list)?;
        let (mut steps, mut keys) = (Vec::new(), BTreeSet::new());
        for (at, item) in asked.iter().enumerate() {
            let bad = |why: &str| {
                refused(400, 10_028, format!("invalid value for ip at position {at}: {why}"))
            };
            let ip = item["ip"].as_str().ok_or_else(|| bad("filters.api.missing_value"))?;
            let network: Network = ip.parse().map_err(|_| bad("filters.api.invalid_ip"))?;
            let taken = match network.family() {
                Family::V4 => 8..=32,
                Family::V6 => 12..=64,
            };
            if !taken.contains(&network.prefix()) {
                return Err(bad("filters.api.invalid_prefix"));
            }
            if !keys.insert(network) {
                return Err(bad("filters.api.duplicate_item_value"));
            }
            let comment = item["comment"].as_str().unwrap_or_default().to_owned();
            if COMMENT_CHARS_MAX < comment.chars().count() {
                return Err(bad("filters.api.comment_too_long"));
            }
            steps.push(Step::Put(network, Item { id: self.id(), comment }));
        }
        let there = &self.lists[list].items;
        let new = keys.iter().filter(|network| !there.contains_key(network)).count();
        let all: usize = self.lists.values().map(|list| list.items.len()).sum();
        if self.temper.items_max < all + new {
            return Err(refused(400, 10_026, "maximum number of list items reached"));
        }
        Ok(steps)
    }

    pub(super) fn delete_items(&mut self, list: &str, request: &Request) -> Result<Told, Refusal> {
        let asked = request.body.as_ref().and_then(|body| body["items"].as_array());
        let asked = asked.ok_or_else(|| refused(400, 10_012, "the body has no items"))?.clone();
        self.check_list(list)?;
        let mut steps = Vec::new();
        for item in &asked {
            let id = item["id"].as_str().unwrap_or_default();
            let is_there = self.lists[list].items.values().any(|there| there.id == id);
            // Nothing published says what becomes of these.
            if !is_there && self.chance.once_in(2) {
                return Err(not_found("list item"));
            }
            steps.push(Step::Drop(id.to_owned()));
        }
        self.begin(list, steps)
    }

    fn check_list(&self, list: &str) -> Result<(), Refusal> {
        if !self.lists.contains_key(list) {
            return Err(not_found("list"));
        }
        if self.operations.values().any(|operation| operation.end.is_none()) {
            let message = "an outstanding bulk operation is in progress";
            return Err(self.patience(10_030, message, 2));
        }
        Ok(())
    }

    fn begin(&mut self, list: &str, steps: Vec<Step>) -> Result<Told, Refusal> {
        if steps.is_empty() {
            return Err(refused(400, 10_012, "no items"));
        }
        let once_in = self.temper.breaks_once_in;
        let breaks = once_in != 0 && self.chance.once_in(once_in);
        let breaks_after = breaks.then_some(steps.len() / 2);
        let until = Instant::now() + self.chance.up_to(self.temper.working_max);
        let operation = Operation { list: list.to_owned(), until, breaks_after, steps, end: None };
        let id = self.id();
        self.operations.insert(id.clone(), operation);
        Ok(told(json!({ "operation_id": id })))
    }
}

/// What has the same address is the same item, and gets another comment.
fn put(items: &mut BTreeMap<Network, Item>, network: Network, item: Item) {
    let comment = item.comment.clone();
    items.entry(network).or_insert(item).comment = comment;
}

fn shown((network, item): (&Network, &Item)) -> Value {
    let ip = match network.is_host() {
        true => network.address().to_string(),
        false => network.to_string(),
    };
    let Item { id, comment } = item;
    json!({ "id": id, "ip": ip, "comment": comment, "created_on": SOME_TIME, "modified_on": SOME_TIME })
}

fn not_found(what: &str) -> Refusal {
    refused(404, 10_001, format!("could not find {what}"))
}
