//! Which size everything gets, and where references stand.

use crate::support::{advance_to_ready, load_pipeline, params, repository};
use anyhow::{Context, Result, ensure};
use darkroom::{
    config::{Manifest, ReferenceSize, Sizing},
    domain::{AspectRatio, EditParams, Pixels, ReferenceMethod, Size},
    engine::{Engine, Job},
    model::weights::Target,
    pipeline::Sizes,
};

fn size(width: u32, height: u32) -> Size {
    Size::new(width, height)
}

fn released() -> Result<Sizing> {
    Ok(Manifest::released()?.sizing())
}

#[test]
fn a_picture_gets_the_preferred_size_of_the_nearest_ratio() -> Result<()> {
    let sizing = released()?;
    ensure!(sizing.preferred_sizes.len() == 17);
    // What diffusers' `min((abs(aspect - w / h), w, h))` gives, by its own list.
    for (input, expected) in [
        (size(1024, 1024), size(1024, 1024)),
        (size(10, 10), size(1024, 1024)),
        (size(1024, 683), size(1248, 832)),
        (size(683, 1024), size(832, 1248)),
        (size(4000, 3000), size(1184, 880)),
        (size(1920, 1080), size(1392, 752)),
        (size(1080, 2400), size(688, 1504)),
        (size(1, 100), size(672, 1568)),
        (size(100, 1), size(1568, 672)),
        // 0.9 lies between 944 / 1104 = 0.855 and 1024 / 1024
        (size(900, 1000), size(944, 1104)),
    ] {
        let plan = Sizes::plan(&sizing, &params("x"), &[input])?;
        ensure!(plan.output == expected, "{input}: {}, expected {expected}", plan.output);
        ensure!(plan.generated == expected && plan.references == [expected], "{input}: {plan:?}");
    }
    let text_only = Sizes::plan(&sizing, &params("x"), &[])?;
    ensure!(text_only.output == size(1024, 1024) && text_only.references.is_empty());
    Ok(())
}

#[test]
fn a_given_size_is_kept_and_generated_at_the_next_multiple() -> Result<()> {
    let wide = size(1248, 832);
    let given = EditParams { size: Some(size(500, 333)), ..params("x") };
    let plan = Sizes::plan(&released()?, &given, &[size(1024, 683)])?;
    ensure!(plan.output == size(500, 333) && plan.generated == size(512, 336), "{plan:?}");
    ensure!(plan.references == [wide], "Kontext's rule sizes references by themselves");

    let sizing = Sizing { reference_size: ReferenceSize::Output, ..released()? };
    let plan = Sizes::plan(&sizing, &given, &[size(1024, 683), size(30, 80)])?;
    ensure!(plan.references == [size(512, 336); 2], "{plan:?}");

    let ratio = EditParams { aspect_ratio: Some("2:3".parse::<AspectRatio>()?), ..params("x") };
    let plan = Sizes::plan(&sizing, &ratio, &[size(1024, 683)])?;
    ensure!(plan.output == size(832, 1248) && plan.references == [size(832, 1248)], "{plan:?}");
    Ok(())
}

#[test]
fn an_exact_size_is_floored_and_never_enlarged() -> Result<()> {
    let exact = EditParams { exact_size: true, ..params("x") };
    let plan = Sizes::plan(&released()?, &exact, &[size(101, 75)])?;
    ensure!(plan.output == size(96, 64) && plan.references == [size(96, 64)], "{plan:?}");
    let error = Sizes::plan(&released()?, &exact, &[size(101, 15)]).err().context("too small")?;
    ensure!(error.to_string() == "image is 101x15, exact_size takes pictures of at least 16x16");
    Ok(())
}

/// The places of the references' tokens: for each reference its index, first row and first column.
fn places(method: ReferenceMethod, references: &[Size]) -> Result<Vec<[f32; 3]>> {
    let folder = repository("tests/golden/models/base/model");
    let mut pipeline = load_pipeline(&folder, &Manifest::released()?, &Target::cpu())?;
    let grey = |s: &Size| {
        let bytes = vec![128; (s.width * s.height * 3) as usize];
        Pixels::new(s.width, s.height, bytes).context("a picture")
    };
    let params = EditParams {
        exact_size: true,
        reference_method: method,
        size: Some(size(32, 48)),
        ..params("x")
    };
    let images = references.iter().map(grey).collect::<Result<_>>()?;
    let slot = pipeline.admit(Job { params, images })?;
    pipeline.trace(slot);
    advance_to_ready(&mut pipeline, slot)?;
    let trace = pipeline.take_trace(slot).context("traced")?;
    let ids = trace.get("img_ids").context("ids")?.to_vec2::<f32>()?;
    let mut at = 2 * 3; // the target's tokens
    let mut firsts = Vec::new();
    for reference in references {
        firsts.push([ids[at][0], ids[at][1], ids[at][2]]);
        at += (reference.width / 16 * (reference.height / 16)) as usize;
    }
    ensure!(at == ids.len(), "{at} tokens, {} ids", ids.len());
    Ok(firsts)
}

#[test]
fn several_references_stand_on_a_growing_canvas_or_at_indices_of_their_own() -> Result<()> {
    let references = [size(64, 48), size(32, 64), size(48, 32)]; // 4x3, 2x4 and 3x2 tokens
    // By hand from ComfyUI's rule. First at (0, 0), the canvas is 3 rows by 4 columns. Second: 4 + 3
    // rows against 2 + 4 columns, more rows, so beside: column 4; the canvas is 4 by 6. Third: 2 + 4
    // against 3 + 6, fewer rows, so below: row 4.
    let offset = places(ReferenceMethod::Offset, &references)?;
    ensure!(offset == [[1.0, 0.0, 0.0], [1.0, 0.0, 4.0], [1.0, 4.0, 0.0]], "{offset:?}");
    let index = places(ReferenceMethod::Index, &references)?;
    ensure!(index == [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0]], "{index:?}");
    Ok(())
}
