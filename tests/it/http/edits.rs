//! What the server takes: both forms, pictures as clients write them, repeated requests, and what is
//! left of a job.

use super::{Bench, Form, encoded, id, json_text, png};
use anyhow::{Context, Result, ensure};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use darkroom::{domain::OwnerId, imaging::OutputFormat};
use serde_json::{Value, json};

/// A field of each kind, with a value as a form and as JSON.
fn every_field() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("prompt", "a blue hat, \"new\"", json!("a blue hat, \"new\"")),
        ("negative_prompt", "red", json!("red")),
        ("true_cfg_scale", "2.5", json!(2.5)),
        ("guidance_scale", " 3 ", json!(3)),
        ("num_inference_steps", "5", json!(5)),
        ("seed", "18446744073709551615", json!(u64::MAX)),
        ("width", "48", json!(48)),
        ("height", "32", json!(32)),
        ("max_sequence_length", "64", json!(64)),
        ("reference_method", "index", json!("index")),
        ("step_cache", "0.25", json!(0.25)),
        (
            "loras",
            "[{\"name\": \"one\", \"scale\": 0.5}, {\"name\": \"two\"}]",
            json!([{ "name": "one", "scale": 0.5 }, { "name": "two", "scale": 1.0 }]),
        ),
        ("style", "sepia", json!("sepia")),
        ("model", "fake", json!("fake")),
        ("output_format", "webp", json!("webp")),
        ("priority", "batch", json!("batch")),
        ("ephemeral", "true", json!(true)),
    ]
}

/// A job without what tells it from another one with the same request.
fn alike(mut job: Value) -> Value {
    for own in ["id", "created", "events_url", "position"] {
        job[own].take();
    }
    job
}

#[tokio::test]
async fn a_form_and_json_with_the_same_fields_are_the_same_job() -> Result<()> {
    let bench = Bench::new()?;
    let pictures = [encoded(40, 30, OutputFormat::Jpeg)?, png(32, 32)?];
    let (mut form, mut body) = (Form::default(), json!({}));
    for (name, text, value) in every_field() {
        form = form.text(name, text);
        body[name] = value;
    }
    for picture in &pictures {
        form = form.file("image", picture);
    }
    body["image"] = pictures.iter().map(|file| BASE64_STANDARD.encode(file)).collect();
    let of_form = bench.submit(&form).await?;
    let answer = bench.post("/api/edits", &body).await?;
    let of_json = answer.json()?;
    let address = format!("/api/jobs/{}", id(&of_json)?);
    ensure!(answer.status.as_u16() == 202 && answer.header("location") == Some(&address));
    ensure!(alike(of_form.clone()) == alike(of_json.clone()), "{of_form}\n{of_json}");
    let said = &of_json["request"];
    for (name, _, value) in every_field() {
        if name == "model" {
            ensure!(of_json["model"] == json!({ "name": "fake", "version": "0123abcd" }));
        } else if name != "reference_method" {
            let same = match value.as_f64() {
                Some(number) => said[name].as_f64() == Some(number),
                None => said[name] == value,
            };
            ensure!(same, "{name} became {}", said[name]);
        }
    }
    let inputs = json!([
        { "format": "jpeg", "width": 40, "height": 30, "bytes": pictures[0].len() },
        { "format": "png", "width": 32, "height": 32, "bytes": pictures[1].len() },
    ]);
    ensure!(of_json["inputs"] == inputs, "{}", of_json["inputs"]);
    ensure!(of_json["state"] == "queued" && of_json["position"] == 2);
    Ok(())
}

#[tokio::test]
async fn what_is_left_open_is_the_models_and_empty_text_of_a_form_and_null_are_left_open()
-> Result<()> {
    let bench = Bench::new()?;
    let mut form = Form::default().text("prompt", "make it blue").file("image", &png(32, 32)?);
    let mut body = json!({ "prompt": "make it blue", "mask": null });
    body["image"] = BASE64_STANDARD.encode(png(32, 32)?).into();
    for (name, ..) in every_field().into_iter().skip(1) {
        form = form.text(name, "");
        body[name] = Value::Null;
    }
    let expected = json!({
        "prompt": "make it blue", "style": null, "negative_prompt": null, "true_cfg_scale": 1.0,
        "guidance_scale": 2.5, "num_inference_steps": 4, "seed": null, "width": null,
        "height": null, "aspect_ratio": null, "max_sequence_length": 32, "step_cache": 0.0, "loras": [],
        "output_format": "png",
        "priority": "interactive", "ephemeral": false,
    });
    for mut job in [bench.submit(&form).await?, bench.post("/api/edits", &body).await?.json()?] {
        let seed = job["request"]["seed"].take().as_u64().context("a seed")?;
        ensure!(seed < 1 << 32, "the seed is {seed}");
        ensure!(job["request"] == expected, "{job}");
    }
    Ok(())
}

#[tokio::test]
async fn a_ratio_is_taken_where_no_size_is_given_and_a_style_where_no_prompt_is() -> Result<()> {
    let bench = Bench::new()?;
    let form = Form::default().text("aspect_ratio", "3:2").text("style", "sepia");
    let job = bench.submit(&form.file("image", &png(32, 32)?)).await?;
    ensure!(job["request"]["aspect_ratio"] == "3:2" && job["request"]["prompt"].is_null());
    Ok(())
}

#[tokio::test]
async fn base64_is_taken_as_clients_write_it_and_an_address_is_not_fetched() -> Result<()> {
    let bench = Bench::new()?;
    // A length that needs padding, and more than one piece.
    let mut file = png(100, 90)?;
    while file.len() % 3 != 1 {
        file.push(0);
    }
    let plain = BASE64_STANDARD.encode(&file);
    let lines: Vec<&str> =
        plain.as_bytes().chunks(76).map(std::str::from_utf8).collect::<Result<_, _>>()?;
    let good = [
        json!(plain),
        json!([plain]),
        json!(BASE64_STANDARD_NO_PAD.encode(&file)),
        json!(lines.join("\r\n") + "\r\n"),
        json!(format!("data:image/png;base64,{plain}")),
        json!(format!("DATA:text/html;charset=x;base64,{plain}")),
    ];
    for image in good {
        let answer = bench.post("/api/edits", &json!({ "prompt": "x", "image": image })).await?;
        let bytes = &answer.json()?["inputs"][0]["bytes"];
        ensure!(*bytes == file.len(), "{} bytes became {bytes}: {answer:?}", file.len());
    }
    // As PHP writes it.
    let escaped = plain.replace('/', "\\/");
    ensure!(escaped.len() > plain.len());
    let text = format!(r#"{{"prompt": "x", "image": ["{escaped}"]}}"#);
    ensure!(json_text(&bench, &text).await?.json()?["inputs"][0]["bytes"] == file.len());
    let middle = plain.len() / 2;
    let bad = [
        json!("https://example.org/a.png"),
        json!("HTTP://127.0.0.1/"),
        json!("data:image/png,abc"),
        json!("not base64"),
        json!(format!("{}={}", &plain[..middle], &plain[middle..])),
        json!("AAAAA"),
        json!("ä"),
        json!(1),
        json!(true),
        json!([plain, null]),
        json!([[plain]]),
        json!([{ "url": plain }]),
        json!({ "url": plain }),
    ];
    let before = bench.service.counts();
    for image in bad {
        let body = json!({ "prompt": "x", "image": image });
        let answer = bench.post("/api/edits", &body).await?;
        let message = answer.refusal(422, "invalid_parameter", Some("image"))?;
        let is_address = image.as_str().is_some_and(|text| text.contains("://"));
        let remedy = if is_address { "no address is fetched" } else { "expected a file in base64" };
        ensure!(message.contains(remedy) && message.len() < 200, "{image}: {message}");
    }
    let after = bench.service.counts();
    ensure!(before.input_bytes == after.input_bytes, "memory is left");
    ensure!(before.scheduler.waiting == after.scheduler.waiting, "places are left");
    Ok(())
}

#[tokio::test]
async fn the_memory_of_a_job_is_given_back_when_it_has_ended() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.submit(&Form::edit(1)?).await?;
    ensure!(bench.service.counts().input_bytes > 0);
    bench.finish().await?;
    bench.ensure_clean()
}

#[tokio::test]
async fn a_request_that_is_repeated_with_its_key_is_answered_with_its_job() -> Result<()> {
    let mut bench = Bench::new()?;
    let form = Form::edit(1)?.key("a key");
    let first = bench.send(form.post()?).await?;
    ensure!(first.status.as_u16() == 202 && first.header("idempotency-replayed").is_none());
    let job = id(&first.json()?)?.to_owned();
    for round in ["while it waits", "after it ended"] {
        let again = bench.send(form.post()?).await?;
        let replayed = again.header("idempotency-replayed");
        ensure!(again.status.as_u16() == 200 && replayed == Some("true"), "{round}: {again:?}");
        ensure!(again.header("location") == first.header("location"));
        ensure!(id(&again.json()?)? == job, "{round}");
        let other = Form::edit(2)?.key("a key");
        let answer = bench.send(other.post()?).await?;
        answer.refusal(422, "idempotency_mismatch", Some("idempotency-key"))?;
        bench.finish().await?;
        bench.ensure_clean()?;
    }
    // The same key is answered in a new process, too, and stands for nothing once the job is gone.
    let killed = bench.after_a_kill()?;
    ensure!(id(&killed.send(form.post()?).await?.json()?)? == job);
    ensure!(bench.steps_of(1) == 4 && bench.steps_of(2) == 0);
    let image = bench.get(&format!("/api/jobs/{job}")).await?.json()?;
    let image = image["image"]["id"].as_str().context("an image")?.parse()?;
    bench.service.delete_images(OwnerId::LOCAL, vec![image]).await?;
    let answer = bench.send(form.post()?).await?;
    answer.refusal(410, "job_deleted", Some("idempotency-key"))?;
    Ok(())
}

#[tokio::test]
async fn of_two_requests_at_once_with_one_key_one_makes_the_job() -> Result<()> {
    for ephemeral in ["false", "true"] {
        let mut bench = Bench::new()?;
        let form = Form::edit(1)?.text("ephemeral", ephemeral).key("a key");
        let (one, two) = tokio::join!(bench.send(form.post()?), bench.send(form.post()?));
        let (one, two) = (one?, two?);
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        ensure!(statuses == [200, 202], "{one:?} {two:?}");
        ensure!(id(&one.json()?)? == id(&two.json()?)?);
        bench.finish().await?;
        ensure!(bench.steps_of(1) == 4, "it ran twice");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_has_1_to_255_characters() -> Result<()> {
    let bench = Bench::new()?;
    for key in ["", &"k".repeat(256), "clé"] {
        let answer = bench.send(Form::edit(1)?.key(key).post()?).await?;
        answer.refusal(422, "invalid_parameter", Some("idempotency-key"))?;
        bench.ensure_clean()?;
    }
    bench.submit(&Form::edit(1)?.key(&"k".repeat(255))).await?;
    Ok(())
}

#[tokio::test]
async fn an_ephemeral_job_leaves_the_store_empty_and_is_fetched_once() -> Result<()> {
    let mut bench = Bench::new()?;
    let form = Form::edit(1)?.text("ephemeral", "true");
    let job = bench.submit(&form).await?;
    bench.finish().await?;
    let job = bench.get(&format!("/api/jobs/{}", id(&job)?)).await?.json()?;
    ensure!(job["state"] == "done", "{job}");
    let url = job["image"]["url"].as_str().context("a url")?;
    let first = bench.get(url).await?;
    ensure!(first.status.as_u16() == 200 && first.header("content-type") == Some("image/png"));
    let second = bench.get(url).await?;
    second.refusal(410, "result_taken", None)?;
    let stored = bench.service.counts().stored;
    ensure!((stored.pictures, stored.jobs, stored.bytes) == (0, 0, 0), "{stored:?}");
    bench.ensure_clean()
}

#[tokio::test]
async fn the_document_lists_the_fields_that_are_taken() -> Result<()> {
    let bench = Bench::new()?;
    let answer = bench.post("/api/edits", &json!({ "nothing": 1 })).await?;
    let message = answer.refusal(422, "unknown_field", Some("nothing"))?;
    let (_, known) = message.split_once("expected one of ").context("a list")?;
    let mut known: Vec<&str> = known.split(", ").collect();
    let document = bench.get("/openapi.json").await?.json()?;
    let schemas = &document["components"]["schemas"];
    let fields = schemas["EditFields"]["properties"].as_object().context("fields")?;
    let mut documented: Vec<&str> = fields.keys().map(String::as_str).chain(["image"]).collect();
    known.sort_unstable();
    documented.sort_unstable();
    ensure!(known == documented, "{known:?}\n{documented:?}");
    Ok(())
}
