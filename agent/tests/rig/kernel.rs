//! What the kernel holds, as `nft` tells it.
//!
//! In `nft`'s own language: the JSON of `nft` 1.0.6 breaks off at a table that persists after its
//! owner has gone.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_shared::ids::GroupId;

use crate::netns::try_run;

/// The networks that a group's sets in table `postern` hold, and the time that each has left.
/// The name of a set says how many bits of an element count.
pub(crate) fn entries(group: GroupId) -> BTreeMap<String, Duration> {
    let (is_there, text) = try_run("nft", &["list", "table", "inet", "postern"]);
    if !is_there {
        return BTreeMap::new();
    }
    let start = format!("\tset allow-{group}-v");
    let sets = text.split("\n\t}").filter_map(|object| object.split_once(&start));
    sets.flat_map(|(_, set)| {
        let (name, content) = set.split_once(' ').unwrap();
        let prefix = name.trim_end_matches("-b").rsplit('-').next().unwrap();
        let elements = content.split_once("elements = {").map_or("", |(_, elements)| elements);
        let elements = elements.trim_end_matches(|c: char| c != '}').trim_end_matches('}');
        let elements = elements.split(',').map(str::trim).filter(|element| !element.is_empty());
        elements.map(|element| entry(element, prefix)).collect::<Vec<_>>()
    })
    .collect()
}

fn entry(element: &str, prefix: &str) -> (String, Duration) {
    let words: Vec<&str> = element.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "expires");
    // In its last moment an element is shown without the time that it has left.
    let left = at.map_or(Duration::ZERO, |at| span(words[at + 1]));
    (format!("{}/{prefix}", words[0]), left)
}

/// Reads spans such as `1d2h3m4s5ms`.
fn span(text: &str) -> Duration {
    let (mut ms, mut rest) = (0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
        let count: u64 = rest[..digits].parse().unwrap();
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit());
        let (unit, further) = rest[digits..].split_at(unit.unwrap_or(rest.len() - digits));
        ms += count
            * match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                other => panic!("`nft` wrote {other} in {text}"),
            };
        rest = further;
    }
    Duration::from_millis(ms)
}
