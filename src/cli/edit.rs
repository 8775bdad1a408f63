//! `darkroom edit`: one picture edited, from the command line.

use super::{CliError, files, lora::LoraArg, progress::Bars, progress::seconds};
use crate::{
    app::{Catalog, Compute, Draft, Editor, Job, ModelEntry, OutputFormat, decode, encode},
    config::{ModelSettings, Settings},
    domain::{AspectRatio, Bytes, ParamError, Prompt, ReferenceMethod},
};
use clap::Args;
use std::path::PathBuf;

/// The arguments of `darkroom edit`.
#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// The picture to edit, and further ones to refer to; `-` reads standard input.
    #[arg(long, short, num_args = 1.., value_name = "FILE")]
    image: Vec<PathBuf>,

    /// What to change.
    #[arg(long, short, value_name = "TEXT", required_unless_present = "style")]
    prompt: Option<String>,

    /// A style preset in place of a prompt, or before it; a wrong name lists them all.
    #[arg(long, short, value_name = "NAME")]
    style: Option<String>,

    /// Where the result goes; `-` writes standard output. [default: a new file in this folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Format of the result: png, jpeg or webp. [default: by the output's name, else png]
    #[arg(long, value_name = "FORMAT")]
    format: Option<OutputFormat>,

    /// A LoRA of models/loras by name, or a file, and its strength; may be given several times.
    #[arg(long, value_name = "NAME|FILE[=SCALE]")]
    lora: Vec<LoraArg>,

    /// A model by name, or the folder of one in the diffusers layout. [default: model.name]
    #[arg(long, short, value_name = "NAME|DIR")]
    model: Option<String>,

    /// What to avoid; needs --true-cfg-scale and doubles the work.
    #[arg(long, value_name = "TEXT", requires = "true_cfg_scale")]
    negative_prompt: Option<String>,

    /// Strength against the negative prompt, above 1.
    #[arg(long, value_name = "X", requires = "negative_prompt")]
    true_cfg_scale: Option<f32>,

    /// Strength of the prompt. [default: the model's]
    #[arg(long, value_name = "X")]
    guidance_scale: Option<f32>,

    /// Denoising steps. [default: the model's]
    #[arg(long, value_name = "N")]
    steps: Option<u32>,

    /// Seed of the noise: equal seeds give equal bytes. [default: a random one, which is told]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Width of the result in pixels. [default: chosen by the model's sizes]
    #[arg(long, value_name = "W", requires = "height", conflicts_with = "aspect_ratio")]
    width: Option<u32>,

    /// Height of the result in pixels.
    #[arg(long, value_name = "H", requires = "width", conflicts_with = "aspect_ratio")]
    height: Option<u32>,

    /// Aspect ratio of the result, such as 3:2, by the model's sizes.
    #[arg(long, value_name = "W:H")]
    aspect_ratio: Option<AspectRatio>,

    /// Tokens of the prompt, padding included. [default: the model's]
    #[arg(long, value_name = "N")]
    max_sequence_length: Option<usize>,

    /// Where several references stand: offset, or index for models trained so.
    #[arg(long, value_name = "METHOD", default_value = "offset")]
    reference_method: ReferenceMethod,

    /// Shorten steps whose first block differs by less than this part (0 to 1) from the last full
    /// step's. [default: 0, off]
    #[arg(long, value_name = "X")]
    step_cache: Option<f32>,

    /// What computes: auto, cpu, cuda:N or metal. [default: the first of model.device]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,

    /// Type of computation: auto, f32, bf16, f16, or, on a CPU with quantised weights, int8; auto is
    /// f32 on a CPU, bf16 on a GPU. [default: model.dtype]
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,

    /// For checking: take pictures at their own size, floored to multiples of 16.
    #[arg(long)]
    exact_size: bool,

    /// For checking: write the tensors of the run to a safetensors file.
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,

    /// Neither progress nor summary.
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(args: &EditArgs, settings: &Settings) -> Result<(), CliError> {
    let model = ModelEntry::find(args.model.as_ref().unwrap_or(&settings.model.name))?;
    let styles = args.style.as_ref().map(|_| Catalog::find()?.styles()).transpose()?;
    // What can be wrong with them is told before a model is loaded, which may take minutes.
    let params = args.draft().resolve(model.manifest.defaults, styles.as_ref())?;
    let format = args.output_format()?;
    let images = args
        .image
        .iter()
        .map(|path| {
            let name = files::name(path);
            decode(&files::read(path)?).map_err(|source| CliError::Picture { name, source })
        })
        .collect::<Result<Vec<_>, CliError>>()?;
    let own = &settings.model;
    let compute = Compute::of(&ModelSettings {
        devices: args.device.clone().map_or_else(|| own.devices.clone(), |device| vec![device]),
        dtype: args.dtype.clone().unwrap_or_else(|| own.dtype.clone()),
        ..own.clone()
    })?;

    let mut bars = Bars::new(args.quiet);
    let mut editor = Editor::load(&model, &compute, settings, |part| bars.loading(part))?;
    for LoraArg { lora, file } in args.loras() {
        if let Some(file) = file {
            editor.put_lora(&lora.name, &file);
        }
    }
    let (seed, steps) = (params.seed, params.num_inference_steps);
    let length = params.max_sequence_length;
    let job = Job { params, images };
    let memory = admit(&editor, &job, settings)?;
    let noted = bars.note(&format!("memory: {memory}"));
    let result =
        editor.edit(job, args.dump.is_some(), |stage, progress| bars.update(stage, progress));
    bars.finish();
    let edited = result?;

    let output = args.output.clone().unwrap_or_else(|| {
        let stem = args.image.first().filter(|path| !files::is_pipe(path));
        let stem = stem.and_then(|path| path.file_stem()).map(|s| s.to_string_lossy().into_owned());
        let suffix = args.style.as_deref().unwrap_or("edited");
        files::free_name(stem.as_deref().unwrap_or("darkroom"), suffix, format.extension())
    });
    files::write(&output, &encode(&edited.pixels, format).map_err(CliError::Encode)?)?;
    if let (Some(path), Some(trace)) = (&args.dump, &edited.trace) {
        let failed = |source| CliError::Write { name: files::name(path), source: Box::new(source) };
        trace.save(path).map_err(failed)?;
    }
    if args.quiet {
        return Ok(());
    }
    if !noted {
        eprintln!("memory: {memory}");
    }
    if edited.prompt_was_cut {
        eprintln!("note: the prompt is longer than {length} tokens, its end was left out");
    }
    let size = edited.pixels.size();
    let cropped = match edited.generated {
        generated if generated == size => String::new(),
        generated => format!(" (cropped from {generated})"),
    };
    let denoising = edited.denoising.as_secs_f64();
    let shortened = match edited.shortened {
        0 => String::new(),
        passes => format!(" ({passes} passes shortened)"),
    };
    eprintln!(
        "{}: {size}{cropped}, seed {seed}, {steps} steps{shortened}, {} ({:.2} s a step), {} on \
         {compute}",
        if files::is_pipe(&output) { "standard output".into() } else { output.to_string_lossy() },
        seconds(edited.total.as_secs_f64()),
        denoising / f64::from(steps),
        model.name,
    );
    Ok(())
}

/// What the edit will take, in words.
///
/// # Errors
/// [`CliError::Memory`] where that is more than a budget leaves.
fn admit(editor: &Editor, job: &Job, settings: &Settings) -> Result<String, CliError> {
    let (plan, bytes) = (editor.plan(), editor.predict(job)?);
    let peak = plan.peak(bytes);
    if settings.memory.budget.is_some() && bytes > plan.jobs {
        return Err(CliError::Memory { job: bytes, left: plan.jobs });
    }
    Ok(format!("{} at its peak; {plan}", Bytes(peak)))
}

impl EditArgs {
    /// The LoRAs; those from files have their place before their names, so that no two have one.
    fn loras(&self) -> impl Iterator<Item = LoraArg> {
        self.lora.iter().cloned().enumerate().map(|(i, mut arg)| {
            if arg.file.is_some() {
                arg.lora.name = format!("{}-{}", i + 1, arg.lora.name);
            }
            arg
        })
    }

    fn draft(&self) -> Draft {
        Draft {
            prompt: self.prompt.clone().map(Prompt::new),
            style: self.style.clone(),
            negative_prompt: self.negative_prompt.clone().map(Prompt::new),
            true_cfg_scale: self.true_cfg_scale,
            guidance_scale: self.guidance_scale,
            num_inference_steps: self.steps,
            seed: self.seed,
            width: self.width,
            height: self.height,
            aspect_ratio: self.aspect_ratio,
            max_sequence_length: self.max_sequence_length,
            reference_method: Some(self.reference_method),
            step_cache: self.step_cache,
            exact_size: self.exact_size,
            loras: self.loras().map(|arg| arg.lora).collect(),
        }
    }

    /// The format that was named, else that of the output's extension, else PNG.
    fn output_format(&self) -> Result<OutputFormat, ParamError> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let output = self.output.as_ref().filter(|path| !files::is_pipe(path));
        match output.and_then(|path| path.extension()) {
            None => Ok(OutputFormat::Png),
            Some(extension) => extension.to_string_lossy().to_lowercase().parse(),
        }
    }
}
