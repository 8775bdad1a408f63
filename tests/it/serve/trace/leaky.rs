//! A server that can leak: the real router, service and store over an engine that writes what it is
//! given to a file. The test binary runs it as a child, told by an environment variable. Without a
//! leak it must pass every check that the real server passes, and with one it must not.

use crate::support::repository;
use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use darkroom::{
    config::{Defaults, Styles},
    engine::{
        CostModel, Engine, EngineError, Job, Phase, Slot, StepOutcome,
        fake::{Control, FakeEngine, Work},
    },
    http::{App, Loras, Refused, Server, ServerOptions, Tls, router},
    scheduler::{Factory, Limits, SystemClock, spawn},
    service::{DecodeLimits, ModelName, Options, Parts, Service},
    store::{BlobMode, Options as StoreOptions, Plain, RealDisk, SledStore},
};
use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

/// The child's orders: which leak, and the store's folder.
const ORDERS: &str = "DARKROOM_LEAKY_CHILD";

/// The file that it writes.
pub(super) const LEAKED: &str = "spool";

/// What an edit is, and how long it takes.
const WORK: Work = Work {
    text: 1,
    image: 1,
    peak: 0,
    pixels_per_decode: 4096,
    unit: Duration::from_millis(1),
    step: Duration::from_millis(10),
    token: Duration::ZERO,
};

/// Where the child writes what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leak {
    Nowhere,
    /// The rows, into the system's folder for temporary files.
    Temporary,
    /// The rows, among the store's own files.
    Store,
    /// The rows in base64, into the working folder.
    Working,
}

impl Leak {
    pub(super) const ALL: [Self; 4] = [Self::Nowhere, Self::Temporary, Self::Store, Self::Working];

    fn write(self, rgb: &[u8], store: &Path) -> std::io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Temporary => fs::write(std::env::temp_dir().join(LEAKED), rgb),
            Self::Store => fs::write(store.join("blobs").join(LEAKED), rgb),
            Self::Working => fs::write(LEAKED, BASE64_STANDARD.encode(rgb)),
        }
    }
}

/// The command of a child.
pub(super) fn command(leak: Leak, store: &Path) -> Result<Command> {
    let name = format!("{}::child", module_path!());
    let (_, name) = name.split_once("::").context("a path")?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ORDERS, format!("{leak:?} {}", store.display()));
    Ok(command)
}

/// In the child: serves until it is ended. Elsewhere: nothing.
#[test]
fn child() -> Result<()> {
    let Ok(orders) = std::env::var(ORDERS) else { return Ok(()) };
    let (leak, store) = orders.split_once(' ').context("orders")?;
    let leak = Leak::ALL.into_iter().find(|known| format!("{known:?}") == leak);
    tokio::runtime::Runtime::new()?.block_on(serve(leak.context("a leak")?, store.into()))
}

async fn serve(leak: Leak, folder: PathBuf) -> Result<()> {
    let blobs = BlobMode::Files;
    let (sealer, disk) = (Arc::new(Plain), Arc::new(RealDisk));
    let (store, _) = SledStore::open(StoreOptions { folder: folder.clone(), blobs, sealer, disk })?;
    let factory: Factory = Box::new(move || {
        // It takes its time, or a step would be over before its preview is asked for.
        let fake = FakeEngine::new(WORK, Control::default(), thread::sleep);
        Ok(Box::new(Leaky { fake, leak, store: folder.clone() }))
    });
    let limits = Limits {
        jobs: 2,
        jobs_per_user: 2,
        tokens: 100_000,
        memory: 1_000_000_000,
        waiting: 8,
        patience: Duration::from_secs(60),
        remembered: 8,
    };
    let scheduler = spawn(factory, limits, Arc::new(SystemClock::start()))?;
    let minutes = Duration::from_secs(600);
    let service = Service::start(Parts {
        scheduler,
        store: Arc::new(store),
        model: ModelName { name: "fake".to_owned(), version: "0".to_owned() },
        defaults: Defaults { num_inference_steps: 4, guidance_scale: 2.5, max_sequence_length: 32 },
        styles: Styles::open(&repository("models/styles.toml"))?,
        options: Options {
            keep: minutes,
            ephemeral: minutes,
            input_memory: 64 << 20,
            decode: DecodeLimits::default(),
            images: 2,
        },
    })?;
    let options = ServerOptions {
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        max_body: 8 << 20,
        max_connections: 16,
        header_timeout: minutes,
        idle_timeout: minutes,
        hosts: Vec::new(),
        tls: Tls::Off,
        refused: Refused(Arc::new(|_| {})),
    };
    let server = Server::start(
        router(App { service, models: Arc::new([]), loras: Loras(Arc::new(Vec::new)) }),
        &options,
    )
    .await?;
    let ready = format!("the child{}http://{}\n", super::super::READY, server.address());
    std::io::stderr().write_all(ready.as_bytes())?;
    server.ended().await?;
    bail!("nobody stops this server")
}

/// The fake engine, but for what it does with pictures.
struct Leaky {
    fake: FakeEngine,
    leak: Leak,
    store: PathBuf,
}

impl Engine for Leaky {
    fn admit(&mut self, job: Job) -> Result<Slot, EngineError> {
        for image in &job.images {
            let written = self.leak.write(image.rgb(), &self.store);
            written.map_err(|error| EngineError::Compute(Box::new(error)))?;
        }
        self.fake.admit(job)
    }

    fn advance(&mut self, slot: Slot, budget: Duration) -> Result<Phase, EngineError> {
        self.fake.advance(slot, budget)
    }

    fn step(&mut self, slots: &[Slot]) -> Vec<StepOutcome> {
        self.fake.step(slots)
    }

    fn preview(&mut self, slot: Slot) -> Option<darkroom::domain::Pixels> {
        self.fake.preview(slot)
    }

    fn release(&mut self, slot: Slot) {
        self.fake.release(slot);
    }

    fn cost_model(&self) -> Arc<dyn CostModel> {
        self.fake.cost_model()
    }
}
