//! Secrets that people and machines carry: `po?_`, 30 base62 characters, 6 of checksum.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What a token is for; the third letter of its text says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TokenKind {
    /// `pok_`: an API key.
    Key,
    /// `pob_`: a bookmark, with which a pair reports.
    Bookmark,
    /// `pos_`: a server key, with which one host reads one pair.
    Server,
    /// `poe_`: an enrolment, with which an agent gets its credential once.
    Enrolment,
    /// `poa_`: an agent's credential.
    Agent,
    /// `pot_`: a ticket, the single-use secret of a link that invites a user or resets a password.
    Ticket,
    /// `pol_`: a login, one browser in which a user is signed in.
    Login,
}

/// A secret with its kind. The checksum was right; whether anybody knows the token is another
/// question.
///
/// Never shown: `Debug` prints the kind only, and the text is wiped from memory when dropped.
#[derive(Clone)]
pub struct Token {
    kind: TokenKind,
    text: SecretString,
}

/// The SHA-256 of a token's text: what is stored in its place.
///
/// The token has 178 bits of chance, so a plain hash is enough.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenHash([u8; 32]);

/// Why a text is not a token. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another length than 40 characters.
    #[error("a token has 40 characters; this has more or fewer (cut off when copied?)")]
    Length,
    /// No known kind in front.
    #[error("a token begins with pok_, pob_, pos_, poe_, poa_, pot_ or pol_")]
    Kind,
    /// The checksum is wrong or a character is not base62.
    #[error("the token is mistyped: its checksum does not match")]
    Checksum,
}

const SECRET_CHARS: usize = 30;
const CHECKSUM_CHARS: usize = 6;
const PREFIX_CHARS: usize = 4;
const TOKEN_CHARS: usize = PREFIX_CHARS + SECRET_CHARS + CHECKSUM_CHARS;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl TokenKind {
    const ALL: [TokenKind; 7] = [
        TokenKind::Key,
        TokenKind::Bookmark,
        TokenKind::Server,
        TokenKind::Enrolment,
        TokenKind::Agent,
        TokenKind::Ticket,
        TokenKind::Login,
    ];

    /// The first four characters of a token of this kind.
    pub const fn prefix(self) -> &'static str {
        match self {
            TokenKind::Key => "pok_",
            TokenKind::Bookmark => "pob_",
            TokenKind::Server => "pos_",
            TokenKind::Enrolment => "poe_",
            TokenKind::Agent => "poa_",
            TokenKind::Ticket => "pot_",
            TokenKind::Login => "pol_",
        }
    }
}

impl Token {
    /// Makes a new token. `fill` must fill the buffer from a cryptographic random source; it is
    /// called until enough bytes were usable.
    pub fn generate(kind: TokenKind, mut fill: impl FnMut(&mut [u8])) -> Token {
        // Bytes from here on would make the first letters likelier than the last.
        const FAIR_BYTES: u8 = 62 * 4;
        let mut text = String::with_capacity(TOKEN_CHARS);
        text.push_str(kind.prefix());
        while text.len() < PREFIX_CHARS + SECRET_CHARS {
            let mut bytes = [0u8; 64];
            fill(&mut bytes);
            let missing = PREFIX_CHARS + SECRET_CHARS - text.len();
            let fair = bytes.iter().filter(|byte| **byte < FAIR_BYTES).take(missing);
            text.extend(fair.map(|byte| char::from(BASE62[usize::from(byte % 62)])));
        }
        let checksum = checksum(&text).map(char::from);
        text.extend(checksum);
        Token { kind, text: SecretString::from(text) }
    }

    /// What the token is for.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// What is stored in the token's place.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.text.expose_secret().as_bytes()).into())
    }

    /// The secret text itself: for the one moment in which it is shown or sent.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token; a mistyped one is found by its checksum, without asking anybody.
    fn from_str(text: &str) -> Result<Token, TokenError> {
        if text.len() != TOKEN_CHARS || !text.is_ascii() {
            return Err(TokenError::Length);
        }
        let kind = TokenKind::ALL
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))
            .ok_or(TokenError::Kind)?;
        let (body, given) = text.split_at(PREFIX_CHARS + SECRET_CHARS);
        let is_base62 = body[PREFIX_CHARS..].bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_base62 || checksum(body) != given.as_bytes() {
            return Err(TokenError::Checksum);
        }
        Ok(Token { kind, text: SecretString::from(text) })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}…)", self.kind.prefix())
    }
}

impl TokenHash {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

/// CRC-32 (IEEE 802.3) of what stands in front of it, as six base62 digits.
fn checksum(body: &str) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A fixed sequence in place of chance; never for a real token.
    fn counting(seed: u8) -> impl FnMut(&mut [u8]) {
        let mut next = seed;
        move |buffer| {
            for byte in buffer {
                *byte = next;
                next = next.wrapping_mul(5).wrapping_add(113);
            }
        }
    }

    #[test]
    fn debug_shows_the_kind_and_nothing_of_the_secret() {
        let token = Token::generate(TokenKind::Bookmark, counting(1));

        assert_eq!(format!("{token:?}"), "Token(pob_…)");
    }

    #[test]
    fn one_changed_character_is_found() {
        let token = Token::generate(TokenKind::Key, counting(2));
        for place in 0..TOKEN_CHARS {
            let mut text = token.expose().to_owned().into_bytes();
            text[place] = if text[place] == b'x' { b'y' } else { b'x' };
            let text = String::from_utf8(text).unwrap();

            text.parse::<Token>().expect_err("a changed character");
        }
    }

    #[test]
    fn truncated_and_foreign_texts_are_refused() {
        let text = Token::generate(TokenKind::Agent, counting(3)).expose().to_owned();

        assert_eq!(text[..39].parse::<Token>().unwrap_err(), TokenError::Length);
        assert_eq!("".parse::<Token>().unwrap_err(), TokenError::Length);
        assert_eq!(text.replace("poa_", "ipa_").parse::<Token>().unwrap_err(), TokenError::Kind);
        "é".repeat(20).parse::<Token>().expect_err("not ascii");
    }

    proptest! {
        #[test]
        fn what_is_generated_reads_back_the_same(seed: u8, kind in 0usize..7) {
            let token = Token::generate(TokenKind::ALL[kind], counting(seed));
            let read: Token = token.expose().parse().unwrap();

            prop_assert_eq!(read.kind(), token.kind());
            prop_assert_eq!(read.hash(), token.hash());
            prop_assert_eq!(token.expose().len(), TOKEN_CHARS);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            drop(text.parse::<Token>());
        }
    }
}
