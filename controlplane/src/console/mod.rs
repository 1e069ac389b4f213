//! `/console`: what a signed-in person sees of the org, and an admin changes.
//!
//! Every page is made here and works without script; the one script shows times as the reader's
//! own, counts down, and takes over what changes meanwhile. GET shows, POST changes: the gate in
//! front of all routes asks who is there, lets only admins change, and reads no form that no page
//! of ours has sent. A handler answers a page or an `ApiError`, which the gate shows as one.
//!
//! A section is a file with its pages and a line in [`SECTIONS`], which is the navigation as well.

mod agents;
mod audit;
mod condition;
mod confirm;
mod fields;
mod frame;
mod gate;
mod groups;
mod keys;
mod once;
mod overview;
mod pairs;
mod people;
mod rows;
mod show;
mod version;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{any, get};

pub(crate) use self::pairs::path as path_of_pair;
use crate::app::App;
use crate::http::ApiError;
use crate::people::{HOME, see};

/// A part of the console, with its place in the navigation.
struct Section {
    path: &'static str,
    name: &'static str,
    routes: fn() -> Router<App>,
}

/// All parts, in the order of the navigation.
const SECTIONS: &[Section] = &[
    overview::SECTION,
    groups::SECTION,
    pairs::SECTION,
    agents::SECTION,
    keys::SECTION,
    people::SECTION,
    audit::SECTION,
];

/// The parts that only admins see: who did what from where is nothing for everybody.
const ADMINS_ONLY: &[&str] = &[audit::SECTION.path];

/// The routes of the console.
pub(crate) fn routes(app: &App) -> Router<App> {
    let sections = SECTIONS.iter().map(|section| (section.routes)());
    let gate = from_fn_with_state(app.clone(), gate::pass);
    sections
        .fold(Router::new(), Router::merge)
        .route("/console/{*rest}", any(async || ApiError::NotFound))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .route_layer(gate)
        .merge(groups::follow::routes())
        .route("/", get(begin))
        .route("/console/", get(begin))
}

/// Whoever opens the plane's bare address is looking for the console.
async fn begin() -> Response {
    see(HOME)
}
