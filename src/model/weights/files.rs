//! The open files of one part: which tensors they hold, under the names of diffusers and
//! transformers, and what belongs to them.

use super::{
    entry::{Data, Entry, Scale},
    header::{Encoding, Header, MAX_DIMS, TensorInfo},
    is_plain, mmap,
    names::{self, Named, Naming},
    source::{Part, Source},
};
use crate::model::error::LoadError;
use darkroom_kernels::quant;
use memmap2::Mmap;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The largest description of a quantised layer, in bytes.
const MAX_NOTE: usize = 4096;

/// T5's table of tokens.
const SHARED: &str = "shared.weight";

/// A file, mapped or in memory.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) path: PathBuf,
    bytes: Held,
}

#[derive(Debug)]
enum Held {
    Map(Mmap),
    Memory(Vec<u8>),
}

impl Mapped {
    /// Maps `path` and reads its header.
    pub(super) fn open(path: &Path) -> Result<(Arc<Self>, Header), LoadError> {
        let data = std::fs::metadata(path)
            .map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
        // An empty file cannot be mapped, and the reason should be what it is.
        let empty = data.is_file() && data.len() == 0;
        let bytes = if empty { Held::Memory(Vec::new()) } else { Held::Map(mmap::map(path)?) };
        Self { path: path.to_owned(), bytes }.read()
    }

    fn read(self) -> Result<(Arc<Self>, Header), LoadError> {
        let header = Header::read(self.bytes()).map_err(|error| LoadError::Format {
            path: self.path.clone(),
            kind: error.kind.map_or("weights".to_owned(), |kind| kind.to_string()),
            reason: error.reason,
        })?;
        Ok((Arc::new(self), header))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Held::Map(map) => map,
            Held::Memory(bytes) => bytes,
        }
    }

    /// Has the system read `range` soon, without waiting for it.
    pub(super) fn fetch(&self, range: &Range<usize>) {
        if let Held::Map(map) = &self.bytes {
            mmap::fetch(map, range);
        }
    }

    /// Takes `range` out of this process's memory. The system may keep it as long as it has room.
    pub(super) fn let_go(&self, range: &Range<usize>) {
        if let Held::Map(map) = &self.bytes {
            mmap::let_go(map, range);
        }
    }
}

/// The open files of a part.
pub(super) struct Files {
    path: PathBuf,
    /// Several of safetensors, or one of GGUF with its header.
    files: Vec<(Arc<Mapped>, Header)>,
    table: HashMap<String, Entry>,
}

impl Files {
    pub(super) fn open(source: &Source) -> Result<Self, LoadError> {
        let Source { path, part } = source;
        let mut files = Self::of(path);
        if path.is_dir() {
            files.open_folder(path, *part)?;
        } else {
            files.files.push(Mapped::open(path)?);
        }
        files.arrange(*part, path.is_dir())
    }

    /// The files of a part whose one file is in memory; errors name `path`.
    pub(super) fn in_memory(path: &Path, bytes: Vec<u8>, part: Part) -> Result<Self, LoadError> {
        let mut files = Self::of(path);
        let file = Mapped { path: path.to_owned(), bytes: Held::Memory(bytes) };
        files.files.push(file.read()?);
        files.arrange(part, false)
    }

    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), files: Vec::new(), table: HashMap::new() }
    }

    /// Fills the table with the tensors of `part`. Its own folder holds it even where tensors are
    /// missing, which is said later.
    fn arrange(mut self, part: Part, own: bool) -> Result<Self, LoadError> {
        let names = self.files.iter().flat_map(|(_, header)| &header.tensors);
        let parts = names::parts(names.map(|tensor| tensor.name.as_str()));
        let naming = match parts.iter().find(|naming| naming.part == part) {
            Some(naming) => *naming,
            None if own => Naming::own(part),
            None => {
                let held: Vec<&str> = parts.iter().map(|naming| naming.part.name()).collect();
                let held = if held.is_empty() { "none".to_owned() } else { held.join(", ") };
                return Err(LoadError::NoPart { path: self.path, part: part.name(), held });
            }
        };
        for (file, header) in &self.files {
            add(&mut self.table, file, header, &naming, &parts)?;
        }
        // Some writers keep one of T5's two names for the same table, some the other, some both.
        if part == Part::T5
            && !self.table.contains_key(SHARED)
            && let Some(table) = self.table.remove("encoder.embed_tokens.weight")
        {
            self.table.insert(SHARED.to_owned(), table);
        }
        Ok(self)
    }

    fn open_folder(&mut self, folder: &Path, part: Part) -> Result<(), LoadError> {
        let stem = part.stem();
        let single = folder.join(format!("{stem}.safetensors"));
        let index = folder.join(format!("{stem}.safetensors.index.json"));
        if single.is_file() {
            self.files.push(Mapped::open(&single)?);
            self.path = single;
            Ok(())
        } else if index.is_file() {
            self.add_index(folder, &index)
        } else {
            Err(LoadError::NoWeights {
                folder: folder.to_owned(),
                expected: format!("{stem}.safetensors"),
            })
        }
    }

    fn add_index(&mut self, folder: &Path, index: &Path) -> Result<(), LoadError> {
        let bad = |reason: String| LoadError::Index { path: index.to_owned(), reason };
        let text = std::fs::read_to_string(index)
            .map_err(|source| LoadError::Io { path: index.to_owned(), source })?;
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } =
            serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let mut held: HashMap<&str, &str> = HashMap::new();
        for shard in weight_map.values().collect::<BTreeSet<_>>() {
            // A name with a folder in it could point anywhere on the disk.
            if shard.contains(['/', '\\']) || !shard.ends_with(".safetensors") {
                return Err(bad(format!("shard {shard:?} is not a plain .safetensors file name")));
            }
            self.files.push(Mapped::open(&folder.join(shard))?);
        }
        for (file, header) in &self.files {
            let shard = file.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            held.extend(header.tensors.iter().map(|tensor| (tensor.name.as_str(), shard)));
        }
        for (tensor, shard) in &weight_map {
            if held.get(tensor.as_str()) != Some(&shard.as_str()) {
                return Err(bad(format!("tensor {tensor} is not in {shard} as the index says")));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.table.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.table.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    pub(super) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.table.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file and the header of a part that is in one file.
    pub(super) fn single(&self) -> Option<(&Mapped, &Header)> {
        let [(file, header)] = self.files.as_slice() else { return None };
        Some((file, header))
    }
}

/// Adds the tensors of one file that are the part's, in its names.
fn add(
    table: &mut HashMap<String, Entry>,
    file: &Arc<Mapped>,
    header: &Header,
    naming: &Naming,
    parts: &[Naming],
) -> Result<(), LoadError> {
    // In a file of several parts what has no prefix of this one is another's.
    let foreign = |name: &str| {
        naming.is_bare()
            && parts.iter().any(|other| !other.is_bare() && other.strip(name).is_some())
    };
    let own = header.tensors.iter().filter_map(|tensor| {
        let name = naming.strip(&tensor.name).filter(|name| !foreign(name))?;
        (!naming.unused(name)).then_some((name, tensor))
    });
    let (notes, tensors): (Vec<_>, Vec<_>) = own.partition(|(name, _)| is_note(name));
    let mut scales = HashMap::new();
    for (name, tensor) in notes {
        note(file, name, tensor, &mut scales)?;
    }
    for (name, tensor) in tensors {
        let layer = name.strip_suffix(".weight").unwrap_or(name);
        let scale = scales.get(layer).cloned().unwrap_or_default();
        let shape = original_shape(file, header, tensor);
        if let Scale::Rows(scales) = &scale
            && shape.first() != Some(&scales.len())
        {
            return Err(LoadError::Scale {
                path: file.path.clone(),
                tensor: tensor.name.clone(),
                expected: "one scale, or one for each row",
                found: format!("{} for shape {shape:?}", scales.len()),
            });
        }
        for Named { name, rows } in naming.translate(name) {
            let whole = Data { file: file.clone(), range: tensor.range.clone(), swapped: false };
            let encoding = tensor.encoding;
            let entry = Entry { data: whole, encoding, shape: shape.clone(), scale: scale.clone() };
            let entry = entry.cut(rows).ok_or_else(|| LoadError::Fused {
                path: file.path.clone(),
                tensor: tensor.name.clone(),
                found: shape.clone(),
                holds: name.clone(),
            })?;
            if table.insert(name.clone(), entry).is_some() {
                let reason = format!("tensor {name} is in it, or in another shard, twice");
                let kind = header.kind.to_string();
                return Err(LoadError::Format { path: file.path.clone(), kind, reason });
            }
        }
    }
    Ok(())
}

/// Whether a tensor says something of a layer of 8-bit floats, in any of ComfyUI's ways.
fn is_note(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let notes = ["scale_weight", "weight_scale", "scale_input", "input_scale", "comfy_quant"];
    name == "scaled_fp8" || notes.contains(&last)
}

/// Reads a scale of weights to the layer that it belongs to. Scales of activations are for hardware
/// that multiplies 8-bit floats; here activations are not rounded.
fn note(
    file: &Arc<Mapped>,
    name: &str,
    tensor: &TensorInfo,
    scales: &mut HashMap<String, Scale>,
) -> Result<(), LoadError> {
    let wrong = |expected: &'static str, found: String| LoadError::Scale {
        path: file.path.clone(),
        tensor: tensor.name.clone(),
        expected,
        found,
    };
    let Some((layer, kind)) = name.rsplit_once('.') else { return Ok(()) };
    let bytes = file.bytes().get(tensor.range.clone()).unwrap_or_default();
    match kind {
        "scale_weight" | "weight_scale" => {
            let expected = "one number of F32, F16 or BF16, or one for each row";
            let format = match tensor.encoding {
                Encoding::Weights(format) if is_plain(format) => format,
                other => return Err(wrong(expected, other.to_string())),
            };
            let count: usize = tensor.shape.iter().product();
            let mut values = vec![0.0; count];
            quant::dequantize(format, bytes, &mut values);
            let scale = match (tensor.shape.as_slice(), values.as_slice()) {
                ([] | [1] | [1, 1], [scale]) => Scale::Tensor(*scale),
                ([_] | [_, 1], _) => Scale::Rows(values.into()),
                (shape, _) => return Err(wrong(expected, format!("shape {shape:?}"))),
            };
            if scales.insert(layer.to_owned(), scale).is_some() {
                return Err(wrong("one scale of the layer", "two".to_owned()));
            }
        }
        "comfy_quant" => {
            let note = bytes.get(..bytes.len().min(MAX_NOTE)).unwrap_or_default();
            let note: Option<serde_json::Value> = serde_json::from_slice(note).ok();
            let format = note.as_ref().and_then(|note| note.get("format")?.as_str());
            if !matches!(format, Some("float8_e4m3fn" | "float8_e5m2")) {
                let found = format.unwrap_or("something else").chars().take(40).collect();
                return Err(wrong("JSON with a format float8_e4m3fn or float8_e5m2", found));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The shape of a tensor that its writer has reshaped to fill blocks, as ComfyUI-GGUF notes it.
fn original_shape(file: &Mapped, header: &Header, tensor: &TensorInfo) -> Vec<usize> {
    let key = format!("comfy.gguf.orig_shape.{}", tensor.name);
    let dims = header.metadata.integers(&key, MAX_DIMS, file.bytes());
    let dims = dims.and_then(|dims| {
        dims.into_iter()
            .map(|dim| usize::try_from(dim).ok().filter(|&d| d > 0))
            .collect::<Option<Vec<_>>>()
    });
    let same = |dims: &Vec<usize>| {
        let count = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        count == Some(tensor.shape.iter().product())
    };
    dims.filter(same).unwrap_or_else(|| tensor.shape.clone())
}
