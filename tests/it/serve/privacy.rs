//! What a person writes appears where its owner reads it and nowhere else: no log at any level, no
//! header, no metric, no error. Every request carries marks of its own, those that fail as well.

use super::{Place, client::Client, client::Form, client::Reply, client::text, png};
use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// What every mark ends with, so that one search finds all.
const MARK: &str = "Zq7Marked";
const PROMPT: &str = "prompt Zq7Marked one";
const NEGATIVE: &str = "negative Zq7Marked two";
const STYLE: &str = "styleZq7Marked";
const FILE: &str = "SECRETNAME-Zq7Marked.png";
const KEY: &str = "key-Zq7Marked";
const VALUE: &str = "valueZq7Marked";

fn ensure_unmarked(what: &str, text: &[u8]) -> Result<()> {
    let found = text.windows(MARK.len()).any(|window| window.eq_ignore_ascii_case(MARK.as_bytes()));
    ensure!(!found, "{what} shows a mark: {}", String::from_utf8_lossy(text));
    Ok(())
}

/// A client that looks at every header that it gets, and counts.
struct Watch {
    client: Client,
    refusals: usize,
}

impl Watch {
    fn see(&mut self, reply: Reply) -> Result<Reply> {
        for (name, value) in &reply.headers {
            ensure_unmarked("a header's name", name.as_bytes())?;
            ensure_unmarked("a header", value.as_bytes())?;
        }
        Ok(reply)
    }

    /// A request that is refused with this code. Nothing marked is said again but what is `quoted`.
    fn refused(&mut self, reply: Result<Reply>, code: &str, quoted: &[&str]) -> Result<()> {
        let reply = self.see(reply?)?;
        let error = reply.json()?["error"].take();
        ensure!(error["code"] == code && reply.status >= 400, "not {code}: {reply:?}");
        let mut said = String::from_utf8(reply.body)?;
        for quoted in quoted {
            said = said.replace(quoted, "");
        }
        ensure_unmarked("an error", said.as_bytes())?;
        self.refusals += 1;
        Ok(())
    }

    fn get(&mut self, path: &str) -> Result<Reply> {
        let reply = self.client.get(path)?;
        self.see(reply)
    }
}

/// With marks in both prompts.
fn marked(form: Form) -> Form {
    form.text("prompt", PROMPT).text("negative_prompt", NEGATIVE)
}

/// What keeps an edit small.
fn small() -> Form {
    Form::default().text("num_inference_steps", "2").text("width", "32").text("height", "32")
}

/// A marked edit as JSON.
fn edit(png: &[u8]) -> Value {
    json!({
        "prompt": PROMPT, "negative_prompt": NEGATIVE, "true_cfg_scale": 1.5, "width": 32,
        "height": 32, "num_inference_steps": 2, "image": BASE64_STANDARD.encode(png),
    })
}

#[test]
fn what_a_person_writes_is_in_no_log_no_header_no_metric_and_no_error() -> Result<()> {
    let place = Place::new()?;
    let mut command = place.command(&[("SERVER__MAX_BODY", "1MiB")]);
    let server = super::Server::start(command.env("DARKROOM_LOG", "trace"))?;
    let mut watch = Watch { client: server.client(), refusals: 0 };
    edits_that_succeed(&mut watch)?;
    edits_that_fail(&mut watch)?;
    addresses_and_parameters(&mut watch)?;

    for path in ["/metrics", "/healthz", "/readyz", "/api/queue", "/api/models", "/openapi.json"] {
        let reply = watch.get(path)?;
        ensure!(reply.status == 200, "{path}: {reply:?}");
        ensure_unmarked(path, &reply.body)?;
    }
    let metrics = String::from_utf8(watch.get("/metrics")?.body)?;
    let refused = metrics.lines().filter(|line| line.starts_with("darkroom_refused"));
    let refused = refused.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    ensure!(refused.sum::<f64>() == watch.refusals as f64, "{}: {metrics}", watch.refusals);

    let lines = server.stop()?;
    for line in &lines {
        ensure_unmarked("the log", line.as_bytes())?;
    }
    // That the log is as loud as it can be.
    for expected in [" TRACE ", " DEBUG ", "job ended"] {
        ensure!(lines.iter().any(|line| line.contains(expected)), "no {expected:?} in the log");
    }
    println!("{} lines of log, {} refusals", lines.len(), watch.refusals);
    Ok(())
}

fn edits_that_succeed(watch: &mut Watch) -> Result<()> {
    let (client, png) = (watch.client, png()?);
    let form = marked(small()).text("true_cfg_scale", "1.5").file("image", FILE, &png);
    let keyed = form.clone().header("idempotency-key", KEY);
    let first = watch.see(client.edit(&keyed)?)?.accepted()?;
    ensure!(watch.see(client.edit(&keyed)?)?.status == 200, "it is known by its key");
    let second = watch.see(client.post("/api/edits", &edit(&png))?)?.accepted()?;
    let ephemeral = watch.see(client.edit(&form.text("ephemeral", "true"))?)?.accepted()?;
    for id in [first, second, ephemeral] {
        let events = watch.get(&format!("/api/jobs/{id}/events"))?;
        let events = String::from_utf8(events.body)?;
        ensure!(events.contains("event: done"), "{events}");
        ensure_unmarked("an event", events.as_bytes())?;
        let job = watch.get(&format!("/api/jobs/{id}"))?.json()?;
        ensure!(job["request"]["prompt"] == PROMPT, "its owner reads it: {job}");
        ensure!(job["request"]["negative_prompt"] == NEGATIVE, "its owner reads it: {job}");
        let shown = job.to_string();
        ensure!(!shown.contains(FILE) && !shown.contains(KEY), "{shown}");
        let image = text(&job["image"]["id"])?;
        let content = watch.get(&format!("/api/images/{image}/content"))?;
        ensure!(content.status == 200, "{content:?}");
        ensure_unmarked("an image", &content.body)?;
    }
    let found = watch.get("/api/images?q=ZQ7MARKED")?.json()?;
    let found = found["images"].as_array().context("a list")?;
    ensure!(found.len() == 2, "the text is searched for: {found:?}");
    let shown = format!("{found:?}");
    ensure!(!shown.contains(FILE) && !shown.contains(KEY), "{shown}");
    Ok(())
}

fn edits_that_fail(watch: &mut Watch) -> Result<()> {
    let (client, png) = (watch.client, png()?);
    let form = || marked(small()).file("image", FILE, &png);
    let cut = &png[..png.len() / 2];
    let keyed = form().header("idempotency-key", KEY);
    let long = [PROMPT; 3000].concat();
    // What stands for a choice of the server's is quoted, so that one sees the slip of the hand.
    let cases: [(Form, &str, &[&str]); 12] = [
        (form().text("style", STYLE), "style_not_found", &[STYLE]),
        (form().text("model", VALUE), "model_not_found", &[VALUE]),
        (form().text("colour", VALUE), "unknown_field", &[]),
        (form().text("seed", VALUE), "invalid_parameter", &[VALUE]),
        (form().text("prompt", PROMPT), "invalid_parameter", &[]),
        (form().text("num_inference_steps", "3"), "invalid_parameter", &[]),
        (form().file("mask", FILE, &png), "mask_not_supported", &[]),
        (keyed.text("seed", "77"), "idempotency_mismatch", &[]),
        (marked(small()).file("image", FILE, cut), "broken_image", &[]),
        (marked(small()).file("image", FILE, PROMPT.as_bytes()), "unsupported_image", &[]),
        (marked(small()).file("image", FILE, &vec![7; 2 << 20]), "body_too_large", &[]),
        (small().text("prompt", &long).file("image", FILE, &png), "invalid_parameter", &[]),
    ];
    for (form, code, quoted) in cases {
        watch.refused(client.edit(&form), code, quoted)?;
    }

    let with = |name: &str, value: Value| {
        let mut edit = edit(&png);
        edit[name] = value;
        client.post("/api/edits", &edit)
    };
    watch.refused(with("style", STYLE.into()), "style_not_found", &[STYLE])?;
    watch.refused(with("colour", VALUE.into()), "unknown_field", &[])?;
    watch.refused(with("prompt", json!([PROMPT])), "invalid_parameter", &[])?;
    watch.refused(with("prompt", json!({ "text": PROMPT })), "invalid_parameter", &[])?;
    watch.refused(with("negative_prompt", json!(long)), "invalid_parameter", &[])?;
    watch.refused(with("image", VALUE.into()), "invalid_parameter", &[])?;
    watch.refused(with("image", BASE64_STANDARD.encode(cut).into()), "broken_image", &[])?;
    watch.refused(with("guidance_scale", json!(-1)), "invalid_parameter", &[])?;

    let send = |kind: &str, body: &str| {
        client.send("POST /api/edits", &format!("content-type: {kind}\r\n"), body.as_bytes())
    };
    let half = edit(&png).to_string();
    watch.refused(send("application/json", &half[..half.len() - 1]), "invalid_json", &[])?;
    let wrong = format!("{{\"prompt\": \"{PROMPT}\" \"{NEGATIVE}\"");
    watch.refused(send("application/json", &wrong), "invalid_json", &[])?;
    watch.refused(send("application/json", &format!("\"{PROMPT}\"")), "invalid_json", &[])?;
    let kind = "multipart/form-data; boundary=a-line";
    watch.refused(send(kind, &format!("--a-line\r\n{PROMPT}")), "invalid_multipart", &[])?;
    watch.refused(send("text/plain", PROMPT), "unsupported_media_type", &[])
}

/// What stands in the request's line and its headers.
fn addresses_and_parameters(watch: &mut Watch) -> Result<()> {
    let client = watch.client;
    let get = |path: &str, head: &str| client.send(&format!("GET {path}"), head, b"");
    watch.refused(get(&format!("/api/images/{VALUE}"), ""), "not_found", &[])?;
    watch.refused(get(&format!("/{VALUE}"), ""), "not_found", &[])?;
    watch.refused(get(&format!("/api/images?cursor={VALUE}"), ""), "invalid_cursor", &[])?;
    watch.refused(get(&format!("/api/styles?colour={VALUE}"), ""), "unknown_field", &[])?;
    watch.refused(
        get("/api/images", &format!("origin: http://{VALUE}.example\r\n")),
        "foreign_origin",
        &[],
    )?;
    let reply = watch.client.send(
        "POST /api/images/delete",
        "content-type: application/json\r\n",
        json!({ "ids": [VALUE] }).to_string().as_bytes(),
    );
    watch.refused(reply, "invalid_parameter", &[VALUE])?;
    let head =
        format!("cookie: {VALUE}\r\nreferer: http://localhost/{VALUE}\r\nx-any: {VALUE}\r\n");
    let reply = get("/healthz", &head)?;
    ensure!(watch.see(reply)?.status == 200);
    Ok(())
}
