//! Second factors: the codes of an authenticator (RFC 6238), and recovery codes.

use std::fmt::Write as _;

use postern_shared::ids::UserId;
use postern_shared::time::Timestamp;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use totp_rs::{Builder, Secret, Totp};

use crate::chance::Chance;
use crate::domain::{RECOVERY_CODES, RecoveryHash, STEP_SECS, STEPS_SKEW, step_at};
use crate::seal::Place;

/// Bytes of a seed: as many as SHA-1 has, as RFC 4226 advises.
const SEED_BYTES: usize = 20;
/// Characters of a recovery code without its hyphens; each carries 5 bits.
const RECOVERY_CHARS: usize = 20;
/// Characters between two hyphens.
const RECOVERY_PART_CHARS: usize = 5;
/// No letter that looks like a digit (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// What somebody has written into the field for the second factor.
#[derive(Debug, Clone)]
pub(crate) enum Written {
    /// Six digits.
    Code(SecretString),
    /// A recovery code.
    Recovery(RecoveryHash),
}

/// Where the seed of a user's authenticator is sealed for.
pub(crate) fn seed_place(user: &UserId) -> Place<'_> {
    Place { table: "accounts", row: user.as_bytes(), purpose: "authenticator seed" }
}

/// Draws a seed.
pub(crate) fn new_seed(chance: &dyn Chance) -> SecretSlice<u8> {
    let mut seed = vec![0; SEED_BYTES];
    chance.fill(&mut seed);
    seed.into()
}

/// The step at which the authenticator shows `code`, around `now`.
pub(crate) fn step_of(seed: &SecretSlice<u8>, code: &str, now: Timestamp) -> Option<u64> {
    let totp = totp(seed);
    let now = step_at(now);
    let mut steps = now.saturating_sub(STEPS_SKEW)..=now + STEPS_SKEW;
    let shown = |step: &u64| totp.generate(step * STEP_SECS).to_string();
    steps.find(|step| shown(step).as_bytes().ct_eq(code.as_bytes()).into())
}

/// The seed as people type it: base 32, in groups of four.
pub(crate) fn seed_text(seed: &SecretSlice<u8>) -> SecretString {
    let text = Secret::from(seed.expose_secret()).to_base32();
    let groups: Vec<&str> =
        text.as_bytes().chunks(4).filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ").into()
}

/// The URL that an authenticator scans.
pub(crate) fn seed_url(seed: &SecretSlice<u8>, issuer: &str, email: &str) -> SecretString {
    // A colon would end the issuer.
    let plain = |text: &str| text.replace(':', " ");
    let totp = builder(seed).with_issuer(Some(plain(issuer))).with_account_name(plain(email));
    totp.build_noncompliant().to_url().expect("there is a name, without a colon").into()
}

fn totp(seed: &SecretSlice<u8>) -> Totp {
    builder(seed).build_noncompliant()
}

/// SHA-1, 30 s and 6 digits are what the library begins with, and what every authenticator knows.
fn builder(seed: &SecretSlice<u8>) -> Builder {
    Builder::new().with_secret(Secret::from(seed.expose_secret())).with_step_duration(STEP_SECS)
}

/// Draws recovery codes, each with what is stored in its place. A code has 100 bits of chance, so
/// a plain hash is enough.
pub(crate) fn new_recovery_codes(chance: &dyn Chance) -> (Vec<SecretString>, Vec<RecoveryHash>) {
    let draw = || {
        let mut bytes = [0; RECOVERY_CHARS];
        chance.fill(&mut bytes);
        let mut text = String::new();
        for (place, byte) in bytes.iter().enumerate() {
            if place != 0 && place.is_multiple_of(RECOVERY_PART_CHARS) {
                text.push('-');
            }
            text.push(char::from(ALPHABET[usize::from(byte % 32)]));
        }
        text
    };
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| draw()).collect();
    let hashes = codes.iter().filter_map(|code| recovery_hash(code)).collect();
    (codes.into_iter().map(SecretString::from).collect(), hashes)
}

/// Reads the field for the second factor, as people write into it.
pub(crate) fn read(text: &str) -> Option<Written> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if compact.len() == 6 && compact.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Written::Code(compact.into()));
    }
    recovery_hash(&compact).map(Written::Recovery)
}

/// What is stored in place of a recovery code; hyphens, case and lookalikes make no difference.
fn recovery_hash(text: &str) -> Option<RecoveryHash> {
    let mut plain = String::with_capacity(RECOVERY_CHARS);
    for c in text.chars().filter(|c| *c != '-') {
        let c = match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        };
        if !c.is_ascii() || !ALPHABET.contains(&u8::try_from(c).ok()?) {
            return None;
        }
        plain.write_char(c).expect("a string takes all");
    }
    let is_whole = plain.len() == RECOVERY_CHARS;
    is_whole.then(|| RecoveryHash(Sha256::digest(format!("postern recovery {plain}")).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::SeededChance;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_ms(secs * 1_000).unwrap()
    }

    /// RFC 6238, appendix B: SHA-1 over the seed "12345678901234567890"; of its eight digits an
    /// authenticator shows the last six.
    const VECTORS: [(u64, &str); 6] = [
        (59, "94287082"),
        (1_111_111_109, "07081804"),
        (1_111_111_111, "14050471"),
        (1_234_567_890, "89005924"),
        (2_000_000_000, "69279037"),
        (20_000_000_000, "65353130"),
    ];

    #[test]
    fn codes_are_those_of_rfc_6238() {
        let seed: SecretSlice<u8> = b"12345678901234567890".to_vec().into();
        for (secs, code) in VECTORS {
            assert_eq!(step_of(&seed, &code[2..], at(secs)), Some(secs / 30), "{secs}");
        }
    }

    #[test]
    fn a_code_counts_one_step_early_and_one_late() {
        let seed: SecretSlice<u8> = b"12345678901234567890".to_vec().into();
        let found = |secs| step_of(&seed, "050471", at(secs));
        let begin = 1_111_111_111 / 30 * 30;

        for (secs, counts) in [
            (begin - 31, false),
            (begin - 30, true),
            (begin, true),
            (begin + 59, true),
            (begin + 60, false),
        ] {
            assert_eq!(found(secs).is_some(), counts, "{}", secs as i64 - begin as i64);
        }
        assert_eq!(step_of(&seed, "50471", at(begin)), None);
        assert_eq!(step_of(&seed, "", at(begin)), None);
    }

    #[test]
    fn a_recovery_code_is_read_however_it_is_written() {
        let (codes, hashes) = new_recovery_codes(&SeededChance::new(7));
        let code = codes[0].expose_secret();

        assert_eq!((codes.len(), hashes.len()), (10, 10));
        assert_eq!(code.len(), 23);
        for written in [code.to_owned(), code.to_lowercase(), code.replace('-', " ")] {
            let Some(Written::Recovery(hash)) = read(&written) else { panic!("{written}") };
            assert_eq!(hash, hashes[0]);
        }
        for wrong in ["", "12345", "1234567", "AAAAA-BBBBB-CCCCC", "AAAAA-BBBBB-CCCCC-DDDD!"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
        assert!(matches!(read(" 123 456 "), Some(Written::Code(_))));
    }

    #[test]
    fn the_url_holds_what_an_authenticator_needs() {
        let seed: SecretSlice<u8> = b"12345678901234567890".to_vec().into();
        let url = seed_url(&seed, "Acme: the org", "a@example.org");

        assert_eq!(
            url.expose_secret(),
            "otpauth://totp/Acme%20%20the%20org:a%40example.org\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Acme%20%20the%20org"
        );
        assert_eq!(seed_text(&seed).expose_secret(), "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ");
    }
}
