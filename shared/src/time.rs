//! Points in time, spans of time and deadlines, all with checked arithmetic.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: milliseconds since the Unix epoch, UTC.
///
/// Shown and read as RFC 3339. Between 1970 and 9999, so that every value can be written
/// down.
///
/// Kept as one millisecond more, which is never zero: so an [`Expiry`] takes no more room than a
/// time, in lists that an agent holds several times over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64);

/// How long an address stays allowed after its last report; whole seconds, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Ttl(u64);

/// When an entry stops being allowed. Ordered: any deadline is before `Never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Option<Timestamp>", into = "Option<Timestamp>")]
pub enum Expiry {
    /// Allowed before this instant, closed at it and after it.
    At(Timestamp),
    /// Allowed until somebody takes it away; agents hold it as a lease.
    Never,
}

/// Why a text or number is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not RFC 3339.
    #[error("`{0}` is not a time; write RFC 3339 in UTC, such as 2026-01-31T12:00:00Z")]
    NotRfc3339(String),
    /// Before 1970 or after 9999.
    #[error("the time lies outside 1970-01-01 to 9999-12-30")]
    OutOfRange,
    /// A span of zero or more than [`Ttl::SECS_MAX`] seconds.
    #[error("a lifetime of {0} seconds is outside 1 to {max}", max = Ttl::SECS_MAX)]
    Ttl(u64),
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp::new(0);
    /// 9999-12-30T21:59:59.999Z: in every time zone this is still a year of four digits.
    pub const MAX: Timestamp = Timestamp::new(253_402_207_199_999);

    /// Makes a time from milliseconds since the Unix epoch.
    pub fn from_unix_ms(ms: u64) -> Result<Timestamp, TimeError> {
        if ms <= Self::MAX.unix_ms() { Ok(Timestamp::new(ms)) } else { Err(TimeError::OutOfRange) }
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0.get() - 1
    }

    /// The time `span` later; stops at [`Timestamp::MAX`].
    pub fn saturating_add(self, span: Duration) -> Timestamp {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Timestamp::new(self.unix_ms().saturating_add(ms).min(Self::MAX.unix_ms()))
    }

    /// The time `span` earlier; stops at [`Timestamp::EPOCH`].
    pub fn saturating_sub(self, span: Duration) -> Timestamp {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Timestamp::new(self.unix_ms().saturating_sub(ms))
    }

    /// The span from `earlier` to `self`; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.unix_ms().saturating_sub(earlier.unix_ms()))
    }

    /// Makes a time of milliseconds that the caller has held to the range.
    const fn new(ms: u64) -> Timestamp {
        match NonZeroU64::new(ms + 1) {
            Some(after) => Timestamp(after),
            None => panic!("the range of times ends long before"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.unix_ms()).expect("the type ends in the year 9999");
        let time = jiff::Timestamp::from_millisecond(ms).expect("the type ends in the year 9999");
        if ms % 1000 == 0 { write!(f, "{time:.0}") } else { write!(f, "{time:.3}") }
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Timestamp, TimeError> {
        let time: jiff::Timestamp =
            text.parse().map_err(|_| TimeError::NotRfc3339(text.to_owned()))?;
        let ms = u64::try_from(time.as_millisecond()).map_err(|_| TimeError::OutOfRange)?;
        Timestamp::from_unix_ms(ms)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.unix_ms())
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        use serde::de::Error;
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            Timestamp::from_unix_ms(u64::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

impl Ttl {
    /// Ten years. Longer than any lease of an address, short enough to add to any time.
    pub const SECS_MAX: u64 = 10 * 365 * 86_400;
    /// 24 hours: a pair's address goes stale this long after its last report by default.
    pub const DEFAULT: Ttl = Ttl(86_400);

    /// Makes a lifetime; zero and more than [`Ttl::SECS_MAX`] are refused.
    pub const fn from_secs(secs: u64) -> Result<Ttl, TimeError> {
        if secs == 0 || secs > Self::SECS_MAX { Err(TimeError::Ttl(secs)) } else { Ok(Ttl(secs)) }
    }

    /// The lifetime in seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// The lifetime as a span.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl TryFrom<u64> for Ttl {
    type Error = TimeError;

    fn try_from(secs: u64) -> Result<Ttl, TimeError> {
        Ttl::from_secs(secs)
    }
}

impl From<Ttl> for u64 {
    fn from(ttl: Ttl) -> u64 {
        ttl.0
    }
}

impl Expiry {
    /// Says whether an entry with this expiry is allowed at `now`.
    pub fn is_live_at(self, now: Timestamp) -> bool {
        Expiry::At(now) < self
    }

    /// The deadline, if there is one.
    pub fn deadline(self) -> Option<Timestamp> {
        match self {
            Expiry::At(at) => Some(at),
            Expiry::Never => None,
        }
    }

    /// The time left at `now`; zero when expired, `None` when there is no deadline.
    pub fn left_at(self, now: Timestamp) -> Option<Duration> {
        self.deadline().map(|at| at.since(now))
    }
}

impl From<Option<Timestamp>> for Expiry {
    fn from(deadline: Option<Timestamp>) -> Expiry {
        deadline.map_or(Expiry::Never, Expiry::At)
    }
}

impl From<Expiry> for Option<Timestamp> {
    fn from(expiry: Expiry) -> Option<Timestamp> {
        expiry.deadline()
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expiry::At(at) => at.fmt(f),
            Expiry::Never => f.write_str("never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shown_as_rfc_3339_with_milliseconds_only_where_there_are_any() {
        assert_eq!(Timestamp::new(1_700_000_000_000).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(Timestamp::new(1_700_000_000_050).to_string(), "2023-11-14T22:13:20.050Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-30T21:59:59.999Z");
    }

    #[test]
    fn offsets_are_read_and_turned_into_utc() {
        let read: Timestamp = "2026-06-01T14:34:56+02:00".parse().unwrap();

        assert_eq!(read.to_string(), "2026-06-01T12:34:56Z");
    }

    #[test]
    fn times_that_cannot_be_are_refused() {
        for text in ["", "yesterday", "2026-02-30T00:00:00Z", "2026-01-01", "1969-12-31T23:59:59Z"]
        {
            text.parse::<Timestamp>().expect_err(text);
        }
        assert_eq!(Timestamp::from_unix_ms(u64::MAX), Err(TimeError::OutOfRange));
    }

    #[test]
    fn a_lifetime_of_nothing_and_of_for_ever_is_refused() {
        assert_eq!(Ttl::from_secs(0), Err(TimeError::Ttl(0)));
        assert_eq!(Ttl::from_secs(Ttl::SECS_MAX + 1), Err(TimeError::Ttl(Ttl::SECS_MAX + 1)));
    }

    #[test]
    fn an_entry_is_closed_at_its_deadline() {
        let at = Timestamp::new(1_000);

        assert!(Expiry::At(at).is_live_at(Timestamp::new(999)));
        assert!(!Expiry::At(at).is_live_at(at));
        assert!(Expiry::Never.is_live_at(Timestamp::MAX));
    }

    #[test]
    fn an_expiry_is_no_larger_than_a_time() {
        assert_eq!(size_of::<Expiry>(), size_of::<u64>());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(ms in 0..=Timestamp::MAX.unix_ms()) {
            let time = Timestamp::new(ms);

            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }

        #[test]
        fn adding_never_leaves_the_range(ms in 0..=Timestamp::MAX.unix_ms(), span: u64) {
            let later = Timestamp::new(ms).saturating_add(Duration::from_secs(span));

            prop_assert!(Timestamp::new(ms) <= later && later <= Timestamp::MAX);
        }
    }
}
