//! Reading a JSON body strictly: what is not understood is refused, never skipped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::Deserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use crate::http::body;
use crate::http::problem::ApiError;

/// Longest JSON body, in bytes.
pub const JSON_BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting of objects and arrays.
const JSON_DEPTH_MAX: usize = 16;

/// A JSON body read into `T`, which should deny unknown fields.
///
/// Refuses other content types (415), bodies over [`JSON_BYTES_MAX`] (413), text that is not
/// JSON, is nested too deeply or names a key twice (400), and values that `T` does not take
/// (422, with the field's JSON pointer).
#[derive(Debug)]
pub struct StrictJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<StrictJson<T>, ApiError> {
        require_json(request.headers())?;
        let bytes = body::read(request.into_body(), JSON_BYTES_MAX).await?;
        parse(&bytes).map(StrictJson)
    }
}

/// Reads `bytes` as [`StrictJson`] does.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    check_shape(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer_to(error.path());
        let inner = error.into_inner();
        match inner.classify() {
            Category::Data => ApiError::field(pointer, without_position(&inner)),
            Category::Io | Category::Syntax | Category::Eof => not_json(&inner),
        }
    })?;
    Ok(value)
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_json = |value: &str| {
        let mut parts = value.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let charset = parts.all(|part| {
            part.split_once('=').is_none_or(|(name, value)| {
                !name.eq_ignore_ascii_case("charset")
                    || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
        });
        charset && (essence == "application/json" || essence.ends_with("+json"))
    };
    match headers.get(CONTENT_TYPE).map(|value| value.to_str()) {
        Some(Ok(value)) if is_json(value) => Ok(()),
        Some(_) | None => Err(ApiError::UnsupportedMediaType {
            detail: "send the body as `Content-Type: application/json`, in UTF-8".into(),
        }),
    }
}

/// Refuses what `serde_json` alone would let through: keys given twice (of which it would keep
/// the last) and deep nesting.
fn check_shape(bytes: &[u8]) -> Result<(), ApiError> {
    let shape = Shape { path: RefCell::default(), refused: Cell::default() };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    match ShapeSeed(&shape).deserialize(&mut reader).and_then(|()| reader.end()) {
        Ok(()) => Ok(()),
        Err(error) => Err(shape.refused.take().unwrap_or_else(|| not_json(&error))),
    }
}

/// What the walk over a body knows: where it is, and what it refused.
struct Shape {
    path: RefCell<Vec<String>>,
    refused: Cell<Option<ApiError>>,
}

#[derive(Clone, Copy)]
struct ShapeSeed<'a>(&'a Shape);

impl ShapeSeed<'_> {
    fn enter<E: serde::de::Error>(self, segment: String) -> Result<(), E> {
        let mut path = self.0.path.borrow_mut();
        path.push(segment);
        if path.len() <= JSON_DEPTH_MAX {
            return Ok(());
        }
        let detail = format!("the body is nested more than {JSON_DEPTH_MAX} levels deep");
        self.0.refused.set(Some(ApiError::BadRequest { detail }));
        Err(E::custom("too deep"))
    }

    fn leave(self) {
        self.0.path.borrow_mut().pop();
    }
}

impl<'de> DeserializeSeed<'de> for ShapeSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ShapeSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        self.enter(index.to_string())?;
        while seq.next_element_seed(self)?.is_some() {
            index += 1;
            self.leave();
            self.enter(index.to_string())?;
        }
        self.leave();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            self.enter(key.clone())?;
            if !seen.insert(key) {
                let path = self.0.path.borrow();
                let pointer = pointer(path.iter().map(String::as_str));
                let detail = format!("the body names the key at `{pointer}` twice");
                self.0.refused.set(Some(ApiError::BadRequest { detail }));
                return Err(A::Error::custom("twice"));
            }
            map.next_value_seed(self)?;
            self.leave();
        }
        Ok(())
    }
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::BadRequest { detail: format!("the body is not JSON: {error}") }
}

/// The message alone: the pointer says where, and says it better.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&position).unwrap_or(&text).to_owned()
}

fn pointer_to(path: &Path) -> String {
    let segments: Vec<String> = path
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect();
    pointer(segments.iter().map(String::as_str))
}

/// Writes a JSON pointer (RFC 6901).
fn pointer<'a>(segments: impl Iterator<Item = &'a str>) -> String {
    segments.map(|segment| format!("/{}", segment.replace('~', "~0").replace('/', "~1"))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::http::HeaderValue;
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Group {
        name: String,
        #[serde(default)]
        ports: Vec<Port>,
        #[serde(default)]
        labels: BTreeMap<String, u8>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Port {
        number: u16,
    }

    fn refusal(body: &str) -> (&'static str, String) {
        let error = parse::<Group>(body.as_bytes()).unwrap_err();
        let slug = error.slug();
        if let ApiError::Invalid { errors } = &error {
            return (slug, format!("{}: {}", errors[0].pointer, errors[0].detail));
        }
        (slug, error.to_string())
    }

    #[test]
    fn a_wrong_field_is_named_by_its_pointer() {
        for (body, expected) in [
            (r#"{"name":1}"#, "/name: invalid type: integer `1`, expected a string"),
            (
                r#"{"name":"a","ports":[{"number":1},{"number":70000}]}"#,
                "/ports/1/number: invalid value: integer `70000`, expected u16",
            ),
            (
                r#"{"name":"a","nmae":"b"}"#,
                "/nmae: unknown field `nmae`, expected one of `name`, `ports`, `labels`",
            ),
            (
                r#"{"name":"a","ports":[{"number":1,"x":1}]}"#,
                "/ports/0/x: unknown field `x`, expected `number`",
            ),
            (
                r#"{"labels":{"a/b~c":256}}"#,
                "/labels/a~1b~0c: invalid value: integer `256`, expected u8",
            ),
            (r#"{}"#, ": missing field `name`"),
            (r#"[]"#, ": invalid length 0, expected struct Group with 3 elements"),
        ] {
            assert_eq!(refusal(body), ("invalid", expected.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_key_given_twice_is_refused_wherever_it_is() {
        for (body, at) in [
            (r#"{"name":"a","name":"b"}"#, "/name"),
            (r#"{"name":"a","labels":{"x":1,"x":2}}"#, "/labels/x"),
            (r#"{"name":"a","ports":[{"number":1},{"number":1,"number":2}]}"#, "/ports/1/number"),
            (r#"{"name":"a","labels":{"x":1,"\u0078":2}}"#, "/labels/x"),
        ] {
            let expected = format!("the body names the key at `{at}` twice");
            assert_eq!(refusal(body), ("bad_request", expected), "{body}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);

        check_shape(nested(JSON_DEPTH_MAX).as_bytes()).unwrap();
        for depth in [JSON_DEPTH_MAX + 1, 30_000] {
            let (slug, detail) = refusal(&nested(depth));
            assert_eq!(slug, "bad_request");
            assert_eq!(detail, "the body is nested more than 16 levels deep");
        }
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        for body in [
            "",
            "name",
            "{",
            r#"{"name":"a"}}"#,
            "{'name':'a'}",
            "\u{feff}{}",
            "{\"name\":\"\u{1}\"}",
        ] {
            assert_eq!(refusal(body).0, "bad_request", "{body:?}");
        }
        assert_eq!(parse::<Group>(b"{\"name\":\"\xff\"}").unwrap_err().slug(), "bad_request");
    }

    #[test]
    fn only_json_in_utf_8_is_taken() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            require_json(&headers).is_ok()
        };

        for value in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/merge-patch+json",
        ] {
            assert!(check(value), "{value}");
        }
        for value in ["text/plain", "application/jsonp", "application/json; charset=latin1", ""] {
            assert!(!check(value), "{value}");
        }
        require_json(&HeaderMap::new()).unwrap_err();
    }

    proptest! {
        #[test]
        fn what_serde_takes_without_doubled_keys_is_taken(name in ".{0,20}", labels: BTreeMap<String, u8>) {
            let body = serde_json::json!({"name": name, "labels": labels}).to_string();

            let read: Group = parse(body.as_bytes()).unwrap();

            prop_assert_eq!(read, Group { name, ports: Vec::new(), labels });
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(parse::<Group>(&bytes));
        }
    }
}
