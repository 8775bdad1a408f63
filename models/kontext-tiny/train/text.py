"""Tokenizers and text encoders of kontext-tiny: the released model's kinds, made small and built from our own wordings.

The T5 side has a unigram (SentencePiece-like) tokenizer, the CLIP side byte-level BPE with "</w>" word ends. Both are
built from random training prompts and general sentences, always the same ones, and know every ASCII character.
"""
import json
import os
import random
import re

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from wordings import GENERAL, PHRASES, training_prompt

T5_LENGTH = 32
CLIP_LENGTH = 77


def corpus():
    rng = random.Random(1)
    prompts = [training_prompt(edit, rng) for edit in PHRASES for _ in range(800)]
    return [p.lower() for p in prompts] + GENERAL * 30


def t5_tokenizer(size=1600):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=[chr(c) for c in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def byte_alphabet():
    """The 256 characters that stand for the bytes in byte-level BPE (as in GPT-2 and CLIP)."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in keep] + [chr(256 + i) for i in range(256 - len(keep))]


def merge(word, pair):
    """Joins every occurrence of the pair of symbols in a word."""
    out, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def clip_tokenizer(folder, merges_count=1000):
    """Learns the merges and writes vocab.json and merges.txt into the folder."""
    alphabet = byte_alphabet()
    vocab, merges, words = alphabet + [c + "</w>" for c in alphabet], [], {}
    for line in corpus():
        for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", line):
            if word.isascii():
                key = tuple(word[:-1]) + (word[-1] + "</w>",)
                words[key] = words.get(key, 0) + 1
    for _ in range(merges_count):
        pairs = {}
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(" ".join(best))
        vocab.append("".join(best))
        words = {merge(word, best): count for word, count in words.items()}
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "vocab.json"), "w") as file:
        json.dump({token: i for i, token in enumerate(dict.fromkeys(vocab))}, file, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w") as file:
        file.write("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=CLIP_LENGTH)


def encoders(clip_tok, t5_tok):
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tok),
            d_model=96,
            d_kv=24,
            d_ff=192,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            tie_word_embeddings=False,
        )
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tok),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CLIP_LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=clip_tok.bos_token_id,
            eos_token_id=clip_tok.eos_token_id,
            pad_token_id=clip_tok.pad_token_id,
        )
    )
    return t5, clip


@torch.no_grad()
def take_over(new, new_tok, old, old_tok):
    """Copies an encoder's weights into one with another vocabulary: a token that the old one lacks begins as the mean
    of the pieces into which the old tokenizer cuts it."""
    old_vocab, weights = old_tok.get_vocab(), old.state_dict()
    for name, parameter in new.state_dict().items():
        if parameter.shape == weights[name].shape and parameter.shape[0] != len(new_tok):
            parameter.copy_(weights[name])
            continue
        for token, i in new_tok.get_vocab().items():
            if token in old_vocab:
                parameter[i] = weights[name][old_vocab[token]]
                continue
            text = token.replace("▁", " ").replace("</w>", " ").strip()
            pieces = old_tok(text, add_special_tokens=False).input_ids
            if pieces:
                parameter[i] = weights[name][pieces].mean(0)


def encode(t5, t5_tok, clip, clip_tok, prompts):
    """Prompts to (T5's hidden states, CLIP's pooled state), as the diffusers pipeline makes them."""
    options = dict(padding="max_length", truncation=True, return_tensors="pt")
    long = t5_tok(prompts, max_length=T5_LENGTH, **options).input_ids
    short = clip_tok(prompts, max_length=CLIP_LENGTH, **options).input_ids
    return t5(input_ids=long).last_hidden_state, clip(input_ids=short).pooler_output
