//! Images: lists and their pages, what is known of one, renditions, deletion.

mod deletion;

use super::{BOB, Bench, Form, encoded, id, request};
use anyhow::{Context, Result, ensure};
use axum::{body::Body, http::Method};
use darkroom::{
    domain::{ObjectId, OwnerId, Pixels, Prompt, Size},
    imaging::{self, Limits, OutputFormat},
    service::{Draft, Terms},
    store::{Class, Store, Time},
};
use serde_json::json;
use std::time::Duration;

impl Bench {
    /// Makes an image and gives its id. The next one is made later by the clock, so that their order
    /// is known.
    async fn image(&mut self, form: &Form) -> Result<String> {
        let job = self.submit(form).await?;
        self.finish().await?;
        let job = self.get(&format!("/api/jobs/{}", id(&job)?)).await?.json()?;
        let made = job["finished"].as_str().context("an end")?.to_owned();
        while timestamp() <= made {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(id(&job["image"]).context(job.to_string())?.to_owned())
    }

    async fn images(&mut self, count: u64) -> Result<Vec<String>> {
        let mut images = Vec::new();
        for seed in 1..=count {
            images.push(self.image(&Form::edit(seed)?).await?);
        }
        Ok(images)
    }

    /// The ids on a page, and its `next`.
    async fn page(&self, query: &str) -> Result<(Vec<String>, Option<String>)> {
        let page = self.get(&format!("/api/images{query}")).await?;
        ensure!(page.status == 200, "{page:?}");
        let page = page.json()?;
        let images = page["images"].as_array().context("a list")?;
        let ids = images.iter().map(|image| Ok(id(image)?.to_owned())).collect::<Result<_>>()?;
        Ok((ids, page["next"].as_str().map(str::to_owned)))
    }

    /// The only page of a query.
    async fn list(&self, query: &str) -> Result<Vec<String>> {
        let (images, next) = self.page(query).await?;
        ensure!(next.is_none(), "{query}: there is a next page");
        Ok(images)
    }

    /// The file that the store has.
    fn stored(&self, image: &str) -> Result<Vec<u8>> {
        self.store.content(OwnerId::LOCAL, image.parse()?)?.context("a picture")
    }

    /// An image of somebody else.
    async fn image_of_bob(&mut self) -> Result<ObjectId> {
        let draft = Draft { prompt: Some(Prompt::new("of bob")), ..Draft::default() };
        let room = self.service.room()?;
        let submitted =
            self.service.submit(BOB, room, draft, None, Terms::default(), Vec::new()).await?;
        self.finish().await?;
        let job = self.service.job(BOB, submitted.job.id).await?;
        Ok(job.record.image.context("an image")?.id)
    }
}

/// Now, as answers write it.
fn timestamp() -> String {
    let now = time::OffsetDateTime::now_utc();
    let (date, time) = (now.date(), now.time());
    let (hour, minute, second, milli) = time.as_hms_milli();
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

fn decoded(bytes: &[u8]) -> Result<Pixels> {
    Ok(imaging::decode(bytes, &Limits::default())?)
}

fn content(image: &str, query: &str) -> String {
    format!("/api/images/{image}/content{query}")
}

#[tokio::test]
async fn a_list_begins_with_the_newest() -> Result<()> {
    let mut bench = Bench::new()?;
    ensure!(bench.list("").await?.is_empty());
    let mut made = bench.images(4).await?;
    made.reverse();
    ensure!(bench.list("").await? == made);
    ensure!(bench.list("?limit=4").await? == made);
    let (first, next) = bench.page("?limit=3").await?;
    ensure!(first == made[..3] && next.is_some());
    Ok(())
}

#[tokio::test]
async fn pages_show_each_image_once_while_others_come_and_go() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut made = bench.images(7).await?;
    made.reverse();
    let (mut seen, mut next) = bench.page("?limit=2").await?;
    let mut seed = 100;
    while let Some(cursor) = next {
        seed += 1;
        bench.image(&Form::edit(seed)?).await?;
        if seen.len() == 2 {
            // One that was seen; the cursor names a place, which stays where it is.
            bench.delete(&format!("/api/images/{}", seen[1])).await?;
        }
        let page;
        (page, next) = bench.page(&format!("?limit=2&cursor={cursor}")).await?;
        seen.extend(page);
    }
    ensure!(seen == made, "{seen:?} instead of {made:?}");
    Ok(())
}

#[tokio::test]
async fn filters_leave_what_was_asked_for() -> Result<()> {
    let mut bench = Bench::new()?;
    let form = |prompt: &str| Form::default().text("prompt", prompt).text("seed", "1");
    let plain = bench.image(&form("A Red Barn")).await?;
    let styled = bench.image(&form("a boat").text("style", "sketch")).await?;
    let warned = bench.image(&form("a hill").text("negative_prompt", "RED sky")).await?;
    let time = |image: &str| {
        let image = image.to_owned();
        let bench = &bench;
        async move {
            let image = bench.get(&format!("/api/images/{image}")).await?.json()?;
            anyhow::Ok(image["finished"].as_str().context("a time")?.to_owned())
        }
    };
    let middle = time(&styled).await?;
    let shifted = middle.replace('Z', "%2B00:00");
    let all = [&warned, &styled, &plain];
    for (query, expected) in [
        ("?style=sketch", &all[1..2]),
        ("?style=no-such-style", &[]),
        ("?q=red", &[&warned, &plain]),
        ("?q=rEd%20bArn", &all[2..]),
        ("?q=sketch", &all[1..2]),
        ("?q=red&style=sketch", &[]),
        ("?q=red&limit=2", &[&warned, &plain]),
        (&format!("?from={middle}"), &all[..2]),
        (&format!("?from={shifted}"), &all[..2]),
        (&format!("?until={middle}"), &all[2..]),
        (&format!("?from={middle}&until={}", time(&warned).await?), &all[1..2]),
        ("?from=2001-01-01", &all),
        ("?until=2001-01-01", &[]),
        ("?from=1901-01-01T00:00:00Z", &all),
        ("?style=&q=&from=&until=&limit=&cursor=", &all),
    ] {
        let found = bench.list(query).await?;
        ensure!(found.iter().eq(expected.iter().copied()), "{query}: {found:?}");
    }
    // A filtered list has pages, too.
    let (first, next) = bench.page("?q=red&limit=1").await?;
    ensure!(first == [warned]);
    let rest = bench.list(&format!("?q=red&cursor={}", next.context("a next page")?)).await?;
    ensure!(rest == [plain]);
    Ok(())
}

#[tokio::test]
async fn a_query_that_cannot_be_meant_is_refused_by_name() -> Result<()> {
    let bench = Bench::new()?;
    let none = "0".repeat(32);
    let long = "x".repeat(5000);
    for (path, code, field, says) in [
        ("/api/images?limit=0", "invalid_parameter", "limit", "limit is 0, expected 1 to 200"),
        ("/api/images?limit=201", "invalid_parameter", "limit", "limit is 201, expected 1 to 200"),
        ("/api/images?limit=-1", "invalid_parameter", "limit", "limit is \"-1\", expected"),
        ("/api/images?limit=few", "invalid_parameter", "limit", "limit is \"few\", expected"),
        ("/api/images?limit=1&limit=2", "invalid_parameter", "limit", "given twice"),
        ("/api/images?cursor=last", "invalid_cursor", "cursor", "`next` of the page before"),
        ("/api/images?from=yesterday", "invalid_parameter", "from", "2026-01-31"),
        ("/api/images?from=2026-02-30", "invalid_parameter", "from", "2026-01-31"),
        ("/api/images?until=2026-01-31T25:00:00Z", "invalid_parameter", "until", "2026-01-31"),
        ("/api/images?text=red", "unknown_field", "text", "expected one of limit, cursor, style"),
        ("/api/images?a%0Ab=1", "unknown_field", "a\\nb", "the parameter a\\nb is not known"),
        (&format!("/api/images/{none}?full=1"), "unknown_field", "full", "takes none"),
        (&content(&none, "?size=1"), "unknown_field", "size", "format, quality, width"),
        (&content(&none, "?format=gif"), "invalid_parameter", "format", "png, jpeg or webp"),
        (&content(&none, "?quality=0"), "invalid_parameter", "quality", "expected 1 to 100"),
        (&content(&none, "?quality=256"), "invalid_parameter", "quality", "expected 1 to 100"),
        (&content(&none, "?width=15"), "invalid_parameter", "width", "expected 16 to 4096"),
        (&content(&none, "?width=5000"), "invalid_parameter", "width", "expected 16 to 4096"),
    ] {
        let answer = bench.get(path).await?;
        let message = answer.refusal(422, code, Some(field)).context(path.to_owned())?;
        ensure!(message.contains(says), "{path}: {message}");
    }
    // What a client sent is said again, but not at any length.
    let answer = bench.get(&format!("/api/images?{long}=1")).await?;
    ensure!(answer.body.len() < 500, "{answer:?}");
    let answer = bench.delete(&format!("/api/images/{none}?now=1")).await?;
    answer.refusal(422, "unknown_field", Some("now"))?;
    Ok(())
}

#[tokio::test]
async fn an_image_knows_how_it_was_made_and_of_its_inputs_only_their_form() -> Result<()> {
    let mut bench = Bench::new()?;
    let input = encoded(40, 24, OutputFormat::Webp)?;
    let form = Form::default()
        .text("prompt", "make it blue")
        .text("seed", "18446744073709551615")
        .text("guidance_scale", "3.5")
        .text("width", "64")
        .text("height", "48")
        .file("image", &input);
    let image = bench.image(&form).await?;
    let answer = bench.get(&format!("/api/images/{image}")).await?;
    let mut known = answer.json()?;
    let job = bench.get(&format!("/api/jobs/{}", known["job"].as_str().context("a job")?)).await?;
    let job = job.json()?;
    for same in ["created", "started", "finished", "request", "model", "inputs"] {
        ensure!(known[same] == job[same] && !known[same].is_null(), "{same}: {}", known[same]);
    }
    ensure!(id(&job["image"])? == image);
    ensure!(known["request"]["seed"] == u64::MAX && known["request"]["guidance_scale"] == 3.5);
    let inputs = json!([{"format": "webp", "width": 40, "height": 24, "bytes": input.len()}]);
    ensure!(known["inputs"] == inputs, "{}", known["inputs"]);
    ensure!(known["bytes"] == bench.stored(&image)?.len() && known["lost"] == false);
    ensure!((&known["width"], &known["height"]) == (&json!(64), &json!(48)));
    ensure!(known["url"] == content(&image, ""));
    ensure!(!String::from_utf8_lossy(&answer.body).contains("holiday"), "a file's name is told");
    let listed = bench.get("/api/images").await?.json()?["images"][0].take();
    ensure!(listed == known.take());
    Ok(())
}

#[tokio::test]
async fn a_file_comes_in_the_format_quality_and_width_that_were_asked_for() -> Result<()> {
    let mut bench = Bench::new()?;
    let form = Form::edit(1)?.text("width", "96").text("height", "64");
    let image = bench.image(&form.text("output_format", "webp")).await?;
    let stored = bench.stored(&image)?;
    let picture = decoded(&stored)?;
    for (query, kind, extension, size) in [
        ("", "image/webp", "webp", (96, 64)),
        ("?format=png", "image/png", "png", (96, 64)),
        ("?format=jpeg", "image/jpeg", "jpg", (96, 64)),
        ("?format=jpg&quality=5", "image/jpeg", "jpg", (96, 64)),
        ("?width=48", "image/webp", "webp", (48, 32)),
        ("?width=17&format=png", "image/png", "png", (17, 11)),
        ("?width=4096&format=jpeg", "image/jpeg", "jpg", (96, 64)),
    ] {
        let answer = bench.get(&content(&image, query)).await?;
        ensure!(answer.status == 200, "{query}: {answer:?}");
        ensure!(answer.header("content-type") == Some(kind), "{query}");
        let name = format!("inline; filename=\"{image}.{extension}\"");
        ensure!(answer.header("content-disposition") == Some(&*name), "{query}");
        ensure!(answer.header("cache-control") == Some("no-store"), "{query}");
        ensure!(answer.header("content-length") == Some(&*answer.body.len().to_string()));
        let probe = imaging::probe(&answer.body, &Limits::default())?;
        ensure!(probe.format.mime() == kind, "{query}: {probe:?}");
        let found = decoded(&answer.body)?;
        ensure!((found.width(), found.height()) == size, "{query}: {found:?}");
    }
    // A PNG of the full width is the file that is kept.
    for query in ["?format=png", "?format=png&quality=1", "?format=png&width=96"] {
        ensure!(bench.get(&content(&image, query)).await?.body == stored, "{query}");
    }
    let small = bench.get(&content(&image, "?format=png&width=48")).await?;
    ensure!(decoded(&small.body)? == imaging::resize(&picture, Size::new(48, 32)));
    let rough = bench.get(&content(&image, "?format=jpeg&quality=5")).await?;
    let fine = bench.get(&content(&image, "?format=jpeg")).await?;
    ensure!(rough.body.len() < fine.body.len());
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_not_there_or_not_ones_own_is_not_found() -> Result<()> {
    let mut bench = Bench::new()?;
    let of_bob = bench.image_of_bob().await?.to_string();
    let none = "0".repeat(32);
    let capital = of_bob.to_uppercase();
    let capital = if capital == of_bob { "A".repeat(32) } else { capital };
    for image in [&*of_bob, &none, &capital, "1", "..", "%2e%2e%2f%2e%2e"] {
        let path = format!("/api/images/{image}");
        for answer in [
            bench.get(&path).await?,
            bench.get(&format!("{path}/content")).await?,
            bench.delete(&path).await?,
        ] {
            answer.refusal(404, "not_found", None).context(path.clone())?;
        }
    }
    ensure!(bench.list("").await?.is_empty());
    let deleted = bench.post("/api/images/delete", &json!({"ids": [of_bob]})).await?.json()?;
    ensure!(deleted == json!({"deleted": []}));
    ensure!(bench.store.usage(BOB).pictures == 1);
    Ok(())
}

#[tokio::test]
async fn a_lost_file_is_told_as_lost_and_can_be_deleted() -> Result<()> {
    let mut bench = Bench::new()?;
    let large = Form::edit(1)?.text("width", "128").text("height", "128");
    let image = bench.image(&large).await?;
    let folder = bench.folder.path().join("store/blobs");
    for file in std::fs::read_dir(folder)? {
        std::fs::remove_file(file?.path())?;
    }
    let path = content(&image, "?format=jpeg");
    bench.get(&path).await?.refusal(410, "image_lost", None)?;
    // A server that starts later finds out by itself.
    let later = bench.after_a_kill()?;
    later.get(&path).await?.refusal(410, "image_lost", None)?;
    let known = later.get(&format!("/api/images/{image}")).await?.json()?;
    ensure!(known["lost"] == true && known["request"]["prompt"] == "make it blue", "{known}");
    ensure!(later.delete(&format!("/api/images/{image}")).await?.status == 204);
    ensure!(later.list("").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn asking_for_the_head_of_a_file_does_not_take_an_ephemeral_image() -> Result<()> {
    let mut bench = Bench::new()?;
    let image = bench.image(&Form::edit(1)?.text("ephemeral", "true")).await?;
    ensure!(bench.list("").await?.is_empty());
    let path = content(&image, "");
    let head = bench.send(request(Method::HEAD, &path).body(Body::empty())?).await?;
    ensure!(head.status == 405 && head.header("allow") == Some("GET"), "{head:?}");
    ensure!(bench.get(&path).await?.status == 200);
    bench.get(&path).await?.refusal(410, "result_taken", None)?;
    let at = (OwnerId::LOCAL, Class::Picture, image.parse()?);
    ensure!(bench.store.head(at)?.is_none());
    ensure!(bench.store.expired(Time::NEVER)?.is_empty(), "something of it is stored");
    Ok(())
}
