//! How a server ends.

use super::{Client, GIVE_UP, Running, options, routes};
use anyhow::{Result, ensure};
use axum::{Router, routing::get};
use darkroom::http::{ServeError, Server, ServerOptions};
use std::{
    net::TcpStream,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// Routes with one that says when it was entered, and answers when it is told to.
fn held() -> (Router, Receiver<()>, Arc<Notify>) {
    let (enter, entered) = channel();
    let release = Arc::new(Notify::new());
    let gate = release.clone();
    let handler = move || {
        let (enter, gate) = (enter.clone(), gate.clone());
        async move {
            enter.send(()).ok();
            gate.notified().await;
            "done"
        }
    };
    (routes().route("/held", get(handler)), entered, release)
}

fn ask_held(server: &Running) -> Result<Client> {
    let mut client = server.connect()?;
    client.send("GET /held", &[&format!("host: {}", server.server.address())])?;
    Ok(client)
}

fn ended(server: Running) -> Result<()> {
    let Running { server, runtime } = server;
    Ok(runtime.block_on(async { timeout(GIVE_UP, server.ended()).await })??)
}

#[test]
fn requests_that_run_end_and_no_others_begin() -> Result<()> {
    let (router, entered, release) = held();
    let server = Running::with(&options(), router)?;
    let address = server.server.address();
    let mut idle = server.connect()?;
    idle.send("GET /short", &[&format!("host: {address}")])?;
    ensure!(idle.reply()?.status == 200);
    let mut client = ask_held(&server)?;
    entered.recv_timeout(GIVE_UP)?;

    server.server.stop(GIVE_UP);
    ensure!(idle.is_closed()?, "a connection without a request ends at once");
    let started = Instant::now();
    while TcpStream::connect(address).is_ok() {
        ensure!(started.elapsed() < GIVE_UP, "it still takes connections");
        thread::sleep(Duration::from_millis(10));
    }
    release.notify_one();
    let reply = client.reply()?;
    ensure!(reply.is(200, "done"), "{reply:?}");
    ensure!(client.is_closed()?);
    drop((idle, client));
    ended(server)
}

#[test]
fn what_does_not_end_in_time_is_cut() -> Result<()> {
    let (router, entered, _release) = held();
    let server = Running::with(&options(), router)?;
    let mut client = ask_held(&server)?;
    entered.recv_timeout(GIVE_UP)?;
    server.server.stop(Duration::from_millis(100));
    ensure!(client.is_closed()?);
    ended(server)
}

#[test]
fn an_address_that_is_taken_is_named() -> Result<()> {
    let server = Running::new(&options())?;
    let bind = server.server.address();
    let second = ServerOptions { bind, ..options() };
    let error = server.runtime.block_on(Server::start(routes(), &second)).expect_err("it is taken");
    ensure!(matches!(&error, ServeError::Bind { address, .. } if *address == bind), "{error:?}");
    let text = error.to_string();
    ensure!(text.contains(&bind.to_string()) && text.contains("server.bind"), "{text}");
    Ok(())
}
