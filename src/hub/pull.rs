//! A whole model from a hub: what it consists of, whether it fits on the disk, and then file after
//! file.

use super::{
    Checked, Event, HubError, Lock, Record, Tell, Token, Work,
    client::Client,
    download::{Download, Loaded, hash, loaded, part_path, put, remove_parts},
    error::shown,
    lock::Guard,
    path::target,
    patience::Patience,
    repository::{Listing, Remote, Repository},
    select::{part, whole},
};
use crate::domain::Bytes;
use hf_hub::{Cache, Repo, RepoType};
use hyper::Uri;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

/// Room that stays free on a disk, in bytes.
const SPARE: u64 = 64 << 20;

/// A hub, and who asks.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<Token>,
    /// What other programs pulled from it.
    cache: Option<Cache>,
    /// How long a byte may take.
    pub patience: Duration,
    /// The first pause after a failure; each further one is twice as long.
    pub pause: Duration,
}

/// What makes up a model, and under which name it lies here.
#[derive(Clone, Debug)]
pub struct Order {
    /// The model's name, that of its folder.
    pub name: String,
    /// The variant, or the file that was chosen of a repository of many; empty for neither.
    pub variant: String,
    /// Its parts.
    pub wanted: Vec<Wanted>,
    /// The folders of a model in the diffusers layout.
    pub folders: Vec<String>,
}

/// One part.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// `OWNER/REPO`.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// A file, a folder with `/` at its end, or nothing for the model that the repository is.
    pub path: String,
    /// Where it goes in the model's folder: a folder or a file; nothing for the folder itself.
    pub into: String,
}

/// The hub's folders on this machine.
pub(super) struct Folders;

/// A file of the model.
struct Item<'a> {
    repo: &'a str,
    commit: String,
    /// Its path in the repository.
    file: String,
    /// Its path in the model's folder.
    path: String,
    target: PathBuf,
}

impl Folders {
    /// Where the hub's own programs keep what they pulled, and their token beside it.
    pub(super) fn cache() -> Option<Cache> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match variable("HF_HUB_CACHE") {
            Some(path) => Some(Cache::new(path.into())),
            // Without a home hf-hub would panic.
            None if variable("HF_HOME").is_none() && std::env::home_dir().is_none() => None,
            None => Some(Cache::from_env()),
        }
    }
}

impl Hub {
    /// The hub that the environment names, as the hub's own programs read it: `HF_ENDPOINT`,
    /// `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`HubError`] where one of them, or `token_file`, cannot be used.
    pub fn from_env(token_file: Option<&Path>) -> Result<Self, HubError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        if variable("HF_HUB_OFFLINE").is_some_and(|value| !["0", "no", "false"].contains(&&*value))
        {
            return Err(HubError::Offline);
        }
        let endpoint =
            variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let hub = Self::new(&endpoint, Token::find(token_file)?)?;
        Ok(Self { cache: Folders::cache(), ..hub })
    }

    /// The hub at `endpoint`, without what other programs pulled from it.
    ///
    /// # Errors
    /// [`HubError::Endpoint`] where that is no address of a web server.
    pub fn new(endpoint: &str, token: Option<Token>) -> Result<Self, HubError> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let wrong = |reason| HubError::Endpoint { value: shown(&endpoint), reason };
        let uri: Uri = endpoint.parse().map_err(|_| wrong("it is no address"))?;
        match uri.scheme_str() {
            Some("http" | "https") if uri.query().is_none() && !endpoint.contains('@') => {}
            Some("http" | "https") => return Err(wrong("it has a name or a question in it")),
            _ => return Err(wrong("it does not begin so")),
        }
        let (patience, pause) = (Duration::from_secs(60), Duration::from_secs(1));
        Ok(Self { endpoint, token, cache: None, patience, pause })
    }
}

/// Pulls a model into `models`, or what is missing of it.
///
/// # Errors
/// [`HubError`]; what was loaded until then stays, and the next call goes on from there.
pub fn pull(hub: &Hub, models: &Path, order: &Order, tell: Tell<'_>) -> Result<Lock, HubError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(HubError::Runtime)?;
    runtime.block_on(async {
        tokio::select! {
            pulled = run(hub, models, order, tell) => pulled,
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(HubError::Runtime)?;
                Err(HubError::Interrupted)
            }
        }
    })
}

async fn run(hub: &Hub, models: &Path, order: &Order, tell: Tell<'_>) -> Result<Lock, HubError> {
    let _guard = Guard::take(models, &order.name)?;
    let mut lock = record_of(models, order)?;
    let uri = hub.endpoint.parse().map_err(|_| HubError::Endpoint {
        value: shown(&hub.endpoint),
        reason: "it is no address",
    })?;
    let client = Client::new(&uri, hub.token.as_ref(), hub.patience)?;
    let repository = |repo| Repository {
        client: &client,
        endpoint: &hub.endpoint,
        token_place: hub.token.as_ref().map(Token::place),
        repo,
    };

    let folder = models.join(&order.name);
    let mut listings = BTreeMap::new();
    for wanted in &order.wanted {
        if !listings.contains_key(&wanted.repo) {
            let repository = repository(&wanted.repo);
            let ask = async || list(&repository, wanted, &lock, order).await;
            let listing = Patience::new(hub.pause).ask(tell, ask).await?;
            listings.insert(wanted.repo.clone(), listing);
        }
    }
    let (files, chosen) = items(order, &listings, &folder)?;
    if lock.variant.is_empty() {
        lock.variant = chosen;
    }

    let (mut missing, mut present) = (Vec::new(), 0);
    for item in &files {
        if here(item, &lock)? {
            present += 1;
            continue;
        }
        let repository = repository(item.repo);
        let ask = async || repository.remote(&item.commit, &item.file).await;
        let remote = Patience::new(hub.pause).ask(tell, ask).await?;
        let recorded = lock.file(&item.path);
        if let (Some(recorded), Some(found)) = (recorded, &remote.sha256)
            && recorded.sha256 != *found
        {
            return Err(changed(item, recorded, found.clone(), models, order));
        }
        missing.push((item, remote));
    }
    let rest = |(item, remote): &(&Item<'_>, Remote)| {
        remote.size.saturating_sub(loaded(&item.target, remote))
    };
    let bytes = missing.iter().map(rest).sum();
    room(models, bytes)?;
    tell(Event::Plan { files: files.len(), present, bytes });
    // From here on there is something that can be gone on with, or removed.
    lock.write(models, &order.name)?;

    for (item, remote) in missing {
        if let Some(parent) = item.target.parent() {
            std::fs::create_dir_all(parent).map_err(HubError::io(parent))?;
        }
        let cached = cached(hub, item, &remote, tell)?;
        let loaded = match cached {
            Some(loaded) => loaded,
            None => {
                let (path, size) = (item.path.as_str(), remote.size);
                tell(Event::File { path, size, work: Work::Download });
                let download = Download {
                    repository: &repository(item.repo),
                    commit: &item.commit,
                    file: &item.file,
                    remote: &remote,
                    target: &item.target,
                    pause: hub.pause,
                };
                download.run(tell).await?
            }
        };
        let found = loaded.sha256;
        if let Some(recorded) = lock.file(&item.path).filter(|file| file.sha256 != found) {
            let error = changed(item, recorded, found, models, order);
            std::fs::remove_file(&loaded.path).map_err(HubError::io(&loaded.path))?;
            return Err(error);
        }
        // First: a file in its place without a record would be in the way of the next pull.
        lock.record(Record {
            path: item.path.clone(),
            size: remote.size,
            sha256: found,
            check: if remote.sha256.is_some() { Checked::Hub } else { Checked::Unverified },
            source: item.repo.to_owned(),
            revision: item.commit.clone(),
        });
        lock.write(models, &order.name)?;
        put(&loaded.path, &item.target)?;
        tell(Event::Done);
    }
    lock.complete = true;
    lock.write(models, &order.name)?;
    Ok(lock)
}

/// What is recorded of the model that is ordered; something new where nothing is.
pub(super) fn record_of(models: &Path, order: &Order) -> Result<Lock, HubError> {
    let Some(lock) = Lock::read(models, &order.name)? else { return Ok(Lock::new(&order.variant)) };
    if order.variant.is_empty() || lock.variant == order.variant {
        return Ok(lock);
    }
    let variant = |name: &str| format!("variant {name:?}");
    Err(HubError::Other {
        name: order.name.clone(),
        here: variant(&lock.variant),
        wanted: variant(&order.variant),
    })
}

/// The files of a repository at the commit of the first pull, else at the one that is asked for.
async fn list(
    repository: &Repository<'_>,
    wanted: &Wanted,
    lock: &Lock,
    order: &Order,
) -> Result<Listing, HubError> {
    let recorded = lock.files.iter().find(|file| file.source == wanted.repo);
    let recorded = recorded.map(|file| file.revision.as_str());
    let revision = match recorded {
        Some(commit) if wanted.revision == "main" => commit,
        _ => &wanted.revision,
    };
    let listing = repository.list(revision).await?;
    match recorded {
        Some(commit) if commit != listing.commit => Err(HubError::Other {
            name: order.name.clone(),
            here: format!("{} at {commit}", wanted.repo),
            wanted: listing.commit,
        }),
        _ => Ok(listing),
    }
}

/// All files of the model with their places, and the one that was chosen where there was a choice.
fn items<'a>(
    order: &'a Order,
    listings: &BTreeMap<String, Listing>,
    folder: &Path,
) -> Result<(Vec<Item<'a>>, String), HubError> {
    let (mut items, mut seen, mut chosen) = (Vec::new(), BTreeSet::new(), String::new());
    for wanted in &order.wanted {
        let Some(Listing { commit, files }) = listings.get(&wanted.repo) else { continue };
        let selected = if wanted.path.is_empty() {
            let (files, choice) = whole(files, &wanted.repo, &order.folders, &order.variant)?;
            chosen = choice;
            files
        } else {
            part(files, &wanted.path, &wanted.into)
        };
        if selected.is_empty() {
            let (repo, path) = (wanted.repo.clone(), wanted.path.clone());
            return Err(HubError::Nothing { repo, path });
        }
        for (file, path) in selected {
            let target = target(folder, &path, &wanted.repo)?;
            if seen.insert(path.clone()) {
                let commit = commit.clone();
                items.push(Item { repo: &wanted.repo, commit, file, path, target });
            }
        }
    }
    Ok((items, chosen))
}

/// Whether a file is here as it is recorded. One that nothing is recorded of is in the way.
fn here(item: &Item<'_>, lock: &Lock) -> Result<bool, HubError> {
    match (std::fs::symlink_metadata(&item.target), lock.file(&item.path)) {
        (Err(_), _) => Ok(false),
        (Ok(_), None) => Err(HubError::InTheWay(item.target.clone())),
        (Ok(data), Some(recorded)) => Ok(data.is_file() && data.len() == recorded.size),
    }
}

/// The file from the hub's folder on this machine, where another program pulled it.
fn cached(
    hub: &Hub,
    item: &Item<'_>,
    remote: &Remote,
    tell: Tell<'_>,
) -> Result<Option<Loaded>, HubError> {
    let Some(cache) = &hub.cache else { return Ok(None) };
    let repo = Repo::with_revision(item.repo.to_owned(), RepoType::Model, item.commit.clone());
    let file = cache.repo(repo).pointer_path(&item.commit).join(&item.file);
    if !std::fs::metadata(&file).is_ok_and(|data| data.is_file() && data.len() == remote.size) {
        return Ok(None);
    }
    tell(Event::File { path: &item.path, size: remote.size, work: Work::Copy });
    let path = part_path(&item.target, &remote.etag);
    remove_parts(&item.target, None)?;
    let (sha256, _) = hash(&file, Some(&path), tell)?;
    if remote.sha256.as_ref().is_some_and(|expected| *expected != sha256) {
        std::fs::remove_file(&path).map_err(HubError::io(&path))?;
        return Ok(None);
    }
    Ok(Some(Loaded { path, sha256 }))
}

fn changed(
    item: &Item<'_>,
    recorded: &Record,
    found: String,
    models: &Path,
    order: &Order,
) -> HubError {
    HubError::Changed {
        file: item.path.clone(),
        recorded: recorded.sha256.clone(),
        found,
        lock: Lock::path(models, &order.name).display().to_string(),
    }
}

/// Checks that `bytes` fit on the disk of `folder`.
pub(super) fn room(folder: &Path, bytes: u64) -> Result<(), HubError> {
    let disk = rustix::fs::statvfs(folder).map_err(|error| HubError::io(folder)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes == 0 || free >= bytes.saturating_add(SPARE) {
        return Ok(());
    }
    let (needed, free) = (Bytes(bytes.saturating_add(SPARE)).to_string(), Bytes(free).to_string());
    Err(HubError::Space { folder: folder.to_owned(), needed, free })
}
