#!/usr/bin/env python3
"""Weights in every format and the numbers they stand for, for kernels/src/tests/quant.rs: gguf 0.19.0, torch 2.15.0.

    python make_quants.py OUT.bin

For each format in the order of FORMATS: the bytes of WEIGHTS random weights, then their values as little-endian float32.
Nothing is infinite or no number. Scales are any finite half, subnormal or zero too. The 8-bit floats begin with all codes.
"""
import sys

import gguf
import numpy as np
import torch

WEIGHTS = 1280
FORMATS = ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q5_1", "Q4_K", "Q4_0", "Q4_1", "Q3_K", "Q2_K"]
TORCH = {
    "F32": (torch.float32, np.uint32),
    "F16": (torch.float16, np.uint16),
    "BF16": (torch.bfloat16, np.uint16),
    "F8_E4M3": (torch.float8_e4m3fn, np.uint8),
    "F8_E5M2": (torch.float8_e5m2, np.uint8),
}
# Where a block holds half-precision numbers.
HALVES = {"Q8_0": [0], "Q6_K": [208], "Q5_K": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q4_0": [0], "Q4_1": [0, 2], "Q3_K": [108], "Q2_K": [80, 82]}

rng = np.random.default_rng(5)


def floats(dtype, code):
    """Random codes of a floating-point type; what is not finite is replaced by finite ones."""
    size = np.dtype(code).itemsize
    codes = np.frombuffer(rng.bytes(WEIGHTS * size), code).copy()
    if size == 1:
        codes[:256] = np.arange(256)
    while True:
        values = torch.from_numpy(codes.view(np.uint8)).view(dtype).float()
        bad = ~torch.isfinite(values).numpy()
        if not bad.any():
            return codes.tobytes(), values.numpy()
        codes[bad] = np.frombuffer(rng.bytes(int(bad.sum()) * size), code)


def blocks(name):
    """Random blocks of one of GGUF's types."""
    kind = gguf.GGMLQuantizationType[name]
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    data = np.frombuffer(rng.bytes(WEIGHTS // weights * size), np.uint8).reshape(-1, size).copy()
    for at in HALVES[name]:
        halves = rng.integers(0, 0x7C00, len(data)) | rng.integers(0, 2, len(data)) << 15
        data[:, at : at + 2] = halves.astype("<u2").reshape(-1, 1).view(np.uint8)
    return data.tobytes(), gguf.quants.dequantize(data, kind).ravel()


with open(sys.argv[1], "wb") as out:
    for name in FORMATS:
        data, values = floats(*TORCH[name]) if name in TORCH else blocks(name)
        assert np.isfinite(values).all() and values.dtype == np.float32 and values.size == WEIGHTS, name
        out.write(data + values.astype("<f4").tobytes())
