//! How times are shown: in UTC, which the script turns into the reader's own.

use std::fmt;
use std::time::Duration;

use askama::filters::HtmlSafe;
use postern_shared::time::{Expiry, Timestamp};

use crate::page::minute;

/// A point in time.
pub(super) struct When(pub(super) Timestamp);

/// How long something lasts, in at most two units.
pub(super) struct Span(pub(super) Duration);

/// A point in time with how long it is until then, which the script counts down.
pub(super) struct Left {
    at: Timestamp,
    /// None where the script counts from the start.
    left: Option<Duration>,
}

impl Left {
    /// How long an expiry is away; none for what never ends.
    pub(super) fn until(expiry: Expiry, now: Timestamp) -> Option<Left> {
        let at = expiry.deadline()?;
        Some(Left { at, left: Some(at.since(now)) })
    }

    /// Leaves it to the script to say how long.
    pub(super) fn uncounted(self) -> Left {
        Left { left: None, ..self }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left { at, left } = self;
        write!(f, "{} <span class=\"left\" data-until=\"{at}\">", When(*at))?;
        if let Some(left) = left {
            Span(*left).fmt(f)?;
        }
        f.write_str("</span>")
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<time datetime=\"{}\">{}</time>", self.0, minute(self.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let (days, hours, mins) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
        match (days, hours, mins) {
            (0, 0, 0) => write!(f, "{secs} s"),
            (0, 0, mins) => two(f, (mins, "min"), (secs % 60, "s")),
            (0, hours, mins) => two(f, (hours, "h"), (mins, "min")),
            (days, hours, _) => two(f, (days, "d"), (hours, "h")),
        }
    }
}

/// Shows the second only where there is any of it.
fn two(f: &mut fmt::Formatter<'_>, large: (u64, &str), small: (u64, &str)) -> fmt::Result {
    write!(f, "{} {}", large.0, large.1)?;
    if small.0 == 0 { Ok(()) } else { write!(f, " {} {}", small.0, small.1) }
}

// What they write is digits and letters of ours.
impl HtmlSafe for When {}
impl HtmlSafe for Span {}
impl HtmlSafe for Left {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_two_units_at_most() {
        for (secs, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3_600, "1 h"),
            (7_380, "2 h 3 min"),
            (86_400, "1 d"),
            (93_599, "1 d 1 h"),
        ] {
            assert_eq!(Span(Duration::from_secs(secs)).to_string(), shown);
        }
    }
}
