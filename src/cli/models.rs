//! `darkroom models`: what is here, whether it is whole, and away with it.

use super::{CliError, transfer::Bars};
use crate::{
    app::{Finding, Listed, ModelState, list, removable, remove, verify},
    domain::Bytes,
};
use clap::Subcommand;
use std::io::{BufRead, IsTerminal, Write};

/// What is done with models.
#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// List the models that are here or can be pulled.
    List,
    /// Read every file of a model, or of all, and compare it with what was recorded when it came.
    Verify {
        /// The model. [default: all that were pulled]
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Remove the files of a model that `darkroom pull` put there.
    Remove {
        /// The model.
        #[arg(value_name = "NAME")]
        name: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) fn run(command: &ModelsCommand) -> Result<(), CliError> {
    match command {
        ModelsCommand::List => show_list(),
        ModelsCommand::Verify { name } => check(name.as_deref()),
        ModelsCommand::Remove { name, yes } => take_away(name, *yes),
    }
}

fn show_list() -> Result<(), CliError> {
    let head =
        ["model", "here", "variant", "size", "checked by hash", "licence"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(list()?.iter().map(row)).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut out = std::io::stdout().lock();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end()).map_err(super::stdout)?;
    }
    Ok(())
}

fn row(model: &Listed) -> [String; 6] {
    let here = match model.state {
        ModelState::Shipped => "comes with Darkroom",
        ModelState::Pulled => "yes",
        ModelState::Incomplete => "in part",
        ModelState::Own => "yes, not pulled",
        ModelState::Absent => "no",
    };
    let size = match model.bytes {
        0 => "-".to_owned(),
        bytes => Bytes(bytes).to_string(),
    };
    let checked = match model.recorded {
        Some((files, vouched)) if files == vouched => format!("all {files} files"),
        Some((files, vouched)) => format!("{vouched} of {files} files, others unverified"),
        None => "-".to_owned(),
    };
    let licence = model.licence.clone();
    [model.name.clone(), here.to_owned(), model.variant.clone(), size, checked, licence]
}

fn check(name: Option<&str>) -> Result<(), CliError> {
    let mut bars = Bars::new(!std::io::stderr().is_terminal());
    let verified = verify(name, &mut |event| bars.show(event))?;
    let (mut out, mut wrong) = (std::io::stdout().lock(), 0);
    for (name, lock, findings) in &verified {
        for (file, finding) in lock.files.iter().zip(findings) {
            let said = match finding {
                Finding::Good => "ok".to_owned(),
                Finding::Missing => "missing".to_owned(),
                Finding::Size(bytes) => format!("has {bytes} bytes instead of {}", file.size),
                Finding::Changed(found) => {
                    format!("changed: SHA-256 {found} instead of {}", file.sha256)
                }
            };
            wrong += usize::from(*finding != Finding::Good);
            writeln!(out, "{name}/{}: {said}", file.path).map_err(super::stdout)?;
        }
    }
    if verified.is_empty() {
        writeln!(out, "nothing was pulled, so nothing is recorded").map_err(super::stdout)?;
    }
    if wrong > 0 { Err(CliError::Damaged(wrong)) } else { Ok(()) }
}

fn take_away(name: &str, yes: bool) -> Result<(), CliError> {
    let (files, bytes) = removable(name)?;
    if !yes {
        if !std::io::stdin().is_terminal() {
            return Err(CliError::NotAsked);
        }
        eprint!("remove {files} files of {name}, {}? [y/N] ", Bytes(bytes));
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        read.map_err(|source| CliError::Read { name: "standard input".to_owned(), source })?;
        if !["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
            eprintln!("nothing was removed");
            return Ok(());
        }
    }
    let removed = remove(name)?;
    let kept =
        if removed.kept { "; its folder stays, with what pull did not put there" } else { "" };
    eprintln!("{name}: {} files are gone, {}{kept}", removed.files, Bytes(removed.bytes));
    Ok(())
}
