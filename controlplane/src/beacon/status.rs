//! What is known of the caller's address at this moment, without a report: for pages that watch.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postern_shared::time::Timestamp;
use postern_shared::wire::v1::Confirmation;
use serde::Serialize;

use super::Bookmark;
use super::report::Reported;
use crate::app::App;
use crate::http::ApiError;

/// How far the last report of an address got.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    /// When the caller's address goes stale; none where it is not on file.
    expires_at: Option<Timestamp>,
    confirmation: Confirmation,
}

/// Looks; changes nothing.
pub(super) async fn status(
    app: &App,
    bookmark: &Bookmark,
    address: IpAddr,
) -> Result<Status, ApiError> {
    let found = Reported::found(app, bookmark, address)?;
    let Some(reported) = found else {
        let confirmation = Confirmation::default();
        return Ok(Status { ipv4: None, ipv6: None, expires_at: None, confirmation });
    };
    let confirmation = reported.confirmation(app, None, None).await;
    let Reported { ipv4, ipv6, expires_at, .. } = reported;
    Ok(Status { ipv4, ipv6, expires_at: Some(expires_at), confirmation })
}
