//! What is uploaded: how large, and how slowly.

use super::{Client, MAX_BODY, Running, once, options};
use anyhow::{Result, ensure};
use darkroom::http::ServerOptions;
use std::time::Duration;

fn start(running: &Running, line: &str, headers: &[&str]) -> Result<Client> {
    let mut client = running.connect()?;
    let host = format!("host: {}", running.server.address());
    client.send(line, &[&[host.as_str()], headers].concat())?;
    Ok(client)
}

fn chunk(length: usize) -> Vec<u8> {
    [format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n"].concat()
}

#[test]
fn a_body_of_the_limit_is_taken_whole() -> Result<()> {
    let server = Running::new(&options())?;
    let mut client = start(&server, "POST /echo", &[&format!("content-length: {MAX_BODY}")])?;
    client.write(&vec![b'x'; MAX_BODY as usize])?;
    ensure!(client.reply()?.body == MAX_BODY.to_string().as_bytes());
    let mut client = start(&server, "POST /echo", &["transfer-encoding: chunked"])?;
    for _ in 0..4 {
        client.write(&chunk(MAX_BODY as usize / 4))?;
    }
    client.write(b"0\r\n\r\n")?;
    ensure!(client.reply()?.body == MAX_BODY.to_string().as_bytes());
    Ok(())
}

/// axum has a limit of its own, 2 MiB, which must not be in the way.
#[test]
fn the_limit_is_the_only_one() -> Result<()> {
    let length = 8 << 20;
    let server = Running::new(&ServerOptions { max_body: length, ..options() })?;
    let mut client = start(&server, "POST /echo", &[&format!("content-length: {length}")])?;
    client.write(&vec![b'x'; length as usize])?;
    ensure!(client.reply()?.body == length.to_string().as_bytes());
    Ok(())
}

#[test]
fn a_body_that_says_it_is_too_large_is_refused_before_it_comes() -> Result<()> {
    let server = Running::new(&options())?;
    for length in [MAX_BODY + 1, 1 << 40, u64::MAX - 2] {
        for line in ["POST /echo", "POST /ignore", "GET /short", "POST /nowhere"] {
            let mut client = start(&server, line, &[&format!("content-length: {length}")])?;
            let reply = client.reply()?;
            let (code, message, _) = reply.error()?;
            ensure!(
                code == "body_too_large" && message.contains("4096 bytes"),
                "{line}: {message}"
            );
            ensure!(reply.header("connection") == Some("close"), "{reply:?}");
            ensure!(client.is_closed()?, "{line}");
        }
    }
    Ok(())
}

#[test]
fn a_body_that_turns_out_too_large_is_cut() -> Result<()> {
    let server = Running::new(&options())?;
    let mut client = start(&server, "POST /echo", &["transfer-encoding: chunked"])?;
    client.write(&chunk(MAX_BODY as usize))?;
    client.write(&chunk(1))?;
    ensure!(client.reply()?.code()? == "body_too_large");
    ensure!(client.is_closed()?);
    Ok(())
}

/// A client that sends all before it reads, as browsers do, still learns why it is refused.
#[test]
fn the_refusal_reaches_a_client_that_is_still_sending() -> Result<()> {
    let server = Running::new(&options())?;
    let length = 16 << 20;
    once(|| {
        let mut client = start(&server, "POST /echo", &[&format!("content-length: {length}")])?;
        client.write(&vec![b'x'; length])?;
        ensure!(client.reply()?.code()? == "body_too_large");
        Ok(())
    })?;
    once(|| {
        let mut client = start(&server, "POST /echo", &["transfer-encoding: chunked"])?;
        client.write(&chunk(length))?;
        ensure!(client.reply()?.code()? == "body_too_large");
        Ok(())
    })
}

#[test]
fn a_body_that_stands_still_is_given_up() -> Result<()> {
    let server =
        Running::new(&ServerOptions { idle_timeout: Duration::from_millis(200), ..options() })?;
    for (header, sent) in [
        ("content-length: 100", &b""[..]),
        ("content-length: 100", b"x"),
        ("transfer-encoding: chunked", b""),
        ("transfer-encoding: chunked", b"5\r\nhel"),
        ("transfer-encoding: chunked", b"5\r\nhello\r\n"),
    ] {
        let mut client = start(&server, "POST /echo", &[header])?;
        client.write(sent)?;
        ensure!(server.ask("GET /short", &[])?.status == 200, "others are served meanwhile");
        let reply = client.reply()?;
        ensure!(reply.code()? == "request_timeout", "{header} {sent:?}: {reply:?}");
        ensure!(client.is_closed()?, "{header} {sent:?}");
    }
    Ok(())
}

/// The limit is on standing still, not on the whole.
#[test]
fn a_body_that_comes_slowly_is_taken() -> Result<()> {
    let idle = Duration::from_secs(1);
    let server = Running::new(&ServerOptions { idle_timeout: idle, ..options() })?;
    once(|| {
        let mut client = start(&server, "POST /echo", &["transfer-encoding: chunked"])?;
        for _ in 0..25 {
            client.write(&chunk(1))?;
            std::thread::sleep(idle / 20);
        }
        client.write(b"0\r\n\r\n")?;
        ensure!(client.reply()?.body == b"25");
        Ok(())
    })
}

#[test]
fn a_body_that_nobody_reads_holds_nothing_up() -> Result<()> {
    let server = Running::new(&options())?;
    let mut client = start(&server, "POST /ignore", &["content-length: 100"])?;
    ensure!(client.reply()?.status == 200);
    ensure!(client.is_closed()?, "what follows the body cannot be found without reading it");
    Ok(())
}
