//! The items of an IP list, as Cloudflare tells and takes them.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_shared::network::Network;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::action::Action;
use super::client::Cloudflare;
use super::config::ListConfig;
use super::error::{CloudflareError, shorten};
use crate::target::marked::mirror;

/// Most items in a change.
pub(super) const BATCH_MAX: usize = 1000;
const PAGE_MAX: usize = 500;
/// A million items: pages beyond these never end.
const PAGES_MAX: usize = 2000;
/// Before the first look at what became of a change; then twice as long each, up to the last.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LATER_LOOK_MAX: Duration = Duration::from_secs(4);

/// An item that is there. A list has one for each network at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Its id, once it was read.
    pub(super) id: Option<String>,
    pub(super) comment: String,
}

/// One change of ours that Cloudflare has confirmed.
#[derive(Debug, Clone)]
pub(super) enum Written {
    Put { network: Network, comment: String },
    Gone { network: Network, id: String },
}

/// The lists of an account, by how many items they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heads {
    /// How the list is called in rules.
    pub(super) name: String,
    /// How many items all other lists hold.
    pub(super) others: usize,
}

#[derive(Deserialize)]
struct ListTold {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    num_items: f64,
}

#[derive(Deserialize)]
struct ItemTold {
    id: String,
    ip: Option<String>,
    comment: Option<String>,
}

#[derive(Deserialize)]
struct Begun {
    operation_id: String,
}

#[derive(Deserialize)]
struct Operation {
    status: String,
    error: Option<String>,
}

impl mirror::Written for Written {
    type Key = Network;
    type Entry = Item;

    fn write_into(&self, items: &mut BTreeMap<Network, Item>) {
        match self {
            Written::Put { network, comment } => {
                let new = || Item { id: None, comment: String::new() };
                items.entry(*network).or_insert_with(new).comment.clone_from(comment);
            }
            // An item with another id is another item, which somebody has added since.
            Written::Gone { network, id } => {
                let is_it = |item: &Item| item.id.as_ref().is_none_or(|there| there == id);
                if items.get(network).is_some_and(is_it) {
                    items.remove(network);
                }
            }
        }
    }
}

/// Reads which lists there are. That ours is not there, or holds no addresses, is an error.
pub(super) async fn heads(
    cloudflare: &Cloudflare,
    config: &ListConfig,
) -> Result<Heads, CloudflareError> {
    let action = Action::GetLists;
    let path = format!("accounts/{}/rules/lists", config.account);
    let (lists, _): (Vec<ListTold>, _) = cloudflare.get(action, path).await?;
    let (ours, others): (Vec<ListTold>, Vec<ListTold>) =
        lists.into_iter().partition(|list| list.id == config.list);
    let Some(ours) = ours.into_iter().next() else {
        let (account, list) = (&config.account, &config.list);
        let message = format!("the account {account} has no list {list}");
        return Err(CloudflareError::gone(action, &message));
    };
    if ours.kind != "ip" {
        let message = format!("{} is a list of kind `{}`", config.list, shorten(&ours.kind));
        return Err(CloudflareError::gone(action, &message));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let others = others.iter().map(|list| list.num_items.max(0.0) as usize).sum();
    Ok(Heads { name: shorten(&ours.name), others })
}

/// Reads all items: a page that comes twice, or in another order, changes nothing.
pub(super) async fn read(
    cloudflare: &Cloudflare,
    config: &ListConfig,
) -> Result<BTreeMap<Network, Item>, CloudflareError> {
    let action = Action::GetItems;
    let mut items = BTreeMap::new();
    let mut path = format!("{}?per_page={PAGE_MAX}", path(config));
    for _ in 0..PAGES_MAX {
        let (page, info): (Vec<ItemTold>, _) = cloudflare.get(action, path).await?;
        items.extend(page.into_iter().filter_map(|item| {
            let network = item.ip?.parse().ok()?;
            Some((network, Item { id: Some(item.id), comment: item.comment.unwrap_or_default() }))
        }));
        let Some(after) = info.cursors.after.filter(|after| !after.is_empty()) else {
            return Ok(items);
        };
        let cursor: String = percent(&after);
        path = format!("{}?per_page={PAGE_MAX}&cursor={cursor}", self::path(config));
    }
    Err(CloudflareError::Unclear {
        action,
        message: format!("more than {PAGES_MAX} pages of items"),
    })
}

/// Adds items, and gives those that are there this comment; answers the operation.
pub(super) async fn create(
    cloudflare: &Cloudflare,
    config: &ListConfig,
    items: &[(Network, String)],
) -> Result<String, CloudflareError> {
    let body =
        items.iter().map(|(network, comment)| json!({ "ip": shown(*network), "comment": comment }));
    let body = Some(body.collect());
    let begun: Begun =
        cloudflare.change(Action::CreateItems, Method::POST, path(config), body).await?;
    Ok(begun.operation_id)
}

/// Takes items away; answers the operation.
pub(super) async fn delete(
    cloudflare: &Cloudflare,
    config: &ListConfig,
    ids: impl Iterator<Item = &String>,
) -> Result<String, CloudflareError> {
    let ids: Vec<_> = ids.map(|id| json!({ "id": id })).collect();
    let body = Some(json!({ "items": ids }));
    let begun: Begun =
        cloudflare.change(Action::DeleteItems, Method::DELETE, path(config), body).await?;
    Ok(begun.operation_id)
}

/// Waits until an operation has come to its end, or `until`.
pub(super) async fn follow(
    cloudflare: &Cloudflare,
    config: &ListConfig,
    operation: &str,
    until: Instant,
) -> Result<(), CloudflareError> {
    let (began, mut pause) = (Instant::now(), FIRST_LOOK);
    let account = &config.account;
    let path = format!("accounts/{account}/rules/lists/bulk_operations/{}", percent(operation));
    loop {
        tokio::time::sleep(pause).await;
        match cloudflare.get::<Operation>(Action::GetBulkOperation, path.clone()).await {
            Ok((told, _)) if told.status == "completed" => return Ok(()),
            Ok((told, _)) if told.status == "failed" => {
                let message = shorten(&told.error.unwrap_or_default());
                return Err(CloudflareError::Failed { message });
            }
            // Pending, running, not to be seen yet, or nobody has answered.
            Ok(_) | Err(CloudflareError::Missing { .. } | CloudflareError::Unclear { .. }) => {}
            Err(error) => return Err(error),
        }
        if until <= Instant::now() {
            let (operation, after) = (shorten(operation), began.elapsed());
            return Err(CloudflareError::Slow { operation, after });
        }
        pause = LATER_LOOK_MAX.min(2 * pause);
    }
}

fn path(config: &ListConfig) -> String {
    format!("accounts/{}/rules/lists/{}/items", config.account, config.list)
}

/// An address alone is written without its prefix.
fn shown(network: Network) -> String {
    match network.is_host() {
        true => network.address().to_string(),
        false => network.to_string(),
    }
}

/// Writes what Cloudflare gave us so that it is one piece of a URL.
pub(super) fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
