//! What somebody has filled into a form, and what is wrong with it.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use postern_shared::document::{Scalar, span};
use postern_shared::time::Ttl;

use super::frame::told;
use super::gate::Sent;
use crate::domain::Label;
use crate::http::ApiError;
use crate::people::Form;

/// The fields of a form, empty before it was sent, to be shown again when something is wrong.
#[derive(Default)]
pub(super) struct Fields {
    form: Option<Arc<Form>>,
    wrong: Vec<String>,
}

impl Fields {
    pub(super) fn of(sent: &Sent) -> Fields {
        Fields { form: Some(Arc::clone(&sent.form)), wrong: Vec::new() }
    }

    /// What stands in a field.
    pub(super) fn value(&self, name: &str) -> &str {
        self.form.as_ref().map_or("", |form| form.text(name)).trim()
    }

    /// Whether a box is ticked.
    pub(super) fn is_ticked(&self, name: &str) -> bool {
        !self.value(name).is_empty()
    }

    /// What is wrong, line by line.
    pub(super) fn wrong(&self) -> &[String] {
        &self.wrong
    }

    /// Adds a mistake.
    pub(super) fn refuse(&mut self, what: impl Display) {
        self.wrong.push(what.to_string());
    }

    /// Says that somebody else was faster.
    pub(super) fn refuse_changed(&mut self) {
        self.refuse(
            "somebody changed it since you opened this page, and nothing of yours was saved: look \
             at what is so now, and send the form again if yours is to stand",
        );
    }

    /// Reads a field that must be filled in; the form calls it `called`.
    pub(super) fn required<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
        called: &str,
    ) -> Option<T> {
        let read = self.value(name).parse();
        self.note(called, read)
    }

    /// Reads a field that may be left empty.
    pub(super) fn optional<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
        called: &str,
    ) -> Option<Option<T>> {
        if self.value(name).is_empty() {
            return Some(None);
        }
        self.required(name, called).map(Some)
    }

    /// A name.
    pub(super) fn label(&mut self) -> Option<Label> {
        self.required("name", "the name")
    }

    /// A lifetime such as `12h`, or none.
    pub(super) fn ttl(&mut self, name: &str, called: &str) -> Option<Option<Ttl>> {
        if self.value(name).is_empty() {
            return Some(None);
        }
        let read = span(Scalar::Text(self.value(name)));
        self.note(called, read).map(Some)
    }

    /// Takes what became of the order: what the person can put right becomes lines of the form.
    pub(super) fn accept<T>(&mut self, result: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(error @ (ApiError::Invalid { .. } | ApiError::Conflict { .. })) => {
                self.wrong.extend(told(&error));
                Ok(None)
            }
            Err(ApiError::PreconditionFailed) => {
                self.refuse_changed();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn note<T, E: Display>(&mut self, called: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.refuse(format_args!("{called} {error}"))).ok()
    }
}

/// The forms of a page, of which one may have been sent and not taken.
pub(super) struct Forms<'a, F> {
    tried: Option<(F, &'a Fields)>,
    untouched: Fields,
}

impl<'a, F: Copy + PartialEq> Forms<'a, F> {
    pub(super) fn new(tried: Option<(F, &'a Fields)>) -> Forms<'a, F> {
        Forms { tried, untouched: Fields::default() }
    }

    /// What stands in a form: what was sent, if it was that one.
    pub(super) fn fields(&self, form: F) -> &Fields {
        self.of(form).unwrap_or(&self.untouched)
    }

    pub(super) fn is_tried(&self, form: F) -> bool {
        self.of(form).is_some()
    }

    /// What stands in a field: what was sent, if it was that form, and else what is so now.
    pub(super) fn value<'b>(&'b self, form: F, name: &str, now: &'b str) -> &'b str {
        self.of(form).map_or(now, |fields| fields.value(name))
    }

    fn of(&self, form: F) -> Option<&'a Fields> {
        self.tried.filter(|(tried, _)| *tried == form).map(|(_, fields)| fields)
    }
}

/// Writes a lifetime as [`Fields::ttl`] reads it.
pub(super) fn written(ttl: Ttl) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let secs = ttl.as_secs();
    let whole = UNITS.iter().find(|(unit, _)| secs.is_multiple_of(*unit));
    whole.map_or(format!("{secs}s"), |(unit, name)| format!("{}{name}", secs / unit))
}
