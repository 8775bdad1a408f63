//! What the process promises before it holds any input: no core dump, no debugger, no panic that
//! quotes a request, and a word about swap. Only Linux is told all of it.

use std::path::Path;

/// Makes sure that the process leaves no copy of its memory behind, and may have as many connections
/// as the system lets it.
pub(super) fn harden() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // The text of a panic may hold what it stumbled over; where it was is enough to find it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a part of the server panicked");
    }));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "the process could not be closed to debuggers");
    }
    let files = getrlimit(Resource::Nofile);
    let all = Rlimit { current: files.maximum, ..files };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, "the number of open files could not be raised");
    }
}

/// Where the system may write memory to: swap devices that are neither memory themselves nor
/// encrypted, as far as the system tells.
pub(super) fn open_swap() -> Vec<String> {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let names = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| !is_safe(name)).map(str::to_owned).collect()
}

fn is_safe(swap: &str) -> bool {
    let name = Path::new(swap).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let uuid = std::fs::read_to_string(format!("/sys/block/{name}/dm/uuid")).unwrap_or_default();
    name.starts_with("zram") || uuid.starts_with("CRYPT-")
}
