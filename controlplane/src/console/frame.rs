//! The frame around every page: navigation, who is there, and the line of state.

use askama::Template;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use postern_shared::time::Timestamp;

use super::condition::Condition;
use super::gate::Viewer;
use super::{ADMINS_ONLY, SECTIONS};
use crate::http::ApiError;
use crate::http::problem::KEPT;
use crate::page::{STYLE, Script, show_with};
use crate::people::private;

const SCRIPT: Script<'_> =
    Script { text: include_str!("../../templates/console/console.js"), peer: None };

#[derive(Template)]
#[template(path = "console/layout.html")]
struct Frame<'a, T: Template> {
    style: &'a str,
    script: &'a str,
    title: &'a str,
    /// The plane's time, by which the script counts down.
    now: Timestamp,
    links: Vec<Link>,
    org: String,
    email: &'a str,
    role: &'a str,
    proof: String,
    condition: &'a Condition,
    content: &'a T,
}

/// A line of the navigation.
struct Link {
    path: &'static str,
    name: &'static str,
    is_current: bool,
}

#[derive(Template)]
#[template(path = "console/refused.html")]
struct Refused {
    lines: Vec<String>,
    back: &'static str,
}

impl Viewer {
    /// Shows a page: `content` in the frame.
    pub(super) fn show(&self, title: &str, content: &impl Template) -> Response {
        self.show_as(StatusCode::OK, title, content)
    }

    /// Shows a page whose form was not taken, once more, with what is wrong in it.
    pub(super) fn show_wrong(&self, title: &str, content: &impl Template) -> Response {
        self.show_as(StatusCode::UNPROCESSABLE_ENTITY, title, content)
    }

    /// Shows a page that says why nothing was done.
    pub(super) fn show_conflict(&self, title: &str, content: &impl Template) -> Response {
        self.show_as(StatusCode::CONFLICT, title, content)
    }

    fn show_as(&self, status: StatusCode, title: &str, content: &impl Template) -> Response {
        let org = {
            let state = self.app.engine().state();
            state.org(self.org()).map(|row| row.record.name.to_string()).unwrap_or_default()
        };
        let current = self.section_path();
        let link = |section: &super::Section| Link {
            path: section.path,
            name: section.name,
            is_current: section.path == current,
        };
        let is_shown =
            |section: &&super::Section| self.is_admin() || !ADMINS_ONLY.contains(&section.path);
        let page = Frame {
            style: STYLE,
            script: SCRIPT.text,
            title,
            now: self.now(),
            links: SECTIONS.iter().filter(is_shown).map(link).collect(),
            org,
            email: self.signed_in.email.as_str(),
            role: self.signed_in.role.name(),
            proof: self.signed_in.proof(),
            condition: &Condition::of(self),
            content,
        };
        private(show_with(&SCRIPT, status, &page))
    }

    /// The path of the section that the page belongs to: the longest that it begins with.
    pub(super) fn section_path(&self) -> &'static str {
        let path = self.uri.path();
        let within = |section: &&super::Section| {
            let rest = path.strip_prefix(section.path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let within = SECTIONS.iter().filter(within).map(|section| section.path);
        within.max_by_key(|path| path.len()).unwrap_or_default()
    }
}

/// Shows an error in the place of a page; its header fields stay.
pub(super) fn refused(viewer: &Viewer, error: &ApiError, kept: &HeaderMap) -> Response {
    let lines = if error.status().is_client_error() {
        told(error)
    } else {
        let id = &viewer.request;
        vec![format!("the control plane cannot do it just now; its log has more on {id}")]
    };
    let back = viewer.section_path();
    let mut page = viewer.show_as(error.status(), "That cannot be done", &Refused { lines, back });
    for name in KEPT {
        page.headers_mut().extend(kept.get(&name).cloned().map(|value| (name, value)));
    }
    page
}

/// What is wrong, in words for people: of a form, field by field.
pub(super) fn told(error: &ApiError) -> Vec<String> {
    let ApiError::Invalid { errors } = error else { return vec![error.to_string()] };
    let line = |error: &postern_shared::wire::v1::FieldError| {
        format!("{} {}", error.pointer.trim_start_matches('/').replace('_', " "), error.detail)
    };
    errors.iter().map(line).collect()
}
