//! What this machine is: processor, memory and what limits it, disks, graphics cards.

use crate::telemetry;
use std::{path::Path, process::Command};

/// A machine, as far as its system tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    /// The processor's name.
    pub(super) cpu: Option<String>,
    /// Processors that this process may use.
    pub(super) cores: usize,
    /// Bytes of memory that a process here may have: the machine's, or those of its container.
    pub(super) memory: Option<u64>,
    /// What limits that below the machine's.
    pub(super) limit: Option<u64>,
    /// Bytes that are free.
    pub(super) available: Option<u64>,
    /// The first graphics card that this build computes on: its name and its bytes.
    pub(super) card: Option<(String, u64)>,
}

impl Machine {
    pub(super) fn look() -> Self {
        let (total, limit) = (telemetry::total(), cgroup_limit());
        let limit = limit.filter(|limit| total.is_none_or(|total| *limit < total));
        let card = cfg!(feature = "cuda").then(cards).into_iter().flatten().next();
        Self {
            cpu: cpu(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: limit.or(total),
            limit,
            available: memory().map(|(_, free)| free),
            card,
        }
    }
}

/// Bytes of memory that a process here may have, and of them those that are free.
pub(super) fn memory() -> Option<(u64, u64)> {
    let (total, free) = (telemetry::total()?, telemetry::available()?);
    let limit = cgroup_limit().unwrap_or(u64::MAX);
    Some((total.min(limit), free.min(limit)))
}

/// The processor's name on Linux.
fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The least that a group of this process, or one around it, may have in memory (cgroup v2, then
/// v1).
fn cgroup_limit() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut limits = Vec::new();
    for group in groups.lines() {
        let (root, file, path) = match group.splitn(3, ':').collect::<Vec<_>>()[..] {
            ["0", "", path] => ("/sys/fs/cgroup", "memory.max", path),
            [_, "memory", path] => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path),
            _ => continue,
        };
        // In a container the path is that of the host, and the group itself lies at the root.
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            limits.extend(read(&Path::new(root).join(folder).join(file)));
        }
    }
    limits.into_iter().min()
}

/// NVIDIA's cards with their bytes, as the driver's own tool tells.
pub(super) fn cards() -> Vec<(String, u64)> {
    let query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"];
    let Ok(output) = Command::new("nvidia-smi").args(query).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let card = |line: &str| {
        let (name, mebibytes) = line.rsplit_once(',')?;
        Some((name.trim().to_owned(), mebibytes.trim().parse::<u64>().ok()? << 20))
    };
    text.lines().filter_map(card).collect()
}

/// The version of NVIDIA's driver, where it is loaded.
pub(super) fn nvidia_driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let version =
        |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    text.lines().next()?.split_whitespace().find(version).map(str::to_owned)
}

/// Bytes that are free where `path` is, or where it would be made.
pub(super) fn free(path: &Path) -> Option<u64> {
    let here = path.ancestors().find(|path| path.exists()).filter(|p| !p.as_os_str().is_empty());
    let disk = rustix::fs::statvfs(here.unwrap_or(Path::new("."))).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
