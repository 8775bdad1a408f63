//! What the server tells of itself: models, styles, the queue, health, metrics.

use super::{BOB, Bench, Form, Setup, id, request};
use anyhow::{Context, Result, ensure};
use axum::{body::Body, http::Method};
use darkroom::{
    domain::Prompt,
    engine::fake::{At, Fault},
    service::{Draft, Terms},
    store::Store,
    telemetry::{Exposition, Kind},
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

/// Samples of a text of metrics, by name and labels.
#[derive(Debug)]
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads the text, and checks that each family is described before its samples, and once.
    fn read(text: &str) -> Result<Self> {
        let (mut samples, mut families) = (BTreeMap::new(), BTreeMap::new());
        let mut current = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').context("a help")?;
                ensure!(!help.is_empty() && families.insert(name, "").is_none(), "{line}");
                current = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').context("a type")?;
                ensure!(name == current, "{line}");
                families.insert(name, kind);
            } else {
                let (sample, value) = line.rsplit_once(' ').context("a value")?;
                let name = sample.split('{').next().unwrap_or(sample);
                let family = name.strip_prefix(&current).context(line.to_owned())?;
                let histogram = families.get(&*current) == Some(&"histogram");
                let parts: &[&str] = if histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
                ensure!(parts.contains(&family), "{line} stands in {current}");
                let counter = families.get(&*current) == Some(&"counter");
                ensure!(counter == current.ends_with("_total"), "{current}");
                let value = value.parse().with_context(|| line.to_owned())?;
                ensure!(
                    samples.insert(sample.to_owned(), value).is_none(),
                    "{line} is there twice"
                );
            }
        }
        ensure!(text.ends_with('\n'));
        Ok(Self(samples))
    }

    async fn of(bench: &Bench) -> Result<Self> {
        let answer = bench.get("/metrics").await?;
        ensure!(answer.status == 200);
        let kind = answer.header("content-type");
        ensure!(kind == Some("text/plain; version=0.0.4; charset=utf-8"), "{kind:?}");
        Self::read(std::str::from_utf8(&answer.body)?)
    }

    fn get(&self, sample: &str) -> Result<f64> {
        self.0.get(sample).copied().with_context(|| format!("no {sample} in {self:#?}"))
    }

    /// Checks that samples have these values.
    fn ensure(&self, samples: &[(&str, f64)]) -> Result<()> {
        for (sample, expected) in samples {
            let found = self.get(sample)?;
            ensure!(found == *expected, "{sample} is {found}, not {expected}");
        }
        Ok(())
    }

    /// Checks that a histogram holds `count` values, and that its buckets grow to that.
    fn ensure_histogram(&self, name: &str, count: f64) -> Result<()> {
        let bucket = format!("{name}_bucket{{le=\"");
        let bound = |sample: &str| {
            let bound = sample.strip_prefix(&bucket)?.strip_suffix("\"}")?;
            bound.parse::<f64>().ok()
        };
        let buckets = self.0.iter().filter_map(|(sample, value)| Some((bound(sample)?, *value)));
        let mut buckets: Vec<_> = buckets.collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        ensure!(buckets.len() > 2 && buckets.is_sorted_by_key(|(_, below)| *below), "{buckets:?}");
        ensure!(buckets.last() == Some(&(f64::INFINITY, count)), "{name}: {buckets:?}");
        ensure!(self.get(&format!("{name}_count"))? == count);
        ensure!((self.get(&format!("{name}_sum"))? > 0.0) == (count > 0.0));
        Ok(())
    }
}

fn fails(seed: u64) -> Fault {
    Fault { at: At::Step, seed, call: 1, panics: true }
}

#[tokio::test]
async fn metrics_count_what_happened() -> Result<()> {
    let mut bench = Bench::new()?;
    let idle = Metrics::of(&bench).await?;
    idle.ensure(&[
        ("darkroom_build_info{version=\"0.1.0\",model=\"fake@0123abcd\"}", 1.0),
        ("darkroom_queue_jobs", 0.0),
        ("darkroom_running_jobs", 0.0),
        ("darkroom_predicted_memory_bytes", 0.0),
        ("darkroom_input_memory_bytes", 0.0),
        ("darkroom_stored_images", 0.0),
        ("darkroom_stored_bytes", 0.0),
        ("darkroom_engine_rebuilds_total", 0.0),
        ("darkroom_jobs_ended_total{state=\"done\"}", 0.0),
        ("darkroom_jobs_ended_total{state=\"failed\"}", 0.0),
        ("darkroom_jobs_ended_total{state=\"cancelled\"}", 0.0),
        ("darkroom_jobs_ended_total{state=\"interrupted\"}", 0.0),
        ("darkroom_admission_stops_total{reason=\"queue_empty\"}", 0.0),
        ("darkroom_admission_stops_total{reason=\"max_jobs\"}", 0.0),
        ("darkroom_admission_stops_total{reason=\"token_budget\"}", 0.0),
        ("darkroom_admission_stops_total{reason=\"memory_budget\"}", 0.0),
        ("darkroom_admission_stops_total{reason=\"user_limit\"}", 0.0),
    ])?;
    for histogram in ["wait_seconds", "step_seconds", "slice_seconds", "batch_tokens", "batch_jobs"]
    {
        idle.ensure_histogram(&format!("darkroom_{histogram}"), 0.0)?;
    }

    bench.submit(&Form::edit(1)?).await?;
    bench.submit(&Form::edit(2)?).await?;
    let waiting = Metrics::of(&bench).await?;
    waiting.ensure(&[("darkroom_queue_jobs", 2.0), ("darkroom_running_jobs", 0.0)])?;
    ensure!(waiting.get("darkroom_input_memory_bytes")? >= 2.0 * 32.0 * 32.0 * 3.0);
    bench.step_to(1, 1)?;
    let running = Metrics::of(&bench).await?;
    running.ensure(&[("darkroom_queue_jobs", 0.0), ("darkroom_running_jobs", 2.0)])?;
    ensure!(running.get("darkroom_predicted_memory_bytes")? > 0.0);

    bench.finish().await?;
    let cancelled = bench.submit(&Form::edit(3)?).await?;
    let path = format!("/api/jobs/{}", id(&cancelled)?);
    bench.send_ticking(request(Method::DELETE, &path).body(Body::empty())?).await?;
    bench.control.plan(fails(4));
    bench.submit(&Form::edit(4)?).await?;
    bench.finish().await?;
    // What a handler refuses is counted, and what no handler ever sees.
    bench.get("/api/images?limit=0").await?;
    bench.get("/nowhere").await?;
    bench.get("/nowhere-else").await?;
    let after = Metrics::of(&bench).await?;
    after.ensure(&[
        ("darkroom_queue_jobs", 0.0),
        ("darkroom_running_jobs", 0.0),
        ("darkroom_input_memory_bytes", 0.0),
        ("darkroom_stored_images", 2.0),
        ("darkroom_engine_rebuilds_total", 1.0),
        ("darkroom_jobs_ended_total{state=\"done\"}", 2.0),
        ("darkroom_jobs_ended_total{state=\"failed\"}", 1.0),
        ("darkroom_jobs_ended_total{state=\"cancelled\"}", 1.0),
        ("darkroom_refused_requests_total{code=\"invalid_parameter\"}", 1.0),
        ("darkroom_refused_requests_total{code=\"not_found\"}", 2.0),
    ])?;
    let total = bench.store.total();
    ensure!(after.get("darkroom_stored_bytes")? == total.bytes as f64);
    ensure!(after.get("darkroom_admission_stops_total{reason=\"queue_empty\"}")? > 0.0);
    // Each of the jobs that were done took four steps.
    let steps = after.get("darkroom_step_seconds_count")?;
    ensure!((4.0..=8.0).contains(&steps), "{steps}");
    for of_a_step in ["step_seconds", "batch_tokens", "batch_jobs"] {
        after.ensure_histogram(&format!("darkroom_{of_a_step}"), steps)?;
    }
    ensure!(after.get("darkroom_batch_jobs_sum")? == 8.0);
    ensure!(!after.0.keys().any(|sample| sample.contains("blue")), "a prompt is in a metric");
    #[cfg(target_os = "linux")]
    ensure!(after.get("process_resident_memory_bytes")? > 1e6);
    Ok(())
}

#[test]
fn a_metrics_text_escapes_what_would_end_a_line_or_a_label() {
    let mut text = Exposition::default();
    text.single("a", Kind::Gauge, "one\ntwo \\ \"three\"", 1.5);
    text.labelled(("b_total", "of"), Kind::Counter, "b", [("x\"y\\z\n", 2)]);
    text.info("c", "c", &[("d", "e"), ("f", "g")]);
    let expected = concat!(
        "# HELP a one\\ntwo \\\\ \"three\"\n# TYPE a gauge\na 1.5\n",
        "# HELP b_total b\n# TYPE b_total counter\nb_total{of=\"x\\\"y\\\\z\\n\"} 2\n",
        "# HELP c c\n# TYPE c gauge\nc{d=\"e\",f=\"g\"} 1\n",
    );
    assert_eq!(text.finish(), expected);
}

#[tokio::test]
async fn readiness_follows_a_drain() -> Result<()> {
    let mut bench = Bench::new()?;
    let ready = bench.get("/readyz").await?;
    ensure!(ready.status == 200 && ready.json()? == json!({"status": "ready"}), "{ready:?}");
    let service = bench.service.clone();
    bench.ticking(async { service.drain(Duration::ZERO).await }).await;
    let draining = bench.get("/readyz").await?;
    ensure!(draining.status == 503, "{draining:?}");
    ensure!(draining.json()? == json!({"status": "draining"}), "{draining:?}");
    ensure!(bench.get("/api/queue").await?.json()?["state"] == "draining");
    // It lives, and shows what it has.
    let alive = bench.get("/healthz").await?;
    ensure!(alive.status == 200 && alive.json()? == json!({"status": "ok"}), "{alive:?}");
    ensure!(bench.get("/api/images").await?.status == 200);
    Ok(())
}

#[tokio::test]
async fn readiness_turns_down_with_the_engine() -> Result<()> {
    let mut bench = Bench::new()?;
    // The engine is built again once; the second failure is the last.
    for seed in [1, 2] {
        bench.control.plan(fails(seed));
        bench.submit(&Form::edit(seed)?).await?;
        bench.finish().await?;
    }
    let down = bench.get("/readyz").await?;
    ensure!(down.status == 503, "{down:?}");
    let body = down.json()?;
    ensure!(body["status"] == "down" && body["reason"].is_string(), "{body}");
    ensure!(bench.get("/api/queue").await?.json()?["state"] == "down");
    ensure!(bench.get("/healthz").await?.status == 200);
    Ok(())
}

#[tokio::test]
async fn readiness_names_the_device_that_is_down_and_stays_while_another_is_not() -> Result<()> {
    let mut bench = Bench::with(Setup { engines: 2, ..Setup::default() })?;
    for seed in [1, 2] {
        bench.control.plan(fails(seed));
        bench.submit(&Form::edit(seed)?).await?;
        bench.finish().await?;
    }
    let ready = bench.get("/readyz").await?;
    ensure!(ready.status == 200, "{ready:?}");
    let body = ready.json()?;
    ensure!(body["status"] == "ready" && body.get("reason").is_none(), "{body}");
    let engines = body["engines"].as_array().context("engines")?;
    ensure!(engines.len() == 2 && engines[1] == json!({"device": "fake:1", "status": "ready"}));
    ensure!(engines[0]["device"] == "fake:0" && engines[0]["status"] == "down", "{body}");
    ensure!(engines[0]["reason"].is_string(), "{body}");
    Metrics::of(&bench).await?.ensure(&[
        ("darkroom_engine_up{engine=\"0\"}", 0.0),
        ("darkroom_engine_up{engine=\"1\"}", 1.0),
        ("darkroom_engine_running_jobs{engine=\"0\"}", 0.0),
        ("darkroom_engine_predicted_memory_bytes{engine=\"1\"}", 0.0),
        ("darkroom_engine_steps_total{engine=\"1\"}", 0.0),
        ("darkroom_engine_rebuilds_total", 1.0),
    ])?;
    bench.submit(&Form::edit(3)?).await?;
    Ok(())
}

#[tokio::test]
async fn monitors_may_add_parameters_of_their_own() -> Result<()> {
    let bench = Bench::new()?;
    for path in ["/healthz?probe=1", "/readyz?probe=1", "/metrics?name[]=x"] {
        ensure!(bench.get(path).await?.status == 200, "{path}");
    }
    for path in ["/api/models?all=1", "/api/styles?all=1", "/api/queue?all=1"] {
        bench.get(path).await?.refusal(422, "unknown_field", Some("all"))?;
    }
    Ok(())
}

#[tokio::test]
async fn the_queue_shows_how_many_wait_and_ones_own_jobs() -> Result<()> {
    let mut setup = Setup::default();
    setup.limits.jobs = 1;
    let mut bench = Bench::with(setup)?;
    let empty = bench.get("/api/queue").await?.json()?;
    let expected = json!({
        "waiting": 0, "running": 0, "backlog_seconds": null, "state": "ready", "jobs": [],
    });
    ensure!(empty == expected, "{empty}");
    // Estimates need a step that was measured.
    bench.submit(&Form::edit(9)?).await?;
    bench.finish().await?;
    let mut jobs = Vec::new();
    for seed in 1..=3 {
        jobs.push(id(&bench.submit(&Form::edit(seed)?).await?)?.to_owned());
    }
    let room = bench.service.room()?;
    // Bob's is the largest, so its turn comes after the first of the others.
    let (prompt, steps) = (Prompt::new("of bob"), Some(100));
    let draft = Draft { prompt: Some(prompt), num_inference_steps: steps, ..Draft::default() };
    bench.service.submit(BOB, room, draft, None, Terms::default(), Vec::new()).await?;
    bench.step_to(1, 1)?;
    let queue = bench.get("/api/queue").await?.json()?;
    ensure!((&queue["waiting"], &queue["running"]) == (&json!(3), &json!(1)), "{queue}");
    let own = queue["jobs"].as_array().context("a list")?;
    ensure!(own.iter().map(id).collect::<Result<Vec<_>>>()? == jobs, "{queue}");
    ensure!(own[0]["state"] == "running" && own[0]["stage"] == "steps", "{}", own[0]);
    ensure!(own[0]["progress"] == json!({"done": 1, "total": 4}), "{}", own[0]);
    ensure!(own[1]["state"] == "queued" && own[1]["position"].is_u64(), "{}", own[1]);
    ensure!(own[0]["eta_seconds"].as_f64() < own[1]["eta_seconds"].as_f64(), "{queue}");
    ensure!(queue["backlog_seconds"].as_f64() > Some(0.0), "{queue}");
    bench.finish().await?;
    let queue = bench.get("/api/queue").await?.json()?;
    ensure!(queue["jobs"] == json!([]) && queue["waiting"] == 0, "{queue}");
    Ok(())
}

#[tokio::test]
async fn models_and_styles_are_those_that_a_request_may_name() -> Result<()> {
    let bench = Bench::new()?;
    let models = bench.get("/api/models").await?.json()?;
    let expected = json!({"models": [{
        "name": "fake", "family": "flux-kontext", "licence": "MIT", "installed": true,
        "running": {
            "version": "0123abcd", "device": "cpu", "precision": "f32",
            "preferred_sizes": [[32, 32]],
            "defaults": {
                "guidance_scale": 2.5, "num_inference_steps": 4, "max_sequence_length": 32,
            },
        },
    }]});
    ensure!(models == expected, "{models}");
    let styles = bench.get("/api/styles").await?.json()?;
    let styles = styles["styles"].as_array().context("a list")?;
    ensure!(styles.len() == bench.service.styles().iter().count() && styles.len() > 1);
    for style in styles {
        for part in ["name", "title", "description", "prompt"] {
            let text = style[part].as_str().with_context(|| style.to_string())?;
            ensure!(!text.is_empty(), "{style}");
        }
    }
    let name = styles[0]["name"].as_str().context("a name")?;
    let model = models["models"][0]["name"].as_str().context("a name")?;
    let job = bench.submit(&Form::edit(1)?.text("style", name).text("model", model)).await?;
    ensure!(job["request"]["style"] == name && job["model"]["name"] == model);
    let prompt = &job["request"]["prompt"];
    ensure!(prompt == "make it blue", "the own prompt, without the style's: {prompt}");
    Ok(())
}
