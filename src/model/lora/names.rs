//! Which layers a name means: those of diffusers, Black Forest Labs and XLabs, with points or with
//! underscores between their parts.
//!
//! A layer of Black Forest Labs' may be several of diffusers', one below another, and the two halves
//! of the last modulation stand the other way round.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

/// The shapes [outputs, inputs] of a network's linear layers, by their names in diffusers.
pub type Layers = BTreeMap<String, [usize; 2]>;

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Outputs of all parts together.
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) parts: Vec<Part>,
}

/// A layer, and which rows of the place are its own, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) layer: String,
    pub(super) rows: Vec<Range<usize>>,
}

/// All names of a network's layers.
#[derive(Debug)]
pub(super) struct Names {
    places: HashMap<String, Place>,
    /// The names with underscores for points.
    scored: HashMap<String, String>,
}

type Table = &'static [(&'static str, &'static [&'static str])];

const QKV: &[&str] = &["attn.to_q", "attn.to_k", "attn.to_v"];
const ADDED_QKV: &[&str] = &["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"];

/// Layers of a double block.
const DOUBLE: Table = &[
    ("img_mod.lin", &["norm1.linear"]),
    ("img_attn.qkv", QKV),
    ("img_attn.proj", &["attn.to_out.0"]),
    ("img_mlp.0", &["ff.net.0.proj"]),
    ("img_mlp.2", &["ff.net.2"]),
    ("txt_mod.lin", &["norm1_context.linear"]),
    ("txt_attn.qkv", ADDED_QKV),
    ("txt_attn.proj", &["attn.to_add_out"]),
    ("txt_mlp.0", &["ff_context.net.0.proj"]),
    ("txt_mlp.2", &["ff_context.net.2"]),
    ("processor.qkv_lora1", QKV),
    ("processor.proj_lora1", &["attn.to_out.0"]),
    ("processor.qkv_lora2", ADDED_QKV),
    ("processor.proj_lora2", &["attn.to_add_out"]),
];

/// Layers of a single block.
const SINGLE: Table = &[
    ("modulation.lin", &["norm.linear"]),
    ("linear1", &["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]),
    ("linear2", &["proj_out"]),
    ("processor.qkv_lora", QKV),
    ("processor.proj_lora", &["proj_out"]),
];

/// Layers outside the blocks.
const OUTSIDE: Table = &[
    ("img_in", &["x_embedder"]),
    ("txt_in", &["context_embedder"]),
    ("time_in.in_layer", &["time_text_embed.timestep_embedder.linear_1"]),
    ("time_in.out_layer", &["time_text_embed.timestep_embedder.linear_2"]),
    ("guidance_in.in_layer", &["time_text_embed.guidance_embedder.linear_1"]),
    ("guidance_in.out_layer", &["time_text_embed.guidance_embedder.linear_2"]),
    ("vector_in.in_layer", &["time_text_embed.text_embedder.linear_1"]),
    ("vector_in.out_layer", &["time_text_embed.text_embedder.linear_2"]),
    (LAST_MODULATION, &["norm_out.linear"]),
    ("final_layer.linear", &["proj_out"]),
];

/// Its rows are shift and scale; diffusers has scale and shift.
const LAST_MODULATION: &str = "final_layer.adaLN_modulation.1";

impl Names {
    /// The names of a transformer's layers.
    pub(super) fn of_transformer(layers: &Layers) -> Self {
        let mut names = Self::of(layers);
        names.add_table(layers, OUTSIDE, "", "");
        for (table, theirs, ours) in [
            (DOUBLE, "double_blocks", "transformer_blocks"),
            (SINGLE, "single_blocks", "single_transformer_blocks"),
        ] {
            let blocks = (0..).take_while(|i| {
                let block = format!("{ours}.{i}.");
                layers.range(block.clone()..).next().is_some_and(|(l, _)| l.starts_with(&block))
            });
            for i in blocks {
                names.add_table(layers, table, &format!("{theirs}.{i}."), &format!("{ours}.{i}."));
            }
        }
        names
    }

    /// The names of the layers of CLIP's text encoder, which some writers put one level down.
    pub(super) fn of_clip(layers: &Layers) -> Self {
        let mut names = Self::of(layers);
        for (layer, &shape) in layers {
            let other = match layer.strip_prefix("text_model.") {
                Some(rest) => rest.to_owned(),
                None => format!("text_model.{layer}"),
            };
            names.add(other, Place::whole(layer, shape));
        }
        names
    }

    fn of(layers: &Layers) -> Self {
        let mut names = Self { places: HashMap::new(), scored: HashMap::new() };
        for (layer, &shape) in layers {
            names.add(layer.clone(), Place::whole(layer, shape));
        }
        names
    }

    fn add(&mut self, name: String, place: Place) {
        self.scored.insert(name.replace('.', "_"), name.clone());
        self.places.insert(name, place);
    }

    /// Adds the names of a table whose layers are all there.
    fn add_table(&mut self, layers: &Layers, table: Table, theirs: &str, ours: &str) {
        for (name, parts) in table {
            let parts: Option<Vec<(String, [usize; 2])>> = parts
                .iter()
                .map(|part| layers.get_key_value(&format!("{ours}{part}")))
                .map(|layer| layer.map(|(name, &shape)| (name.clone(), shape)))
                .collect();
            let Some(mut place) = parts.and_then(Place::stacked) else { continue };
            if *name == LAST_MODULATION {
                let (half, all) = (place.outputs / 2, place.outputs);
                for part in &mut place.parts {
                    part.rows = vec![half..all, 0..half];
                }
            }
            self.add(format!("{theirs}{name}"), place);
        }
    }

    /// What `name` means, whose parts are joined by underscores if it is `scored`.
    pub(super) fn find(&self, name: &str, scored: bool) -> Option<&Place> {
        let name = if scored { self.scored.get(name)?.as_str() } else { name };
        self.places.get(name)
    }
}

impl Place {
    fn whole(layer: &str, [outputs, inputs]: [usize; 2]) -> Self {
        let part = Part { layer: layer.to_owned(), rows: std::iter::once(0..outputs).collect() };
        Self { outputs, inputs, parts: vec![part] }
    }

    /// Layers one below another; they must have the same inputs.
    fn stacked(layers: Vec<(String, [usize; 2])>) -> Option<Self> {
        let inputs = layers.first()?.1[1];
        let mut place = Self { outputs: 0, inputs, parts: Vec::new() };
        for (layer, [n, k]) in layers {
            let rows = std::iter::once(place.outputs..place.outputs + n).collect();
            place.outputs += n;
            place.parts.push(Part { layer, rows });
            if k != inputs {
                return None;
            }
        }
        Some(place)
    }
}
