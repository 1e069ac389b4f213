//! Lists that were written lately, so that the next who asks for one gets the same bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::http::etag::EntityTag;

/// Most bytes that are kept of all lists together.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most lists that are kept.
const TEXTS_MAX: usize = 256;

/// A list in a form of another program.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) body: Bytes,
    /// How many entries it was made of.
    pub(super) entries: usize,
}

/// The newest lists, each under the strong tag that names it byte for byte.
#[derive(Debug, Default)]
pub(crate) struct Written(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    texts: VecDeque<(EntityTag, Text)>,
    bytes: usize,
}

impl Written {
    /// The list of this tag: as it was written before, or by `write`.
    pub(super) fn get(&self, tag: &EntityTag, write: impl FnOnce() -> Text) -> Text {
        if let Some(kept) = self.shelf().find(tag) {
            return kept;
        }
        let text = write();
        self.shelf().keep(tag, &text);
        text
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn find(&self, tag: &EntityTag) -> Option<Text> {
        self.texts.iter().find(|(kept, _)| kept == tag).map(|(_, text)| text.clone())
    }

    fn keep(&mut self, tag: &EntityTag, text: &Text) {
        if BYTES_MAX < text.body.len() || self.find(tag).is_some() {
            return;
        }
        self.bytes += text.body.len();
        self.texts.push_back((tag.clone(), text.clone()));
        while BYTES_MAX < self.bytes || TEXTS_MAX < self.texts.len() {
            let Some((_, oldest)) = self.texts.pop_front() else { return };
            self.bytes -= oldest.body.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(number: usize) -> EntityTag {
        EntityTag::strong(&[&number.to_be_bytes()])
    }

    fn text(bytes: usize) -> Text {
        Text { body: vec![b'x'; bytes].into(), entries: bytes }
    }

    #[test]
    fn a_list_is_written_once_a_version() {
        let written = Written::default();

        written.get(&tag(1), || text(1));
        let again = written.get(&tag(1), || panic!("it was written before"));
        let other = written.get(&tag(2), || text(2));

        assert_eq!((again.entries, other.entries), (1, 2));
    }

    #[test]
    fn what_is_kept_has_a_limit_in_bytes_and_in_number() {
        let written = Written::default();
        for number in 0..=TEXTS_MAX {
            written.get(&tag(number), || text(1));
        }
        assert_eq!(written.shelf().texts.len(), TEXTS_MAX);
        assert!(written.shelf().find(&tag(0)).is_none());

        written.get(&tag(1_000), || text(BYTES_MAX - 1));
        written.get(&tag(1_001), || text(BYTES_MAX + 1));
        assert_eq!(written.shelf().bytes, BYTES_MAX);
        assert_eq!(written.shelf().texts.len(), 2);

        written.get(&tag(1_002), || text(2));
        assert_eq!(written.shelf().bytes, 2);
    }
}
