//! The table of keys: what each is called, what it may be, and where it goes.
//!
//! A key that is not here is not known, in the file as in a variable. Two keys whose values must
//! fit together are checked by [`Settings::load`], which knows both.

use super::{
    Blobs, Settings, TlsMode,
    given::{Given, Read},
};
use std::{collections::BTreeSet, time::Duration};

/// A key's dotted name, and what reads a value and puts it into its place.
pub(super) type Key = (&'static str, fn(&mut Settings, Given<'_>) -> Read<()>);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What a certificate's or a key's file may be, each for itself.
const PEM: &str = "the path of a PEM file, without control characters";

/// The most engines of a server.
const DEVICES: usize = 16;

/// How far from a known key a name may be to pass for a slip of the hand, in letters.
const SLIP: usize = 3;

/// Every key, in the order of config.toml.
const KEYS: &[Key] = &[
    ("server.bind", |s, v| v.loopback().map(|a| s.server.bind = a)),
    ("server.max_body", |s, v| v.size(KIB, GIB).map(|n| s.server.max_body = n)),
    ("server.max_connections", |s, v| v.number(1, 100_000).map(|n| s.server.max_connections = n)),
    ("server.header_timeout", |s, v| v.duration(TENTH, HOUR).map(|d| s.server.header_timeout = d)),
    ("server.idle_timeout", |s, v| v.duration(TENTH, HOUR).map(|d| s.server.idle_timeout = d)),
    ("server.drain", |s, v| v.duration(Duration::ZERO, HOUR).map(|d| s.server.drain = d)),
    ("server.hosts", |s, v| v.hosts().map(|hosts| s.server.hosts = hosts)),
    ("server.tls.mode", |s, v| {
        let modes = [
            ("off", TlsMode::Off),
            ("self-signed", TlsMode::SelfSigned),
            ("files", TlsMode::Files),
        ];
        v.word(&modes).map(|mode| s.server.tls.mode = mode)
    }),
    ("server.tls.certificate", |s, v| {
        v.text(any, PEM).map(|path| s.server.tls.certificate = path.into())
    }),
    ("server.tls.key", |s, v| v.text(any, PEM).map(|path| s.server.tls.key = path.into())),
    ("store.path", |s, v| {
        let expected = "the path of a folder, not empty and without control characters";
        v.text(some, expected).map(|path| s.store.path = path.into())
    }),
    ("store.blobs", |s, v| {
        let blobs = [("files", Blobs::Files), ("sled", Blobs::Sled)];
        v.word(&blobs).map(|blobs| s.store.blobs = blobs)
    }),
    ("model.name", |s, v| {
        let expected = "a model's name or folder, not empty and without control characters";
        v.text(some, expected).map(|name| s.model.name = name)
    }),
    ("model.device", |s, v| {
        let expected =
            r#""auto", "cpu", "cuda:N" or "metal", or an array of "cpu" or of different "cuda:N""#;
        v.one_or_more(are_devices, expected).map(|devices| s.model.devices = devices)
    }),
    ("model.dtype", |s, v| {
        let types = ["auto", "f32", "bf16", "f16", "int8"].map(|name| (name, name));
        v.word(&types).map(|dtype| dtype.clone_into(&mut s.model.dtype))
    }),
    ("memory.budget", |s, v| v.size_or_auto(MIB).map(|n| s.memory.budget = n)),
    ("scheduler.jobs", |s, v| v.number(1, 64).map(|n| s.scheduler.jobs = n)),
    ("scheduler.jobs_per_user", |s, v| v.number(1, 64).map(|n| s.scheduler.jobs_per_user = n)),
    ("scheduler.tokens", |s, v| v.number(256, 1_048_576).map(|n| s.scheduler.tokens = n)),
    ("scheduler.memory", |s, v| v.size_or_auto(MIB).map(|n| s.scheduler.memory = n)),
    ("scheduler.queue", |s, v| v.number(1, 10_000).map(|n| s.scheduler.queue = n)),
    ("scheduler.patience", |s, v| {
        v.duration(Duration::ZERO, DAY).map(|d| s.scheduler.patience = d)
    }),
    ("jobs.keep", |s, v| v.duration(MINUTE, YEAR).map(|d| s.jobs.keep = d)),
    ("jobs.ephemeral", |s, v| v.duration(10 * SECOND, DAY).map(|d| s.jobs.ephemeral = d)),
    ("limits.input_memory", |s, v| v.size(16 * MIB, u64::MAX).map(|n| s.limits.input_memory = n)),
    ("limits.max_pixels", |s, v| v.number(1, 268_435_456).map(|n| s.limits.max_pixels = n)),
    ("limits.max_side", |s, v| v.number(16, 65_535).map(|n| s.limits.max_side = n)),
    ("limits.images", |s, v| v.number(1, 8).map(|n| s.limits.images = n)),
    ("webhooks.allow_hosts", |s, v| v.targets().map(|hosts| s.webhooks.allow_hosts = hosts)),
    ("fetch.allow_hosts", |s, v| v.targets().map(|hosts| s.fetch.allow_hosts = hosts)),
];

fn any(_: &str) -> bool {
    true
}

fn some(text: &str) -> bool {
    !text.is_empty()
}

fn are_devices(names: &[String]) -> bool {
    let number = |name: &String| name.strip_prefix("cuda:")?.parse::<usize>().ok();
    let numbers: Vec<usize> = names.iter().filter_map(number).collect();
    match names {
        [] => false,
        [name] => ["auto", "cpu", "metal"].contains(&name.as_str()) || numbers.len() == 1,
        // Two engines on one GPU would hold the weights twice; on a CPU that is for trying it out.
        _ if names.len() > DEVICES => false,
        _ if numbers.is_empty() => names.iter().all(|name| name == "cpu"),
        _ => BTreeSet::from_iter(numbers).len() == names.len(),
    }
}

/// The key of that name.
pub(super) fn find(name: &str) -> Option<Key> {
    KEYS.iter().find(|(key, _)| *key == name).copied()
}

/// The key that a variable overrides.
pub(super) fn of_variable(name: &str) -> Option<Key> {
    KEYS.iter().find(|(key, _)| variable(key) == name).copied()
}

/// Whether keys begin with `name` and a point.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|(key, _)| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The variable that overrides a key.
pub(super) fn variable(key: &str) -> String {
    format!("{}{}", super::VARIABLES, key.to_ascii_uppercase().replace('.', "__"))
}

/// The keys that were most likely meant by `name`, which is none: those that differ least, also
/// where the section is another; else those of its section; else all.
pub(super) fn nearest(name: &str) -> Vec<&'static str> {
    let all = || KEYS.iter().map(|(key, _)| *key);
    let apart = |key| distance(key, name).min(1 + distance(inner(key), inner(name)));
    let least = all().map(apart).min().unwrap_or_default();
    let section = name.split('.').next().unwrap_or(name);
    let beside = |key: &&str| key.split('.').next() == Some(section);
    if least <= SLIP {
        all().filter(|key| apart(key) == least).collect()
    } else if all().any(|key| beside(&key)) {
        all().filter(beside).collect()
    } else {
        all().collect()
    }
}

/// The last part of a dotted name.
fn inner(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// How many letters must be put in, left out or replaced until one text is the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=one.chars().count()).collect();
    for (i, b) in other.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, a) in one.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[row.len() - 1]
}
