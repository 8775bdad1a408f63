//! The command line: what a person types, and what they read in answer. The only place that prints.
#![expect(clippy::print_stderr, reason = "printing is what this module is for")]

mod doctor;
mod edit;
mod files;
mod lora;
mod models;
mod progress;
mod pull;
mod repair;
mod serve;
mod transfer;

use crate::{
    app::{AppError, DraftError, EngineError, ImagingError, start_log},
    config::{ConfigError, Settings},
    domain::{Bytes, ParamError},
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
    /// Get a model from the Hugging Face hub, a mirror of it, or a folder.
    Pull(pull::PullArgs),
    /// List, check and remove models.
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Look at machine, settings and models: what would not work, what would be slow, what to do.
    Doctor {
        /// As JSON: an array of objects with check, state, found and remedy.
        #[arg(long)]
        json: bool,
    },
    /// Make a store readable again whose database is damaged. Stop the server first.
    Repair,
}

/// Errors of the app are large, and a command's result is moved often.
impl From<AppError> for CliError {
    fn from(error: AppError) -> Self {
        Self::App(Box::new(error))
    }
}

/// Why a command failed: one line for the person who typed it.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    App(Box<AppError>),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Param(#[from] ParamError),
    #[error(transparent)]
    Draft(#[from] DraftError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "this edit takes {}, and memory.budget leaves {} for it: make it smaller, or raise the budget",
        Bytes(*job), Bytes(*left)
    )]
    Memory { job: u64, left: u64 },
    #[error("cannot read {name}: {source}")]
    Read { name: String, source: std::io::Error },
    #[error("{name}: {source}")]
    Picture { name: String, source: ImagingError },
    #[error("cannot encode the result: {0}")]
    Encode(#[source] ImagingError),
    #[error("cannot write {name}: {source}")]
    Write { name: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error(
        "{0} files are not what was recorded: delete them, and `darkroom pull` loads them anew"
    )]
    Damaged(usize),
    #[error("{0} of these things are bad")]
    Unwell(usize),
    #[error("nobody can be asked here: say --yes")]
    NotAsked,
}

/// Runs the command that was typed.
#[must_use]
pub fn main() -> ExitCode {
    start_log();
    let Cli { config, command } = Cli::parse();
    let settings = || Settings::load(config.as_deref(), variables());
    match run(command.unwrap_or(Command::Serve), settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    command: Command,
    settings: impl FnOnce() -> Result<Settings, ConfigError>,
) -> Result<(), CliError> {
    match command {
        Command::Serve => serve::run(&settings()?),
        Command::Edit(args) => edit::run(&args, &settings()?),
        Command::Pull(args) => pull::run(&args),
        Command::Models(command) => models::run(&command),
        Command::Doctor { json } => doctor::run(settings(), json),
        Command::Repair => repair::run(&settings()?),
    }
}

/// What the system says of standard output.
fn stdout(source: std::io::Error) -> CliError {
    CliError::Write { name: "standard output".to_owned(), source: source.into() }
}

/// The environment; a variable that is no text is none of ours.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
