//! Moments as they go over the wire.

use crate::service::Time;
use time::{
    OffsetDateTime, PrimitiveDateTime,
    format_description::well_known::{
        Iso8601, Rfc3339,
        iso8601::{Config, EncodedConfig, TimePrecision},
    },
};

/// ISO 8601 as RFC 3339 has it, with milliseconds always, so that equal lengths sort.
const WITH_MILLIS: EncodedConfig = Config::DEFAULT
    .set_time_precision(TimePrecision::Second { decimal_digits: std::num::NonZeroU8::new(3) })
    .encode();

/// A moment as in `2026-01-31T13:45:00.000Z`.
pub(super) fn time(time: Time) -> String {
    let nanos = i128::from(time.millis()) * 1_000_000;
    let last = PrimitiveDateTime::MAX.assume_utc();
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(last);
    moment.format(&Iso8601::<WITH_MILLIS>).expect("a year of four digits in UTC has this form")
}

/// Reads a moment: RFC 3339, or a date, which is its first moment in UTC.
pub(super) fn parse_time(text: &str) -> Option<Time> {
    let day = || OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339);
    let moment = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| day()).ok()?;
    // What is before 1970 is before all images.
    u64::try_from(moment.unix_timestamp_nanos().max(0) / 1_000_000).ok().map(Time::from_millis)
}
