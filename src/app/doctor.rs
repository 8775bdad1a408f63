//! `darkroom doctor`: looks at the machine, the settings and the models, and says what would not
//! work, what would be slow, and what to do about it.

use super::{
    AppError, Catalog, Compute, DEFAULT_MODEL, ModelEntry,
    fit::{Fit, fits},
    machine::{Machine, cards, free, nvidia_driver},
    models::{ModelState, list},
    process,
};
use crate::{
    config::{Manifest, Settings},
    domain::Bytes,
    model::{
        ops::instruction_set,
        weights::{Part, Placement},
    },
    pipeline::{Checkpoint, Usual},
};
use std::path::Path;

/// Free bytes below which a disk counts as nearly full.
const NEARLY_FULL: u64 = 1 << 30;
/// Open files that a server needs beside its connections.
const FILES: u64 = 256;
/// Processors below which even the small model is slow.
const FEW_CORES: usize = 2;

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

impl State {
    /// `ok`, `warn` or `bad`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// Looks at everything. Settings that cannot be read are a finding, and defaults stand for them.
pub fn examine(settings: Result<Settings, crate::config::ConfigError>) -> Vec<Check> {
    let machine = Machine::look();
    let (settings, config) = match settings {
        Ok(settings) => (settings, ok("settings", "they are valid")),
        Err(error) => {
            let remedy = "correct it; config.toml has every key with what is allowed";
            (Settings::default(), bad("settings", error.to_string(), remedy))
        }
    };
    let mut checks = vec![config, device(&settings), card(), processor(&machine), memory(&machine)];
    checks.push(swap());
    checks.push(open_files(&settings));
    checks.push(disk("store", &settings.store.path, "results are stored"));
    match Catalog::find() {
        Ok(catalog) => {
            checks.push(disk("models", catalog.folder(), "models are pulled to"));
            checks.push(selected(&settings));
            checks.extend(pulled());
            checks.extend(variants(&catalog, &machine));
            checks.extend(speed(&settings, &machine));
        }
        Err(error) => {
            let remedy =
                "run darkroom from the folder that has `models`, or put it beside the program";
            checks.push(bad("models", error.to_string(), remedy));
        }
    }
    checks
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, state: State::Ok, found: found.into(), remedy: None }
}

fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, state: State::Warn, found: found.into(), remedy: Some(remedy.into()) }
}

fn bad(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { state: State::Bad, ..warn(name, found, remedy) }
}

/// What computes, by the settings.
fn device(settings: &Settings) -> Check {
    match Compute::all(&settings.model) {
        Ok(all) => {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            ok("device", all.join(", "))
        }
        Err(error) => bad("device", error.to_string(), "set model.device to \"auto\""),
    }
}

/// Graphics cards, and whether this build can use them.
fn card() -> Check {
    let built = cfg!(any(feature = "cuda", feature = "metal"));
    let driver = nvidia_driver();
    let found: Vec<String> =
        cards().into_iter().map(|(name, bytes)| format!("{name} with {}", Bytes(bytes))).collect();
    match (driver, built) {
        (None, true) if cfg!(feature = "cuda") => {
            let remedy = "install NVIDIA's driver, or use a build without the feature cuda";
            bad("graphics card", "this build computes with CUDA, but no driver is loaded", remedy)
        }
        (None, true) => ok("graphics card", "this build computes with Metal"),
        (None, false) => ok("graphics card", "none that NVIDIA's driver knows; the CPU computes"),
        (Some(driver), true) => {
            ok("graphics card", format!("driver {driver}: {}", found.join(", ")))
        }
        (Some(driver), false) => {
            let found =
                format!("driver {driver} ({}), but this build has no CUDA", found.join(", "));
            warn("graphics card", found, "build with --features cuda (docs/gpu.md)")
        }
    }
}

fn processor(machine: &Machine) -> Check {
    let cpu = machine.cpu.as_deref().unwrap_or("a processor of unknown name");
    let found = format!("{cpu}, {} cores, kernels for {}", machine.cores, instruction_set());
    if instruction_set() == "portable" {
        let remedy =
            "use a machine with AVX2 or AVX-512: kernels without them are several times slower";
        return warn("processor", found, remedy);
    }
    if machine.cores < FEW_CORES {
        return warn("processor", found, "give the process more processors");
    }
    ok("processor", found)
}

fn memory(machine: &Machine) -> Check {
    let unknown = || "unknown".to_owned();
    let show = |bytes| Bytes(bytes).to_string();
    let total = machine.memory.map_or_else(unknown, show);
    let free = machine.available.map_or_else(unknown, show);
    let limit =
        machine.limit.map(|limit| format!(", limited by the container to {}", Bytes(limit)));
    let found = format!("{total}, of which {free} are free{}", limit.unwrap_or_default());
    match machine.available {
        Some(free) if free < 1 << 30 => warn("memory", found, "end other programs, or add memory"),
        _ => ok("memory", found),
    }
}

fn swap() -> Check {
    match process::open_swap() {
        swaps if swaps.is_empty() => ok("swap", "none that is not encrypted"),
        swaps => {
            let remedy = "switch it off (swapoff -a) or encrypt it, or an input may reach a disk";
            warn("swap", format!("{} is not encrypted", swaps.join(", ")), remedy)
        }
    }
}

fn open_files(settings: &Settings) -> Check {
    let needed = settings.server.max_connections as u64 + FILES;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < needed => {
            let found = format!("at most {limit}, and server.max_connections would need {needed}");
            warn(
                "open files",
                found,
                format!("ulimit -Hn {needed}, or LimitNOFILE={needed} in its unit"),
            )
        }
        Some(limit) => ok("open files", format!("up to {limit}")),
        None => ok("open files", "no limit"),
    }
}

/// A folder that is written to: whether it can be, and how much room it has.
fn disk(name: &'static str, folder: &Path, what: &str) -> Check {
    let here = folder.ancestors().find(|path| path.exists() && !path.as_os_str().is_empty());
    let here = here.unwrap_or(Path::new("."));
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let shown = folder.display();
    if let Err(error) = rustix::fs::access(here, access) {
        let found = format!("{what} {shown}, which cannot be written: {error}");
        let remedy =
            format!("give the user of this process the right to write to {}", here.display());
        // Models that are there already can be used all the same.
        return if name == "models" { warn(name, found, remedy) } else { bad(name, found, remedy) };
    }
    match free(folder) {
        Some(free) if free < NEARLY_FULL => {
            let found = format!("{what} {shown}, where {} are free", Bytes(free));
            warn(name, found, "make room on that disk")
        }
        free => {
            let free =
                free.map_or_else(|| "an unknown size".to_owned(), |free| Bytes(free).to_string());
            ok(name, format!("{what} {shown}, where {free} are free"))
        }
    }
}

/// The model that a server would run, and where its weights would be.
fn selected(settings: &Settings) -> Check {
    let name = &settings.model.name;
    let remedy = |error: &AppError| match error {
        AppError::NotInstalled { name, .. } => format!("darkroom pull {name}"),
        AppError::Memory(_) => "take a variant of smaller weights, or more memory".to_owned(),
        _ => format!("set model.name to a model that is here, such as {DEFAULT_MODEL}"),
    };
    let planned = || {
        let model = ModelEntry::find(name)?;
        // A device that is not there is a finding of its own.
        let Ok(compute) = Compute::of(&settings.model) else { return Ok((model.bytes(), None)) };
        let checkpoint = Checkpoint::open(&model.folder, &model.manifest, &compute.target)?;
        let plan = checkpoint.plan(compute.room(settings, settings.model.devices.len()))?;
        Ok((model.bytes(), Some(plan)))
    };
    let (bytes, plan) = match planned() {
        Ok(planned) => planned,
        Err(error) => return bad("model.name", format!("{name}: {error}"), remedy(&error)),
    };
    let here = format!("{name} is here, {}", Bytes(bytes));
    let Some(plan) = plan else { return ok("model.name", here) };
    let Usual { size, bytes: job } = plan.usual;
    let peak = Bytes(plan.peak(job));
    let found = format!("{here}: {plan}; {peak} with an edit of {size}");
    if plan.placement(Part::Transformer) == Placement::Streamed {
        let remedy = "it is read anew in each step: add memory, raise memory.budget, or take a \
                      variant of smaller weights";
        return warn("model.name", found, remedy);
    }
    ok("model.name", found)
}

/// What was pulled, and what is missing of it.
fn pulled() -> Vec<Check> {
    let listed = match list() {
        Ok(listed) => listed,
        Err(error) => {
            return vec![bad("pulled", error.to_string(), "remove that file and pull anew")];
        }
    };
    let checks = listed.into_iter().filter_map(|model| {
        let found = format!("{} {}, {}", model.name, model.variant, Bytes(model.bytes));
        match model.state {
            ModelState::Pulled => Some(ok("pulled", found)),
            ModelState::Incomplete => {
                let remedy = format!("darkroom pull {} goes on", model.name);
                Some(warn("pulled", format!("{found}, not all of its files"), remedy))
            }
            ModelState::Shipped | ModelState::Own | ModelState::Absent => None,
        }
    });
    checks.collect()
}

/// What of each model would fit.
fn variants(catalog: &Catalog, machine: &Machine) -> Vec<Check> {
    let manifests = catalog.names().into_iter().filter_map(|name| {
        let manifest = catalog.manifest(&name).ok()?;
        (!manifest.variants.is_empty()).then_some((name, manifest))
    });
    manifests.map(|(name, manifest)| fitting(&name, &manifest, machine)).collect()
}

fn fitting(name: &str, manifest: &Manifest, machine: &Machine) -> Check {
    let (mut yes, mut no) = (Vec::new(), Vec::new());
    for variant in &manifest.variants {
        match fits(manifest, variant, machine) {
            Fit::Yes | Fit::Unknown => yes.push(variant.name.clone()),
            Fit::No(needed) => no.push(format!("{} (needs {})", variant.name, Bytes(needed))),
        }
    }
    let not = if no.is_empty() { String::new() } else { format!("; not {}", no.join(", ")) };
    if yes.is_empty() {
        let remedy = "its weights would be read from the disk in every step: add memory";
        return warn("would fit", format!("{name}: nothing{not}"), remedy);
    }
    ok("would fit", format!("{name}: {}{not}", yes.join(", ")))
}

/// What would be slow.
fn speed(settings: &Settings, machine: &Machine) -> Option<Check> {
    if machine.card.is_some() || cfg!(feature = "metal") {
        return None;
    }
    let found = format!(
        "{} cores compute: a model of 12 billion parameters takes minutes a step on them",
        machine.cores
    );
    if settings.model.name == DEFAULT_MODEL {
        return Some(ok("speed", format!("{found}; {DEFAULT_MODEL} takes seconds")));
    }
    Some(warn("speed", found, "use a graphics card (docs/gpu.md), fewer steps or smaller pictures"))
}
