#!/usr/bin/env python3
"""Passes of golden `wide`'s autoencoder in tiles, as diffusers 0.42.1 (torch 2.15.0) makes them with
`enable_tiling`: of a picture that is cut in both directions, and of two that are cut in one. Some last
tiles are smaller than the overlap.

    pip install torch diffusers safetensors
    python tests/golden/make_tiles.py
"""
import pathlib

import diffusers
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
SIZES = [(112, 72), (96, 56), (64, 104)]  # width, height; a tile is 64 pixels


@torch.no_grad()
def main():
    vae = AutoencoderKL.from_pretrained(HERE / "models/wide/model/vae", torch_dtype=torch.float32)
    vae.enable_tiling()
    config, gen, out = vae.config, torch.Generator().manual_seed(5), {}
    for width, height in SIZES:
        name = f"{width}x{height}"
        small = torch.randn(1, 3, height // 8, width // 8, generator=gen)
        picture = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(-1, 1)
        mean = vae.encode(picture).latent_dist.mean
        latents = (mean - config.shift_factor) * config.scaling_factor
        decoded = vae.decode(latents / config.scaling_factor + config.shift_factor).sample
        # [h, w, c], as Darkroom has them
        for kind, tensor in (("picture", picture), ("latents", latents), ("decoded", decoded)):
            out[f"{name}.{kind}"] = tensor[0].permute(1, 2, 0).contiguous()
    note = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    save_file(out, HERE / "tiles.safetensors", metadata=note)


main()
