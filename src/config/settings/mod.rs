//! The server's settings: defaults, over them config.toml, over that the environment.
//!
//! The command line loads them once at the start and hands each part its section. A setting is
//! checked here alone, and is nothing but a value: no file but config.toml is opened, no address
//! bound and no device looked for.

mod given;
mod keys;
pub mod units;

use super::{ConfigError, line_of, read_text, syntax};
use given::Given;
use keys::Key;
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use toml::de::{DeTable, DeValue};

/// The file that is read where none is named, in the working folder.
const FILE: &str = "config.toml";
/// How a variable begins that overrides a key.
const VARIABLES: &str = "DARKROOM__";
/// The most that an error shows of a name or a value, in characters.
const SHOWN: usize = 100;

/// All settings, one field for a section of config.toml, where each key is described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the sections say what they are")]
pub struct Settings {
    pub server: ServerSettings,
    pub store: StoreSettings,
    pub model: ModelSettings,
    pub memory: MemorySettings,
    pub scheduler: SchedulerSettings,
    pub jobs: JobSettings,
    pub limits: LimitSettings,
    pub webhooks: OutboundSettings,
    pub fetch: OutboundSettings,
}

/// How the server is reached, and how long it waits for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where it listens: a loopback address.
    pub bind: SocketAddr,
    /// Bytes of a request's body.
    pub max_body: u64,
    /// Connections at once.
    pub max_connections: usize,
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// How long a body or a response may move no byte.
    pub idle_timeout: Duration,
    /// How long running jobs may go on after SIGTERM.
    pub drain: Duration,
    /// Further names of the server, in lower case and without port.
    pub hosts: Vec<String>,
    /// How connections are encrypted.
    pub tls: TlsSettings,
}

/// How connections are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Whether they are, and whose certificate is used.
    pub mode: TlsMode,
    /// PEM file of the certificate chain; empty but in [`TlsMode::Files`].
    pub certificate: PathBuf,
    /// PEM file of its private key; empty but in [`TlsMode::Files`].
    pub key: PathBuf,
}

/// Whose certificate is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// None: plain HTTP.
    #[default]
    Off,
    /// One that the server makes for itself.
    SelfSigned,
    /// The operator's.
    Files,
}

/// Where results are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The store's folder, absolute or relative to the working folder.
    pub path: PathBuf,
    /// Where pictures lie inside it.
    pub blobs: Blobs,
}

/// Where pictures lie inside the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blobs {
    /// In a file each.
    #[default]
    Files,
    /// In the database.
    Sled,
}

/// What computes, and on which device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSettings {
    /// A model's name or folder.
    pub name: String,
    /// `auto`, `cpu`, `cuda:N` or `metal`: which of them is there, only the device's owner knows. Where
    /// there are several, all are `cpu`, or all are different `cuda:N`; there is always one.
    pub devices: Vec<String>,
    /// `auto`, `f32`, `bf16`, `f16` or `int8`.
    pub dtype: String,
}

/// How much memory the model and its jobs may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySettings {
    /// Bytes of the process on a CPU, of each device on GPUs; none where the server chooses.
    pub budget: Option<u64>,
}

/// What runs at once, and what waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerSettings {
    /// Jobs on a device.
    pub jobs: usize,
    /// Jobs of one user on all devices.
    pub jobs_per_user: usize,
    /// Tokens in one step of all jobs.
    pub tokens: usize,
    /// Bytes that all jobs on a device may need, by prediction; none where the server chooses.
    pub memory: Option<u64>,
    /// Jobs that wait.
    pub queue: usize,
    /// How long a batch job waits before it counts as an interactive one.
    pub patience: Duration,
}

/// How long what a job leaves behind can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSettings {
    /// The job once it has ended, and its idempotency key.
    pub keep: Duration,
    /// The result of an ephemeral job, which waits in memory.
    pub ephemeral: Duration,
}

/// What a request may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Bytes of all jobs' uploads and decoded inputs together.
    pub input_memory: u64,
    /// Pixels of a picture.
    pub max_pixels: u64,
    /// Pixels on a side of a picture.
    pub max_side: u32,
    /// Reference pictures of one job.
    pub images: usize,
}

/// Which hosts the server may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundSettings {
    /// Host names in lower case, with a port or without.
    pub allow_hosts: Vec<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8484)),
            max_body: 64 << 20,
            max_connections: 4096,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            hosts: Vec::new(),
            tls: TlsSettings::default(),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { path: PathBuf::from("darkroom-data"), blobs: Blobs::Files }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        let auto = || "auto".to_owned();
        Self { name: "kontext-tiny".to_owned(), devices: vec![auto()], dtype: auto() }
    }
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        Self {
            jobs: 8,
            jobs_per_user: 8,
            tokens: 65_536,
            memory: None,
            queue: 64,
            patience: Duration::from_secs(5 * 60),
        }
    }
}

impl Default for JobSettings {
    fn default() -> Self {
        Self { keep: Duration::from_secs(24 * 3600), ephemeral: Duration::from_secs(10 * 60) }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { input_memory: 2 << 30, max_pixels: 64_000_000, max_side: 32_768, images: 8 }
    }
}

impl Settings {
    /// The settings of `file`, or of config.toml in the working folder where that is there; over
    /// them those of the variables of `env` that begin with `DARKROOM__`, as in
    /// `DARKROOM__SERVER__TLS__MODE`. What neither says has its default.
    ///
    /// # Errors
    /// [`ConfigError`] where `file` is not there or cannot be read, and where a key or a value
    /// cannot be used: with the file and line or the variable, the key, the value and what is
    /// allowed.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut draft = Draft::default();
        let path = file.unwrap_or(Path::new(FILE));
        match read_text(path) {
            Ok(text) => draft.file(path, &text)?,
            Err(ConfigError::Io { source, .. })
                if file.is_none() && source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for (variable, value) in env {
            if let Some(name) = variable.strip_prefix(VARIABLES) {
                draft.variable(&variable, name, &value)?;
            }
        }
        draft.check_tls()?;
        Ok(draft.settings)
    }
}

/// Settings while they are read.
#[derive(Default)]
struct Draft {
    settings: Settings,
    /// Where each key was set last.
    places: BTreeMap<&'static str, String>,
}

impl Draft {
    fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table = DeTable::parse(text).map_err(|error| syntax(path, text, &error))?;
        self.table(path, text, "", table.get_ref())
    }

    /// Sets what a table of the file says; `section` is how the names of its keys begin.
    fn table(
        &mut self,
        path: &Path,
        text: &str,
        section: &str,
        table: &DeTable<'_>,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let line = line_of(text, key.span().start);
            let place = format!("{}: line {line}", path.display());
            let shown = text.get(value.span()).unwrap_or_default();
            let key = key.get_ref();
            // A key in quotes that has a point in it is one key, not two.
            let key = if key.contains('.') { format!("{key:?}") } else { key.to_string() };
            let name = format!("{section}{key}");
            match (keys::find(&name), value.get_ref()) {
                (Some(key), value) => self.set(key, place, Given::Value(value), shown)?,
                (None, DeValue::Table(inner)) if !inner.is_empty() || keys::is_section(&name) => {
                    self.table(path, text, &format!("{name}."), inner)?;
                }
                (None, _) if keys::is_section(&name) => {
                    return Err(wrong(&place, &name, shown, &format!("a section, [{name}]")));
                }
                (None, _) => {
                    let name = clean(&name);
                    let reason = format!("{name} is not a known key");
                    return Err(unknown(place, &reason, &keys::nearest(&name)));
                }
            }
        }
        Ok(())
    }

    /// Sets what a variable says; `name` is what follows `DARKROOM__` in it.
    fn variable(&mut self, variable: &str, name: &str, value: &str) -> Result<(), ConfigError> {
        if let Some(key) = keys::of_variable(variable) {
            return self.set(key, variable.to_owned(), Given::Bare(value), &format!("{value:?}"));
        }
        let name = clean(name).replace("__", ".").to_ascii_lowercase();
        let nearest: Vec<_> = keys::nearest(&name).into_iter().map(keys::variable).collect();
        Err(unknown(clean(variable), "not a known variable", &nearest))
    }

    fn set(
        &mut self,
        (name, set): Key,
        place: String,
        value: Given<'_>,
        shown: &str,
    ) -> Result<(), ConfigError> {
        set(&mut self.settings, value).map_err(|expected| wrong(&place, name, shown, &expected))?;
        self.places.insert(name, place);
        Ok(())
    }

    /// The operator's certificate is named where it is used, and nowhere else.
    fn check_tls(&self) -> Result<(), ConfigError> {
        let tls = &self.settings.server.tls;
        let expected = match tls.mode {
            TlsMode::Files => "the path of a PEM file, because server.tls.mode is \"files\"",
            TlsMode::Off | TlsMode::SelfSigned => "\"\", because server.tls.mode is not \"files\"",
        };
        for (key, path) in
            [("server.tls.certificate", &tls.certificate), ("server.tls.key", &tls.key)]
        {
            if path.as_os_str().is_empty() == (tls.mode == TlsMode::Files) {
                let place = self.places.get(key).or(self.places.get("server.tls.mode"));
                let place = place.map_or("settings", String::as_str);
                return Err(wrong(place, key, &format!("{path:?}"), expected));
            }
        }
        Ok(())
    }
}

fn wrong(place: &str, key: &str, shown: &str, expected: &str) -> ConfigError {
    let reason = format!("{key} is {}, expected {expected}", clean(shown));
    ConfigError::Setting { place: place.to_owned(), reason }
}

fn unknown(place: String, what: &str, nearest: &[impl AsRef<str>]) -> ConfigError {
    let nearest: Vec<&str> = nearest.iter().map(AsRef::as_ref).collect();
    let one_of = if nearest.len() == 1 { "" } else { "one of " };
    let reason = format!("{what}, did you mean {one_of}{}?", nearest.join(", "));
    ConfigError::Setting { place, reason }
}

/// A name or value for an error: one line of bounded length.
fn clean(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = line.take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
