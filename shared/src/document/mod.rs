//! Reads a YAML configuration so that every mistake in it is told at once, with its place.
//!
//! ```
//! # use postern_shared::document::{self, text};
//! let port = document::read("listen: 127.0.0.1\nprot: 80\n", |reader| {
//!     let listen = reader.required("listen", text::<std::net::IpAddr>);
//!     let port = reader.required("port", document::number::<u16>);
//!     Some((listen?, port?))
//! });
//! let told: Vec<String> = port.unwrap_err().iter().map(ToString::to_string).collect();
//! assert_eq!(told, [
//!     "1:1: port: is missing",
//!     "2:1: prot: is not known here; did you mean `port`?",
//! ]);
//! ```

mod reader;
mod scalar;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;

pub use reader::{Reader, suggestion};
pub use scalar::{Scalar, boolean, number, number_in, span, text};

/// Longest text that is read.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Something to change in a configuration. Shown as `line:column: path: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1, in characters.
    pub column: u64,
    /// The way to the value, such as `targets[0].ports`; empty for the document as a whole.
    pub path: String,
    /// What is wrong, and where possible what to write.
    pub message: String,
}

/// Reads `text` with `read`, which asks the [`Reader`] for every key that there may be.
///
/// Fails with all mistakes in the order of their places: syntax (alone, since nothing after it
/// can be trusted), keys given twice, keys that `read` did not ask for, missing keys, wrong types
/// and values that do not parse. `read` answers `None` after a mistake, and only then.
pub fn read<T>(
    text: &str,
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<T, Vec<Mistake>> {
    let (root, mut mistakes) = tree::parse(text).map_err(|mistake| vec![mistake])?;
    let value = reader::read_root(&root, &mut mistakes, read);
    mistakes.sort();
    match value {
        Some(value) if mistakes.is_empty() => Ok(value),
        Some(_) | None => Err(mistakes),
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}
