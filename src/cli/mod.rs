//! The command line: what a person types, and what they read in answer. The only place that prints.
#![expect(clippy::print_stderr, reason = "printing is what this module is for")]

mod edit;
mod files;
mod progress;

use crate::{
    app::{AppError, EngineError, ImagingError, start_log},
    config::ConfigError,
    domain::ParamError,
};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A private FLUX.1-Kontext image-editing server.
#[derive(Debug, Parser)]
#[command(name = "darkroom", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Edit a picture: say what to change, keep the result.
    Edit(Box<edit::EditArgs>),
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
    let result = match Cli::parse().command {
        Command::Edit(args) => edit::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
