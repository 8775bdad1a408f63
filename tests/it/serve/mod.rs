//! The program as it is started, killed and started again: real processes, kontext-tiny, real
//! sockets. Everything of a run lies in one temporary folder, and no process outlives its test.

mod client;
mod crash;
mod privacy;
mod start;
#[cfg(target_os = "linux")]
mod trace;

use crate::support::{noise, repository};
use anyhow::{Context, Result, bail, ensure};
use client::{Client, GIVE_UP};
use darkroom::domain::Pixels;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How often a test looks again at what it waits for.
const PAUSE: Duration = Duration::from_millis(2);
/// What the line that says the address has before it.
const READY: &str = " is ready at ";

/// Where a server runs: a store's folder that is not there yet, a working folder and a folder for
/// temporary files, all its own.
struct Place {
    folder: TempDir,
    program: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        Self::of(Path::new(env!("CARGO_BIN_EXE_darkroom")))
    }

    /// For another build of the program.
    fn of(program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let place = Self { folder, program: program.to_owned() };
        fs::create_dir(place.working())?;
        fs::create_dir(place.temporary())?;
        std::os::unix::fs::symlink(repository("models"), place.working().join("models"))?;
        Ok(place)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> PathBuf {
        self.path().join("data")
    }

    fn working(&self) -> PathBuf {
        self.path().join("working")
    }

    fn temporary(&self) -> PathBuf {
        self.path().join("temporary")
    }

    /// What is in the working folder and in that for temporary files, and was not put there here.
    fn left_behind(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.working())?.chain(fs::read_dir(self.temporary())?);
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        Ok(paths.into_iter().filter(|path| !path.ends_with("models")).collect())
    }

    /// The server's command, with `settings` such as `SERVER__DRAIN`.
    fn command(&self, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.program);
        self.prepare(&mut command);
        for (key, value) in settings {
            command.env(format!("DARKROOM__{key}"), value);
        }
        command
    }

    /// Lets a command run here, and nowhere else.
    fn prepare(&self, command: &mut Command) {
        command
            .env_clear()
            .env("TMPDIR", self.temporary())
            .env("DARKROOM__SERVER__BIND", "127.0.0.1:0")
            .env("DARKROOM__STORE__PATH", self.store())
            .current_dir(self.working())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    fn start(&self, settings: &[(&str, &str)]) -> Result<Server> {
        Server::start(&mut self.command(settings))
    }

    /// The one line that a server says that cannot start.
    fn refuse(&self, settings: &[(&str, &str)]) -> Result<String> {
        let process = Process::new(&mut self.command(settings))?;
        let (status, lines) = process.wait()?;
        let said: Vec<_> = lines.iter().filter(|line| *line != "loading kontext-tiny").collect();
        ensure!(status.code() == Some(1), "{status}, {lines:#?}");
        ensure!(said.len() == 1 && said[0].starts_with("error: "), "{lines:#?}");
        Ok(said[0].clone())
    }
}

/// A process whose output is read while it runs, and that is killed where nobody waits for it.
struct Process {
    child: Child,
    said: Said,
    readers: Vec<JoinHandle<()>>,
}

/// All lines that a process has said so far.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, text: &str) -> Option<String> {
        self.lines().iter().find(|line| line.contains(text)).cloned()
    }

    /// Collects what comes, until its writers are gone.
    fn read(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let said = self.clone();
        thread::spawn(move || {
            let lines = BufReader::new(from).split(b'\n').map_while(Result::ok);
            lines.for_each(|line| said.lines().push(String::from_utf8_lossy(&line).into_owned()));
        })
    }
}

impl Process {
    fn new(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_owned();
        let mut child = command.spawn().with_context(|| format!("{} starts", name.display()))?;
        let said = Said::default();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let readers = vec![
            said.read(out.context("a pipe for standard output")?),
            said.read(err.context("a pipe for standard error")?),
        ];
        Ok(Self { child, said, readers })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(id.context("an id")?, signal)?)
    }

    /// The line that has `text` in it, once it was said.
    fn line(&mut self, text: &str) -> Result<String> {
        let started = Instant::now();
        loop {
            // Asked before, so that what was said last is looked through.
            let ended = self.child.try_wait()?;
            if ended.is_some() {
                self.readers.drain(..).for_each(|reader| drop(reader.join()));
            }
            match (self.said.find(text), ended) {
                (Some(line), _) => return Ok(line),
                (None, Some(status)) => bail!("{status} without {text:?}: {:#?}", self.lines()),
                (None, None) => ensure!(started.elapsed() < GIVE_UP, "no {text:?}"),
            }
            thread::sleep(PAUSE);
        }
    }

    fn lines(&self) -> Vec<String> {
        self.said.lines().clone()
    }

    /// Waits for its end, and gives that and all that it said.
    fn wait(mut self) -> Result<(ExitStatus, Vec<String>)> {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(started.elapsed() < GIVE_UP, "it does not end: {:#?}", self.lines());
            thread::sleep(PAUSE);
        };
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        Ok((status, self.lines()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server that answers.
struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    fn start(command: &mut Command) -> Result<Self> {
        Self::ready(Process::new(command)?)
    }

    /// Waits until a process says its address.
    fn ready(mut process: Process) -> Result<Self> {
        let line = process.line(READY)?;
        let (_, url) = line.split_once("://").context("an address")?;
        let address = url.trim_end().parse().with_context(|| line.clone())?;
        Ok(Self { process, address })
    }

    fn client(&self) -> Client {
        Client(self.address)
    }

    /// Ends it as an operator does, and gives all that it said.
    fn stop(self) -> Result<Vec<String>> {
        self.process.signal(Signal::TERM)?;
        let (status, lines) = self.process.wait()?;
        ensure!(status.code() == Some(0), "{status}: {lines:#?}");
        ensure!(lines.iter().any(|line| line == "stopped"), "{lines:#?}");
        Ok(lines)
    }
}

/// A seed that no other run has.
fn fresh_seed() -> Result<u64> {
    let now = std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    Ok(now ^ u64::from(std::process::id()).rotate_left(32))
}

/// A picture that no pattern repeats in, and its file. It has few colours, so that its file is packed
/// and holds no row as it is.
fn picture(seed: u64, side: u32) -> Result<(Pixels, Vec<u8>)> {
    let rgb = noise(seed, side as usize * side as usize * 3).into_iter().map(|byte| byte & 0xC0);
    let pixels = Pixels::new(side, side, rgb.collect()).context("a picture")?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, side, side);
    encoder.set_color(png::ColorType::Rgb);
    // The server's own encoder is a fast one, and leaves such rows as they are.
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header()?.write_image_data(pixels.rgb())?;
    Ok((pixels, file))
}

/// The file of a small picture.
fn png() -> Result<Vec<u8>> {
    Ok(picture(1, 64)?.1)
}
