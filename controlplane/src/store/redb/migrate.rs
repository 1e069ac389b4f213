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
pub(super) const STEPS: &[Step] = &[
    Step { name: "lay out the tables", run: lay_out },
    Step { name: "lay out the tables of people and of replays", run: lay_out },
];

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

/// Makes every table that is not there yet.
fn lay_out(write: &WriteTransaction) -> Result<(), BoxError> {
    for table in Table::ALL {
        write.open_table(rows(*table))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redb::disk::{Disk, Seeded};
    use crate::store::redb::faults::{Content, closed_store, content, open_with};
    use crate::store::{BoxError, Key};

    /// A later schema, in which the values of pairs are longer by one byte.
    const NEXT: &[Step] =
        &[STEPS[0], STEPS[1], Step { name: "lengthen pairs", run: lengthen_pairs }];
    /// A later schema that is never reached.
    const BROKEN: &[Step] =
        &[STEPS[0], STEPS[1], Step { name: "lengthen pairs", run: stop_half_way }];

    fn lengthen_pairs(write: &WriteTransaction) -> Result<(), BoxError> {
        let mut pairs = write.open_table(rows(Table::Pairs))?;
        let mut longer = Vec::new();
        for row in pairs.iter()? {
            let (id, row) = row?;
            let (revision, value) = row.value();
            longer.push((id.value().to_owned(), revision, [value, &[0]].concat()));
        }
        for (id, revision, value) in longer {
            pairs.insert(id.as_slice(), (revision, value.as_slice()))?;
        }
        Ok(())
    }

    fn stop_half_way(write: &WriteTransaction) -> Result<(), BoxError> {
        lengthen_pairs(write)?;
        Err("no more".into())
    }

    fn lengthened(content: &Content) -> Content {
        let mut content = content.clone();
        let pairs = |key: &Key| key.table == Table::Pairs;
        let values = content.records.iter_mut().filter(|(key, _)| pairs(key));
        for (_, (_, value)) in values {
            value.push(0);
        }
        content
    }

    #[test]
    fn an_older_file_is_migrated_once() {
        let (bytes, written) = closed_store();
        let disk = Disk::with(bytes);

        for _ in 0..2 {
            let medium = open_with(&disk, NEXT).unwrap();

            assert_eq!(content(&medium), lengthened(&written));
        }
    }

    #[test]
    fn a_newer_file_is_refused_and_stays_as_it_is() {
        let (bytes, written) = closed_store();
        let disk = Disk::with(bytes);
        drop(open_with(&disk, NEXT).unwrap());

        let error = open_with(&disk, STEPS).unwrap_err();

        let text = "it has schema 3, and this program knows up to 2; use a newer program";
        assert_eq!(error.to_string(), text);
        assert_eq!(content(&open_with(&disk, NEXT).unwrap()), lengthened(&written));
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let (bytes, written) = closed_store();
        let disk = Disk::with(bytes);

        let error = open_with(&disk, BROKEN).unwrap_err();

        assert!(matches!(
            error,
            OpenFailure::Migration { to: 3, source: MigrationError { step: "lengthen pairs", .. } }
        ));
        assert_eq!(content(&open_with(&disk, STEPS).unwrap()), written);
    }

    #[test]
    fn a_migration_that_loses_power_is_done_whole_or_not_at_all() {
        let (bytes, written) = closed_store();
        let mut random = Seeded::new(5);

        let (mut before, mut after) = (0, 0);
        for steps in 0.. {
            let disk = Disk::with(bytes.clone());
            disk.cut_after(steps);
            let is_done = open_with(&disk, NEXT).is_ok();
            let disk = disk.after_power_cut(&mut random);

            match open_with(&disk, STEPS) {
                Ok(medium) => {
                    assert_eq!(content(&medium), written, "cut after {steps} steps");
                    assert!(!is_done, "a migration was lost");
                    before += 1;
                }
                Err(_) => {
                    let medium = open_with(&disk, NEXT).unwrap();
                    assert_eq!(content(&medium), lengthened(&written), "cut after {steps} steps");
                    after += 1;
                }
            }
            if is_done {
                break;
            }
        }
        assert!(before > 0 && after > 0, "{before} times before, {after} times after");
    }
}
