//! `/console/keys`: the API keys of the org. Admins mint, narrow and revoke them; members see that
//! they are there, and nothing of what they can do.

mod key;
mod mint;

use std::collections::BTreeSet;

use askama::Template;
use axum::Router;
use axum::extract::Query;
use axum::response::Response;
use axum::routing::get;
use postern_shared::ids::KeyId;
use postern_shared::network::Network;
use postern_shared::scope::{Scope, ScopeSet};
use postern_shared::time::{Expiry, Timestamp};
use serde::Deserialize;

use super::Section;
use super::fields::Fields;
use super::gate::Viewer;
use super::rows::Rows;
use super::show::When;
use crate::app::App;
use crate::domain::{Credential, Key, Origin, PairRow, State};

pub(super) const SECTION: Section = Section { path: "/console/keys", name: "Keys", routes };

/// Most pairs that are offered while somebody types; any other can be typed as well.
const PAIRS_OFFERED_MAX: usize = 200;

#[derive(Deserialize)]
struct Asked {
    after: Option<KeyId>,
    /// Whether the revoked ones are asked for, in place of the others.
    revoked: Option<String>,
}

#[derive(Template)]
#[template(path = "console/keys.html")]
struct KeysPage<'a> {
    rows: Vec<Row>,
    next: Option<KeyId>,
    /// Whether these are the revoked ones; if not, how many of those there are.
    are_revoked: bool,
    revoked: usize,
    is_admin: bool,
    proof: Option<String>,
    once: String,
    fields: &'a Fields,
    scopes: Vec<ScopeBox>,
    lock: Lock,
    pairs: Vec<(u64, String)>,
}

struct Row {
    id: KeyId,
    name: String,
    state: KeyState,
    used_at: Option<When>,
    /// What an admin sees beside that.
    details: Option<Details>,
}

struct Details {
    scopes: String,
    origins: Vec<String>,
    ends_at: Option<When>,
    /// Who minted it; none where that is too long ago for the list, and its page has to say.
    minted_by: Option<String>,
}

/// How a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyState {
    Live,
    Expired,
    /// Every pair from whose places it worked is gone.
    Stranded,
    Revoked(Timestamp),
}

/// A scope to tick.
struct ScopeBox {
    name: &'static str,
    lets: &'static str,
    is_ticked: bool,
}

/// From where a new key is to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// From fixed networks.
    Networks,
    /// From where a pair is.
    Pair,
    /// From where a pair is that is made with it.
    New,
}

fn routes() -> Router<App> {
    Router::new()
        .route(SECTION.path, get(list).post(mint::mint))
        .route("/console/keys/{id}", get(key::show).post(key::narrow))
        .route("/console/keys/{id}/revoke", get(key::ask).post(key::revoke))
}

async fn list(viewer: Viewer, Query(asked): Query<Asked>) -> Response {
    let title = if asked.revoked.is_some() { "Revoked keys" } else { "Keys" };
    let fields = Fields::default();
    viewer.show(title, &page(&viewer, &asked, &fields).await)
}

async fn page<'a>(viewer: &Viewer, asked: &Asked, fields: &'a Fields) -> KeysPage<'a> {
    let mut minters = key::minters(viewer).await;
    let (app, now) = (&viewer.app, viewer.now());
    let are_revoked = asked.revoked.is_some();
    let state = app.engine().state();
    let org = state.org(viewer.org());
    let all = org.into_iter().flat_map(|org| &org.keys).filter_map(|id| state.key(*id));
    let (revoked, live): (Vec<&Key>, Vec<&Key>) = all.partition(|key| key.revoked_at.is_some());
    let count = revoked.len();
    let shown = if are_revoked { revoked } else { live };
    let named = shown.into_iter().map(|key| (key.name.to_string(), key.id, key)).collect();
    let Rows { rows, next } = Rows::cut(named, asked.after);
    let mut row = |(id, key): (KeyId, &Key)| Row {
        id,
        name: key.name.to_string(),
        state: KeyState::of(&state, key, now),
        used_at: app.last_used().at(Credential::Key(key.org, id)).map(When),
        details: viewer.is_admin().then(|| Details {
            scopes: scope_names(key.scopes),
            origins: origins(&state, key),
            ends_at: ends_at(key.expires),
            minted_by: minters.remove(&id),
        }),
    };
    let pairs = org.into_iter().flat_map(|org| org.pairs.values());
    let pairs = pairs.filter_map(|id| state.pair(*id)).filter(|row| row.is_live());
    let offered = pairs.map(|row| (row.record.number, row.record.name.to_string()));
    KeysPage {
        rows: rows.into_iter().map(&mut row).collect(),
        next,
        are_revoked,
        revoked: count,
        is_admin: viewer.is_admin(),
        proof: viewer.proof().filter(|_| !are_revoked),
        once: viewer.once(),
        fields,
        scopes: scope_boxes(Scope::ALL, |scope| fields.is_ticked(&scope_field(scope))),
        lock: Lock::of(fields),
        pairs: offered.take(PAIRS_OFFERED_MAX).collect(),
    }
}

impl KeyState {
    fn of(state: &State, key: &Key, now: Timestamp) -> KeyState {
        let has_gone = |origin: &Origin| match origin {
            Origin::Network(_) => false,
            Origin::Pair(id) => !state.pair(*id).is_some_and(PairRow::is_live),
        };
        match key.revoked_at {
            Some(at) => KeyState::Revoked(at),
            None if !key.expires.is_live_at(now) => KeyState::Expired,
            None if key.origins.iter().all(has_gone) => KeyState::Stranded,
            None => KeyState::Live,
        }
    }

    fn is_live(self) -> bool {
        self == KeyState::Live
    }

    fn word(self) -> &'static str {
        match self {
            KeyState::Live => "live",
            KeyState::Expired => "expired",
            KeyState::Stranded => "works nowhere: its pair is gone",
            KeyState::Revoked(_) => "revoked",
        }
    }

    fn since(self) -> Option<When> {
        match self {
            KeyState::Revoked(at) => Some(When(at)),
            KeyState::Live | KeyState::Expired | KeyState::Stranded => None,
        }
    }
}

impl Lock {
    fn of(fields: &Fields) -> Lock {
        match fields.value("lock") {
            "pair" => Lock::Pair,
            "new" => Lock::New,
            _ => Lock::Networks,
        }
    }

    fn is(&self, name: &str) -> bool {
        name == match self {
            Lock::Networks => "networks",
            Lock::Pair => "pair",
            Lock::New => "new",
        }
    }
}

fn scope_field(scope: Scope) -> String {
    format!("scope-{scope}")
}

fn scope_boxes(
    scopes: impl IntoIterator<Item = Scope>,
    is_ticked: impl Fn(Scope) -> bool,
) -> Vec<ScopeBox> {
    let one = |scope: Scope| ScopeBox {
        name: scope.as_str(),
        lets: lets(scope),
        is_ticked: is_ticked(scope),
    };
    scopes.into_iter().map(one).collect()
}

/// What a scope lets the holder of a key do.
fn lets(scope: Scope) -> &'static str {
    match scope {
        Scope::AccountRead => "see the account, its keys and its audit",
        Scope::AccountWrite => "revoke keys; all of account.read",
        Scope::PairsRead => "see pairs and where they are",
        Scope::PairsWrite => {
            "make, change and delete pairs, and replace their secrets; all of pairs.read"
        }
        Scope::GroupsRead => "read groups, their members and their lists, and follow them",
        Scope::GroupsWrite => {
            "make, change and delete groups, and who is in them; all of groups.read"
        }
    }
}

/// The scopes that were ticked; one at least.
fn ticked_scopes(fields: &mut Fields) -> ScopeSet {
    let is_ticked = |scope: &Scope| fields.is_ticked(&scope_field(*scope));
    let scopes: ScopeSet = Scope::ALL.into_iter().filter(is_ticked).collect();
    if scopes.is_empty() {
        fields.refuse("tick at least one thing that the key lets its holder do");
    }
    scopes
}

/// The networks of a field, one a line.
fn networks(fields: &mut Fields) -> Vec<Origin> {
    let text = fields.value("origins").to_owned();
    let mut networks = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.parse::<Network>() {
            Ok(network) => {
                networks.insert(Origin::Network(network));
            }
            Err(error) => fields.refuse(error),
        }
    }
    networks.into_iter().collect()
}

fn scope_names(scopes: ScopeSet) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(", ")
}

/// From where a key works, in words.
fn origins(state: &State, key: &Key) -> Vec<String> {
    let origin = |origin: &Origin| match origin {
        Origin::Network(network) => shown(*network),
        Origin::Pair(id) => match state.pair(*id) {
            Some(row) if row.is_live() => {
                format!("where pair {} is ({})", row.record.number, row.record.name)
            }
            Some(_) | None => "where a pair was that is deleted: from nowhere".to_owned(),
        },
    };
    key.origins.iter().map(origin).collect()
}

/// A host without its prefix length.
fn shown(network: Network) -> String {
    if network.is_host() { network.address().to_string() } else { network.to_string() }
}

fn ends_at(expires: Expiry) -> Option<When> {
    match expires {
        Expiry::At(at) => Some(When(at)),
        Expiry::Never => None,
    }
}
