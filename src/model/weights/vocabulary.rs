//! The vocabulary inside a GGUF of T5, as llama.cpp's converter writes it.
//!
//! Source: github.com/ggml-org/llama.cpp, convert_hf_to_gguf.py `T5Model.set_vocab`.

use super::header::Metadata;
use crate::model::error::LoadError;
use std::path::Path;

/// ggml's number for a control token, such as the end of a text.
const CONTROL: i32 = 3;
/// ggml's number for a token that is taken as a whole.
const USER_DEFINED: i32 = 4;
/// The most tokens that are read. T5 has 32,128.
const MAX_TOKENS: usize = 1 << 18;

/// A vocabulary of the unigram kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// Each token with its score, in the order of their ids.
    pub tokens: Vec<(String, f64)>,
    /// The ids of tokens that stand in no text, or only as a whole.
    pub special: Vec<u32>,
    /// The id of what is in no token.
    pub unknown: u32,
    /// The id that fills a text up.
    pub pad: u32,
    /// The id that ends a text.
    pub end: u32,
    /// How letters are brought to one form, as SentencePiece compiled it.
    pub charsmap: Option<Vec<u8>>,
}

impl Vocabulary {
    /// Reads the vocabulary in a file's metadata, if it has one.
    pub(super) fn read(
        path: &Path,
        file: &[u8],
        metadata: &Metadata,
    ) -> Result<Option<Self>, LoadError> {
        if metadata.get("tokenizer.ggml.model").is_none() {
            return Ok(None);
        }
        let wrong = |reason: &str| LoadError::Tokenizer {
            path: path.to_owned(),
            reason: format!("the tokenizer inside cannot be used: {reason}"),
        };
        if metadata.text("tokenizer.ggml.model", file) != Some("t5") {
            return Err(wrong("tokenizer.ggml.model is not \"t5\""));
        }
        let tokens = metadata.texts("tokenizer.ggml.tokens", MAX_TOKENS, file);
        let tokens = tokens.ok_or_else(|| wrong("tokenizer.ggml.tokens is no list of texts"))?;
        let scores = metadata.floats("tokenizer.ggml.scores", MAX_TOKENS, file);
        let scores = scores.filter(|s| s.len() == tokens.len() && s.iter().all(|s| s.is_finite()));
        let scores = scores.ok_or_else(|| wrong("tokenizer.ggml.scores has no score a token"))?;
        let kinds = metadata.integers("tokenizer.ggml.token_type", MAX_TOKENS, file);
        let kinds = kinds.filter(|kinds| kinds.len() == tokens.len());
        let kinds = kinds.ok_or_else(|| wrong("tokenizer.ggml.token_type has no type a token"))?;
        let id = |name: &str, otherwise: u32| {
            let id = match metadata.integer(&format!("tokenizer.ggml.{name}_token_id")) {
                Some(id) => u32::try_from(id).ok(),
                None => Some(otherwise),
            };
            let id = id.filter(|&id| (id as usize) < tokens.len());
            id.ok_or_else(|| wrong(&format!("tokenizer.ggml.{name}_token_id is no token")))
        };
        let (pad, end, unknown) = (id("padding", 0)?, id("eos", 1)?, id("unknown", 2)?);
        let whole = |kind: i32| kind == CONTROL || kind == USER_DEFINED;
        let special = (0u32..).zip(&kinds);
        let special = special.filter(|&(id, &kind)| whole(kind) || id == unknown);
        let special = special.map(|(id, _)| id).collect();
        let charsmap = metadata.bytes("tokenizer.ggml.precompiled_charsmap", file);
        let tokens = tokens.into_iter().map(ToOwned::to_owned);
        Ok(Some(Self {
            tokens: tokens.zip(scores.into_iter().map(f64::from)).collect(),
            special,
            unknown,
            pad,
            end,
            charsmap: charsmap.map(ToOwned::to_owned),
        }))
    }
}
