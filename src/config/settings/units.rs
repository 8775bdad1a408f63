//! Sizes and durations as a person writes them: `64MiB`, `30s`.
//!
//! Settings are read with these, and whoever shows a setting prints it with these: what one prints,
//! the other reads.

use std::time::Duration;

/// Units of a size in bytes, each after those that it is a part of.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("", 1),
];

/// Units of a duration in milliseconds, likewise.
const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The bytes of `64MiB`, `100MB` or `4096`; none where the text is no size, or one above 64 bits.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// A number of bytes, in the largest unit that needs no fraction.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES)
}

/// The duration of `500ms`, `30s`, `5m`, `24h` or `7d`; none where the text is no duration. Unlike
/// a size it always has a unit.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// A duration in whole milliseconds, in the largest unit that needs no fraction.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn show(number: u64, units: &[(&str, u64)]) -> String {
    // The last unit is 1, so one is found for every number but 0, which takes the last as well.
    let fits = |(_, scale): &&(&str, u64)| number >= *scale && number.is_multiple_of(*scale);
    let (name, scale) = units.iter().find(fits).or(units.last()).copied().unwrap_or(("", 1));
    format!("{}{name}", number / scale)
}
