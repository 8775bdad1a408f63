//! What the system says of memory, where it tells: Linux does. The start report, the choice of
//! `scheduler.memory`, the metrics and `darkroom doctor` read it.

/// Bytes of memory that the process has at this moment.
#[must_use]
pub fn resident() -> Option<u64> {
    value("/proc/self/status", "VmRSS:")
}

/// Bytes of memory that the machine has.
#[must_use]
pub fn total() -> Option<u64> {
    value("/proc/meminfo", "MemTotal:")
}

/// Bytes of memory that programs can still get.
#[must_use]
pub fn available() -> Option<u64> {
    value("/proc/meminfo", "MemAvailable:")
}

/// The value of a line such as `VmRSS:   123 kB`.
fn value(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
