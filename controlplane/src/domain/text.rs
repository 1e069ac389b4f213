//! Names that people give, and their mail addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name or note: 1 to 100 characters, no control and no invisible direction characters, no
/// space at either end. Shown in consoles, logs and mails, so nothing in it may act there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// A mail address: one `@`, something on either side, 254 characters at most (RFC 5321).
/// Whether it receives mail is for the mail server to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

/// Why a text is not a name or a mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Empty, or nothing but spaces.
    #[error("must not be empty")]
    Empty,
    /// Longer than allowed.
    #[error("has more than {max} characters")]
    TooLong {
        /// The most characters allowed.
        max: usize,
    },
    /// A character that may not be shown.
    #[error("must not contain the character U+{code:04X}")]
    Character {
        /// The character.
        code: u32,
    },
    /// Not a mail address.
    #[error("is not a mail address; write name@example.org")]
    NotAnAddress,
}

const LABEL_CHARS_MAX: usize = 100;
const EMAIL_CHARS_MAX: usize = 254;

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Email {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Label, TextError> {
        let text = text.trim();
        check(text, LABEL_CHARS_MAX)?;
        Ok(Label(text.to_owned()))
    }
}

impl FromStr for Email {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Email, TextError> {
        check(text, EMAIL_CHARS_MAX)?;
        let Some((local, domain)) = text.rsplit_once('@') else {
            return Err(TextError::NotAnAddress);
        };
        let is_bad = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | ',' | ';' | '@');
        if local.is_empty() || domain.is_empty() || text.replacen('@', "", 1).contains(is_bad) {
            return Err(TextError::NotAnAddress);
        }
        Ok(Email(text.to_owned()))
    }
}

fn check(text: &str, max: usize) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if max < text.chars().count() {
        return Err(TextError::TooLong { max });
    }
    match text.chars().find(|c| acts(*c)) {
        Some(c) => Err(TextError::Character { code: u32::from(c) }),
        None => Ok(()),
    }
}

/// Says whether a character does something where it is shown: control characters, line ends and
/// the marks that turn the direction of writing or join nothing.
pub(crate) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

macro_rules! text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<$name, TextError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(Label);
text!(Email);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_act_where_they_are_shown_are_refused() {
        for text in ["", "   ", "a\nb", "a\u{1b}[2J", "a\u{202e}b", "\u{feff}a", &"x".repeat(101)] {
            text.parse::<Label>().expect_err(text);
        }
    }

    #[test]
    fn names_of_the_world_are_names() {
        for text in ["ops-vps-1", "Zoë’s laptop", "サーバー", "a"] {
            assert_eq!(text.parse::<Label>().unwrap().as_str(), text);
        }
        assert_eq!(" padded ".parse::<Label>().unwrap().as_str(), "padded");
    }

    #[test]
    fn mail_addresses_are_told_from_other_texts() {
        for text in ["a@b", "ops+pager@example.org"] {
            text.parse::<Email>().expect(text);
        }
        for text in ["", "a", "@b", "a@", "a b@c", "a@b@c", "a@b,c@d", "A <a@b>"] {
            text.parse::<Email>().expect_err(text);
        }
    }
}
