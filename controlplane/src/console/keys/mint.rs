//! Minting: an admin, and a code of the authenticator that was never used. The secret is in the
//! answer to the form, and nowhere else.

use askama::Template;
use axum::response::Response;
use postern_shared::ids::PairId;
use postern_shared::token::Token;

use super::{Asked, Lock, SECTION, networks, page, ticked_scopes};
use crate::api::once::Turn;
use crate::console::fields::Fields;
use crate::console::gate::{Sent, Viewer};
use crate::domain::{Command, Key, Label, Origin, Pair};
use crate::drafts::{self, NewPair};
use crate::http::ApiError;

#[derive(Template)]
#[template(path = "console/key_minted.html")]
struct MintedPage<'a> {
    name: &'a str,
    secret: &'a str,
    /// The bookmark of the pair that was made with it.
    bookmark: Option<String>,
    whoami: String,
}

/// A key that is still to be minted, with what is told of it once.
struct New {
    key: Key,
    secret: Token,
    pair: Option<(Pair, Token)>,
}

pub(super) async fn mint(sent: Sent, turn: Turn) -> Result<Response, ApiError> {
    let mut fields = Fields::of(&sent);
    let new = read(&sent.viewer, &mut fields);
    if let (Some(new), true) = (new, fields.wrong().is_empty())
        && let Some(page) = carry_out(&sent, turn, &mut fields, new).await?
    {
        return Ok(page);
    }
    let asked = Asked { after: None, revoked: None };
    Ok(sent.viewer.show_wrong("Keys", &page(&sent.viewer, &asked, &fields).await))
}

/// Mints the key, if the code counts.
async fn carry_out(
    sent: &Sent,
    turn: Turn,
    fields: &mut Fields,
    new: New,
) -> Result<Option<Response>, ApiError> {
    let Viewer { app, signed_in, .. } = &sent.viewer;
    let Some(factor) = sent.factor(fields).await? else { return Ok(None) };
    let New { key, secret, pair } = new;
    let (name, place) = (key.name.clone(), format!("{}/{}", SECTION.path, key.id));
    let bookmark = pair.as_ref().map(|(_, bookmark)| app.url(&format!("/b/{}", bookmark.expose())));
    let command = Command::MintKeyAs {
        user: signed_in.user,
        factor,
        key: Box::new(key),
        pair: pair.map(|(pair, _)| Box::new(pair)),
    };
    if fields.accept(sent.submit_once(turn, command, place).await)?.is_none() {
        return Ok(None);
    }
    let page = MintedPage {
        name: name.as_str(),
        secret: secret.expose(),
        bookmark,
        whoami: app.url("/api/v1/whoami"),
    };
    Ok(Some(sent.viewer.show("The key is minted", &page)))
}

fn read(viewer: &Viewer, fields: &mut Fields) -> Option<New> {
    let engine = viewer.app.engine();
    let (name, lifetime) = (fields.label(), fields.ttl("ttl", "the lifetime"));
    let scopes = ticked_scopes(fields);
    let (origins, is_locked_to_new) = match Lock::of(fields) {
        Lock::Networks => (read_networks(fields), false),
        Lock::Pair => (read_pair(viewer, fields).into_iter().map(Origin::Pair).collect(), false),
        Lock::New => (Vec::new(), true), // given by the decision
    };
    let (name, lifetime) = (name?, lifetime?);
    let pair = is_locked_to_new.then(|| {
        let ttl = viewer.app.settings().ttl;
        let NewPair { pair, bookmark, .. } = NewPair::draw(engine, viewer.org(), name.clone(), ttl);
        (pair, bookmark)
    });
    let (key, secret) = drafts::key(engine, viewer.org(), name, scopes, origins, lifetime);
    Some(New { key, secret, pair })
}

fn read_networks(fields: &mut Fields) -> Vec<Origin> {
    let origins = networks(fields);
    if origins.is_empty() && fields.value("origins").is_empty() {
        fields.refuse("name at least one network from which the key works, one a line");
    }
    origins
}

/// A pair by its number, or by its name where only one has it.
fn read_pair(viewer: &Viewer, fields: &mut Fields) -> Option<PairId> {
    let found = {
        let state = viewer.app.engine().state();
        let written = fields.value("pair");
        let org = state.org(viewer.org())?;
        let rows = org.pairs.values().filter_map(|id| state.pair(*id)).filter(|row| row.is_live());
        let number: Option<u64> = written.parse().ok();
        let is_meant = |name: &Label| number.is_none() && name.as_str() == written;
        let mut rows =
            rows.filter(|row| number == Some(row.record.number) || is_meant(&row.record.name));
        match (rows.next(), rows.next()) {
            (Some(row), None) => Ok(row.record.id),
            (Some(_), Some(_)) => Err("several pairs have this name; write the number of one"),
            (None, _) => Err("write the number of a pair, as the list of pairs shows it"),
        }
    };
    found.map_err(|wrong| fields.refuse(wrong)).ok()
}
