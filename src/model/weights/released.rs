//! The configuration of a part that comes as a file: the released model's, with the sizes that the
//! tensors have.
//!
//! What no shape tells is as in the released model, and where another size makes that doubtful it is
//! an error: a wrong number of heads would give a picture, and a wrong one.

use super::{config::ConfigFile, files::Files, source::Part};
use crate::model::error::LoadError;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path};

/// The configurations of the released FLUX.1-Kontext-dev, by part.
const RELEASED: &str = include_str!("../../../models/flux1-kontext-dev.json");

/// The released model's configuration of `part`, or of its `scheduler`; errors name `path`.
///
/// # Errors
/// None in a build whose tests passed: the text is part of the program.
pub(super) fn released(path: &Path, part: &str) -> Result<ConfigFile, LoadError> {
    let wrong = || LoadError::Config {
        path: path.to_owned(),
        reason: format!("there is no released configuration of {part}"),
    };
    let all: Value = serde_json::from_str(RELEASED).map_err(|_| wrong())?;
    Ok(ConfigFile::new(path, all.get(part).ok_or_else(wrong)?.clone()))
}

/// The configuration that the tensors of `part` imply.
pub(super) fn implied(part: Part, files: &Files) -> Result<ConfigFile, LoadError> {
    let released = released(files.path(), part.name())?;
    let shapes = Shapes { files, released: &released };
    let sizes = match part {
        Part::Transformer => shapes.transformer(),
        Part::Vae => shapes.vae(),
        Part::Clip => shapes.clip(),
        Part::T5 => shapes.t5(),
    }?;
    let mut config = released.json().clone();
    if let (Some(config), Value::Object(sizes)) = (config.as_object_mut(), sizes) {
        config.extend(sizes);
    }
    Ok(ConfigFile::new(files.path(), config))
}

struct Shapes<'a> {
    files: &'a Files,
    released: &'a ConfigFile,
}

impl Shapes<'_> {
    /// The size of a tensor along `axis`.
    fn size(&self, tensor: &str, axis: usize) -> Result<usize, LoadError> {
        let size = self.files.get(tensor).and_then(|entry| entry.shape.get(axis)).copied();
        size.filter(|&size| size > 0).ok_or_else(|| LoadError::Missing {
            path: self.files.path().to_owned(),
            tensor: tensor.to_owned(),
            expected: Vec::new(),
        })
    }

    fn has(&self, tensor: &str) -> bool {
        self.files.get(tensor).is_some()
    }

    /// How many blocks follow `prefix`, counted from 0 without a gap.
    fn blocks(&self, prefix: &str) -> usize {
        let number = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse().ok();
        let numbers: BTreeSet<usize> = self.files.names().filter_map(number).collect();
        (0..).take_while(|n| numbers.contains(n)).count()
    }

    fn untold(&self, field: &str) -> LoadError {
        self.released.wrong(format!(
            "no tensor tells field {field} of a model of this size: give its config.json in the \
             manifest, with config = \"...\" beside path"
        ))
    }

    fn transformer(&self) -> Result<Value, LoadError> {
        let inner = self.size("x_embedder.weight", 0)?;
        let head = self.size("transformer_blocks.0.attn.norm_q.weight", 0)?;
        if self.released.size("attention_head_dim")? != head {
            return Err(self.untold("axes_dims_rope"));
        }
        Ok(json!({
            "in_channels": self.size("x_embedder.weight", 1)?,
            "out_channels": self.size("proj_out.weight", 0)?,
            "num_layers": self.blocks("transformer_blocks."),
            "num_single_layers": self.blocks("single_transformer_blocks."),
            "num_attention_heads": inner / head,
            "joint_attention_dim": self.size("context_embedder.weight", 1)?,
            "pooled_projection_dim":
                self.size("time_text_embed.text_embedder.linear_1.weight", 1)?,
            "guidance_embeds": self.has("time_text_embed.guidance_embedder.linear_1.weight"),
        }))
    }

    fn vae(&self) -> Result<Value, LoadError> {
        let levels = self.blocks("encoder.down_blocks.");
        let channels = (0..levels).map(|level| {
            self.size(&format!("encoder.down_blocks.{level}.resnets.0.conv1.weight"), 0)
        });
        let channels = channels.collect::<Result<Vec<_>, _>>()?;
        let groups = self.released.size("norm_num_groups")?;
        if channels.iter().any(|c| c % groups != 0) {
            return Err(self.untold("norm_num_groups"));
        }
        Ok(json!({
            "block_out_channels": channels,
            "layers_per_block": self.blocks("encoder.down_blocks.0.resnets."),
            "latent_channels": self.size("decoder.conv_in.weight", 1)?,
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "mid_block_add_attention": self.has("decoder.mid_block.attentions.0.to_q.weight"),
            "use_quant_conv": self.has("quant_conv.weight"),
            "sample_size": 1024,
            "use_post_quant_conv": self.has("post_quant_conv.weight"),
        }))
    }

    fn clip(&self) -> Result<Value, LoadError> {
        let nested = self.has("text_model.embeddings.token_embedding.weight");
        let prefix = if nested { "text_model." } else { "" };
        let name = |tensor: &str| format!("{prefix}{tensor}");
        let hidden = self.size(&name("embeddings.token_embedding.weight"), 1)?;
        // Heads leave no trace. Only the released width is known to have the released number.
        if self.released.size("hidden_size")? != hidden {
            return Err(self.untold("num_attention_heads"));
        }
        Ok(json!({
            "vocab_size": self.size(&name("embeddings.token_embedding.weight"), 0)?,
            "max_position_embeddings":
                self.size(&name("embeddings.position_embedding.weight"), 0)?,
            "num_hidden_layers": self.blocks(&name("encoder.layers.")),
            "intermediate_size": self.size(&name("encoder.layers.0.mlp.fc1.weight"), 0)?,
        }))
    }

    fn t5(&self) -> Result<Value, LoadError> {
        let block = "encoder.block.0.layer";
        let bias = format!("{block}.0.SelfAttention.relative_attention_bias.weight");
        let heads = self.size(&bias, 1)?;
        Ok(json!({
            "vocab_size": self.size("shared.weight", 0)?,
            "d_model": self.size("shared.weight", 1)?,
            "d_kv": self.size(&format!("{block}.0.SelfAttention.q.weight"), 0)? / heads,
            "d_ff": self.size(&format!("{block}.1.DenseReluDense.wi_0.weight"), 0)?,
            "num_layers": self.blocks("encoder.block."),
            "num_heads": heads,
            "relative_attention_num_buckets": self.size(&bias, 0)?,
        }))
    }
}
