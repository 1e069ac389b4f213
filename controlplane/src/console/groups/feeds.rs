//! Where the list of a group can be fetched by other programs.

use crate::app::App;

/// A form of the list, and where it is.
pub(super) struct Feed {
    pub(super) what: &'static str,
    pub(super) url: String,
}

/// The forms, as `format` names them, with who reads them.
const FORMS: [(&str, &str); 8] = [
    ("text", "Plain text"),
    ("csv", "CSV with deadlines"),
    ("nft", "nftables"),
    ("ipset", "ipset"),
    ("nginx", "nginx"),
    ("apache", "Apache"),
    ("haproxy", "HAProxy"),
    ("json", "JSON"),
];

pub(super) fn feeds(app: &App, number: u64) -> Vec<Feed> {
    let feed = |(form, what): (&str, &'static str)| {
        let url = app.url(&format!("/api/v1/groups/{number}/ips?format={form}"));
        Feed { what, url }
    };
    FORMS.map(feed).into()
}
