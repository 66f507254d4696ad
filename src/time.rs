//! Instants and durations, each with its unit in its type.
//!
//! No function here reads a clock: the shell does that once for each batch of frames and hands the result down
//! as an argument. So the whole core runs in a test with a clock of the test's own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant on the daemon's own steady clock: microseconds since the process started. It never steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The instant `duration` later, or the last representable one.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// How long after `earlier` this instant is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// An instant on a wall clock: microseconds since the Unix epoch, UTC. Clocks of two machines may disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);

impl Wall {
    /// The last instant that has a four-digit year, 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Reads a timestamp off the wire. Zero means "none"; so does what lies beyond the year 9999.
    #[must_use]
    pub fn from_wire(micros: u64) -> Option<Self> {
        let wall = Self(i64::try_from(micros).ok()?);
        (wall.0 != 0 && wall <= Self::MAX).then_some(wall)
    }

    /// Reads a gateway's timestamp off the wire, which may count in another unit than it should.
    #[must_use]
    pub fn stamp_from_wire(told: u64) -> Option<Self> {
        i64::try_from(told).ok().filter(|told| *told != 0).map(Self)
    }

    /// The instant as RFC 3339 in UTC with six decimals, as manifests and tags carry it.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        format!("{:.6}", self.timestamp())
    }

    /// The UTC calendar fields that an object key may name: year, month, day, hour, minute, second.
    #[must_use]
    pub fn civil(self) -> (i16, i8, i8, i8, i8, i8) {
        let utc = jiff::tz::Offset::UTC.to_datetime(self.timestamp());
        (utc.year(), utc.month(), utc.day(), utc.hour(), utc.minute(), utc.second())
    }

    /// This instant plus a signed number of microseconds, saturating.
    #[must_use]
    pub fn plus_us(self, us: i64) -> Self {
        Self(self.0.saturating_add(us))
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0.clamp(0, Self::MAX.0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }
}

/// A position or length on the recording's timeline: samples at 48 kHz, the one clock of Ogg Opus (RFC 7845).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Samples48k(pub i64);

impl Samples48k {
    /// Whole samples in `duration`, rounded down.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        let samples = duration.as_micros().saturating_mul(48) / 1000;
        Self(i64::try_from(samples).unwrap_or(i64::MAX))
    }

    /// The nearest sample to a signed number of microseconds.
    #[must_use]
    pub fn from_us(us: i64) -> Self {
        let samples = (i128::from(us) * 48 + 500).div_euclid(1000);
        Self(i64::try_from(samples).unwrap_or(if us < 0 { i64::MIN } else { i64::MAX }))
    }

    /// The length in microseconds, rounded down.
    #[must_use]
    pub fn to_us(self) -> i64 {
        i64::try_from(i128::from(self.0) * 1000 / 48).unwrap_or(i64::MAX)
    }

    /// The length in whole milliseconds, rounded to the nearest; a negative one counts as zero.
    #[must_use]
    pub fn to_ms(self) -> u64 {
        u64::try_from((self.0.max(0) + 24) / 48).unwrap_or(0)
    }
}

/// Whole microseconds in `duration`, saturating.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_prints_with_six_decimals_even_when_they_are_zero() {
        assert_eq!(Wall(1_767_323_045_678_901).to_rfc3339(), "2026-01-02T03:04:05.678901Z");
        assert_eq!(Wall(1_767_323_045_000_000).to_rfc3339(), "2026-01-02T03:04:05.000000Z");
        assert_eq!(Wall(1_767_323_045_000_000).civil(), (2026, 1, 2, 3, 4, 5));
    }

    #[test]
    fn a_timestamp_of_zero_or_beyond_the_year_9999_is_none() {
        assert_eq!(Wall::from_wire(0), None);
        assert_eq!(Wall::from_wire(u64::MAX), None);
        assert_eq!(Wall::from_wire(253_402_300_800_000_000), None);
        assert_eq!(Wall::from_wire(5), Some(Wall(5)));
        let nanos = 1_767_323_045_678_901_000;
        assert_eq!(Wall::stamp_from_wire(nanos).map(|wall| wall.0), i64::try_from(nanos).ok());
        assert_eq!([0, u64::MAX].map(Wall::stamp_from_wire), [None; 2]);
    }

    #[test]
    fn samples_round_to_the_nearest_on_both_sides_of_zero() {
        assert_eq!(Samples48k::from_us(20_000), Samples48k(960));
        assert_eq!(Samples48k::from_us(-20_000), Samples48k(-960));
        assert_eq!(Samples48k::from_us(i64::MAX).to_us(), i64::MAX);
        assert_eq!(Samples48k(960).to_ms(), 20);
        assert_eq!(Samples48k(-960).to_ms(), 0);
    }
}
