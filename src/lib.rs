//! Darkroom: a private FLUX.1-Kontext image-editing server.
//!
//! ARCHITECTURE.md draws the map. In short: `cli` is what a person types, `app` puts the parts
//! together, `pipeline` turns a picture and a sentence into a picture, `model` is the networks, and
//! the crate `darkroom-kernels` is the arithmetic under them.

#![deny(unsafe_code)]

pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod http;
pub mod hub;
pub mod imaging;
pub mod model;
pub mod pipeline;
pub mod scheduler;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod ui;
