//! The native API over the fake engine and a real store, driven without a socket: every request
//! passes the router and the layers of the server.
//!
//! The engine's worker stands still until a test ticks it, so that a test decides what happens when.

mod edits;
mod events;
mod images;
mod jobs;
mod loras;
mod openapi;
mod refusals;
mod server;

use crate::support::repository;
use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use darkroom::{
    config::{Defaults, Styles},
    domain::{OwnerId, Pixels},
    engine::fake::{Call, Control, FakeEngine, Work},
    http::{App, Model, Refused, Running, ServerOptions, Tls},
    imaging::{self, OutputFormat},
    scheduler::{Factory, Limits, ManualClock, Tick, Worker, by_hand_all},
    service::{DecodeLimits, ModelName, Options, Parts, Service},
    store::{self, BlobMode, Plain, RealDisk, SledStore, Store},
};
use http_body_util::BodyExt;
use serde_json::Value;
use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tower::ServiceExt;

/// Somebody else.
const BOB: OwnerId = OwnerId::from_bytes([0xbb; 16]);
/// More ticks than any of these tests takes.
const MANY: usize = 20_000;
/// What separates the parts of a form.
const BOUNDARY: &str = "a-line-that-no-part-holds";

/// What a test may set.
#[derive(Clone)]
struct Setup {
    limits: Limits,
    options: Options,
    work: Work,
    max_body: u64,
    /// Engines, all but the first of which stand still.
    engines: usize,
}

impl Default for Setup {
    /// Room for everything that a test does not limit itself.
    fn default() -> Self {
        let limits = Limits {
            jobs: 8,
            jobs_per_user: 8,
            tokens: 100_000,
            memory: 1_000_000_000,
            waiting: 100,
            patience: Duration::from_secs(3600),
            remembered: 1000,
        };
        let options = Options {
            keep: Duration::from_secs(3600),
            ephemeral: Duration::from_secs(3600),
            input_memory: 64 << 20,
            decode: DecodeLimits::default(),
            images: 3,
        };
        Self { limits, options, work: Work::default(), max_body: 16 << 20, engines: 1 }
    }
}

/// The API, and what is behind it.
struct Bench {
    folder: TempDir,
    setup: Setup,
    store: Arc<SledStore>,
    service: Service,
    worker: Worker,
    _others: Vec<Worker>,
    control: Control,
    router: Router,
}

impl Bench {
    fn new() -> Result<Self> {
        Self::with(Setup::default())
    }

    fn with(setup: Setup) -> Result<Self> {
        Self::over(tempfile::tempdir()?, setup)
    }

    /// Over the store in `folder`, whatever is in it.
    fn over(folder: TempDir, setup: Setup) -> Result<Self> {
        let options = store::Options {
            folder: folder.path().join("store"),
            blobs: BlobMode::Files,
            sealer: Arc::new(Plain),
            disk: Arc::new(RealDisk),
        };
        let (store, _) = SledStore::open(options)?;
        let store = Arc::new(store);
        let (control, clock) = (Control::default(), ManualClock::default());
        let engine = |number: usize| -> (String, Factory) {
            let (work, of_engine, its_clock) = (setup.work, control.clone(), clock.clone());
            let factory: Factory = Box::new(move || {
                let clock = its_clock.clone();
                let spend = move |time| clock.advance(time);
                Ok(Box::new(FakeEngine::new(work, of_engine.clone(), spend)))
            });
            (format!("fake:{number}"), factory)
        };
        let engines = (0..setup.engines).map(engine).collect();
        let (scheduler, mut workers) = by_hand_all(engines, setup.limits, Arc::new(clock))?;
        let worker = workers.remove(0);
        let (name, version) = ("fake".to_owned(), "0123abcd".to_owned());
        let defaults =
            Defaults { num_inference_steps: 4, guidance_scale: 2.5, max_sequence_length: 32 };
        let service = Service::start(Parts {
            scheduler,
            store: store.clone() as Arc<dyn Store>,
            model: ModelName { name: name.clone(), version: version.clone() },
            defaults,
            styles: Styles::open(&repository("models/styles.toml"))?,
            options: setup.options,
        })?;
        let running = Running {
            version,
            device: "cpu".to_owned(),
            precision: "f32".to_owned(),
            preferred_sizes: vec![[32, 32]],
        };
        let (family, licence) = ("flux-kontext".to_owned(), "MIT".to_owned());
        let model = Model { name, family, licence, installed: true, running: Some(running) };
        let app = App { service: service.clone(), models: Arc::new([model]), loras: loras::list() };
        let router = darkroom::http::layered(
            darkroom::http::router(app),
            &server(setup.max_body, service.clone()),
        );
        Ok(Self { folder, setup, store, service, worker, _others: workers, control, router })
    }

    /// Another server, with what the disk holds at this moment: as if this one had been killed.
    fn after_a_kill(&self) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        copy(self.folder.path(), folder.path())?;
        Self::over(folder, self.setup.clone())
    }

    /// Sends a request. The worker stands still meanwhile.
    async fn send(&self, request: Request<Body>) -> Result<Answer> {
        Answer::read(self.router.clone().oneshot(request).await?).await
    }

    /// Sends a request that waits for the worker, and ticks it meanwhile.
    async fn send_ticking(&mut self, request: Request<Body>) -> Result<Answer> {
        let router = self.router.clone();
        self.ticking(async { Answer::read(router.oneshot(request).await?).await }).await
    }

    async fn get(&self, path: &str) -> Result<Answer> {
        self.send(request(Method::GET, path).body(Body::empty())?).await
    }

    async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(request(Method::DELETE, path).body(Body::empty())?).await
    }

    async fn post(&self, path: &str, json: &Value) -> Result<Answer> {
        let post = request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        self.send(post.body(Body::from(json.to_string()))?).await
    }

    /// Submits a form that must be taken, and gives the job.
    async fn submit(&self, form: &Form) -> Result<Value> {
        let answer = self.send(form.post()?).await?;
        ensure!(answer.status == StatusCode::ACCEPTED, "{answer:?}");
        answer.json()
    }

    /// Ticks until nothing is left to do, then waits until every job has ended.
    async fn finish(&mut self) -> Result<()> {
        for _ in 0..MANY {
            if self.worker.tick() != Tick::Again {
                let service = self.service.clone();
                let ended = async {
                    // The results are stored on other threads.
                    while !service.queue(OwnerId::LOCAL).jobs.is_empty()
                        || !service.queue(BOB).jobs.is_empty()
                    {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                self.ticking(ended).await;
                return Ok(());
            }
        }
        anyhow::bail!("not idle after {MANY} ticks")
    }

    /// Ticks until the job with that seed has taken so many steps.
    fn step_to(&mut self, seed: u64, steps: usize) -> Result<()> {
        for _ in 0..MANY {
            if self.steps_of(seed) >= steps {
                return Ok(());
            }
            self.worker.tick();
        }
        anyhow::bail!("no {steps} steps after {MANY} ticks")
    }

    /// Waits for `future`, and ticks meanwhile.
    async fn ticking<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                done = &mut future => return done,
                () = tokio::task::yield_now() => {}
            }
            if self.worker.tick() != Tick::Again {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// The denoising steps that the job with that seed has taken.
    fn steps_of(&self, seed: u64) -> usize {
        let calls = self.control.calls().into_iter();
        calls.filter(|call| matches!(call, Call::Step(seeds) if seeds.contains(&seed))).count()
    }

    /// Checks that no request has left anything behind: no place in the queue, no memory.
    fn ensure_clean(&self) -> Result<()> {
        let counts = self.service.counts();
        ensure!(counts.input_bytes == 0, "{} bytes of inputs are left", counts.input_bytes);
        ensure!(counts.scheduler.waiting == 0, "{} places are taken", counts.scheduler.waiting);
        Ok(())
    }
}

fn server(max_body: u64, service: Service) -> ServerOptions {
    ServerOptions {
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8484)),
        max_body,
        max_connections: 100,
        header_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        hosts: Vec::new(),
        tls: Tls::Off,
        refused: Refused(Arc::new(move |code| service.count_refusal(code.name()))),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A request that the server's layers let pass.
fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "localhost")
}

/// A response that was read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

impl Answer {
    async fn read(response: axum::response::Response) -> Result<Self> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: parts.status, headers: parts.headers, body })
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Checks that it is this error, and gives its message.
    fn refusal(&self, status: u16, code: &str, field: Option<&str>) -> Result<String> {
        let error = self.json()?["error"].take();
        let found = (self.status.as_u16(), error["code"].as_str(), error["field"].as_str());
        ensure!(found == (status, Some(code), field), "{self:?}");
        Ok(error["message"].as_str().context("a message")?.to_owned())
    }
}

/// A form, as a browser sends it.
#[derive(Clone, Default)]
struct Form {
    body: Vec<u8>,
    key: Option<String>,
}

impl Form {
    /// An edit of a small picture, whose seed is its name.
    fn edit(seed: u64) -> Result<Self> {
        let form = Self::default().text("prompt", "make it blue").text("seed", &seed.to_string());
        Ok(form.file("image", &png(32, 32)?))
    }

    fn text(mut self, name: &str, text: &str) -> Self {
        let part = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n"
        );
        self.body.extend(part.as_bytes());
        self
    }

    fn file(mut self, name: &str, bytes: &[u8]) -> Self {
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"; \
             filename=\"holiday.png\"\r\ncontent-type: image/gif\r\n\r\n"
        );
        self.body.extend(head.as_bytes());
        self.body.extend(bytes);
        self.body.extend(b"\r\n");
        self
    }

    /// With an idempotency key.
    fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.body, format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
    }

    fn post(&self) -> Result<Request<Body>> {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let mut post = request(Method::POST, "/api/edits").header(header::CONTENT_TYPE, kind);
        if let Some(key) = &self.key {
            post = post.header("idempotency-key", key.as_bytes());
        }
        Ok(post.body(Body::from(self.bytes()))?)
    }
}

/// A picture file without a pattern that repeats.
fn png(width: u32, height: u32) -> Result<Vec<u8>> {
    encoded(width, height, OutputFormat::Png)
}

fn encoded(width: u32, height: u32, format: OutputFormat) -> Result<Vec<u8>> {
    let rgb = (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    let pixels = Pixels::new(width, height, rgb.collect()).context("a picture")?;
    Ok(imaging::encode(&pixels, format, None)?)
}

fn id(job: &Value) -> Result<&str> {
    job["id"].as_str().context("an id")
}

/// Sends an edit that is this text.
async fn json_text(bench: &Bench, text: &str) -> Result<Answer> {
    let post = request(Method::POST, "/api/edits")
        .header(header::CONTENT_TYPE, "Application/JSON ; charset=utf-8");
    bench.send(post.body(Body::from(text.to_owned()))?).await
}
