//! A value as the operator gave it, and what it can be read as.
//!
//! Every reading says what would be accepted where it fails; whoever calls it knows the key, the
//! value and where it stands.

use super::units::{parse_duration, parse_size, show_duration, show_size};
use std::{net::SocketAddr, time::Duration};
use toml::de::DeValue;

/// The value of one key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    /// Of the file, which tells a number from a text.
    Value(&'a DeValue<'a>),
    /// Of a variable, which does not.
    Bare(&'a str),
}

/// What was read, or what would have been accepted.
pub(super) type Read<T> = Result<T, String>;

impl Given<'_> {
    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Bare(text) => Some(text),
            Self::Value(value) => value.as_str(),
        }
    }

    fn as_number(&self) -> Option<u64> {
        match self {
            Self::Bare(text) => text.parse().ok(),
            Self::Value(value) => {
                let number = value.as_integer()?;
                u64::from_str_radix(number.as_str(), number.radix()).ok()
            }
        }
    }

    fn as_texts(&self) -> Option<Vec<String>> {
        let texts = |value: &DeValue<'_>| {
            let items = value.as_array()?.iter();
            items.map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
        };
        match self {
            // A JSON array of names is a TOML array as well.
            Self::Bare(text) => texts(DeValue::parse(text).ok()?.get_ref()),
            Self::Value(value) => texts(value),
        }
    }

    /// A whole number.
    pub(super) fn number<T: TryFrom<u64>>(self, least: u64, most: u64) -> Read<T> {
        let number = self.as_number().filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("a whole number from {least} to {most}"))
    }

    /// A number of bytes. There is no upper limit where `most` is the largest number.
    pub(super) fn size(self, least: u64, most: u64) -> Read<u64> {
        let size = self.as_number().or_else(|| parse_size(self.as_text()?));
        size.filter(|size| (least..=most).contains(size)).ok_or_else(|| {
            let range = match (show_size(least), most) {
                (least, u64::MAX) => format!("of at least {least}"),
                (least, most) => format!("from {least} to {}", show_size(most)),
            };
            format!("a size such as \"64MiB\", {range}")
        })
    }

    /// A number of bytes, or none where the server chooses.
    pub(super) fn size_or_auto(self, least: u64) -> Read<Option<u64>> {
        if self.as_text() == Some("auto") {
            return Ok(None);
        }
        self.size(least, u64::MAX).map(Some).map_err(|size| format!("\"auto\" or {size}"))
    }

    /// A duration; the limits are in its own notation.
    pub(super) fn duration(self, least: Duration, most: Duration) -> Read<Duration> {
        let duration = self.as_text().and_then(parse_duration);
        duration.filter(|duration| (least..=most).contains(duration)).ok_or_else(|| {
            let range = match least {
                Duration::ZERO => format!("of at most {}", show_duration(most)),
                least => format!("from {} to {}", show_duration(least), show_duration(most)),
            };
            format!("a duration such as \"30s\", {range}")
        })
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(self, words: &[(&str, T)]) -> Read<T> {
        let text = self.as_text();
        let found = words.iter().find(|(word, _)| Some(*word) == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("one of {}", words.join(", "))
        })
    }

    /// A text without control characters that is `allowed`, all of which `expected` says in words.
    pub(super) fn text(self, allowed: fn(&str) -> bool, expected: &str) -> Read<String> {
        let text = self.as_text().filter(|text| !text.contains(char::is_control) && allowed(text));
        text.map(str::to_owned).ok_or_else(|| expected.to_owned())
    }

    /// A text, or an array of texts, that are `allowed` together, all of which `expected` says.
    pub(super) fn one_or_more(
        self,
        allowed: fn(&[String]) -> bool,
        expected: &str,
    ) -> Read<Vec<String>> {
        let one = || Some(vec![self.as_text()?.to_owned()]);
        // An array in a variable is a text as well.
        let texts = self.as_texts().or_else(one).filter(|texts| allowed(texts));
        texts.ok_or_else(|| expected.to_owned())
    }

    /// An address of this machine alone.
    pub(super) fn loopback(self) -> Read<SocketAddr> {
        let address: Option<SocketAddr> = self.as_text().and_then(|text| text.parse().ok());
        let address = address.ok_or("an IP address and a port, such as \"127.0.0.1:8484\"")?;
        address.ip().is_loopback().then_some(address).ok_or_else(|| {
            let expected = "a loopback address such as \"127.0.0.1:8484\", because there are no \
                            accounts yet and everyone who reached the server could use it";
            expected.to_owned()
        })
    }

    /// Names of hosts, in lower case.
    pub(super) fn hosts(self) -> Read<Vec<String>> {
        let expected = "an array of host names without port, such as [\"pictures.example\"]";
        self.names(is_host).ok_or_else(|| expected.to_owned())
    }

    /// Names of hosts, each with a port or without, in lower case.
    pub(super) fn targets(self) -> Read<Vec<String>> {
        let expected = "an array of host names with or without port, such as \
                        [\"hooks.example\", \"hooks.example:8443\"]";
        self.names(is_target).ok_or_else(|| expected.to_owned())
    }

    fn names(self, allowed: fn(&str) -> bool) -> Option<Vec<String>> {
        let names = self.as_texts()?.into_iter().map(|name| name.to_ascii_lowercase());
        let names: Vec<String> = names.collect();
        names.iter().all(|name| allowed(name)).then_some(names)
    }
}

fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    text.len() <= 253 && text.split('.').all(label)
}

fn is_target(text: &str) -> bool {
    let Some((host, port)) = text.split_once(':') else { return is_host(text) };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    is_host(host) && digits && port.parse::<u16>().is_ok_and(|port| port != 0)
}
