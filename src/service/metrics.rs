//! What the service counts, as metrics. `/metrics` calls it; names and labels are a promise to
//! dashboards, and no label holds anything that a person sent.

use super::{Counts, EngineState, EngineStats, Histogram, JobState, ModelName, StopReason};
use crate::telemetry::{Exposition, Kind, resident};

/// The states that a job can end in.
const ENDS: [JobState; 4] =
    [JobState::Done, JobState::Failed, JobState::Cancelled, JobState::Interrupted];

/// The text of all metrics.
pub(super) fn write(counts: &Counts, model: &ModelName) -> String {
    let mut text = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    let labels = [("version", version), ("model", &model.full())];
    text.info(
        "darkroom_build_info",
        "The version of the server, and the model that runs.",
        &labels,
    );
    scheduler(&mut text, counts);
    text.labelled(
        ("darkroom_refused_requests_total", "code"),
        Kind::Counter,
        "Requests that were refused, by the code of the answer.",
        counts.refused.iter().map(|(code, count)| (*code, count)),
    );
    text.single(
        "darkroom_input_memory_bytes",
        Kind::Gauge,
        "Bytes that the pictures of requests take in memory.",
        counts.input_bytes,
    );
    text.single(
        "darkroom_stored_images",
        Kind::Gauge,
        "Images that are kept.",
        counts.stored.pictures,
    );
    text.single(
        "darkroom_stored_bytes",
        Kind::Gauge,
        "Bytes of all that is kept, images and records.",
        counts.stored.bytes,
    );
    if let Some(bytes) = resident() {
        text.single(
            "process_resident_memory_bytes",
            Kind::Gauge,
            "Bytes of the process in memory, weights included.",
            bytes,
        );
    }
    text.finish()
}

fn scheduler(text: &mut Exposition, counts: &Counts) {
    let stats = &counts.scheduler;
    let queue = "Jobs that wait, and requests that have taken a place among them.";
    text.single("darkroom_queue_jobs", Kind::Gauge, queue, stats.waiting);
    let running = "Jobs that the devices have.";
    text.single("darkroom_running_jobs", Kind::Gauge, running, stats.running);
    let memory = "Bytes that the jobs of the devices are predicted to take, beside the weights.";
    text.single("darkroom_predicted_memory_bytes", Kind::Gauge, memory, stats.memory);
    let mut histogram = |name, help, of: &Histogram| {
        text.histogram(name, help, of.buckets(), of.count(), of.sum());
    };
    let wait = "Seconds from a job's submission to its start.";
    histogram("darkroom_wait_seconds", wait, &stats.wait_seconds);
    let step = "Seconds of a denoising step, of all jobs in it.";
    histogram("darkroom_step_seconds", step, &stats.step_seconds);
    let slice = "Seconds of a slice of text or picture work.";
    histogram("darkroom_slice_seconds", slice, &stats.slice_seconds);
    let tokens = "Tokens of a denoising step, of all jobs in it.";
    histogram("darkroom_batch_tokens", tokens, &stats.batch_tokens);
    let jobs = "Jobs in a denoising step.";
    histogram("darkroom_batch_jobs", jobs, &stats.batch_jobs);
    text.labelled(
        ("darkroom_admission_stops_total", "reason"),
        Kind::Counter,
        "Why no more jobs were admitted, counted at each round of the scheduler.",
        StopReason::ALL.map(|reason| (reason.name(), of(stats.stops.get(&reason)))),
    );
    text.labelled(
        ("darkroom_jobs_ended_total", "state"),
        Kind::Counter,
        "Jobs that the devices are done with, by how they ended.",
        ENDS.map(|state| (state.name(), of(stats.ended.get(state.name())))),
    );
    let rebuilds = "How often the model was started again after a failure.";
    text.single("darkroom_engine_rebuilds_total", Kind::Counter, rebuilds, stats.rebuilds);
    engines(text, &stats.engines);
}

/// What is known of each device, by its number in the settings.
fn engines(text: &mut Exposition, engines: &[EngineStats]) {
    let numbers: Vec<String> = (0..engines.len()).map(|number| number.to_string()).collect();
    let mut each = |name, kind, help, value: fn(&EngineStats) -> u64| {
        let values = numbers.iter().map(String::as_str).zip(engines.iter().map(value));
        text.labelled((name, "engine"), kind, help, values);
    };
    let up = "Whether a device runs the model: 1 where it does.";
    each("darkroom_engine_up", Kind::Gauge, up, |engine| {
        u64::from(engine.state == EngineState::Ready)
    });
    let running = "Jobs that a device has.";
    each("darkroom_engine_running_jobs", Kind::Gauge, running, |engine| engine.running as u64);
    let memory = "Bytes that the jobs of a device are predicted to take, beside the weights.";
    each("darkroom_engine_predicted_memory_bytes", Kind::Gauge, memory, |engine| engine.memory);
    let steps = "Denoising steps that a device has done.";
    each("darkroom_engine_steps_total", Kind::Counter, steps, |engine| engine.steps);
}

fn of(count: Option<&u64>) -> u64 {
    count.copied().unwrap_or_default()
}
