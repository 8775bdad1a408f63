//! `darkroom serve`: what the person who starts a server reads.

use super::CliError;
use crate::{
    app::{Notice, Report, Usual, serve},
    config::Settings,
    domain::Bytes,
};

pub(super) fn run(settings: &Settings) -> Result<(), CliError> {
    serve(settings, |notice| match notice {
        Notice::Loading(model) => eprintln!("loading {model}"),
        Notice::Ready(report) => ready(report),
        Notice::Stopping { running: 0, .. } => eprintln!("stopping"),
        Notice::Stopping { running, within } => eprintln!(
            "stopping: {running} running jobs have {} s to end; a second signal ends them now",
            within.as_secs(),
        ),
    })?;
    eprintln!("stopped");
    Ok(())
}

fn ready(report: &Report) {
    let Report { url, model, compute, store, sealer, .. } = report;
    eprintln!("Darkroom {} is ready at {url}", env!("CARGO_PKG_VERSION"));
    if let Some(fingerprint) = &report.fingerprint {
        eprintln!("  certificate  SHA-256 {fingerprint}");
    }
    eprintln!("  model        {} on {compute}", model.full());
    for plan in &report.plans {
        eprintln!("  weights      {plan}");
        let Usual { size, bytes } = plan.usual;
        eprintln!(
            "  memory       {} without jobs, {} with one of {size}, {} for all jobs",
            Bytes(plan.weights),
            Bytes(plan.peak(bytes)),
            Bytes(plan.jobs),
        );
    }
    eprintln!("               {} for inputs", Bytes(report.inputs));
    eprintln!("  results      {}, {sealer}: {}", store.display(), report.sweep);
    eprintln!("  inputs       in memory only, gone when their job ends");
    if !report.swap.is_empty() {
        eprintln!(
            "warning: memory may be written to {}, which is not encrypted: switch swap off \
             (swapoff -a) or encrypt it, or an input may reach a disk",
            report.swap.join(", "),
        );
    }
}
