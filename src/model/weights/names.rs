//! The names of tensors: every other writer's to those of diffusers and transformers.
//!
//! One table holds all of them. Where a writer keeps several matrices as one (Black Forest Labs'
//! qkv and linear1), a name stands for some of its rows: the same bytes, cut.
//!
//! Sources: diffusers 0.42.1 `convert_flux_transformer_checkpoint_to_diffusers` and
//! `convert_ldm_vae_checkpoint`, gguf-py 0.19.0 `TENSOR_NAMES` of T5ENCODER, ComfyUI's checkpoints.

use super::source::Part;
use std::collections::BTreeSet;

/// Which rows of a tensor a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// From the first number to the second, in equal parts of which there are the third.
    Of(usize, usize, usize),
    /// All, the second half before the first.
    Swapped,
    /// All; a convolution of one pixel becomes a matrix.
    Matrix,
}

const ALL: Rows = Rows::Of(0, 1, 1);

/// A layer in the file and what it holds. `*` is any one part of a name between dots.
type Row = (&'static str, &'static [(&'static str, Rows)]);

/// Black Forest Labs' FLUX.
const FLUX: &[Row] = &[
    ("img_in", &[("x_embedder", ALL)]),
    ("txt_in", &[("context_embedder", ALL)]),
    ("time_in.in_layer", &[("time_text_embed.timestep_embedder.linear_1", ALL)]),
    ("time_in.out_layer", &[("time_text_embed.timestep_embedder.linear_2", ALL)]),
    ("guidance_in.in_layer", &[("time_text_embed.guidance_embedder.linear_1", ALL)]),
    ("guidance_in.out_layer", &[("time_text_embed.guidance_embedder.linear_2", ALL)]),
    ("vector_in.in_layer", &[("time_text_embed.text_embedder.linear_1", ALL)]),
    ("vector_in.out_layer", &[("time_text_embed.text_embedder.linear_2", ALL)]),
    ("double_blocks.*.img_mod.lin", &[("transformer_blocks.*.norm1.linear", ALL)]),
    ("double_blocks.*.txt_mod.lin", &[("transformer_blocks.*.norm1_context.linear", ALL)]),
    (
        "double_blocks.*.img_attn.qkv",
        &[
            ("transformer_blocks.*.attn.to_q", Rows::Of(0, 1, 3)),
            ("transformer_blocks.*.attn.to_k", Rows::Of(1, 2, 3)),
            ("transformer_blocks.*.attn.to_v", Rows::Of(2, 3, 3)),
        ],
    ),
    (
        "double_blocks.*.txt_attn.qkv",
        &[
            ("transformer_blocks.*.attn.add_q_proj", Rows::Of(0, 1, 3)),
            ("transformer_blocks.*.attn.add_k_proj", Rows::Of(1, 2, 3)),
            ("transformer_blocks.*.attn.add_v_proj", Rows::Of(2, 3, 3)),
        ],
    ),
    ("double_blocks.*.img_attn.norm.query_norm", &[("transformer_blocks.*.attn.norm_q", ALL)]),
    ("double_blocks.*.img_attn.norm.key_norm", &[("transformer_blocks.*.attn.norm_k", ALL)]),
    (
        "double_blocks.*.txt_attn.norm.query_norm",
        &[("transformer_blocks.*.attn.norm_added_q", ALL)],
    ),
    ("double_blocks.*.txt_attn.norm.key_norm", &[("transformer_blocks.*.attn.norm_added_k", ALL)]),
    ("double_blocks.*.img_attn.proj", &[("transformer_blocks.*.attn.to_out.0", ALL)]),
    ("double_blocks.*.txt_attn.proj", &[("transformer_blocks.*.attn.to_add_out", ALL)]),
    ("double_blocks.*.img_mlp.0", &[("transformer_blocks.*.ff.net.0.proj", ALL)]),
    ("double_blocks.*.img_mlp.2", &[("transformer_blocks.*.ff.net.2", ALL)]),
    ("double_blocks.*.txt_mlp.0", &[("transformer_blocks.*.ff_context.net.0.proj", ALL)]),
    ("double_blocks.*.txt_mlp.2", &[("transformer_blocks.*.ff_context.net.2", ALL)]),
    ("single_blocks.*.modulation.lin", &[("single_transformer_blocks.*.norm.linear", ALL)]),
    (
        // q, k and v of the model's width, and the feed-forward's input of four times that
        "single_blocks.*.linear1",
        &[
            ("single_transformer_blocks.*.attn.to_q", Rows::Of(0, 1, 7)),
            ("single_transformer_blocks.*.attn.to_k", Rows::Of(1, 2, 7)),
            ("single_transformer_blocks.*.attn.to_v", Rows::Of(2, 3, 7)),
            ("single_transformer_blocks.*.proj_mlp", Rows::Of(3, 7, 7)),
        ],
    ),
    ("single_blocks.*.linear2", &[("single_transformer_blocks.*.proj_out", ALL)]),
    ("single_blocks.*.norm.query_norm", &[("single_transformer_blocks.*.attn.norm_q", ALL)]),
    ("single_blocks.*.norm.key_norm", &[("single_transformer_blocks.*.attn.norm_k", ALL)]),
    // shift and scale there, scale and shift here
    ("final_layer.adaLN_modulation.1", &[("norm_out.linear", Rows::Swapped)]),
    ("final_layer.linear", &[("proj_out", ALL)]),
];

/// llama.cpp's T5 encoder.
const T5: &[Row] = &[
    ("token_embd", &[("shared", ALL)]),
    ("enc.blk.*.attn_norm", &[("encoder.block.*.layer.0.layer_norm", ALL)]),
    ("enc.blk.*.attn_q", &[("encoder.block.*.layer.0.SelfAttention.q", ALL)]),
    ("enc.blk.*.attn_k", &[("encoder.block.*.layer.0.SelfAttention.k", ALL)]),
    ("enc.blk.*.attn_v", &[("encoder.block.*.layer.0.SelfAttention.v", ALL)]),
    ("enc.blk.*.attn_o", &[("encoder.block.*.layer.0.SelfAttention.o", ALL)]),
    (
        "enc.blk.*.attn_rel_b",
        &[("encoder.block.*.layer.0.SelfAttention.relative_attention_bias", ALL)],
    ),
    ("enc.blk.*.ffn_norm", &[("encoder.block.*.layer.1.layer_norm", ALL)]),
    ("enc.blk.*.ffn_gate", &[("encoder.block.*.layer.1.DenseReluDense.wi_0", ALL)]),
    ("enc.blk.*.ffn_up", &[("encoder.block.*.layer.1.DenseReluDense.wi_1", ALL)]),
    ("enc.blk.*.ffn_down", &[("encoder.block.*.layer.1.DenseReluDense.wo", ALL)]),
    ("enc.output_norm", &[("encoder.final_layer_norm", ALL)]),
];

/// The latent diffusion models' autoencoder. `^` is a level, which is counted from the other end here.
const VAE: &[Row] = &[
    ("*.conv_in", &[("*.conv_in", ALL)]),
    ("*.norm_out", &[("*.conv_norm_out", ALL)]),
    ("*.conv_out", &[("*.conv_out", ALL)]),
    ("*.down.*.downsample.conv", &[("*.down_blocks.*.downsamplers.0.conv", ALL)]),
    ("*.down.*.block.*.nin_shortcut", &[("*.down_blocks.*.resnets.*.conv_shortcut", ALL)]),
    ("*.down.*.block.*.*", &[("*.down_blocks.*.resnets.*.*", ALL)]),
    ("*.up.^.upsample.conv", &[("*.up_blocks.^.upsamplers.0.conv", ALL)]),
    ("*.up.^.block.*.nin_shortcut", &[("*.up_blocks.^.resnets.*.conv_shortcut", ALL)]),
    ("*.up.^.block.*.*", &[("*.up_blocks.^.resnets.*.*", ALL)]),
    ("*.mid.block_1.*", &[("*.mid_block.resnets.0.*", ALL)]),
    ("*.mid.block_2.*", &[("*.mid_block.resnets.1.*", ALL)]),
    ("*.mid.attn_1.norm", &[("*.mid_block.attentions.0.group_norm", ALL)]),
    ("*.mid.attn_1.q", &[("*.mid_block.attentions.0.to_q", Rows::Matrix)]),
    ("*.mid.attn_1.k", &[("*.mid_block.attentions.0.to_k", Rows::Matrix)]),
    ("*.mid.attn_1.v", &[("*.mid_block.attentions.0.to_v", Rows::Matrix)]),
    ("*.mid.attn_1.proj_out", &[("*.mid_block.attentions.0.to_out.0", Rows::Matrix)]),
];

/// What there is of a part that its model has no place for: other writers' rests.
const UNUSED: &[(Part, &[&str])] = &[
    (Part::Clip, &["text_projection.weight", "logit_scale"]),
    (Part::T5, &["logit_scale", "spiece_model", "lm_head.weight", "output.weight"]),
];

/// Prefixes that checkpoints with several parts give a part's names.
const PREFIXES: &[(Part, &[&str])] = &[
    (Part::Transformer, &["model.diffusion_model.", "diffusion_model.", "transformer."]),
    (Part::Vae, &["vae.", "first_stage_model."]),
    (Part::Clip, &["text_encoders.clip_l.transformer.", "text_encoders.clip_l.", "clip_l."]),
    (Part::T5, &["text_encoders.t5xxl.transformer.", "text_encoders.t5xxl.", "t5xxl."]),
];

/// Layers that tell a part, and the table of names where they are not diffusers' own.
const SIGNS: &[(Part, &str, &[Row])] = &[
    (Part::Transformer, "transformer_blocks.0.attn.to_q.weight", &[]),
    (Part::Transformer, "double_blocks.0.img_attn.qkv.weight", FLUX),
    (Part::Vae, "decoder.mid_block.resnets.0.conv1.weight", &[]),
    (Part::Vae, "decoder.mid.block_1.conv1.weight", VAE),
    (Part::Clip, "text_model.encoder.layers.0.self_attn.q_proj.weight", &[]),
    (Part::Clip, "encoder.layers.0.self_attn.q_proj.weight", &[]),
    (Part::T5, "encoder.block.0.layer.0.SelfAttention.q.weight", &[]),
    (Part::T5, "enc.blk.0.attn_q.weight", T5),
];

/// How a file names one part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naming {
    pub(super) part: Part,
    prefix: &'static str,
    table: &'static [Row],
    /// Levels of the autoencoder's decoder.
    levels: usize,
}

/// A name here, and what it stands for in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) rows: Rows,
}

/// The parts that a file with these names holds.
pub(super) fn parts<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Naming> {
    let names: BTreeSet<&str> = names.collect();
    let mut found: Vec<Naming> = Vec::new();
    for &(part, sign, table) in SIGNS {
        let prefixes = PREFIXES.iter().find(|(of, _)| *of == part).map_or(&[][..], |(_, p)| p);
        let mut prefixes = prefixes.iter().copied().chain([""]);
        let known = found.iter().any(|naming| naming.part == part);
        let full = |prefix: &&str| names.contains(format!("{prefix}{sign}").as_str());
        if let Some(prefix) = prefixes.find(full).filter(|_| !known) {
            let level = |name: &&&str| name.starts_with(&format!("{prefix}decoder.up."));
            let levels = names.iter().filter(level).filter_map(|name| {
                name.get(prefix.len() + "decoder.up.".len()..)?.split('.').next()
            });
            let levels = levels.collect::<BTreeSet<_>>().len();
            found.push(Naming { part, prefix, table, levels });
        }
    }
    found
}

impl Naming {
    /// The names of a part in its own folder, whose names are diffusers' whatever is missing.
    pub(super) fn own(part: Part) -> Self {
        Self { part, prefix: "", table: &[], levels: 0 }
    }

    /// The name without the prefix, or nothing where it is another part's.
    pub(super) fn strip<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.prefix)
    }

    /// Whether every name in the file is this part's.
    pub(super) fn is_bare(&self) -> bool {
        self.prefix.is_empty()
    }

    /// Whether nobody will ask for the tensor, whose name has lost its prefix.
    pub(super) fn unused(&self, name: &str) -> bool {
        let listed = UNUSED.iter().find(|(part, _)| *part == self.part);
        let decoder =
            self.part == Part::T5 && ["decoder.", "dec."].iter().any(|d| name.starts_with(d));
        decoder || listed.is_some_and(|(_, names)| names.contains(&name))
    }

    /// What the tensor, whose name has lost its prefix, is called here. A name that is in no table
    /// stays as it is.
    pub(super) fn translate(&self, name: &str) -> Vec<Named> {
        let own = || vec![Named { name: name.to_owned(), rows: ALL }];
        let Some((layer, tensor)) = name.rsplit_once('.') else { return own() };
        let tensor = if tensor == "scale" { "weight" } else { tensor };
        let row = self.table.iter().find_map(|(from, to)| Some((*to, self.captures(layer, from)?)));
        let Some((to, captures)) = row else { return own() };
        let name = |pattern: &str| {
            let mut captures = captures.iter();
            let segments = pattern.split('.').map(|segment| match segment {
                "*" | "^" => captures.next().map_or("", String::as_str),
                plain => plain,
            });
            segments.chain([tensor]).collect::<Vec<_>>().join(".")
        };
        to.iter().map(|(pattern, rows)| Named { name: name(pattern), rows: *rows }).collect()
    }

    /// What the wildcards of `pattern` stand for in `layer`, if it is such a layer.
    fn captures(&self, layer: &str, pattern: &str) -> Option<Vec<String>> {
        let mut captures = Vec::new();
        let mut segments = layer.split('.');
        for wanted in pattern.split('.') {
            let found = segments.next()?;
            match wanted {
                "*" => captures.push(found.to_owned()),
                "^" => {
                    let level = found.parse::<usize>().ok()?;
                    captures.push(self.levels.checked_sub(level.checked_add(1)?)?.to_string());
                }
                plain if plain != found => return None,
                _ => {}
            }
        }
        segments.next().is_none().then_some(captures)
    }
}
