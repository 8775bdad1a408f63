//! Adapters as jobs name them: found by name, weighed, read again when their file is another, and
//! dropped when there is no room.

use super::{
    adapter_path,
    batching::{named, pipeline},
};
use crate::support::{expect, load_pipeline, params, repository, run};
use anyhow::{Context, Result, ensure};
use darkroom::{
    config::Manifest,
    domain::{EditParams, Size},
    engine::{Engine, EngineError, Job, JobShape},
    model::weights::Target,
    pipeline::{LoraShelf, Pipeline},
};
use std::{fs, sync::Arc};

fn edit(loras: &[(&str, f32)]) -> EditParams {
    let size = Some(Size::new(32, 32));
    EditParams { size, exact_size: true, loras: named(loras), ..params("make it red") }
}

fn rgb(pipeline: &mut Pipeline, loras: &[(&str, f32)]) -> Result<Vec<u8>> {
    let job = Job { params: edit(loras), images: vec![] };
    Ok(run(pipeline, job)?.0.rgb().to_vec())
}

#[test]
fn what_cannot_be_is_refused_before_any_work() -> Result<()> {
    let mut pipeline = pipeline()?;
    let many: Vec<_> = (0..9).map(|_| ("bfl", 0.1)).collect();
    type Case<'a> = (&'a [(&'a str, f32)], &'a [&'a str]);
    let cases: [Case<'_>; 8] = [
        (&[("nothing", 1.0)], &["loras is \"nothing\", expected one of aitoolkit, bfl, bfl_bias"]),
        (&[("../bfl", 1.0)], &["loras is \"../bfl\", a name has 1 to 100 letters"]),
        (&[(".bfl", 1.0)], &["no '.' in front"]),
        (&[("", 1.0)], &["loras is \"\""]),
        (&[("bfl", 10.5)], &["loras is bfl=10.5, expected a scale from -10 to 10"]),
        (&[("bfl", f32::NAN)], &["loras is bfl=NaN"]),
        (
            &[("goldens", 1.0)],
            &["loras is \"goldens\"", "goldens.safetensors: ", "clip_ids", "I64"],
        ),
        (&many, &["loras is a list of 9, at most 8 are allowed"]),
    ];
    for (loras, expected) in cases {
        let error = pipeline.admit(Job { params: edit(loras), images: vec![] }).err();
        let error = error.context("it was admitted")?;
        ensure!(matches!(&error, EngineError::Param(e) if e.field == "loras"), "{error:?}");
        expect(&error.to_string(), expected)?;
        let params = edit(loras);
        let weighed = pipeline.cost(&JobShape { params: &params, images: &[] });
        ensure!(weighed.err().context("it was weighed")?.to_string() == error.to_string());
    }
    let folder = repository("tests/golden/models/base/model");
    let mut bare = load_pipeline(&folder, &Manifest::released()?, &Target::cpu())?;
    let error = bare.admit(Job { params: edit(&[("bfl", 1.0)]), images: vec![] }).err();
    expect(&error.context("it was admitted")?.to_string(), &["there are no LoRAs here"])
}

#[test]
fn adapters_are_listed_and_weighed() -> Result<()> {
    let pipeline = pipeline()?;
    let cost = |loras: &[(&str, f32)]| {
        let params = edit(loras);
        pipeline.cost(&JobShape { params: &params, images: &[] })
    };
    let (plain, one) = (cost(&[])?, cost(&[("bfl", 1.0)])?);
    let two = cost(&[("bfl", 1.0), ("xlabs", 1.0)])?;
    println!("{} bytes, {} with one, {} with two", plain.memory, one.memory, two.memory);
    ensure!(plain.memory + 20_000 < one.memory && one.memory < two.memory);
    ensure!(plain.step < one.step && one.step <= two.step && plain.tokens == one.tokens);
    Ok(())
}

#[test]
fn a_file_that_was_replaced_is_read_again_and_one_from_elsewhere_has_a_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let shelf = Arc::new(LoraShelf::new(&folder.path().join("later")));
    let mut pipeline = pipeline()?;
    pipeline.shelve(Arc::clone(&shelf));
    ensure!(shelf.list().is_empty());
    fs::create_dir(folder.path().join("later"))?;
    let mine = folder.path().join("later/mine.safetensors");
    let plain = rgb(&mut pipeline, &[])?;

    fs::copy(adapter_path("bfl"), &mine)?;
    let first = rgb(&mut pipeline, &[("mine", 1.0)])?;
    ensure!(first != plain && first == rgb(&mut pipeline, &[("mine.safetensors", 1.0)])?);
    ensure!(rgb(&mut pipeline, &[("mine", 0.0)])? == plain, "a scale of 0 is off");
    fs::remove_file(&mine)?;
    fs::copy(adapter_path("xlabs"), &mine)?;
    let second = rgb(&mut pipeline, &[("mine", 1.0)])?;
    ensure!(second != plain && second != first);

    shelf.put("other", &adapter_path("bfl"));
    ensure!(rgb(&mut pipeline, &[("other", 1.0)])? == first);
    fs::write(folder.path().join("later/broken.safetensors"), "no")?;
    fs::write(folder.path().join("later/no name.safetensors"), "no")?;
    let list = shelf.list();
    let names: Vec<&str> = list.iter().map(|listed| listed.name.as_str()).collect();
    ensure!(names == ["broken", "mine", "other"], "{names:?}");
    ensure!(list[0].summary.as_ref().is_err_and(|e| e.contains("shorter than 8 bytes")));
    ensure!(list[1].summary.as_ref().is_ok_and(|s| s.rank == 2 && s.families.contains("xlabs")));
    ensure!(list[2].bytes == fs::metadata(adapter_path("bfl"))?.len());
    Ok(())
}

#[test]
fn what_was_not_used_for_longest_is_dropped_first() -> Result<()> {
    let adapters = adapter_path("x");
    let shelf = LoraShelf::new(adapters.parent().context("a folder")?).keeping(100_000);
    let shelf = Arc::new(shelf);
    let mut pipeline = pipeline()?;
    pipeline.shelve(Arc::clone(&shelf));
    rgb(&mut pipeline, &[("bfl_bias", 1.0)])?;
    rgb(&mut pipeline, &[("comfyui_diff", 1.0)])?;
    rgb(&mut pipeline, &[("bfl_bias", 1.0)])?;
    ensure!(shelf.in_memory() == ["comfyui_diff", "bfl_bias"], "{:?}", shelf.in_memory());
    // It is larger than all that may be kept, and stays as the only one.
    rgb(&mut pipeline, &[("kohya", 1.0)])?;
    ensure!(shelf.in_memory() == ["kohya"], "{:?}", shelf.in_memory());
    rgb(&mut pipeline, &[("bfl_bias", 1.0)])?;
    ensure!(shelf.in_memory() == ["bfl_bias"], "{:?}", shelf.in_memory());
    Ok(())
}
