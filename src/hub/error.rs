//! What can go wrong between a hub, a folder and the model's files; each says what to do.

use std::{io, path::PathBuf};

/// Why a model could not be pulled, checked or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are named in the messages")]
pub enum HubError {
    /// The address of the hub is none.
    #[error("HF_ENDPOINT is {value:?}, expected http://HOST or https://HOST: {reason}")]
    Endpoint { value: String, reason: &'static str },
    /// A token cannot be used. It is never shown.
    #[error("the token in {place} cannot be used: {reason}")]
    Token { place: String, reason: String },
    /// The environment forbids it.
    #[error("HF_HUB_OFFLINE is set, so nothing is downloaded; --from FOLDER takes files from here")]
    Offline,
    /// No connection.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },
    /// The connection broke, again and again.
    #[error("the connection to {host} broke off ({reason}); the same command goes on from there")]
    Broken { host: String, reason: String },
    /// Nothing came for too long, again and again.
    #[error("{host} sent nothing for {seconds} s; the same command goes on from there")]
    Stalled { host: String, seconds: u64 },
    /// 401: a token is needed.
    #[error(
        "{repo} is only given to people who are signed in: accept its licence at {page}, make a token \
         at {tokens}, and give it in HF_TOKEN or with --token-file"
    )]
    NeedsToken { repo: String, page: String, tokens: String },
    /// 401 although a token was sent.
    #[error("the hub does not know the token (from {place}): make another at {tokens}")]
    WrongToken { place: String, tokens: String },
    /// 403: the licence was not accepted.
    #[error("the owner of the token has not been given {repo}: open {page} and accept its licence")]
    Gated { repo: String, page: String },
    /// 403 for another reason.
    #[error("the hub refuses {repo}: {reason}")]
    Forbidden { repo: String, reason: String },
    /// 404.
    #[error("{repo} is not on {host}, or is private and the token may not see it")]
    NoRepository { repo: String, host: String },
    /// 404.
    #[error("{repo} has no revision {revision:?}")]
    NoRevision { repo: String, revision: String },
    /// 404.
    #[error("{repo} has no file {file:?} at revision {revision}")]
    NoFile { repo: String, file: String, revision: String },
    /// 429, again and again or for too long.
    #[error("{host} asks to wait {seconds} s: it has had too many requests; try again later")]
    Busy { host: String, seconds: u64 },
    /// Another status.
    #[error("{host} answers with status {status}")]
    Status { host: String, status: u16 },
    /// Redirects that lead nowhere.
    #[error("{host} redirects {reason}")]
    Redirect { host: String, reason: &'static str },
    /// The list of files cannot be used.
    #[error("what {host} says of {repo} cannot be used: {reason}")]
    Listing { host: String, repo: String, reason: String },
    /// The hub names a file that would lie elsewhere.
    #[error(
        "{origin} has a file {name:?}, whose name leaves the model's folder: nothing was pulled"
    )]
    FileName { origin: String, name: String },
    /// The repository is in no layout that is known.
    #[error(
        "{repo} has no model_index.json and several weights: say --variant with one of {files}"
    )]
    Choose { repo: String, files: String },
    /// A file that was asked for is not in the repository.
    #[error("{repo} has nothing that a model is made of{}", below(path))]
    Nothing { repo: String, path: String },
    /// The length differs from what the hub said.
    #[error("{file} has {found} bytes, the hub said {expected}; the same command loads it anew")]
    Size { file: String, expected: u64, found: u64 },
    /// The content differs from what the hub said.
    #[error(
        "{file} is damaged: its SHA-256 is {found}, the hub said {expected}; it was deleted, the same \
         command loads it anew"
    )]
    Hash { file: String, expected: String, found: String },
    /// The content differs from what was recorded at the first pull.
    #[error(
        "{file} is not what it was at the first pull: SHA-256 {found}, recorded {recorded} in {lock}; \
         nothing was replaced"
    )]
    Changed { file: String, recorded: String, found: String, lock: String },
    /// Something is where a file should go.
    #[error("{} is in the way: `darkroom pull` did not put it there; move it elsewhere", .0.display())]
    InTheWay(PathBuf),
    /// The disk is too small.
    #[error("not enough room in {}: {needed} are needed, {free} are free", folder.display())]
    Space { folder: PathBuf, needed: String, free: String },
    /// Another process is at it.
    #[error("another darkroom is pulling or removing {name} right now: wait for it to end")]
    InUse { name: String },
    /// Something else is there.
    #[error(
        "model {name} is here as {here}, not as {wanted}: `darkroom models remove {name}` removes it"
    )]
    Other { name: String, here: String, wanted: String },
    /// What was recorded cannot be read.
    #[error("{}: {reason}", path.display())]
    Lock { path: PathBuf, reason: String },
    /// There is no record.
    #[error("model {name} was not pulled: there is no {}", lock.display())]
    NotPulled { name: String, lock: PathBuf },
    /// A folder does not have what was asked for.
    #[error("{} has no {missing}, which {name} needs", folder.display())]
    Import { folder: PathBuf, name: String, missing: String },
    /// A signal.
    #[error("interrupted; what was loaded stays, and the same command goes on from there")]
    Interrupted,
    /// A file of this machine cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The system refuses what a download needs.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl HubError {
    /// Wraps what the system said of `path`.
    pub(super) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Whether the same request may go well a moment later.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}

fn below(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" in {path}") }
}

/// What a server said, for a message: one line of bounded length.
pub(super) fn shown(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(200).collect::<String>().trim().to_owned()
}
