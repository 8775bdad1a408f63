//! Predicted memory against measured peaks, for jobs up to a thousand pixels a side and for batches:
//! the tables in RESULTS.md.
//!
//!     cargo bench --bench memory   some ten minutes
#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

#[path = "../tests/memory/measure.rs"]
#[expect(dead_code, reason = "some of it is for the test")]
mod measure;

use anyhow::Result;
use darkroom::pipeline::Pipeline;
use measure::{Case, HEAD, golden, interleaved, measure, row, tiny, together};

const JOBS: &[Case] = &[
    Case::new((16, 16), &[], 32),
    Case::new((64, 64), &[(64, 64)], 32),
    Case::new((128, 128), &[], 32),
    Case::new((128, 128), &[], 512),
    Case::new((128, 128), &[(128, 128)], 256),
    Case::new((256, 256), &[(256, 256)], 32),
    Case::new((256, 256), &[(1200, 800)], 512),
    Case::new((256, 256), &[(4000, 3000)], 32),
    Case::new((256, 256), &[(4000, 3000), (3000, 4000), (2000, 2000)], 128).guided(),
    Case::new((256, 256), &[(256, 256); 8], 512).guided().exact(),
    Case::new((384, 384), &[(4000, 3000)], 64),
    Case::new((176, 368), &[(800, 1500), (100, 100)], 64),
    Case::new((208, 1008), &[(512, 384), (96, 640)], 64).exact(),
    Case::new((1024, 256), &[(640, 480)], 128),
    Case::new((128, 128), &[(896, 640)], 64).exact(),
    Case::new((512, 512), &[(512, 512)], 512),
    Case::new((768, 768), &[(768, 768), (300, 500)], 256).guided(),
    Case::new((1024, 1024), &[], 64),
    Case::new((1024, 1024), &[(1024, 1024)], 512).guided(),
    Case::new((1024, 1024), &[(128, 128), (512, 768), (1024, 1024)], 512).exact(),
];
const SMALL: Case = Case::new((256, 256), &[(256, 256)], 32);
const GUIDED: Case = Case::new((128, 128), &[(640, 480)], 64).guided();
const PLAIN: Case = Case::new((320, 208), &[], 512);
const LONG: Case = Case::new((256, 256), &[(256, 256); 8], 512).guided().exact();
const BATCHES: &[(&str, &[Case])] = &[
    ("2 alike", &[SMALL; 2]),
    ("8 alike", &[SMALL; 8]),
    ("3 mixed", &[SMALL, GUIDED, PLAIN]),
    ("8 mixed", &[SMALL, GUIDED, PLAIN, SMALL, LONG, GUIDED, PLAIN, SMALL]),
    ("4 of long steps", &[LONG; 4]),
];

fn jobs(name: &str, pipeline: &mut Pipeline, cases: &[Case]) -> Result<()> {
    println!("\n{name}, MiB\n\n{HEAD}");
    for case in cases {
        let predicted = case.predicted(pipeline)?;
        println!("{}", row(&case.to_string(), &measure(pipeline, &[*case])?, predicted));
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut pipeline = tiny()?;
    println!("Batches in kontext-tiny, against what is allowed for, MiB\n\n{HEAD}");
    for (name, cases) in BATCHES {
        let allowed = together(&pipeline, cases)?;
        println!("{}", row(name, &measure(&mut pipeline, cases)?, allowed));
        let at_once = interleaved(&mut pipeline, cases)?;
        println!("{}", row(&format!("{name}, at once"), &at_once, allowed));
    }
    jobs("kontext-tiny", &mut pipeline, JOBS)?;
    for name in ["base", "wide", "noguide"] {
        // What has no exact size is stretched to a megapixel by these models.
        let cases: Vec<Case> = JOBS[..7].iter().map(|case| case.exact()).collect();
        jobs(name, &mut golden(name)?, &cases)?;
    }
    Ok(())
}
