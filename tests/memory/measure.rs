//! What jobs allocate at their peaks, to the byte: an allocator that counts, and jobs that are told
//! by what decides their memory. The test beside it and `benches/memory.rs` call it, one measurement
//! at a time: everything in the process is counted.

use anyhow::{Context, Result};
use darkroom::{
    config::Manifest,
    domain::{EditParams, Lora, Pixels, Prompt, ReferenceMethod, Size},
    engine::{Cost, Engine, Job, JobShape, Phase, Slot},
    model::weights::Target,
    pipeline::{Checkpoint, LoraShelf, Pipeline, Room},
};
use peak_alloc::PeakAlloc;
use std::{
    path::Path,
    sync::{Arc, Once},
    time::Duration,
};

#[global_allocator]
pub(crate) static HEAP: PeakAlloc = PeakAlloc;

/// Kernels run on one thread: each thread keeps buffers of its own, and which threads come to do so is
/// chance.
static ONE_THREAD: Once = Once::new();

const MIB: f64 = 1024.0 * 1024.0;
/// The columns of [`row`].
pub(crate) const HEAD: &str = "| | text | pictures | steps | decoding | predicted | measured / predicted |\n\
     | --- | --- | --- | --- | --- | --- | --- |";

/// The most bytes that `work` holds at once, beyond those that were there before.
pub(crate) fn peak_of(work: impl FnOnce()) -> usize {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    work();
    HEAP.peak_usage().saturating_sub(before)
}

/// A job by what decides its memory.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    size: (u32, u32),
    images: &'static [(u32, u32)],
    text: usize,
    guided: bool,
    exact: bool,
    cached: bool,
    loras: &'static [&'static str],
}

impl Case {
    /// A picture of `size` from `images` and so many tokens of text.
    pub(crate) const fn new(size: (u32, u32), images: &'static [(u32, u32)], text: usize) -> Self {
        let loras = &[];
        Self { size, images, text, guided: false, exact: false, cached: false, loras }
    }

    /// With a negative prompt, so that every step goes through the transformer twice.
    pub(crate) const fn guided(self) -> Self {
        Self { guided: true, ..self }
    }

    /// With references that keep their own sizes.
    pub(crate) const fn exact(self) -> Self {
        Self { exact: true, ..self }
    }

    /// With steps that are kept to shorten later ones.
    pub(crate) const fn cached(self) -> Self {
        Self { cached: true, ..self }
    }

    /// With adapters of tests/golden/loras.
    pub(crate) const fn adapted(self, loras: &'static [&'static str]) -> Self {
        Self { loras, ..self }
    }

    fn params(&self) -> EditParams {
        EditParams {
            prompt: Prompt::new("make it black and white"),
            negative_prompt: self.guided.then(|| Prompt::new("grain, wet street")),
            true_cfg_scale: if self.guided { 2.0 } else { 1.0 },
            guidance_scale: 2.5,
            num_inference_steps: 2, // from the second on there is a velocity
            seed: 1,
            size: Some(Size::new(self.size.0, self.size.1)),
            aspect_ratio: None,
            max_sequence_length: self.text,
            reference_method: ReferenceMethod::Offset,
            step_cache: if self.cached { 0.1 } else { 0.0 },
            exact_size: self.exact,
            loras: self.loras.iter().map(|&name| lora(name)).collect(),
        }
    }

    fn job(&self) -> Result<Job> {
        let grey = |&(w, h): &(u32, u32)| {
            Pixels::new(w, h, vec![128; 3 * w as usize * h as usize]).context("a picture")
        };
        let images = self.images.iter().map(grey).collect::<Result<_>>()?;
        Ok(Job { params: self.params(), images })
    }

    /// What the cost model predicts.
    fn cost(&self, pipeline: &Pipeline) -> Result<Cost> {
        let images: Vec<Size> = self.images.iter().map(|&(w, h)| Size::new(w, h)).collect();
        let params = self.params();
        Ok(pipeline.cost(&JobShape { params: &params, images: &images })?)
    }

    /// Bytes that the cost model predicts.
    pub(crate) fn predicted(&self, pipeline: &Pipeline) -> Result<f64> {
        Ok(self.cost(pipeline)?.most() as f64)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (width, height) = self.size;
        write!(f, "{width}x{height}")?;
        for (number, (width, height)) in self.images.iter().enumerate() {
            write!(f, "{} {width}x{height}", if number == 0 { " from" } else { "," })?;
        }
        write!(f, ", {} of text", self.text)?;
        f.write_str(if self.guided { ", guided" } else { "" })?;
        f.write_str(if self.exact { ", exact" } else { "" })?;
        f.write_str(if self.cached { ", cached" } else { "" })?;
        self.loras.iter().try_for_each(|name| write!(f, ", {name}"))
    }
}

/// Peaks in bytes above what there was at the start.
pub(crate) struct Peaks {
    base: usize,
    /// Of text, pictures, steps, decoding.
    phases: [f64; 4],
}

impl Peaks {
    fn start() -> Self {
        HEAP.reset_peak_usage();
        Self { base: HEAP.current_usage(), phases: [0.0; 4] }
    }

    /// Counts what was allocated since the last call to a phase.
    fn note(&mut self, phase: usize) {
        let peak = HEAP.peak_usage().saturating_sub(self.base) as f64;
        self.phases[phase] = self.phases[phase].max(peak);
        HEAP.reset_peak_usage();
    }

    /// The highest of all phases.
    pub(crate) fn highest(&self) -> f64 {
        self.phases.iter().copied().fold(0.0, f64::max)
    }

    /// Bytes that are still there.
    pub(crate) fn left(&self) -> usize {
        HEAP.current_usage().saturating_sub(self.base)
    }
}

fn lora(name: &str) -> Lora {
    Lora { name: name.to_owned(), scale: 0.7 }
}

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn within(folder: &str, manifest: &Manifest, room: Room) -> Result<Pipeline> {
    let checkpoint = Checkpoint::open(&repository(folder), manifest, &Target::cpu())?;
    Ok(Pipeline::load(&checkpoint, &checkpoint.plan(room)?, |_| {})?)
}

/// kontext-tiny where jobs may take `jobs` bytes, and larger pictures go in tiles.
pub(crate) fn tiled(jobs: u64) -> Result<Pipeline> {
    let manifest = Manifest::open(&repository("models/kontext-tiny.toml"))?;
    within("models/kontext-tiny", &manifest, Room { jobs: Some(jobs), ..Room::ample() })
}

/// Loads a model, and runs a job so that buffers and caches are there before anything is counted.
fn load(folder: &str, manifest: &Manifest) -> Result<Pipeline> {
    ONE_THREAD.call_once(|| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
        pool.build_global().expect("nothing has run on rayon's threads yet");
    });
    let mut pipeline = within(folder, manifest, Room::ample())?;
    measure(&mut pipeline, &[Case::new((64, 64), &[(64, 64)], 512).guided().exact()])?;
    Ok(pipeline)
}

/// kontext-tiny.
pub(crate) fn tiny() -> Result<Pipeline> {
    load("models/kontext-tiny", &Manifest::open(&repository("models/kontext-tiny.toml"))?)
}

/// The golden model `name`.
pub(crate) fn golden(name: &str) -> Result<Pipeline> {
    load(&format!("tests/golden/models/{name}/model"), &Manifest::released()?)
}

/// kontext-tiny where everything is unpacked and where everything is streamed: bytes that it holds, those
/// that were planned for its networks, and those with what a process has besides.
pub(crate) fn loaded() -> Result<Vec<(u64, u64, u64)>> {
    tiny()?; // what is there once for all models
    let manifest = Manifest::open(&repository("models/kontext-tiny.toml"))?;
    let checkpoint =
        Checkpoint::open(&repository("models/kontext-tiny"), &manifest, &Target::cpu())?;
    let rooms = [Room::ample(), Room { free: 0, ..Room::ample() }];
    let measure = |room| {
        let plan = checkpoint.plan(room)?;
        let before = HEAP.current_usage();
        let pipeline = Pipeline::load(&checkpoint, &plan, |_| {})?;
        let held = HEAP.current_usage() - before;
        drop(pipeline);
        let planned = plan.parts.iter().map(|part| part.held).sum();
        Ok((held as u64, planned, plan.weights))
    };
    rooms.into_iter().map(measure).collect()
}

/// The golden model `base`, which may use the adapters of tests/golden/loras.
pub(crate) fn adapted() -> Result<Pipeline> {
    let mut pipeline = golden("base")?;
    pipeline.shelve(Arc::new(LoraShelf::new(&repository("tests/golden/loras"))));
    Ok(pipeline)
}

/// The peaks of jobs in one engine: prepared one after another, stepped together, decoded one after
/// another.
pub(crate) fn measure(pipeline: &mut Pipeline, cases: &[Case]) -> Result<Peaks> {
    let mut peaks = Peaks::start();
    let mut slots: Vec<Slot> = Vec::new();
    for case in cases {
        let slot = pipeline.admit(case.job()?)?;
        let mut phase = 0;
        loop {
            let told = pipeline.advance(slot, Duration::ZERO)?;
            phase = if matches!(told, Phase::Images(_)) { 1 } else { phase };
            peaks.note(phase);
            if matches!(told, Phase::Ready) {
                break;
            }
        }
        slots.push(slot);
    }
    for _ in 0..2 {
        for outcome in pipeline.step(&slots) {
            outcome.result?;
        }
        peaks.note(2);
    }
    for slot in slots {
        while !matches!(pipeline.advance(slot, Duration::ZERO)?, Phase::Done(_)) {}
        peaks.note(3);
        pipeline.release(slot);
    }
    Ok(peaks)
}

/// Bytes that jobs in one engine are allowed for by the scheduler: what all hold, and the largest peak.
pub(crate) fn together(pipeline: &Pipeline, cases: &[Case]) -> Result<f64> {
    let costs = cases.iter().map(|case| case.cost(pipeline)).collect::<Result<Vec<_>>>()?;
    let held: u64 = costs.iter().map(|cost| cost.memory).sum();
    let peak = costs.iter().map(|cost| cost.peak).max();
    Ok((held + peak.unwrap_or(0)) as f64)
}

/// The peaks of jobs in one engine as the scheduler has them: while the result of the first is under
/// way the others step.
pub(crate) fn interleaved(pipeline: &mut Pipeline, cases: &[Case]) -> Result<Peaks> {
    let step = |pipeline: &mut Pipeline, slots: &[Slot]| -> Result<()> {
        for outcome in pipeline.step(slots) {
            outcome.result?;
        }
        Ok(())
    };
    let mut peaks = Peaks::start();
    let mut slots: Vec<Slot> = Vec::new();
    for case in cases {
        let slot = pipeline.admit(case.job()?)?;
        while !matches!(pipeline.advance(slot, Duration::ZERO)?, Phase::Ready) {}
        slots.push(slot);
    }
    peaks.note(1);
    step(pipeline, &slots)?;
    peaks.note(2);
    let (first, others) = slots.split_first().context("no jobs")?;
    step(pipeline, &[*first])?;
    let mut waiting = true;
    loop {
        match pipeline.advance(*first, Duration::ZERO)? {
            // Near the end pictures are at their largest.
            Phase::Decoding(progress) if waiting && 4 * progress.done > 3 * progress.total => {
                step(pipeline, others)?;
                waiting = false;
            }
            Phase::Done(_) => break,
            _ => {}
        }
    }
    pipeline.release(*first);
    for slot in others {
        while !matches!(pipeline.advance(*slot, Duration::ZERO)?, Phase::Done(_)) {}
        pipeline.release(*slot);
    }
    peaks.note(3);
    Ok(peaks)
}

/// A row of the table, in MiB.
pub(crate) fn row(name: &str, peaks: &Peaks, predicted: f64) -> String {
    let [text, pictures, steps, decoding] = peaks.phases.map(|peak| peak / MIB);
    let ratio = peaks.highest() / predicted;
    format!(
        "| {name} | {text:.1} | {pictures:.1} | {steps:.1} | {decoding:.1} | {:.1} | {ratio:.2} |",
        predicted / MIB
    )
}
