//! The rules of a batch, and the verdicts on its items: the same for every backend.

use std::collections::BTreeMap;

use postern_shared::position::Revision;

use super::{Conflict, Item, Key, Limits, Operation, StoreError};

/// Why no store takes a batch: a defect of the program that made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// One item writes what another reads or writes; they belong into two batches.
    #[error("items {first} and {second} conflict over {key}")]
    Conflicting {
        /// The place of the earlier item in the batch.
        first: usize,
        /// The place of the later item.
        second: usize,
        /// What they conflict over.
        key: Key,
    },
    /// An item changes one record twice.
    #[error("item {item} changes {key} twice")]
    ChangedTwice {
        /// The place of the item in the batch.
        item: usize,
        /// What it changes twice.
        key: Key,
    },
    /// More operations or preconditions than [`Limits::operations_max`].
    #[error("{count} operations or preconditions are more than the {max} of one commit")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// More bytes than [`Limits::bytes_max`].
    #[error("{bytes} bytes are more than the {max} of one commit")]
    TooLarge {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        max: usize,
    },
    /// A key or value beyond [`Limits::key_bytes_max`] or [`Limits::value_bytes_max`].
    #[error("{key} or its value is longer than a record can be")]
    RecordTooLarge {
        /// The key, cut to what a key can be.
        key: Key,
    },
}

/// What becomes of a batch.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) verdicts: Vec<Result<(), Conflict>>,
    /// What the good items change, in the order of the keys; deletions of nothing are left out.
    pub(super) operations: Vec<Operation>,
}

/// Refuses a batch that no store could take.
pub(super) fn check(items: &[Item], limits: &Limits) -> Result<(), BatchError> {
    check_size(items, limits)?;
    let mut writers: BTreeMap<&Key, usize> = BTreeMap::new();
    for (item, operation) in operations(items) {
        let key = operation.key();
        match writers.insert(key, item) {
            Some(first) if first == item => {
                return Err(BatchError::ChangedTwice { item, key: key.clone() });
            }
            Some(first) => return Err(conflicting(first, item, key)),
            None => {}
        }
    }
    for (reader, item) in items.iter().enumerate() {
        for key in item.preconditions.iter().map(|precondition| precondition.key()) {
            match writers.get(key) {
                Some(&writer) if writer != reader => {
                    return Err(conflicting(writer.min(reader), writer.max(reader), key));
                }
                Some(_) | None => {}
            }
        }
    }
    Ok(())
}

/// Decides on each item; `revision_of` looks up the state before the batch.
pub(super) fn judge(
    items: &[Item],
    mut revision_of: impl FnMut(&Key) -> Result<Option<Revision>, StoreError>,
) -> Result<Judged, StoreError> {
    let mut verdicts = Vec::with_capacity(items.len());
    let mut operations = Vec::new();
    for item in items {
        let verdict = judge_item(item, &mut revision_of)?;
        if verdict.is_ok() {
            for operation in &item.operations {
                let is_change = match operation {
                    Operation::Put(..) => true,
                    Operation::Delete(key) => revision_of(key)?.is_some(),
                };
                if is_change {
                    operations.push(operation.clone());
                }
            }
        }
        verdicts.push(verdict);
    }
    operations.sort_by(|a, b| a.key().cmp(b.key()));
    Ok(Judged { verdicts, operations })
}

fn judge_item(
    item: &Item,
    mut revision_of: impl FnMut(&Key) -> Result<Option<Revision>, StoreError>,
) -> Result<Result<(), Conflict>, StoreError> {
    for precondition in &item.preconditions {
        if !precondition.holds(revision_of(precondition.key())?) {
            return Ok(Err(Conflict(precondition.clone())));
        }
    }
    Ok(Ok(()))
}

fn check_size(items: &[Item], limits: &Limits) -> Result<(), BatchError> {
    let preconditions: usize = items.iter().map(|item| item.preconditions.len()).sum();
    let count = operations(items).count().max(preconditions);
    if count > limits.operations_max {
        return Err(BatchError::TooMany { count, max: limits.operations_max });
    }
    let is_too_large = |operation: &Operation| match operation {
        Operation::Put(key, value) => {
            key.id.len() > limits.key_bytes_max || value.len() > limits.value_bytes_max
        }
        Operation::Delete(key) => key.id.len() > limits.key_bytes_max,
    };
    if let Some((_, operation)) = operations(items).find(|(_, operation)| is_too_large(operation)) {
        let Key { table, id } = operation.key();
        let shown = id[..id.len().min(limits.key_bytes_max)].to_vec();
        return Err(BatchError::RecordTooLarge { key: Key::new(*table, shown) });
    }
    let bytes: usize = operations(items).map(|(_, operation)| operation.bytes()).sum();
    if bytes > limits.bytes_max {
        return Err(BatchError::TooLarge { bytes, max: limits.bytes_max });
    }
    Ok(())
}

/// Every operation with the place of its item.
fn operations(items: &[Item]) -> impl Iterator<Item = (usize, &Operation)> {
    items
        .iter()
        .enumerate()
        .flat_map(|(place, item)| item.operations.iter().map(move |operation| (place, operation)))
}

fn conflicting(first: usize, second: usize, key: &Key) -> BatchError {
    BatchError::Conflicting { first, second, key: key.clone() }
}
