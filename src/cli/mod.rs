//! The command line: what a person types, and what they read in answer. The only place that prints.
#![expect(clippy::print_stderr, reason = "printing is what this module is for")]

mod edit;
mod files;
mod progress;
mod repair;
mod serve;

use crate::{
    app::{AppError, DraftError, EngineError, ImagingError, start_log},
    config::{ConfigError, Settings},
    domain::ParamError,
};
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// A private FLUX.1-Kontext image-editing server.
#[derive(Debug, Parser)]
#[command(name = "darkroom", version, about, max_term_width = 100)]
struct Cli {
    /// The settings. [default: config.toml in this folder, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and its pages to clients of this machine. What runs if no command is given.
    Serve,
    /// Edit a picture: say what to change, keep the result.
    Edit(Box<edit::EditArgs>),
    /// Make a store readable again whose database is damaged. Stop the server first.
    Repair,
}

/// Why a command failed: one line for the person who typed it.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Param(#[from] ParamError),
    #[error(transparent)]
    Draft(#[from] DraftError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot read {name}: {source}")]
    Read { name: String, source: std::io::Error },
    #[error("{name}: {source}")]
    Picture { name: String, source: ImagingError },
    #[error("cannot encode the result: {0}")]
    Encode(#[source] ImagingError),
    #[error("cannot write {name}: {source}")]
    Write { name: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Runs the command that was typed.
#[must_use]
pub fn main() -> ExitCode {
    start_log();
    let Cli { config, command } = Cli::parse();
    let settings = Settings::load(config.as_deref(), variables()).map_err(CliError::from);
    let result = settings.and_then(|settings| match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&settings),
        Command::Edit(args) => edit::run(&args, &settings),
        Command::Repair => repair::run(&settings),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The environment; a variable that is no text is none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
