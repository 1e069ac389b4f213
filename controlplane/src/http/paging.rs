//! Lists in pages: an opaque cursor says where the next page begins.

use std::fmt;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::http::problem::ApiError;

/// Entries of a page when the client does not say.
pub const PAGE_LEN_DEFAULT: usize = 100;

/// Most entries of a page.
pub const PAGE_LEN_MAX: usize = 1_000;

/// Longest key that a cursor carries, in bytes.
const CURSOR_BYTES_MAX: usize = 128;

/// The lists that come in pages. The letter begins each cursor, so that it leads on in its own list only;
/// what follows it changes its meaning only with another letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// Pairs of an org.
    Pairs,
    /// Groups of an org.
    Groups,
    /// Members of a group.
    Members,
    /// Keys of an org.
    Keys,
    /// Records of an org's audit.
    Audit,
}

/// Behind which key of a list the next page begins; opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    list: List,
    key: Vec<u8>,
}

/// The page that a client asks for: `?limit=…&cursor=…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Entries of the page, 1 to [`PAGE_LEN_MAX`].
    pub limit: usize,
    /// The page holds what comes behind this; the first page when there is none.
    pub after: Option<Cursor>,
}

impl List {
    const ALL: [List; 5] = [List::Pairs, List::Groups, List::Members, List::Keys, List::Audit];

    fn letter(self) -> char {
        match self {
            List::Pairs => 'p',
            List::Groups => 'g',
            List::Members => 'm',
            List::Keys => 'k',
            List::Audit => 'a',
        }
    }
}

impl Cursor {
    /// Marks the place behind `key` in `list`.
    pub fn behind(list: List, key: &[u8]) -> Cursor {
        debug_assert!(key.len() <= CURSOR_BYTES_MAX, "the keys of a list are short");
        Cursor { list, key: key.to_vec() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.list.letter(), URL_SAFE_NO_PAD.encode(&self.key))
    }
}

impl FromStr for Cursor {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Cursor, ApiError> {
        let malformed = || ApiError::BadRequest {
            detail: "`cursor` must be a `meta.next_cursor` of an earlier page of this list".into(),
        };
        // Four characters carry three bytes.
        if text.len() > 1 + CURSOR_BYTES_MAX.div_ceil(3) * 4 {
            return Err(malformed());
        }
        let (list, key) = List::ALL
            .into_iter()
            .find_map(|list| Some((list, text.strip_prefix(list.letter())?)))
            .ok_or_else(malformed)?;
        let key = URL_SAFE_NO_PAD.decode(key).map_err(|_| malformed())?;
        Ok(Cursor { list, key })
    }
}

/// What is answered to the cursor of another list.
pub(crate) fn elsewhere() -> ApiError {
    ApiError::BadRequest { detail: "`cursor` belongs to another list".to_owned() }
}

impl PageRequest {
    /// The key behind which the page begins, as `list` has them.
    pub fn behind<const LEN: usize>(&self, list: List) -> Result<Option<[u8; LEN]>, ApiError> {
        let Some(Cursor { list: its, key }) = &self.after else { return Ok(None) };
        let key = key.as_slice().try_into().ok().filter(|_| *its == list);
        key.map(Some).ok_or_else(elsewhere)
    }

    /// Cuts one page out of `rest`, the entries behind [`PageRequest::after`] in the list's order.
    pub fn cut<T>(
        &self,
        rest: impl IntoIterator<Item = T>,
        key: impl FnOnce(&T) -> Cursor,
    ) -> (Vec<T>, Option<Cursor>) {
        let mut rest = rest.into_iter();
        let page: Vec<T> = rest.by_ref().take(self.limit).collect();
        let next = rest.next().and_then(|_| page.last()).map(key);
        (page, next)
    }

    /// Takes the page out of a query that may have parameters of these other names, and of no more: a
    /// filter that is misspelt would else filter nothing.
    pub fn read(uri: &Uri, others: &[&str]) -> Result<PageRequest, ApiError> {
        #[derive(Deserialize)]
        struct Raw {
            limit: Option<usize>,
            cursor: Option<String>,
        }
        let known: Vec<&str> = ["limit", "cursor"].iter().chain(others).copied().collect();
        let given = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        for (name, _) in given {
            if !known.contains(&name.as_ref()) {
                let known = known.join("`, `");
                let detail = format!("there is no parameter `{name}` here, only `{known}`");
                return Err(ApiError::BadRequest { detail });
            }
        }
        let Query(raw) = Query::<Raw>::try_from_uri(uri)
            .map_err(|error| ApiError::BadRequest { detail: error.body_text() })?;
        PageRequest::new(raw.limit, raw.cursor.as_deref())
    }

    fn new(limit: Option<usize>, cursor: Option<&str>) -> Result<PageRequest, ApiError> {
        let limit = limit.unwrap_or(PAGE_LEN_DEFAULT);
        if !(1..=PAGE_LEN_MAX).contains(&limit) {
            let detail = format!("`limit` must be between 1 and {PAGE_LEN_MAX}");
            return Err(ApiError::BadRequest { detail });
        }
        Ok(PageRequest { limit, after: cursor.map(str::parse).transpose()? })
    }
}

/// Takes the page out of a query that knows nothing else.
impl<S: Send + Sync> FromRequestParts<S> for PageRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<PageRequest, ApiError> {
        PageRequest::read(&parts.uri, &[])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_outside_the_range_are_refused() {
        for limit in [0, PAGE_LEN_MAX + 1, usize::MAX] {
            let error = PageRequest::new(Some(limit), None).unwrap_err();
            assert_eq!(error.to_string(), "`limit` must be between 1 and 1000");
        }
        assert_eq!(PageRequest::new(None, None).unwrap().limit, PAGE_LEN_DEFAULT);
    }

    #[test]
    fn a_cursor_leads_on_in_its_own_list_only() {
        let after = Some(Cursor::behind(List::Pairs, &[7; 8]));
        let request = PageRequest { limit: 1, after };

        assert_eq!(request.behind(List::Pairs).unwrap(), Some([7; 8]));
        let elsewhere = request.behind::<8>(List::Groups).unwrap_err();
        assert_eq!(elsewhere.to_string(), "`cursor` belongs to another list");
        request.behind::<16>(List::Pairs).expect_err("its keys have another length");
    }

    #[test]
    fn cursors_that_we_did_not_make_are_refused() {
        let too_long = "p".to_owned() + &"A".repeat(1_000);

        for text in ["", "!", "pAQ==", "pabc$", "xAQ", &too_long] {
            text.parse::<Cursor>().expect_err(text);
        }
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back_the_same(key in prop::collection::vec(any::<u8>(), 0..=CURSOR_BYTES_MAX)) {
            let cursor = Cursor::behind(List::Pairs, &key);

            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn pages_joined_are_the_list(len in 0u8..40, limit in 1usize..12) {
            let list: Vec<u8> = (0..len).collect();
            let mut joined = Vec::new();
            let mut request = PageRequest { limit, after: None };

            loop {
                let from = request.behind(List::Keys).unwrap();
                let from = from.map_or(0, |[last]: [u8; 1]| usize::from(last) + 1);
                let behind = |last: &u8| Cursor::behind(List::Keys, &[*last]);
                let (page, next) = request.cut(list[from..].iter().copied(), behind);
                prop_assert!(page.len() <= limit);
                joined.extend(page);
                if next.is_none() {
                    break;
                }
                request.after = next;
            }

            prop_assert_eq!(joined, list);
        }
    }
}
