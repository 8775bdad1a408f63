//! What the name of a tensor in an adapter's file says: which program wrote it, which network and
//! layer it is for, and what it is there.
//!
//! Names are a prefix, a layer and a suffix, and each program has its own of the three. Any prefix
//! may stand with any suffix, as programs copy from each other.
//!
//! Reference: diffusers 0.42.1 `lora_conversion_utils.py`, ComfyUI `comfy/lora.py`.

/// What an adapter may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    Transformer,
    Clip,
    T5,
}

/// What a tensor is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// LoRA: [rank, inputs] and [outputs, rank].
    Down,
    Up,
    DownBias,
    UpBias,
    /// One number; over the rank it scales the product.
    Alpha,
    /// DoRA, of outputs or inputs.
    Magnitude,
    /// LoKr: a factor, or the two whose product it is.
    Kron1,
    Kron1A,
    Kron1B,
    Kron2,
    Kron2A,
    Kron2B,
    /// LoHa: two products, multiplied number by number.
    Hada1A,
    Hada1B,
    Hada2A,
    Hada2B,
    /// The difference itself [outputs, inputs], and that of the bias.
    Whole,
    WholeBias,
}

/// A name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub(super) family: &'static str,
    pub(super) network: Network,
    /// The layer, as this program calls it.
    pub(super) layer: &'a str,
    /// Whether the layer's name has underscores for points.
    pub(super) scored: bool,
    pub(super) role: Role,
}

/// Prefix, who writes it, what follows it, and whether with underscores. The longer ones come first.
const PREFIXES: &[(&str, &str, Network, bool)] = &[
    ("base_model.model.diffusion_model.", "peft", Network::Transformer, false),
    ("base_model.model.transformer.", "peft", Network::Transformer, false),
    ("base_model.model.", "peft", Network::Transformer, false),
    ("model.diffusion_model.", "comfyui", Network::Transformer, false),
    ("diffusion_model.", "comfyui", Network::Transformer, false),
    ("transformer.", "diffusers", Network::Transformer, false),
    ("lora_transformer_", "onetrainer", Network::Transformer, true),
    ("lora_unet_", "kohya", Network::Transformer, true),
    ("lycoris_", "lycoris", Network::Transformer, true),
    ("text_encoders.clip_l.transformer.", "comfyui", Network::Clip, false),
    ("text_encoder.", "diffusers", Network::Clip, false),
    ("lora_te1_", "kohya", Network::Clip, true),
    ("lora_te_", "kohya", Network::Clip, true),
    ("text_encoders.t5xxl.", "comfyui", Network::T5, false),
    ("text_encoder_2.", "diffusers", Network::T5, false),
    ("lora_te2_", "onetrainer", Network::T5, true),
    ("lora_te3_", "kohya", Network::T5, true),
];

/// Suffixes, of which none may end in a later one.
const SUFFIXES: &[(&str, Role)] = &[
    (".lora_A.weight", Role::Down),
    (".lora_A.default.weight", Role::Down),
    (".lora_down.weight", Role::Down),
    (".lora.down.weight", Role::Down),
    (".lora_linear_layer.down.weight", Role::Down),
    (".down.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_B.default.weight", Role::Up),
    (".lora_up.weight", Role::Up),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.up.weight", Role::Up),
    (".up.weight", Role::Up),
    (".lora_A.bias", Role::DownBias),
    (".lora_down.bias", Role::DownBias),
    (".lora_B.bias", Role::UpBias),
    (".lora_up.bias", Role::UpBias),
    (".alpha", Role::Alpha),
    (".dora_scale", Role::Magnitude),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    (".lora_magnitude_vector.default.weight", Role::Magnitude),
    (".lokr_w1", Role::Kron1),
    (".lokr_w1_a", Role::Kron1A),
    (".lokr_w1_b", Role::Kron1B),
    (".lokr_w2", Role::Kron2),
    (".lokr_w2_a", Role::Kron2A),
    (".lokr_w2_b", Role::Kron2B),
    (".hada_w1_a", Role::Hada1A),
    (".hada_w1_b", Role::Hada1B),
    (".hada_w2_a", Role::Hada2A),
    (".hada_w2_b", Role::Hada2B),
    (".diff", Role::Whole),
    (".diff_b", Role::WholeBias),
];

impl<'a> Key<'a> {
    /// Takes `name` apart; None where its suffix is not known. The layer may be any.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (layer, role) =
            SUFFIXES.iter().find_map(|&(suffix, role)| Some((name.strip_suffix(suffix)?, role)))?;
        let known = PREFIXES.iter().find_map(|&(prefix, family, network, scored)| {
            let layer = layer.strip_prefix(prefix)?;
            Some(Self { family, network, layer, scored, role })
        });
        let bare = if layer.contains("transformer_blocks.") { "diffusers" } else { "bfl" };
        let key = known.unwrap_or(Self {
            family: bare,
            network: Network::Transformer,
            layer,
            scored: false,
            role,
        });
        let xlabs = key.layer.contains(".processor.");
        Some(Self { family: if xlabs { "xlabs" } else { key.family }, ..key })
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, PREFIXES, Role, SUFFIXES};

    #[test]
    fn no_prefix_hides_a_later_one_and_no_suffix_an_earlier() {
        for (i, (prefix, ..)) in PREFIXES.iter().enumerate() {
            for (later, ..) in &PREFIXES[i + 1..] {
                assert!(!later.starts_with(prefix), "{prefix} hides {later}");
            }
        }
        for (i, (suffix, _)) in SUFFIXES.iter().enumerate() {
            for (later, _) in &SUFFIXES[i + 1..] {
                assert!(!later.ends_with(suffix), "{suffix} hides {later}");
            }
        }
    }

    #[test]
    fn a_name_is_taken_apart() {
        let key = Key::parse("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha").expect("a key");
        assert_eq!((key.family, key.layer), ("kohya", "text_model_encoder_layers_0_mlp_fc1"));
        let key = Key::parse("double_blocks.3.processor.qkv_lora2.up.weight").expect("a key");
        assert_eq!((key.family, key.role), ("xlabs", Role::Up));
        assert_eq!(Key::parse("double_blocks.3.img_attn.norm.query_norm.scale"), None);
    }
}
