//! What handlers hold, and who calls them.

use crate::{domain::OwnerId, service::Service};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use std::{convert::Infallible, fmt, sync::Arc};

/// What handlers hold.
#[derive(Clone, Debug)]
pub struct App {
    /// What people do.
    pub service: Service,
    /// The models of this server, for the list.
    pub models: Arc<[Model]>,
    /// Its adapters.
    pub loras: Loras,
}

/// How the adapters of this server are found, for the list: there may be others each time.
#[derive(Clone)]
pub struct Loras(pub Arc<dyn Fn() -> Vec<Lora> + Send + Sync>);

impl fmt::Debug for Loras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loras")
    }
}

/// An adapter, for the list.
#[derive(Clone, Debug)]
pub struct Lora {
    /// Its name.
    pub name: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// Programs that name layers as it does.
    pub families: Vec<&'static str>,
    /// What it consists of.
    pub kinds: Vec<&'static str>,
    /// The highest rank of its matrices.
    pub rank: usize,
    /// Why it cannot be used.
    pub error: Option<String>,
}

/// A model, for the list.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// The pipeline that runs it.
    pub family: String,
    /// Licence of its weights.
    pub licence: String,
    /// Whether its files are there.
    pub installed: bool,
    /// What is known of it because it runs.
    pub running: Option<Running>,
}

/// A model that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Which files of that name: a digest of them.
    pub version: String,
    /// What computes, as in `cpu` or `cuda:0, cuda:1`.
    pub device: String,
    /// The type of computation, as in `bf16`.
    pub precision: String,
    /// The sizes that it was trained for, `[width, height]` in pixels.
    pub preferred_sizes: Vec<[u32; 2]>,
}

/// Whose request it is. Until there are accounts, that of the one owner of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub(super) OwnerId);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(OwnerId::LOCAL))
    }
}
