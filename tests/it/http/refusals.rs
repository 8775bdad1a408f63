//! What the server refuses: with which code, of which field, in which order, and with nothing left
//! behind.

use super::{Answer, BOUNDARY, Bench, Form, Setup, encoded, json_text, png, request};
use crate::support::expect;
use anyhow::{Context, Result, ensure};
use axum::{
    body::{Body, Bytes},
    http::{Method, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use darkroom::{
    imaging::OutputFormat,
    scheduler::Limits,
    service::{DecodeLimits, Options},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tower::ServiceExt;

/// A field, its value as the text of a form where text can be it, that as JSON, the code, and parts
/// of the message.
type Case<'a> = (&'a str, Option<&'a str>, Value, &'a str, &'a [&'a str]);

#[tokio::test]
async fn a_value_that_cannot_be_is_refused_alike_in_both_forms() -> Result<()> {
    let bench = Bench::new()?;
    let long = "x".repeat(2000);
    let cases: Vec<Case<'_>> = vec![
        ("prompt", None, json!(7), "invalid_parameter", &["prompt is 7", "expected text"]),
        ("prompt", None, json!(["a"]), "invalid_parameter", &["prompt is a list"]),
        ("negative_prompt", None, json!({}), "invalid_parameter", &["is an object"]),
        (
            "true_cfg_scale",
            Some("much"),
            json!("much"),
            "invalid_parameter",
            &["\"much\"", "number"],
        ),
        ("true_cfg_scale", Some("-1"), json!(-1), "invalid_parameter", &["-1", "from 0 to 100"]),
        ("guidance_scale", Some("1e9"), json!(1e9), "invalid_parameter", &["from 0 to 100"]),
        ("guidance_scale", Some("NaN"), json!("NaN"), "invalid_parameter", &["NaN"]),
        ("num_inference_steps", Some("0"), json!(0), "invalid_parameter", &["is 0", "1 to 1000"]),
        ("num_inference_steps", Some("2.5"), json!(2.5), "invalid_parameter", &["2.5", "whole"]),
        (
            "num_inference_steps",
            Some("4294967296"),
            json!(1_u64 << 32),
            "invalid_parameter",
            &["4294967296", "smaller"],
        ),
        ("seed", Some("-1"), json!(-1), "invalid_parameter", &["-1", "0 or more"]),
        ("seed", Some("18446744073709551616"), json!(1e20), "invalid_parameter", &["whole"]),
        ("seed", Some("\u{1}\nabc"), json!("\u{1}\nabc"), "invalid_parameter", &["\\u{1}\\nabc"]),
        ("seed", Some(&long[..1000]), json!(&long[..1000]), "invalid_parameter", &["xxx...\""]),
        ("width", Some("8"), json!(8), "invalid_parameter", &["missing", "both width and height"]),
        ("aspect_ratio", Some("wide"), json!("wide"), "invalid_parameter", &["wide", "W:H"]),
        ("aspect_ratio", Some("9:1"), json!("9:1"), "invalid_parameter", &["1:8 to 8:1"]),
        ("max_sequence_length", Some("513"), json!(513), "invalid_parameter", &["513", "1 to 512"]),
        ("reference_method", Some("up"), json!("up"), "invalid_parameter", &["offset or index"]),
        ("step_cache", Some("1.5"), json!(1.5), "invalid_parameter", &["1.5", "from 0 to 1"]),
        ("style", Some("cubism"), json!("cubism"), "style_not_found", &["cubism", "sepia"]),
        ("style", Some(&long), json!(long), "invalid_parameter", &["longer than 1024 bytes"]),
        ("model", Some("other"), json!("other"), "model_not_found", &["other", "fake"]),
        ("output_format", Some("gif"), json!("gif"), "invalid_parameter", &["png, jpeg or webp"]),
        ("priority", Some("now"), json!("now"), "invalid_parameter", &["interactive or batch"]),
        ("ephemeral", Some("yes"), json!("yes"), "invalid_parameter", &["true or false"]),
        ("ephemeral", None, json!(1), "invalid_parameter", &["ephemeral is 1", "true or false"]),
    ];
    for (name, text, value, code, parts) in cases {
        // The size that is alone is missed by the name of the other one.
        let field = if name == "width" { "height" } else { name };
        let mut messages = Vec::new();
        if let Some(text) = text {
            let form =
                Form::default().text(name, text).text("prompt", "x").file("image", &png(9, 9)?);
            let answer = bench.send(form.post()?).await?;
            messages.push(answer.refusal(422, code, Some(field))?);
        }
        let mut body = json!({ "prompt": "x", "image": BASE64_STANDARD.encode(png(9, 9)?) });
        body[name] = value;
        let answer = bench.post("/api/edits", &body).await?;
        messages.push(answer.refusal(422, code, Some(field))?);
        for message in &messages {
            expect(message, parts)?;
        }
        bench.ensure_clean()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_prompt_that_is_too_long_or_not_there_is_refused_and_not_said_again() -> Result<()> {
    let bench = Bench::new()?;
    for (prompt, parts) in [
        ("", ["prompt is empty", "say what to change"]),
        (" \n", ["prompt is empty", "say what to change"]),
        (&"ä".repeat(32_001), ["32001 characters", "32000"]),
        (&"secret".repeat(30_000), ["longer than 131072 bytes", "32000"]),
    ] {
        let form = Form::default().text("prompt", prompt).file("image", &png(9, 9)?);
        let body = json!({ "prompt": prompt, "image": BASE64_STANDARD.encode(png(9, 9)?) });
        for answer in [bench.send(form.post()?).await?, bench.post("/api/edits", &body).await?] {
            let message = answer.refusal(422, "invalid_parameter", Some("prompt"))?;
            expect(&message, &parts)?;
            ensure!(!message.contains("secret"));
        }
        bench.ensure_clean()?;
    }
    let longest = "ä".repeat(32_000);
    bench.submit(&Form::edit(1)?.text("negative_prompt", &longest)).await?;
    let invalid = Form::default().file("prompt", b"\xff\xfe");
    let answer = bench.send(invalid.post()?).await?;
    answer.refusal(422, "invalid_parameter", Some("prompt"))?;
    Ok(())
}

#[tokio::test]
async fn unknown_repeated_and_masked_fields_are_refused_by_name() -> Result<()> {
    let bench = Bench::new()?;
    let odd = format!("pro\u{7}mpt{}", "x".repeat(500));
    let shown = format!("pro\\u{{7}}mpt{}...", "x".repeat(33));
    // Browsers send no control character in a name.
    for (name, shown, forms) in [("strength", "strength", 1), ("", "", 1), (&odd, &shown, 0)] {
        let mut answers = vec![bench.post("/api/edits", &json!({ name: 1 })).await?];
        for _ in 0..forms {
            answers.push(bench.send(Form::edit(1)?.text(name, "1").post()?).await?);
        }
        for answer in answers {
            let message = answer.refusal(422, "unknown_field", Some(shown))?;
            expect(&message, &["image, prompt, negative_prompt", "ephemeral"])?;
            ensure!(!message.contains("mask") && message.len() < 400, "{message}");
        }
    }
    let twice = Form::edit(1)?.text("seed", "2");
    let twice_json = r#"{"prompt": "x", "seed": 1, "seed": 1}"#;
    for answer in [bench.send(twice.post()?).await?, json_text(&bench, twice_json).await?] {
        let message = answer.refusal(422, "invalid_parameter", Some("seed"))?;
        ensure!(message.contains("given twice"), "{message}");
    }
    let mask = Form::edit(1)?.file("mask", &png(32, 32)?);
    let mask_json = json!({ "prompt": "x", "mask": "AAAA" });
    for answer in [bench.send(mask.post()?).await?, bench.post("/api/edits", &mask_json).await?] {
        answer.refusal(422, "mask_not_supported", Some("mask"))?;
    }
    bench.ensure_clean()
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    for (text, said) in [
        ("", "EOF"),
        ("{\"prompt\": \"secret", "line 1"),
        ("{\"prompt\": \"x\",}", "line 1"),
        ("{} {}", "line 1"),
        ("\"secret\"", "not an object"),
        ("[1]", "not an object"),
        ("null", "not an object"),
        ("{\"seed\": 1e999}", "line 1"),
    ] {
        let message = json_text(&bench, text).await?.refusal(400, "invalid_json", None)?;
        ensure!(message.contains(said) && !message.contains("secret"), "{text}: {message}");
    }
    let whole = Form::edit(1)?.bytes();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    for (kind, bytes) in [
        ("multipart/form-data", whole.clone()),
        (kind.as_str(), Vec::new()),
        (kind.as_str(), b"something else".to_vec()),
        (kind.as_str(), whole[..whole.len() - 20].to_vec()),
        (kind.as_str(), whole[..whole.len() / 2].to_vec()),
    ] {
        let post = request(Method::POST, "/api/edits").header(header::CONTENT_TYPE, kind);
        let answer = bench.send(post.body(Body::from(bytes))?).await?;
        answer.refusal(400, "invalid_multipart", None)?;
        bench.ensure_clean()?;
    }
    Ok(())
}

/// A body that tells when it is asked for its first byte.
fn watched() -> (Body, Arc<AtomicBool>) {
    let asked = Arc::new(AtomicBool::new(false));
    let tell = asked.clone();
    let bytes = stream::once(async move {
        tell.store(true, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Bytes::from_static(b"{}"))
    });
    (Body::from_stream(bytes), asked)
}

async fn unread(bench: &Bench, kind: Option<&str>, query: &str) -> Result<Answer> {
    let (body, asked) = watched();
    let mut post = request(Method::POST, &format!("/api/edits{query}"));
    if let Some(kind) = kind {
        post = post.header(header::CONTENT_TYPE, kind);
    }
    let answer = bench.send(post.body(body)?).await?;
    ensure!(!asked.load(Ordering::SeqCst), "the body was read: {answer:?}");
    Ok(answer)
}

#[tokio::test]
async fn what_the_head_of_a_request_decides_is_said_before_the_body_is_read() -> Result<()> {
    let limits = Limits { waiting: 1, ..Setup::default().limits };
    let bench = Bench::with(Setup { limits, ..Setup::default() })?;
    for kind in [None, Some("text/plain"), Some("application/jsonp"), Some("image/png")] {
        let answer = unread(&bench, kind, "").await?;
        let message = answer.refusal(415, "unsupported_media_type", Some("content-type"))?;
        ensure!(message.contains("send multipart/form-data or application/json"), "{message}");
    }
    let json = Some("application/json");
    unread(&bench, json, "?seed=1").await?.refusal(422, "unknown_field", Some("seed"))?;
    bench.ensure_clean()?;
    bench.submit(&Form::edit(1)?).await?;
    let answer = unread(&bench, json, "").await?;
    let message = answer.refusal(429, "queue_full", None)?;
    ensure!(message.contains("number 2 in a queue of 1"), "{message}");
    let wait: u64 = answer.header("retry-after").context("a time")?.parse()?;
    ensure!(wait >= 1);
    let service = bench.service.clone();
    let (mut bench, drain) = (bench, async move { service.drain(Duration::ZERO).await });
    bench.ticking(drain).await;
    let answer = unread(&bench, json, "").await?;
    answer.refusal(503, "draining", None)?;
    ensure!(answer.header("retry-after").is_some());
    Ok(())
}

#[tokio::test]
async fn more_pictures_than_allowed_are_refused_when_the_first_one_too_many_begins() -> Result<()> {
    let bench = Bench::new()?;
    let mut form = Form::edit(1)?;
    for _ in 0..3 {
        form = form.file("image", &png(16, 16)?);
    }
    // What comes behind is not looked at.
    let form = form.text("no such field", "x");
    let mut body = json!({ "prompt": "x" });
    body["image"] = vec![BASE64_STANDARD.encode(png(16, 16)?); 4].into();
    for answer in [bench.send(form.post()?).await?, bench.post("/api/edits", &body).await?] {
        let message = answer.refusal(422, "too_many_images", Some("image"))?;
        ensure!(message.contains("4 pictures") && message.contains("at most 3"), "{message}");
    }
    bench.ensure_clean()
}

#[tokio::test]
async fn unsupported_and_broken_pictures_are_told_apart() -> Result<()> {
    let setup = Setup::default();
    let decode = DecodeLimits { max_pixels: 10_000, ..setup.options.decode };
    let bench = Bench::with(Setup { options: Options { decode, ..setup.options }, ..setup })?;
    let (whole, jpeg) = (png(64, 64)?, encoded(64, 64, OutputFormat::Jpeg)?);
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let cases: [(&str, &[u8], u16, &str); 9] = [
        ("nothing", b"", 415, "unsupported_image"),
        ("text", b"Hello, this is not a picture at all.", 415, "unsupported_image"),
        ("a GIF", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", 415, "unsupported_image"),
        ("a PDF", b"%PDF-1.7 and so on", 415, "unsupported_image"),
        ("a cut PNG", &whole[..whole.len() - 40], 422, "broken_image"),
        ("the head of a PNG", &whole[..20], 422, "broken_image"),
        ("a changed PNG", &flipped, 422, "broken_image"),
        ("a cut JPEG", &jpeg[..30], 422, "broken_image"),
        ("a large PNG", &png(101, 100)?, 422, "image_too_large"),
    ];
    for (what, bytes, status, code) in cases {
        let form = Form::edit(1)?.file("image", bytes);
        let body = json!({ "prompt": "x", "image": [
            BASE64_STANDARD.encode(png(32, 32)?), BASE64_STANDARD.encode(bytes),
        ] });
        for answer in [bench.send(form.post()?).await?, bench.post("/api/edits", &body).await?] {
            let message = answer
                .refusal(status, code, Some("image"))
                .with_context(|| format!("of {what}"))?;
            ensure!(message.starts_with("picture 2: "), "{what}: {message}");
        }
        bench.ensure_clean()?;
    }
    Ok(())
}

#[tokio::test]
async fn what_would_not_fit_is_refused_with_the_numbers() -> Result<()> {
    let setup = Setup { max_body: 5000, ..Setup::default() };
    let bench = Bench::with(setup.clone())?;
    let large = Form::default().text("prompt", &"x".repeat(6000));
    bench.send(large.post()?).await?.refusal(413, "body_too_large", None)?;
    let post = request(Method::POST, "/api/edits").header(header::CONTENT_TYPE, "application/json");
    let pieces = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1000])));
    let answer = bench.send(post.body(Body::from_stream(pieces))?).await?;
    answer.refusal(413, "body_too_large", None)?;
    bench.ensure_clean()?;

    let options = Options { input_memory: 1 << 20, ..setup.options };
    let bench = Bench::with(Setup { options, max_body: 16 << 20, ..setup.clone() })?;
    let large = Form::default().file("image", &vec![7; 2 << 20]);
    let answer = bench.send(large.post()?).await?;
    let message = answer.refusal(503, "input_memory_full", None)?;
    ensure!(message.contains("1048576"), "{message}");
    ensure!(answer.header("retry-after").is_some());
    bench.ensure_clean()?;

    let sized = Form::edit(1)?.text("width", "1024").text("height", "1024");
    let limits = Limits { tokens: 1000, ..setup.limits };
    let bench = Bench::with(Setup { limits, ..Setup::default() })?;
    let message = bench.send(sized.post()?).await?.refusal(422, "too_many_tokens", None)?;
    ensure!(message.contains("4100") && message.contains("1000"), "{message}");
    bench.ensure_clean()?;
    let limits = Limits { memory: 1_000_000, ..setup.limits };
    let bench = Bench::with(Setup { limits, ..Setup::default() })?;
    let message = bench.send(sized.post()?).await?.refusal(422, "too_much_memory", None)?;
    ensure!(message.contains("4100000") && message.contains("1000000"), "{message}");
    bench.ensure_clean()
}

/// A form that never ends: `start`, and then the same letter, with the bytes that were asked for.
fn endless(start: &str) -> (Body, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let letters = stream::repeat(Bytes::from_static(&[b'x'; 10_000]));
    let pieces = stream::iter([Bytes::from(start.to_owned())]).chain(letters).map(move |piece| {
        count.fetch_add(piece.len(), Ordering::SeqCst);
        Ok::<_, std::io::Error>(piece)
    });
    (Body::from_stream(pieces), asked)
}

#[tokio::test]
async fn an_endless_form_is_not_read_further_than_it_must_be() -> Result<()> {
    let setup = Setup::default();
    let options = Options { input_memory: 1 << 20, ..setup.options };
    let bench = Bench::with(Setup { options, ..setup })?;
    let part = |name| format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}");
    let (image, prompt, seed) = ("image\"\r\n\r\n", "prompt\"\r\n\r\n", "seed\"\r\n\r\n");
    // What is asked for at most: the limit, and what one read and the layers before hold.
    let cases = [
        ("no part".to_owned(), 400, "invalid_multipart", None, 64 << 10),
        (part("a name that does not end"), 400, "invalid_multipart", None, 64 << 10),
        (part(image), 503, "input_memory_full", None, 1 << 20),
        (part(prompt), 422, "invalid_parameter", Some("prompt"), 128 << 10),
        (part(seed), 422, "invalid_parameter", Some("seed"), 1 << 10),
        (part("mask\"\r\n\r\n"), 422, "mask_not_supported", Some("mask"), 0),
        (part("masks\"\r\n\r\n"), 422, "unknown_field", Some("masks"), 0),
    ];
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    for (start, status, code, field, limit) in cases {
        let (body, asked) = endless(&start);
        let post = request(Method::POST, "/api/edits").header(header::CONTENT_TYPE, &kind);
        bench.send(post.body(body)?).await?.refusal(status, code, field)?;
        let asked = asked.load(Ordering::SeqCst);
        ensure!(asked <= limit + 100_000, "{code}: {asked} bytes were asked for");
        bench.ensure_clean()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_uploads_leaves_nothing_behind() -> Result<()> {
    let bench = Bench::new()?;
    let half = Form::edit(1)?.bytes();
    let first = Bytes::from(half[..half.len() / 2].to_vec());
    let slow = stream::once(async { Ok::<_, std::io::Error>(first) });
    let body = Body::from_stream(slow.chain(stream::pending()));
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let post = request(Method::POST, "/api/edits").header(header::CONTENT_TYPE, kind);
    let upload = tokio::spawn(bench.router.clone().oneshot(post.body(body)?));
    while bench.service.counts().input_bytes == 0 {
        tokio::task::yield_now().await;
    }
    ensure!(bench.service.counts().scheduler.waiting == 1);
    upload.abort();
    ensure!(upload.await.is_err());
    bench.ensure_clean()
}
