//! What happens when a bookmark has moved too often: it stays where it is for a while, and somebody
//! is told, since two who use one bookmark evict one another in turns.

use std::net::IpAddr;

use postern_shared::ids::PairId;
use postern_shared::time::Timestamp;

use super::Bookmark;
use crate::app::App;
use crate::console::path_of_pair;
use crate::domain::{Account, Email, Pair, PairRow, Refusal, Role, State, User};
use crate::http::ApiError;
use crate::http::limit::Caller;
use crate::mail::{Addressee, Letter};
use crate::page::minute;

/// Takes a move to `address` from the bookmark's budget. Where nothing is left of it this is counted
/// for the audit, and mailed, once an hour, to the pair's owner and to the org's admins.
pub(super) fn take_move(
    app: &App,
    bookmark: &Bookmark,
    address: IpAddr,
    now: Timestamp,
) -> Result<(), ApiError> {
    let (limiter, caller) = (app.limiter(), Caller::bookmark(&bookmark.hash));
    let Err(exhausted) = limiter.take_move(caller, now) else { return Ok(()) };
    app.count_refusal(bookmark.who(app), Refusal::MovedTooOften, address);
    if limiter.freeze(caller, now) {
        let until = now.saturating_add(exhausted.retry_after);
        tell(app, bookmark.pair, (address, now, until));
    }
    Err(ApiError::MovedTooOften(exhausted))
}

/// Until when the pair's bookmark stays where it is, because it has moved too often.
pub(crate) fn frozen_until(app: &App, row: &PairRow, now: Timestamp) -> Option<Timestamp> {
    let caller = Caller::bookmark(&row.record.bookmark);
    app.limiter().frozen_for(caller, now).map(|left| now.saturating_add(left))
}

fn tell(app: &App, pair: PairId, refused: (IpAddr, Timestamp, Timestamp)) {
    let Some(outbox) = app.people().outbox() else { return };
    let (readers, body) = {
        let state = app.engine().state();
        let Some(row) = state.pair(pair) else { return };
        let link = app.url(&path_of_pair(row.record.number));
        (readers(&state, &row.record), body(row, refused, &link))
    };
    for to in readers {
        let addressee = Addressee::Warned(pair);
        let subject = "A bookmark moves too often".to_owned();
        if let Err(error) =
            outbox.send(Letter { addressee, to, subject, body: body.clone().into(), secret: None })
        {
            tracing::warn!(%error, %pair, "nobody was mailed that a bookmark moves too often");
        }
    }
}

/// Who is told: the pair's owner, and those of the org's admins who have come in. An invitation that
/// nobody has accepted may have gone to anybody.
fn readers(state: &State, pair: &Pair) -> Vec<Email> {
    let users = state.org(pair.org).into_iter().flat_map(|org| &org.users);
    let is_in = |user: &&User| state.account(user.id).is_some_and(Account::is_active);
    let admins = users.filter_map(|id| state.user(*id)).filter(|user| user.role == Role::Admin);
    let admins = admins.filter(is_in);
    let mut readers: Vec<Email> = admins.map(|admin| admin.email.clone()).collect();
    readers.extend(pair.contact_email.clone().filter(|owner| !readers.contains(owner)));
    readers
}

fn body(
    row: &PairRow,
    (address, now, until): (IpAddr, Timestamp, Timestamp),
    link: &str,
) -> String {
    let spots = row.report.into_iter().flat_map(|report| report.networks());
    let on_file: Vec<String> = spots.map(|(it, _)| it.address().to_string()).collect();
    let on_file = on_file.join(" and ");
    format!(
        "The bookmark of \"{}\" has been used from ever other addresses, most lately from {address},\n\
         at {}. More moves are refused until {}.\n\n\
         What is on file, {on_file}, stays let in until its time is over.\n\n\
         Either the device changes its address very often, or somebody else uses its bookmark, too.\n\
         If nobody can say which, make a new bookmark: the old one ends at once, and what it opened\n\
         closes.\n\n\
         {link}\n",
        row.record.name,
        minute(now),
        minute(until),
    )
}
