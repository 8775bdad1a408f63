//! The HTTP edge over real sockets: what every request passes before a handler sees it, and what
//! every response passes after. The routes are this test's own.

mod bodies;
mod connections;
mod errors;
mod guards;
mod headers;
mod stop;
mod tls;

use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query},
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{
        Response,
        sse::{Event, Sse},
    },
    routing::{get, post},
};
use darkroom::http::{ApiError, Code, Refused, Server, ServerOptions, Tls};
use futures_util::stream;
use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};
use tokio::runtime::Runtime;

/// When a test gives up. Nothing that it waits for takes a tenth of that on an idle machine.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The limit of a body in these tests.
const MAX_BODY: u64 = 4096;

fn options() -> ServerOptions {
    ServerOptions {
        bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        max_body: MAX_BODY,
        max_connections: 100,
        header_timeout: GIVE_UP,
        idle_timeout: GIVE_UP,
        hosts: Vec::new(),
        tls: Tls::Off,
        refused: Refused(Arc::new(|_| {})),
    }
}

/// Passes if one of five runs does: for what holds unless the machine stands still for a second in
/// the middle of it.
fn once(run: impl Fn() -> Result<()>) -> Result<()> {
    let runs = (0..4).map(|_| run()).find(Result::is_ok);
    runs.unwrap_or_else(run)
}

/// A server on threads of its own, which end with it.
struct Running {
    server: Server,
    runtime: Runtime,
}

impl Running {
    fn new(options: &ServerOptions) -> Result<Self> {
        Self::with(options, routes())
    }

    fn with(options: &ServerOptions, router: Router) -> Result<Self> {
        let runtime = Runtime::new()?;
        let server = runtime.block_on(Server::start(router, options))?;
        Ok(Self { server, runtime })
    }

    fn connect(&self) -> Result<Client> {
        Client::new(self.server.address())
    }

    /// One request, with the right host and these header lines, on a connection of its own.
    fn ask(&self, line: &str, headers: &[&str]) -> Result<Reply> {
        let host = format!("host: {}", self.server.address());
        self.ask_only(line, &[&[host.as_str()], headers].concat())
    }

    /// As `ask`, but with no header that is not given.
    fn ask_only(&self, line: &str, headers: &[&str]) -> Result<Reply> {
        let mut client = self.connect()?;
        client.send(line, headers)?;
        client.reply().with_context(|| format!("{line} {headers:?}"))
    }
}

/// A connection that writes and reads bytes as they are.
struct Client {
    socket: BufReader<TcpStream>,
}

impl Client {
    fn new(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(GIVE_UP))?;
        socket.set_write_timeout(Some(GIVE_UP))?;
        Ok(Self { socket: BufReader::new(socket) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.get_mut().write_all(bytes)?)
    }

    fn send(&mut self, line: &str, headers: &[&str]) -> Result<()> {
        let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        self.write(format!("{line} HTTP/1.1\r\n{lines}\r\n").as_bytes())
    }

    fn reply(&mut self) -> Result<Reply> {
        Reply::read(&mut self.socket)
    }

    /// Whether the server hung up without another byte.
    fn is_closed(&mut self) -> Result<bool> {
        match self.socket.read(&mut [0; 1]) {
            Ok(count) => Ok(count == 0),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn read(from: &mut impl BufRead) -> Result<Self> {
        let mut reply = Self::read_head(from)?;
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = read_chunk(from)? {
                reply.body.extend(chunk);
            }
        } else {
            let length = reply.header("content-length").context("a length")?.parse()?;
            reply.body = vec![0; length];
            from.read_exact(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// Status and headers, of a body that may not end.
    fn read_head(from: &mut impl BufRead) -> Result<Self> {
        let first = read_line(from)?;
        let status = first.split(' ').nth(1).with_context(|| format!("a status in {first:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(from)?;
            if line.is_empty() {
                return Ok(Self { status: status.parse()?, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(": ").context("a header")?;
            headers.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The value of a header that is there once.
    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// The error in it, after checking its shape: code, message, field.
    fn error(&self) -> Result<(String, String, Option<String>)> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Shape {
            error: Detail,
        }
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Detail {
            code: String,
            message: String,
            field: serde_json::Value,
            request_id: String,
        }
        let text = String::from_utf8_lossy(&self.body);
        ensure!(self.header("content-type") == Some("application/json"), "{self:?}");
        let Shape { error } =
            serde_json::from_slice(&self.body).with_context(|| text.clone().into_owned())?;
        ensure!(self.header("x-request-id") == Some(&error.request_id), "{text}");
        ensure!(error.request_id.len() == 32, "{text}");
        let code =
            Code::ALL.iter().find(|code| code.name() == error.code).context("a known code")?;
        ensure!(code.status().as_u16() == self.status, "{} for {text}", self.status);
        ensure!(!error.message.is_empty() && !error.message.ends_with('.'), "{text}");
        let field = error.field.as_str().map(str::to_owned);
        ensure!(field.is_some() || error.field.is_null(), "{text}");
        Ok((error.code, error.message, field))
    }

    fn is(&self, status: u16, body: &str) -> bool {
        self.status == status && self.body == body.as_bytes()
    }

    /// The code of the error in it.
    fn code(&self) -> Result<String> {
        Ok(self.error()?.0)
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.strip_suffix("\r\n").with_context(|| format!("a whole line in {line:?}"))?.to_owned())
}

/// The next chunk of a body, none at its end.
fn read_chunk(from: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut chunk = vec![0; usize::from_str_radix(&read_line(from)?, 16)?];
    from.read_exact(&mut chunk)?;
    ensure!(read_line(from)?.is_empty(), "a chunk ends with its line");
    Ok((!chunk.is_empty()).then_some(chunk))
}

/// A text that is worth compressing.
fn long_text() -> String {
    (0..400).map(|line| format!("\"line {line} of a long text\",\n")).collect()
}

fn of(kind: &'static str) -> Response {
    Response::builder().header(CONTENT_TYPE, kind).body(long_text().into()).expect("a response")
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    limit: u32,
}

/// The cause of a failure that no client may see.
#[derive(Debug, thiserror::Error)]
#[error("the disk behind the curtain")]
struct Hidden;

/// Routes of every kind.
fn routes() -> Router {
    let events = || async {
        let events = (0..20).map(|number| Event::default().data(format!("event {number}")));
        Sse::new(stream::unfold(events, |mut events| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            events.next().map(|event| (Ok::<_, Infallible>(event), events))
        }))
    };
    let secret = || async { ([("x-secret", "a prompt"), ("server", "axum")], "text") };
    let busy = || async {
        Err::<(), _>(
            ApiError::new(Code::QueueFull, "the queue of 64 is full")
                .field("priority")
                .retry_after(Duration::from_millis(2100)),
        )
    };
    let broken = || async { Err::<(), _>(ApiError::failure(Code::StoreFailed, Hidden)) };
    let foreign = || async {
        (
            axum::http::StatusCode::BAD_REQUEST,
            [(CONTENT_TYPE, "application/json")],
            "{\"detail\":1}",
        )
    };
    let panics = || async {
        let quoted = String::from("a prompt");
        assert!(quoted.is_empty(), "this panic belongs to a test");
    };
    Router::new()
        .route("/", get(|| async { of("text/html; charset=utf-8") }))
        .route("/text", get(|| async { of("text/plain; charset=utf-8") }))
        .route("/json", get(|| async { of("application/json") }))
        .route("/css", get(|| async { of("text/css") }))
        .route("/js", get(|| async { of("text/javascript") }))
        .route("/png", get(|| async { of("image/png") }))
        .route("/short", get(|| async { "short" }))
        .route("/cached", get(|| async { ([(CACHE_CONTROL, "no-cache")], "asset") }))
        .route("/events", get(events))
        .route("/secret", get(secret))
        .route("/busy", get(busy))
        .route("/broken", get(broken))
        .route("/foreign", get(foreign))
        .route("/panic", get(panics))
        .route("/number/{number}", get(|Path(number): Path<u32>| async move { number.to_string() }))
        .route(
            "/query",
            get(|Query(paging): Query<Paging>| async move { paging.limit.to_string() }),
        )
        .route("/plain-query", get(|_: axum::extract::Query<Paging>| async {}))
        .route("/echo", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/ignore", post(|body: Body| async move { drop(body) }))
        .route("/api/jobs", get(|| async { "jobs" }).post(|| async { "made" }))
}
