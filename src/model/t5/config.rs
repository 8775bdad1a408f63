//! The encoder's config.json: sizes, checked against each other.

use crate::model::{error::LoadError, weights::ConfigFile};

/// Sizes of a T5 encoder, named as in the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct T5Config {
    /// Ids that the encoder knows.
    pub vocab_size: usize,
    /// Width of the hidden state.
    pub d_model: usize,
    /// Size of a head.
    pub d_kv: usize,
    /// Width inside the feed-forward.
    pub d_ff: usize,
    /// Blocks.
    pub num_layers: usize,
    /// Heads.
    pub num_heads: usize,
    /// Kinds of distances that a head tells apart, half of them for each direction.
    pub relative_attention_num_buckets: usize,
    /// From this distance on, all are of one kind.
    pub relative_attention_max_distance: usize,
    /// What every normalisation adds to the mean square.
    pub layer_norm_epsilon: f64,
    /// Whether a gate stands in the feed-forward ("gated-gelu"); without one it is "relu".
    pub gated: bool,
}

impl T5Config {
    pub(crate) fn read(file: &ConfigFile) -> Result<Self, LoadError> {
        file.must_be("feed_forward_proj", &["gated-gelu", "relu"])?;
        let config = Self {
            vocab_size: file.size("vocab_size")?,
            d_model: file.size("d_model")?,
            d_kv: file.size("d_kv")?,
            d_ff: file.size("d_ff")?,
            num_layers: file.size("num_layers")?,
            num_heads: file.size("num_heads")?,
            relative_attention_num_buckets: file.size_or("relative_attention_num_buckets", 32)?,
            relative_attention_max_distance: file
                .size_or("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: file.number_or("layer_norm_epsilon", 1e-6)?,
            gated: file.json().get("feed_forward_proj").is_some_and(|kind| kind == "gated-gelu"),
        };
        let (buckets, farthest) =
            (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        if buckets < 4 || !buckets.is_multiple_of(2) {
            return Err(file.wrong(format!(
                "field relative_attention_num_buckets is {buckets}, expected an even number from 4"
            )));
        }
        if farthest <= buckets / 4 {
            return Err(file.wrong(format!(
                "field relative_attention_max_distance is {farthest}, expected more than a quarter \
                 of relative_attention_num_buckets = {buckets}"
            )));
        }
        Ok(config)
    }

    /// Width of all heads together.
    #[must_use]
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// The kind of a key's distance behind its query. Near ones are told apart one by one, the others
    /// by their logarithm.
    pub(super) fn bucket(&self, distance: isize) -> usize {
        let buckets = self.relative_attention_num_buckets / 2;
        let first = if distance > 0 { buckets } else { 0 };
        let (near, distance) = (buckets / 2, distance.unsigned_abs());
        if distance < near {
            return first + distance;
        }
        let log = |distance: usize| (distance as f64 / near as f64).ln();
        let part = log(distance) / log(self.relative_attention_max_distance);
        // A quotient of logarithms may fall short of a whole number that it should be.
        let further = part * (buckets - near) as f64 + 1e-6;
        first + (near + further as usize).min(buckets - 1)
    }
}
