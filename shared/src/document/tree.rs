//! The document as a tree in which every value knows its place.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::MergeKeyPolicy;
use serde_yaml::{DuplicateKeyPolicy, Location, Options, Spanned};

use super::{DOCUMENT_BYTES_MAX, Mistake};

/// Deepest nesting of lists and mappings.
const DEPTH_MAX: usize = 32;
/// Most values, aliases counted by what they stand for.
const VALUES_MAX: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Nothing,
    Boolean(bool),
    /// As it was written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<Pair>),
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Place {
    pub(super) fn mistake(self, path: &str, message: String) -> Mistake {
        Mistake { line: self.line, column: self.column, path: path.to_owned(), message }
    }
}

/// Reads `text`. Keys given twice come as mistakes beside the tree, which has the first of them;
/// a mistake in the syntax comes alone.
pub(super) fn parse(text: &str) -> Result<(Node, Vec<Mistake>), Mistake> {
    let start = Place { line: 1, column: 1 };
    if DOCUMENT_BYTES_MAX < text.len() {
        let message = format!("is longer than {DOCUMENT_BYTES_MAX} bytes");
        return Err(start.mistake("", message));
    }
    let raw = serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options())
        .map_err(|error| syntax_mistake(&error))?;
    let mut mistakes = Vec::new();
    let root = node(raw, text, "", &mut mistakes);
    Ok((root, mistakes))
}

fn options() -> Options {
    serde_yaml::options! {
        strict_booleans: true,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        with_snippet: false,
        budget: serde_yaml::budget! { max_depth: DEPTH_MAX, max_nodes: VALUES_MAX },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: VALUES_MAX,
        },
    }
}

fn syntax_mistake(error: &serde_yaml::Error) -> Mistake {
    let found = error.location().unwrap_or(Location::UNKNOWN);
    let place = place(found);
    let error = error.without_snippet();
    let message = if let serde_yaml::Error::MultipleDocuments { .. } = error {
        "a second document starts here; keep one".to_owned()
    } else {
        let message = error.to_string();
        let place = format!(" at line {}, column {}", found.line(), found.column());
        message.strip_suffix(&place).unwrap_or(&message).to_owned()
    };
    place.mistake("", message)
}

/// Positions start at 1, also where the parser knows none.
fn place(location: Location) -> Place {
    Place { line: location.line().max(1), column: location.column().max(1) }
}

fn node(raw: Spanned<Raw>, text: &str, path: &str, mistakes: &mut Vec<Mistake>) -> Node {
    let place = place(raw.defined);
    let value = match raw.value {
        Raw::Nothing => Value::Nothing,
        Raw::Boolean(value) => Value::Boolean(value),
        Raw::Number => Value::Number(written_at(raw.defined, text).to_owned()),
        Raw::Text(text) => Value::Text(text),
        Raw::List(items) => {
            let items = items.into_iter().enumerate();
            let item = |(index, item)| node(item, text, &format!("{path}[{index}]"), mistakes);
            Value::List(items.map(item).collect())
        }
        Raw::Mapping(pairs) => Value::Mapping(mapping(pairs, text, path, mistakes)),
    };
    Node { place, value }
}

fn mapping(
    raw: Vec<(Spanned<String>, Spanned<Raw>)>,
    text: &str,
    path: &str,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::with_capacity(raw.len());
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for (key, value) in raw {
        let (place, key) = (place(key.defined), key.value);
        let path = join(path, &key);
        let node = node(value, text, &path, mistakes);
        if let Some(line) = lines.get(&key) {
            let message = format!("is given twice, first in line {line}; keep one");
            mistakes.push(place.mistake(&path, message));
            continue;
        }
        lines.insert(key.clone(), place.line);
        pairs.push(Pair { key, place, node });
    }
    pairs
}

/// The path of `key` in the mapping at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What stands at a location. The parser makes numbers of numbers, which loses their notation.
fn written_at(location: Location, text: &str) -> &str {
    let span = location.span();
    let range = span.byte_offset().zip(span.byte_len()).and_then(|(offset, len)| {
        let start = usize::try_from(offset).ok()?;
        Some(start..start.checked_add(usize::try_from(len).ok()?)?)
    });
    range.and_then(|range| text.get(range)).unwrap_or_default()
}

/// A value as the parser tells it.
enum Raw {
    Nothing,
    Boolean(bool),
    Number,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a boolean, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Boolean(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut mapping = Vec::new();
        while let Some(pair) = entries.next_entry()? {
            mapping.push(pair);
        }
        Ok(Raw::Mapping(mapping))
    }
}
