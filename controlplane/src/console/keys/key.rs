//! `/console/keys/{id}`: one key. It can lose rights and origins, and never gain any.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use postern_shared::ids::{KeyId, PairId};
use postern_shared::scope::Scope;

use super::{
    KeyState, SECTION, ScopeBox, ends_at, networks, origins, scope_boxes, scope_field, scope_names,
    shown, ticked_scopes,
};
use crate::audit::{Filter, Kind};
use crate::console::confirm::Question;
use crate::console::fields::Fields;
use crate::console::gate::{Sent, Viewer};
use crate::console::show::When;
use crate::console::version::{self, Current};
use crate::domain::{Actor, Command, Credential, Event, Key, Origin, State};
use crate::http::ApiError;
use crate::people::see;

/// How long after its making a key was minted at the latest: so long an order may have waited.
const MINTED_WITHIN: Duration = Duration::from_secs(60);
/// Most records of keys that are taken out of one part of the audit.
const MINTED_MAX: usize = 1_000;

#[derive(Template)]
#[template(path = "console/key.html")]
struct KeyPage<'a> {
    id: KeyId,
    name: String,
    state: KeyState,
    given: String,
    origins: Vec<String>,
    created_at: When,
    minted: Option<Minted>,
    ends_at: Option<When>,
    used_at: Option<When>,
    /// What the form carries; none where there is nothing to narrow.
    proof: Option<String>,
    version: String,
    fields: &'a Fields,
    scopes: Vec<ScopeBox>,
    networks: String,
    pairs: Vec<PairBox>,
}

/// Who minted a key, and from where.
struct Minted {
    by: String,
    from: Option<IpAddr>,
}

/// A pair to whose place a key is locked.
struct PairBox {
    number: u64,
    name: String,
    is_ticked: bool,
}

pub(super) async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    let key = find(&viewer, &id)?;
    let fields = Fields::default();
    let page = page(&viewer, &key, &fields).await;
    Ok(viewer.show(key.name.as_str(), &page))
}

pub(super) async fn narrow(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let key = find(&sent.viewer, &id)?;
    let mut fields = Fields::of(&sent);
    let scopes = ticked_scopes(&mut fields);
    let mut origins = networks(&mut fields);
    let locks = locks(&sent.viewer, &key);
    let kept = locks.iter().filter(|(_, number, _)| fields.is_ticked(&pair_field(*number)));
    origins.extend(kept.map(|(id, ..)| Origin::Pair(*id)));
    let expected = match key.revoked_at {
        None => fields.expected(&current(&sent.viewer, &key)?),
        // That is refused for another reason.
        Some(_) => None,
    };
    if fields.wrong().is_empty() {
        let (org, key) = (key.org, key.id);
        let command = Command::NarrowKey { org, key, scopes, origins, expected };
        if fields.accept(sent.submit(command).await)?.is_some() {
            return Ok(see(&format!("{}/{key}", SECTION.path)));
        }
    }
    let page = page(&sent.viewer, &key, &fields).await;
    Ok(sent.viewer.show_wrong(key.name.as_str(), &page))
}

pub(super) async fn ask(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    let key = find(&viewer, &id)?;
    let page = format!("{}/{}", SECTION.path, key.id);
    if key.revoked_at.is_some() {
        return Ok(see(&page));
    }
    let lines = [
        format!("{} is worth nothing from then on, and what it holds open is cut off.", key.name),
        "There is no way back: mint another one where it is still needed.".to_owned(),
    ];
    viewer.ask(
        &format!("Revoke {}?", key.name),
        Question {
            lines: &lines,
            action: &format!("{page}/revoke"),
            button: "Revoke the key",
            back: &page,
            proof: String::new(),
        },
    )
}

pub(super) async fn revoke(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let key = find(&sent.viewer, &id)?;
    sent.submit(Command::RevokeKey { org: key.org, key: key.id }).await?;
    Ok(see(SECTION.path))
}

/// The key of an id, revoked or not: for admins.
fn find(viewer: &Viewer, id: &str) -> Result<Key, ApiError> {
    viewer.require_admin()?;
    let id: KeyId = id.parse().map_err(|_| ApiError::NotFound)?;
    let state = viewer.app.engine().state();
    let key = state.key(id).filter(|key| key.org == viewer.org());
    key.cloned().ok_or(ApiError::NotFound)
}

/// A key, as it is now.
fn current<'a>(viewer: &Viewer, key: &'a Key) -> Result<Current<'a>, ApiError> {
    let state = viewer.app.engine().state();
    let row = state.key_row(key.id).ok_or(ApiError::NotFound)?;
    let (scopes, origins) = (scope_names(row.record.scopes), origins(&state, &row.record));
    let said = format!("it may do {scopes}, from {}", origins.join(", "));
    let (id, revision) = (key.id.as_bytes(), row.revision);
    Ok(Current { id, revision, fields: Vec::new(), said: Some(said) })
}

fn pair_field(number: u64) -> String {
    format!("pair-{number}")
}

/// The pairs to whose place a key is locked, with their numbers and names.
fn locks(viewer: &Viewer, key: &Key) -> Vec<(PairId, u64, String)> {
    let state = viewer.app.engine().state();
    let lock = |origin: &Origin| match origin {
        Origin::Pair(id) => {
            let record = &state.pair(*id)?.record;
            Some((*id, record.number, record.name.to_string()))
        }
        Origin::Network(_) => None,
    };
    key.origins.iter().filter_map(lock).collect()
}

async fn page<'a>(viewer: &Viewer, key: &Key, fields: &'a Fields) -> KeyPage<'a> {
    let was_sent = !fields.wrong().is_empty();
    let state = KeyState::of(&viewer.app.engine().state(), key, viewer.now());
    let is_ticked = |scope: Scope| match was_sent {
        true => fields.is_ticked(&scope_field(scope)),
        false => key.scopes.iter().any(|given| given == scope),
    };
    let held = key.origins.iter().filter_map(|origin| match origin {
        Origin::Network(network) => Some(shown(*network)),
        Origin::Pair(_) => None,
    });
    let held: Vec<String> = held.collect();
    let pairs = locks(viewer, key).into_iter().map(|(_, number, name)| PairBox {
        number,
        name,
        is_ticked: !was_sent || fields.is_ticked(&pair_field(number)),
    });
    let places = origins(&viewer.app.engine().state(), key);
    let minted = minted(viewer, key).await;
    let revision = viewer.app.engine().state().key_row(key.id).map(|row| row.revision);
    let seen = revision.map(|revision| version::written(key.id.as_bytes(), revision));
    let used_at = viewer.app.last_used().at(Credential::Key(key.org, key.id));
    KeyPage {
        id: key.id,
        name: key.name.to_string(),
        state,
        given: scope_names(key.scopes),
        origins: places,
        created_at: When(key.created_at),
        minted,
        ends_at: ends_at(key.expires),
        used_at: used_at.map(When),
        proof: viewer.proof().filter(|_| key.revoked_at.is_none()),
        version: seen.unwrap_or_default(),
        fields,
        scopes: scope_boxes(Scope::ALL.into_iter().filter(|it| key.scopes.allows(*it)), is_ticked),
        networks: if was_sent { fields.value("origins").to_owned() } else { held.join("\n") },
        pairs: pairs.collect(),
    }
}

/// Looks into the audit for who minted a key; none where that was pruned or cannot be read now.
async fn minted(viewer: &Viewer, key: &Key) -> Option<Minted> {
    let (org, id, made_at) = (key.org, key.id, key.created_at);
    let filter = Filter {
        since: Some(made_at),
        until: Some(made_at.saturating_add(MINTED_WITHIN)),
        kind: Some(Kind::KEY_MINTED),
        ..Filter::default()
    };
    let engine = viewer.app.engine();
    let found = engine.read_audit(move |audit| audit.page(org, &filter, None, MINTED_MAX)).await;
    let records = found.ok()?.entries.into_iter().map(|entry| entry.record);
    let mut minted = records
        .filter(|record| matches!(&record.event, Event::KeyMinted { key, .. } if *key == id));
    let record = minted.next()?;
    Some(Minted { by: minter(&engine.state(), record.actor)?, from: record.source })
}

/// Who minted keys, as far as the newest part of the audit says: one look at it for a whole list.
pub(super) async fn minters(viewer: &Viewer) -> BTreeMap<KeyId, String> {
    if !viewer.is_admin() {
        return BTreeMap::new();
    }
    let (org, engine) = (viewer.org(), viewer.app.engine());
    let filter = Filter { kind: Some(Kind::KEY_MINTED), ..Filter::default() };
    let found = engine.read_audit(move |audit| audit.page(org, &filter, None, MINTED_MAX)).await;
    let state = engine.state();
    let entries = found.map(|page| page.entries).unwrap_or_default();
    let by = entries.into_iter().filter_map(|entry| {
        let Event::KeyMinted { key, .. } = entry.record.event else { return None };
        Some((key, minter(&state, entry.record.actor)?))
    });
    by.collect()
}

fn minter(state: &State, actor: Actor) -> Option<String> {
    match actor {
        Actor::User(user) => {
            let user = state.user(user);
            Some(user.map_or_else(|| "a user".to_owned(), |user| user.email.to_string()))
        }
        Actor::Operator => Some("the operator, on the control plane's host".to_owned()),
        Actor::Key(_) | Actor::Pair(_) | Actor::Agent(_) | Actor::Enrolment(_) | Actor::Unknown => {
            None
        }
    }
}
