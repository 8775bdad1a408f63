//! `darkroom pull`: a model from the hub or from a folder.

use super::{CliError, transfer::Bars};
use crate::{
    app::{Plan, PullRequest, pull},
    domain::Bytes,
};
use clap::Args;
use std::path::PathBuf;

/// The arguments of `darkroom pull`.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// A model that has a manifest, or a repository of the hub.
    #[arg(value_name = "NAME|OWNER/REPO[@REVISION]")]
    model: String,

    /// Its form, such as q4_k_m; a wrong name lists them all. Of a repository without a model in the
    /// diffusers layout: the file of weights. [default: the best that fits this machine]
    #[arg(long, value_name = "NAME|FILE")]
    variant: Option<String>,

    /// Take the files from a folder of this machine instead.
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,

    /// Make hard links to the files of that folder instead of copies.
    #[arg(long, requires = "from")]
    link: bool,

    /// A file with a token of the hub. [default: HF_TOKEN, then the file of the hub's own programs]
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    token_file: Option<PathBuf>,

    /// No progress.
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(args: &PullArgs) -> Result<(), CliError> {
    let request = PullRequest {
        model: &args.model,
        variant: args.variant.as_deref(),
        from: args.from.as_deref(),
        link: args.link,
        token_file: args.token_file.as_deref(),
    };
    let mut name = String::new();
    let mut bars = Bars::new(args.quiet);
    let plan = |plan: Plan<'_>| {
        plan.name.clone_into(&mut name);
        let reason = plan.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let variant =
            if plan.variant.is_empty() { "" } else { &format!(", variant {}", plan.variant) };
        eprintln!("{}{variant}{reason}", plan.name);
        if let Some(licence) = plan.licence {
            eprintln!("licence of its weights: {licence}");
        }
    };
    let lock = pull(&request, plan, &mut |event| bars.show(event));
    bars.clear();
    let lock = lock?;
    let (files, vouched) = (lock.files.len(), lock.vouched());
    let size = Bytes(lock.bytes());
    eprintln!(
        "{name} is complete: {files} files, {size}; the hub vouched for {vouched} of them, the others \
         are recorded as they came"
    );
    Ok(())
}
