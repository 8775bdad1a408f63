//! A repository of the hub: which files a revision has, and what the hub knows of each. What it
//! refuses becomes an error that says what to do.
//!
//! Reference: the endpoints that huggingface_hub 2.4 uses, `/api/models/REPO/revision/REVISION` and
//! `/REPO/resolve/REVISION/FILE`, with `X-Error-Code`, `X-Repo-Commit`, `X-Linked-ETag` and
//! `X-Linked-Size`.

use super::{
    HubError,
    client::{Answer, Client, Rest},
    error::shown,
};
use crate::config::is_revision;
use hyper::Uri;
use serde::Deserialize;

/// The largest list of files that is read, in bytes; that of the released model has 10 KB.
const MAX_LISTING: usize = 8 << 20;
/// The most files that are taken from a list.
const MAX_FILES: usize = 10_000;

/// One repository on one hub.
pub(super) struct Repository<'a> {
    pub(super) client: &'a Client,
    /// The hub's address, without a slash at its end.
    pub(super) endpoint: &'a str,
    /// Where the token came from, for messages.
    pub(super) token_place: Option<&'a str>,
    /// `OWNER/REPO`.
    pub(super) repo: &'a str,
}

/// The files of one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What the hub knows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) size: u64,
    /// The digest that the hub has of large files, in lower case.
    pub(super) sha256: Option<String>,
    /// What tells this content from another, as the hub wrote it.
    pub(super) etag: String,
}

impl Repository<'_> {
    /// The files of `revision`.
    pub(super) async fn list(&self, revision: &str) -> Result<Listing, HubError> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let path = format!("/api/models/{}/revision/{}", self.repo, escaped(revision, ""));
        let answer = self.client.get(&self.uri(&path)?, None).await?;
        if answer.status() != 200 {
            return Err(self.refusal(&answer, revision, None));
        }
        let host = answer.host().to_owned();
        let wrong = |reason: String| HubError::Listing {
            host: host.clone(),
            repo: self.repo.to_owned(),
            reason,
        };
        let text = answer.all(MAX_LISTING).await?;
        let text =
            text.ok_or_else(|| wrong(format!("it is larger than {} MiB", MAX_LISTING >> 20)))?;
        let info: Info = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if !is_revision(&info.sha) {
            return Err(wrong(format!("its commit is {:?}", shown(&info.sha))));
        }
        if info.siblings.len() > MAX_FILES {
            return Err(wrong(format!("it lists more than {MAX_FILES} files")));
        }
        let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        // One such name and nothing of the list is to be trusted.
        let leaves = |name: &&String| {
            name.contains(['\\', '\0'])
                || name.split('/').any(|part| ["", ".", ".."].contains(&part))
        };
        match files.iter().find(leaves) {
            Some(name) => {
                Err(HubError::FileName { origin: self.repo.to_owned(), name: shown(name) })
            }
            None => Ok(Listing { commit: info.sha, files }),
        }
    }

    /// What the hub knows of `file` at `commit`.
    pub(super) async fn remote(&self, commit: &str, file: &str) -> Result<Remote, HubError> {
        let answer = self.client.head(&self.resolve(commit, file)?).await?;
        let redirected = (300..400).contains(&answer.status());
        if answer.status() != 200 && !redirected {
            return Err(self.refusal(&answer, commit, Some(file)));
        }
        let wrong = |what: &str| HubError::Listing {
            host: answer.host().to_owned(),
            repo: self.repo.to_owned(),
            reason: format!("it does not say {what} of {file}"),
        };
        if let Some(other) = answer.header("x-repo-commit").filter(|other| *other != commit) {
            return Err(wrong(&format!("commit {commit}, but {:?},", shown(other))));
        }
        let length = || answer.number("content-length").filter(|_| !redirected);
        let size = answer.number("x-linked-size").or_else(length);
        let size = size.ok_or_else(|| wrong("the length"))?;
        let linked = answer.header("x-linked-etag");
        let etag = linked.or(answer.header("etag")).ok_or_else(|| wrong("the ETag"))?.to_owned();
        let sha256 = linked.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let sha256 = sha256.filter(|hash| is_sha256(hash)).map(str::to_ascii_lowercase);
        Ok(Remote { size, sha256, etag })
    }

    /// The content of `file` at `commit`, or the rest of it.
    pub(super) async fn open(
        &self,
        commit: &str,
        file: &str,
        rest: Option<Rest<'_>>,
    ) -> Result<Answer, HubError> {
        let answer = self.client.get(&self.resolve(commit, file)?, rest).await?;
        match answer.status() {
            200 | 206 | 416 => Ok(answer),
            _ => Err(self.refusal(&answer, commit, Some(file))),
        }
    }

    fn resolve(&self, commit: &str, file: &str) -> Result<Uri, HubError> {
        let (commit, file) = (escaped(commit, ""), escaped(file, "/"));
        self.uri(&format!("/{}/resolve/{commit}/{file}", self.repo))
    }

    fn uri(&self, path: &str) -> Result<Uri, HubError> {
        format!("{}{path}", self.endpoint).parse().map_err(|_| HubError::Endpoint {
            value: shown(self.endpoint),
            reason: "it is no address",
        })
    }

    /// What a status other than success means.
    fn refusal(&self, answer: &Answer, revision: &str, file: Option<&str>) -> HubError {
        let repo = self.repo.to_owned();
        let page = format!("{}/{repo}", self.endpoint);
        let tokens = format!("{}/settings/tokens", self.endpoint);
        let host = answer.host().to_owned();
        let (status, code) = (answer.status(), answer.header("x-error-code").unwrap_or_default());
        // Only the hub knows of repositories and tokens; where it redirects to does not.
        if !answer.is_home() && status != 429 {
            return HubError::Status { host, status };
        }
        let reason = answer.header("x-error-message").map(shown).unwrap_or_default();
        match (status, code) {
            (_, "RevisionNotFound") => HubError::NoRevision { repo, revision: revision.to_owned() },
            (404, "EntryNotFound") | (404, "") if file.is_some() => {
                let file = file.unwrap_or_default().to_owned();
                HubError::NoFile { repo, file, revision: revision.to_owned() }
            }
            (401 | 404, "RepoNotFound") => HubError::NoRepository { repo, host },
            (401, _) if self.client.has_token() => {
                let place = self.token_place.unwrap_or_default().to_owned();
                HubError::WrongToken { place, tokens }
            }
            (401, _) => HubError::NeedsToken { repo, page, tokens },
            (403, "GatedRepo") => HubError::Gated { repo, page },
            (403, _) => HubError::Forbidden { repo, reason },
            (404, _) => HubError::NoRepository { repo, host },
            (429, _) => HubError::Busy { host, seconds: wait(answer) },
            _ => HubError::Status { host, status },
        }
    }
}

/// How long a hub asks to wait, in seconds: `Retry-After`, else the `t` of its `RateLimit`.
fn wait(answer: &Answer) -> u64 {
    let limit =
        || answer.header("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="));
    let limit = || limit().and_then(|seconds| seconds.parse().ok());
    answer.number("retry-after").or_else(limit).unwrap_or(60)
}

/// A part of a path, with everything escaped but what stands for itself and `also`.
fn escaped(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let char = char::from(byte);
        if char.is_ascii_alphanumeric() || "-._~".contains(char) || also.contains(char) {
            out.push(char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Whether a text is a SHA-256 in hexadecimal.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
