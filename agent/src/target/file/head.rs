//! What a file of ours says of itself: whose it is, when it was written, and the mark of each entry.

use std::collections::BTreeMap;

use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};

use crate::target::marked::{self, first_words};

const WARNING: &str = "kept by postern-agent, which undoes what others change here";

/// All that is known of a file that is not its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// When the form was written, which may say how much time is left.
    pub(super) written_at: Timestamp,
    /// The mark of each entry.
    pub(super) entries: BTreeMap<Network, String>,
}

/// What a text was found to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading<'t> {
    /// Somebody else's.
    Foreign,
    /// Ours, and somebody was at it.
    Broken,
    /// Ours, with what stands behind the head.
    Ours(Head, &'t str),
}

impl Head {
    /// Writes the head, each line as a comment where there are any.
    pub(super) fn write(&self, owner: &str, comment: Option<&str>) -> String {
        let start = start(comment);
        let count = self.entries.len();
        let mut text =
            format!("{start}{}{} {count} {WARNING}\n", first_words(owner), self.written_at);
        text.extend(
            self.entries.iter().map(|(network, mark)| format!("{start}{network} {mark}\n")),
        );
        text
    }

    /// Reads what [`Head::write`] wrote.
    pub(super) fn read<'t>(text: &'t str, owner: &str, comment: Option<&str>) -> Reading<'t> {
        let start = start(comment);
        let first = format!("{start}{}", first_words(owner));
        let Some(rest) = text.strip_prefix(&first) else { return Reading::Foreign };
        match read_rest(rest, &start) {
            Some((head, behind)) => Reading::Ours(head, behind),
            None => Reading::Broken,
        }
    }

    /// The entries with their deadlines; those whose mark says none are left out.
    pub(super) fn deadlines(&self, owner: &str) -> impl Iterator<Item = (Network, Expiry)> {
        self.entries.iter().filter_map(move |(network, mark)| {
            marked::latest_deadline(mark, owner).map(|expiry| (*network, expiry))
        })
    }
}

fn start(comment: Option<&str>) -> String {
    comment.map(|comment| format!("{comment} ")).unwrap_or_default()
}

fn read_rest<'t>(rest: &'t str, start: &str) -> Option<(Head, &'t str)> {
    let (first, mut rest) = rest.split_once('\n')?;
    let mut words = first.split(' ');
    let written_at = words.next()?.parse().ok()?;
    let count: usize = words.next()?.parse().ok()?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let (line, behind) = rest.split_once('\n')?;
        let (network, mark) = line.strip_prefix(start)?.split_once(' ')?;
        entries.insert(network.parse().ok()?, mark.to_owned());
        rest = behind;
    }
    (entries.len() == count).then_some((Head { written_at, entries }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let entries = [("10.0.0.1", "postern web 01010101=never"), ("10.0.0.2", "x y")];
        Head {
            written_at: "2026-01-01T00:00:00.007Z".parse().unwrap(),
            entries: entries
                .map(|(network, mark)| (network.parse().unwrap(), mark.to_owned()))
                .into(),
        }
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        for comment in [None, Some("#"), Some("//")] {
            let text = head().write("web", comment) + "the rest\n";

            assert_eq!(Head::read(&text, "web", comment), Reading::Ours(head(), "the rest\n"));
            assert_eq!(Head::read(&text, "other", comment), Reading::Foreign);
        }
        assert!(
            head()
                .write("web", Some("#"))
                .starts_with("# postern web 2026-01-01T00:00:00.007Z 2 kept")
        );
    }

    #[test]
    fn what_was_changed_or_cut_off_is_still_ours() {
        let text = head().write("web", Some("#"));

        for broken in [text.replace("10.0.0.2", "10.0.0"), text[..text.len() - 5].to_owned()] {
            assert_eq!(Head::read(&broken, "web", Some("#")), Reading::Broken, "{broken}");
        }
        assert_eq!(Head::read("", "web", Some("#")), Reading::Foreign);
    }

    #[test]
    fn an_entry_without_a_readable_deadline_is_none() {
        let left: Vec<_> = head().deadlines("web").collect();

        assert_eq!(left, [("10.0.0.1".parse().unwrap(), Expiry::Never)]);
    }
}
