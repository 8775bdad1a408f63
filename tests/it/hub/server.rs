//! A hub on this machine that speaks the hub's protocol: lists of files, `resolve` with ETags,
//! commits and linked files, redirects to a second address as to a CDN, ranges, gates and errors.
//! What is to go wrong is told to it, and it remembers what it was asked.
//!
//! Its endpoints and headers are those that huggingface_hub 2.4.0 asks for.

use crate::support::sha256;
use anyhow::Result;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// The commit of every repository here.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The token that opens gated repositories.
pub(super) const TOKEN: &str = "hf_walrusSecretToken";
/// The token of somebody who has not accepted a licence.
pub(super) const STRANGER: &str = "hf_giraffeSecretToken";

/// A hub with its second address. It ends with the test's process.
pub(super) struct LocalHub {
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    cdn: SocketAddr,
    repositories: Mutex<Vec<Repository>>,
    faults: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<Request>>,
}

/// A repository.
#[derive(Clone, Default)]
pub(super) struct Repository {
    pub(super) name: String,
    /// Whether only those who accepted its licence get its files.
    pub(super) gated: bool,
    pub(super) files: Vec<File>,
}

/// A file of a repository; large ones are linked, and come from the second address.
#[derive(Clone)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) linked: bool,
}

/// Something that goes wrong, for requests whose line has `on` in it.
pub(super) struct Fault {
    pub(super) on: &'static str,
    pub(super) times: usize,
    pub(super) what: What,
}

/// What goes wrong.
#[derive(Clone)]
pub(super) enum What {
    /// This status, with further header lines.
    Status(u16, String),
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// Nothing comes after so many bytes, for as long as anybody waits.
    Stall(usize),
    /// One byte of the body is another.
    Corrupt,
    /// The head promises so many bytes more.
    Longer(i64),
    /// A range is answered with the whole.
    WholeInstead,
    /// A range is answered with another.
    OtherRange,
    /// The list of files never ends.
    Endless,
    /// This instead of everything, and the connection is closed.
    Raw(String),
}

/// What was asked, and how many bytes of a body were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) line: String,
    pub(super) head: BTreeMap<String, String>,
    pub(super) sent: usize,
    /// Whether the second address was asked.
    pub(super) cdn: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalHub {
    pub(super) fn start(repositories: Vec<Repository>) -> Result<Self> {
        let (main, cdn) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let shared = Arc::new(Shared {
            address: main.local_addr()?,
            cdn: cdn.local_addr()?,
            repositories: Mutex::new(repositories),
            faults: Mutex::default(),
            requests: Mutex::default(),
        });
        for (listener, is_cdn) in [(main, false), (cdn, true)] {
            let shared = shared.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = shared.clone();
                    thread::spawn(move || drop(shared.serve(stream, is_cdn)));
                }
            });
        }
        Ok(Self { shared })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// Lets something go wrong from now on, so many times.
    pub(super) fn fail(&self, on: &'static str, times: usize, what: What) {
        lock(&self.shared.faults).push(Fault { on, times, what });
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&self) {
        lock(&self.shared.faults).clear();
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Vec<Repository>)) {
        change(&mut lock(&self.shared.repositories));
    }

    /// What was asked so far; forgotten then.
    pub(super) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.shared.requests))
    }
}

impl Request {
    pub(super) fn is(&self, method: &str, part: &str) -> bool {
        self.line.starts_with(method) && self.line.contains(part)
    }
}

impl Repository {
    pub(super) fn new(name: &str, files: &[(&str, &[u8], bool)]) -> Self {
        let file = |(path, bytes, linked): &(&str, &[u8], bool)| File {
            path: (*path).to_owned(),
            bytes: bytes.to_vec(),
            linked: *linked,
        };
        Self { name: name.to_owned(), gated: false, files: files.iter().map(file).collect() }
    }
}

impl File {
    /// As the hub has it: the SHA-256 of a linked file, something shorter of another.
    fn etag(&self) -> String {
        let hash = sha256(&self.bytes);
        if self.linked { hash } else { hash[..40].to_owned() }
    }
}

/// Head lines and body of an answer.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn answer(status: u16, head: impl Into<String>, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, head: head.into(), body: body.into() }
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    answer(status, format!("X-Error-Code: {code}\r\nX-Error-Message: {message}\r\n"), "{}")
}

impl Shared {
    fn serve(&self, mut stream: TcpStream, cdn: bool) -> Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        // One request after another, as long as the client keeps the connection.
        while reader.read_line(&mut line)? > 0 {
            let mut request = Request { line: line.trim().to_owned(), cdn, ..Request::default() };
            loop {
                let mut field = String::new();
                reader.read_line(&mut field)?;
                let Some((name, value)) = field.trim().split_once(':') else { break };
                request.head.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            let index = {
                let mut requests = lock(&self.requests);
                requests.push(request.clone());
                requests.len() - 1
            };
            let open = self.reply(&mut stream, &request, |sent| {
                if let Some(request) = lock(&self.requests).get_mut(index) {
                    request.sent = sent;
                }
            })?;
            if !open {
                return Ok(());
            }
            line.clear();
        }
        Ok(())
    }

    fn fault(&self, line: &str) -> Option<What> {
        let mut faults = lock(&self.faults);
        let fault = faults.iter_mut().find(|fault| fault.times > 0 && line.contains(fault.on))?;
        fault.times -= 1;
        Some(fault.what.clone())
    }

    /// Answers, and says whether the connection stays open.
    fn reply(
        &self,
        stream: &mut TcpStream,
        request: &Request,
        sent: impl FnOnce(usize),
    ) -> Result<bool> {
        let fault = self.fault(&request.line);
        let mut reply = match &fault {
            Some(What::Status(status, head)) => answer(*status, head.clone(), "{}"),
            Some(What::Raw(text)) => {
                stream.write_all(text.as_bytes())?;
                return Ok(false);
            }
            Some(What::Endless) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"sha\":\"")?;
                while stream.write_all(&[b'a'; 1 << 16]).is_ok() {}
                return Ok(false);
            }
            _ => self.find(request, fault.as_ref()),
        };
        if matches!(fault, Some(What::Corrupt)) {
            reply.body.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        }
        let more = if let Some(What::Longer(more)) = fault { more } else { 0 };
        let length = reply.body.len() as i64 + more;
        let (status, head) = (reply.status, &reply.head);
        // A HEAD says the length that a GET would have.
        let length = match head.contains("Content-Length") {
            true => String::new(),
            false => format!("Content-Length: {length}\r\n"),
        };
        stream.write_all(format!("HTTP/1.1 {status} X\r\n{length}{head}\r\n").as_bytes())?;
        if request.line.starts_with("HEAD") {
            return Ok(true);
        }
        let most = match fault {
            Some(What::Cut(bytes) | What::Stall(bytes)) => bytes.min(reply.body.len()),
            _ => reply.body.len(),
        };
        // Before the last byte is there: whoever has it may ask at once what was sent.
        sent(most);
        stream.write_all(&reply.body[..most])?;
        match fault {
            Some(What::Stall(_)) => {
                // Until the client hangs up.
                let mut rest = stream.try_clone()?;
                rest.set_read_timeout(Some(Duration::from_secs(60)))?;
                drop(rest.read(&mut [0]));
                Ok(false)
            }
            Some(What::Cut(_) | What::Longer(_)) => Ok(false),
            _ => Ok(true),
        }
    }

    fn find(&self, request: &Request, fault: Option<&What>) -> Answer {
        let target = request.line.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default().replace("%2E", ".");
        let repositories = lock(&self.repositories).clone();
        if let Some(hash) = path.strip_prefix("/cdn/") {
            let files = repositories.iter().flat_map(|repository| &repository.files);
            let file = files.filter(|file| file.linked).find(|file| file.etag() == hash);
            return match file {
                // A CDN has ETags of its own.
                Some(file) => {
                    part(request, &file.bytes, &format!("\"cdn-{}\"", &hash[..8]), "", fault)
                }
                None => answer(404, "", ""),
            };
        }
        if let Some(rest) = path.strip_prefix("/api/models/") {
            if let Some((name, revision)) = rest.split_once("/tree/") {
                return match self.open(&repositories, name, revision, request) {
                    Err(refused) => refused,
                    Ok(repository) => tree(repository),
                };
            }
            let (name, revision) = rest.split_once("/revision/").unwrap_or((rest, "main"));
            return match self.open(&repositories, name, revision, request) {
                Err(refused) => refused,
                Ok(repository) => {
                    let siblings = repository.files.iter();
                    let siblings: Vec<_> = siblings
                        .map(|file| serde_json::json!({ "rfilename": file.path }))
                        .collect();
                    let info =
                        serde_json::json!({ "id": name, "sha": COMMIT, "siblings": siblings });
                    answer(200, "Content-Type: application/json\r\n", info.to_string())
                }
            };
        }
        let Some((name, rest)) = path.trim_start_matches('/').split_once("/resolve/") else {
            return answer(404, "", "");
        };
        let (revision, file) = rest.split_once('/').unwrap_or((rest, ""));
        let repository = match self.open(&repositories, name, revision, request) {
            Ok(repository) => repository,
            Err(refused) => return refused,
        };
        let token = request.head.get("authorization").map(String::as_str).unwrap_or_default();
        if repository.gated && token != format!("Bearer {TOKEN}") {
            let status = if token.is_empty() { 401 } else { 403 };
            return refusal(status, "GatedRepo", "Access to this model is restricted.");
        }
        let Some(file) = repository.files.iter().find(|other| other.path == file) else {
            return refusal(404, "EntryNotFound", "Entry not found");
        };
        let (etag, size) = (file.etag(), file.bytes.len());
        if !file.linked {
            let head = format!("X-Repo-Commit: {COMMIT}\r\n");
            return part(request, &file.bytes, &format!("\"{etag}\""), &head, fault);
        }
        let cdn = self.cdn;
        let head = format!(
            "X-Repo-Commit: {COMMIT}\r\nX-Linked-Size: {size}\r\nX-Linked-ETag: \"{etag}\"\r\n\
             ETag: \"pointer\"\r\nLocation: http://{cdn}/cdn/{etag}\r\n"
        );
        answer(302, head, "Found")
    }

    fn open<'a>(
        &self,
        repositories: &'a [Repository],
        name: &str,
        revision: &str,
        request: &Request,
    ) -> Result<&'a Repository, Answer> {
        let token = request.head.get("authorization").map(String::as_str);
        if token.is_some_and(|token| ![TOKEN, STRANGER].iter().any(|known| token.ends_with(known)))
        {
            return Err(refusal(401, "", "Invalid credentials in Authorization header"));
        }
        let repository = repositories.iter().find(|repository| repository.name == name);
        let repository = repository.ok_or_else(|| {
            // As the hub: whoever is not signed in is not told whether it is private.
            let status = if token.is_some() { 404 } else { 401 };
            refusal(status, "RepoNotFound", "Repository not found")
        })?;
        match ["main", COMMIT].contains(&revision) {
            true => Ok(repository),
            false => Err(refusal(404, "RevisionNotFound", "Invalid rev id")),
        }
    }
}

/// What huggingface_hub lists before it loads a whole repository.
fn tree(repository: &Repository) -> Answer {
    let entries = repository.files.iter().map(|file| {
        let (oid, size) = (file.etag(), file.bytes.len());
        let mut entry = serde_json::json!({ "type": "file", "path": file.path, "size": size });
        if file.linked {
            entry["lfs"] = serde_json::json!({ "oid": oid, "size": size, "pointerSize": 130 });
        }
        entry["oid"] = oid[..40].into();
        entry
    });
    let entries = serde_json::Value::Array(entries.collect());
    answer(200, "Content-Type: application/json\r\n", entries.to_string())
}

/// The bytes that were asked for: from the range's start on, if the file is still the same.
fn part(request: &Request, bytes: &[u8], etag: &str, head: &str, fault: Option<&What>) -> Answer {
    let head = format!("{head}ETag: {etag}\r\nAccept-Ranges: bytes\r\n");
    let range = request.head.get("range").and_then(|range| range.strip_prefix("bytes="));
    let start = range.and_then(|range| range.split_once('-')?.0.parse::<usize>().ok());
    let same = request.head.get("if-range").is_none_or(|wanted| wanted == etag);
    match start.filter(|_| same && !matches!(fault, Some(What::WholeInstead))) {
        None => answer(200, head, bytes),
        Some(start) if start >= bytes.len() => answer(416, head, ""),
        Some(start) => {
            let shown = if let Some(What::OtherRange) = fault { start + 1 } else { start };
            let (last, size) = (bytes.len() - 1, bytes.len());
            let head = format!("{head}Content-Range: bytes {shown}-{last}/{size}\r\n");
            answer(206, head, &bytes[start..])
        }
    }
}
