//! Moments as people write them: RFC 3339 in UTC, or seconds since 1970.

use std::time::Duration;

/// A moment in milliseconds since 1970 as RFC 3339.
///
/// The civil calendar is computed by eras of 400 years, which have 146,097 days each.
pub(crate) fn rfc3339(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days since the 1st of March of the year 0, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A moment since 1970 as RFC 3339 with microseconds.
pub(crate) fn rfc3339_with_micros(since_1970: Duration) -> String {
    let mut text = rfc3339(since_1970.as_secs().saturating_mul(1000));
    text.truncate(text.len().saturating_sub(1));
    format!("{text}.{:06}Z", since_1970.subsec_micros())
}

/// A moment that was typed, in milliseconds since 1970; `None` when it is none.
pub(crate) fn parse(text: &str) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u64>().ok()?.checked_mul(1000);
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let (clock, offset) = match time.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let at = time.rfind(['+', '-'])?;
            let (clock, offset) = time.split_at_checked(at)?;
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let seconds = i64::try_from(number(hours, 2)? * 3600 + number(minutes, 2)? * 60).ok()?;
            (clock, if offset.starts_with('-') { -seconds } else { seconds })
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':');
    let (hour, minute, second) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468;
    let seconds = i64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()? - offset;
    u64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(millis)
}

fn number(digits: &str, length: usize) -> Option<u64> {
    (digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments_are_written_and_read() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_500_000, "2026-11-24T06:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1000), text);
            assert_eq!(parse(text), Some(seconds * 1000));
            assert_eq!(parse(&seconds.to_string()), Some(seconds * 1000));
        }
        assert_eq!(parse("2026-11-24T08:00:00+02:00"), Some(1_795_500_000_000));
        assert_eq!(parse("2026-11-24 06:00:00.25Z"), Some(1_795_500_000_250));
        for wrong in
            ["", "yesterday", "2026-02-29T00:00:00Z", "2026-11-24", "2026-11-24T08:00:00", "2026-13-01T00:00:00Z"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0_u64..253_402_300_800) {
            prop_assert_eq!(parse(&rfc3339(seconds * 1000)), Some(seconds * 1000));
        }

        #[test]
        fn nothing_that_is_typed_is_a_panic(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
