//! What a server asked of the kernel: strace's words, read back.
//!
//! All strings are written as hexadecimal digits, descriptors with what they stand for, and each
//! thread has a file of its own, so that a call is a line. A call that cannot be read in full is
//! itself a finding: what is not seen is not proven.

use super::{Finding, canary::Canary};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Calls that make a file writable, put bytes somewhere, or name a file.
const CALLS: &str = "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,sendto,\
                     sendmsg,sendmmsg,rename,renameat,renameat2,link,linkat,mmap,sendfile,\
                     copy_file_range,splice,tee,vmsplice,memfd_create,io_uring_setup,\
                     process_vm_writev";
/// The longest string that is written out, in bytes. Nothing that a test sends or gets is so long.
const LONGEST: &str = "4194304";
/// Ways by which bytes could reach a file that the trace would not show.
const UNSEEN: &[&str] = &[
    "sendfile",
    "copy_file_range",
    "splice",
    "tee",
    "vmsplice",
    "memfd_create",
    "io_uring_setup",
    "process_vm_writev",
];

/// `command` under strace, whose words go into files that begin with `output`. The process that is
/// started is still the server; strace is a child of it, and ends behind it.
pub(super) fn traced(command: &Command, output: &Path) -> Result<Command> {
    let version = Command::new("strace").arg("-V").output();
    ensure!(
        version.is_ok_and(|output| output.status.success()),
        "strace is missing, and without it this test proves nothing: install it with \
         `apt-get install strace`"
    );
    let mut traced = if rustix::process::geteuid().is_root() {
        Command::new("strace")
    } else {
        // The server is closed to debuggers of its own user, but not to root, which anyone is in a
        // user namespace of his own.
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "strace"]);
        unshare
    };
    traced
        .args(["-D", "-f", "-ff", "--seccomp-bpf", "-y", "-xx", "-s", LONGEST, "-e"])
        .arg(format!("trace={CALLS}"))
        .arg("-o")
        .arg(output)
        .arg(command.get_program())
        .args(command.get_args());
    Ok(traced)
}

/// What the trace shows: how many calls there were, which bytes were written to files, and what
/// must not be.
pub(super) struct Seen {
    pub(super) calls: usize,
    pub(super) written: Vec<u8>,
    pub(super) findings: Vec<Finding>,
}

/// Reads the files that begin with `output`. Only below `store` may a file be made or written.
pub(super) fn read(output: &Path, store: &Path, canary: &Canary) -> Result<Seen> {
    let mut seen = Seen { calls: 0, written: Vec::new(), findings: Vec::new() };
    let folder = output.parent().context("a folder")?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_stem() != output.file_name() {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        // What is no call is a signal or the end of a thread.
        let lines = text.lines().filter(|line| !line.starts_with(['-', '+']));
        for line in lines {
            seen.calls += 1;
            seen.read(line, store, canary);
        }
    }
    Ok(seen)
}

impl Seen {
    fn read(&mut self, line: &str, store: &Path, canary: &Canary) {
        let Some((name, arguments)) = line.split_once('(') else {
            return self.findings.push(Finding::Unclear(line.chars().take(100).collect()));
        };
        let strings = Strings::of(arguments);
        let shown = || format!("{name} {:?}", strings.target());
        match name {
            "open" | "openat" | "openat2" | "creat" => {
                let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"];
                let writes = name == "creat" || writes.iter().any(|flag| arguments.contains(flag));
                match strings.paths().first() {
                    _ if !writes => {}
                    Some(path) if is_allowed(path, store) => {}
                    Some(path) => self.findings.push(Finding::Opened(path.clone())),
                    None => self.findings.push(Finding::Unclear(shown())),
                }
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let paths = strings.paths();
                if paths.len() != 2 {
                    self.findings.push(Finding::Unclear(shown()));
                }
                let outside = paths.into_iter().filter(|path| !path.starts_with(store));
                self.findings.extend(outside.map(Finding::Opened));
            }
            "mmap" => {
                let shared = arguments.contains("MAP_SHARED") && arguments.contains("PROT_WRITE");
                if shared && !arguments.contains("MAP_ANONYMOUS") {
                    self.findings.push(Finding::Unseen("a shared mapping"));
                }
            }
            name => match UNSEEN.iter().find(|unseen| **unseen == name) {
                Some(unseen) => self.findings.push(Finding::Unseen(unseen)),
                None => self.write(&strings, canary, shown),
            },
        }
    }

    /// A call that puts bytes somewhere, a socket included: no answer holds any of the input.
    fn write(&mut self, strings: &Strings, canary: &Canary, shown: impl Fn() -> String) {
        if strings.cut || strings.quoted.is_empty() {
            self.findings.push(Finding::Unclear(shown()));
        }
        let bytes = strings.quoted.concat();
        if let Some(encoding) = canary.find(&bytes) {
            self.findings.push(Finding::Wrote(strings.target(), encoding));
        }
        if strings.folders.first().is_some_and(|to| to.starts_with(b"/")) {
            self.written.extend(bytes);
        }
    }
}

fn is_allowed(path: &Path, store: &Path) -> bool {
    let devices = ["/dev/null", "/dev/tty"].map(Path::new);
    path.starts_with(store) || path.starts_with("/proc") || devices.contains(&path)
}

/// The strings in the arguments of a call.
struct Strings {
    /// Those in quotes.
    quoted: Vec<Vec<u8>>,
    /// What descriptors stand for.
    folders: Vec<Vec<u8>>,
    /// Whether one was too long to be written out.
    cut: bool,
}

impl Strings {
    fn of(arguments: &str) -> Self {
        let mut strings = Self { quoted: Vec::new(), folders: Vec::new(), cut: false };
        let mut rest = arguments;
        while let Some(at) = rest.find(['"', '<']) {
            let (quote, end) = if rest[at..].starts_with('"') { (true, '"') } else { (false, '>') };
            let inner = &rest[at + 1..];
            let length = inner.find(end).unwrap_or(inner.len());
            let bytes = decode(&inner[..length]);
            rest = inner.get(length + 1..).unwrap_or_default();
            if quote {
                strings.quoted.push(bytes);
                strings.cut |= rest.starts_with("...");
            } else {
                strings.folders.push(bytes);
            }
        }
        strings
    }

    /// The quoted strings as paths, each in the folder that its descriptor names.
    fn paths(&self) -> Vec<PathBuf> {
        let quoted = self.quoted.iter().enumerate();
        let paths = quoted.map(|(index, name)| {
            let folder = self.folders.get(index).map(|folder| path(folder)).unwrap_or_default();
            folder.join(path(name))
        });
        paths.collect()
    }

    /// The file or socket that the call is about.
    fn target(&self) -> PathBuf {
        self.folders.first().map(|folder| path(folder)).unwrap_or_default()
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// Bytes that are written as `\x2f`, others as they are.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = rest.strip_prefix(b"\\x").and_then(|rest| rest.get(..2));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
