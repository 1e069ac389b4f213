//! `/console/groups/{id}/live`: the same as it changes, as server-sent events for the page's script.
//!
//! The machinery is that of `/api/v1/stream`: its seats, its end with the right to it. Each event is
//! the whole of what is shown, since a page that is drawn twice from one template cannot differ.

use std::collections::BTreeMap;
use std::time::Duration;

use askama::Template as _;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use postern_shared::ids::{GroupId, OrgId};
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::live::Live;
use crate::api::group_id;
use crate::api::stream::{Have, Listener, SeatHolder, answer};
use crate::app::App;
use crate::domain::{Role, State as Orgs};
use crate::feed::Catch;
use crate::http::ApiError;
use crate::http::limit::{Caller, Tier};
use crate::people::Watching;

/// Shortest time between two looks at a group, so that one that changes all the time does not keep
/// plane and browser busy. The first change after a rest is told at once.
const REST: Duration = Duration::from_millis(500);

/// Shortest wait for an expiry, so that the clocks of the plane and of its timers may differ.
const EXPIRY_WAIT_MIN: Duration = Duration::from_millis(1);

/// Whoever has the page open.
struct Watcher {
    org: OrgId,
    login: TokenHash,
    role: Role,
    board: watch::Receiver<u64>,
    /// What the page shows.
    told: Option<String>,
    looked_at: Option<Instant>,
    /// Whether something may have changed since, which was too early to look at.
    is_due: bool,
    /// When the next entry expires.
    expires_at: Option<Instant>,
}

/// What an event carries.
#[derive(Serialize)]
struct Told<'a> {
    as_of: Timestamp,
    html: &'a str,
}

pub(in crate::console) fn routes() -> Router<App> {
    Router::new().route("/console/groups/{id}/live", get(open))
}

async fn open(
    State(app): State<App>,
    Watching(signed_in): Watching,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let caller = Caller::record(signed_in.user.as_bytes());
    app.limiter().take(Tier::Read, caller, app.engine().now())?;
    let group = group_id(&app.engine().state(), signed_in.org, &id)?;
    let seat = app.seats().take(signed_in.org, SeatHolder::Login(signed_in.login))?;
    let watcher = Watcher {
        org: signed_in.org,
        login: signed_in.login,
        role: signed_in.role,
        board: app.engine().watch_board(),
        told: None,
        looked_at: None,
        is_due: false,
        expires_at: None,
    };
    let drain = request.extensions().get().cloned();
    Ok(answer(app, watcher, BTreeMap::from([(group, None)]), drain, seat))
}

impl Watcher {
    /// Looks at the group, and tells the page if that shows something else.
    fn look(&mut self, app: &App, group: GroupId) -> Catch {
        let mut catch = Catch { events: Vec::new(), position: None };
        let now = Instant::now();
        self.is_due = self.looked_at.is_some_and(|at| now < at + REST);
        if self.is_due {
            return catch;
        }
        self.looked_at = Some(now);
        self.board.mark_unchanged();
        let Some(live) = Live::of(app, group) else { return catch };
        let as_of = live.as_of();
        self.expires_at = live.expires_in().map(|left| now + left.max(EXPIRY_WAIT_MIN));
        let html = live.for_script().render().expect("a template of ours can be filled in");
        if self.told.as_ref() != Some(&html) {
            let event = event(&Told { as_of, html: &html });
            catch.events.push(event);
            self.told = Some(html);
        }
        catch
    }
}

impl Listener for Watcher {
    fn is_let_in(&self, state: &Orgs, now: Timestamp) -> bool {
        let signed_in = state.signed_in(&self.login, now);
        signed_in.is_some_and(|(_, user)| (user.org, user.role) == (self.org, self.role))
    }

    fn counts_for(&self, state: &Orgs, now: Timestamp) -> Option<Duration> {
        let signed_in = state.signed_in(&self.login, now);
        Some(signed_in.map_or(Duration::ZERO, |(row, _)| row.ends_at().since(now)))
    }

    fn may_read(&self, state: &Orgs, group: GroupId) -> bool {
        state.group_of(self.org, group).is_ok()
    }

    fn welcome(&mut self, app: &App, group: GroupId, _: Have) -> Catch {
        self.look(app, group)
    }

    fn catch_up(&mut self, app: &App, group: GroupId, _: Have) -> Catch {
        self.look(app, group)
    }

    /// A host has said something, an entry has expired, or a rest is over.
    async fn stirred(&mut self, _: &App) {
        let rested_at = self.looked_at.filter(|_| self.is_due).map(|at| at + REST);
        let wake_at = rested_at.or(self.expires_at);
        let woken = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let board = async {
            if self.is_due || self.board.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = woken => {}
            () = board => {}
        }
    }
}

fn event(told: &Told<'_>) -> Bytes {
    let data = serde_json::to_string(told).expect("text can be written");
    format!("event: list\ndata: {data}\n\n").into()
}
