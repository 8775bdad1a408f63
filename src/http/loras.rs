//! Adapters: the list of them, and how a request names some.

use super::{
    error::ErrorBody,
    params::NoParams,
    state::{App, Lora as Known},
};
use crate::{
    domain::{Lora as Wanted, ParamError},
    service::LoraUse as Kept,
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What a request should say instead of what it said.
pub(super) const EXPECTED: &str = "expected a list of {\"name\": ..., \"scale\": ...}";

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(loras))
}

/// An adapter that a request names, and its strength.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoraUse {
    /// Its name, of `/api/loras`.
    #[schema(example = "watercolour")]
    name: String,
    /// Its strength, from -10 to 10: 1 is as it was trained, 0 is off.
    #[serde(default = "one")]
    #[schema(default = 1.0, minimum = -10, maximum = 10)]
    scale: f32,
}

fn one() -> f32 {
    1.0
}

/// The adapters of this server.
#[derive(Debug, Serialize, ToSchema)]
struct LoraList {
    /// By name.
    loras: Vec<Lora>,
}

/// An adapter: a file that changes how the model works.
#[derive(Debug, Serialize, ToSchema)]
struct Lora {
    /// What to send as a `name` in `loras`.
    #[schema(example = "watercolour")]
    name: String,
    /// Bytes of its file.
    bytes: u64,
    /// Programs that name layers as it does, as `diffusers` or `kohya`.
    families: Vec<&'static str>,
    /// What it consists of: `lora`, `dora`, `lokr`, `loha` or `full`.
    kinds: Vec<&'static str>,
    /// The highest rank of its matrices; 0 where they have none.
    rank: usize,
    /// Why it cannot be used with the model that runs; null where it can.
    #[schema(required = true)]
    error: Option<String>,
}

impl From<Known> for Lora {
    fn from(known: Known) -> Self {
        let Known { name, bytes, families, kinds, rank, error } = known;
        Self { name, bytes, families, kinds, rank, error }
    }
}

impl From<&Kept> for LoraUse {
    fn from(kept: &Kept) -> Self {
        Self { name: kept.name.clone(), scale: kept.scale }
    }
}

impl LoraUse {
    /// The adapter, if name and strength can be one's.
    pub(super) fn check(self) -> Result<Wanted, ParamError> {
        let lora = Wanted { name: self.name, scale: self.scale };
        lora.validate()?;
        Ok(lora)
    }
}

/// The adapters that a field of a form names: one as `NAME` or `NAME=SCALE`, or a list as in JSON.
pub(super) fn written(text: &str) -> Result<Vec<Wanted>, ParamError> {
    if !text.starts_with('[') {
        return Ok(vec![text.parse()?]);
    }
    let list: Vec<LoraUse> = serde_json::from_str(text)
        .map_err(|_| ParamError::new("loras", "not that list", EXPECTED))?;
    list.into_iter().map(LoraUse::check).collect()
}

/// List LoRAs
///
/// The adapters that a request may name in `loras`: files that change how the model works. New ones
/// are there as soon as the operator has put them into the folder.
#[utoipa::path(
    get,
    path = "/api/loras",
    operation_id = "list_loras",
    tag = "server",
    responses(
        (status = 200, description = "The LoRAs.", body = LoraList),
        (status = 422, description = "`unknown_field`.", body = ErrorBody),
    ),
)]
async fn loras(State(app): State<App>, _: NoParams) -> Json<LoraList> {
    // It reads a folder, and the headers of files that are new in it.
    let list = Arc::clone(&app.loras.0);
    let known = tokio::task::spawn_blocking(move || list()).await.unwrap_or_default();
    Json(LoraList { loras: known.into_iter().map(Lora::from).collect() })
}
