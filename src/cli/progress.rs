//! Progress bars on the terminal: one for each stage, gone when standard error is no terminal.

use crate::app::{Progress, Stage};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// The bar of the stage at hand.
pub(super) struct Bars {
    quiet: bool,
    stage: Option<Stage>,
    bar: ProgressBar,
    /// When the stage began: for steps, the end of the first step, since that one warms up.
    since: Instant,
}

impl Bars {
    pub(super) fn new(quiet: bool) -> Self {
        let (bar, since) = (ProgressBar::hidden(), Instant::now());
        Self { quiet, stage: None, bar, since }
    }

    /// Says what is being loaded.
    pub(super) fn loading(&mut self, part: &str) {
        if self.stage.is_none() && self.bar.is_hidden() && !self.quiet {
            self.bar = ProgressBar::new_spinner();
            self.bar.enable_steady_tick(Duration::from_millis(100));
            self.bar.set_style(style("{prefix:>10} {msg} {spinner}"));
            self.bar.set_prefix("loading");
        }
        self.bar.set_message(part.to_owned());
    }

    /// Says something at once to a person who watches, and tells whether there is one.
    pub(super) fn note(&self, text: &str) -> bool {
        self.bar.finish_and_clear();
        let watched = !self.quiet && std::io::stderr().is_terminal();
        if watched {
            eprintln!("{text}");
        }
        watched
    }

    /// Shows how far the edit is.
    pub(super) fn update(&mut self, stage: Stage, progress: Progress) {
        if self.stage != Some(stage) {
            self.begin(stage, progress.total);
        }
        self.bar.set_position(progress.done as u64);
        if stage == Stage::Steps {
            self.bar.set_message(self.pace(progress));
        }
    }

    fn begin(&mut self, stage: Stage, total: usize) {
        self.bar.finish_and_clear();
        self.stage = Some(stage);
        self.since = Instant::now();
        if self.quiet {
            return;
        }
        let name = match stage {
            Stage::Text => "prompt",
            Stage::Pictures => "pictures",
            Stage::Steps => "denoising",
            Stage::Decoding => "decoding",
        };
        self.bar = ProgressBar::new(total as u64);
        self.bar.set_style(style("{prefix:>10} {bar:30} {pos}/{len} {msg}"));
        self.bar.set_prefix(name);
    }

    /// Time per step and what is left of it.
    fn pace(&self, progress: Progress) -> String {
        // The bar begins when the first step is done.
        let Some(steps) = progress.done.checked_sub(1).filter(|&n| n > 0) else {
            return String::new();
        };
        let step = self.since.elapsed().as_secs_f64() / steps as f64;
        let left = step * progress.total.saturating_sub(progress.done) as f64;
        format!("{step:.2} s a step, {} left", seconds(left))
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `1.2 s`, or `3 min 20 s` from two minutes on.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 120.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}
