//! Times of the clock on the wall as text.

use std::time::{Duration, SystemTime};

const DAY: u64 = 86_400;

/// A time as RFC 3339 writes it, in UTC: `2026-11-30T20:35:07Z`. Times before 1970 count as 1970.
pub fn date_and_time(at: SystemTime) -> String {
    let (year, month, day) = date(seconds(at) / DAY);
    format!("{year:04}-{month:02}-{day:02}T{}", time(at))
}

/// As [`date_and_time`], to the millisecond: `2026-11-30T20:35:07.042Z`.
pub fn date_and_time_ms(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.subsec_millis());
    let whole = date_and_time(at);
    format!("{}.{ms:03}Z", whole.trim_end_matches('Z'))
}

/// The time of the day alone, in UTC: `20:35:07Z`.
pub fn time(at: SystemTime) -> String {
    let second = seconds(at) % DAY;
    let (hour, minute) = (second / 3600, second % 3600 / 60);
    format!("{hour:02}:{minute:02}:{:02}Z", second % 60)
}

/// The present time in ns since 1970.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// A time that is given in ns since 1970.
pub fn at_ns(ns: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)
}

fn seconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since: Duration| since.as_secs())
}

/// Year, month and day of a day, counted from 1 January 1970, in the Gregorian calendar.
fn date(day: u64) -> (u64, u64, u64) {
    // Counted from 1 March of the year 0, so that a leap day is the last of its year.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let january = u64::from(month >= 10);
    (era * 400 + year + january, (month + 2) % 12 + 1, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> String {
        date_and_time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn milliseconds_have_three_digits() {
        let at = |ms| date_and_time_ms(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(1_796_070_907_042), "2026-11-30T20:35:07.042Z");
        assert_eq!(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
    }

    #[test]
    fn days_and_leap_days_are_those_of_the_calendar() {
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(at(1_796_070_907), "2026-11-30T20:35:07Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
