//! The fields of a JSON object, read so that every mistake is told at once.

use std::collections::BTreeSet;

use axum::extract::{FromRequest, Request};
use postern_shared::ids::IdError;
use postern_shared::network::Network;
use postern_shared::scope::{Scope, ScopeSet};
use postern_shared::time::{Timestamp, Ttl};
use postern_shared::wire::v1::FieldError;
use serde_json::{Map, Value};

use crate::domain::{Email, Label, Origin};
use crate::http::ApiError;
use crate::http::json::StrictJson;

/// Longest part of a wrong value that is repeated in an answer, in characters.
const SHOWN_CHARS_MAX: usize = 64;

/// The fields of a request's body that have not been read yet, and what was wrong with the others.
#[derive(Debug)]
pub(super) struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

/// What a field can hold.
pub(super) trait Field: Sized {
    /// Reads a value that is not null; an error says what to write instead.
    fn read(value: &Value) -> Result<Self, String>;
}

impl Fields {
    fn new(left: Map<String, Value>) -> Fields {
        Fields { left, known: Vec::new(), errors: Vec::new() }
    }

    /// Takes a field that must be there.
    pub(super) fn required<T: Field>(&mut self, name: &'static str) -> Option<T> {
        self.known.push(name);
        match self.left.remove(name) {
            Some(value) => self.read(name, &value),
            None => {
                self.refuse(name, "is missing");
                None
            }
        }
    }

    /// Takes a field that may be left out.
    pub(super) fn optional<T: Field>(&mut self, name: &'static str) -> Option<T> {
        self.known.push(name);
        let value = self.left.remove(name)?;
        self.read(name, &value)
    }

    /// Takes a field that may be left out, or be null.
    pub(super) fn nullable<T: Field>(&mut self, name: &'static str) -> Option<Option<T>> {
        self.known.push(name);
        let value = self.left.remove(name)?;
        if value.is_null() { Some(None) } else { self.read(name, &value).map(Some) }
    }

    /// Says whether no mistake was found so far.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Adds a mistake.
    pub(super) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        let name = name.replace('~', "~0").replace('/', "~1");
        self.errors.push(FieldError { detail: detail.into(), pointer: format!("/{name}") });
    }

    /// Ends the reading: with all the mistakes, fields that nobody asked for among them.
    pub(super) fn finish(mut self) -> Result<(), ApiError> {
        let unknown: Vec<String> = self.left.keys().cloned().collect();
        let known = self.known.join("`, `");
        for name in unknown {
            self.refuse(&name, format!("is not a field; there are `{known}`"));
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::Invalid { errors: self.errors })
    }

    fn read<T: Field>(&mut self, name: &str, value: &Value) -> Option<T> {
        match T::read(value) {
            Ok(value) => Some(value),
            Err(detail) => {
                self.refuse(name, detail);
                None
            }
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Fields, ApiError> {
        StrictJson::from_request(request, state).await.map(|StrictJson(left)| Fields::new(left))
    }
}

fn list<'a>(value: &'a Value, what: &str) -> Result<&'a [Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("must be a list of {what}"))
}

fn text<'a>(value: &'a Value, what: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("must be {what}, as a string"))
}

/// Reads a whole number; in JSON `60.0` and `6e1` are 60, too.
fn whole(value: &Value) -> Option<u64> {
    /// Up to here every whole number has a form of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let from_float = |float: &f64| float.fract() == 0.0 && (0.0..=EXACT_MAX).contains(float);
    let float = value.as_f64().filter(from_float);
    value.as_u64().or_else(|| format!("{}", float?).parse().ok())
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl Field for Label {
    fn read(value: &Value) -> Result<Label, String> {
        text(value, "a name")?.parse().map_err(|error: crate::domain::TextError| error.to_string())
    }
}

impl Field for ScopeSet {
    fn read(value: &Value) -> Result<ScopeSet, String> {
        let scope = |value: &Value| {
            let scope = text(value, "a scope")?.parse::<Scope>();
            scope.map_err(|error| error.to_string())
        };
        let listed = list(value, "scopes")?;
        let scopes: ScopeSet = listed.iter().map(scope).collect::<Result<_, String>>()?;
        if scopes.iter().count() < listed.len() {
            return Err("names a scope twice".to_owned());
        }
        Ok(scopes)
    }
}

impl Field for Vec<Origin> {
    fn read(value: &Value) -> Result<Vec<Origin>, String> {
        let origin = |value: &Value| match text(value, "a network, or pair: and an id")? {
            written if written.starts_with("pair:") => {
                let id = written.trim_start_matches("pair:").parse();
                id.map(Origin::Pair).map_err(|error: IdError| error.to_string())
            }
            _ => Network::read(value).map(Origin::Network),
        };
        let origins: BTreeSet<Origin> =
            list(value, "origins")?.iter().map(origin).collect::<Result<_, String>>()?;
        Ok(origins.into_iter().collect())
    }
}

impl Field for Email {
    fn read(value: &Value) -> Result<Email, String> {
        let text = text(value, "a mail address")?;
        text.parse().map_err(|error: crate::domain::TextError| error.to_string())
    }
}

impl Field for Network {
    fn read(value: &Value) -> Result<Network, String> {
        let text = text(value, "an address or a network in CIDR notation")?;
        text.parse().map_err(|error: postern_shared::network::NetworkError| error.to_string())
    }
}

impl Field for Timestamp {
    fn read(value: &Value) -> Result<Timestamp, String> {
        let text = text(value, "a time in RFC 3339")?;
        shown(text).parse().map_err(|error: postern_shared::time::TimeError| error.to_string())
    }
}

impl Field for Ttl {
    fn read(value: &Value) -> Result<Ttl, String> {
        let secs = whole(value).ok_or("must be a whole number of seconds")?;
        Ttl::from_secs(secs).map_err(|error| error.to_string())
    }
}

impl Field for bool {
    fn read(value: &Value) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| "must be true or false".to_owned())
    }
}

/// A pair as a body names it: by its id, or by its number, written as such or as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PairName(pub(super) String);

impl Field for PairName {
    fn read(value: &Value) -> Result<PairName, String> {
        match (value.as_str(), whole(value)) {
            (Some(text), _) => Ok(PairName(text.to_owned())),
            (None, Some(number)) => Ok(PairName(number.to_string())),
            (None, None) => Err("must be the id or the number of a pair".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        let Value::Object(map) = value else { panic!("an object is needed") };
        Fields::new(map)
    }

    fn told(fields: Fields) -> Vec<String> {
        let ApiError::Invalid { errors } = fields.finish().unwrap_err() else { panic!() };
        errors.iter().map(|error| format!("{}: {}", error.pointer, error.detail)).collect()
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let mut body = fields(json!({
            "contact_email": "nobody", "ttl": "1h", "expires_at": "tomorrow",
            "cidr": "10.0.0.1/24", "reports_by_get": null, "a/b": 1,
        }));

        assert_eq!(body.required::<Label>("name"), None);
        assert_eq!(body.nullable::<Email>("contact_email"), None);
        assert_eq!(body.optional::<Ttl>("ttl"), None);
        assert_eq!(body.optional::<Timestamp>("expires_at"), None);
        assert_eq!(body.optional::<Network>("cidr"), None);
        assert_eq!(body.optional::<bool>("reports_by_get"), None);

        let known = "`name`, `contact_email`, `ttl`, `expires_at`, `cidr`, `reports_by_get`";
        let told = told(body);
        assert_eq!(told[0], "/name: is missing");
        assert_eq!(told[1], "/contact_email: is not a mail address; write name@example.org");
        assert_eq!(told[2], "/ttl: must be a whole number of seconds");
        assert!(told[3].starts_with("/expires_at: `tomorrow` is not a time"), "{}", told[3]);
        assert!(told[4].contains("10.0.0.0/24"), "{}", told[4]);
        assert_eq!(told[5], "/reports_by_get: must be true or false");
        assert_eq!(told[6], format!("/a~1b: is not a field; there are {known}"));
        assert_eq!(told.len(), 7);
    }

    #[test]
    fn null_and_absence_are_not_the_same() {
        let mut body = fields(json!({ "contact_email": null, "ttl": 60 }));

        assert_eq!(body.nullable::<Email>("contact_email"), Some(None));
        assert_eq!(body.nullable::<Ttl>("ttl"), Some(Some(Ttl::from_secs(60).unwrap())));
        assert_eq!(body.nullable::<Ttl>("other"), None);
        assert!(body.finish().is_ok());
    }

    #[test]
    fn pairs_are_named_by_id_or_number() {
        let read = |value| PairName::read(&value).map(|PairName(text)| text);

        assert_eq!(read(json!(7)), Ok("7".to_owned()));
        assert_eq!(read(json!(7.0)), Ok("7".to_owned()), "the same number in JSON");
        assert_eq!(read(json!("7")), Ok("7".to_owned()));
        read(json!(-1)).unwrap_err();
        read(json!(7.5)).unwrap_err();
        read(json!({})).unwrap_err();
    }
}
