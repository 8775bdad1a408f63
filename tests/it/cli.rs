//! The command line as a person meets it: pictures in, pictures out, and one line where it cannot.

use crate::support::{expect, picture, repository};
use anyhow::{Context, Result, ensure};
use darkroom::app::decode;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// `darkroom edit` in a folder of its own, with the golden model `base` under kontext-tiny's
/// manifest: small sizes and short prompts.
struct Shell {
    folder: TempDir,
    models: TempDir,
}

impl Shell {
    fn new() -> Result<Self> {
        let models = tempfile::tempdir()?;
        let weights = repository("tests/golden/models/base/model");
        std::os::unix::fs::symlink(weights, models.path().join("small"))?;
        fs::copy(repository("models/kontext-tiny.toml"), models.path().join("small.toml"))?;
        Ok(Self { folder: tempfile::tempdir()?, models })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the program with `--model` and `args`, `stdin` piped in.
    fn run(&self, args: &[&str], stdin: &[u8]) -> Result<Output> {
        self.run_with(&[], args, stdin)
    }

    fn run_with(&self, variables: &[(&str, &str)], args: &[&str], stdin: &[u8]) -> Result<Output> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_darkroom"))
            .current_dir(self.path())
            .arg("edit")
            .env("DARKROOM_LOG", "warn")
            .envs(variables.iter().copied())
            .arg("--model")
            .arg(self.models.path().join("small"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut pipe = child.stdin.take().context("a pipe")?;
        // Whoever refuses the arguments does not read.
        drop(pipe.write_all(stdin));
        drop(pipe);
        Ok(child.wait_with_output()?)
    }

    fn succeed(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args, &[])?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "{args:?}: {stderr}");
        ensure!(output.stdout.is_empty(), "something was printed to standard output");
        Ok(stderr)
    }

    /// The one line that a refused command says.
    fn refuse(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args, &[])?;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1), "{args:?}: {:?}, {stderr}", output.status);
        ensure!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{args:?}: {stderr}");
        Ok(stderr)
    }

    fn files(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.path())?;
        let mut names: Vec<String> = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }
}

const SQUARE: &str = "tests/golden/models/base/cases/edit_square/input.png";
const QUICK: [&str; 7] = ["--prompt", "make it red", "--exact-size", "--steps", "1", "--seed", "3"];

#[test]
fn an_edit_writes_a_new_picture_and_says_what_it_did() -> Result<()> {
    let shell = Shell::new()?;
    fs::copy(repository(SQUARE), shell.path().join("cat.png"))?;
    let edit = || shell.succeed(&[&["--image", "cat.png"], &QUICK[..]].concat());
    let summary = edit()?;
    ensure!(summary.contains("cat-edited.png: 64x64, seed 3, 1 steps"), "{summary}");
    ensure!(summary.contains("on cpu in f32"), "{summary}");
    edit()?;
    ensure!(
        shell.files()? == ["cat-edited-2.png", "cat-edited.png", "cat.png"],
        "{:?}",
        shell.files()
    );
    let read = |name: &str| fs::read(shell.path().join(name));
    ensure!(read("cat-edited.png")? == read("cat-edited-2.png")?, "equal seeds give equal bytes");
    ensure!(read("cat.png")? == fs::read(repository(SQUARE))?, "the input is as it was");
    Ok(())
}

#[test]
fn a_budget_is_kept_and_changes_no_byte() -> Result<()> {
    const BUDGET: &str = "DARKROOM__MEMORY__BUDGET";
    let shell = Shell::new()?;
    fs::copy(repository(SQUARE), shell.path().join("in.png"))?;
    let run = |budget: &str, more: &[&str]| -> Result<(bool, String)> {
        let args = [&["--image", "in.png"], &QUICK[..], more].concat();
        let output = shell.run_with(&[(BUDGET, budget)], &args, &[])?;
        Ok((output.status.success(), String::from_utf8(output.stderr)?))
    };
    let (done, said) = run("auto", &["-o", "whole.png"])?;
    ensure!(
        done && said.contains("memory: ") && said.contains("transformer F32 unpacked"),
        "{said}"
    );
    let (done, said) = run("25MiB", &["-o", "streamed.png"])?;
    ensure!(done && said.contains("transformer F32 streamed"), "{said}");
    let read = |name: &str| fs::read(shell.path().join(name));
    ensure!(read("whole.png")? == read("streamed.png")?, "other bytes within a budget");
    // A result of four times the pixels.
    let (done, said) = run("25MiB", &["--width", "1024", "--height", "1024"])?;
    expect(&said, &["error: this edit takes ", " and memory.budget leaves ", "make it smaller"])?;
    ensure!(!done && said.lines().count() == 1, "{said}");
    let (done, said) = run("20MiB", &[])?;
    expect(&said, &["error: memory.budget is 20.0 MiB, and this model needs at least "])?;
    ensure!(!done && said.lines().count() == 1, "{said}");
    Ok(())
}

#[test]
fn pipes_and_formats_work_and_a_random_seed_is_told() -> Result<()> {
    let shell = Shell::new()?;
    let args = ["--image", "-", "-o", "-", "--prompt", "x", "--exact-size", "--steps", "1"];
    for (format, magic) in [("png", &b"\x89PNG"[..]), ("jpeg", b"\xff\xd8\xff"), ("webp", b"RIFF")]
    {
        let args = [&args[..], &["--format", format]].concat();
        let output = shell.run(&args, &fs::read(repository(SQUARE))?)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{stderr}");
        ensure!(output.stdout.starts_with(magic), "{format}");
        let result = decode(&output.stdout)?;
        ensure!((result.width(), result.height()) == (64, 64));
        ensure!(stderr.contains("standard output: 64x64, seed "), "{stderr}");
    }
    ensure!(shell.files()?.is_empty(), "a pipe leaves no file");
    let output = shell.run(&[&args[..], &["--quiet"]].concat(), &fs::read(repository(SQUARE))?)?;
    ensure!(output.stderr.is_empty(), "{:?}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn sizes_follow_the_model_the_arguments_or_the_picture() -> Result<()> {
    let shell = Shell::new()?;
    fs::copy(repository(SQUARE), shell.path().join("in.png"))?;
    let size = |args: &[&str]| -> Result<(u32, u32)> {
        let common = ["--image", "in.png", "-o", "out.png", "--prompt", "x", "--steps", "1"];
        shell.succeed(&[&common, args].concat())?;
        let picture = picture(&shell.path().join("out.png"))?;
        Ok((picture.width(), picture.height()))
    };
    ensure!(size(&["--width", "50", "--height", "90"])? == (50, 90));
    ensure!(size(&["--width", "50", "--height", "90", "--exact-size"])? == (50, 90));
    ensure!(size(&["--exact-size"])? == (64, 64));
    ensure!(size(&[])? == (256, 256));
    ensure!(size(&["--aspect-ratio", "3:2"])? == (320, 208));
    Ok(())
}

#[test]
fn a_dump_holds_the_tensors_of_the_run() -> Result<()> {
    let shell = Shell::new()?;
    let input = repository(SQUARE);
    let input = input.to_string_lossy();
    shell.succeed(&[&["--image", &input, "--dump", "run.safetensors"], &QUICK[..]].concat())?;
    let path = shell.path().join("run.safetensors");
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu)?;
    let mut names: Vec<&str> = tensors.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "clip_ids",
        "decoded",
        "img_ids",
        "latents.0",
        "noise",
        "pooled_embeds",
        "prompt_embeds",
        "reference_latents",
        "reference_pixels",
        "sigmas",
        "t5_ids",
        "velocity.0",
    ];
    ensure!(names == expected, "{names:?}");
    Ok(())
}

#[test]
fn a_picture_that_cannot_be_used_is_named_with_the_reason() -> Result<()> {
    let shell = Shell::new()?;
    let write = |name: &str, bytes: &[u8]| fs::write(shell.path().join(name), bytes);
    let png = fs::read(repository(SQUARE))?;
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]); // 30000x30000
    write("empty.png", b"")?;
    write("text.png", b"this is no picture at all, only words")?;
    write("cut.png", &png[..png.len() / 2])?;
    write("huge.png", &huge)?;
    let cases = [
        ("empty.png", "empty"),
        ("text.png", "png, jpeg"),
        ("cut.png", "cut"),
        ("huge.png", "30000x30000"),
        ("absent.png", "No such file"),
    ];
    for (name, reason) in cases {
        let said = shell.refuse(&[&["--image", name], &QUICK[..]].concat())?;
        ensure!(said.contains(name), "{said}");
        ensure!(said.to_lowercase().contains(&reason.to_lowercase()), "{name}: {said}");
        println!("{}", said.trim_end());
    }
    ensure!(shell.files()?.len() == 4, "nothing was written");
    Ok(())
}

#[test]
fn pictures_of_every_kind_are_edited() -> Result<()> {
    let shell = Shell::new()?;
    let folder = repository("tests/golden/imaging/decode");
    for kind in [
        "jpeg_cmyk.jpg",
        "jpeg_orientation_6.jpg",
        "png_grey_alpha.png",
        "png_one_pixel.png",
        "png_palette_transparent.png",
        "png_rgb_16.png",
        "png_rgba.png",
        "webp_animated.webp",
    ] {
        let file = folder.join(kind);
        let file = file.to_string_lossy();
        let args = ["--image", &file, "-o", "out.png", "--width", "48", "--height", "32"];
        shell.succeed(&[&args[..], &["--prompt", "x", "--steps", "1"]].concat())?;
        let result = picture(&shell.path().join("out.png"))?;
        ensure!((result.width(), result.height()) == (48, 32), "{kind}");
    }
    Ok(())
}

#[test]
fn a_wrong_argument_is_named_with_what_is_allowed() -> Result<()> {
    let shell = Shell::new()?;
    fs::copy(repository(SQUARE), shell.path().join("in.png"))?;
    let cases: [(&[&str], &str); 10] = [
        (&["--steps", "0"], "num_inference_steps is 0, expected 1 to 1000"),
        (&["--guidance-scale", "NaN"], "guidance_scale is NaN"),
        (&["--width", "8", "--height", "64"], "width is 8, expected 16 to 4096 pixels"),
        (&["-o", "result.bmp"], "output_format is bmp, expected png, jpeg or webp"),
        (&["--device", "cuda:0"], "--features cuda"),
        (&["--device", "gpu"], "device is gpu, expected auto, cpu, cuda:N or metal"),
        (&["--dtype", "bf16"], "a CPU computes in f32"),
        (&["-o", "no/such/folder/out.png"], "cannot write no/such/folder/out.png"),
        (&["--max-sequence-length", "600"], "max_sequence_length is 600"),
        (&["--dump", "no/such/folder/run.safetensors"], "cannot write no/such/folder/run"),
    ];
    for (args, expected) in cases {
        let base = ["--image", "in.png", "--prompt", "make it red", "--exact-size"];
        let steps = if args.contains(&"--steps") { &[][..] } else { &["--steps", "1"] };
        let said = shell.refuse(&[&base[..], steps, args].concat())?;
        ensure!(said.contains(expected), "{args:?}: {said}");
    }
    // what clap refuses by itself says how it is used
    let cases: [(&[&str], &str); 4] = [
        (&[], "--prompt"),
        (&["--prompt", "x", "--width", "64"], "--height"),
        (&["--prompt", "x", "--negative-prompt", "y"], "--true-cfg-scale"),
        (&["--prompt", "x", "--aspect-ratio", "3:0"], "expected W:H"),
    ];
    for (args, expected) in cases {
        let output = shell.run(args, &[])?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(2) && said.contains(expected), "{args:?}: {said}");
    }
    Ok(())
}

#[test]
fn the_log_tells_sizes_and_times_and_never_a_prompt_or_a_file_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::copy(repository(SQUARE), folder.path().join("zebra-secret.png"))?;
    let output = Command::new(env!("CARGO_BIN_EXE_darkroom"))
        .current_dir(folder.path())
        .env("DARKROOM_LOG", "trace")
        .args(["edit", "--quiet", "--image", "zebra-secret.png", "--prompt", "walrus secret"])
        .args(["--exact-size", "--steps", "1", "-o", "giraffe-secret.png", "--model"])
        .arg(repository("tests/golden/models/base/model"))
        .output()?;
    let log = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{log}");
    for expected in ["model loaded", "admitted", "output=64x64", "denoising step"] {
        ensure!(log.contains(expected), "{expected} is not in: {log}");
    }
    ensure!(!log.contains("secret"), "{log}");
    Ok(())
}

#[test]
fn a_style_that_does_not_exist_lists_those_that_do() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_darkroom"))
        .current_dir(repository(""))
        .args(["edit", "--image", SQUARE, "--style", "baroque"])
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains("\"baroque\"") && said.contains("black-and-white"), "{said}");
    Ok(())
}

#[test]
fn adapters_are_named_by_file_or_by_name_with_a_scale() -> Result<()> {
    let shell = Shell::new()?;
    fs::copy(
        repository("tests/golden/loras/kohya.safetensors"),
        shell.path().join("a=b c.safetensors"),
    )?;
    let edit = |output: &str, loras: &[&str]| -> Result<Vec<u8>> {
        let mut args = [&["--output", output], &QUICK[..]].concat();
        for lora in loras {
            args.extend(["--lora", lora]);
        }
        shell.succeed(&args)?;
        Ok(fs::read(shell.path().join(output))?)
    };
    let plain = edit("plain.png", &[])?;
    let whole = edit("whole.png", &["a=b c.safetensors"])?;
    ensure!(plain != whole, "the adapter changes nothing");
    ensure!(edit("off.png", &["a=b c.safetensors=0"])? == plain);
    let halves = edit("halves.png", &["a=b c.safetensors=0.5", "a=b c.safetensors=0.5"])?;
    ensure!(halves != plain, "two halves change nothing");
    let refused = |lora| shell.refuse(&[&["--lora", lora], &QUICK[..]].concat());
    let error = refused("nothing=0.5")?;
    ensure!(error.contains("loras is \"nothing\""), "{error}");
    fs::write(shell.path().join("bad.safetensors"), "no")?;
    let error = refused("bad.safetensors")?;
    ensure!(error.contains("bad.safetensors is not a valid safetensors file"), "{error}");
    Ok(())
}
