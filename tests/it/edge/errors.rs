//! Every error has one shape, whoever made it.

use super::{Client, Running, options, routes};
use anyhow::{Context, Result, ensure};
use darkroom::http::{Code, Server};
use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};
use tracing_subscriber::fmt;

#[test]
fn every_error_has_the_same_shape() -> Result<()> {
    let server = Running::new(&options())?;
    let cases = [
        ("GET /nowhere", "not_found", "there is nothing at this address"),
        ("GET /api/nowhere", "not_found", "there is nothing at this address"),
        ("DELETE /text", "method_not_allowed", "DELETE is not a method of this address"),
        ("GET /number/one", "bad_request", "the request cannot be understood"),
        ("GET /query?limit=x", "bad_request", "the request cannot be understood"),
        ("GET /query", "bad_request", "the request cannot be understood"),
        ("GET /busy", "queue_full", "the queue of 64 is full"),
        ("GET /broken", "store_failed", "the store failed"),
        ("GET /panic", "internal", "the server failed"),
    ];
    for (line, code, text) in cases {
        let reply = server.ask(line, &[])?;
        let (found, message, _) = reply.error()?;
        ensure!(found == code && message.contains(text), "{line}: {found}: {message}");
        let shown = String::from_utf8_lossy(&reply.body);
        ensure!(!shown.contains("curtain") && !shown.contains("prompt"), "{line}: {shown}");
    }
    Ok(())
}

#[test]
fn an_error_names_its_field_and_when_to_come_back() -> Result<()> {
    let server = Running::new(&options())?;
    let reply = server.ask("GET /busy", &[])?;
    let (_, _, field) = reply.error()?;
    ensure!(field.as_deref() == Some("priority"), "{field:?}");
    ensure!(reply.header("retry-after") == Some("3"), "{reply:?}");
    let refused = server.ask("POST /text", &[])?;
    ensure!(refused.header("allow") == Some("GET,HEAD"), "{refused:?}");
    ensure!(refused.error()?.2.is_none());
    Ok(())
}

#[test]
fn errors_that_are_json_already_keep_their_shape() -> Result<()> {
    let reply = Running::new(&options())?.ask("GET /foreign", &[])?;
    ensure!(reply.is(400, "{\"detail\":1}"), "{reply:?}");
    ensure!(reply.header("x-request-id").is_some(), "{reply:?}");
    Ok(())
}

#[test]
fn a_panic_ends_neither_the_server_nor_the_connection() -> Result<()> {
    let server = Running::new(&options())?;
    let host = format!("host: {}", server.server.address());
    let mut client = server.connect()?;
    client.send("GET /panic", &[&host])?;
    ensure!(client.reply()?.code()? == "internal");
    client.send("GET /short", &[&host])?;
    ensure!(client.reply()?.body == b"short");
    Ok(())
}

/// The log as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_cause_of_a_failure_is_logged_with_the_requests_id_and_nothing_else() -> Result<()> {
    // tracing would take it from a test on another thread that nobody listens to this event, if that
    // test met it first; so it is met before anyone listens.
    Running::new(&options())?.ask("GET /broken", &[])?;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // The subscriber is this thread's, so the server runs on it and the client does not.
    let _log = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ids = runtime.block_on(async {
        let server = Server::start(routes(), &options()).await?;
        let address = server.address();
        let client = tokio::task::spawn_blocking(move || {
            let lines = ["GET /broken", "GET /busy", "GET /number/secret", "GET /panic"];
            let ids = lines.map(|line| {
                let mut client = Client::new(address)?;
                client.send(line, &[&format!("host: {address}"), "x-note: secret"])?;
                let reply = client.reply()?;
                Ok(reply.header("x-request-id").context("an id")?.to_owned())
            });
            ids.into_iter().collect::<Result<Vec<_>>>()
        });
        client.await?
    })?;
    let log = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let log = String::from_utf8(log)?;
    let lines: Vec<_> = log.lines().collect();
    ensure!(lines.len() == 2, "one line for each failure, none for what clients did wrong: {log}");
    let broken = [ids[0].as_str(), "store_failed", "the disk behind the curtain", "ERROR"];
    ensure!(broken.iter().all(|text| lines[0].contains(text)), "{log}");
    let panicked = [ids[3].as_str(), "internal", "a handler panicked", "ERROR"];
    ensure!(panicked.iter().all(|text| lines[1].contains(text)), "{log}");
    ensure!(!log.contains("prompt") && !log.contains("secret"), "{log}");
    Ok(())
}

#[test]
fn ids_of_requests_are_new_and_never_the_clients() -> Result<()> {
    let server = Running::new(&options())?;
    let ids = (0..20)
        .map(|_| {
            let reply = server.ask("GET /short", &["x-request-id: 0123"])?;
            Ok(reply.header("x-request-id").unwrap_or_default().to_owned())
        })
        .collect::<Result<BTreeSet<_>>>()?;
    let digits = |id: &String| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    ensure!(ids.len() == 20 && ids.iter().all(digits), "{ids:?}");
    Ok(())
}

/// Clients' programs depend on this table: rows may be added to it, none may change.
#[test]
fn the_codes_are_a_promise() {
    let promised = "\
        bad_request 400, invalid_json 400, invalid_multipart 400, foreign_origin 403, \
        not_found 404, method_not_allowed 405, request_timeout 408, result_taken 410, \
        image_lost 410, job_deleted 410, body_too_large 413, unsupported_media_type 415, unsupported_image 415, \
        foreign_host 421, missing_field 422, invalid_parameter 422, unknown_field 422, \
        invalid_cursor 422, broken_image 422, image_too_large 422, too_many_images 422, \
        mask_not_supported 422, model_not_found 422, style_not_found 422, too_many_tokens 422, \
        too_much_memory 422, idempotency_mismatch 422, queue_full 429, internal 500, \
        store_failed 500, input_memory_full 503, draining 503, engine_down 503";
    let rows = Code::ALL.iter().map(|code| format!("{} {}", code.name(), code.status().as_u16()));
    assert_eq!(rows.collect::<Vec<_>>().join(", "), promised);
    for code in Code::ALL {
        assert!(!code.when().is_empty() && !code.when().ends_with('.'), "{code:?}");
    }
}
