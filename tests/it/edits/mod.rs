//! kontext-tiny really edits: photographs that its training never saw, in wordings that it never
//! saw, against the truth that ordinary image code computes. benches/edits.rs runs all of them.

mod measure;
mod truth;

use crate::support::{picture, repository};
use anyhow::{Context, Result, ensure};
use darkroom::domain::Pixels;
use measure::{
    MIN_PSNR, Photo, Tiny, chroma, psnr, round_trip, shuffle_transformer, ssim, wordings,
};
use truth::{NAMES, truth};

fn tiny() -> Result<Tiny> {
    Tiny::load(&repository("models/kontext-tiny"), &repository("models/kontext-tiny.toml"))
}

#[test]
fn the_truth_equals_that_of_the_training_program() -> Result<()> {
    let golden = |name: &str| picture(&repository(&format!("tests/golden/edits/{name}.png")));
    let input = golden("input")?;
    for name in NAMES {
        let (found, expected) = (truth(name, &input).context(name)?, golden(name)?);
        let pairs = found.rgb().iter().zip(expected.rgb());
        let levels = pairs.map(|(a, b)| a.abs_diff(*b)).max().context("a picture")?;
        ensure!(levels <= 1, "{name} differs by {levels} levels");
        ensure!(found.rgb() != input.rgb(), "{name} does nothing");
    }
    ensure!(truth("unknown", &input).is_none());
    Ok(())
}

/// The photographs that the tests edit; benches/edits.rs takes all seven.
const PHOTOS: [&str; 3] = ["friends", "mountains", "sunset"];
/// The wording of the three that the tests use.
const WORDING: usize = 0;

fn prompts() -> Result<Vec<String>> {
    let all = wordings(&repository("models/kontext-tiny"))?;
    Ok(NAMES.iter().map(|name| all[*name][WORDING].clone()).collect())
}

/// The figures of one edit over the photographs.
#[derive(Clone, Copy, Default)]
struct Tally {
    psnr: f64,
    copy: f64,
    nearest: usize,
}

impl Tally {
    fn add(&mut self, photo: &Photo, result: &Pixels, index: usize) {
        let score = photo.score(result, index);
        self.psnr += score.psnr / PHOTOS.len() as f64;
        self.copy += score.copy / PHOTOS.len() as f64;
        self.nearest += usize::from(score.nearest == Some(index));
    }

    fn passes(&self) -> bool {
        self.psnr >= MIN_PSNR && self.nearest == PHOTOS.len()
    }
}

#[test]
fn the_edits_come_nearest_to_their_own_truth() -> Result<()> {
    let folder = repository("models/kontext-tiny");
    let mut tiny = tiny()?;
    let prompts = prompts()?;
    let mut edits = NAMES.map(|_| Tally::default());
    // The control: the input through the autoencoder, given as the result.
    let mut copies = edits;
    let mut trip = 0.0;
    for photo in PHOTOS {
        let photo = tiny.photo(&repository(&format!("tests/photos/{photo}.jpg")))?;
        let copy = round_trip(&folder, &photo.input)?;
        trip += psnr(&copy, &photo.input) / PHOTOS.len() as f64;
        for (index, result) in tiny.edit(&photo, &prompts)?.iter().enumerate() {
            edits[index].add(&photo, result, index);
            copies[index].add(&photo, &copy, index);
        }
    }
    for (name, edit) in NAMES.iter().zip(&edits) {
        let Tally { psnr, copy, nearest } = edit;
        let verdict = if edit.passes() { "passes" } else { "fails" };
        println!(
            "{name:16} {psnr:5.1} dB (a copy {copy:.1}), nearest on {nearest} of 3: {verdict}"
        );
    }
    println!("round trip {trip:.1} dB");
    let count = edits.iter().filter(|edit| edit.passes()).count();
    ensure!(count >= 12, "only {count} edits pass");
    ensure!(copies.iter().all(|copy| !copy.passes()), "a copy passes for an edit");
    ensure!(trip >= 25.0, "the round trip has {trip:.1} dB");
    Ok(())
}

#[test]
fn a_model_with_shuffled_weights_edits_nothing() -> Result<()> {
    let folder = repository("models/kontext-tiny");
    let copy = tempfile::tempdir()?;
    shuffle_transformer(&folder, copy.path())?;
    let mut shuffled = Tiny::load(copy.path(), &repository("models/kontext-tiny.toml"))?;
    let prompts = prompts()?;
    let photo = shuffled.photo(&repository("tests/photos/friends.jpg"))?;
    for (index, result) in shuffled.edit(&photo, &prompts)?.iter().enumerate() {
        let score = photo.score(result, index);
        let passes = score.psnr >= MIN_PSNR && score.nearest == Some(index);
        ensure!(!passes, "{} passes with {:.1} dB", NAMES[index], score.psnr);
    }
    Ok(())
}

/// The README's first command, as it is typed in the project's folder.
#[test]
fn the_first_command_makes_a_photograph_black_and_white() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("result.png");
    let photo = repository("tests/photos/friends.jpg");
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_darkroom"))
        .current_dir(repository(""))
        .args(["edit", "--style", "black-and-white", "--seed", "1", "--image"])
        .arg(&photo)
        .arg("-o")
        .arg(&output)
        .output()?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let result = picture(&output)?;
    let size = result.size();
    let input = darkroom::imaging::resize(&picture(&photo)?, size);
    let (colour, before) = (chroma(&result), chroma(&input));
    let similarity = ssim(&result, &input);
    println!("{size}: chroma {colour:.4} of {before:.4}, SSIM {similarity:.3}");
    ensure!(colour < (before / 10.0).max(0.03), "chroma {colour} of {before}");
    ensure!(similarity >= 0.6, "SSIM {similarity}");
    Ok(())
}
