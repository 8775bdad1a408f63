//! Progress of files that come and go: a bar on a terminal, a line now and then where there is none.

use crate::{
    app::{Event, Work},
    domain::Bytes,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// How often a line is written where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// The file at hand.
pub(super) struct Bars {
    quiet: bool,
    terminal: bool,
    bar: ProgressBar,
    file: String,
    size: u64,
    told: Instant,
}

impl Bars {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let (bar, told) = (ProgressBar::hidden(), Instant::now());
        Self { quiet, terminal, bar, file: String::new(), size: 0, told }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, event: Event<'_>) {
        if self.quiet {
            return;
        }
        match event {
            Event::Plan { files, present, bytes } => {
                let here = if present > 0 { &format!(", {present} are here") } else { "" };
                self.line(&format!("{files} files{here}, {} to come", Bytes(bytes)));
            }
            Event::File { path, size, work } => self.begin(path, size, work),
            Event::At(bytes) => self.at(bytes),
            Event::Wait { seconds, reason } => {
                self.line(&format!("{reason}; again in {seconds} s"));
            }
            Event::Done => self.clear(),
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn begin(&mut self, path: &str, size: u64, work: Work) {
        let verb = match work {
            Work::Download => "loading",
            Work::Copy => "copying",
            Work::Check => "checking",
        };
        (self.file, self.size, self.told) = (path.to_owned(), size, Instant::now());
        if !self.terminal {
            eprintln!("{verb} {path}, {}", Bytes(size));
            return;
        }
        self.bar = ProgressBar::new(size);
        let template = "{prefix} {wide_msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template);
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.set_prefix(verb);
        self.bar.set_message(path.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn at(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        if !self.terminal && self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            let percent = 100 * bytes / self.size.max(1);
            eprintln!("  {} of {}, {percent} %", Bytes(bytes), Bytes(self.size));
        }
    }

    /// A line that stays, above the bar.
    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}
