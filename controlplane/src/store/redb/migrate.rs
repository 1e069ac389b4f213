//! Numbered steps that bring a file to the schema of this program.
//!
//! Step number n turns schema n-1 into schema n; schema 0 is an empty file. All steps that a file
//! needs run in one transaction, so that it is migrated whole or not at all. A step is never
//! changed once it was released: a new form of a record is a new step at the end, which rewrites the
//! records of that table.

use redb::{ReadableTable, WriteTransaction};

use super::OpenFailure;
use super::medium::{META, rows};
use crate::store::{BoxError, Table};

/// Where the number of the schema stands in the table `meta`.
const SCHEMA: &str = "schema";

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[error("the step `{step}` failed")]
pub struct MigrationError {
    /// What the step does.
    pub step: &'static str,
    /// What stopped it.
    #[source]
    pub source: BoxError,
}

/// One step; its number is its place in the list, from 1 up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) run: fn(&WriteTransaction) -> Result<(), BoxError>,
}

/// Every step there has ever been.
pub(super) const STEPS: &[Step] = &[Step { name: "lay out the tables", run: lay_out }];

/// Runs the steps that are missing; says whether there were any. The caller commits.
pub(super) fn migrate(write: &WriteTransaction, steps: &[Step]) -> Result<bool, OpenFailure> {
    let known = u32::try_from(steps.len()).expect("the list of steps is short");
    let found = schema(write).map_err(OpenFailure::Damaged)?;
    if found > known {
        return Err(OpenFailure::Newer { found, known });
    }
    for (to, step) in (1..).zip(steps).skip_while(|(to, _)| *to <= found) {
        run(write, to, step).map_err(|source| OpenFailure::Migration {
            to,
            source: MigrationError { step: step.name, source },
        })?;
    }
    Ok(found < known)
}

fn run(write: &WriteTransaction, to: u32, step: &Step) -> Result<(), BoxError> {
    (step.run)(write)?;
    write.open_table(META)?.insert(SCHEMA, to.to_le_bytes().as_slice())?;
    Ok(())
}

fn schema(write: &WriteTransaction) -> Result<u32, BoxError> {
    let meta = write.open_table(META)?;
    let Some(stored) = meta.get(SCHEMA)? else { return Ok(0) };
    Ok(u32::from_le_bytes(stored.value().try_into()?))
}

fn lay_out(write: &WriteTransaction) -> Result<(), BoxError> {
    for table in Table::ALL {
        write.open_table(rows(*table))?;
    }
    Ok(())
}
