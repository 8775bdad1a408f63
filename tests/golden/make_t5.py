#!/usr/bin/env python3
"""Small T5 encoders and their embeddings, for tests/it/t5.rs: transformers 5.24.0, torch 2.15.0.

    python make_t5.py OUT

Writes OUT/NAME/{config.json, model.safetensors, golden.safetensors}: what the golden models of make_goldens.py have not,
all sizes different, both feed-forwards, both names of the table of embeddings, and half-precision weights.
golden.safetensors: ids.N i64 [N], and embeddings.N f32 [N, d_model] of the encoder with these weights in f32.
"""
import json, os, sys

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

LENGTHS = [1, 5, 60, 200]
ENCODERS = {
    "relu": (torch.float16, "shared.weight", dict(
        vocab_size=37, d_model=24, d_kv=8, num_heads=5, d_ff=56, num_layers=2, feed_forward_proj="relu",
        relative_attention_num_buckets=20, relative_attention_max_distance=40, layer_norm_epsilon=1e-3)),
    "gated": (torch.bfloat16, "encoder.embed_tokens.weight", dict(
        vocab_size=50, d_model=40, d_kv=20, num_heads=3, d_ff=44, num_layers=3, feed_forward_proj="gated-gelu")),
}

for seed, (name, (dtype, table, sizes)) in enumerate(ENCODERS.items()):
    torch.manual_seed(seed)
    model = T5EncoderModel(T5Config(**sizes)).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "norm" in key:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            elif "bias" in key or key == "shared.weight":
                p.copy_(1.5 * torch.randn_like(p))
            else:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
            p.copy_(p.to(dtype).float())
    folder = os.path.join(sys.argv[1], name)
    os.makedirs(folder, exist_ok=True)
    json.dump({**sizes, "model_type": "t5"}, open(os.path.join(folder, "config.json"), "w"), indent=1)
    weights = {key: p.to(dtype) for key, p in model.named_parameters()}
    weights[table] = weights.pop("shared.weight")
    save_file(weights, os.path.join(folder, "model.safetensors"))
    golden = {}
    for n in LENGTHS:
        ids = torch.randint(0, sizes["vocab_size"], (n,))
        with torch.no_grad():
            golden[f"embeddings.{n}"] = model(input_ids=ids[None]).last_hidden_state[0]
        golden[f"ids.{n}"] = ids
    save_file(golden, os.path.join(folder, "golden.safetensors"))
