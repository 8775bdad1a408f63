//! `darkroom pull`, `models` and `doctor`, against a hub on this machine: what comes, what is
//! recorded of it, and every way in which it can go wrong.

mod doctor;
mod faults;
mod models;
mod names;
mod program;
mod pull;
mod refusals;
mod server;

use crate::support::repository;
use anyhow::{Context, Result, ensure};
use darkroom::hub::{self, Event, Hub, HubError, Lock, Order, Token, Wanted};
use server::{LocalHub, Repository, What};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// The repository of most tests.
const REPO: &str = "lab/tiny";
/// Its large file.
const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

/// So many bytes that no pattern repeats in.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// A small repository in the diffusers layout, with things in it that are no part of a model.
fn tiny() -> Repository {
    Repository::new(
        REPO,
        &[
            (".gitattributes", b"*.safetensors filter=lfs", false),
            ("LICENSE.md", b"Do what you like.", false),
            ("README.md", b"# A model", false),
            ("model_index.json", b"{}", false),
            ("all-in-one.safetensors", &noise(1000), true),
            ("transformer/config.json", b"{\"a\": 1}", false),
            (WEIGHTS, &noise(300_000), true),
            ("transformer/pytorch_model.bin", b"a pickle", true),
            ("tokenizer/vocab.json", b"{\"b\": 2}", false),
            ("vae/diffusion_pytorch_model.safetensors", &noise(5000), true),
            ("feature_extractor/preprocessor_config.json", b"{}", false),
        ],
    )
}

/// The files of [`tiny`] that make up its model.
const MODEL: [&str; 6] = [
    "LICENSE.md",
    "model_index.json",
    "tokenizer/vocab.json",
    "transformer/config.json",
    WEIGHTS,
    "vae/diffusion_pytorch_model.safetensors",
];

/// A hub, and a folder of models of its own.
struct Place {
    hub: LocalHub,
    folder: TempDir,
}

impl Place {
    fn new(repositories: Vec<Repository>) -> Result<Self> {
        let place = Self { hub: LocalHub::start(repositories)?, folder: tempfile::tempdir()? };
        fs::create_dir(place.models())?;
        for name in ["kontext-tiny.toml", "styles.toml"] {
            fs::copy(repository("models").join(name), place.models().join(name))?;
        }
        Ok(place)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn models(&self) -> PathBuf {
        self.path().join("models")
    }

    /// The hub as the library sees it, with short pauses.
    fn client(&self, token: Option<&str>) -> Result<Hub> {
        let token = token.map(|token| Token::new(token, "the test".to_owned())).transpose()?;
        let mut hub = Hub::new(&self.hub.url(), token)?;
        hub.patience = Duration::from_secs(10);
        hub.pause = Duration::from_millis(1);
        Ok(hub)
    }

    /// Pulls [`REPO`] as `tiny`.
    fn pull(&self) -> Result<Lock, HubError> {
        self.pull_with(&self.client(None).expect("an address"), &mut |_| {})
    }

    fn pull_with(&self, hub: &Hub, tell: hub::Tell<'_>) -> Result<Lock, HubError> {
        hub::pull(hub, &self.models(), &order(REPO, "main"), tell)
    }

    /// A pull that must fail: what it says.
    fn refuse(&self) -> Result<String> {
        let error = self.pull().err().context("it must be refused")?.to_string();
        ensure!(!error.contains('\n'), "{error}");
        Ok(error)
    }

    /// A file of the model `tiny`.
    fn file(&self, path: &str) -> PathBuf {
        self.models().join("tiny").join(path)
    }

    /// What lies in the folder of the model `tiny`, sorted.
    fn files(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut folders = vec![self.models().join("tiny")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let inner = path.strip_prefix(self.models().join("tiny"))?;
                    found.push(inner.display().to_string());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The program in this place, with nothing of the environment.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("HF_ENDPOINT", self.hub.url())
            .env("HF_HOME", self.path().join("hf"))
            .env("HOME", self.path())
            .env("DARKROOM__STORE__PATH", self.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args).output()?)
    }

    /// What a command says that succeeds: on standard output and on standard error.
    fn succeed(&self, args: &[&str]) -> Result<(String, String)> {
        let output = self.run(args)?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success(), "{args:?}: {}, {out}{err}", output.status);
        Ok((out, err))
    }

    /// The error, one line, of a command that fails.
    fn fail(&self, args: &[&str]) -> Result<String> {
        error_of(&self.run(args)?)
    }
}

fn error_of(output: &Output) -> Result<String> {
    let said = String::from_utf8(output.stderr.clone())?;
    ensure!(output.status.code() == Some(1), "{}, {said}", output.status);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    ensure!(errors.len() == 1 && said.ends_with(&format!("{}\n", errors[0])), "{said}");
    Ok(errors[0].to_owned())
}

fn order(repo: &str, revision: &str) -> Order {
    let names = ["transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "scheduler"];
    let wanted = Wanted {
        repo: repo.to_owned(),
        revision: revision.to_owned(),
        path: String::new(),
        into: String::new(),
    };
    Order {
        name: hub::model_name(repo),
        variant: String::new(),
        wanted: vec![wanted],
        folders: names.map(str::to_owned).to_vec(),
    }
}

/// The bytes of `file` that the hub gave, and how often it was asked.
fn given(hub: &LocalHub, file: &str) -> (usize, usize) {
    let hash = crate::support::sha256(&noise(300_000));
    let asked: Vec<_> = hub
        .requests()
        .into_iter()
        .filter(|request| request.is("GET", file) || request.is("GET", &hash))
        .filter(|request| request.cdn)
        .collect();
    (asked.iter().map(|request| request.sent).sum(), asked.len())
}
