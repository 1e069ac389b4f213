//! Pairs.

use std::net::IpAddr;
use std::ops::Bound;

use postern_shared::time::Ttl;
use postern_shared::token::TokenKind;

use super::answer::{
    AddedPair, AddressView, Answer, Named, NewBookmark, NewServerKey, Page, PairName, PairView,
    Revealed,
};
use super::request::Reference;
use super::{Desk, OperatorError, find};
use crate::domain::{Command, Email, Label, Pair, PairRow, Rejection};
use crate::drafts::NewPair;
use crate::engine::Refused;

impl Desk<'_> {
    pub(super) async fn add_pair(
        &self,
        name: Label,
        email: Option<Email>,
        ttl: Option<Ttl>,
        reports_by_get: bool,
    ) -> Result<Answer, OperatorError> {
        let ttl = ttl.unwrap_or(self.plane.ttl);
        let new = NewPair::draw(self.engine, self.org, name, ttl);
        let NewPair { pair, bookmark, server_key } = new;
        let id = pair.id;
        let pair = Pair { contact_email: email, reports_by_get, ..pair };
        self.submit(Command::CreatePair(pair)).await?;
        let pair = self.read(|state, _| state.pair(id).map(view).ok_or_else(gone))?;
        Ok(Answer::PairAdded(AddedPair {
            pair,
            bookmark: Revealed::new(format!("{}/b/{}", self.plane.url, bookmark.expose())),
            server_key: Revealed::new(server_key.expose().to_owned()),
        }))
    }

    pub(super) fn list_pairs(&self, after: Option<u64>) -> Result<Answer, OperatorError> {
        self.read(|state, org| {
            let after = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = org.pairs.range((after, Bound::Unbounded));
            let rows = rows.filter_map(|(_, id)| state.pair(*id)).filter(|row| row.is_live());
            Ok(Answer::Pairs(Page::of(rows.map(view), |view| view.pair.number)))
        })
    }

    pub(super) async fn remove_pair(&self, pair: &Reference) -> Result<Answer, OperatorError> {
        let (id, name) = self.read(|state, org| {
            let id = find::pair(state, org, pair)?;
            Ok((id, state.pair(id).map(|row| row.record.name.clone())))
        })?;
        self.submit(Command::DeletePair { org: self.org, pair: id, expected: None }).await?;
        Ok(Answer::Removed(Named::new(id, name.as_ref())))
    }
}

impl Desk<'_> {
    pub(super) async fn close_pair(&self, pair: &Reference) -> Result<Answer, OperatorError> {
        let pair = self.read(|state, org| find::pair(state, org, pair))?;
        self.submit(Command::CloseAddresses { org: self.org, pair }).await?;
        let pair = self.read(|state, _| state.pair(pair).map(view).ok_or_else(gone))?;
        Ok(Answer::PairClosed(pair))
    }

    pub(super) async fn rotate_bookmark(&self, pair: &Reference) -> Result<Answer, OperatorError> {
        let pair = self.read(|state, org| find::pair(state, org, pair))?;
        let bookmark = self.engine.chance().token(TokenKind::Bookmark);
        let (org, hash) = (self.org, bookmark.hash());
        self.submit(Command::RotateBookmark { org, pair, hash, expected: None }).await?;
        let pair = self.read(|state, _| state.pair(pair).map(view).ok_or_else(gone))?;
        let bookmark = Revealed::new(format!("{}/b/{}", self.plane.url, bookmark.expose()));
        Ok(Answer::BookmarkRotated(NewBookmark { pair, bookmark }))
    }

    pub(super) async fn rotate_server_key(
        &self,
        pair: &Reference,
    ) -> Result<Answer, OperatorError> {
        let pair = self.read(|state, org| find::pair(state, org, pair))?;
        let server_key = self.engine.chance().token(TokenKind::Server);
        let (org, hash) = (self.org, server_key.hash());
        self.submit(Command::RotateServerKey { org, pair, hash, expected: None }).await?;
        let pair = self.read(|state, _| state.pair(pair).map(view).ok_or_else(gone))?;
        let server_key = Revealed::new(server_key.expose().to_owned());
        Ok(Answer::ServerKeyRotated(NewServerKey { pair, server_key }))
    }
}

/// What is answered when a record went away between its making and its showing.
pub(super) fn gone() -> OperatorError {
    OperatorError::Refused(Refused::Rejected(Rejection::NotFound))
}

pub(super) fn pair_name(pair: &Pair) -> PairName {
    PairName { id: pair.id, number: pair.number, name: pair.name.clone() }
}

fn view(row: &PairRow) -> PairView {
    let addresses = row.report.iter().flat_map(|report| {
        let v4 = report.ipv4.map(|spot| IpAddr::from(spot.address));
        v4.into_iter().chain(report.ipv6.map(|spot| IpAddr::from(spot.address)))
    });
    let addresses = addresses.filter_map(|address| {
        row.stale_at(address).map(|expires_at| AddressView { address, expires_at })
    });
    PairView {
        pair: pair_name(&row.record),
        contact_email: row.record.contact_email.clone(),
        ttl: row.record.ttl,
        reports_by_get: row.record.reports_by_get,
        created_at: row.record.created_at,
        addresses: addresses.collect(),
        last_seen: row.last_seen(),
    }
}
