//! Pages that ask once more, before something is taken away.

use askama::Template;
use axum::response::Response;

use super::gate::Viewer;
use crate::http::ApiError;

/// What is asked.
#[derive(Template)]
#[template(path = "console/confirm.html")]
pub(super) struct Question<'a> {
    /// What will happen, a paragraph each.
    pub(super) lines: &'a [String],
    /// Where the answer goes.
    pub(super) action: &'a str,
    /// What the button says.
    pub(super) button: &'a str,
    /// Where nothing happens.
    pub(super) back: &'a str,
    /// What the form carries; filled in here.
    pub(super) proof: String,
}

impl Viewer {
    /// Asks an admin once more; nobody else.
    pub(super) fn ask(&self, title: &str, question: Question<'_>) -> Result<Response, ApiError> {
        let proof = self.proof().ok_or(ApiError::AdminsOnly)?;
        Ok(self.show(title, &Question { proof, ..question }))
    }
}
