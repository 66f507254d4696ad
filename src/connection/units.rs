//! The gateway's times in the unit that they should have. They are microseconds since 1970; nanoseconds, milliseconds and
//! seconds are mistakes that gateways make, and each is told from the others by the moment of receipt: read as what it is, a
//! time lies within a day of that, and read as microseconds decades away.
//!
//! Nanoseconds and milliseconds are put right. Seconds say too little: such a frame has no time of the gateway's. A steady
//! clock that counts from the start of a machine is neither, and is left to whoever sees the whole call.

use super::pauses::Stamp;
use crate::time::Wall;

/// No gateway's clock is farther off than this without being wrong in another way: a day, which is more than a time zone.
const OFF_MAX_US: i64 = 86_400_000_000;

impl Stamp {
    /// When something was received, with what the gateway says of it, in whatever unit.
    #[must_use]
    pub fn of(received: Wall, gateway: Option<Wall>) -> Self {
        Self { received, gateway: gateway.and_then(|told| micros(told, received)) }
    }
}

fn micros(told: Wall, received: Wall) -> Option<Wall> {
    if told > Wall::MAX {
        return Some(Wall(told.0 / 1000));
    }
    let is_near = |us: i64| us.saturating_sub(received.0).saturating_abs() <= OFF_MAX_US;
    let as_millis = told.0.saturating_mul(1000);
    if is_near(told.0) {
        Some(told)
    } else if is_near(as_millis) {
        Some(Wall(as_millis))
    } else if is_near(told.0.saturating_mul(1_000_000)) {
        None
    } else {
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_767_323_045_678_901);

    fn of(told: i64) -> Option<i64> {
        Some(Stamp::of(NOW, Some(Wall(told))).gateway?.0)
    }

    #[test]
    fn a_time_in_another_unit_is_put_right_or_left_out() {
        let (hour, sent) = (3_600_000_000, NOW.0 - 5000);
        assert_eq!(of(sent), Some(sent));
        assert_eq!(of(sent * 1000 + 7), Some(sent), "nanoseconds");
        assert_eq!(
            of((sent + 20 * hour) / 1000),
            Some((sent + 20 * hour) / 1000 * 1000),
            "milliseconds, an odd clock"
        );
        assert_eq!(of(sent / 1_000_000), None, "seconds");
        assert_eq!(Stamp::of(NOW, None).gateway, None);
    }

    #[test]
    fn clocks_that_are_off_or_count_from_elsewhere_are_left_as_they_are() {
        for told in
            [5, 5_000_000, 90 * 86_400_000_000, NOW.0 - 30_000 * 86_400_000_000, NOW.0 * 2, Wall::MAX.0]
        {
            assert_eq!(of(told), Some(told));
        }
    }
}
