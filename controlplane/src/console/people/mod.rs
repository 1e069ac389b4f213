//! `/console/people`: who is in the org, and how somebody gets in and out.

mod invite;
mod person;

use std::cmp::Reverse;

use askama::Template;
use axum::Router;
use axum::extract::Query;
use axum::response::Response;
use axum::routing::{get, post};
use postern_shared::ids::UserId;

use super::Section;
use super::fields::Fields;
use super::gate::Viewer;
use super::rows::{After, Rows};
use super::show::When;
use crate::app::App;
use crate::domain::{Account, Role, User};
use crate::mail::Fate;

pub(super) const SECTION: Section = Section { path: "/console/people", name: "People", routes };

#[derive(Template)]
#[template(path = "console/people/list.html")]
struct PeoplePage<'a> {
    rows: Vec<Row>,
    next: Option<UserId>,
    is_admin: bool,
    proof: Option<String>,
    once: String,
    fields: &'a Fields,
    sends_mail: bool,
    may_be_admin: bool,
}

struct Row {
    id: UserId,
    email: String,
    role: &'static str,
    is_active: bool,
    is_viewer: bool,
    /// In how many browsers somebody is signed in, and when one of them was last used.
    logins: usize,
    used_at: Option<When>,
    mail: Option<String>,
}

fn routes() -> Router<App> {
    Router::new()
        .route(SECTION.path, get(list).post(invite::invite))
        .route("/console/people/{id}", get(person::show))
        .route("/console/people/{id}/invite", post(invite::again))
        .route("/console/people/{id}/role", post(person::set_role))
        .route("/console/people/{id}/remove", get(person::ask).post(person::remove))
}

async fn list(viewer: Viewer, Query(After { after }): Query<After<UserId>>) -> Response {
    viewer.show("People", &page(&viewer, after, &Fields::default()))
}

fn page<'a>(viewer: &Viewer, after: Option<UserId>, fields: &'a Fields) -> PeoplePage<'a> {
    let (app, now) = (&viewer.app, viewer.now());
    let outbox = app.people().outbox();
    let state = app.engine().state();
    let ids = state.org(viewer.org()).into_iter().flat_map(|org| &org.users);
    let users = ids.filter_map(|id| state.user(*id));
    let named = users.map(|user| (user.email.to_string(), user.id, user)).collect();
    let Rows { rows, next } = Rows::cut(named, after);
    let row = |(id, user): (UserId, &User)| {
        let logins = state.logins_of(id, now);
        let used_at = logins.iter().map(|row| row.used_at()).max();
        let is_active = state.account(id).is_some_and(Account::is_active);
        Row {
            id,
            email: user.email.to_string(),
            role: user.role.name(),
            is_active,
            is_viewer: id == viewer.signed_in.user,
            logins: logins.len(),
            used_at: used_at.map(When),
            mail: outbox
                .and_then(|outbox| outbox.fate(id))
                .filter(|_| !is_active)
                .map(|it| fate(&it)),
        }
    };
    let mut rows: Vec<Row> = rows.into_iter().map(row).collect();
    rows.sort_by_key(|row| Reverse(row.is_viewer));
    PeoplePage {
        rows,
        next,
        is_admin: viewer.is_admin(),
        proof: viewer.proof(),
        once: viewer.once(),
        fields,
        sends_mail: outbox.is_some(),
        may_be_admin: fields.value("role") == Role::Admin.name(),
    }
}

/// Says what became of a mail.
fn fate(fate: &Fate) -> String {
    match fate {
        Fate::Waiting { .. } => "the mail is on its way".to_owned(),
        Fate::Sent { .. } => "the mail server took the mail".to_owned(),
        Fate::Retried { why, .. } => format!("the mail will be tried again: {why}"),
        Fate::Failed { why, .. } => format!("the mail failed: {why}"),
    }
}
