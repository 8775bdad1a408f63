"""Random pieces of the training photographs, and the change between pictures and tensors.

A piece is cut out of a photograph and shrunk by a factor between 1.5 and 6, as a photograph of 1024 pixels is when it
is edited at 256: so the pieces are as sharp as what the model meets later. Every 17th photograph is held out.
"""
import glob
import os

import numpy as np
import torch
from PIL import Image, ImageOps


class Photos:
    def __init__(self, folder, held_out=False):
        files = sorted(glob.glob(os.path.join(folder, "*.jpg")))
        self.files = [f for i, f in enumerate(files) if (i % 17 == 3) == held_out]
        if not self.files:
            raise SystemExit(f"no photographs in {folder}: run fetch_photos.py first")
        self.loaded = {}

    def load(self, file):
        if file not in self.loaded:
            self.loaded[file] = Image.open(file).convert("RGB")
        return self.loaded[file]

    def piece(self, rng, width, height):
        """A random piece of a random photograph, as a picture of the given size; flat pieces are mostly passed over."""
        for _ in range(20):
            photo = self.load(rng.choice(self.files))
            most = min(photo.width / width, photo.height / height)
            factor = min(most, np.exp(rng.uniform(np.log(1.5), np.log(6))))
            w, h = width * factor, height * factor
            x, y = rng.uniform(0, photo.width - w), rng.uniform(0, photo.height - h)
            method = rng.choice([Image.LANCZOS, Image.BICUBIC])
            piece = photo.resize((width, height), method, box=(x, y, x + w, y + h), reducing_gap=2.0)
            if np.asarray(piece).std() > 8 or rng.random() < 0.1:
                break
        return ImageOps.mirror(piece) if rng.random() < 0.5 else piece


def to_tensor(image):
    """8-bit picture to a tensor (3, height, width) in -1..1."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


def from_tensor(tensor):
    """Tensor (3, height, width) in -1..1 to an 8-bit picture, rounded."""
    array = (tensor.clamp(-1, 1) + 1) * 127.5
    return Image.fromarray((array + 0.5).byte().permute(1, 2, 0).numpy())
