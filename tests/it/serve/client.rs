//! A client of the running server: each request on a connection of its own, each response read to
//! its end. A response that was cut is an error, which is how a test notices that the server died.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// When a test gives up. Nothing that it waits for takes a tenth of that on an idle machine.
pub(super) const GIVE_UP: Duration = Duration::from_secs(60);
/// How often a job is asked for while a test waits for it.
const PAUSE: Duration = Duration::from_millis(4);
/// What separates the parts of a form.
const BOUNDARY: &str = "a-line-that-no-part-holds";

/// Where requests go.
#[derive(Clone, Copy)]
pub(super) struct Client(pub(super) SocketAddr);

impl Client {
    /// Sends a request, `head` being further header lines, and reads the response.
    pub(super) fn send(&self, line: &str, head: &str, body: &[u8]) -> Result<Reply> {
        let mut socket = TcpStream::connect(self.0)?;
        socket.set_read_timeout(Some(GIVE_UP))?;
        socket.set_write_timeout(Some(GIVE_UP))?;
        let (host, length) = (self.0, body.len());
        let request = format!(
            "{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-length: {length}\r\n{head}\r\n"
        );
        socket.write_all(request.as_bytes())?;
        // Whoever refuses a body may hang up before it was sent.
        drop(socket.write_all(body));
        Reply::read(&mut BufReader::new(socket)).with_context(|| line.to_owned())
    }

    pub(super) fn get(&self, path: &str) -> Result<Reply> {
        self.send(&format!("GET {path}"), "", b"")
    }

    pub(super) fn delete(&self, path: &str) -> Result<Reply> {
        self.send(&format!("DELETE {path}"), "", b"")
    }

    pub(super) fn post(&self, path: &str, json: &Value) -> Result<Reply> {
        let head = "content-type: application/json\r\n";
        self.send(&format!("POST {path}"), head, json.to_string().as_bytes())
    }

    /// Sends an edit.
    pub(super) fn edit(&self, form: &Form) -> Result<Reply> {
        let head =
            format!("content-type: multipart/form-data; boundary={BOUNDARY}\r\n{}", form.head);
        self.send("POST /api/edits", &head, &form.bytes())
    }

    /// Sends an edit that must be taken, and gives its job's id.
    pub(super) fn submit(&self, form: &Form) -> Result<String> {
        self.edit(form)?.accepted()
    }

    /// A job as it stands.
    pub(super) fn job(&self, id: &str) -> Result<Value> {
        let reply = self.get(&format!("/api/jobs/{id}"))?;
        ensure!(reply.status == 200, "{reply:?}");
        reply.json()
    }

    /// Asks for a job until it is as `wanted`.
    pub(super) fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let started = Instant::now();
        loop {
            let job = self.job(id)?;
            if wanted(&job) {
                return Ok(job);
            }
            ensure!(started.elapsed() < GIVE_UP, "the job is still: {job}");
            std::thread::sleep(PAUSE);
        }
    }

    /// The events of a job until its end: their names and data.
    pub(super) fn events(&self, id: &str) -> Result<Vec<(String, Value)>> {
        let reply = self.get(&format!("/api/jobs/{id}/events"))?;
        ensure!(reply.status == 200, "{reply:?}");
        let text = String::from_utf8(reply.body)?;
        let events = text.split("\n\n").filter_map(|event| {
            let of = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            Some((of("event: ")?.to_owned(), of("data: ")?))
        });
        events.map(|(name, data)| Ok((name, serde_json::from_str(data)?))).collect()
    }

    /// The file of an image.
    pub(super) fn content(&self, image: &str) -> Result<Vec<u8>> {
        let reply = self.get(&format!("/api/images/{image}/content"))?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(reply.body)
    }
}

/// What came back.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

impl Reply {
    /// Reads a response to its end.
    pub(super) fn read(from: &mut impl BufRead) -> Result<Self> {
        let first = read_line(from)?;
        let status = first.split(' ').nth(1).with_context(|| format!("a status in {first:?}"))?;
        let mut reply = Self { status: status.parse()?, headers: Vec::new(), body: Vec::new() };
        loop {
            let line = read_line(from)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").context("a header")?;
            reply.headers.push((name.to_owned(), value.to_owned()));
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let mut chunk = vec![0; usize::from_str_radix(&read_line(from)?, 16)?];
                from.read_exact(&mut chunk)?;
                ensure!(read_line(from)?.is_empty(), "a chunk ends with its line");
                if chunk.is_empty() {
                    break;
                }
                reply.body.extend(chunk);
            }
        } else if let Some(length) = reply.header("content-length") {
            reply.body = vec![0; length.parse()?];
            from.read_exact(&mut reply.body)?;
        }
        Ok(reply)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{self:?}"))
    }

    /// The id of the job that was made.
    pub(super) fn accepted(&self) -> Result<String> {
        ensure!(self.status == 202, "{self:?}");
        text(&self.json()?["id"])
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let whole =
        line.strip_suffix("\r\n").ok_or(ErrorKind::UnexpectedEof).map_err(io::Error::from)?;
    Ok(whole.to_owned())
}

/// What came, or none where the server was gone before it had all come. Whatever else is wrong stays
/// an error.
pub(super) fn unless_cut<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.chain().any(|cause| cause.is::<io::Error>()) => Ok(None),
        result => result.map(Some),
    }
}

/// A text in JSON.
pub(super) fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("a text, not {value}"))?.to_owned())
}

/// An edit as a form, as a browser sends it.
#[derive(Clone, Default)]
pub(super) struct Form {
    body: Vec<u8>,
    head: String,
}

impl Form {
    /// A square picture of `side` pixels a side in so many steps, from text alone.
    pub(super) fn square(side: u32, steps: u32, seed: u64) -> Self {
        let side = side.to_string();
        let form = Self::default().text("prompt", "a blue hill").text("seed", &seed.to_string());
        let form = form.text("num_inference_steps", &steps.to_string());
        form.text("width", &side).text("height", &side)
    }

    /// An edit of this picture.
    pub(super) fn of(self, picture: &[u8]) -> Self {
        self.file("image", "holiday.png", picture)
    }

    pub(super) fn text(mut self, name: &str, text: &str) -> Self {
        let part = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n"
        );
        self.body.extend(part.as_bytes());
        self
    }

    pub(super) fn file(mut self, name: &str, file: &str, bytes: &[u8]) -> Self {
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"; \
             filename=\"{file}\"\r\ncontent-type: image/png\r\n\r\n"
        );
        self.body.extend(head.as_bytes());
        self.body.extend(bytes);
        self.body.extend(b"\r\n");
        self
    }

    /// With a further header line.
    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.body, format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
    }
}
