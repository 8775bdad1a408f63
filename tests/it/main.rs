//! All integration tests in one binary: one link, one place to look.
#![expect(clippy::print_stdout, reason = "tests print the figures that they check")]

mod bands;
mod batching;
mod cli;
mod edge;
mod edits;
mod formats;
mod http;
mod hub;
mod imaging;
mod licences;
mod loading;
mod loras;
mod manifests;
mod parity;
mod plan;
mod scheduler;
mod scheduler_model;
mod seeds;
mod serve;
mod service_model;
mod settings;
mod sizes;
mod store;
mod support;
mod t5;
mod tidy;
mod tiles;
mod ui;
#[path = "../fuzz/weights.rs"]
mod weights;
