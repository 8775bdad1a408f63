//! A job's events as a browser hears them: their order, their numbers, what is told again, and what
//! happens when the listener goes.

use super::{Bench, Form, id, request};
use anyhow::{Context, Result, ensure};
use axum::{
    body::Body,
    http::{HeaderMap, Method, StatusCode},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use darkroom::{
    engine::fake::{At, Call, Fault},
    imaging::{self, Limits},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{collections::VecDeque, time::Duration};
use tower::ServiceExt;

/// An event that was heard.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    id: Option<u64>,
    name: String,
    data: Value,
}

/// A listener to one job.
struct Listener {
    headers: HeaderMap,
    body: Body,
    text: String,
    heard: VecDeque<Heard>,
    comments: usize,
    retry: Option<u64>,
}

impl Listener {
    async fn at(bench: &Bench, job: &Value, query: &str, after: Option<u64>) -> Result<Self> {
        let response = ask(bench, Method::GET, job, query, after).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        let (parts, body) = response.into_parts();
        let (text, heard) = (String::new(), VecDeque::new());
        Ok(Self { headers: parts.headers, body, text, heard, comments: 0, retry: None })
    }

    async fn of(bench: &Bench, job: &Value) -> Result<Self> {
        Self::at(bench, job, "", None).await
    }

    /// Reads what comes next, be it an event or not. False at the end.
    async fn read(&mut self) -> Result<bool> {
        let Some(frame) = self.body.frame().await else {
            ensure!(self.text.is_empty(), "the stream ends in {:?}", self.text);
            return Ok(false);
        };
        let Ok(data) = frame?.into_data() else { return Ok(true) };
        self.text += std::str::from_utf8(&data)?;
        while let Some((block, rest)) = self.text.split_once("\n\n") {
            let (block, rest) = (block.to_owned(), rest.to_owned());
            self.take(&block)?;
            self.text = rest;
        }
        Ok(true)
    }

    fn take(&mut self, block: &str) -> Result<()> {
        let (mut id, mut name, mut data) = (None, None, None);
        for line in block.lines() {
            match line.split_once(':').context("a field")? {
                ("", _) => self.comments += 1,
                ("retry", text) => self.retry = Some(text.trim().parse()?),
                ("id", text) => id = Some(text.trim().parse()?),
                ("event", text) => name = Some(text.trim().to_owned()),
                ("data", text) => data = Some(serde_json::from_str(text)?),
                other => anyhow::bail!("{other:?}"),
            }
        }
        if let (Some(name), Some(data)) = (name, data) {
            self.heard.push_back(Heard { id, name, data });
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Heard>> {
        while self.heard.is_empty() && self.read().await? {}
        Ok(self.heard.pop_front())
    }

    /// Everything until the end.
    async fn rest(&mut self) -> Result<Vec<Heard>> {
        let mut all = Vec::new();
        while let Some(heard) = self.next().await? {
            all.push(heard);
        }
        Ok(all)
    }
}

async fn ask(
    bench: &Bench,
    method: Method,
    job: &Value,
    query: &str,
    after: Option<u64>,
) -> Result<axum::response::Response> {
    let path = format!("{}{query}", job["events_url"].as_str().context("a url")?);
    let mut get = request(method, &path);
    if let Some(after) = after {
        get = get.header("last-event-id", after.to_string());
    }
    Ok(bench.router.clone().oneshot(get.body(Body::empty())?).await?)
}

fn names(all: &[Heard]) -> Vec<&str> {
    all.iter().map(|heard| heard.name.as_str()).collect()
}

#[tokio::test]
async fn a_listener_hears_a_jobs_life_in_order_and_the_stream_ends() -> Result<()> {
    let mut bench = Bench::new()?;
    let job = bench.submit(&Form::edit(1)?).await?;
    let mut listener = Listener::at(&bench, &job, "?previews=false", None).await?;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        ensure!(listener.headers.get(name).is_some_and(|found| found == value), "{name}");
    }
    ensure!(listener.headers.get("content-encoding").is_none());
    let first = listener.next().await?.context("an event")?;
    ensure!(first.name == "queued" && listener.retry == Some(2000), "{first:?}");
    ensure!(first.data == json!({ "position": 1, "eta_seconds": null }), "{first:?}");
    let mut all = bench.ticking(listener.rest()).await?;
    // A position may be told again before it is the device's turn.
    all.retain(|heard| heard.name != "queued");
    ensure!(names(&all) == ["started", "step", "step", "step", "step", "done"], "{all:?}");
    for (step, heard) in (1..).zip(&all[1..5]) {
        ensure!((&heard.data["step"], &heard.data["steps"]) == (&json!(step), &json!(4)));
        ensure!(heard.data["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    }
    let ids: Vec<_> = all.iter().map(|heard| heard.id).collect();
    ensure!(ids.iter().all(Option::is_some) && ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let ended = bench.get(&format!("/api/jobs/{}", id(&job)?)).await?.json()?;
    ensure!(all[5].data == json!({ "image": ended["image"] }), "{:?}", all[5]);
    ensure!(bench.control.calls().iter().all(|call| !matches!(call, Call::Preview(_))));
    Ok(())
}

#[tokio::test]
async fn whoever_comes_back_with_the_last_number_hears_exactly_the_rest() -> Result<()> {
    let mut bench = Bench::new()?;
    let job = bench.submit(&Form::edit(1)?).await?;
    bench.finish().await?;
    let all = Listener::of(&bench, &job).await?.rest().await?;
    ensure!(names(&all).starts_with(&["queued", "started", "step"]), "{all:?}");
    ensure!(all.iter().all(|heard| heard.id.is_some()), "previews of what was before: {all:?}");
    let (last, before) = all.split_last().context("events")?;
    for (index, heard) in before.iter().enumerate() {
        let mut again = Listener::at(&bench, &job, "", heard.id).await?;
        ensure!(again.rest().await? == all[index + 1..], "after {heard:?}");
    }
    let nothing = ask(&bench, Method::GET, &job, "", last.id).await?;
    ensure!(nothing.status() == StatusCode::NO_CONTENT);
    ensure!(nothing.into_body().collect().await?.to_bytes().is_empty());
    // In the middle, too: nothing is lost between the two.
    let job = bench.submit(&Form::edit(2)?).await?;
    let mut first = Listener::at(&bench, &job, "?previews=false", None).await?;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last: &Heard| last.name != "step") {
        heard.push(bench.ticking(first.next()).await?.context("an event")?);
    }
    let after = heard.last().and_then(|heard| heard.id);
    drop(first);
    bench.step_to(2, 3)?;
    let mut second = Listener::at(&bench, &job, "?previews=false", after).await?;
    heard.extend(bench.ticking(second.rest()).await?);
    heard.retain(|heard| heard.name != "queued");
    ensure!(names(&heard) == ["started", "step", "step", "step", "step", "done"], "{heard:?}");
    Ok(())
}

#[tokio::test]
async fn previews_come_behind_their_steps_without_a_number() -> Result<()> {
    let mut bench = Bench::new()?;
    let job = bench.submit(&Form::edit(1)?.text("num_inference_steps", "30")).await?;
    let mut listener = Listener::of(&bench, &job).await?;
    let all = bench.ticking(listener.rest()).await?;
    let mut step = json!(0);
    let mut previews = 0;
    for heard in &all {
        match heard.name.as_str() {
            "step" => step = heard.data["step"].clone(),
            "preview" => {
                ensure!(heard.data["step"] == step && heard.id.is_none(), "{heard:?} after {step}");
                let image = heard.data["image"].as_str().context("an image")?;
                let png = BASE64_STANDARD.decode(image)?;
                ensure!(png.starts_with(b"\x89PNG"));
                let pixels = imaging::decode(&png, &Limits::default())?;
                ensure!((pixels.width(), pixels.height()) == (2, 2));
                previews += 1;
            }
            _ => {}
        }
    }
    ensure!(previews > 0 && names(&all).ends_with(&["done"]), "{:?}", names(&all));
    Ok(())
}

#[tokio::test]
async fn every_end_is_told() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.control.plan(Fault { at: At::Advance, seed: 1, call: 1, panics: false });
    let job = bench.submit(&Form::edit(1)?).await?;
    let mut listener = Listener::of(&bench, &job).await?;
    let last = bench.ticking(listener.rest()).await?.pop().context("an end")?;
    ensure!(last.name == "failed" && last.data["code"] == "engine_failed", "{last:?}");
    ensure!(last.data["message"].is_string());

    let job = bench.submit(&Form::edit(2)?).await?;
    let mut listener = Listener::of(&bench, &job).await?;
    let path = format!("/api/jobs/{}", id(&job)?);
    let delete = request(Method::DELETE, &path).body(Body::empty())?;
    bench.send_ticking(delete).await?;
    let all = listener.rest().await?;
    ensure!(
        names(&all).ends_with(&["cancelled"]) && all.iter().all(|heard| heard.name != "started")
    );

    let job = bench.submit(&Form::edit(3)?).await?;
    let mut listener = Listener::of(&bench, &job).await?;
    let killed = bench.after_a_kill()?;
    let service = bench.service.clone();
    bench.ticking(async move { service.drain(Duration::ZERO).await }).await;
    let last = listener.rest().await?.pop().context("an end")?;
    ensure!(last.name == "interrupted" && last.data == json!({}), "{last:?}");
    // Where the store alone knows of it, its end is all that is told.
    let all = Listener::of(&killed, &job).await?.rest().await?;
    ensure!(names(&all) == ["interrupted"], "{all:?}");
    Ok(())
}

#[tokio::test]
async fn a_job_is_cancelled_with_its_listener_only_where_that_was_asked_for() -> Result<()> {
    for (query, steps) in [("?cancel_on_disconnect=true", 2), ("?cancel_on_disconnect=false", 50)] {
        let mut bench = Bench::new()?;
        let job = bench.submit(&Form::edit(1)?.text("num_inference_steps", "50")).await?;
        let listener = Listener::at(&bench, &job, query, None).await?;
        bench.step_to(1, 2)?;
        drop(listener);
        bench.finish().await?;
        ensure!(bench.steps_of(1) == steps, "{query}: {} steps", bench.steps_of(1));
        let state = if steps == 2 { "cancelled" } else { "done" };
        let ended = bench.get(&format!("/api/jobs/{}", id(&job)?)).await?.json()?;
        ensure!(ended["state"] == state, "{ended}");
        bench.ensure_clean()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_request_for_the_head_alone_cancels_nothing() -> Result<()> {
    let mut bench = Bench::new()?;
    let job = bench.submit(&Form::edit(1)?).await?;
    let head = ask(&bench, Method::HEAD, &job, "?cancel_on_disconnect=true", None).await?;
    ensure!(head.status() == StatusCode::OK);
    drop(head);
    bench.finish().await?;
    ensure!(bench.steps_of(1) == 4);
    Ok(())
}

#[tokio::test]
async fn parameters_and_numbers_that_cannot_be_are_refused() -> Result<()> {
    let bench = Bench::new()?;
    let job = bench.submit(&Form::edit(1)?).await?;
    let path = job["events_url"].as_str().context("a url")?;
    for (query, code, field) in [
        ("?previews=maybe", "invalid_parameter", "previews"),
        ("?cancel_on_disconnect=1", "invalid_parameter", "cancel_on_disconnect"),
        ("?preview=true", "unknown_field", "preview"),
        ("?previews=true&previews=false", "invalid_parameter", "previews"),
    ] {
        bench.get(&format!("{path}{query}")).await?.refusal(422, code, Some(field))?;
    }
    for number in ["", "-1", "x", "1.5", "99999999999999999999"] {
        let get = request(Method::GET, path).header("last-event-id", number).body(Body::empty())?;
        let answer = bench.send(get).await?;
        let message = answer.refusal(422, "invalid_parameter", Some("last-event-id"))?;
        ensure!(message.contains("expected the id of an event"), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_silent_stream_gives_a_comment_every_15_seconds() -> Result<()> {
    let bench = Bench::new()?;
    let job = bench.submit(&Form::edit(1)?).await?;
    let mut listener = Listener::of(&bench, &job).await?;
    listener.next().await?.context("an event")?;
    // From here on time passes only where everything waits for it.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    for number in 1..=5 {
        while listener.comments < number {
            ensure!(listener.read().await?, "the stream ended");
        }
        let passed = start.elapsed().as_secs();
        ensure!((15 * number as u64 - 1..=15 * number as u64).contains(&passed), "{passed} s");
    }
    ensure!(listener.heard.is_empty());
    Ok(())
}
