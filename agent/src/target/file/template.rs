//! Forms of the operator's own: a header, a line for each entry, a footer.
//!
//! Header and footer are written as they are. In the line `{network}` stands for the network with its
//! prefix length, `{address}` for the same where a host has none, `{expires}` for the deadline as RFC
//! 3339 has it, or `never`, `{expires_unix}` for the same in whole seconds since 1970, for programs that
//! close by themselves; `never` is the last second that there is. A brace that is meant is written twice.

use postern_shared::format::flat;
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};

/// Longest header, line or footer.
const PART_BYTES_MAX: usize = 16 * 1024;

/// A form of the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// What the file begins with.
    pub header: String,
    /// What stands there of each entry.
    pub line: Line,
    /// What the file ends with.
    pub footer: String,
    /// What a line begins with that the program does not read; none where it reads every line.
    pub comment: Option<String>,
}

/// The line of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Network,
    Address,
    Expires,
    ExpiresUnix,
}

impl Template {
    /// Reads a header or a footer, whose last line may come without its end.
    pub fn block(text: &str) -> Result<String, String> {
        check(text)?;
        let is_open = !text.is_empty() && !text.ends_with('\n');
        Ok(if is_open { format!("{text}\n") } else { text.to_owned() })
    }

    /// Reads what a comment begins with.
    pub fn comment(text: &str) -> Result<String, String> {
        let is_good = !text.trim().is_empty() && !text.chars().any(char::is_control);
        if is_good { Ok(text.to_owned()) } else { Err(NO_COMMENT.to_owned()) }
    }

    /// Writes these entries.
    pub(super) fn write(&self, entries: impl Iterator<Item = (Network, Expiry)>) -> String {
        let mut text = self.header.clone();
        for (network, expiry) in entries {
            text.extend(self.line.0.iter().map(|part| part.write(network, expiry)));
            text.push('\n');
        }
        text + &self.footer
    }
}

const NO_COMMENT: &str = "begins no comment; write such as `#` or `//`, or leave it out where the \
    program knows none";

impl Line {
    /// Reads a line, or says what is wrong with it.
    pub fn read(text: &str) -> Result<Line, String> {
        check(text)?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.contains('\n') {
            return Err("is more than one line; what stands there once goes into `header` or \
                        `footer`"
                .to_owned());
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal += &rest[..at];
            let (brace, behind) = rest[at..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                literal += brace;
                rest = behind;
                continue;
            }
            let name = behind.split_once('}').filter(|_| brace == "{");
            let Some((name, behind)) = name else {
                return Err(format!(
                    "has a single `{brace}`; a brace that is meant is written twice"
                ));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(match name {
                "network" => Part::Network,
                "address" => Part::Address,
                "expires" => Part::Expires,
                "expires_unix" => Part::ExpiresUnix,
                other => {
                    return Err(format!(
                        "has `{{{other}}}`; there are {{network}}, {{address}}, {{expires}} and \
                         {{expires_unix}}"
                    ));
                }
            });
            rest = behind;
        }
        literal += rest;
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        if !parts.iter().any(|part| matches!(part, Part::Network | Part::Address)) {
            return Err("names no entry; write {network} or {address} where it belongs".to_owned());
        }
        Ok(Line(parts))
    }
}

impl Part {
    fn write(&self, network: Network, expiry: Expiry) -> String {
        match self {
            Part::Text(text) => text.clone(),
            Part::Network => network.to_string(),
            Part::Address => flat(network),
            Part::Expires => expiry.to_string(),
            Part::ExpiresUnix => {
                (expiry.deadline().unwrap_or(Timestamp::MAX).unix_ms() / 1000).to_string()
            }
        }
    }
}

fn check(text: &str) -> Result<(), String> {
    if PART_BYTES_MAX < text.len() {
        return Err(format!("is longer than {PART_BYTES_MAX} bytes"));
    }
    let strange = text.chars().find(|char| char.is_control() && !"\n\t".contains(*char));
    match strange {
        Some(char) => Err(format!("has the control character {char:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_its_parts_stand_for() {
        let line = Line::read("{{allow}} {network} {address};{expires} {expires_unix}").unwrap();
        let template = Template {
            header: Template::block("a {").unwrap(),
            line,
            footer: Template::block("}\n").unwrap(),
            comment: None,
        };
        let at = Expiry::At("2026-01-01T00:00:00Z".parse().unwrap());
        let entries = [
            ("198.51.100.7".parse().unwrap(), at),
            ("2001:db8::/64".parse().unwrap(), Expiry::Never),
        ];

        let written = template.write(entries.into_iter());

        assert_eq!(
            written,
            "a {\n\
             {allow} 198.51.100.7/32 198.51.100.7;2026-01-01T00:00:00Z 1767225600\n\
             {allow} 2001:db8::/64 2001:db8::/64;never 253402207199\n\
             }\n"
        );
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, word) in [
            ("", "names no entry"),
            ("{expires}", "names no entry"),
            ("{{network}}", "names no entry"),
            ("{network", "single `{`"),
            ("network} {address}", "single `}`"),
            ("{net}", "`{net}`"),
            ("{network}\n{address}", "more than one line"),
            ("{network}\u{7}", "control character"),
            (&"{network}".repeat(2_000), "longer than"),
        ] {
            let error = Line::read(line).unwrap_err();
            assert!(error.contains(word), "{line:?}: {error}");
        }
        for comment in ["", "  ", "#\n"] {
            Template::comment(comment).unwrap_err();
        }
    }
}
