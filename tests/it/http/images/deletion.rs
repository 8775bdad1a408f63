//! Deletion of images, of one and of many.

use super::content;
use crate::http::{Bench, Form, request};
use anyhow::{Context, Result, ensure};
use axum::{
    body::Body,
    http::{Method, header},
};
use darkroom::store::{Store, Usage};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

#[tokio::test]
async fn a_deleted_image_is_gone_with_its_file_and_the_record_of_its_job() -> Result<()> {
    let mut bench = Bench::new()?;
    let large = Form::edit(1)?.text("width", "128").text("height", "128");
    let image = bench.image(&large).await?;
    let kept = bench.image(&Form::edit(2)?).await?;
    ensure!(blobs(bench.folder.path())? == 1, "it is large enough for a file of its own");
    let known = bench.get(&format!("/api/images/{image}")).await?.json()?;
    let job = format!("/api/jobs/{}", known["job"].as_str().context("a job")?);
    ensure!(bench.get(&job).await?.status == 200);

    let answer = bench.delete(&format!("/api/images/{image}")).await?;
    ensure!(answer.status == 204 && answer.body.is_empty(), "{answer:?}");

    bench.delete(&format!("/api/images/{image}")).await?.refusal(404, "not_found", None)?;
    bench.get(&content(&image, "")).await?.refusal(404, "not_found", None)?;
    bench.get(&format!("/api/images/{image}")).await?.refusal(404, "not_found", None)?;
    bench.get(&job).await?.refusal(404, "not_found", None)?;
    ensure!(bench.list("").await? == [kept]);
    ensure!(blobs(bench.folder.path())? == 0, "its file is still there");
    let usage = bench.store.total();
    ensure!((usage.pictures, usage.jobs) == (1, 1), "{usage:?}");
    Ok(())
}

#[tokio::test]
async fn many_images_are_deleted_at_once() -> Result<()> {
    let mut bench = Bench::new()?;
    let made = bench.images(4).await?;
    let none = "0".repeat(32);
    let ids = json!({"ids": [made[2], none, made[0], made[2]]});
    let answer = bench.post("/api/images/delete", &ids).await?;
    ensure!(answer.status == 200, "{answer:?}");
    let body = answer.json()?;
    let deleted = body["deleted"].as_array().context("a list")?.iter().map(Value::as_str);
    let deleted: Vec<_> = deleted.collect::<Option<_>>().context("texts")?;
    ensure!(deleted.len() == 2, "{deleted:?}");
    let deleted: BTreeSet<_> = deleted.into_iter().collect();
    ensure!(deleted == BTreeSet::from([&*made[0], &*made[2]]));
    ensure!(bench.list("").await? == [made[3].clone(), made[1].clone()]);
    let again = bench.post("/api/images/delete", &ids).await?.json()?;
    ensure!(again == json!({"deleted": []}));
    let rest = json!({"ids": [made[1], made[3]]});
    bench.post("/api/images/delete", &rest).await?;
    ensure!(bench.store.total() == Usage::default(), "{:?}", bench.store.total());
    let nothing = bench.post("/api/images/delete", &json!({"ids": []})).await?.json()?;
    ensure!(nothing == json!({"deleted": []}));
    Ok(())
}

#[tokio::test]
async fn a_deletion_that_is_not_clear_deletes_nothing() -> Result<()> {
    let mut bench = Bench::new()?;
    let image = bench.image(&Form::edit(1)?).await?;
    let many = vec![image.clone(); 1001];
    for (body, code, field, says) in [
        (json!({"ids": [image, "42"]}), "invalid_parameter", Some("ids"), "ids[1] is \"42\""),
        (json!({"ids": many}), "invalid_parameter", Some("ids"), "at most 1000"),
        (json!({"ids": image}), "invalid_parameter", Some("ids"), "list of texts"),
        (json!({"ids": [1]}), "invalid_parameter", Some("ids"), "list of texts"),
        (json!([image]), "invalid_parameter", Some("ids"), "list of texts"),
        (json!({}), "missing_field", Some("ids"), "ids is missing"),
        (json!({"ids": null}), "missing_field", Some("ids"), "ids is missing"),
        (json!({"ids": [image], "all": true}), "unknown_field", Some("all"), "all is not known"),
    ] {
        let answer = bench.post("/api/images/delete", &body).await?;
        let message = answer.refusal(422, code, field).context(body.to_string())?;
        ensure!(message.contains(says), "{body}: {message}");
    }
    let post = |kind: &str, body: &str| {
        let post = request(Method::POST, "/api/images/delete").header(header::CONTENT_TYPE, kind);
        post.body(Body::from(body.to_owned()))
    };
    let ids = json!({"ids": [image]}).to_string();
    let answer = bench.send(post("application/json", "{\"ids\": [")?).await?;
    answer.refusal(400, "invalid_json", None)?;
    let answer = bench.send(post("text/plain", &ids)?).await?;
    answer.refusal(415, "unsupported_media_type", None)?;
    ensure!(bench.list("").await? == [image]);
    Ok(())
}

/// The files of values.
fn blobs(folder: &Path) -> Result<usize> {
    Ok(std::fs::read_dir(folder.join("store/blobs"))?.count())
}
