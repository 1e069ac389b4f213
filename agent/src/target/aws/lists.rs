//! Managed prefix lists, as EC2 tells and takes them.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    AddPrefixListEntry, ManagedPrefixList, PrefixListState, RemovePrefixListEntry,
};
use postern_shared::network::{Family, Network};
use tokio::time::Instant;

use super::action::Action;
use super::client::Ec2;
use super::error::AwsError;

/// Most additions and removals in a call.
pub(super) const BATCH_MAX: usize = 100;
const PAGE_MAX: i32 = 100;
/// Ten times what a list can hold by default.
const PAGES_MAX: usize = 100;
/// How long a list may be between two versions before we leave it to the next pass.
const COMPLETION_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A list without its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) version: i64,
    pub(super) entries_max: usize,
    pub(super) family: Option<Family>,
    pub(super) stage: Stage,
}

/// What a list is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// It can be changed; the last change may have failed.
    Ready,
    /// A change is under way.
    Working,
    /// It is being deleted.
    Leaving,
}

/// One change, from one version to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) add: BTreeMap<Network, String>,
    pub(super) remove: Vec<Network>,
    /// It puts back what the change before took away, with another description.
    pub(super) brings_back: bool,
}

impl Change {
    pub(super) fn len(&self) -> usize {
        self.add.len() + self.remove.len()
    }
}

/// Reads the heads of lists. A list that is not there is an error.
pub(super) async fn heads(ec2: &mut Ec2, ids: &[String]) -> Result<Vec<Head>, AwsError> {
    let action = Action::DescribeManagedPrefixLists;
    let mut heads: BTreeMap<String, Head> = BTreeMap::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        let call = |client: Client| {
            client
                .describe_managed_prefix_lists()
                .set_prefix_list_ids(Some(ids.to_vec()))
                .set_next_token(token.take())
                .send()
        };
        let page = ec2.call(action, call).await?;
        heads.extend(
            page.prefix_lists().iter().filter_map(head).map(|head| (head.id.clone(), head)),
        );
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    let found = |id: &String| match heads.get(id) {
        Some(head) => match &head.stage {
            Stage::Leaving => Err(AwsError::Gone { message: format!("{id} is being deleted") }),
            Stage::Ready | Stage::Working => Ok(head.clone()),
        },
        None => Err(AwsError::Gone { message: format!("there is no prefix list {id}") }),
    };
    ids.iter().map(found).collect()
}

/// Reads the entries of exactly this version, so that pages of two versions never mix; answers
/// their descriptions. What is no network, or comes twice, changes nothing.
pub(super) async fn entries(
    ec2: &mut Ec2,
    head: &Head,
) -> Result<BTreeMap<Network, String>, AwsError> {
    let action = Action::GetManagedPrefixListEntries;
    let mut entries = BTreeMap::new();
    let mut token = None;
    for _ in 0..PAGES_MAX {
        let call = |client: Client| {
            client
                .get_managed_prefix_list_entries()
                .prefix_list_id(&head.id)
                .target_version(head.version)
                .max_results(PAGE_MAX)
                .set_next_token(token.take())
                .send()
        };
        let page = ec2.call(action, call).await?;
        entries.extend(page.entries().iter().filter_map(|entry| {
            let description = entry.description().unwrap_or_default().to_owned();
            Some((entry.cidr()?.parse().ok()?, description))
        }));
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(entries);
        }
    }
    Err(AwsError::Unclear { action, message: format!("more than {PAGES_MAX} pages of entries") })
}

/// Makes the next version of the list, if it still is at the version that was read; answers the head
/// that it then has. It is in force once [`complete`] says so.
///
/// While an earlier change is under way EC2 takes none, and says so with more authority than any
/// read that may be behind: so it is asked until it does.
pub(super) async fn modify(ec2: &mut Ec2, head: &Head, change: &Change) -> Result<Head, AwsError> {
    let deadline = Instant::now() + COMPLETION_MAX;
    loop {
        match modify_once(ec2, head, change).await {
            Err(AwsError::Working { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            done => {
                return done.map(|()| Head {
                    version: head.version + 1,
                    stage: Stage::Working,
                    ..head.clone()
                });
            }
        }
    }
}

async fn modify_once(ec2: &mut Ec2, head: &Head, change: &Change) -> Result<(), AwsError> {
    let add = change.add.iter().map(|(network, description)| {
        AddPrefixListEntry::builder().cidr(network.to_string()).description(description).build()
    });
    let remove = change
        .remove
        .iter()
        .map(|network| RemovePrefixListEntry::builder().cidr(network.to_string()).build());
    let call = |client: Client| {
        client
            .modify_managed_prefix_list()
            .prefix_list_id(&head.id)
            .current_version(head.version)
            .set_add_entries(some(add.collect()))
            .set_remove_entries(some(remove.collect()))
            .send()
    };
    ec2.call(Action::ModifyManagedPrefixList, call).await.map(drop)
}

/// Lets the list hold more; answers the head that it then has. EC2 takes this only on its own, and
/// from no particular version.
pub(super) async fn grow(ec2: &mut Ec2, head: &Head, entries_max: usize) -> Result<Head, AwsError> {
    let most = i32::try_from(entries_max).unwrap_or(i32::MAX);
    let call = |client: Client| {
        client.modify_managed_prefix_list().prefix_list_id(&head.id).max_entries(most).send()
    };
    ec2.call(Action::ModifyManagedPrefixList, call).await?;
    Ok(Head { entries_max, stage: Stage::Working, ..head.clone() })
}

/// Waits until these heads are in force, or for as long as it takes at most; answers what was last
/// seen of each. Reads may be behind, so the very versions are looked for.
pub(super) async fn complete(ec2: &mut Ec2, expected: &[Head]) -> Result<Vec<Head>, AwsError> {
    let ids: Vec<String> = expected.iter().map(|head| head.id.clone()).collect();
    let deadline = Instant::now() + COMPLETION_MAX;
    loop {
        // No change is there at once.
        tokio::time::sleep(LOOK_EVERY).await;
        let seen = heads(ec2, &ids).await?;
        let is_there = |(seen, expected): (&Head, &Head)| {
            expected.version <= seen.version
                && expected.entries_max <= seen.entries_max
                && seen.stage == Stage::Ready
        };
        if seen.iter().zip(expected).all(is_there) || deadline <= Instant::now() {
            return Ok(seen);
        }
    }
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is EC2's, and grows")]
fn head(list: &ManagedPrefixList) -> Option<Head> {
    let stage = match list.state()? {
        PrefixListState::CreateComplete
        | PrefixListState::ModifyComplete
        | PrefixListState::RestoreComplete
        | PrefixListState::ModifyFailed
        | PrefixListState::RestoreFailed => Stage::Ready,
        PrefixListState::DeleteInProgress
        | PrefixListState::DeleteComplete
        | PrefixListState::DeleteFailed
        | PrefixListState::CreateFailed => Stage::Leaving,
        // Those under way, and what EC2 may call it one day.
        _ => Stage::Working,
    };
    Some(Head {
        id: list.prefix_list_id()?.to_owned(),
        version: list.version()?,
        entries_max: list.max_entries().and_then(|max| usize::try_from(max).ok()).unwrap_or(0),
        family: match list.address_family() {
            Some("IPv4") => Some(Family::V4),
            Some("IPv6") => Some(Family::V6),
            _ => None,
        },
        stage,
    })
}
