//! Times as text, as vendors write them; all in UTC.

/// Days from 1970-01-01 to a date of the Gregorian calendar. Method: years from March on, in eras of 400.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

fn parts(ms: u64) -> [i64; 7] {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX / 2);
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    [year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60, i64::try_from(ms % 1000).unwrap_or(0)]
}

/// As in `2015121212`, of the hour.
#[must_use]
pub fn hour(ms: u64) -> String {
    let [year, month, day, hour, ..] = parts(ms);
    format!("{year:04}{month:02}{day:02}{hour:02}")
}

/// As in `20151212T121212Z`.
#[must_use]
pub fn compact(ms: u64) -> String {
    let [year, month, day, hour, minute, second, _] = parts(ms);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// As in `2015-12-12T12:12:12.815Z`.
#[must_use]
pub fn iso_ms(ms: u64) -> String {
    let [year, month, day, hour, minute, second, rest] = parts(ms);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

/// Milliseconds since 1970 of a time as [`compact`] or [`iso_ms`] writes it; `None` if it is neither.
#[must_use]
pub fn parse_iso_ms(text: &str) -> Option<u64> {
    let (seconds, ms) = match text.len() {
        24 => {
            let (whole, rest) = text.split_once('.')?;
            let rest = rest.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            (format!("{}Z", whole.replace(['-', ':'], "")), rest.parse::<u64>().ok()?)
        }
        _ => (text.to_owned(), 0),
    };
    parse_compact(&seconds).map(|seconds| seconds * 1000 + ms)
}

/// Seconds since 1970 of a time as [`compact`] writes it; `None` if it is none.
#[must_use]
pub fn parse_compact(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    let days = days_from_civil(year, month, day);
    if year < 1970 || civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        for (ms, text, iso) in [
            (0, "19700101T000000Z", "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "20000229T000000Z", "2000-02-29T00:00:00.123Z"),
            (1_449_922_332_815, "20151212T121212Z", "2015-12-12T12:12:12.815Z"),
            (4_102_444_799_999, "20991231T235959Z", "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!((compact(ms), iso_ms(ms)), (text.to_owned(), iso.to_owned()));
            assert_eq!(parse_compact(text), Some(ms / 1000));
            assert_eq!((parse_iso_ms(text), parse_iso_ms(iso)), (Some(ms / 1000 * 1000), Some(ms)));
            assert_eq!(hour(ms), text.replace('T', "").chars().take(10).collect::<String>());
        }
        for none in ["", "20151212", "20151312T121212Z", "20150229T000000Z", "20151212T241212Z", "2015121éT12121Z"] {
            assert_eq!(parse_compact(none), None, "{none}");
            assert_eq!(parse_iso_ms(none), None, "{none}");
        }
        for none in ["2015-12-12T12:12:12.8x5Z", "2015-12-12T12:12:12.8151", "2015-12-12 12:12:12.815Z"] {
            assert_eq!(parse_iso_ms(none), None, "{none}");
        }
    }
}
