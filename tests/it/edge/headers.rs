//! The headers of responses of every kind, and their compression.

use super::{Reply, Running, long_text, options, read_chunk};
use anyhow::{Context, Result, ensure};

/// One request for each kind of response.
const ALL: [&str; 17] = [
    "GET /",
    "GET /text",
    "GET /json",
    "GET /png",
    "GET /short",
    "GET /secret",
    "GET /events",
    "GET /nowhere",
    "DELETE /text",
    "GET /panic",
    "GET /busy",
    "GET /broken",
    "GET /foreign",
    "GET /number/one",
    "HEAD /",
    "OPTIONS /api/jobs",
    "POST /ignore",
];

fn ask(server: &Running, line: &str, headers: &[&str]) -> Result<Reply> {
    let mut client = server.connect()?;
    let host = format!("host: {}", server.server.address());
    client.send(line, &[&[host.as_str()], headers].concat())?;
    Reply::read_head(&mut client.socket)
}

#[test]
fn every_response_has_the_security_headers_and_no_others() -> Result<()> {
    let always = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ];
    let may = [
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "vary",
        "date",
        "connection",
        "allow",
        "retry-after",
        "content-security-policy",
        "x-request-id",
    ];
    let server = Running::new(&options())?;
    let foreign = ["origin: http://evil.example"];
    for line in ALL {
        for headers in [&[][..], &["accept-encoding: gzip"], &["host: evil.example"], &foreign] {
            let reply = ask(&server, line, headers)?;
            for (name, value) in always {
                let own = line == "GET /events" && name == "cache-control" && reply.status == 200;
                let value = if own { "no-cache" } else { value };
                ensure!(reply.header(name) == Some(value), "{line} {headers:?}: {reply:?}");
            }
            ensure!(reply.header("content-security-policy").is_some(), "{line}: {reply:?}");
            for (name, _) in &reply.headers {
                let known = may.contains(&name.as_str()) || always.iter().any(|(n, _)| n == name);
                ensure!(known, "{line} {headers:?}: {name}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_handlers_own_header_does_not_get_out() -> Result<()> {
    let reply = Running::new(&options())?.ask("GET /secret", &[])?;
    ensure!(reply.is(200, "text"));
    ensure!(reply.header("x-secret").is_none() && reply.header("server").is_none(), "{reply:?}");
    Ok(())
}

#[test]
fn only_pages_may_run_scripts() -> Result<()> {
    let server = Running::new(&options())?;
    let page = server.ask("GET /", &[])?;
    ensure!(
        page.header("content-security-policy")
            == Some(
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: \
                 data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action \
                 'self'"
            ),
        "{page:?}"
    );
    for line in ["GET /png", "GET /text", "GET /json", "GET /nowhere", "GET /secret"] {
        let reply = server.ask(line, &[])?;
        let policy = "default-src 'none'; frame-ancestors 'none'; sandbox";
        ensure!(reply.header("content-security-policy") == Some(policy), "{line}: {reply:?}");
    }
    Ok(())
}

#[test]
fn a_handler_may_say_how_its_response_is_cached() -> Result<()> {
    let reply = Running::new(&options())?.ask("GET /cached", &[])?;
    ensure!(reply.header("cache-control") == Some("no-cache"), "{reply:?}");
    Ok(())
}

#[test]
fn text_is_compressed_and_nothing_else_is() -> Result<()> {
    let server = Running::new(&options())?;
    let plain = long_text();
    for line in ["GET /", "GET /text", "GET /json", "GET /css", "GET /js"] {
        let reply = server.ask(line, &["accept-encoding: gzip"])?;
        ensure!(reply.header("content-encoding") == Some("gzip"), "{line}: {reply:?}");
        ensure!(reply.header("vary") == Some("accept-encoding"), "{line}: {reply:?}");
        ensure!(reply.body.len() * 4 < plain.len(), "{line}: {} bytes", reply.body.len());
        // A gzip stream ends with the checksum and the length of what it holds.
        let (_, end) = reply.body.split_last_chunk::<8>().context("the end of gzip")?;
        let sum = crc32fast::hash(plain.as_bytes()).to_le_bytes();
        let length = (plain.len() as u32).to_le_bytes();
        ensure!(reply.body.starts_with(&[0x1f, 0x8b]) && *end == *[sum, length].concat(), "{line}");
        let reply = server.ask(line, &[])?;
        ensure!(reply.header("content-encoding").is_none() && reply.body == plain.as_bytes());
    }
    for line in ["GET /png", "GET /short", "GET /events", "GET /nowhere"] {
        let reply = server.ask(line, &["accept-encoding: gzip"])?;
        ensure!(reply.header("content-encoding").is_none(), "{line}: {reply:?}");
    }
    Ok(())
}

#[test]
fn events_arrive_one_by_one() -> Result<()> {
    let server = Running::new(&options())?;
    let mut client = server.connect()?;
    let host = format!("host: {}", server.server.address());
    client.send("GET /events", &[&host, "accept-encoding: gzip"])?;
    let head = Reply::read_head(&mut client.socket)?;
    ensure!(head.header("content-type") == Some("text/event-stream"), "{head:?}");
    for number in 0..20 {
        let event = read_chunk(&mut client.socket)?.context("an event")?;
        ensure!(event == format!("data: event {number}\n\n").as_bytes(), "{event:?}");
    }
    ensure!(read_chunk(&mut client.socket)?.is_none());
    Ok(())
}
