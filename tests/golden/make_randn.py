#!/usr/bin/env python3
"""Noise as torch's CPU generator makes it, for tests/it/seeds.rs: torch 2.15.0.

    python make_randn.py OUT.safetensors

Each tensor is named SEED.COUNT and holds torch.randn(COUNT, generator=torch.Generator().manual_seed(SEED)).
"""
import sys

import torch
from safetensors.torch import save_file

SEEDS = [0, 42, 2**32 - 1, 2**32 + 42, 2**63 - 1]
COUNTS = [16, 17, 31, 32, 100, 4096]

save_file(
    {f"{s}.{n}": torch.randn(n, generator=torch.Generator().manual_seed(s)) for s in SEEDS for n in COUNTS},
    sys.argv[1],
)
