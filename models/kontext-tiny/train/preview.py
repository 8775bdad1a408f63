"""Fits the linear map from latents to colours that serves for previews while the server computes.

Least squares over training photographs: from the 16 channels of the latents as the transformer sees them,
(z - shift_factor) * scaling_factor, to RGB in -1..1 of the picture shrunk to an eighth (means of 8 by 8 pixels). Prints
TOML: `matrix`, 16 rows of red, green, blue, and `bias`.
"""
import argparse
import random

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import edits
from data import Photos, to_tensor


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae", help="folder of the autoencoder")
    parser.add_argument("--photos", default="photos")
    parser.add_argument("--pictures", type=int, default=120)
    args = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32).eval()
    photos, rng = Photos(args.photos), random.Random(5)
    inputs, outputs = [], []
    for i in range(args.pictures):
        piece = photos.piece(rng, 192, 192)
        if i % 2:
            piece = edits.apply(rng.choice(edits.NAMES), piece)
        x = to_tensor(piece)[None]
        z = (vae.encode(x).latent_dist.mean - vae.config.shift_factor) * vae.config.scaling_factor
        inputs.append(z[0].flatten(1).T)
        outputs.append(F.avg_pool2d(x, 8)[0].flatten(1).T)
    inputs, outputs = torch.cat(inputs), torch.cat(outputs)
    ones = torch.ones(len(inputs), 1)
    solution = torch.linalg.lstsq(torch.cat([inputs, ones], 1), outputs).solution
    error = (torch.cat([inputs, ones], 1) @ solution - outputs).pow(2).mean().sqrt()
    print(f"# root mean square error {error:.3f} of the range -1..1")
    print("matrix = [")
    for row in solution[:-1].tolist():
        print("    [" + ", ".join(f"{v:.5f}" for v in row) + "],")
    print("]")
    print("bias = [" + ", ".join(f"{v:.5f}" for v in solution[-1].tolist()) + "]")


if __name__ == "__main__":
    main()
