//! Forms that tell secrets once. Each carries a name, drawn for it; whoever loads the answer again
//! sends the form again, and is told so: nothing is made a second time, and nothing shown.

use askama::Template;
use axum::response::Response;

use super::gate::{Sent, Viewer};
use crate::api::once::{self, Turn};
use crate::audit::to_hex;
use crate::domain::Command;
use crate::engine::Done;
use crate::http::ApiError;

/// The field that carries the name.
const NAME: &str = "once";

#[derive(Template)]
#[template(path = "console/sent_before.html")]
struct SentBefore {
    /// Where the outcome can be seen.
    place: String,
    is_same: bool,
}

impl Viewer {
    /// What a form that tells secrets carries in its field `once`.
    pub(super) fn once(&self) -> String {
        to_hex(&self.app.engine().chance().id())
    }
}

impl Sent {
    /// The turn of a form that is sent for the first time; for one that was sent before, the page
    /// that says so. Looked at before anything else that the form has used up.
    pub(super) fn turn(&self) -> Result<Result<Turn, Response>, ApiError> {
        let Viewer { app, signed_in, uri, .. } = &self.viewer;
        // Two forms of one page have the same name, and different paths.
        let name = match self.form.text(NAME) {
            "" => String::new(),
            drawn => format!("{} {drawn}", uri.path()),
        };
        let fields = self.form.fields().flat_map(|(name, value)| [name, value]);
        let what: Vec<&[u8]> = fields.map(str::as_bytes).collect();
        let (place, is_same) = match signed_in.sent(app, &name, &what)? {
            once::Sent::First(turn) => return Ok(Ok(turn)),
            once::Sent::Before(place) => (place, true),
            once::Sent::Otherwise => (self.viewer.section_path().to_owned(), false),
        };
        Ok(Err(self.viewer.show_conflict("That was done already", &SentBefore { place, is_same })))
    }

    /// Has a command carried out in a form's turn; `place` is where its outcome can be seen.
    pub(super) async fn submit_once(
        &self,
        turn: Turn,
        command: Command,
        place: String,
    ) -> Result<Done, ApiError> {
        let Viewer { app, signed_in, .. } = &self.viewer;
        turn.carry_out(app, signed_in.order(command), place).await
    }
}
