//! Versions of objects: `ETag`, `If-Match`, `If-None-Match` (RFC 9110, section 8.8.3 and 13.1).

use std::fmt;

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::http::problem::ApiError;

/// The version of one representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag {
    opaque: String,
    weak: bool,
}

/// Most tags that are compared in one header; longer lists are refused.
const TAGS_MAX: usize = 64;

/// Bytes of the hash that a tag is made of: 128 bits, no two versions meet by accident.
const TAG_HASH_BYTES: usize = 16;

impl EntityTag {
    /// Names a representation byte for byte: two parts with the same bytes have the same tag.
    pub fn strong(parts: &[&[u8]]) -> EntityTag {
        let mut hash = Sha256::new();
        for part in parts {
            // With the lengths in it, no two lists of parts hash alike.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let opaque = URL_SAFE_NO_PAD.encode(&hash.finalize()[..TAG_HASH_BYTES]);
        EntityTag { opaque, weak: false }
    }

    /// The same version for representations that mean the same and differ in bytes, such as
    /// those that carry the seconds left.
    #[must_use]
    pub fn weakened(&self) -> EntityTag {
        EntityTag { opaque: self.opaque.clone(), weak: true }
    }

    fn parts(&self) -> [&str; 3] {
        [if self.weak { "W/\"" } else { "\"" }, &self.opaque, "\""]
    }

    /// The tag as the value of a header field.
    pub fn to_header(&self) -> HeaderValue {
        let text = self.parts().concat();
        HeaderValue::try_from(text).expect("base64 in quotes is a header value")
    }
}

impl fmt::Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().try_for_each(|part| f.write_str(part))
    }
}

/// Says whether a change may go on: only from the version that the client has seen.
///
/// Without `If-Match` the answer is 428; with one that does not name `current`, 412.
pub fn require_match(headers: &HeaderMap, current: &EntityTag) -> Result<(), ApiError> {
    let is_named = names(headers, &IF_MATCH, |weak, opaque| {
        !weak && !current.weak && opaque == current.opaque
    })?;
    match is_named {
        None => Err(ApiError::PreconditionRequired),
        Some(true) => Ok(()),
        Some(false) => Err(ApiError::PreconditionFailed),
    }
}

/// Says whether the client already has `current`, so that 304 is the answer.
pub fn is_known(headers: &HeaderMap, current: &EntityTag) -> Result<bool, ApiError> {
    let is_named = names(headers, &IF_NONE_MATCH, |_, opaque| opaque == current.opaque)?;
    Ok(is_named.unwrap_or(false))
}

/// Says whether a header field names a version that `is_it`, which is asked with each tag: whether
/// it is weak, and its text. `*` names any version; `None` where the field is not there.
fn names(
    headers: &HeaderMap,
    name: &HeaderName,
    is_it: impl Fn(bool, &str) -> bool,
) -> Result<Option<bool>, ApiError> {
    let malformed = || ApiError::BadRequest {
        detail: format!("`{name}` must be `*` or a list of ETags such as \"abc\""),
    };
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    // A list of no tags names no version.
    let (mut is_named, mut tags) = (false, 0);
    for line in lines {
        let mut rest = line.to_str().map_err(|_| malformed())?.trim();
        if rest == "*" && headers.get_all(name).iter().count() == 1 {
            return Ok(Some(true));
        }
        while !rest.is_empty() {
            let (weak, opaque, after) = read_tag(rest).ok_or_else(malformed)?;
            is_named |= is_it(weak, opaque);
            tags += 1;
            rest = after.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if rest.is_empty() => rest,
                None => return Err(malformed()),
            };
            if tags > TAGS_MAX {
                return Err(malformed());
            }
        }
    }
    Ok(Some(is_named))
}

/// Whether the first tag of a list is weak, its text, and what comes after it.
fn read_tag(text: &str) -> Option<(bool, &str, &str)> {
    let (weak, quoted) = match text.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let (opaque, rest) = quoted.strip_prefix('"')?.split_once('"')?;
    Some((weak, opaque, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn a_change_needs_the_version_that_the_client_saw() {
        let current = EntityTag::strong(&[b"one"]);
        let (strong, weak) = (current.to_string(), current.weakened().to_string());
        let check = |lines: &[&str]| {
            require_match(&headers(IF_MATCH, lines), &current).map_err(|error| error.slug())
        };

        assert_eq!(check(&[]), Err("precondition_required"));
        assert_eq!(check(&["*"]), Ok(()));
        assert_eq!(check(&[&strong]), Ok(()));
        assert_eq!(check(&["\"other\", \"next\"", &strong]), Ok(()));
        assert_eq!(check(&[&weak]), Err("precondition_failed"));
        assert_eq!(check(&["\"other\""]), Err("precondition_failed"));
        assert_eq!(check(&[""]), Err("precondition_failed"), "an empty list names no version");
    }

    #[test]
    fn a_list_of_tags_that_cannot_be_read_is_refused() {
        let current = EntityTag::strong(&[b"one"]);

        for line in ["abc", "\"abc", "\"a\" \"b\"", "*, \"a\"", "w/\"a\""] {
            let error = require_match(&headers(IF_MATCH, &[line]), &current).unwrap_err();
            assert_eq!(error.slug(), "bad_request", "{line}");
        }
        let many = vec!["\"a\""; TAGS_MAX + 1].join(",");
        require_match(&headers(IF_MATCH, &[&many]), &current).unwrap_err();
    }

    #[test]
    fn a_reader_that_has_the_version_is_told_so_however_it_writes_it() {
        let current = EntityTag::strong(&[b"one"]);
        let known = |lines: &[&str]| is_known(&headers(IF_NONE_MATCH, lines), &current).unwrap();

        assert!(known(&[&current.to_string()]));
        assert!(known(&[&current.weakened().to_string()]));
        assert!(known(&["*"]));
        assert!(!known(&["\"other\""]));
        assert!(!known(&[]));
    }

    #[test]
    fn parts_that_only_run_together_differ() {
        assert_ne!(EntityTag::strong(&[b"ab", b"c"]), EntityTag::strong(&[b"a", b"bc"]));
    }
}
