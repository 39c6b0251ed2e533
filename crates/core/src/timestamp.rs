//! An instant on the wall clock. Both store engines, the wire format and the verdict use the same
//! unit, so they compare the same number.

use std::{fmt, time::Duration};

use time::{
    Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description,
};

const MICROS_PER_SECOND: i64 = 1_000_000;
/// 0001-01-01T00:00:00Z, the first instant of `google.protobuf.Timestamp`.
const MIN: i64 = -62_135_596_800 * MICROS_PER_SECOND;
/// 9999-12-31T23:59:59.999999Z, the last instant of `google.protobuf.Timestamp` in whole
/// microseconds.
const MAX: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// An instant in microseconds since the Unix epoch, within the years 0001 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch, 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// Returns the instant `micros` microseconds after the Unix epoch. Returns `None` outside the
    /// years 0001 to 9999.
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        (MIN..=MAX).contains(&micros).then_some(Self(micros))
    }

    /// Returns the instant of a `google.protobuf.Timestamp`, truncated to microseconds. Returns
    /// `None` if the nanoseconds are not within 0 to 999,999,999, or the year is not within 0001 to
    /// 9999.
    #[must_use]
    pub fn from_parts(seconds: i64, nanos: i32) -> Option<Self> {
        if !(0..1_000_000_000).contains(&nanos) {
            return None;
        }
        let micros = seconds.checked_mul(MICROS_PER_SECOND)?;
        Self::from_micros(micros.checked_add(i64::from(nanos / 1000))?)
    }

    /// Returns the start (00:00:00 UTC) of a date in the form `YYYY-MM-DD` (R7). Returns `None` for
    /// any other text.
    #[must_use]
    pub fn start_of_date(date: &str) -> Option<Self> {
        // The parser also accepts years with a sign or with more than four digits, but the contract
        // does not.
        if date.len() != 10 || !date.as_bytes()[0].is_ascii_digit() {
            return None;
        }
        let date = Date::parse(date, format_description!("[year]-[month]-[day]")).ok()?;
        Self::from_parts(date.midnight().assume_utc().unix_timestamp(), 0)
    }

    /// Parses an RFC 3339 text such as `2026-12-31T12:00:00Z`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        Self::from_parts(
            instant.unix_timestamp(),
            i32::try_from(instant.nanosecond()).ok()?,
        )
    }

    /// Returns the microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the whole seconds since the Unix epoch, rounded towards the past.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// Returns the part of the instant beyond [`Self::seconds`], in nanoseconds from 0 to
    /// 999,999,000.
    #[must_use]
    pub fn nanos(self) -> i32 {
        i32::try_from(self.0.rem_euclid(MICROS_PER_SECOND) * 1000).unwrap_or_default()
    }

    /// Returns the milliseconds since the Unix epoch, for a UUIDv7. Returns 0 for an instant before
    /// the epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or_default()
    }

    /// Returns the time from `earlier` to this instant. Returns zero if this instant is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }

    /// Returns the instant that is `length` later, or the last instant that can be represented.
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros).min(MAX))
    }

    /// Returns the instant that is `length` earlier, or the first instant that can be represented.
    #[must_use]
    pub fn minus(self, length: Duration) -> Self {
        let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros).max(MIN))
    }

    /// Returns the start of the minute that contains this instant.
    #[must_use]
    pub fn minute(self) -> Self {
        Self(self.0.div_euclid(60 * MICROS_PER_SECOND) * 60 * MICROS_PER_SECOND)
    }
}

impl fmt::Display for Timestamp {
    /// Formats the instant as RFC 3339 in UTC, for people and the audit log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000)
            .ok()
            .and_then(|instant| instant.format(&Rfc3339).ok());
        f.write_str(instant.as_deref().unwrap_or("(out of range)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_first_instant_in_utc() {
        let at = Timestamp::start_of_date("2026-12-31").unwrap();
        assert_eq!(at.to_string(), "2026-12-31T00:00:00Z");
    }

    #[test]
    fn what_is_not_a_date_is_refused() {
        for text in [
            "",
            "2026-2-1",
            "2026-02-30",
            "26-02-01",
            "+2026-02-1",
            "2026-02-01T",
            "2026/02/01",
            "٢٠٢٦-٠٢",
        ] {
            assert_eq!(Timestamp::start_of_date(text), None, "{text}");
        }
    }

    #[test]
    fn parts_round_trip_before_and_after_the_epoch() {
        for (seconds, nanos) in [
            (0, 0),
            (-1, 999_999_000),
            (253_402_300_799, 999_999_000),
            (-62_135_596_800, 0),
        ] {
            let at = Timestamp::from_parts(seconds, nanos).unwrap();
            assert_eq!((at.seconds(), at.nanos()), (seconds, nanos));
        }
    }

    #[test]
    fn what_is_before_the_first_instant_is_the_first_instant() {
        let at = Timestamp::EPOCH.minus(Duration::from_secs(1));
        assert_eq!(at.seconds(), -1);
        for length in [Duration::from_secs(u64::MAX), Duration::MAX] {
            assert_eq!(at.minus(length).as_micros(), MIN);
        }
    }

    #[test]
    fn instants_outside_the_contract_are_refused() {
        for (seconds, nanos) in [
            (253_402_300_800, 0),
            (-62_135_596_801, 0),
            (0, -1),
            (0, 1_000_000_000),
            (i64::MAX, 0),
        ] {
            assert_eq!(Timestamp::from_parts(seconds, nanos), None);
        }
    }
}
