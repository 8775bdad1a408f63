//! Connections that hold something and do nothing with it.

use super::{GIVE_UP, Running, once, options, routes};
use anyhow::{Result, ensure};
use axum::{
    body::{Body, Bytes},
    routing::get,
};
use darkroom::http::ServerOptions;
use futures_util::stream;
use std::{
    convert::Infallible,
    io::Read,
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_header_that_stops_or_drips_ends_its_connection_alone() -> Result<()> {
    let server = Running::new(&ServerOptions { header_timeout: SHORT, ..options() })?;
    let mut silent = server.connect()?;
    let mut half = server.connect()?;
    half.write(b"GET /short HTTP/1.1\r\nhost: 127.0.0.1\r\nx-")?;
    let mut drips = server.connect()?;
    let mut writer = drips.socket.get_ref().try_clone()?;
    // Each byte comes in time, the whole never does.
    let dripping = thread::spawn(move || {
        let started = Instant::now();
        while started.elapsed() < GIVE_UP && std::io::Write::write_all(&mut writer, b"G").is_ok() {
            thread::sleep(SHORT / 10);
        }
        started.elapsed() < GIVE_UP
    });
    once(|| {
        ensure!(server.ask("GET /short", &[])?.status == 200);
        Ok(())
    })?;
    ensure!(silent.is_closed()? && half.is_closed()? && drips.is_closed()?);
    drop(drips);
    ensure!(dripping.join().expect("a thread that does not panic"), "it still takes bytes");
    Ok(())
}

#[test]
fn a_connection_without_another_request_is_closed() -> Result<()> {
    let server = Running::new(&ServerOptions { header_timeout: SHORT, ..options() })?;
    let host = format!("host: {}", server.server.address());
    once(|| {
        let mut client = server.connect()?;
        for _ in 0..3 {
            client.send("GET /short", &[&host])?;
            ensure!(client.reply()?.body == b"short");
        }
        ensure!(client.is_closed()?);
        Ok(())
    })
}

#[test]
fn headers_have_a_limit() -> Result<()> {
    let server = Running::new(&options())?;
    let mut client = server.connect()?;
    let host = format!("host: {}", server.server.address());
    client.send("GET /short", &[&host, &format!("x-fill: {}", "x".repeat(1 << 20))]).ok();
    let mut first = [0; 12];
    client.socket.read_exact(&mut first)?;
    ensure!(first == *b"HTTP/1.1 431", "{:?}", String::from_utf8_lossy(&first));
    Ok(())
}

#[test]
fn connections_have_a_limit() -> Result<()> {
    let server = Running::new(&ServerOptions { max_connections: 2, ..options() })?;
    let host = format!("host: {}", server.server.address());
    let mut held = [server.connect()?, server.connect()?];
    for client in &mut held {
        client.send("GET /short", &[&host])?;
        ensure!(client.reply()?.status == 200);
    }
    for _ in 0..5 {
        ensure!(server.connect()?.is_closed()?, "there are two places");
    }
    for client in &mut held {
        client.send("GET /short", &[&host])?;
        ensure!(client.reply()?.status == 200, "those that have a place keep it");
    }
    let [first, _second] = held;
    drop(first);
    let started = Instant::now();
    while server.ask("GET /short", &[]).is_err() {
        ensure!(started.elapsed() < GIVE_UP, "the place of a client that left stays taken");
        thread::sleep(SHORT / 10);
    }
    Ok(())
}

/// Says when it is dropped.
struct Dropped(Sender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

#[test]
fn a_response_that_nobody_reads_is_given_up() -> Result<()> {
    let (sender, dropped) = channel();
    let flood = move || {
        let held = Dropped(sender.clone());
        let block = Bytes::from_static(&[b'x'; 65536]);
        let endless = stream::repeat_with(move || {
            let _held = &held;
            Ok::<_, Infallible>(block.clone())
        });
        async { Body::from_stream(endless) }
    };
    let server = Running::with(
        &ServerOptions { idle_timeout: SHORT, ..options() },
        routes().route("/flood", get(flood)),
    )?;
    let mut client = server.connect()?;
    let host = format!("host: {}", server.server.address());
    client.send("GET /flood", &[&host])?;
    ensure!(server.ask("GET /short", &[])?.status == 200);
    dropped.recv_timeout(GIVE_UP)?;
    Ok(())
}

#[test]
fn a_handler_and_its_events_may_take_longer_than_a_client() -> Result<()> {
    let idle = Duration::from_millis(10);
    let slow = move || async move {
        tokio::time::sleep(idle * 30).await;
        "done"
    };
    let options = ServerOptions { idle_timeout: idle, ..options() };
    let server = Running::with(&options, routes().route("/slow", get(slow)))?;
    ensure!(server.ask("GET /slow", &[])?.body == b"done");
    let events = server.ask("GET /events", &[])?.body;
    ensure!(events.ends_with(b"data: event 19\n\n"), "{}", String::from_utf8_lossy(&events));
    Ok(())
}
