//! Forms that make something new, and tell its secrets once. Each carries a name, drawn for it; whoever loads the answer again
//! sends the form again, and is told so: nothing is made a second time, and nothing shown.

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};

use super::gate::{Sent, Viewer};
use crate::api::once::{self, Turn};
use crate::app::App;
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

/// The turn of a form that is sent for the first time; one that was sent before gets the page that
/// says so, before anything else that it has used up is looked at.
impl FromRequestParts<App> for Turn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Turn, Response> {
        let sent = Sent::from_request_parts(parts, app).await.map_err(ApiError::into_response)?;
        let Sent { viewer, form } = &sent;
        // Two forms of one page have the same name, and different paths.
        let name = match form.text(NAME) {
            "" => String::new(),
            drawn => format!("{} {drawn}", viewer.uri.path()),
        };
        let fields = form.fields().flat_map(|(name, value)| [name, value]);
        let what: Vec<&[u8]> = fields.map(str::as_bytes).collect();
        let looked = viewer.signed_in.sent(app, &name, &what).map_err(ApiError::into_response)?;
        let (place, is_same) = match looked {
            once::Sent::First(turn) => return Ok(turn),
            once::Sent::Before(place) => (place, true),
            once::Sent::Otherwise => (viewer.section_path().to_owned(), false),
        };
        Err(viewer.show_conflict("That was done already", &SentBefore { place, is_same }))
    }
}

impl Sent {
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
