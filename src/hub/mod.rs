//! Models from the Hugging Face hub, a mirror of it, or a folder: downloads, what is known of each
//! file, and the check of what is here against it.
//!
//! Only `app` calls this, for `darkroom pull` and `darkroom models`; a server never does. It knows
//! files and HTTP, and nothing of what a model is.
//!
//! How a pull goes: the hub lists a revision's files (`repository`), names are held to the model's
//! folder (`path`), each file's size and SHA-256 are asked for before a byte of it is taken, room is
//! checked, and then one file after another is loaded beside its place, hashed while it comes, and
//! renamed (`download`). `NAME.lock.toml` keeps what each file was (`lock`).
//!
//! A file that is cut stays as `FILE.DIGEST.part`, where the digest is that of its ETag: what was
//! loaded of one file is never continued as another.
//!
//! Of the crate hf-hub its folders are used: where people have their token, and files that other
//! programs pulled before. Its downloads would not do: 0.5 checks no hash, appends whatever comes to
//! a part, waits for ever and tells 401 from 404 by a number; 1.0 brings a storage system along. So
//! requests go through hyper, which is here already because it serves.

mod client;
mod download;
mod error;
mod import;
mod lock;
mod path;
mod patience;
mod pull;
mod repository;
mod select;
mod tls;
mod token;
mod verify;

pub use error::HubError;
pub use import::import;
pub use lock::{Checked, Lock, Record};
pub use path::{model_name, target};
pub use pull::{Hub, Order, Wanted, pull};
pub use token::Token;
pub use verify::{Finding, Removed, remove, verify};

/// How far a pull, an import or a check is.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// What is still to be loaded.
    Plan {
        /// Files in all.
        files: usize,
        /// Of these, files that are here already.
        present: usize,
        /// Bytes still to come.
        bytes: u64,
    },
    /// A file begins.
    File {
        /// Its path in the model's folder.
        path: &'a str,
        /// Its length in bytes.
        size: u64,
        /// What is done with it.
        work: Work,
    },
    /// So many bytes of the file are done.
    At(u64),
    /// Nothing is done for so many seconds, for a reason.
    Wait {
        /// The seconds.
        seconds: u64,
        /// Why.
        reason: &'a str,
    },
    /// The file is done.
    Done,
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It comes from the hub.
    Download,
    /// It comes from a folder of this machine.
    Copy,
    /// It is read and hashed.
    Check,
}

/// Who is told.
pub type Tell<'a> = &'a mut dyn FnMut(Event<'_>);
