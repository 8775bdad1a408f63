//! Starting and ending: what a person reads at the start, why a server does not start, and what
//! becomes of jobs when it is told to end.

use super::{Place, Process, client::Client, client::Form, client::Reply, client::text, png};
use anyhow::{Context, Result, ensure};
use darkroom::http::Fingerprint;
use rustix::process::Signal;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufReader, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    sync::Arc,
};

/// Steps of a job that goes on for long after it was seen running, and yet ends.
const LONG: u32 = 400;
/// Steps of a job that no test waits for.
const ENDLESS: u32 = 1000;
/// One job at a time, so that a second one waits.
const ONE: (&str, &str) = ("SCHEDULER__JOBS", "1");

#[test]
fn a_damaged_database_is_refused_and_repaired_without_losing_an_image() -> Result<()> {
    let place = Place::new()?;
    let mut repair = place.command(&[]);
    let nothing = repair.arg("repair").output()?;
    let said = String::from_utf8(nothing.stderr)?;
    ensure!(nothing.status.code() == Some(1) && said.contains("there is no store in"), "{said}");
    ensure!(!place.store().exists());

    let server = place.start(&[])?;
    let client = server.client();
    // Noise does not compress: its image is a file of its own.
    let form = Form::square(136, 1, 1).of(&png()?);
    let image = text(&client.until(&client.submit(&form)?, is("done"))?["image"]["id"])?;
    let before = client.content(&image)?;
    server.stop()?;
    for entry in fs::read_dir(place.store().join("rows"))? {
        let path = entry?.path();
        if path.is_file() {
            fs::write(path, [0xff; 64])?;
        }
    }
    let said = place.refuse(&[])?;
    ensure!(said.contains("cannot be read") && said.contains("`darkroom repair`"), "{said}");
    let repaired = place.command(&[]).arg("repair").output()?;
    let said = String::from_utf8(repaired.stderr)?;
    ensure!(repaired.status.success() && said.contains("opens again with 1 picture;"), "{said}");
    let server = place.start(&[])?;
    ensure!(server.client().content(&image)? == before);
    server.stop()?;
    Ok(())
}

#[test]
fn the_first_start_says_where_what_and_how_much() -> Result<()> {
    let place = Place::new()?;
    let mut server = place.start(&[])?;
    server.process.line("  inputs ")?;
    let address = server.address;
    let line = |name: &str| server.process.said.find(name).with_context(|| name.to_owned());
    let version = env!("CARGO_PKG_VERSION");
    let ready = format!("Darkroom {version} is ready at http://{address}");
    ensure!(line("Darkroom ")? == ready, "{}", line("Darkroom ")?);
    let model = line("  model  ")?;
    ensure!(model.contains(" kontext-tiny@") && model.contains(" on "), "{model}");
    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    ensure!(model.ends_with(" on cpu in f32"), "{model}");
    let memory = line("  memory  ")?;
    for part in [" without jobs, ", " with one of 256x256, ", " for all jobs"] {
        ensure!(memory.contains(part), "{memory}");
    }
    let weights = line("  weights  ")?;
    ensure!(weights.contains("transformer F16 unpacked, "), "{weights}");
    let results = line("  results  ")?;
    ensure!(results.contains(&place.store().display().to_string()), "{results}");
    ensure!(results.ends_with(": 0 entries"), "{results}");
    ensure!(line("  inputs  ")?.contains("in memory only"));
    ensure!(address.ip().is_loopback() && address.port() != 0, "{address}");

    let client = server.client();
    ensure!(client.get("/healthz")?.status == 200);
    ensure!(client.get("/readyz")?.status == 200);
    let image = client.until(&client.submit(&Form::square(64, 1, 1).of(&png()?))?, is("done"))?;
    let image = text(&image["image"]["id"])?;
    server.stop()?;

    let mut again = place.start(&[])?;
    let results = again.process.line("  results  ")?;
    ensure!(results.ends_with(": 2 entries"), "a job and an image: {results}");
    ensure!(again.client().content(&image)?.starts_with(b"\x89PNG"));
    again.stop()?;
    Ok(())
}

#[test]
fn a_server_within_a_budget_streams_and_gives_the_same_bytes() -> Result<()> {
    const BUDGET: &str = "MEMORY__BUDGET";
    let place = Place::new()?;
    let edit = |budget: &str, placement: &str| -> Result<Vec<u8>> {
        let mut server = place.start(&[(BUDGET, budget)])?;
        let weights = server.process.line("  weights  ")?;
        ensure!(weights.contains(&format!("transformer F16 {placement}, ")), "{weights}");
        let client = server.client();
        let job = client.submit(&Form::square(64, 7, 2).of(&png()?))?;
        let image = text(&client.until(&job, is("done"))?["image"]["id"])?;
        let bytes = client.content(&image)?;
        // Sixty-four times the pixels: refused with the numbers, before anything is decoded.
        if placement == "streamed" {
            let reply = client.edit(&Form::square(2048, 7, 2).of(&png()?))?;
            let said = String::from_utf8_lossy(&reply.body).into_owned();
            ensure!(reply.status == 422 && said.contains("too_much_memory"), "{said}");
        }
        server.stop()?;
        Ok(bytes)
    };
    ensure!(edit("auto", "unpacked")? == edit("70MiB", "streamed")?, "other bytes in a budget");
    let said = place.refuse(&[(BUDGET, "60MiB")])?;
    ensure!(said.contains("memory.budget is 60.0 MiB, and this model needs at least "), "{said}");
    Ok(())
}

#[test]
fn two_devices_serve_one_queue() -> Result<()> {
    let place = Place::new()?;
    let mut server = place.start(&[("MODEL__DEVICE", r#"["cpu", "cpu"]"#)])?;
    let model = server.process.line("  model  ")?;
    ensure!(model.ends_with(" on 2 x cpu in f32"), "{model}");
    let client = server.client();
    let jobs = (1..=4).map(|seed| client.submit(&Form::square(64, seed, 2).of(&png()?)));
    for job in jobs.collect::<Result<Vec<_>>>()? {
        client.until(&job, is("done"))?;
    }
    let ready: Value = serde_json::from_slice(&client.get("/readyz")?.body)?;
    let engine = json!({"device": "cpu", "status": "ready"});
    ensure!(ready == json!({"status": "ready", "engines": [engine, engine]}), "{ready}");
    server.stop()?;
    Ok(())
}

#[test]
fn a_store_has_one_server() -> Result<()> {
    let place = Place::new()?;
    let server = place.start(&[])?;
    let said = place.refuse(&[])?;
    ensure!(said.contains(&place.store().display().to_string()), "{said}");
    ensure!(said.contains("in use"), "{said}");
    ensure!(server.client().get("/readyz")?.status == 200, "the first goes on");
    server.stop()?;
    // What was refused took no lock with it.
    place.start(&[])?.stop()?;
    Ok(())
}

#[test]
fn a_server_that_cannot_start_says_why_in_one_line() -> Result<()> {
    let place = Place::new()?;
    let file = place.working().join("config.toml");
    fs::write(&file, "[server]\nbnid = \"127.0.0.1:0\"\n")?;
    let said = place.refuse(&[])?;
    for part in ["config.toml: line 2", "server.bnid", "not a known key", "server.bind"] {
        ensure!(said.contains(part), "{said}");
    }
    fs::remove_file(file)?;
    let said = place.refuse(&[("SERVER__DRIAN", "30s")])?;
    for part in ["DARKROOM__SERVER__DRIAN", "not a known", "DARKROOM__SERVER__DRAIN"] {
        ensure!(said.contains(part), "{said}");
    }
    let said = place.refuse(&[("SERVER__DRAIN", "for ever")])?;
    for part in ["DARKROOM__SERVER__DRAIN", "for ever", "30s"] {
        ensure!(said.contains(part), "{said}");
    }
    let said = place.refuse(&[("MODEL__NAME", "kontext-huge")])?;
    ensure!(said.contains("\"kontext-huge\"") && said.contains("kontext-tiny"), "{said}");
    let said = place.refuse(&[("SERVER__BIND", "0.0.0.0:8484")])?;
    ensure!(said.contains("0.0.0.0:8484") && said.contains("loopback"), "{said}");
    ensure!(!place.store().exists(), "what is refused so early leaves nothing");

    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let said = place.refuse(&[("SERVER__BIND", &address)])?;
    ensure!(said.contains(&address) && said.contains("server.bind"), "{said}");
    // Nor does a refused server keep anything from the next one.
    place.start(&[])?.stop()?;
    Ok(())
}

/// Whether a job is in a state.
fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |job| job["state"] == state
}

/// Submits three jobs of which one runs at a time, and gives their ids once the first takes steps.
fn three(client: Client, steps: u32) -> Result<[String; 3]> {
    let png = png()?;
    let submit = |seed| client.submit(&Form::square(64, steps, seed).of(&png));
    let jobs = [submit(1)?, submit(2)?, submit(3)?];
    client.until(&jobs[0], |job| job["state"] == "running" && job["stage"] == "steps")?;
    Ok(jobs)
}

#[test]
fn sigterm_lets_running_jobs_end_and_interrupts_those_that_wait() -> Result<()> {
    let place = Place::new()?;
    let server = place.start(&[ONE, ("SERVER__DRAIN", "1h")])?;
    let [running, waiting, last] = three(server.client(), LONG)?;
    let said = server.stop()?;
    ensure!(said.iter().any(|line| line.starts_with("stopping: 1 running jobs")), "{said:#?}");

    let again = place.start(&[])?;
    let client = again.client();
    let job = client.job(&running)?;
    ensure!(job["state"] == "done", "{job}");
    let image = client.content(&text(&job["image"]["id"])?)?;
    ensure!(darkroom::app::decode(&image)?.width() == 64);
    for id in [waiting, last] {
        let job = client.job(&id)?;
        ensure!(job["state"] == "interrupted" && job["image"].is_null(), "{job}");
        let events = client.events(&id)?;
        ensure!(events.len() == 1 && events[0].0 == "interrupted", "{events:?}");
    }
    let images = client.get("/api/images")?.json()?;
    ensure!(images["images"].as_array().map(Vec::len) == Some(1), "{images}");
    again.stop()?;
    Ok(())
}

#[test]
fn sigterm_without_time_interrupts_all_jobs() -> Result<()> {
    let place = Place::new()?;
    let server = place.start(&[ONE, ("SERVER__DRAIN", "0s")])?;
    let jobs = three(server.client(), ENDLESS)?;
    server.stop()?;
    ensure_interrupted(&place, &jobs)
}

#[test]
fn a_second_signal_ends_at_once_what_the_first_lets_run() -> Result<()> {
    let place = Place::new()?;
    let mut server = place.start(&[ONE, ("SERVER__DRAIN", "1h")])?;
    let jobs = three(server.client(), ENDLESS)?;
    server.process.signal(Signal::INT)?;
    server.process.line("a second signal ends them now")?;
    server.stop()?;
    ensure_interrupted(&place, &jobs)
}

/// Checks that all jobs read as interrupted after a restart, and that there is no image.
fn ensure_interrupted(place: &Place, jobs: &[String]) -> Result<()> {
    let again = place.start(&[])?;
    for id in jobs {
        let job = again.client().job(id)?;
        ensure!(job["state"] == "interrupted", "{job}");
    }
    let images = again.client().get("/api/images")?.json()?;
    ensure!(images["images"].as_array().is_some_and(Vec::is_empty), "{images}");
    again.stop()?;
    Ok(())
}

#[test]
fn a_crash_leaves_no_core() -> Result<()> {
    let place = Place::new()?;
    let server = place.start(&[])?;
    #[cfg(target_os = "linux")]
    {
        let limits = fs::read_to_string(format!("/proc/{}/limits", server.process.child.id()))?;
        let cores = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
        let cores: Vec<_> = cores.context("a limit")?.split_whitespace().collect();
        ensure!(cores[..2] == ["0", "0"], "soft and hard limit are {cores:?}");
    }
    server.process.signal(Signal::ABORT)?;
    let (status, lines) = server.process.wait()?;
    ensure!(status.signal() == Some(Signal::ABORT.as_raw()), "{status}: {lines:#?}");
    ensure!(!status.core_dumped(), "the system says that it wrote a core");
    ensure!(place.left_behind()?.is_empty(), "{:?}", place.left_behind()?);
    place.start(&[])?.stop()?;
    Ok(())
}

#[test]
fn a_self_signed_server_says_the_fingerprint_that_clients_see() -> Result<()> {
    let place = Place::new()?;
    let fingerprint = |process: &mut Process| {
        let line = process.line("  certificate  ")?;
        Ok::<_, anyhow::Error>(line.rsplit(' ').next().context("a word")?.to_owned())
    };
    let settings = [("SERVER__TLS__MODE", "self-signed")];
    let mut server = place.start(&settings)?;
    let said = fingerprint(&mut server.process)?;
    let ready = server.process.line(super::READY)?;
    ensure!(ready.ends_with(&format!("https://{}", server.address)), "{ready}");

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(place.store().join("tls/certificate.pem"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost")?;
    let client = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = StreamOwned::new(client, TcpStream::connect(server.address)?);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut stream = BufReader::new(stream);
    let reply = Reply::read(&mut stream)?;
    ensure!(reply.status == 200, "{reply:?}");
    let seen = stream.get_ref().conn.peer_certificates().context("a certificate")?;
    ensure!(Fingerprint::of(&seen[0]).to_string() == said, "{said}");
    server.stop()?;

    let mut again = place.start(&settings)?;
    ensure!(fingerprint(&mut again.process)? == said, "the next start has the same");
    again.stop()?;
    Ok(())
}
