//! What several tests share: paths, pictures, and running one edit to its end.

use anyhow::{Context, Result, bail, ensure};
use darkroom::{
    app::decode,
    config::Manifest,
    domain::{EditParams, Pixels, Prompt, ReferenceMethod},
    engine::{Engine, Job, Phase, Slot},
    model::{LoadError, weights::Target},
    pipeline::{Checkpoint, Pipeline, Room, Trace},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// A path inside the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The model in `folder`, with all of its weights where they are fastest.
pub(crate) fn load_pipeline(
    folder: &Path,
    manifest: &Manifest,
    target: &Target,
) -> Result<Pipeline, LoadError> {
    let checkpoint = Checkpoint::open(folder, manifest, target)?;
    let plan = checkpoint.plan(Room::ample()).expect("there is no budget");
    Pipeline::load(&checkpoint, &plan, |_| {})
}

/// A decoded picture file.
pub(crate) fn picture(path: &Path) -> Result<Pixels> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    decode(&bytes).with_context(|| path.display().to_string())
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a name")?);
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            std::fs::write(target, std::fs::read(&path)?)?;
        }
    }
    Ok(())
}

/// Checks that an error says all of `parts`.
pub(crate) fn expect(error: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(error.contains(part), "{part:?} is not in: {error}");
    }
    Ok(())
}

/// Bytes that do not compress; others for each seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    // splitmix64
    let word = |index: u64| {
        let x = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)).to_le_bytes()
    };
    (0..).flat_map(word).take(bytes).collect()
}

/// Parameters for a prompt, everything else as plain as it gets.
pub(crate) fn params(prompt: &str) -> EditParams {
    EditParams {
        prompt: Prompt::new(prompt),
        negative_prompt: None,
        true_cfg_scale: 1.0,
        guidance_scale: 2.5,
        num_inference_steps: 2,
        seed: 1,
        size: None,
        aspect_ratio: None,
        max_sequence_length: 32,
        reference_method: ReferenceMethod::Offset,
        step_cache: 0.0,
        exact_size: false,
        loras: Vec::new(),
    }
}

/// Advances a job until it is ready for denoising, done, or would have to be decoded.
pub(crate) fn advance_to_ready(pipeline: &mut Pipeline, slot: Slot) -> Result<()> {
    loop {
        match pipeline.advance(slot, Duration::ZERO)? {
            Phase::Text(_) | Phase::Images(_) => {}
            Phase::Ready => return Ok(()),
            Phase::Decoding(_) | Phase::Done(_) => {
                bail!("the job was decoded before it was denoised")
            }
        }
    }
}

/// Decodes a denoised job.
pub(crate) fn decode_job(pipeline: &mut Pipeline, slot: Slot) -> Result<Pixels> {
    loop {
        match pipeline.advance(slot, Duration::ZERO)? {
            Phase::Decoding(_) => {}
            Phase::Done(pixels) => return Ok(pixels),
            Phase::Text(_) | Phase::Images(_) | Phase::Ready => bail!("the job is not denoised"),
        }
    }
}

/// Runs one job alone, and gives its result and its tensors.
pub(crate) fn run(pipeline: &mut Pipeline, job: Job) -> Result<(Pixels, Trace)> {
    let slot = pipeline.admit(job)?;
    pipeline.trace(slot);
    advance_to_ready(pipeline, slot)?;
    loop {
        let outcome = pipeline.step(&[slot]).pop().context("a step gives an outcome")?;
        let progress = outcome.result?;
        if progress.done == progress.total {
            break;
        }
    }
    let pixels = decode_job(pipeline, slot)?;
    let trace = pipeline.take_trace(slot).context("the job was traced")?;
    pipeline.release(slot);
    Ok((pixels, trace))
}

/// The SHA-256 of some bytes in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
