#!/usr/bin/env python3
"""A model of the released one's full size, with random weights: 19 + 38 blocks of width 3072, T5-XXL,
CLIP-L and the VAE at full width. It shows memory and speed, not pictures.

    pip install torch diffusers transformers gguf
    python benches/full_size.py FOLDER [--transformer Q4_K] [--t5 Q8_0]

Writes FOLDER.toml beside FOLDER: transformer and T5 as GGUF files with the names that the released
ones have, CLIP and VAE in bfloat16 as folders. The tokenizers are those of kontext-tiny.
"""
import argparse
import pathlib
import re
import shutil
import warnings

import gguf
import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from gguf import GGMLQuantizationType as Type
from transformers import CLIPTextConfig, CLIPTextModel

HERE = pathlib.Path(__file__).resolve().parent.parent
WIDTH, HEAD, DOUBLE, SINGLE = 3072, 128, 19, 38
T5_WIDTH, T5_INNER, T5_BLOCKS, T5_HEADS, T5_WORDS = 4096, 10240, 24, 64, 32128
rng = np.random.Generator(np.random.SFC64(0))


def linear(rows, columns, kind, gain=1.0):
    """Random blocks of a matrix whose products keep the size of their inputs."""
    std = gain / np.sqrt(columns)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)

    def half(at, value):
        data[:, :, at:at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)

    if kind == Type.Q8_0:  # d * q: q is uniform in -128..127
        half(0, std / 74)
    elif kind == Type.Q4_K:  # d * scale * q - dmin * min: scale, min are in 0..63, q in 0..15
        # The twelve bytes of scales and mins: all scales 32, all mins 60, so that d * 32 * 7.5 = dmin * 60.
        scales = np.full(8, 32, np.uint8)
        mins = np.full(8, 60, np.uint8)
        packed = np.zeros(12, np.uint8)
        packed[0:4] = (scales[:4] & 63) | ((scales[4:] >> 4) << 6)
        packed[4:8] = (mins[:4] & 63) | ((mins[4:] >> 4) << 6)
        packed[8:12] = (scales[4:] & 15) | ((mins[4:] & 15) << 4)
        d = std / (32 * 4.61)
        half(0, d)
        half(2, d * 4)
        data[:, :, 4:16] = packed
    else:
        raise SystemExit(f"{kind.name} is not one of Q8_0 and Q4_K")
    return data.reshape(rows, -1)


def transformer(path, kind):
    out = gguf.GGUFWriter(path, "flux", use_temp_file=False)
    out.add_quantization_version(2)
    tensors = {}

    def layer(name, columns, rows, kind=kind, gain=1.0):
        tensors[f"{name}.weight"] = (rows, columns, kind, gain)
        tensors[f"{name}.bias"] = (rows, None, None, 0.0)

    layer("img_in", 64, WIDTH, None)
    layer("txt_in", T5_WIDTH, WIDTH)
    for name, columns in (("time_in", 256), ("vector_in", 768), ("guidance_in", 256)):
        layer(f"{name}.in_layer", columns, WIDTH)
        layer(f"{name}.out_layer", WIDTH, WIDTH)
    for block in range(DOUBLE):
        for side in ("img", "txt"):
            at = f"double_blocks.{block}.{side}"
            layer(f"{at}_mod.lin", WIDTH, 6 * WIDTH, gain=0.3)
            layer(f"{at}_attn.qkv", WIDTH, 3 * WIDTH)
            layer(f"{at}_attn.proj", WIDTH, WIDTH, gain=0.5)
            layer(f"{at}_mlp.0", WIDTH, 4 * WIDTH)
            layer(f"{at}_mlp.2", 4 * WIDTH, WIDTH, gain=0.5)
            for norm in ("query_norm", "key_norm"):
                tensors[f"{at}_attn.norm.{norm}.scale"] = (HEAD, None, None, 1.0)
    for block in range(SINGLE):
        at = f"single_blocks.{block}"
        layer(f"{at}.modulation.lin", WIDTH, 3 * WIDTH, gain=0.3)
        layer(f"{at}.linear1", WIDTH, 7 * WIDTH)
        layer(f"{at}.linear2", 5 * WIDTH, WIDTH, gain=0.5)
        for norm in ("query_norm", "key_norm"):
            tensors[f"{at}.norm.{norm}.scale"] = (HEAD, None, None, 1.0)
    layer("final_layer.adaLN_modulation.1", WIDTH, 2 * WIDTH, gain=0.3)
    layer("final_layer.linear", WIDTH, 64, None)
    write(out, tensors)


def t5(path, kind):
    out = gguf.GGUFWriter(path, "t5encoder", use_temp_file=False)
    out.add_quantization_version(2)
    out.add_block_count(T5_BLOCKS)
    out.add_embedding_length(T5_WIDTH)
    out.add_feed_forward_length(T5_INNER)
    out.add_head_count(T5_HEADS)
    out.add_key_length(64)
    out.add_value_length(64)
    out.add_relative_attn_buckets_count(32)
    out.add_layer_norm_rms_eps(1e-6)
    tensors = {"token_embd.weight": (T5_WORDS, T5_WIDTH, kind, 64.0)}
    tensors["enc.blk.0.attn_rel_b.weight"] = (32, T5_HEADS, None, 1.0)
    for block in range(T5_BLOCKS):
        at = f"enc.blk.{block}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_o"):
            tensors[f"{at}.{name}.weight"] = (T5_WIDTH, T5_WIDTH, kind, 0.1 if name == "attn_q" else 1.0)
        tensors[f"{at}.ffn_gate.weight"] = (T5_INNER, T5_WIDTH, kind, 1.0)
        tensors[f"{at}.ffn_up.weight"] = (T5_INNER, T5_WIDTH, kind, 1.0)
        tensors[f"{at}.ffn_down.weight"] = (T5_WIDTH, T5_INNER, kind, 1.0)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"{at}.{name}.weight"] = (T5_WIDTH, None, None, 1.0)
    tensors["enc.output_norm.weight"] = (T5_WIDTH, None, None, 1.0)
    write(out, tensors)


def write(out, tensors):
    """Headers first, then one tensor after another, so that no more than one is in memory."""
    for name, (rows, columns, kind, _) in tensors.items():
        if columns is None or kind is None:
            shape = (rows,) if columns is None else (rows, columns)
            out.add_tensor_info(name, shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
        else:
            block, size = gguf.GGML_QUANT_SIZES[kind]
            shape = (rows, columns // block * size)
            out.add_tensor_info(name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_ti_data_to_file()
    for rows, columns, kind, gain in tensors.values():
        if columns is None:
            data = np.full(rows, gain, np.float32)
        elif kind is None:
            data = rng.standard_normal((rows, columns), np.float32) * np.float32(gain / np.sqrt(columns))
        else:
            data = linear(rows, columns, kind, gain)
        out.write_tensor_data(data)
    out.close()


def rest(folder):
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16,
        norm_num_groups=32, sample_size=1024, scaling_factor=0.3611, shift_factor=0.1159,
        use_quant_conv=False, use_post_quant_conv=False)
    vae.to(torch.bfloat16).save_pretrained(folder / "vae")
    clip = CLIPTextModel(CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768))
    clip.to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256, base_shift=0.5, max_image_seq_len=4096, max_shift=1.15, shift=3.0,
        use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    tiny = HERE / "models/kontext-tiny"
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(tiny / name, folder / name, dirs_exist_ok=True)


def manifest(folder):
    """The released model's, with these files and references of the result's size."""
    text = (HERE / "models/flux1-kontext-dev.toml").read_text()
    text = text[:text.index("# Where `darkroom pull`")]
    text = text.replace('reference_size = "preferred"', 'reference_size = "output"')
    for part, file in (("transformer", "transformer.gguf"), ("text_encoder_2", "t5.gguf")):
        text = re.sub(rf"(?m)^{part} = .*$", f'{part} = {{ path = "{file}", format = "file" }}', text)
    folder.with_suffix(".toml").write_text(text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--transformer", default="Q4_K")
    parser.add_argument("--t5", default="Q8_0")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    args.folder.mkdir(parents=True, exist_ok=True)
    rest(args.folder)
    manifest(args.folder)
    t5(args.folder / "t5.gguf", Type[args.t5])
    transformer(args.folder / "transformer.gguf", Type[args.transformer])
    for path in sorted(args.folder.rglob("*")):
        if path.is_file() and path.stat().st_size > 1 << 20:
            print(f"{path.relative_to(args.folder)}: {path.stat().st_size / 2**30:.2f} GiB")


main()
