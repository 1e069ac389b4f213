//! Asking a mapping for its keys.

use super::Mistake;
use super::scalar::Scalar;
use super::tree::{Node, Pair, Place, Value, join};

/// One mapping of the document. Asked for a key, it answers its value or notes the mistake; at
/// its end every key that nobody asked for is a mistake.
#[derive(Debug)]
pub struct Reader<'d> {
    pairs: &'d [Pair],
    place: Place,
    path: String,
    asked: Vec<&'static str>,
    /// Whether any key may be there.
    is_open: bool,
    mistakes: &'d mut Vec<Mistake>,
}

pub(super) fn read_root<T>(
    root: &Node,
    mistakes: &mut Vec<Mistake>,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Option<T> {
    let (start, noted) = (Place { line: 1, column: 1 }, mistakes.len());
    let value = match &root.value {
        Value::Mapping(pairs) => read_mapping(pairs, start, String::new(), mistakes, read),
        // Nothing but comments: as good as a mapping without keys.
        Value::Nothing => read_mapping(&[], start, String::new(), mistakes, read),
        Value::Boolean(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            mistakes.push(root.place.mistake("", wrong_type("a mapping (`key: value`)", root)));
            None
        }
    };
    if value.is_none() && mistakes.len() == noted {
        mistakes.push(start.mistake("", "is not a valid configuration".to_owned()));
    }
    value
}

fn read_mapping<T>(
    pairs: &[Pair],
    place: Place,
    path: String,
    mistakes: &mut Vec<Mistake>,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Option<T> {
    let mut reader = Reader { pairs, place, path, asked: Vec::new(), is_open: false, mistakes };
    let value = read(&mut reader);
    reader.finish();
    value
}

impl<'d> Reader<'d> {
    /// Reads a value that has to be there.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(Scalar<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if self.find(key).is_none() {
            self.miss(key);
        }
        self.optional(key, parse)
    }

    /// Reads a value that may be left out. `None` as well after a mistake, which is noted.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(Scalar<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let node = &self.find(key)?.node;
        let path = join(&self.path, key);
        read_scalar(node, &path, self.mistakes, parse)
    }

    /// Reads a list of values; empty where it is left out. Items with mistakes are left out.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Scalar<'_>) -> Result<T, String>,
    ) -> Vec<T> {
        self.items(key, |item, path, mistakes| read_scalar(item, path, mistakes, &parse))
    }

    /// Reads a mapping that has to be there.
    pub fn mapping<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.find(key).is_none() {
            self.miss(key);
        }
        self.optional_mapping(key, read)
    }

    /// Reads a mapping that may be left out. `None` as well after a mistake, which is noted.
    pub fn optional_mapping<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
    ) -> Option<T> {
        let node = &self.find(key)?.node;
        read_nested(node, join(&self.path, key), self.mistakes, read)
    }

    /// Reads a list of mappings; empty where it is left out. Items with mistakes are left out.
    pub fn mappings<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Reader<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.items(key, |item, path, mistakes| {
            read_nested(item, path.to_owned(), mistakes, &mut read)
        })
    }

    /// Notes a mistake that only shows from several keys together, at the value of `key`, or at
    /// the mapping where it is left out.
    pub fn reject(&mut self, key: &'static str, message: impl Into<String>) {
        let mistake = self.mistake(key, message);
        self.mistakes.push(mistake);
    }

    /// Makes a mistake of it, at the same place, without noting it.
    pub fn mistake(&mut self, key: &'static str, message: impl Into<String>) -> Mistake {
        let place = self.place_of(key);
        place.mistake(&join(&self.path, key), message.into())
    }

    /// Takes every key for known that is no misspelt one: after a mistake that leaves open which there
    /// may be.
    pub fn leave_rest(&mut self) {
        self.is_open = true;
    }

    fn items<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&Node, &str, &mut Vec<Mistake>) -> Option<T>,
    ) -> Vec<T> {
        let path = join(&self.path, key);
        let Some(node) = self.find(key).map(|pair| &pair.node) else { return Vec::new() };
        match &node.value {
            Value::List(items) => {
                let item = |(index, item): (usize, &Node)| {
                    read(item, &format!("{path}[{index}]"), self.mistakes)
                };
                items.iter().enumerate().filter_map(item).collect()
            }
            // A key whose items are all commented out.
            Value::Nothing => Vec::new(),
            Value::Boolean(_) | Value::Number(_) | Value::Text(_) | Value::Mapping(_) => {
                self.mistakes.push(node.place.mistake(&path, wrong_type("a list", node)));
                Vec::new()
            }
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'d Pair> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let pairs: &'d [Pair] = self.pairs;
        pairs.iter().find(|pair| pair.key == key)
    }

    fn place_of(&mut self, key: &'static str) -> Place {
        match self.find(key) {
            Some(pair) => pair.node.place,
            None => self.place,
        }
    }

    fn miss(&mut self, key: &str) {
        let path = join(&self.path, key);
        self.mistakes.push(self.place.mistake(&path, "is missing".to_owned()));
    }

    fn finish(self) {
        for pair in self.pairs {
            if self.asked.contains(&pair.key.as_str()) {
                continue;
            }
            let message = match suggestion(&pair.key, &self.asked) {
                Some(known) => format!("is not known here; did you mean `{known}`?"),
                None if self.is_open => continue,
                None => format!("is not known here; known are {}", known_keys(&self.asked)),
            };
            self.mistakes.push(pair.place.mistake(&join(&self.path, &pair.key), message));
        }
    }
}

fn read_scalar<T>(
    node: &Node,
    path: &str,
    mistakes: &mut Vec<Mistake>,
    parse: impl FnOnce(Scalar<'_>) -> Result<T, String>,
) -> Option<T> {
    let read = match &node.value {
        Value::Text(text) => parse(Scalar::Text(text)),
        Value::Number(written) => parse(Scalar::Number(written)),
        Value::Boolean(value) => parse(Scalar::Boolean(*value)),
        Value::Nothing => Err("has no value".to_owned()),
        Value::List(_) | Value::Mapping(_) => Err(wrong_type("a single value", node)),
    };
    read.map_err(|message| mistakes.push(node.place.mistake(path, message))).ok()
}

fn read_nested<T>(
    node: &Node,
    path: String,
    mistakes: &mut Vec<Mistake>,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Option<T> {
    let message = match &node.value {
        Value::Mapping(pairs) => return read_mapping(pairs, node.place, path, mistakes, read),
        Value::Nothing => "has no value".to_owned(),
        Value::Boolean(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
            wrong_type("a mapping (`key: value`)", node)
        }
    };
    mistakes.push(node.place.mistake(&path, message));
    None
}

fn wrong_type(wanted: &str, node: &Node) -> String {
    let found = match &node.value {
        Value::Nothing => "nothing",
        Value::Boolean(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::Text(_) => "a text",
        Value::List(_) => "a list",
        Value::Mapping(_) => "a mapping",
    };
    format!("is {found}; write {wanted}")
}

fn known_keys(asked: &[&str]) -> String {
    match asked {
        [] => "no keys".to_owned(),
        keys => keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
    }
}

/// The known word that is most like `key`, where one is like enough.
pub fn suggestion<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    /// Longer keys are no misspelt ones, and would cost their length squared.
    const KEY_BYTES_MAX: usize = 64;
    if KEY_BYTES_MAX < key.len() {
        return None;
    }
    let far = |known: &str| distance(&key.to_lowercase(), known);
    let nearest = known.iter().min_by_key(|known| far(known))?;
    let distance = far(nearest);
    // Of a single letter every other is a misspelling.
    (distance <= nearest.len().div_ceil(3) && distance < nearest.len()).then_some(*nearest)
}

/// How many letters have to be added, dropped, replaced or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if 1 < i && 1 < j && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}
