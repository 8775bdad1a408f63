//! One admitted edit: everything it holds, and the slices of work that belong to it alone.
//!
//! A job walks through text, pictures, denoising and decoding. All but denoising is done here, one
//! unit at a time; the denoising steps of several jobs go through the transformer together, in
//! `batch`.

use super::{
    loras::{Attached, Loading},
    pack,
    parts::Parts,
    rng,
    sizes::Sizes,
    tokenizer::TokenizeError,
    trace::Trace,
};
use crate::{
    domain::{EditParams, Lora, Pixels, Prompt, Size},
    engine::{Phase, Progress},
    imaging,
    model::{flux::StepCache, lora::LoraError, rope::Rope, t5, vae},
};
use candle_core::{DType, Device, Tensor};

/// Why a unit of work failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    #[error(transparent)]
    Lora(#[from] LoraError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Two parts of this module disagree: nothing that a request can bring about.
    #[error("the job has no {0}")]
    Lost(&'static str),
}

type Result<T> = std::result::Result<T, WorkError>;

/// What the transformer is told by text.
#[derive(Debug)]
pub(super) struct Conditioning {
    /// T5's embeddings [tokens, d_t5].
    pub(super) text: Tensor,
    /// CLIP's pooled embedding [1, d_clip].
    pub(super) pooled: Tensor,
}

/// A job that is being denoised.
#[derive(Debug)]
pub(super) struct Denoising {
    pub(super) positive: Conditioning,
    pub(super) negative: Option<Conditioning>,
    /// The target's packed latents [tokens, 64], f32 whatever the type of computation.
    pub(super) latents: Tensor,
    /// The last step's velocity [tokens, 64], f32; none before the first.
    pub(super) velocity: Option<Tensor>,
    /// The references' packed latents, one after another [tokens, 64], where there are any.
    pub(super) references: Option<Tensor>,
    /// Angles of target and references.
    pub(super) rope: Rope,
    /// What each sequence keeps for shorter steps, the positive one's first; none where it is off.
    pub(super) caches: Vec<StepCache>,
    /// Noise levels, one more than steps.
    pub(super) sigmas: Vec<f32>,
    /// Steps done.
    pub(super) step: usize,
}

/// An edit under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) params: EditParams,
    pub(super) sizes: Sizes,
    pub(super) stage: Stage,
    pub(super) attached: Attached,
    pub(super) trace: Option<Trace>,
    /// Whether the prompt was longer than `max_sequence_length` and lost its end.
    pub(super) truncated: bool,
}

/// Where a job stands.
#[derive(Debug)]
pub(super) enum Stage {
    Text(Text),
    Pictures(Pictures),
    Denoising(Box<Denoising>),
    Decoding(vae::Pass),
    /// The result was given, or a unit failed; nothing is left to do.
    Over,
}

#[derive(Debug)]
pub(super) struct Text {
    images: Vec<Pixels>,
    /// The adapter that is being read.
    loading: Option<Box<Loading>>,
    /// T5 on its way through the prompt at hand.
    pass: Option<t5::Pass>,
    /// T5's part of the prompt at hand, while CLIP's is still to come.
    half: Option<Tensor>,
    done: Vec<Conditioning>,
}

#[derive(Debug)]
pub(super) struct Pictures {
    images: std::vec::IntoIter<Pixels>,
    pass: Option<vae::Pass>,
    positive: Conditioning,
    negative: Option<Conditioning>,
    /// Packed latents of the references so far.
    encoded: Vec<Tensor>,
}

impl Running {
    pub(super) fn new(params: EditParams, images: Vec<Pixels>, sizes: Sizes) -> Self {
        let stage =
            Stage::Text(Text { images, loading: None, pass: None, half: None, done: Vec::new() });
        let attached = Attached::default();
        Self { params, sizes, stage, attached, trace: None, truncated: false }
    }

    /// Its state while it is being denoised.
    pub(super) fn denoising(&self) -> Option<&Denoising> {
        match &self.stage {
            Stage::Denoising(denoising) => Some(denoising),
            _ => None,
        }
    }

    /// Runs one unit of work. A failed job is over.
    pub(super) fn unit(&mut self, parts: &mut Parts) -> Result<Phase> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Text(text) => self.text(text, parts),
            Stage::Pictures(pictures) => self.pictures(pictures, parts),
            Stage::Denoising(denoising) if denoising.finished() => {
                let latents = pack::unpack(&denoising.latents, self.sizes.generated)?;
                let extent = parts.costs.extent(self.sizes.generated, true);
                let pass = parts.vae.decode(&latents.to_dtype(parts.target.dtype)?, extent)?;
                self.decode(pass, parts)
            }
            Stage::Denoising(denoising) => {
                self.stage = Stage::Denoising(denoising);
                Ok(Phase::Ready)
            }
            Stage::Decoding(pass) => self.decode(pass, parts),
            Stage::Over => Err(WorkError::Lost("work left")),
        }
    }

    /// Reads some of the adapter that is next.
    fn load(&mut self, mut text: Text, parts: &Parts, lora: &Lora) -> Result<Phase> {
        let shelf = &parts.loras;
        let adapter = match (&mut text.loading, shelf.loaded(&lora.name)) {
            (None, Some(adapter)) => Some(adapter),
            (None, None) => {
                text.loading = Some(Box::new(shelf.open(&lora.name)?));
                None
            }
            (Some(loading), _) => loading.advance(shelf, &parts.transformer, &parts.clip)?,
        };
        if let Some(adapter) = adapter {
            self.attached.add(&adapter, lora.scale);
            text.loading = None;
        }
        self.stage = Stage::Text(text);
        let blocks = parts.t5.config().num_layers + 1; // and CLIP
        let total = self.params.loras.len() + blocks * prompts(&self.params).len();
        Ok(Phase::Text(Progress { done: self.attached.count(), total }))
    }

    fn text(&mut self, mut text: Text, parts: &mut Parts) -> Result<Phase> {
        if let Some(lora) = self.params.loras.get(self.attached.count()).cloned() {
            return self.load(text, parts, &lora);
        }
        let prompts = prompts(&self.params);
        let loras = self.attached.count();
        let at = text.done.len();
        let prompt = *prompts.get(at).ok_or(WorkError::Lost("prompt"))?;
        let mut trace = self.trace.as_mut().filter(|_| at == 0);
        match text.half.take() {
            None => {
                let mut pass = match text.pass.take() {
                    Some(pass) => pass,
                    None => {
                        let length = self.params.max_sequence_length;
                        let encoded = parts.t5_tokenizer.encode(prompt, length)?;
                        self.truncated |= encoded.truncated;
                        if let Some(trace) = &mut trace {
                            trace.ids("t5_ids", &encoded.ids)?;
                        }
                        parts.t5.encode(&encoded.ids)?
                    }
                };
                text.half = parts.t5.advance(&mut pass)?;
                match (&text.half, trace) {
                    (None, _) => text.pass = Some(pass),
                    (Some(embeddings), Some(trace)) => trace.rows("prompt_embeds", embeddings)?,
                    (Some(_), None) => {}
                }
            }
            Some(embeddings) => {
                let encoded = parts.clip_tokenizer.encode(prompt, parts.clip.max_tokens())?;
                let pooled = parts.clip.pooled(&encoded.ids, &self.attached.clip)?;
                if let Some(trace) = trace {
                    trace.ids("clip_ids", &encoded.ids)?;
                    trace.plain("pooled_embeds", pooled.to_dtype(DType::F32)?);
                }
                text.done.push(Conditioning { text: embeddings, pooled });
            }
        }
        if text.done.len() < prompts.len() {
            let blocks = parts.t5.config().num_layers;
            let here = match &text.pass {
                Some(pass) => pass.progress(&parts.t5).0,
                None if text.half.is_some() => blocks,
                None => 0,
            };
            let done = text.done.len() * (blocks + 1) + here;
            let total = prompts.len() * (blocks + 1);
            self.stage = Stage::Text(text);
            return Ok(Phase::Text(Progress { done: loras + done, total: loras + total }));
        }
        let mut conditionings = text.done.into_iter();
        let positive = conditionings.next().ok_or(WorkError::Lost("prompt"))?;
        self.next_picture(
            Pictures {
                images: text.images.into_iter(),
                pass: None,
                positive,
                negative: conditionings.next(),
                encoded: Vec::new(),
            },
            parts,
        )
    }

    /// Prepares the next reference for encoding, or goes on to denoising after the last.
    fn next_picture(&mut self, mut pictures: Pictures, parts: &Parts) -> Result<Phase> {
        let index = pictures.encoded.len();
        let Some(image) = pictures.images.next() else { return self.denoise(pictures, parts) };
        let size = *self.sizes.references.get(index).ok_or(WorkError::Lost("reference size"))?;
        let picture = to_tensor(&imaging::resize(&image, size), &parts.target.device)?;
        if let Some(trace) = &mut self.trace {
            trace.picture(numbered("reference_pixels", index), &picture)?;
        }
        let extent = parts.costs.extent(size, false);
        let pass = parts.vae.encode(picture.to_dtype(parts.target.dtype)?, extent)?;
        let (done, per_picture) = pass.progress(&parts.vae);
        pictures.pass = Some(pass);
        self.stage = Stage::Pictures(pictures);
        Ok(self.picture_progress(index, done, per_picture))
    }

    fn pictures(&mut self, mut pictures: Pictures, parts: &Parts) -> Result<Phase> {
        let index = pictures.encoded.len();
        let mut pass = pictures.pass.take().ok_or(WorkError::Lost("picture"))?;
        let Some(latents) = parts.vae.advance(&mut pass)? else {
            let (done, per_picture) = pass.progress(&parts.vae);
            pictures.pass = Some(pass);
            self.stage = Stage::Pictures(pictures);
            return Ok(self.picture_progress(index, done, per_picture));
        };
        let tokens = pack::pack(&latents)?;
        if let Some(trace) = &mut self.trace {
            trace.rows(numbered("reference_latents", index), &tokens)?;
        }
        pictures.encoded.push(tokens);
        self.next_picture(pictures, parts)
    }

    fn picture_progress(&self, index: usize, done: usize, per_picture: usize) -> Phase {
        let total = self.sizes.references.len() * per_picture;
        Phase::Images(Progress { done: index * per_picture + done, total })
    }

    fn denoise(&mut self, pictures: Pictures, parts: &Parts) -> Result<Phase> {
        let device = &parts.target.device;
        let size = self.sizes.generated;
        let channels = parts.vae.config().latent_channels;
        let (rows, columns) = pack::grid(size);
        let (h, w) = (2 * rows, 2 * columns);
        // torch draws [channels, h, w]; ours are channel-last
        let noise = Tensor::from_vec(
            rng::randn(self.params.seed, channels * h * w),
            (channels, h, w),
            device,
        )?;
        let latents = pack::pack(&noise.permute((1, 2, 0))?.contiguous()?)?; // (tokens, 64)
        let ids = pack::ids(size, &self.sizes.references, self.params.reference_method);
        let sigmas = parts.schedule.sigmas(self.params.num_inference_steps, rows * columns);
        if let Some(trace) = &mut self.trace {
            trace.rows("noise", &latents)?;
            let places: Vec<f32> = ids.iter().flatten().map(|&x| x as f32).collect();
            trace.plain("img_ids", Tensor::from_vec(places, (ids.len(), 3), &Device::Cpu)?);
            trace.plain("sigmas", Tensor::new(sigmas.as_slice(), &Device::Cpu)?);
        }
        let references = match pictures.encoded.as_slice() {
            [] => None,
            encoded => Some(Tensor::cat(encoded, 0)?),
        };
        let sequences = 1 + usize::from(pictures.negative.is_some());
        let threshold = self.params.step_cache;
        let caches = if threshold > 0.0 { sequences } else { 0 };
        self.stage = Stage::Denoising(Box::new(Denoising {
            positive: pictures.positive,
            negative: pictures.negative,
            latents,
            velocity: None,
            references,
            rope: Rope::new(&ids, parts.transformer.config().axes_dims_rope, device)?,
            caches: vec![StepCache::new(threshold); caches],
            sigmas,
            step: 0,
        }));
        Ok(Phase::Ready)
    }

    fn decode(&mut self, mut pass: vae::Pass, parts: &Parts) -> Result<Phase> {
        let Some(picture) = parts.vae.advance(&mut pass)? else {
            let (done, total) = pass.progress(&parts.vae);
            self.stage = Stage::Decoding(pass);
            return Ok(Phase::Decoding(Progress { done, total }));
        };
        let picture = picture.to_dtype(DType::F32)?;
        if let Some(trace) = &mut self.trace {
            trace.picture("decoded", &picture)?;
        }
        Ok(Phase::Done(to_pixels(&picture, self.sizes.output)?))
    }
}

impl Denoising {
    /// Whether all steps are done.
    pub(super) fn finished(&self) -> bool {
        self.step + 1 >= self.sigmas.len()
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { done: self.step, total: self.sigmas.len().saturating_sub(1) }
    }
}

/// What is encoded for a job.
fn prompts(params: &EditParams) -> Vec<&Prompt> {
    [Some(&params.prompt), params.effective_negative()].into_iter().flatten().collect()
}

/// `name` for the first of a kind, `name.1` and so on for the others.
fn numbered(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}.{index}") }
}

/// RGB bytes -> f32 (h, w, 3) in -1..1
fn to_tensor(pixels: &Pixels, device: &Device) -> candle_core::Result<Tensor> {
    let values: Vec<f32> = pixels.rgb().iter().map(|&x| f32::from(x) / 127.5 - 1.0).collect();
    Tensor::from_vec(values, (pixels.height() as usize, pixels.width() as usize, 3), device)
}

/// A level from about -1..1, rounded half to even, as numpy does it for diffusers; NaN is 0.
pub(super) fn byte(x: f32) -> u8 {
    ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

/// f32 (h, w, 3) in about -1..1 -> RGB bytes of its middle part of size `output`
fn to_pixels(picture: &Tensor, output: Size) -> Result<Pixels> {
    let (h, w, _) = picture.dims3()?;
    let (height, width) = (output.height as usize, output.width as usize);
    let top = h.checked_sub(height).ok_or(WorkError::Lost("rows that it should give"))? / 2;
    let left = w.checked_sub(width).ok_or(WorkError::Lost("columns that it should give"))? / 2;
    let middle = picture.narrow(0, top, height)?.narrow(1, left, width)?.contiguous()?;
    let values = middle.flatten_all()?.to_vec1::<f32>()?;
    let rgb = values.into_iter().map(byte).collect();
    Pixels::new(output.width, output.height, rgb).ok_or(WorkError::Lost("pixels"))
}
