//! The whole service over kontext-tiny: many edits of several people at once, none mixed up.

use crate::support::{load_pipeline, repository, run};
use anyhow::{Context, Result, ensure};
use darkroom::{
    app::{ModelEntry, decode, encode},
    config::Styles,
    domain::{OwnerId, Pixels, Prompt},
    engine::{CostModel, Engine, EngineError, Job, JobShape, Phase, Slot, StepOutcome},
    imaging,
    model::weights::Target,
    pipeline::Pipeline,
    scheduler::{Limits, SystemClock, spawn},
    service::{
        Draft, JobEvent, JobState, Listen, ModelName, Options, OutputFormat, Parts, Rendition,
        Service, Terms,
    },
    store::{SledStore, Store},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::Duration,
};

const USERS: usize = 4;
const EDITS: usize = 8;
const SIZES: [(u32, u32); 5] = [(128, 128), (160, 96), (96, 160), (192, 128), (128, 192)];

fn options() -> Options {
    Options {
        keep: Duration::from_secs(3600),
        ephemeral: Duration::from_secs(600),
        input_memory: 1 << 30,
        decode: imaging::Limits::default(),
        images: 8,
    }
}

fn limits() -> Limits {
    Limits {
        jobs: 8,
        jobs_per_user: 4,
        tokens: 65_536,
        memory: 4 << 30,
        waiting: 64,
        patience: Duration::from_secs(300),
        remembered: 64,
    }
}

/// The edit of one person: sizes, styles, seeds and lengths differ between all of them. The first
/// person's are the largest.
fn draft(user: usize, edit: usize) -> (Draft, &'static str) {
    let (width, height) = if user == 0 { (192, 192) } else { SIZES[(user + edit) % SIZES.len()] };
    let styles = ["night", "foggy", "black-and-white", "blueprint", "sepia"];
    let photos = ["stream.jpg", "wine.jpg"];
    let draft = Draft {
        prompt: Some(Prompt::new("keep the composition")),
        style: Some(styles[edit % styles.len()].to_owned()),
        num_inference_steps: Some(16 + (edit % 5) as u32),
        seed: Some((100 * user + edit) as u64),
        width: Some(width),
        height: Some(height),
        ..Draft::default()
    };
    (draft, photos[edit % photos.len()])
}

/// The pipeline behind a gate: it takes its first job when the gate opens, so that by then everyone's
/// jobs wait, however long it took to send them.
#[derive(Debug)]
struct Gated {
    pipeline: Pipeline,
    gate: mpsc::Receiver<()>,
}

impl Engine for Gated {
    fn admit(&mut self, job: Job) -> Result<Slot, EngineError> {
        // The test ends without opening it only if it failed.
        let _ = self.gate.recv();
        self.pipeline.admit(job)
    }

    fn advance(&mut self, slot: Slot, budget: Duration) -> Result<Phase, EngineError> {
        self.pipeline.advance(slot, budget)
    }

    fn step(&mut self, slots: &[Slot]) -> Vec<StepOutcome> {
        self.pipeline.step(slots)
    }

    fn preview(&mut self, slot: Slot) -> Option<Pixels> {
        self.pipeline.preview(slot)
    }

    fn release(&mut self, slot: Slot) {
        self.pipeline.release(slot);
    }

    fn cost_model(&self) -> Arc<dyn CostModel> {
        self.pipeline.cost_model()
    }
}

fn owner(user: usize) -> OwnerId {
    OwnerId::from_bytes([user as u8 + 1; 16])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_edits_of_four_people_are_shared_fairly_and_none_is_mixed_up() -> Result<()> {
    let model = ModelEntry::find("kontext-tiny")?;
    let styles = Styles::open(&repository("models/styles.toml"))?;
    let load = |model: &ModelEntry| load_pipeline(&model.folder, &model.manifest, &Target::cpu());
    let mut alone = load(&model)?;
    let costs = alone.cost_model();

    let folder = tempfile::tempdir()?;
    let (store, _) = SledStore::open(darkroom::store::Options::new(folder.path()))?;
    let (of_engine, defaults) = (model.clone(), model.manifest.defaults);
    let (open, gate) = mpsc::channel();
    let mut gate = Some(gate);
    let factory = move || {
        let manifest = &of_engine.manifest;
        let pipeline = load_pipeline(&of_engine.folder, manifest, &Target::cpu())?;
        let gate = gate.take().ok_or("the engine was built twice")?;
        Ok(Box::new(Gated { pipeline, gate }) as Box<dyn Engine>)
    };
    let scheduler = spawn(Box::new(factory), limits(), Arc::new(SystemClock::start()))?;
    let service = Service::start(Parts {
        scheduler: scheduler.clone(),
        store: Arc::new(store) as Arc<dyn Store>,
        model: ModelName { name: model.name.clone(), version: model.version()? },
        defaults,
        styles: styles.clone(),
        options: options(),
    })?;

    // One person after another sends all at once, so that the first floods the queue.
    let mut jobs = Vec::new();
    for user in 0..USERS {
        for edit in 0..EDITS {
            let (draft, photo) = draft(user, edit);
            let mut upload = service.upload();
            upload.push(&std::fs::read(repository("tests/photos").join(photo))?)?;
            let room = service.room()?;
            let terms = Terms::default();
            let job = service.submit(owner(user), room, draft, None, terms, vec![upload]).await?;
            jobs.push((user, edit, job.job.id));
        }
    }

    // Closed for good, and so open.
    drop(open);

    let mut served = Vec::new();
    let mut results = Vec::new();
    for (user, edit, id) in jobs {
        let mut news = service.listen(owner(user), id, Listen::default()).await?;
        let mut last = None;
        while let Some((_, event)) = news.next().await {
            last = Some(event);
        }
        let Some(JobEvent::Done(image)) = last else { anyhow::bail!("{user}.{edit}: {last:?}") };
        let job = service.job(owner(user), id).await?;
        ensure!(job.state == JobState::Done && job.record.image == Some(image));
        served.push((job.record.started.context("it was started")?, user, edit));
        let content = service.content(owner(user), image.id, Rendition::default()).await?;
        results.push((user, edit, content.bytes));
        // Another person has neither the job nor the image.
        let other = owner((user + 1) % USERS);
        ensure!(
            service.job(other, id).await.is_err() && service.image(other, image.id).await.is_err()
        );
    }

    let mut work = BTreeMap::new();
    for (user, edit, found) in results {
        let (draft, photo) = draft(user, edit);
        let params = draft.resolve(defaults, Some(&styles))?;
        let picture = decode(&std::fs::read(repository("tests/photos").join(photo))?)?;
        let sizes = [picture.size()];
        let cost = costs.cost(&JobShape { params: &params, images: &sizes })?;
        work.insert((user, edit), cost.work());
        let pixels = run(&mut alone, Job { params, images: vec![picture] })?.0;
        let expected = encode(&pixels, OutputFormat::Png)?;
        ensure!(*found == *expected, "the bytes of {user}.{edit} differ from those it has alone");
    }

    let stats = scheduler.stats();
    let mean = stats.batch_jobs.mean();
    // While everyone still has a job waiting: until the first person's last job is begun with.
    served.sort();
    let mut shares = [0_u64; USERS];
    let mut begun = [0; USERS];
    for (_, user, edit) in served {
        shares[user] += work[&(user, edit)];
        begun[user] += 1;
        if begun[user] == EDITS {
            break;
        }
    }
    let all: u64 = shares.iter().sum();
    println!(
        "{} steps of {mean:.2} jobs; shares of the work {:?} %",
        stats.batch_jobs.count(),
        shares.map(|share| 100 * share / all)
    );
    ensure!(mean >= 4.0, "{mean:.2} jobs in a step");
    for (user, share) in shares.iter().enumerate() {
        ensure!(8 * share > all, "user {user} was served {share} of {all}");
    }
    Ok(())
}
