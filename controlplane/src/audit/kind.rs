//! The kinds of record, by the names under which [`Event`] is shown.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::Event;

/// A kind of record, such as `pair_reported`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kind(&'static str);

/// A text that names no kind of record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a kind of record is {}", Kind::all().iter().map(|kind| kind.0).collect::<Vec<_>>().join(", "))]
pub struct KindError;

impl Kind {
    /// The kind of an API key that was minted.
    pub const KEY_MINTED: Kind = Kind("key_minted");

    /// All kinds, by name.
    pub fn all() -> &'static [Kind] {
        static ALL: LazyLock<Vec<Kind>> = LazyLock::new(|| {
            let Err(Variants(names)) = Event::deserialize(Variants(&[])) else { return Vec::new() };
            let mut all: Vec<Kind> = names.iter().copied().map(Kind).collect();
            all.sort_by_key(|kind| kind.0);
            all
        });
        &ALL
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Kind, KindError> {
        Kind::all().iter().find(|kind| kind.0 == text).copied().ok_or(KindError)
    }
}

// By hand: what serde derives would borrow the name.
impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for Kind {
    fn schema() -> RefOr<Schema> {
        let names = Kind::all().iter().map(|kind| kind.0);
        let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        Schema::from(schema.build()).into()
    }
}

impl ToSchema for Kind {
    fn name() -> Cow<'static, str> {
        "RecordKind".into()
    }
}

/// Reads nothing, and fails with the names of the variants that are asked for.
#[derive(Debug, thiserror::Error)]
#[error("names are all that is read here")]
struct Variants(&'static [&'static str]);

impl Error for Variants {
    fn custom<T: fmt::Display>(_: T) -> Variants {
        Variants(&[])
    }
}

impl<'de> Deserializer<'de> for Variants {
    type Error = Variants;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Variants> {
        Err(Variants(variants))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Variants> {
        Err(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use postern_shared::ids::GroupId;

    use super::*;

    #[test]
    fn kinds_are_what_events_are_shown_as() {
        let group = GroupId::from_random([1; 16]);
        let event = Event::GroupDeleted { group, name: "office".parse().unwrap() };

        assert_eq!(event.kind().parse(), Ok(Kind("group_deleted")));
        assert_eq!("key_minted".parse(), Ok(Kind::KEY_MINTED));
        let told = "group_delete".parse::<Kind>().unwrap_err().to_string();
        assert!(told.contains("group_created, group_deleted, group_edited"), "{told}");
    }
}
