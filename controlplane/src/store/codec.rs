//! The bytes of a record: one byte for the version of its form, then `postcard`.
//!
//! There is no checksum here: the medium has one for every page, and the file is checked whole when
//! it is opened.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A record that can be stored.
///
/// A change of its fields is a new version, and comes with a numbered migration that rewrites the
/// stored records: code knows one form of each record only.
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version of the form, from 1 up.
    const VERSION: u8;
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There are no bytes at all.
    #[error("the record is empty")]
    Empty,
    /// Written in another form.
    #[error("the record has version {found}, this program reads version {known}")]
    Version {
        /// The version of the bytes.
        found: u8,
        /// The version that is expected.
        known: u8,
    },
    /// Too short, or with values that the fields cannot have.
    #[error("the record is truncated or malformed")]
    Malformed(#[source] postcard::Error),
    /// Longer than the record.
    #[error("{0} bytes are left over behind the record")]
    LeftOver(usize),
}

/// Turns a record into bytes.
pub fn encode<T: Versioned>(record: &T) -> Vec<u8> {
    postcard::to_extend(record, vec![T::VERSION])
        .expect("records have fields of plain types, each with a known length")
}

/// Turns bytes into the record that they were made from.
pub fn decode<T: Versioned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&found, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if found != T::VERSION {
        return Err(CodecError::Version { found, known: T::VERSION });
    }
    let (record, rest) = postcard::take_from_bytes(body).map_err(CodecError::Malformed)?;
    if rest.is_empty() { Ok(record) } else { Err(CodecError::LeftOver(rest.len())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Example {
        name: String,
        count: u64,
        tags: Vec<Option<u16>>,
    }

    impl Versioned for Example {
        const VERSION: u8 = 3;
    }

    fn any_example() -> impl Strategy<Value = Example> {
        (".{0,12}", any::<u64>(), prop::collection::vec(any::<Option<u16>>(), 0..4))
            .prop_map(|(name, count, tags)| Example { name, count, tags })
    }

    #[test]
    fn the_durable_form_stays_as_it_is() {
        let record = Example { name: "ab".to_owned(), count: 300, tags: vec![None, Some(1)] };

        assert_eq!(encode(&record), [3, 2, b'a', b'b', 0xac, 0x02, 2, 0, 1, 1]);
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(decode::<Example>(&[]), Err(CodecError::Empty));
        assert_eq!(decode::<Example>(&[4, 0]), Err(CodecError::Version { found: 4, known: 3 }));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(record in any_example()) {
            prop_assert_eq!(decode::<Example>(&encode(&record)), Ok(record));
        }

        #[test]
        fn a_part_of_a_record_is_no_record(record in any_example(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&record);
            let part = &bytes[..cut.index(bytes.len())];

            prop_assert!(decode::<Example>(part).is_err());
        }

        #[test]
        fn bytes_behind_a_record_are_refused(record in any_example(), extra in 1..5_usize) {
            let mut bytes = encode(&record);
            bytes.extend(vec![0; extra]);

            prop_assert_eq!(decode::<Example>(&bytes), Err(CodecError::LeftOver(extra)));
        }
    }
}
