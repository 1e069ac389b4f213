//! Forms that are read line by line.

use super::flat;
use crate::network::{Family, Network};
use crate::time::Expiry;

/// Has no comments, for it is fed to loops of shells: an empty list is no line at all.
pub(super) fn text(entries: impl Iterator<Item = (Network, Expiry)>) -> String {
    entries.map(|(network, _)| flat(network) + "\n").collect()
}

/// Says `never` where there is no deadline, so that no line means that when its end is missing. New
/// columns are added at the end only.
pub(super) fn csv(entries: impl Iterator<Item = (Network, Expiry)>) -> String {
    let mut csv = "cidr,family,expires_at\n".to_owned();
    csv.extend(entries.map(|(network, expiry)| {
        let family = match network.family() {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        format!("{network},{family},{expiry}\n")
    }));
    csv
}

/// Begins with a comment, so that an empty list is no empty file.
pub(super) fn haproxy(entries: impl Iterator<Item = (Network, Expiry)>) -> String {
    let mut patterns = "# http-request deny unless { src -f FILE }\n".to_owned();
    patterns.extend(entries.map(|(network, _)| flat(network) + "\n"));
    patterns
}
