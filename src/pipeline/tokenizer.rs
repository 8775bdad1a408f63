//! Prompts to token ids, padded to a fixed length as the text encoders were trained.
//!
//! A tokenizer is a `tokenizer.json`, or for CLIP the older pair `vocab.json` and `merges.txt`, or
//! for T5 the vocabulary inside a GGUF, from which the same thing is put together. What pads comes
//! from `tokenizer_config.json`.
//!
//! Reference: transformers 5.23.0, `padding="max_length", truncation=True`.

use crate::{
    domain::Prompt,
    model::{
        LoadError,
        weights::{ConfigFile, Vocabulary, Weights},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use std::path::Path;
use tokenizers::{Tokenizer, TruncationParams};

/// How CLIP splits a text into words; its special tokens stay whole.
const CLIP_WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const CLIP_START: &str = "<|startoftext|>";
const CLIP_END: &str = "<|endoftext|>";
/// A vocabulary file above this is none: the released ones have 1 to 2.5 MB.
const MAX_FILE: u64 = 64 << 20;

/// A tokenizer that pads.
#[derive(Debug)]
pub(super) struct PromptTokenizer {
    tokenizer: Tokenizer,
    pad: u32,
}

/// A prompt as ids.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    /// Exactly the asked-for length.
    pub(super) ids: Vec<u32>,
    /// Whether the prompt was longer and lost its end.
    pub(super) truncated: bool,
}

/// Why a prompt could not be turned into ids; never says anything of its text.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenizeError {
    #[error("a prompt of {length} tokens leaves no room for {marks} special tokens")]
    Short { length: usize, marks: usize },
    #[error("the tokenizer refused the prompt")]
    Failed,
}

impl PromptTokenizer {
    /// Reads the tokenizer in a folder, or a `tokenizer.json`.
    pub(super) fn open(at: &Path) -> Result<Self, LoadError> {
        let folder = if at.is_file() { at.parent().unwrap_or(at) } else { at };
        let whole = if at.is_file() { at.to_owned() } else { folder.join("tokenizer.json") };
        let vocabulary = folder.join("vocab.json");
        let (path, mut tokenizer) = if whole.is_file() {
            let tokenizer = build(&whole, &read(&whole)?)?;
            (whole, tokenizer)
        } else if vocabulary.is_file() {
            let spec = clip(folder, &vocabulary)?;
            let tokenizer = build(&vocabulary, spec.to_string().as_bytes())?;
            (vocabulary, tokenizer)
        } else {
            let reason = "no tokenizer.json here, nor vocab.json with merges.txt";
            return Err(wrong(folder, reason));
        };
        tokenizer.with_padding(None);
        let config = folder.join("tokenizer_config.json");
        if !config.is_file() {
            // T5's, or where there is no such token CLIP's.
            let pad = tokenizer.token_to_id("<pad>").or_else(|| tokenizer.token_to_id(CLIP_END));
            let pad = pad.ok_or_else(|| wrong(&path, "no tokenizer_config.json says what pads"))?;
            return Ok(Self { tokenizer, pad });
        }
        let config = ConfigFile::open(&config)?;
        // A plain string, or an object with the string inside.
        let token = match config.json().get("pad_token") {
            Some(Value::Object(object)) => object.get("content").and_then(Value::as_str),
            Some(value) => value.as_str(),
            None => None,
        };
        let token = token.ok_or_else(|| config.wrong("field pad_token is missing"))?;
        let pad = tokenizer
            .token_to_id(token)
            .ok_or_else(|| config.wrong(format!("pad_token is not in {}", path.display())))?;
        Ok(Self { tokenizer, pad })
    }

    /// The tokenizer inside T5's weights, which lie in `path`.
    pub(super) fn inside(weights: &Weights, path: &Path) -> Result<Self, LoadError> {
        let vocabulary = weights.vocabulary()?;
        let vocabulary = vocabulary.ok_or_else(|| Self::missing(path, "tokenizer_2"))?;
        let tokenizer = build(path, unigram(&vocabulary).to_string().as_bytes())?;
        Ok(Self { tokenizer, pad: vocabulary.pad })
    }

    /// That `component`, a tokenizer, is not there, and where to get it.
    pub(super) fn missing(path: &Path, component: &str) -> LoadError {
        let inside = match component {
            "tokenizer_2" => "; or take a T5 encoder of GGUF, which has its tokenizer inside",
            _ => "",
        };
        let reason = format!(
            "the model has no {component}: copy the folder {component} of \
             black-forest-labs/FLUX.1-Kontext-dev to it, and where it has a manifest, name it \
             there{inside}"
        );
        wrong(path, reason)
    }

    /// `length` ids of `prompt`: cut where it is longer, its end mark kept, padded where it is
    /// shorter.
    pub(super) fn encode(&mut self, prompt: &Prompt, length: usize) -> Result<Ids, TokenizeError> {
        use tokenizers::PostProcessor as _;
        let marks = self.tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(false));
        if length < marks {
            return Err(TokenizeError::Short { length, marks });
        }
        let truncation = TruncationParams { max_length: length, ..TruncationParams::default() };
        let failed = |_| TokenizeError::Failed; // the crate's error may quote the prompt
        self.tokenizer.with_truncation(Some(truncation)).map_err(failed)?;
        let encoding = self.tokenizer.encode(prompt.text(), true).map_err(failed)?;
        let mut ids = encoding.get_ids().to_vec();
        ids.resize(length, self.pad);
        Ok(Ids { ids, truncated: !encoding.get_overflowing().is_empty() })
    }
}

fn wrong(path: &Path, reason: impl Into<String>) -> LoadError {
    LoadError::Tokenizer { path: path.to_owned(), reason: reason.into() }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_FILE {
        return Err(wrong(path, format!("it has {size} bytes, at most {MAX_FILE} are read")));
    }
    std::fs::read(path).map_err(io)
}

fn build(path: &Path, spec: &[u8]) -> Result<Tokenizer, LoadError> {
    Tokenizer::from_bytes(spec).map_err(|error| wrong(path, format!("not a tokenizer: {error}")))
}

fn special(id: u64, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })
}

/// What `tokenizer.json` would hold for a vocabulary of T5, as transformers converts it.
fn unigram(vocabulary: &Vocabulary) -> Value {
    let token =
        |id: u32| vocabulary.tokens.get(id as usize).map_or("", |(token, _)| token.as_str());
    let whole = vocabulary.special.iter().map(|&id| special(id.into(), token(id)));
    let end = token(vocabulary.end);
    let mark = json!({ "SpecialToken": { "id": end, "type_id": 0 } });
    let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let normalizer = match &vocabulary.charsmap {
        Some(map) => json!({ "type": "Precompiled", "precompiled_charsmap": BASE64.encode(map) }),
        None => json!({ "type": "NFKC" }),
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": whole.collect::<Vec<_>>(),
        "normalizer": normalizer,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "WhitespaceSplit" },
            { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true },
        ] },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [text("A"), mark],
            "pair": [text("A"), mark, text("B"), mark],
            "special_tokens": { end: { "id": end, "ids": [vocabulary.end], "tokens": [end] } },
        },
        "decoder": null,
        "model": {
            "type": "Unigram", "unk_id": vocabulary.unknown, "byte_fallback": false,
            "vocab": vocabulary.tokens,
        },
    })
}

/// What `tokenizer.json` would hold for CLIP's two files.
fn clip(folder: &Path, vocabulary: &Path) -> Result<Value, LoadError> {
    let vocab: serde_json::Map<String, Value> = serde_json::from_slice(&read(vocabulary)?)
        .map_err(|error| wrong(vocabulary, format!("not a vocabulary: {error}")))?;
    let id = |token: &str| {
        let id = vocab.get(token).and_then(Value::as_u64);
        id.ok_or_else(|| wrong(vocabulary, format!("token {token} is missing")))
    };
    let (start, end) = (id(CLIP_START)?, id(CLIP_END)?);
    let path = folder.join("merges.txt");
    let text = String::from_utf8(read(&path)?).map_err(|_| wrong(&path, "not UTF-8 text"))?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("#version") || line.trim().is_empty() {
            continue;
        }
        let pair = line.split_once(' ').filter(|(_, b)| !b.contains(' '));
        let (a, b) = pair.ok_or_else(|| {
            wrong(&path, format!("line {} is not two tokens with a space between", number + 1))
        })?;
        merges.push(json!([a, b]));
    }
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(start, CLIP_START), special(end, CLIP_END)],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": CLIP_WORDS }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "post_processor": {
            "type": "RobertaProcessing", "sep": [CLIP_END, end], "cls": [CLIP_START, start],
            "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": CLIP_END, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": merges,
        },
    }))
}
