//! Forms that web servers include into their configuration.

use super::{Name, flat};
use crate::network::Network;
use crate::time::Expiry;

/// `geo` rather than `allow` and `deny`: it is one look-up at any length, two groups can be asked for
/// at one place, and without its end the file is refused, where a list of `allow` that lost its
/// `deny all` would let everybody in.
pub(super) fn nginx(name: &Name, entries: impl Iterator<Item = (Network, Expiry)>) -> String {
    let mut block =
        format!("# if (${name} = 0) {{ return 403; }}\ngeo ${name} {{\n    default 0;\n");
    block.extend(entries.map(|(network, _)| format!("    {} 1;\n", flat(network))));
    block + "}\n"
}

/// Inside `<RequireAny>`, `all denied` decides only where nothing else does; a container may not be
/// empty.
pub(super) fn apache(entries: impl Iterator<Item = (Network, Expiry)>) -> String {
    let mut block = "<RequireAny>\n    Require all denied\n".to_owned();
    block.extend(entries.map(|(network, _)| format!("    Require ip {}\n", flat(network))));
    block + "</RequireAny>\n"
}
