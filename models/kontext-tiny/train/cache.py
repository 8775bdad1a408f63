"""Caches what the transformer learns from: latents of pieces of photographs and of their edited versions.

Each piece is edited in several ways (the harder edits are drawn more often). The file holds a list of groups, one per
picture size, each a dict of `source` (pieces, 16, h, w), `target` (pairs, 16, h, w), `piece` (pairs: the index of the
source) and `edit` (pairs: the index into edits.NAMES).
"""
import argparse
import random
import time

import torch
from diffusers import AutoencoderKL

import edits
from data import Photos, to_tensor

HARD = ["pixelated", "posterised", "vivid", "sketch", "neon", "black-and-white", "soft-blur"]


@torch.no_grad()
def group(vae, photos, rng, width, height, pieces, edits_each):
    source, target, piece_of, edit_of = [], [], [], []
    per_batch = max(1, 128 * 128 * 8 // (width * height))
    for start in range(0, pieces, per_batch):
        originals, edited = [], []
        for i in range(start, min(start + per_batch, pieces)):
            piece = photos.piece(rng, width, height)
            originals.append(to_tensor(piece))
            chosen = []
            while len(chosen) < edits_each:
                name = rng.choice(edits.NAMES + HARD)
                if name not in chosen:
                    chosen.append(name)
            for name in chosen:
                edited.append(to_tensor(edits.apply(name, piece)))
                piece_of.append(i)
                edit_of.append(edits.NAMES.index(name))
        batch = torch.stack(originals + edited).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(batch).latent_dist.mean.float().contiguous()
        source.append(latents[: len(originals)].clone())
        target.append(latents[len(originals) :].clone())
    return dict(
        source=torch.cat(source),
        target=torch.cat(target),
        piece=torch.tensor(piece_of),
        edit=torch.tensor(edit_of),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", default="photos")
    parser.add_argument("--vae", default="vae")
    parser.add_argument("--out", default="cache.pt")
    parser.add_argument("--pieces", type=int, default=2400, help="pieces of 128 px; other sizes in proportion")
    parser.add_argument("--edits-each", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(2)
    vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32).eval().to(memory_format=torch.channels_last)
    photos, rng, begin = Photos(args.photos), random.Random(3), time.time()
    sizes = [(128, 128, 1.0), (256, 256, 0.12), (320, 208, 0.03), (208, 320, 0.03)]
    groups = []
    for width, height, share in sizes:
        groups.append(group(vae, photos, rng, width, height, int(args.pieces * share), args.edits_each))
        pairs = len(groups[-1]["edit"])
        print(f"{width} x {height}: {pairs} pairs, {(time.time() - begin) / 60:.1f} min", flush=True)
        torch.save(groups, args.out)


if __name__ == "__main__":
    main()
