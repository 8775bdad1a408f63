//! `darkroom serve`: puts the parts together in the order in which they need each other, and takes
//! them apart in the reverse.
//!
//! Up: the process is hardened, the store is opened and repaired, the model is loaded on the
//! engine's thread, the service starts, and only then is the address open. Down, at SIGTERM or
//! SIGINT: no more jobs, those that run end within `server.drain`, what they made is stored, the
//! rest is marked as interrupted, connections are closed, the store is closed. A second signal ends
//! the process at once, and loses nothing that was acknowledged.

use super::{AppError, Catalog, Compute, ModelEntry, process};
use crate::{
    config::{Blobs, Settings, TlsMode},
    http::{self, Fingerprint, Refused, Server, ServerOptions, Tls},
    imaging,
    pipeline::{Checkpoint, Listed, LoraShelf, Pipeline, Plan},
    scheduler::{self, BuildError, Factory, Limits, Scheduler, SystemClock},
    service::{ModelName, Options, Parts, Service},
    store::{self, BlobMode, SledStore, SweepReport},
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// How long connections may take to end once all jobs have.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Ended jobs that the scheduler itself remembers; the service remembers its own.
const REMEMBERED: usize = 64;

/// What a person who started the server is told.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A part of the model is being loaded.
    Loading(&'a str),
    /// Requests are answered from now on.
    Ready(&'a Report),
    /// A signal came: so many jobs run, and have this long to end.
    Stopping {
        /// Jobs that run.
        running: usize,
        /// How long they have.
        within: Duration,
    },
}

/// How the server stands at its start.
#[derive(Debug)]
pub struct Report {
    /// Where it listens, as a person types it into a browser.
    pub url: String,
    /// The fingerprint of its certificate, if it has one.
    pub fingerprint: Option<Fingerprint>,
    /// The model.
    pub model: ModelName,
    /// What computes, and in which precision.
    pub compute: String,
    /// Where the weights are and what jobs may take, for each device.
    pub plans: Vec<Plan>,
    /// Bytes that all inputs together may take.
    pub inputs: u64,
    /// Where results are stored.
    pub store: PathBuf,
    /// How the store seals what it holds.
    pub sealer: &'static str,
    /// What opening the store found and did.
    pub sweep: SweepReport,
    /// Swap to which memory may be written in the clear.
    pub swap: Vec<String>,
}

/// Runs the server until a signal ends it.
///
/// # Errors
/// [`AppError`] where a part cannot be had; then nothing was left running.
pub fn serve(settings: &Settings, mut tell: impl FnMut(Notice<'_>)) -> Result<(), AppError> {
    process::harden();
    let catalog = Catalog::find()?;
    let model = ModelEntry::find(&settings.model.name)?;
    let styles = catalog.styles()?;
    let devices = Compute::all(&settings.model)?;
    let (store, sweep) = SledStore::open(store_options(settings))?;
    tell(Notice::Loading(&model.name));
    let engines = devices.iter().map(|compute| {
        let checkpoint = Checkpoint::open(&model.folder, &model.manifest, &compute.target)?;
        let plan = checkpoint.plan(compute.room(settings, devices.len()))?;
        Ok((checkpoint, plan))
    });
    let engines = engines.collect::<Result<Vec<_>, AppError>>()?;
    // One for each device: what is in a device's memory is of no use to another.
    let shelf = || Arc::new(LoraShelf::new(&catalog.loras()));
    let shelves: Vec<Arc<LoraShelf>> = devices.iter().map(|_| shelf()).collect();
    let scheduler = scheduler(settings, &devices, &engines, &shelves)?;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(AppError::Runtime)?;
    let running = runtime.block_on(async {
        let sealer = store::Store::sealer(&store);
        let name = ModelName { name: model.name.clone(), version: model.version()? };
        let parts = Parts {
            scheduler: scheduler.clone(),
            store: Arc::new(store),
            model: name.clone(),
            defaults: model.manifest.defaults,
            styles,
            options: options(settings),
        };
        let service = Service::start(parts)?;
        let models = catalog.models(&model, &name, &devices).into();
        let loras = loras(shelves.first().cloned().unwrap_or_default());
        let app = http::App { service: service.clone(), models, loras };
        // Before the address is open: whoever stops the server then must be heard.
        let mut stop = Stop::listen()?;
        let server = Server::start(http::router(app), &server_options(settings, &service)).await?;
        tell(Notice::Ready(&Report {
            url: url(server.address(), settings.server.tls.mode),
            fingerprint: server.fingerprint(),
            model: name,
            compute: shown(&devices, |device| device.to_string()),
            plans: engines.into_iter().map(|(_, plan)| plan).collect(),
            inputs: settings.limits.input_memory,
            store: settings.store.path.clone(),
            sealer,
            sweep,
            swap: process::open_swap(),
        }));
        stop.signal().await;
        let within = settings.server.drain;
        tell(Notice::Stopping { running: service.counts().scheduler.running, within });
        let end = async {
            service.drain(within).await;
            server.stop(LAST_ANSWERS);
            server.ended().await
        };
        tokio::select! {
            ended = end => ended.map_err(AppError::Runtime),
            () = stop.signal() => Ok(()),
        }
    });
    // What still runs on its threads is a request that was cut.
    runtime.shutdown_timeout(Duration::from_secs(1));
    running
}

/// The signals that end a server.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn listen() -> Result<Self, AppError> {
        let on = |kind| signal(kind).map_err(AppError::Runtime);
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    async fn signal(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn scheduler(
    settings: &Settings,
    devices: &[Compute],
    engines: &[(Checkpoint, Plan)],
    shelves: &[Arc<LoraShelf>],
) -> Result<Scheduler, AppError> {
    let of = &settings.scheduler;
    let limits = Limits {
        jobs: of.jobs,
        jobs_per_user: of.jobs_per_user,
        tokens: of.tokens,
        // A limit for all: a job must fit wherever it goes.
        memory: engines.iter().map(|(_, plan)| plan.jobs).min().unwrap_or_default(),
        waiting: of.queue,
        patience: of.patience,
        remembered: REMEMBERED,
    };
    let factories = engines.iter().zip(shelves).map(|(engine, shelf)| {
        let ((checkpoint, plan), shelf) = (engine.clone(), Arc::clone(shelf));
        Box::new(move || {
            let pipeline = Pipeline::load(&checkpoint, &plan, |_| {});
            let mut pipeline = pipeline.map_err(|error| Box::new(error) as BuildError)?;
            pipeline.shelve(Arc::clone(&shelf));
            Ok(Box::new(pipeline) as Box<dyn crate::engine::Engine>)
        }) as Factory
    });
    let names = devices.iter().map(|compute| compute.device().to_owned());
    Ok(scheduler::spawn_all(
        names.zip(factories).collect(),
        limits,
        Arc::new(SystemClock::start()),
    )?)
}

/// Devices in a list for a person, each once with how often it is there.
pub(super) fn shown(devices: &[Compute], name: impl Fn(&Compute) -> String) -> String {
    let names: Vec<String> = devices.iter().map(name).collect();
    let mut once = names.clone();
    once.dedup();
    let counted =
        once.iter().map(|name| match names.iter().filter(|other| *other == name).count() {
            1 => name.clone(),
            count => format!("{count} x {name}"),
        });
    counted.collect::<Vec<_>>().join(", ")
}

/// The adapters on a shelf, for the list.
fn loras(shelf: Arc<LoraShelf>) -> http::Loras {
    http::Loras(Arc::new(move || {
        let entry = |Listed { name, bytes, summary }: Listed| {
            let (summary, error) = match summary {
                Ok(summary) => (summary, None),
                Err(error) => (Default::default(), Some(error)),
            };
            let (families, kinds) = (summary.families, summary.kinds);
            let rank = summary.rank;
            let [families, kinds] = [families, kinds].map(|set| set.into_iter().collect());
            http::Lora { name, bytes, families, kinds, rank, error }
        };
        shelf.list().into_iter().map(entry).collect()
    }))
}

/// How the settings open the store.
pub(super) fn store_options(settings: &Settings) -> store::Options {
    let blobs = match settings.store.blobs {
        Blobs::Files => BlobMode::Files,
        Blobs::Sled => BlobMode::Sled,
    };
    store::Options { blobs, ..store::Options::new(&settings.store.path) }
}

fn options(settings: &Settings) -> Options {
    let limits = &settings.limits;
    Options {
        keep: settings.jobs.keep,
        ephemeral: settings.jobs.ephemeral,
        input_memory: limits.input_memory,
        decode: imaging::Limits { max_pixels: limits.max_pixels, max_side: limits.max_side },
        images: limits.images,
    }
}

fn server_options(settings: &Settings, service: &Service) -> ServerOptions {
    let counts = service.clone();
    let refused = Refused(Arc::new(move |code| counts.count_refusal(code.name())));
    let server = &settings.server;
    let tls = match server.tls.mode {
        TlsMode::Off => Tls::Off,
        TlsMode::SelfSigned => Tls::SelfSigned { folder: settings.store.path.join("tls") },
        TlsMode::Files => {
            Tls::Files { certificate: server.tls.certificate.clone(), key: server.tls.key.clone() }
        }
    };
    ServerOptions {
        bind: server.bind,
        max_body: server.max_body,
        max_connections: server.max_connections,
        header_timeout: server.header_timeout,
        idle_timeout: server.idle_timeout,
        hosts: server.hosts.clone(),
        tls,
        refused,
    }
}

fn url(address: SocketAddr, tls: TlsMode) -> String {
    let scheme = if tls == TlsMode::Off { "http" } else { "https" };
    format!("{scheme}://{address}")
}
