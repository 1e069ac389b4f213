//! Sealing of the few secrets that must be read back: AES-256-GCM under a key outside the store.
//!
//! A sealed value names the version of its form and the key that it was sealed under, and opens
//! only in the place that it was sealed for: copied to another row, table or purpose it is noise.

use std::ffi::OsStr;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::{Digest as _, Sha256};

use crate::chance::Chance;
use crate::data_dir::{DataDir, DataDirError, SealingKey, read_sealing_key};
use crate::domain::Sealed;

/// The version of the form: version, key id, nonce, then the text with its tag behind it.
const VERSION: u8 = 1;
/// Bytes by which a value says under which key it is sealed.
const KEY_ID_BYTES: usize = 4;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

/// Seals and opens. New values are sealed under the newest key; older ones open under theirs.
pub struct Sealer {
    newest: Key,
    older: Vec<Key>,
}

struct Key {
    id: [u8; KEY_ID_BYTES],
    key: LessSafeKey,
}

/// The one place in which a value opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table of the record.
    pub table: &'static str,
    /// The id of the record.
    pub row: &'a [u8],
    /// What the value is for.
    pub purpose: &'static str,
}

/// Why a sealed value does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its form is not known, or it is cut off.
    #[error("the sealed value has a form that is not known")]
    Form,
    /// The key is not there.
    #[error("the sealing key that the value was sealed under is not there; restore it")]
    Key,
    /// It was altered, or sealed for another place.
    #[error("the sealed value was altered or belongs elsewhere")]
    Altered,
}

impl Sealer {
    /// Makes a sealer of the newest key and those before it.
    pub fn new(newest: &SealingKey, older: &[SealingKey]) -> Sealer {
        Sealer { newest: Key::new(newest), older: older.iter().map(Key::new).collect() }
    }

    /// Reads the keys of a data directory: its own or the service manager's, and the one before,
    /// where there is one.
    pub fn load(data: &DataDir, credentials: Option<&OsStr>) -> Result<Sealer, DataDirError> {
        let newest = read_sealing_key(&data.sealing_key(credentials))?;
        let previous = data.previous_sealing_key(credentials);
        let older = previous.exists().then(|| read_sealing_key(&previous)).transpose()?;
        Ok(Sealer::new(&newest, older.as_slice()))
    }

    /// Seals `text` for one place.
    pub fn seal(&self, place: Place<'_>, text: &[u8], chance: &dyn Chance) -> Sealed {
        let mut nonce = [0; NONCE_LEN];
        chance.fill(&mut nonce);
        let head = [&[VERSION][..], &self.newest.id, &nonce].concat();
        let mut sealed = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = &self.newest.key;
        key.seal_in_place_append_tag(nonce, Aad::from(place.bytes(&head)), &mut sealed)
            .expect("what is sealed here is far shorter than the cipher's limit");
        Sealed([head, sealed].concat())
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<SecretSlice<u8>, OpenError> {
        let (head, body) = sealed.0.split_at_checked(HEAD_BYTES).ok_or(OpenError::Form)?;
        if head[0] != VERSION {
            return Err(OpenError::Form);
        }
        let (id, nonce) = head[1..].split_at(KEY_ID_BYTES);
        let mut keys = std::iter::once(&self.newest).chain(&self.older);
        let key = keys.find(|key| key.id == id).ok_or(OpenError::Key)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Form)?;
        let mut text = body.to_vec();
        let opened = key.key.open_in_place(nonce, Aad::from(place.bytes(head)), &mut text);
        let length = opened.map_err(|_| OpenError::Altered)?.len();
        text.truncate(length);
        Ok(text.into())
    }

    /// Seals anew what is sealed under an older key, so that the key can go.
    pub fn renew(
        &self,
        place: Place<'_>,
        sealed: &Sealed,
        chance: &dyn Chance,
    ) -> Result<Option<Sealed>, OpenError> {
        if sealed.0.get(1..=KEY_ID_BYTES) == Some(&self.newest.id[..]) {
            return Ok(None);
        }
        let text = self.open(place, sealed)?;
        Ok(Some(self.seal(place, text.expose_secret(), chance)))
    }
}

impl Key {
    fn new(key: &SealingKey) -> Key {
        let bytes = key.expose_secret();
        let digest = Sha256::digest([&b"postern sealing key"[..], bytes].concat());
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest[..KEY_ID_BYTES]);
        let unbound = UnboundKey::new(&AES_256_GCM, bytes).expect("a sealing key has 32 bytes");
        Key { id, key: LessSafeKey::new(unbound) }
    }
}

impl Place<'_> {
    /// What a value is bound to, each part behind its length so that no two places are alike.
    fn bytes(&self, head: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [head, self.table.as_bytes(), self.row, self.purpose.as_bytes()] {
            bytes.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chance::SeededChance;

    const HERE: Place<'static> = Place { table: "accounts", row: &[1; 16], purpose: "seed" };

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(Box::new([byte; 32]))
    }

    fn chance() -> SeededChance {
        SeededChance::new(1)
    }

    #[test]
    fn a_value_opens_in_its_own_place_only() {
        let sealer = Sealer::new(&key(1), &[]);
        let sealed = sealer.seal(HERE, b"seed", &chance());

        assert_eq!(sealer.open(HERE, &sealed).unwrap().expose_secret(), b"seed");
        for place in [
            Place { table: "tickets", ..HERE },
            Place { row: &[2; 16], ..HERE },
            Place { row: &[1; 17], ..HERE },
            Place { purpose: "seeds", ..HERE },
            Place { table: "account", purpose: "sseed", ..HERE },
        ] {
            assert_eq!(sealer.open(place, &sealed).unwrap_err(), OpenError::Altered, "{place:?}");
        }
    }

    #[test]
    fn an_older_key_opens_and_what_it_sealed_is_renewed() {
        let old = Sealer::new(&key(1), &[]);
        let both = Sealer::new(&key(2), &[key(1)]);
        let new = Sealer::new(&key(2), &[]);
        let sealed = old.seal(HERE, b"seed", &chance());

        assert_eq!(new.open(HERE, &sealed).unwrap_err(), OpenError::Key);
        assert_eq!(old.renew(HERE, &sealed, &chance()).unwrap(), None);
        let renewed = both.renew(HERE, &sealed, &chance()).unwrap().unwrap();
        assert_eq!(new.open(HERE, &renewed).unwrap().expose_secret(), b"seed");
    }

    proptest! {
        #[test]
        fn one_changed_bit_is_noticed(text in prop::collection::vec(any::<u8>(), 0..40), bit: prop::sample::Index) {
            let sealer = Sealer::new(&key(1), &[]);
            let mut sealed = sealer.seal(HERE, &text, &chance());
            let bit = bit.index(sealed.0.len() * 8);
            sealed.0[bit / 8] ^= 1 << (bit % 8);

            prop_assert!(sealer.open(HERE, &sealed).is_err());
        }

        #[test]
        fn what_is_sealed_is_nowhere_in_the_clear(text in prop::collection::vec(any::<u8>(), 8..40)) {
            let sealed = Sealer::new(&key(1), &[]).seal(HERE, &text, &chance());

            prop_assert!(!sealed.0.windows(text.len()).any(|part| part == text));
        }
    }
}
