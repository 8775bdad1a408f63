//! Pages of other sites stay out: by the host that a request names, and by what browsers say of the
//! page that makes it.

use super::{Running, options};
use anyhow::{Result, ensure};

#[test]
fn a_request_must_name_a_host_that_this_server_is() -> Result<()> {
    let hosts = vec!["Photos.lan".to_owned(), "fd00::7".to_owned()];
    let server = Running::new(&darkroom::http::ServerOptions { hosts, ..options() })?;
    let port = server.server.address().port();
    let other = port ^ 1;
    let good = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("LocalHost:{port}"),
        format!("[::1]:{port}"),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "photos.lan".to_owned(),
        "photos.lan:443".to_owned(),
        "PHOTOS.LAN:8080".to_owned(),
        "[fd00::7]:8080".to_owned(),
    ];
    for host in good {
        let reply = server.ask_only("GET /short", &[&format!("host: {host}")])?;
        ensure!(reply.status == 200, "{host}: {reply:?}");
    }
    let bad = [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1:{other}"),
        format!("localhost:{other}"),
        "127.0.0.1.evil.example".to_owned(),
        format!("localhost.evil.example:{port}"),
        format!("evil.localhost:{port}"),
        format!("localhost@evil.example:{port}"),
        format!("evil.example@localhost:{port}"),
        format!("localhost.:{port}"),
        format!("localhost:{port}:{port}"),
        "localhost:".to_owned(),
        "localhost:0x50".to_owned(),
        "photos.lan:port".to_owned(),
        "photos.lan:99999".to_owned(),
        "photos.lan.evil.example".to_owned(),
        "127.1".to_owned(),
        "2130706433".to_owned(),
        "0.0.0.0".to_owned(),
        "::1".to_owned(),
        "[::1".to_owned(),
        "\u{e9}".to_owned(),
    ];
    for host in bad {
        for line in ["GET /short", "GET /api/jobs", "POST /api/jobs", "GET /nowhere"] {
            let reply = server.ask_only(line, &[&format!("host: {host}")])?;
            let (code, _, field) = reply.error()?;
            ensure!(code == "foreign_host" && field.as_deref() == Some("host"), "{host}: {code}");
        }
    }
    Ok(())
}

#[test]
fn a_request_names_one_host_and_its_address_no_other() -> Result<()> {
    let server = Running::new(&options())?;
    let host = format!("host: {}", server.server.address());
    ensure!(server.ask_only("GET /short", &[])?.code()? == "bad_request");
    ensure!(server.ask_only("GET /short", &["host: "])?.code()? == "foreign_host");
    ensure!(server.ask("GET /short", &["host: evil.example"])?.code()? == "bad_request");
    let line = "GET http://evil.example/short";
    ensure!(server.ask_only(line, &[&host])?.code()? == "foreign_host");
    let line = format!("GET http://{}/short", server.server.address());
    ensure!(server.ask_only(&line, &[&host])?.status == 200);
    Ok(())
}

#[test]
fn only_this_servers_pages_may_make_requests() -> Result<()> {
    let server = Running::new(&options())?;
    let address = server.server.address();
    let (own, secure) = (format!("origin: http://{address}"), format!("origin: https://{address}"));
    let other_port = format!("origin: http://127.0.0.1:{}", address.port() ^ 1);
    let longer = format!("{own}.evil.example");
    let path = format!("{own}/");
    let lines = ["GET /api/jobs", "POST /api/jobs", "GET /", "POST /echo"];
    let good: [&[&str]; 6] = [
        &[],
        &["sec-fetch-site: same-origin"],
        &["sec-fetch-site: none"],
        &[&own],
        &[&own, "sec-fetch-site: same-origin"],
        &[&secure], // a proxy in front has the certificate
    ];
    let bad: [&[&str]; 15] = [
        &["sec-fetch-site: cross-site"],
        &["sec-fetch-site: same-site"], // another port of this machine
        &["sec-fetch-site: "],
        &["sec-fetch-site: same-origin", "sec-fetch-site: cross-site"],
        &["origin: null"],
        &["origin: http://evil.example"],
        &["origin: http://localhost"], // a name of this server, but not the one that was asked
        &["origin: file://"],
        &["origin: "],
        &[&other_port],
        &[&longer],
        &[&path],
        &[&own, "origin: http://evil.example"],
        &[&own, "sec-fetch-site: cross-site"],
        &["origin: null", "sec-fetch-site: same-origin"],
    ];
    for line in lines {
        for headers in good {
            let headers = [&["content-length: 0"], headers].concat();
            let reply = server.ask(line, &headers)?;
            ensure!(reply.status == 200, "{line} {headers:?}: {reply:?}");
        }
        for headers in bad {
            let headers = [&["content-length: 0"], headers].concat();
            let reply = server.ask(line, &headers)?;
            ensure!(reply.code()? == "foreign_origin", "{line} {headers:?}: {reply:?}");
        }
    }
    let preflight = ["origin: http://evil.example", "access-control-request-method: DELETE"];
    ensure!(server.ask("OPTIONS /api/jobs", &preflight)?.code()? == "foreign_origin");
    Ok(())
}

#[test]
fn a_link_elsewhere_may_open_a_page_and_nothing_else() -> Result<()> {
    let server = Running::new(&options())?;
    let link =
        ["sec-fetch-site: cross-site", "sec-fetch-mode: navigate", "sec-fetch-dest: document"];
    let port =
        ["sec-fetch-site: same-site", "sec-fetch-mode: navigate", "sec-fetch-dest: document"];
    let frame =
        ["sec-fetch-site: cross-site", "sec-fetch-mode: navigate", "sec-fetch-dest: iframe"];
    let script =
        ["sec-fetch-site: cross-site", "sec-fetch-mode: no-cors", "sec-fetch-dest: script"];
    ensure!(server.ask("GET /", &link)?.status == 200);
    ensure!(server.ask("GET /", &port)?.status == 200);
    let refused = [
        ("POST /", &link),
        ("GET /api", &link),
        ("GET /api/jobs", &link),
        ("POST /api/jobs", &link),
        ("GET /", &frame),
        ("GET /js", &script),
    ];
    for (line, headers) in refused {
        ensure!(server.ask(line, headers)?.code()? == "foreign_origin", "{line} {headers:?}");
    }
    Ok(())
}

#[test]
fn no_response_lets_another_site_read_it() -> Result<()> {
    let server = Running::new(&options())?;
    let own = format!("origin: http://{}", server.server.address());
    for line in ["GET /", "GET /api/jobs", "GET /nowhere", "OPTIONS /api/jobs"] {
        for origin in [own.as_str(), "origin: http://evil.example"] {
            let reply = server.ask(line, &[origin])?;
            let cors = reply.headers.iter().find(|(name, _)| name.starts_with("access-control-"));
            ensure!(cors.is_none(), "{line}: {cors:?}");
        }
    }
    Ok(())
}
