//! One job: how it stands from its submission to its end, who may see it, and how it is cancelled.

use super::{BOB, Bench, Form, id, png};
use anyhow::{Context, Result, ensure};
use darkroom::{
    domain::Prompt,
    engine::fake::{At, Fault},
    service::{Draft, Terms},
};
use serde_json::{Value, json};

async fn job(bench: &Bench, id: &str) -> Result<Value> {
    bench.get(&format!("/api/jobs/{id}")).await?.json()
}

#[tokio::test]
async fn a_job_is_queued_then_running_then_done() -> Result<()> {
    let mut bench = Bench::new()?;
    let first = bench.submit(&Form::edit(1)?).await?;
    let second = bench.submit(&Form::edit(2)?).await?;
    ensure!((first["position"].as_u64(), second["position"].as_u64()) == (Some(1), Some(2)));
    let id = id(&second)?;
    let waiting = job(&bench, id).await?;
    ensure!(waiting["state"] == "queued" && waiting["eta_seconds"].is_null(), "{waiting}");
    for open in ["started", "finished", "stage", "progress", "image", "error"] {
        ensure!(waiting[open].is_null(), "{open} of a job that waits: {waiting}");
    }
    bench.step_to(2, 2)?;
    let running = job(&bench, id).await?;
    ensure!(running["state"] == "running" && running["position"].is_null(), "{running}");
    ensure!(running["stage"] == "steps" && running["progress"] == json!({ "done": 2, "total": 4 }));
    ensure!(running["eta_seconds"].as_f64().is_some_and(|eta| eta > 0.0), "{running}");
    bench.finish().await?;
    let done = job(&bench, id).await?;
    ensure!(done["state"] == "done" && done["error"].is_null(), "{done}");
    let url = done["image"]["url"].as_str().context("a url")?;
    ensure!(
        url == format!("/api/images/{}/content", done["image"]["id"].as_str().context("an id")?)
    );
    ensure!(done["image"]["width"] == 32 && done["image"]["height"] == 32);
    let times = ["created", "started", "finished"].map(|time| done[time].as_str().unwrap_or(""));
    ensure!(times.is_sorted() && times.iter().all(|time| time.len() == 24), "{times:?}");
    ensure!(times.iter().all(|time| time.ends_with('Z')), "{times:?}");
    for same in ["request", "inputs", "model", "created", "events_url"] {
        ensure!(done[same] == second[same], "{same} has changed");
    }
    Ok(())
}

#[tokio::test]
async fn a_job_that_fails_says_why() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.control.plan(Fault { at: At::Advance, seed: 1, call: 1, panics: false });
    let taken = bench.submit(&Form::edit(1)?).await?;
    bench.finish().await?;
    let failed = job(&bench, id(&taken)?).await?;
    ensure!(failed["state"] == "failed" && failed["error"]["code"] == "engine_failed", "{failed}");
    ensure!(failed["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    ensure!(failed["image"].is_null() && failed["finished"].is_string());
    bench.ensure_clean()
}

#[tokio::test]
async fn a_job_that_waits_is_cancelled_without_a_step() -> Result<()> {
    let mut bench = Bench::new()?;
    let taken = bench.submit(&Form::edit(1)?).await?;
    let path = format!("/api/jobs/{}", id(&taken)?);
    let delete = super::request(axum::http::Method::DELETE, &path);
    let answer = bench.send_ticking(delete.body(axum::body::Body::empty())?).await?;
    ensure!(answer.status.as_u16() == 200 && answer.json()?["state"] == "cancelled", "{answer:?}");
    bench.finish().await?;
    ensure!(bench.steps_of(1) == 0);
    ensure!(job(&bench, id(&taken)?).await?["state"] == "cancelled");
    bench.ensure_clean()
}

#[tokio::test]
async fn a_job_that_runs_takes_no_step_after_it_was_cancelled() -> Result<()> {
    let mut bench = Bench::new()?;
    let taken = bench.submit(&Form::edit(1)?.text("num_inference_steps", "50")).await?;
    let other = bench.submit(&Form::edit(2)?).await?;
    bench.step_to(1, 3)?;
    let path = format!("/api/jobs/{}", id(&taken)?);
    let delete = super::request(axum::http::Method::DELETE, &path);
    let answer = bench.send_ticking(delete.body(axum::body::Body::empty())?).await?;
    ensure!(answer.status.as_u16() == 200 && answer.json()?["state"] == "cancelled", "{answer:?}");
    bench.finish().await?;
    ensure!(bench.steps_of(1) == 3, "{} steps", bench.steps_of(1));
    ensure!(job(&bench, id(&other)?).await?["state"] == "done", "the other one suffered");
    bench.ensure_clean()
}

#[tokio::test]
async fn a_job_that_has_ended_stays_as_it_is() -> Result<()> {
    let mut bench = Bench::new()?;
    let taken = bench.submit(&Form::edit(1)?).await?;
    bench.finish().await?;
    let done = job(&bench, id(&taken)?).await?;
    let answer = bench.delete(&format!("/api/jobs/{}", id(&taken)?)).await?;
    ensure!(answer.status.as_u16() == 200 && answer.json()? == done, "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_job_or_anothers_is_not_there() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut picture = bench.service.upload();
    picture.push(&png(32, 32)?)?;
    let draft = Draft { prompt: Some(Prompt::new("x")), seed: Some(9), ..Draft::default() };
    let room = bench.service.room()?;
    let bobs =
        bench.service.submit(BOB, room, draft, None, Terms::default(), vec![picture]).await?;
    let bobs = bobs.job.id.to_string();
    let unknown = "0123456789abcdef0123456789abcdef";
    for round in ["while it waits", "after it ended"] {
        let capital = bobs.to_uppercase();
        for id in [unknown, &bobs, &capital, "1", "%20", "..%2f..", "%00"] {
            for path in [format!("/api/jobs/{id}"), format!("/api/jobs/{id}/events")] {
                let answer = bench.get(&path).await?;
                answer
                    .refusal(404, "not_found", None)
                    .with_context(|| format!("{round}: {path}"))?;
            }
            let answer = bench.delete(&format!("/api/jobs/{id}")).await?;
            answer.refusal(404, "not_found", None).with_context(|| format!("{round}: {id}"))?;
        }
        bench.finish().await?;
    }
    ensure!(bench.steps_of(9) > 0, "someone else cancelled it");
    let view = bench.service.job(BOB, bobs.parse()?).await?;
    ensure!(view.state.name() == "done");
    Ok(())
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let taken = bench.submit(&Form::edit(1)?).await?;
    let path = format!("/api/jobs/{}?wait=1", id(&taken)?);
    bench.get(&path).await?.refusal(422, "unknown_field", Some("wait"))?;
    bench.delete(&path).await?.refusal(422, "unknown_field", Some("wait"))?;
    ensure!(job(&bench, id(&taken)?).await?["state"] == "queued");
    Ok(())
}

#[tokio::test]
async fn a_job_that_the_server_did_not_survive_is_interrupted() -> Result<()> {
    let mut bench = Bench::new()?;
    let done = bench.submit(&Form::edit(1)?).await?;
    bench.finish().await?;
    let running = bench.submit(&Form::edit(2)?).await?;
    bench.step_to(2, 1)?;
    let waiting = bench.submit(&Form::edit(3)?).await?;
    let gone = bench.submit(&Form::edit(4)?.text("ephemeral", "true")).await?;
    let killed = bench.after_a_kill()?;
    for interrupted in [&running, &waiting] {
        let now = job(&killed, id(interrupted)?).await?;
        ensure!(now["state"] == "interrupted" && now["image"].is_null(), "{now}");
        ensure!(now["request"] == interrupted["request"] && now["inputs"] == interrupted["inputs"]);
    }
    ensure!(job(&killed, id(&done)?).await?["state"] == "done");
    killed.get(&format!("/api/jobs/{}", id(&gone)?)).await?.refusal(404, "not_found", None)?;
    Ok(())
}
