//! The adapters that jobs may name: files in a folder, and those that are in memory.
//!
//! Nothing is restarted for a new one: a file is looked at anew for each job, and read again where it
//! is another than before. What jobs use stays in memory for those that come after, up to a limit;
//! the one that was used longest ago goes first.

use crate::{
    domain::{Lora, ParamError},
    model::{
        clip::ClipTextEncoder,
        flux::FluxTransformer,
        lora::{Adapter, LoraError, LoraFile, Places, Summary},
        ops::{Deltas, Weighted},
        weights::Target,
    },
};
use std::{
    collections::BTreeMap,
    fs::Metadata,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::SystemTime,
};

/// Bytes of adapters that are kept for later jobs.
const KEPT: usize = 2 << 30;
/// What a file's name ends in.
const EXTENSION: &str = "safetensors";
/// Names that an error lists.
const SHOWN: usize = 20;

/// The adapters of a server.
#[derive(Debug, Default)]
pub struct LoraShelf {
    folder: Option<PathBuf>,
    /// Bytes that are kept for later jobs, if not [`KEPT`].
    room: Option<usize>,
    /// Where the layers are that they change; known once a model is loaded.
    places: OnceLock<Places>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Files outside the folder, by name.
    files: BTreeMap<String, PathBuf>,
    known: BTreeMap<String, (Identity, Summary)>,
    loaded: BTreeMap<String, (Identity, Adapter)>,
    /// Names of what is loaded, the one that was used last at the end.
    order: Vec<String>,
}

/// What tells one file from another that has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    length: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    node: (u64, u64),
}

/// An adapter in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// What it will do, or why it can not be used with this model.
    pub summary: Result<Summary, String>,
}

/// The adapters of a job, as each network takes them.
#[derive(Debug, Default)]
pub(super) struct Attached {
    pub(super) transformer: Vec<Weighted>,
    pub(super) clip: Vec<Weighted>,
}

/// What jobs' adapters take and cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) bytes: u64,
    /// Multiply-adds for each token of a step.
    pub(super) work: u64,
}

impl Identity {
    fn of(data: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Self {
            length: data.len(),
            modified: data.modified().ok(),
            #[cfg(unix)]
            node: (data.dev(), data.ino()),
        }
    }
}

fn refuse(name: &str, why: impl Into<String>) -> ParamError {
    ParamError::new("loras", format!("{name:?}"), why)
}

impl LoraShelf {
    /// The adapters in `folder`, which need not be there.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), ..Self::default() }
    }

    /// Keeps so many bytes for later jobs, and one adapter at least.
    #[must_use]
    pub fn keeping(self, bytes: usize) -> Self {
        Self { room: Some(bytes), ..self }
    }

    /// The names of what is in memory for later jobs, the one that was used last at the end.
    #[must_use]
    pub fn in_memory(&self) -> Vec<String> {
        self.state().order.clone()
    }

    /// Adds a file from elsewhere under a name of its own.
    pub fn put(&self, name: &str, file: &Path) {
        self.state().files.insert(name.to_owned(), file.to_owned());
    }

    /// Says which layers there are. A model that is built again has the same ones.
    pub(super) fn place(
        &self,
        transformer: &FluxTransformer,
        clip: &ClipTextEncoder,
        target: &Target,
    ) {
        let _ = self.places.set(Places::new(transformer, clip, target));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of all files.
    fn names(&self) -> Vec<String> {
        let folder = self.folder.iter().flat_map(std::fs::read_dir).flatten().flatten();
        let files = folder.map(|entry| entry.path()).filter(|path| path.is_file());
        let names = files
            .filter(|path| path.extension().is_some_and(|end| end == EXTENSION))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .filter(|name| Lora { name: name.clone(), scale: 1.0 }.validate().is_ok());
        let mut names: Vec<String> = names.chain(self.state().files.keys().cloned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn find(&self, name: &str) -> Result<(PathBuf, Identity), ParamError> {
        let own = self.state().files.get(name).cloned();
        let stem = name.strip_suffix(&format!(".{EXTENSION}")).unwrap_or(name);
        let in_folder = || Some(self.folder.as_ref()?.join(format!("{stem}.{EXTENSION}")));
        let found = own.or_else(in_folder).and_then(|path| {
            let data = std::fs::metadata(&path).ok().filter(Metadata::is_file)?;
            Some((path, Identity::of(&data)))
        });
        found.ok_or_else(|| {
            let mut names = self.names();
            if names.is_empty() {
                return refuse(name, "there are no LoRAs here");
            }
            let more = if names.len() > SHOWN { ", ..." } else { "" };
            names.truncate(SHOWN);
            refuse(name, format!("expected one of {}{more}", names.join(", ")))
        })
    }

    /// What the file of that name will do; its header is read if it was not before.
    fn inspect(&self, name: &str) -> Result<Summary, ParamError> {
        let (path, identity) = self.find(name)?;
        if let Some((known, summary)) = self.state().known.get(name)
            && *known == identity
        {
            return Ok(summary.clone());
        }
        let Some(places) = self.places.get() else {
            return Err(refuse(name, "no model is loaded yet"));
        };
        let file = LoraFile::open(&path, places).map_err(|e| refuse(name, e.to_string()))?;
        let summary = file.summary().clone();
        self.state().known.insert(name.to_owned(), (identity, summary.clone()));
        Ok(summary)
    }

    /// All adapters, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let listed = self.names().into_iter().filter_map(|name| {
            let bytes = self.find(&name).ok()?.1.length;
            let summary = self.inspect(&name).map_err(|error| error.allowed);
            Some(Listed { name, bytes, summary })
        });
        listed.collect()
    }

    /// What a job's adapters will take and cost together.
    pub(super) fn weigh(&self, loras: &[Lora]) -> Result<Load, ParamError> {
        let mut load = Load::default();
        for lora in loras {
            let summary = self.inspect(&lora.name)?;
            load.bytes = load.bytes.saturating_add(summary.bytes);
            load.work = load.work.saturating_add(summary.work);
        }
        Ok(load)
    }

    /// The adapter of that name, if it is in memory and its file is the same.
    pub(super) fn loaded(&self, name: &str) -> Option<Adapter> {
        let (_, identity) = self.find(name).ok()?;
        let mut state = self.state();
        let (of, adapter) = state.loaded.get(name)?;
        let adapter = (*of == identity).then(|| adapter.clone())?;
        state.used(name);
        Some(adapter)
    }

    /// Opens the file of that name, to be loaded.
    pub(super) fn open(&self, name: &str) -> Result<Loading, LoraError> {
        let missing = || LoraError::Empty { file: name.to_owned() };
        let (path, identity) = self.find(name).map_err(|_| missing())?;
        let file = LoraFile::open(&path, self.places.get().ok_or_else(missing)?)?;
        Ok(Loading { name: name.to_owned(), identity, file, done: 0, deltas: Default::default() })
    }

    fn keep(&self, name: String, identity: Identity, adapter: Adapter) {
        let mut state = self.state();
        state.used(&name);
        state.loaded.insert(name, (identity, adapter));
        let bytes = |state: &State| state.loaded.values().map(|(_, a)| a.bytes()).sum::<usize>();
        while state.loaded.len() > 1 && bytes(&state) > self.room.unwrap_or(KEPT) {
            let oldest = state.order.remove(0);
            state.loaded.remove(&oldest);
        }
    }
}

impl State {
    fn used(&mut self, name: &str) {
        self.order.retain(|other| other != name);
        self.order.push(name.to_owned());
    }
}

/// An adapter that is being read, some layers at a time.
#[derive(Debug)]
pub(super) struct Loading {
    name: String,
    identity: Identity,
    file: LoraFile,
    done: usize,
    deltas: [Deltas; 2],
}

impl Loading {
    /// Reads the next layers. Gives the adapter after the last, and keeps it on the shelf.
    pub(super) fn advance(
        &mut self,
        shelf: &LoraShelf,
        transformer: &FluxTransformer,
        clip: &ClipTextEncoder,
    ) -> Result<Option<Adapter>, LoraError> {
        self.done = self.file.load_part(self.done, transformer, clip, &mut self.deltas)?;
        if self.done < self.file.parts() {
            return Ok(None);
        }
        let [transformer, clip] = std::mem::take(&mut self.deltas).map(Arc::new);
        let adapter = Adapter { transformer, clip };
        shelf.keep(self.name.clone(), self.identity.clone(), adapter.clone());
        Ok(Some(adapter))
    }
}

impl Attached {
    pub(super) fn add(&mut self, adapter: &Adapter, scale: f32) {
        for (to, deltas) in
            [(&mut self.transformer, &adapter.transformer), (&mut self.clip, &adapter.clip)]
        {
            to.push(Weighted { deltas: Arc::clone(deltas), scale });
        }
    }

    /// How many adapters there are.
    pub(super) fn count(&self) -> usize {
        self.transformer.len()
    }
}
