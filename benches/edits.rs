//! Every edit of kontext-tiny on every test photograph in every held-out wording, and the controls:
//! the table in models/kontext-tiny/README.md, and the contact sheet in docs/.
//!
//!     cargo bench --bench edits            all of it, some ten minutes
//!     cargo bench --bench edits -- quick   one wording, no controls, nothing is written
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

#[path = "../tests/it/edits/measure.rs"]
#[expect(dead_code, reason = "some of it is for the test")]
mod measure;
#[path = "../tests/it/edits/truth.rs"]
mod truth;

use anyhow::{Context, Result, ensure};
use darkroom::{
    config::Styles,
    domain::{Pixels, Size},
    imaging::{OutputFormat, encode, resize},
};
use measure::{MIN_PSNR, Photo, Tiny, psnr, round_trip, shuffle_transformer, ssim, wordings};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};
use truth::NAMES;

/// Photographs of the seven on which a result must be nearest to its own truth.
const MIN_NEAREST: usize = 6;
/// Side of a picture in the contact sheet.
const CELL: u32 = 208;
/// Where the table begins and ends in the README.
const MARKS: [&str; 2] = ["<!-- edits: begin -->", "<!-- edits: end -->"];

/// The figures of one edit over all photographs.
#[derive(Default)]
struct Row {
    psnr: Vec<f64>,
    copy: Vec<f64>,
    ssim: Vec<f64>,
    /// For each wording, on how many photographs the result is nearest to its own truth.
    nearest: [usize; 3],
    /// What the results were nearest to otherwise.
    mistaken: BTreeMap<&'static str, usize>,
}

impl Row {
    fn passes(&self, wordings: usize) -> bool {
        mean(&self.psnr) >= MIN_PSNR && self.nearest[..wordings].iter().all(|&n| n >= MIN_NEAREST)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn main() -> Result<()> {
    let quick = std::env::args().any(|arg| arg == "quick");
    let folder = repository("models/kontext-tiny");
    let manifest = repository("models/kontext-tiny.toml");
    let mut tiny = Tiny::load(&folder, &manifest)?;
    let photos = photos(&mut tiny)?;
    let wordings = wordings(&folder)?;

    let mut trips = Vec::new();
    for (_, photo) in &photos {
        trips.push(round_trip(&folder, &photo.input)?);
    }
    let trip =
        mean(&photos.iter().zip(&trips).map(|((_, p), t)| psnr(&p.input, t)).collect::<Vec<_>>());
    let count = if quick { 1 } else { 3 };
    let rows = edit_all(&mut tiny, &photos, &wordings, count)?;
    let table = table(&rows, count);
    println!("{table}\nround trip of the autoencoder: {trip:.1} dB on average");
    if quick {
        return Ok(());
    }

    // The controls, which must fail every edit.
    let mut copies = NAMES.map(|_| Row::default());
    for ((_, photo), trip) in photos.iter().zip(&trips) {
        for (index, row) in copies.iter_mut().enumerate() {
            judge(row, photo, trip, index, 0);
        }
    }
    let broken = tempfile::tempdir()?;
    shuffle_transformer(&folder, broken.path())?;
    let mut shuffled = Tiny::load(broken.path(), &manifest)?;
    let noise = edit_all(&mut shuffled, &photos, &wordings, 1)?;
    let passed = |rows: &[Row]| rows.iter().filter(|row| row.passes(1)).count();
    let controls = format!(
        "Controls: the round trip given as the result passes {} of {} edits, the model with its \
         transformer's weights shuffled {}.",
        passed(&copies),
        NAMES.len(),
        passed(&noise),
    );
    println!("{controls}");
    write_table(
        &folder,
        &format!(
            "{table}\nThe autoencoder's round trip of the seven photographs: {trip:.1} dB on average.\n{controls}\n"
        ),
    )?;
    contact_sheet(&mut tiny, &photos)?;
    ensure!(passed(&copies) == 0 && passed(&noise) == 0, "a control passed");
    Ok(())
}

fn photos(tiny: &mut Tiny) -> Result<Vec<(String, Photo)>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(repository("tests/photos"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "jpg"))
        .collect();
    paths.sort();
    ensure!(paths.len() == 7, "{} photographs", paths.len());
    let stem =
        |p: &Path| p.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    paths.iter().map(|path| Ok((stem(path), tiny.photo(path)?))).collect()
}

fn judge(row: &mut Row, photo: &Photo, result: &Pixels, index: usize, wording: usize) {
    let score = photo.score(result, index);
    row.psnr.push(score.psnr);
    row.copy.push(score.copy);
    row.ssim.push(ssim(result, &photo.input));
    if score.nearest == Some(index) {
        row.nearest[wording] += 1;
    } else {
        let name = score.nearest.map_or("the input", |i| NAMES[i]);
        *row.mistaken.entry(name).or_default() += 1;
    }
}

fn edit_all(
    tiny: &mut Tiny,
    photos: &[(String, Photo)],
    wordings: &BTreeMap<String, [String; 3]>,
    count: usize,
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = NAMES.iter().map(|_| Row::default()).collect();
    for wording in 0..count {
        let prompt = |name: &&str| Some(wordings.get(*name)?[wording].clone());
        let prompts: Vec<String> = NAMES.iter().filter_map(prompt).collect();
        for (_, photo) in photos {
            let results = tiny.edit(photo, &prompts)?;
            for (index, result) in results.iter().enumerate() {
                judge(&mut rows[index], photo, result, index, wording);
            }
        }
    }
    Ok(rows)
}

fn table(rows: &[Row], wordings: usize) -> String {
    let mut text = String::from(
        "| edit | PSNR to its truth, dB | of an unedited copy | nearest to its own truth, of 7, by wording | else nearest to | SSIM with the input | |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (name, row) in NAMES.iter().zip(rows) {
        let nearest: Vec<String> =
            row.nearest[..wordings].iter().map(ToString::to_string).collect();
        let mistaken: Vec<String> =
            row.mistaken.iter().map(|(n, c)| format!("{n} ({c})")).collect();
        writeln!(
            text,
            "| {name} | {:.1} | {:.1} | {} | {} | {:.2} | {} |",
            mean(&row.psnr),
            mean(&row.copy),
            nearest.join(", "),
            mistaken.join(", "),
            mean(&row.ssim),
            if row.passes(wordings) { "passes" } else { "fails" },
        )
        .ok();
    }
    let passed = rows.iter().filter(|row| row.passes(wordings)).count();
    writeln!(text, "\n{passed} of {} edits pass.", rows.len()).ok();
    text
}

fn write_table(folder: &Path, table: &str) -> Result<()> {
    let path = folder.join("README.md");
    let text = fs::read_to_string(&path)?;
    let (head, rest) = text.split_once(MARKS[0]).context("no place for the table")?;
    let (_, tail) = rest.split_once(MARKS[1]).context("no end of the table")?;
    Ok(fs::write(&path, format!("{head}{}\n\n{table}\n{}{tail}", MARKS[0], MARKS[1]))?)
}

/// All style presets on one photograph, in rows of six, the input first.
fn contact_sheet(tiny: &mut Tiny, photos: &[(String, Photo)]) -> Result<()> {
    const COLUMNS: usize = 6;
    let (_, photo) = photos.iter().find(|(name, _)| name == "friends").context("friends.jpg")?;
    let styles = Styles::open(&repository("models/styles.toml"))?;
    let prompts: Vec<String> = styles.iter().map(|style| style.prompt.clone()).collect();
    let mut cells = vec![photo.input.clone()];
    cells.extend(tiny.edit(photo, &prompts)?);
    let input = &photo.input;
    let cell = Size::new(CELL, (CELL * input.height()).div_ceil(input.width()));
    let rows = cells.len().div_ceil(COLUMNS);
    let (width, height) = (cell.width as usize, cell.height as usize);
    let mut rgb = vec![255; COLUMNS * width * 3 * rows * height];
    for (i, picture) in cells.iter().enumerate() {
        let small = resize(picture, cell);
        let (left, top) = (i % COLUMNS * width * 3, i / COLUMNS * height);
        for (y, line) in small.rgb().chunks_exact(width * 3).enumerate() {
            let start = (top + y) * COLUMNS * width * 3 + left;
            rgb[start..start + width * 3].copy_from_slice(line);
        }
    }
    let sheet =
        Pixels::new((COLUMNS * width) as u32, (rows * height) as u32, rgb).context("a sheet")?;
    Ok(fs::write(repository("docs/styles.jpg"), encode(&sheet, OutputFormat::Jpeg, Some(90))?)?)
}
