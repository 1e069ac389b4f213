//! Of two who edit the same thing, the second is told what is so by now. A form carries the version
//! that it shows, which is the API's `ETag`; the domain holds the edit to it, as to an `If-Match`.

use postern_shared::position::Revision;

use super::fields::Fields;
use crate::api::version;

/// The field that carries the version.
const VERSION: &str = "version";

/// A thing as it is now, for whoever edits it.
pub(super) struct Current<'a> {
    pub(super) id: &'a [u8; 16],
    pub(super) revision: Revision,
    /// The fields that its form can set.
    pub(super) fields: Vec<Now>,
    /// What is so now, of what stands in no single field.
    pub(super) said: Option<String>,
}

/// What a field would hold now.
pub(super) struct Now {
    pub(super) name: &'static str,
    /// What the form calls it.
    pub(super) called: &'static str,
    pub(super) value: String,
}

/// What a form carries in its field `version`.
pub(super) fn written(id: &[u8; 16], revision: Revision) -> String {
    // The quotes belong to header fields.
    version(id, revision).to_string().replace('"', "")
}

impl Fields {
    /// The revision that an edit is held to, if the form has shown that one. Else it says what is so
    /// by now; sent once more, it is held to that.
    pub(super) fn expected(&mut self, current: &Current<'_>) -> Option<Revision> {
        if self.value(VERSION) == written(current.id, current.revision) {
            return Some(current.revision);
        }
        self.refuse_changed();
        for Now { name, called, value } in &current.fields {
            if self.value(name) == value {
                continue;
            }
            let (now, yours) = (quoted(value), quoted(self.value(name)));
            self.refuse(format_args!("{called} is {now} now, and {yours} in this form"));
        }
        if let Some(said) = &current.said {
            self.refuse(format_args!("now {said}"));
        }
        None
    }
}

fn quoted(value: &str) -> String {
    if value.is_empty() { "empty".to_owned() } else { format!("`{value}`") }
}
