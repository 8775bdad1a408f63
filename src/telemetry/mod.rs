//! Where events go: to standard error, as much of them as `DARKROOM_LOG` asks for.
//!
//! Events carry sizes, counts and times. No prompt, no file name of a picture and no pixel is ever
//! in one: the types that hold those have no way to print them. Metrics, which [`Exposition`] writes,
//! are held to the same.

mod memory;
mod metrics;

pub use memory::{available, resident, total};
pub use metrics::{Exposition, Kind};

use tracing_subscriber::EnvFilter;

/// The variable that says what to log: `debug`, or `darkroom::pipeline=trace` and so on.
const VARIABLE: &str = "DARKROOM_LOG";

/// Starts to write events; without the variable, warnings and errors alone.
pub fn init() {
    let filter = EnvFilter::builder().with_env_var(VARIABLE);
    let filter = filter.with_default_directive(tracing::Level::WARN.into()).from_env_lossy();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, as in tests, keeps the first.
    drop(subscriber.try_init());
}
